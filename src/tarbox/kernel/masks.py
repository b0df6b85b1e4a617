"""Masked and read-only paths: parts of /proc and /sys that would tell of the host, or change it.

    mount --bind -o ro /dev/null /proc/kcore        mount --bind -o ro /proc/sys /proc/sys

Some files there aren't covered by any namespace. A file is hidden under the null device, a directory under an empty
read-only tmpfs; what may be read but not written is mounted on itself, read only. The null device is the host's own,
and checked to be it: the container's /dev is the image's to arrange.

man 5 proc, man 2 open_tree
"""

from __future__ import annotations

import os
from errno import ENOENT, ENOTDIR
from stat import S_ISCHR, S_ISDIR

from ..errors import ImageError, KernelError, UnsupportedError
from ..plan.step import CHILD, Slots, Step
from . import mounts, paths


def _open(slots: Slots, path: str) -> int:
    """The place, or -1 when this kernel doesn't have it.

    Below a /proc or /sys that was mounted before, it is looked for in that very directory. Whoever can change the files
    of a root that a container writes to could put another one in its place for a moment, to be covered instead.
    """
    root, name = slots.take("root"), path.lstrip("/")
    top, _, below = name.partition("/")
    mounted = slots.found.get(f"top of /{top}")
    if mounted is None or not below:
        return _look(root, name)
    place = _look(root, top)
    try:
        facts = os.fstat(place) if place >= 0 else None
        if facts is None or (facts.st_dev, facts.st_ino) != mounted:
            hint = "does its image lead it elsewhere, or does something change its files right now?"
            raise ImageError(f"/{top} in the container isn't what was mounted there", hint)
        return _look(place, below)
    finally:
        if place >= 0:
            os.close(place)


def _look(directory: int, path: str) -> int:
    try:
        return paths.open_in(directory, path)
    except KernelError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return -1
        raise


def _empty_directory() -> int:
    return mounts.new_filesystem("tmpfs", ("size=0k",), ("ro",))


def _null_device() -> int:
    """The host's null device. Read only, else root inside could change the mode and owner of the host's."""
    null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        facts = os.fstat(null)
        if not S_ISCHR(facts.st_mode) or facts.st_rdev != os.makedev(1, 3):
            raise UnsupportedError("this machine's /dev/null isn't the null device", "restore it: mknod c 1 3")
        cover = mounts.clone_tree(null)
    finally:
        os.close(null)
    mounts.set_attributes(cover, ("ro",))
    return cover


class MaskPaths(Step):
    """Hide files and directories of the container."""

    __slots__ = ("paths",)

    phase = "filesystem"
    why = "these files show the host's memory, keys or hardware, and no namespace covers them"
    man = "move_mount(2), proc(5)"

    def __init__(self, hidden: tuple[str, ...], by: str = CHILD) -> None:
        super().__init__(by)
        self.paths = hidden

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        covers: dict[bool, int] = {}  # the first of each kind, for directories and for files
        try:
            for path in self.paths:
                place = _open(slots, path)
                if place < 0:
                    continue
                try:
                    directory = S_ISDIR(os.fstat(place).st_mode)
                    if directory in covers:
                        cover = mounts.clone_tree(covers[directory])
                    else:
                        cover = covers[directory] = _empty_directory() if directory else _null_device()
                    mounts.attach(cover, place)
                    if cover != covers[directory]:
                        os.close(cover)
                finally:
                    os.close(place)
        finally:
            for cover in covers.values():
                os.close(cover)

    def call(self) -> str:
        return f"move_mount(open_tree(/dev/null), {', '.join(self.paths)})"

    def shell(self) -> str:
        return "for path in " + " ".join(self.paths) + "; do mount --bind -o ro /dev/null $ROOT$path; done"


class ReadOnlyPaths(Step):
    """Make parts of the container read only, in place."""

    __slots__ = ("paths",)

    phase = "filesystem"
    why = "these may be read, but writing to them would change settings of the whole machine"
    man = "mount_setattr(2), proc(5)"

    def __init__(self, protected: tuple[str, ...], by: str = CHILD) -> None:
        super().__init__(by)
        self.paths = protected

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        for path in self.paths:
            place = _open(slots, path)
            if place < 0:
                continue
            try:
                tree = mounts.clone_tree(place, recursive=True)
                try:
                    mounts.set_attributes(tree, ("ro",), recursive=True)
                    mounts.attach(tree, place)
                finally:
                    os.close(tree)
            finally:
                os.close(place)

    def call(self) -> str:
        return f"mount_setattr(open_tree({', '.join(self.paths)}), MOUNT_ATTR_RDONLY)"

    def shell(self) -> str:
        return "for path in " + " ".join(self.paths) + "; do mount --bind -o ro $ROOT$path $ROOT$path; done"


class ReadOnlyRoot(Step):
    """Make the container's root file system read only."""

    __slots__ = ()

    phase = "root"
    why = "nothing can be written but to what is mounted on top; it comes last, when all directories are made"
    man = "mount_setattr(2)"

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        mounts.set_attributes(slots.take("root"), ("ro",))

    def call(self) -> str:
        return 'mount_setattr(ROOT, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY)'

    def shell(self) -> str:
        return "mount -o remount,bind,ro $ROOT"
