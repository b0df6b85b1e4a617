"""pivot_root: make a directory the whole file system, and let go of the old one.

    cd NEW_ROOT; pivot_root . .; umount -l .

`chroot` only moves the starting point: the old root is still mounted, and a privileged process can climb back to it.
After `pivot_root` and the unmounting of what was the root before, there is nothing left to climb back to.

man 2 pivot_root
"""

from __future__ import annotations

import os
from errno import ELOOP, ENOTDIR
from stat import S_ISDIR

from ..errors import ImageError, KernelError
from ..plan.step import CHILD, Slots, Step
from . import mounts, paths
from .syscall import syscall

_MNT_DETACH = 2
_MOVE_MOUNT_F_EMPTY_PATH = 4


class AttachRoot(Step):
    """Attach the container's root over the caller's "/", where only this mount namespace sees it.

    slot: the tree. It gives the slot "root": the descriptor from which every path in the container is walked.
    """

    __slots__ = ("slot",)

    phase = "filesystem"
    why = "the new root must be a mount of this namespace before anything can be mounted on it or it can be entered"
    man = "move_mount(2)"

    def __init__(self, slot: str = "tree", by: str = CHILD) -> None:
        super().__init__(by)
        self.slot = slot

    def takes(self) -> tuple[str, ...]:
        return (self.slot,)

    def gives(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        tree = slots.take(self.slot)
        syscall("move_mount", tree, b"", mounts.AT_FDCWD, b"/", _MOVE_MOUNT_F_EMPTY_PATH)
        slots.give("root", tree)

    def call(self) -> str:
        return f'move_mount({self.slot}, "/")'

    def shell(self) -> str:
        return "mount --bind $ROOT $ROOT"


class PivotRoot(Step):
    """Make the container's root "/" and detach everything that was there before."""

    __slots__ = ()

    phase = "root"
    why = "unlike chroot it leaves nothing to climb back to: the host's file systems are gone from this namespace"
    man = "pivot_root(2)"

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        os.fchdir(slots.take("root"))
        syscall("pivot_root", b".", b".")  # the old root now lies on top of the new one, at the same place
        syscall("umount2", b".", _MNT_DETACH)
        os.chdir("/")

    def call(self) -> str:
        return 'fchdir(ROOT), pivot_root(".", "."), umount2(".", MNT_DETACH)'

    def shell(self) -> str:
        return "cd $ROOT && pivot_root . . && umount -l . && cd /"


class Enter(Step):
    """Make a directory of the container the working directory, as the program is to find it."""

    __slots__ = ("path",)

    phase = "root"
    why = "the working directory is made when it's missing, and is checked to lie inside the root"
    man = "chdir(2)"

    def __init__(self, path: str, by: str = CHILD) -> None:
        super().__init__(by)
        self.path = path

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        try:
            directory = paths.make_directories(slots.take("root"), self.path)
        except KernelError as error:
            raise _explained(error, slots.take("root"), self.path) from None
        os.fchdir(directory)
        os.close(directory)
        os.getcwd()  # fails when it isn't reachable from "/"

    def call(self) -> str:
        return f'fchdir(openat2(ROOT, "{self.path}", RESOLVE_IN_ROOT))'

    def shell(self) -> str:
        return f"mkdir -p {self.path} && cd {self.path}"


def _explained(error: KernelError, root: int, path: str) -> Exception:
    """Why a working directory can't be entered, where more is known than what the kernel says."""
    if error.errno == ELOOP:
        text = f"the working directory {path} leads through a link of /proc, or through links in a circle"
        return ImageError(text, "links of /proc aren't followed: name the directory itself")
    if error.errno == ENOTDIR:
        names = path.strip("/").split("/")
        for count in range(1, len(names) + 1):
            place = paths.open_in(root, above := "/" + "/".join(names[:count]))
            try:
                if not S_ISDIR(os.fstat(place).st_mode):
                    return ImageError(f"{above} in the container is a file, not a directory", "choose another with -w")
            finally:
                os.close(place)
    return error
