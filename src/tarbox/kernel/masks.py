"""Masked and read-only paths: parts of /proc and /sys that would tell of the host, or change it.

    mount --bind -o ro /dev/null /proc/kcore        mount --bind -o ro /proc/sys /proc/sys

Some files there aren't covered by any namespace. A file is hidden under the null device, a directory under an empty
read-only tmpfs; what may be read but not written is mounted on itself, read only. The null device is the host's own,
and checked to be it: the container's /dev is the image's to arrange. The paths are looked for in the very /proc that
was mounted, by its descriptor, whatever the image's files lead to.

man 5 proc, man 2 open_tree
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, ENOTDIR

from ..errors import KernelError, UnsupportedError
from ..plan.step import PARENT, RUNNER, Register, Row, Slots, Step
from ..unistd import S_ISCHR, S_ISDIR, os
from . import paths
from .mount_points import tree_of
from .mounts import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    attaching,
    attributes_of,
    clone_tree,
    new_filesystem,
    set_attributes,
)  # fmt: skip

_MOVE_MOUNT_F_EMPTY_PATH = 4
_MISSING = (ENOENT, ENOTDIR)


class OpenCovers(Step):
    """Open what hides others: the null device, read only, into "null", and an empty directory into "empty"."""

    __slots__ = ()

    phase = "filesystem"
    why = "a file is hidden under the null device and a directory under an empty one; both are checked to be that"
    man = "open_tree(2), null(4)"

    def __init__(self) -> None:
        super().__init__(PARENT)

    def gives(self) -> tuple[str, ...]:
        return ("null", "empty")

    def apply(self, slots: Slots) -> None:
        null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            facts = os.fstat(null)
            if not S_ISCHR(facts.st_mode) or facts.st_rdev != os.makedev(1, 3):
                hint = "restore it: mknod c 1 3"
                raise UnsupportedError("this machine's /dev/null isn't the null device", hint)
            slots.give("null", cover := clone_tree(null))
        finally:
            os.close(null)
        set_attributes(cover, ("ro",))  # else root inside could change the mode and owner of the host's
        slots.give("empty", new_filesystem("tmpfs", ("size=0k",), ("ro",)))

    def call(self) -> str:
        return 'open_tree("/dev/null", OPEN_TREE_CLONE), mount_setattr(MOUNT_ATTR_RDONLY), fsmount("tmpfs")'


def _look(slots: Slots, path: str) -> tuple[int | Register, str] | None:
    """Where to look for a path: in a file system of the runner's, by name, or a descriptor; None when there is none."""
    try:
        place = tree_of(slots).find(path)[1]
    except KernelError as error:
        if error.errno in _MISSING:
            return None
        raise
    if isinstance(place, paths.Beyond):
        return slots.argument(place.slot), place.rest
    slots.give(f"covered {path}", place)
    return place, ""


class MaskPaths(Step):
    """Hide files and directories of the container."""

    __slots__ = ("paths",)

    phase = "filesystem"
    why = "these files show the host's memory, keys or hardware, and no namespace covers them"
    man = "move_mount(2), proc(5)"

    def __init__(self, hidden: tuple[str, ...]) -> None:
        super().__init__(RUNNER)
        self.paths = hidden

    def takes(self) -> tuple[str, ...]:
        return ("tree", "null", "empty")

    def rows(self, slots: Slots) -> list[Row]:
        null, empty = slots.take("null"), slots.take("empty")
        # A tree can be cloned once it is attached: over files of the old root, which goes soon.
        rows = [
            Row("move_mount", (null, b"", AT_FDCWD, b"/dev/null", _MOVE_MOUNT_F_EMPTY_PATH)),
            Row("move_mount", (empty, b"", AT_FDCWD, b"/proc", _MOVE_MOUNT_F_EMPTY_PATH)),
        ]
        for path in self.paths:
            if (where := _look(slots, path)) is None:
                continue
            top, rest = where
            if not rest:
                rows += _covering(empty if S_ISDIR(os.fstat(slots.take(f"covered {path}")).st_mode) else null, top)
                continue
            # Not there, or a file, or a directory: which it is, the kernel tells when it's covered.
            rows.append(paths.opening(top, rest, 2, 0, ((ENOENT, 4), (ENOTDIR, 4))))
            file, directory = _covering(null, Register(2)), _covering(empty, Register(2))
            file[1].on, file[1].skip = ((ENOTDIR, 0), (EINVAL, 0)), 2
            rows += [*file, *directory]
        return rows

    def call(self) -> str:
        return f"move_mount(open_tree(/dev/null), {', '.join(self.paths)})"

    def shell(self) -> str:
        return "for path in " + " ".join(self.paths) + "; do mount --bind -o ro /dev/null $ROOT$path; done"


def _covering(cover: int, place: int | Register) -> list[Row]:
    clone = Row("open_tree", (cover, b"", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH), store=3)
    return [clone, attaching(Register(3), place)]


class ReadOnlyPaths(Step):
    """Make parts of the container read only, in place."""

    __slots__ = ("paths",)

    phase = "filesystem"
    why = "these may be read, but writing to them would change settings of the whole machine"
    man = "mount_setattr(2), proc(5)"

    def __init__(self, protected: tuple[str, ...]) -> None:
        super().__init__(RUNNER)
        self.paths = protected

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def rows(self, slots: Slots) -> list[Row]:
        rows: list[Row] = []
        clone = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE
        for path in self.paths:
            if (where := _look(slots, path)) is None:
                continue
            top, rest = where
            if rest:
                rows.append(paths.opening(top, rest, 2, 0, ((ENOENT, 3), (ENOTDIR, 3))))
            place = Register(2) if rest else top
            rows += [
                Row("open_tree", (place, b"", clone), store=3),
                Row("mount_setattr", (Register(3), b"", *attributes_of(("ro",), recursive=True))),
                attaching(Register(3), place),
            ]
        return rows

    def call(self) -> str:
        return f"mount_setattr(open_tree({', '.join(self.paths)}), MOUNT_ATTR_RDONLY)"

    def shell(self) -> str:
        return "for path in " + " ".join(self.paths) + "; do mount --bind -o ro $ROOT$path $ROOT$path; done"
