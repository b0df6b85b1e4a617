"""Who is killed first when the machine runs out of memory: each process has a score, and its owner may shift it.

    echo 500 > /proc/self/oom_score_adj; cat /proc/self/oom_score       choom -n 500 -- COMMAND

man 5 proc_pid_oom_score_adj, man 1 choom
"""

from __future__ import annotations

from errno import EACCES, EPERM

from ..errors import KernelError
from ..plan.step import RUNNER, Register, Row, Slots, Step
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

_FILE = "/proc/self/oom_score_adj"


class OomScore(Step):
    """Shift the score of this process, and of all that it starts, by `value`: -1000 (never killed) to 1000 (first).

    It is done while the host's /proc is in view. Shifting it below what it was needs CAP_SYS_RESOURCE on the host;
    without it the score stays where it is, with a warning.
    """

    __slots__ = ("value",)

    phase = "namespaces"
    why = "When the whole machine lacks memory, this says how soon the kernel turns to the container."
    man = "proc_pid_oom_score_adj(5)"

    def __init__(self, value: int) -> None:
        super().__init__(RUNNER)
        self.value = value

    def rows(self, slots: Slots) -> list[Row]:
        present = _read()
        if not _may_be(self.value, present):
            slots.warn(
                f"the OOM score can't be lowered to {self.value} here, so it stays at {present} "
                "(lowering it needs CAP_SYS_RESOURCE)"
            )
            return []
        value = str(self.value).encode()
        return [
            Row("openat", (-100, _FILE.encode(), os.O_WRONLY | os.O_CLOEXEC, 0), store=2),
            Row("write", (Register(2), value, len(value))),
        ]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        return KernelError("write", (_FILE, self.value), errno, shell=self.shell())

    def call(self) -> str:
        return f'write("{_FILE}", "{self.value}")'

    def shell(self) -> str:
        return f"echo {self.value} > {_FILE}"


def _read() -> int:
    descriptor = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, 16))
    finally:
        os.close(descriptor)


def _may_be(value: int, present: int) -> bool:
    """Whether the score may be shifted so: a lower one is tried on this very process, which then goes back."""
    if value >= present:
        return True
    descriptor = os.open(_FILE, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
        os.write(descriptor, str(present).encode())
        return True
    except OSError as error:
        if error.errno not in (EACCES, EPERM):
            raise
        return False
    finally:
        os.close(descriptor)
