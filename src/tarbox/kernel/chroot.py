"""chroot: another starting point for paths, and nothing more.

    chroot DIRECTORY COMMAND        cd DIRECTORY; COMMAND

What was the root before is still mounted, open directories still lead there, and a process with CAP_SYS_CHROOT climbs
out: it makes a second root below the first, stays outside of it, and goes up. `pivot_root.py` leaves nothing.

man 2 chroot, man 2 chdir
"""

from __future__ import annotations

from errno import EACCES, ENOENT, ENOTDIR

from ..errors import ImageNotFoundError, KernelError, UsageError
from ..plan.step import PARENT, RUNNER, Row, Slots, Step
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError


class OpenDirectory(Step):
    """Open a directory of the host as the slot "tree": what will be the root, or where names are looked up."""

    __slots__ = ("path",)

    phase = "filesystem"
    why = "a directory that was opened stays the same one, whatever happens to its name"
    man = "open(2)"

    def __init__(self, path: str) -> None:
        super().__init__(PARENT)
        self.path = path

    def gives(self) -> tuple[str, ...]:
        return ("tree",)

    def apply(self, slots: Slots) -> None:
        try:
            slots.give("tree", os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                raise ImageNotFoundError(f"there is no directory {self.path}") from None
            raise KernelError("open", (self.path,), error.errno or 0) from None

    def call(self) -> str:
        return f'open("{self.path}", O_PATH|O_DIRECTORY)'

    def shell(self) -> str:
        return f"exec 3<{self.path}"


class ChangeRoot(Step):
    """Make the directory in the slot "tree" the root by chroot, with the old one still there."""

    __slots__ = ()

    phase = "root"
    why = "paths begin here from now on; it is no wall for who may call chroot again"
    man = "chroot(2)"

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("fchdir", (slots.take("tree"),)), Row("chroot", (b".",)), Row("chdir", (b"/",))]

    def call(self) -> str:
        return 'fchdir(ROOT), chroot("."), chdir("/")'

    def shell(self) -> str:
        return "chroot $ROOT sh"


class ChangeDirectory(Step):
    """Make a directory the working directory, by its path as the process sees it then."""

    __slots__ = ("path",)

    phase = "root"
    why = "the program starts there"
    man = "chdir(2)"

    def __init__(self, path: str) -> None:
        super().__init__(RUNNER)
        self.path = path

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("chdir", (os.fsencode(self.path),))]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        reasons = {
            ENOENT: "there is no such directory", ENOTDIR: "it is no directory", EACCES: "this user may not enter it",
        }  # fmt: skip
        if errno in reasons:
            return UsageError(f"cannot start in {self.path}: {reasons[errno]}", "choose another with -w")
        return KernelError("chdir", (self.path,), errno)

    def call(self) -> str:
        return f'chdir("{self.path}")'

    def shell(self) -> str:
        return f"cd {self.path}"
