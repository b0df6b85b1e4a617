"""Where unpacked images live in the data root, and how a run finds its own without reading it.

    DATA/layers/sha256-HEX/fs       an unpacked tree; HEX is the digest of the uncompressed archive (the OCI's diff_id)
    DATA/layers/sha256-HEX/layer    what is known of it: lines of NAME VALUE
    DATA/sources/KEY                a symlink to the layer that came from a file or a URL
    DATA/cache/places               a layer below any other, of what containers mount something on: see `PLACES`
    DATA/scratch/NAME               what is being unpacked; put in place by rename: all of it or nothing

KEY is made from what stat(2) says of a file, or from a URL, never from contents: to find costs a stat and an open.
Everything is for the owner alone: an old image's set-user-ID programs must not be there for others to execute.

man 1 tar, man 2 rename, man 2 flock
"""

from __future__ import annotations

import time

from ..errors import ArchiveError, ImageNotFoundError, StorageError
from ..plan.step import PARENT, Step
from ..unistd import S_ISDIR, S_ISREG, os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Slots


# What is mounted on in every container, and may be missing in its image. Made in the container's own directory of
# changes, each costs the disk a copy of the directory above it, and as much again when all that is taken away.
PLACES = ("dev", "etc", "proc", "sys")
PLACES_OF_FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf")


def places_command(path: str) -> str:
    """The shell command that makes that layer. path: spelled for the shell."""
    folders, files = (" ".join(f"{path}/{name}" for name in names) for names in (PLACES, PLACES_OF_FILES))
    return f"mkdir -p {folders} && touch {files} && chmod -R u=rwX,go=rX {path}"


class Layer:
    """An unpacked layer. tree: the path of its files. digest: "sha256:HEX" of the uncompressed archive.

    source_digest: of the file that it first came from, as it was given. size: bytes of that file.
    architecture: of its programs, in Go's and the OCI's words, "" where that couldn't be told.
    """

    __slots__ = ("architecture", "digest", "entries", "size", "source_digest", "tree")

    def __init__(self, path: str, facts: dict[str, str]) -> None:
        self.tree = path + "/fs"
        self.digest = facts["digest"]
        self.source_digest = facts["source-digest"]
        self.size = int(facts["size"])
        self.entries = int(facts["entries"])
        self.architecture = facts.get("architecture", "")


class Layers:
    """The unpacked layers below one data root. data: its path."""

    __slots__ = ("data",)

    def __init__(self, data: str) -> None:
        self.data = os.path.abspath(data)

    def find(self, source: str) -> Layer | None:
        """The layer that was unpacked from `source`, None when it wasn't yet; raises ImageNotFoundError without source.

        source: a path, or an http or https URL.
        """
        return self.read(self.link(source))

    def place(self, source: str) -> str:
        """The path at which the files of `source` are once it is unpacked."""
        return self.link(source) + "/fs"

    def places(self) -> str:
        """The path of the layer that has nothing but `PLACES`; it is made when the first archive is unpacked."""
        return f"{self.data}/cache/places"

    def link(self, source: str) -> str:
        """The path of the symlink for `source`."""
        return f"{self.data}/sources/{key(source)}"

    def unpack(self, source: str, again: bool = False, platform: str = "", quiet: bool = False) -> Unpack:
        """The step that brings `source` to its place; the rest as for `Unpack`."""
        scratch = f"{self.data}/scratch/unpack-{os.getpid()}-{time.monotonic_ns()}"
        return Unpack(source, self.place(source), scratch, again, platform, quiet)

    def read(self, path: str) -> Layer | None:
        """The layer that the directory `path`, or the symlink there, holds; None when none does."""
        try:
            file = os.open(path + "/layer", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"can't read the layer {path}: {error.strerror}") from None
        try:
            text = os.read(file, 4096).decode("utf-8", "replace")
        finally:
            os.close(file)
        facts = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        try:
            return Layer(os.path.realpath(path), facts)
        except (KeyError, ValueError):
            return None


def is_url(source: str) -> bool:
    """Whether the source is to be downloaded."""
    return source.startswith(("http://", "https://"))


