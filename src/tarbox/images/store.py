"""An archive on its way into the store: read once, hashed, unpacked aside, put in place whole.

    sha256sum ARCHIVE; tar -xpf ARCHIVE -C SCRATCH; sync -f SCRATCH; mv SCRATCH layers/sha256-DIGEST

One thread reads, decompresses and hashes, which Python's libraries do without its lock; this one makes the files. Eight
pieces of a mebibyte are on the way between them at most, whatever the archive.

man 2 syncfs, man 2 rename, man 2 flock
"""

from __future__ import annotations

import fcntl
import queue
import re
import threading
from hashlib import sha256

from ..errors import ArchiveError, StorageError
from ..kernel.syscall import syscall
from ..kernel.trees import remove_tree
from ..unistd import os
from . import architecture
from .archive import Archive
from .compression import BLOCK, PIECE, decompress, detect
from .extraction import Extraction, privileged
from .layers import PLACES, PLACES_OF_FILES, Layers, file_key, is_url, lock_path, open_file
from .progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from hashlib import _Hash as Digest

    from .archive import Entry

_READ = 256 << 10  # bytes of the file at a time
_ON_THE_WAY = 8  # pieces
_SPARED = 32 << 20  # bytes of disk that are never filled
_MARKS = (b"manifest.json", b"oci-layout")
_OF_IMAGES = re.compile(
    rb"(manifest\.json|oci-layout|index\.json|repositories|blobs(/.*)?|[0-9a-f]{64}(\.json|\.tar|/.*)?)"
)


class Unpacked:
    """What was unpacked: its digests ("sha256:HEX"), the archive's size, the number of entries, and warnings."""

    __slots__ = ("digest", "entries", "size", "source_digest", "warnings")

    def __init__(self, digest: str, source_digest: str, size: int, entries: int, warnings: list[str]) -> None:
        self.digest = digest
        self.source_digest = source_digest
        self.size = size
        self.entries = entries
        self.warnings = warnings


def unpack(source: str, link: str, scratch: str, again: bool = False, platform: str = "") -> list[str]:
    """Bring `source` into the store as the symlink `link` says, unless it is there; the warnings are returned.

    source: a path or an http(s) URL. link: `Layers.link(source)`. scratch: a directory to make and to rename.
    again: even when it is there. platform: the architecture that it must have, "" for any that runs here.
    Two commands that want the same source unpack it once; the second waits. Raises ArchiveError, StorageError,
    ArchitectureError (the layer then is in the store) and what a download raises; a failure leaves nothing.
    """
    data = os.path.dirname(os.path.dirname(link))
    layers = Layers(data)
    try:
        for name in ("layers", "sources", "scratch"):
            os.makedirs(f"{data}/{name}", 0o700, exist_ok=True)
        lock = _lock(lock_path(link))
    except OSError as error:
        raise StorageError(f"can't write to the data root {data}: {error.strerror}", "see --root") from None
    warnings: list[str] = []
    try:
        layer = layers.read(link)
        if layer is None or again:
            warnings = _import(source, link, scratch, data)
            _make_places(layers.places(), f"{scratch}/places")
            layer = layers.read(link)
    except OSError as error:
        where = error.filename or data
        raise StorageError(f"can't write to the data root: {where}: {error.strerror}", "see --root") from None
    finally:
        try:
            remove_tree(scratch)
        finally:
            _unlock(lock, lock_path(link))
    if layer is None:
        raise StorageError(f"what was unpacked from {source} is gone from {data}", "was it removed meanwhile?")
    architecture.require(layer.architecture, source, platform)
    return warnings


