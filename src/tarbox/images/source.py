"""What IMAGE means: `host`, a directory, or a root filesystem tarball.

    tarbox run host …        tarbox run ./rootfs …        tarbox run ./rootfs:O …        tarbox run ./debian.tar …

A source knows which steps bring its files to the container's root; it does none of them.
"""

from __future__ import annotations

from ..errors import ImageNotFoundError, UsageError
from ..kernel.syscall import MACHINE
from ..unistd import os
from .snapshots import overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Step
    from ..spec.runtime import ImageConfig

HOST, DIRECTORY, ARCHIVE = "host", "directory", "archive"
_OURS = ("", {"x86_64": "amd64", "aarch64": "arm64"}.get(MACHINE, MACHINE))  # runs here, or nobody knows
_LONGEST = 200  # letters of a name in an error


class Source:
    """An image that was found. kind: one of the three. place: its path or URL. discard: writes are thrown away.

    pull: "missing", "always" (a URL is fetched again) or "never". platform: the architecture that it must have, "" for
    any that runs here. quiet: nothing is told of how far fetching it is.
    """

    __slots__ = ("discard", "kind", "place", "platform", "pull", "quiet")

    def __init__(self, kind: str, place: str, discard: bool) -> None:
        self.kind = kind
        self.place = place
        self.discard = discard
        self.pull, self.platform, self.quiet = "missing", "", False

    def choose(self, pull: str, platform: str, quiet: bool) -> Source:
        """The same, with those three; raises ArchitectureError where it can be told already that it can't run."""
        self.pull, self.platform, self.quiet = pull, platform, quiet
        if platform:
            from .architecture import require_platform

            require_platform(platform, self.place if self.kind == DIRECTORY else "", self.kind == HOST)
        return self

    def config(self) -> ImageConfig:
        """What the image says of how to run it; a bare root filesystem says nothing."""
        return {}

    def root(self) -> str:
        """The path for the OCI config."""
        return "/" if self.kind == HOST else self.place

    def steps(self, data: str, scratch: str, memory: int, privileged: bool) -> list[Step]:
        """The steps that bring its files to the slot "tree".

        data: the data root. scratch: a directory for what this container writes. memory: bytes of a tmpfs that takes
        the writes instead; 0 for none. privileged: whether the caller is root.
        """
        if self.kind == DIRECTORY and not self.discard and not memory:
            return []
        if self.kind == HOST:
            from . import host

            return host.steps(scratch, memory, privileged)
        before: list[Step] = []
        place = self.place
        below: tuple[str, ...] = ()
        if self.kind == ARCHIVE:
            from .layers import Layers, is_url

            layers = Layers(data)
            place = layers.place(self.place)
            layer = layers.find(self.place)
            again = self.pull == "always" and is_url(self.place)
            if layer is None and self.pull == "never" and is_url(self.place):
                raise ImageNotFoundError(f"{self.place} was never fetched, and --pull never forbids it", "leave it out")
            if layer is None or again:
                before = [layers.unpack(self.place, again, self.platform, self.quiet)]
            elif layer.architecture not in _OURS or self.platform:
                from .architecture import require

                require(layer.architecture, self.place, self.platform)
            if before or os.path.isdir(layers.places()):  # not where an older version unpacked it
                below = (layers.places(),)
        return [*before, *overlay.steps("tree", (place, *below), scratch, memory, privileged)]


def find(image: str, rootfs: str = "") -> Source:
    """What `image` (or `--rootfs`) is; raises ImageNotFoundError that says what it could have been."""
    name = rootfs or image
    path, discard = (name[:-2], True) if name.endswith(":O") else (name, False)
    shown = path if len(path) <= _LONGEST else path[: _LONGEST - 3] + "..."
    if rootfs:
        if not os.path.isdir(path):
            raise ImageNotFoundError(f"--rootfs {shown}: there is no such directory")
        return Source(DIRECTORY, os.path.abspath(path), discard)
    if name == HOST:
        return Source(HOST, "/", True)
    if name.startswith(("http://", "https://")):
        return Source(ARCHIVE, name, True)
    if os.path.basename(path) == path and not path.startswith((".", "~")):
        if os.path.exists(path):
            raise ImageNotFoundError(f"there is no image {shown}", f"for the one here: ./{shown}")
        known = "host, a directory such as ./rootfs, a tarball such as ./debian.tar, or its URL"
        raise ImageNotFoundError(f"there is no image {shown}, and this version knows no registries", f"give {known}")
    if os.path.isdir(path):
        return Source(DIRECTORY, os.path.abspath(path), discard)
    if discard:
        raise UsageError(f"{name}: only a directory takes :O", "a tarball is never written to")
    if not os.path.exists(path):
        raise ImageNotFoundError(f"there is no {shown}", "is the path right, seen from here?")
    return Source(ARCHIVE, os.path.abspath(path), True)
