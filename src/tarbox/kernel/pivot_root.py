"""pivot_root: make a directory the whole file system, and let go of the old one.

    cd NEW_ROOT; pivot_root . .; umount -l .

`chroot` only moves the starting point: the old root is still mounted, and a privileged process can climb back to it.
After `pivot_root` and the unmounting of what was the root before, there is nothing left to climb back to.

man 2 pivot_root
"""

from __future__ import annotations

from errno import ELOOP, ENOTDIR

from ..errors import ImageError, KernelError
from ..plan.step import PARENT, RUNNER, Row, Slots, Step
from ..unistd import S_ISDIR, os
from . import paths
from .mount_points import place_rows, tree_of
from .mounts import AT_FDCWD, attributes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

_MNT_DETACH = 2
_MOVE_MOUNT_F_EMPTY_PATH = 4


class AttachRoot(Step):
    """Attach the container's root (the slot "tree") over the caller's "/", where only this mount namespace sees it."""

    __slots__ = ()

    phase = "filesystem"
    why = "the new root must be a mount of this namespace before anything can be mounted on it or it can be entered"
    man = "move_mount(2)"

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("move_mount", (slots.take("tree"), b"", AT_FDCWD, b"/", _MOVE_MOUNT_F_EMPTY_PATH))]

    def call(self) -> str:
        return 'move_mount(tree, "/")'

    def shell(self) -> str:
        return "mount --bind $ROOT $ROOT"


class PivotRoot(Step):
    """Make the container's root "/" and detach everything that was there before."""

    __slots__ = ()

    phase = "root"
    why = "unlike chroot it leaves nothing to climb back to: the host's file systems are gone from this namespace"
    man = "pivot_root(2)"

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def rows(self, slots: Slots) -> list[Row]:
        return [
            Row("fchdir", (slots.take("tree"),)),
            Row("pivot_root", (b".", b".")),  # the old root now lies on top of the new one, at the same place
            Row("umount2", (b".", _MNT_DETACH)),
            Row("chdir", (b"/",)),
        ]

    def call(self) -> str:
        return 'fchdir(ROOT), pivot_root(".", "."), umount2(".", MNT_DETACH), chdir("/")'

    def shell(self) -> str:
        return "cd $ROOT && pivot_root . . && umount -l . && cd /"


class FindDirectory(Step):
    """Find the working directory of the program, by descriptor; make it when it's missing."""

    __slots__ = ("path",)

    phase = "filesystem"
    why = "the working directory is made when it's missing, and is found inside the root, whatever links lead there"
    man = "openat2(2)"

    def __init__(self, path: str) -> None:
        super().__init__(PARENT)
        self.path = path

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def gives(self) -> tuple[str, ...]:
        return ("directory",)

    def apply(self, slots: Slots) -> None:
        tree = tree_of(slots)
        try:
            place = tree.find(self.path, os.O_PATH | os.O_DIRECTORY, 0o755)[1]
        except KernelError as error:
            raise _explained(error, tree, self.path) from None
        if isinstance(place, paths.Beyond):
            slots.found["directory"] = place
        else:
            slots.give("directory", place)

    def call(self) -> str:
        return f'openat2(ROOT, "{self.path}", {{O_PATH|O_DIRECTORY, RESOLVE_IN_ROOT}})'

    def shell(self) -> str:
        return f"mkdir -p $ROOT{self.path}"


class Enter(Step):
    """Make a directory of the container the working directory, as the program is to find it."""

    __slots__ = ("path",)

    phase = "root"
    why = "the program starts there; a descriptor was opened before, so that nothing can be put in its place"
    man = "chdir(2)"

    def __init__(self, path: str) -> None:
        super().__init__(RUNNER)
        self.path = path

    def takes(self) -> tuple[str, ...]:
        return ("directory",)

    def rows(self, slots: Slots) -> list[Row]:
        rows, place = place_rows(slots, "directory", flags=os.O_DIRECTORY)
        return [*rows, Row("fchdir", (place,))]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        return _explained(KernelError("chdir", (self.path,), errno), tree_of(slots), self.path)

    def call(self) -> str:
        return f'fchdir("{self.path}")'

    def shell(self) -> str:
        return f"cd {self.path}"


class ReadOnlyRoot(Step):
    """Make the container's root file system read only."""

    __slots__ = ()

    phase = "root"
    why = "nothing can be written but to what is mounted on top; it comes last, when all directories are made"
    man = "mount_setattr(2)"

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("mount_setattr", (slots.take("tree"), b"", *attributes_of(("ro",))))]

    def call(self) -> str:
        return 'mount_setattr(ROOT, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY)'

    def shell(self) -> str:
        return "mount -o remount,bind,ro $ROOT"


def _explained(error: KernelError, tree: paths.Tree, path: str) -> TarboxError:
    """Why a working directory can't be entered, where more is known than what the kernel says."""
    if error.errno == ELOOP:
        text = f"the working directory {path} leads through a link of /proc, or through links in a circle"
        return ImageError(text, "links of /proc aren't followed: name the directory itself")
    if error.errno == ENOTDIR:
        names = path.strip("/").split("/")
        for count in range(1, len(names) + 1):
            try:
                place = tree.find(above := "/" + "/".join(names[:count]))[1]
            except KernelError:
                break
            if isinstance(place, paths.Beyond):
                break
            try:
                if not S_ISDIR(os.fstat(place).st_mode):
                    return ImageError(f"{above} in the container is a file, not a directory", "choose another with -w")
            finally:
                os.close(place)
    return error