def _make_places(path: str, scratch: str) -> None:
    """Make the layer `Layers.places`, unless it is there; whatever the umask, all may read it."""
    if os.path.isdir(path):
        return
    for name in ("", *PLACES):
        os.makedirs(f"{scratch}/{name}", 0o755)
        os.chmod(f"{scratch}/{name}", 0o755)
    for name in PLACES_OF_FILES:
        file = os.open(f"{scratch}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.fchmod(file, 0o644)
        os.close(file)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    try:
        os.rename(scratch, path)
    except OSError:
        if not os.path.isdir(path):  # else another command was faster
            raise


def _import(source: str, link: str, scratch: str, data: str) -> list[str]:
    os.mkdir(scratch, 0o700)
    os.chmod(scratch, 0o700)
    os.mkdir(scratch + "/fs", 0o700)
    if is_url(source):
        from .download import download

        archive = scratch + "/download"
        download(source, archive)
        file = open_file(archive)
        os.unlink(archive)
    else:
        file = open_file(source)
    try:
        before = file_key(os.fstat(file))
        if not is_url(source) and before != os.path.basename(link):
            raise ArchiveError(f"{source} was replaced meanwhile", "try again")
        done = unpack_file(file, source, scratch + "/fs")
        if file_key(os.fstat(file)) != before:
            raise ArchiveError(f"{source} was written to while it was read", "try again")
    finally:
        os.close(file)
    _place(done, link, scratch, data)
    return done.warnings


def unpack_file(file: int, name: str, directory: str) -> Unpacked:
    """Unpack the archive in the descriptor `file` into an empty directory that nobody else can enter.

    name: what to call it in messages. Nothing is taken away on failure.
    """
    tree = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        room = os.fstatvfs(tree)
        free = max(0, room.f_bavail * room.f_frsize - _SPARED)
        size = os.fstat(file).st_size
        kind = detect(os.pread(file, BLOCK, 0), name)
        extraction = Extraction(tree, name, free, privileged())
        with Progress(os.path.basename(name), size) as progress, Pieces(file, kind, name, progress) as pieces:
            archive = Archive(_first_is_tar(pieces, kind, name), name, marked=kind == "tar")
            extraction.extract(_root_filesystem(archive, name), archive)
            archive.drain()
        if not extraction.entries:
            raise ArchiveError(f"{name} is an archive without files")
        warnings = extraction.warnings() + [
            f"{name}: {what} ({count} times)" for what, count in archive.warnings.items()
        ]
        return Unpacked(pieces.digest, pieces.source_digest, size, extraction.entries, warnings)
    finally:
        os.close(tree)


class Pieces:
    """The uncompressed pieces of a file, made by another thread; iterating gives them.

    At the end `digest` is that of all pieces, `source_digest` that of the file as it is.
    """

    __slots__ = ("_file", "_kind", "_name", "_progress", "_queue", "_stop", "_thread", "digest", "source_digest")

    def __init__(self, file: int, kind: str, name: str, progress: Progress) -> None:
        self._file = file
        self._kind = kind
        self._name = name
        self._progress = progress
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_ON_THE_WAY)
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="decompress", daemon=True)
        self.digest = self.source_digest = ""

    def __enter__(self) -> Pieces:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop = True
        while self._thread.is_alive():  # it may wait for room in the queue
            while not self._queue.empty():
                self._queue.get()
            self._thread.join(0.002)

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def _run(self) -> None:
        try:
            digest, source_digest = sha256(), sha256()
            for piece in decompress(self._kind, self._chunks(source_digest), self._name):
                digest.update(piece)
                self._queue.put(piece)
                if self._stop:
                    return
            self.source_digest = "sha256:" + source_digest.hexdigest()
            self.digest = "sha256:" + digest.hexdigest()
            self._queue.put(None)
        except BaseException as error:  # raised again where the pieces are used
            self._queue.put(error)

    def _chunks(self, digest: Digest) -> Iterator[bytes]:
        size = PIECE if self._kind == "tar" else _READ
        while not self._stop and (chunk := os.read(self._file, size)):
            digest.update(chunk)
            self._progress.advance(len(chunk))
            yield chunk


def _first_is_tar(pieces: Iterable[bytes], kind: str, name: str) -> Iterator[bytes]:
    """The same pieces; raises ArchiveError when what was decompressed isn't a tar archive."""
    rest = iter(pieces)
    head = b""
    while len(head) < BLOCK and (piece := next(rest, b"")):
        head += piece
    if kind != "tar":
        inner = detect(head, f"what {name} holds, compressed with {kind},")
        if inner != "tar":
            raise ArchiveError(f"{name} is compressed twice, with {kind} and {inner}", f"undo the {kind} first")
    yield head
    yield from rest


def _root_filesystem(entries: Iterable[Entry], name: str) -> Iterator[Entry]:
    """The same entries; raises ArchiveError when they turn out to be those of an image archive."""
    maybe = True
    for entry in entries:
        if maybe:
            path = entry.name.removeprefix(b"./").rstrip(b"/")
            maybe = not path or path == b"." or _OF_IMAGES.fullmatch(path) is not None
            if maybe and path in _MARKS:
                raise ArchiveError(
                    f"{name} is an image archive with layers (as of docker save), not a root filesystem",
                    "make a root filesystem tarball: docker export, or mmdebstrap",
                )
        yield entry


def _place(done: Unpacked, link: str, scratch: str, data: str) -> None:
    """Put what was unpacked in its place: all of it reaches the disk before its name does."""
    tree = os.open(scratch + "/fs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = (
            ("digest", done.digest),
            ("source-digest", done.source_digest),
            ("size", done.size),
            ("entries", done.entries),
            ("architecture", architecture.architecture(tree) or ""),
        )
        with open(scratch + "/layer", "x") as text:
            text.writelines(f"{name} {value}\n" for name, value in facts)
        syscall("syncfs", tree, hint="is the disk full or failing?")
    finally:
        os.close(tree)
    layer = "sha256-" + done.digest.removeprefix("sha256:")
    layers = Layers(data)
    if layers.read(f"{data}/layers/{layer}") is None:
        broken = f"{data}/layers/{layer}"
        remove_tree(broken)
        try:
            os.rename(scratch, broken)
        except OSError:
            if layers.read(broken) is None:  # else another command was faster with the same contents
                raise
        _sync(f"{data}/layers")
    os.makedirs(scratch, 0o700, exist_ok=True)  # it may be the layer by now
    os.symlink(f"../layers/{layer}", f"{scratch}/link")
    os.rename(f"{scratch}/link", link)  # over one to a layer that is gone, or to what was fetched before
    _sync(f"{data}/sources")


def _sync(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(path: str) -> int:
    """Hold the lock file `path` alone; waits for whoever holds it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if os.isatty(2):
                os.write(2, b"tarbox: waiting for another command that unpacks this image\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.stat(path).st_ino == os.fstat(lock).st_ino:
                return lock
        except FileNotFoundError:  # its holder took it away when it was done
            pass
        os.close(lock)


def _unlock(lock: int, path: str) -> None:
    try:
        os.unlink(path)
    finally:
        os.close(lock)