def key(source: str) -> str:
    """The name of a source below `sources`; raises ImageNotFoundError when there is no such file."""
    if is_url(source):
        plain = source.replace("%", "%25").replace("/", "%2f").replace("\0", "%00")
        if len(os.fsencode(plain)) <= 240:
            return "url-" + plain
        from hashlib import sha256

        return "url-sha256-" + sha256(os.fsencode(source)).hexdigest()
    try:
        return file_key(os.stat(source))
    except OSError as error:
        raise ImageNotFoundError(f"can't read {source}: {error.strerror}") from None


def file_key(found: os.stat_result) -> str:
    """The name of a file below `sources`: it changes when the file does, though nobody reads it."""
    numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return "file-" + "-".join(f"{value:x}" for value in numbers)


def lock_path(link: str) -> str:
    """The path of the file that is locked while the source of `link` (`Layers.link`) is unpacked."""
    folder, name = os.path.split(link)
    return f"{os.path.dirname(folder)}/scratch/{name[:240]}.lock"


def open_file(source: str) -> int:
    """A descriptor of the archive `source`, which must be a regular file; raises ArchiveError or ImageNotFoundError."""
    try:
        file = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImageNotFoundError(f"can't read {source}: {error.strerror}") from None
    mode = os.fstat(file).st_mode
    if S_ISREG(mode):
        return file
    os.close(file)
    what = "a directory" if S_ISDIR(mode) else "no regular file"
    raise ArchiveError(f"{source} is {what}, not an archive")


class Unpack(Step):
    """Unpack the archive `source` into the store, unless that was done by now.

    place: where its files will be (`Layers.place`). scratch: a directory, not there yet, to do it in. again: a URL is
    fetched though it was before. platform: the architecture that it must have, "" for any that runs here. quiet: show
    no progress.
    """

    __slots__ = ("again", "place", "platform", "quiet", "scratch", "source")

    phase = "image"
    why = "the image is an archive; it is unpacked once and then shared, read only, by all containers of it"
    man = "tar(1)"

    def __init__(
        self, source: str, place: str, scratch: str, again: bool = False, platform: str = "", quiet: bool = False,
        by: str = PARENT,
    ) -> None:  # fmt: skip
        super().__init__(by)
        self.source = source
        self.place = place
        self.scratch = scratch
        self.again = again
        self.platform = platform
        self.quiet = quiet

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("lock", lock_path(os.path.dirname(self.place))), ("tree", self.scratch))

    def apply(self, slots: Slots) -> None:
        from .store import unpack

        if self.quiet:
            from . import progress

            progress.shown = False
        link = os.path.dirname(self.place)
        for line in unpack(self.source, link, self.scratch, self.again, self.platform):
            slots.warn(line)

    def below(self) -> str:
        """The path of the layer below, which is made too where it isn't there."""
        return Layers(os.path.dirname(os.path.dirname(os.path.dirname(self.place)))).places()

    def call(self) -> str:
        return (
            f'openat2(dirfd, "NAME", RESOLVE_IN_ROOT), write, fchown, fsetxattr, fchmod, utimensat for each file of '
            f'{self.source}; syncfs(dirfd); rename("{self.scratch}", "DATA/layers/sha256-DIGEST"); '
            f'rename("{self.scratch}/places", "{self.below()}")'
        )

    def shell(self) -> str:
        from ..plan.shell import quote

        tree, target, link = self.scratch + "/fs", self.place, os.path.dirname(self.place)
        unpack = f"tar --numeric-owner --xattrs --xattrs-include='*' -xpf {quote(self.source)} -C {quote(tree)}"
        if is_url(self.source):
            downloaded = quote(self.scratch + "/download")
            unpack = f"curl -fLo {downloaded} {quote(self.source)} && " + unpack.replace(quote(self.source), downloaded)
        unless = "" if self.again else f"[ -e {quote(target)} ] || "
        below = quote(self.below())
        return (
            f"[ -d {below} ] || {{ {places_command(below)}; }}; "
            f"{unless}{{ mkdir -p -m 700 {quote(tree)} {quote(os.path.dirname(link))} && {unpack} && "
            f"mv {quote(self.scratch)} {quote(link)}; }}"
        )
