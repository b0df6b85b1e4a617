"""/proc, mounted anew: it shows the PID namespace of whoever mounts it.

    unshare --pid --fork --mount-proc ps        mount -t proc proc /proc

Without this a process in a new PID namespace still reads the old /proc, in which its own number isn't the one that it
knows, and in which it finds everybody else.

man 5 proc, man 7 pid_namespaces
"""

from __future__ import annotations

from errno import EPERM

from ..errors import KernelError
from ..plan.step import RUNNER, Row, Slots, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


class MountProc(Step):
    """Mount a fresh /proc over the one that is there, in a mount namespace of the process's own."""

    __slots__ = ()

    phase = "filesystem"
    why = "ps and everything else that reads /proc shall see the processes of this PID namespace"
    man = "proc(5)"

    def __init__(self) -> None:
        super().__init__(RUNNER)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("mount", (b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, 0))]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        hint = "in a user namespace it takes a /proc of which nothing is hidden, as in most containers it is"
        return KernelError("mount", ("proc", "/proc"), errno, hint if errno == EPERM else "")

    def call(self) -> str:
        return 'mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV|MS_NOEXEC)'

    def shell(self) -> str:
        return "mount -t proc proc /proc"
