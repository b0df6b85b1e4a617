"""Resource limits: how many files, processes, bytes … one process may have.

    ulimit -Sn 1024; ulimit -Hn 2048       prlimit --nofile=1024:2048 COMMAND
    cat /proc/self/limits

man 2 prlimit, man 2 getrlimit
"""

from __future__ import annotations

import errno

from ..errors import KernelError
from ..plan.step import RUNNER, Row, Step
from ..spec.runtime import RLIMITS, UNLIMITED
from .syscall import buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Slots


def present(name: str) -> tuple[int, int]:
    """The soft and the hard limit of this process."""
    data = buffer(16)
    syscall("prlimit64", 0, RLIMITS[name], None, data)
    raw = bytes(data)
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


def set_limit(name: str, soft: int, hard: int) -> None:
    """Set a limit of this process; raises KernelError, EPERM for a higher hard one without CAP_SYS_RESOURCE."""
    syscall("prlimit64", 0, RLIMITS[name], _packed(soft, hard), None)


def _packed(soft: int, hard: int) -> bytes:
    return soft.to_bytes(8, "little") + hard.to_bytes(8, "little")


def _shown(value: int) -> str:
    return "RLIM64_INFINITY" if value == UNLIMITED else str(value)


class Limit(Step):
    """Set one limit of the container's program.

    name: as in RLIMITS. soft, hard: in the limit's own unit, or UNLIMITED. Raising a hard limit needs
    CAP_SYS_RESOURCE on the host; without it, it is set to what is allowed, with a warning.
    """

    __slots__ = ("hard", "name", "soft")

    phase = "privileges"
    why = "A single process inside can't use more of this than it is given."
    man = "prlimit(2)"

    def __init__(self, name: str, soft: int, hard: int, by: str = RUNNER) -> None:
        super().__init__(by)
        self.name = name
        self.soft = soft
        self.hard = hard

    def rows(self, slots: Slots) -> list[Row]:
        soft, hard = self._allowed(slots)
        shown = type(self)(self.name, soft, hard).call()
        return [Row("prlimit64", (0, RLIMITS[self.name], _packed(soft, hard), 0), shown)]

    def _allowed(self, slots: Slots) -> tuple[int, int]:
        """The values that can be set; whether a hard limit may be raised is tried on this very process."""
        soft, ceiling = present(self.name)
        if self.hard <= ceiling:
            return self.soft, self.hard
        try:
            syscall("prlimit64", 0, RLIMITS[self.name], _packed(soft, self.hard), None)
            syscall("prlimit64", 0, RLIMITS[self.name], _packed(soft, ceiling), None)
            return self.soft, self.hard
        except KernelError as error:
            if error.errno != errno.EPERM:
                raise
        slots.warn(
            f"the limit {self.name} can't be raised to {_shown(self.hard)} here, so it is {_shown(ceiling)} "
            "(raising it needs CAP_SYS_RESOURCE)"
        )
        return min(self.soft, ceiling), ceiling

    def call(self) -> str:
        return f"prlimit64(0, RLIMIT_{self.name.upper()}, {{{_shown(self.soft)}, {_shown(self.hard)}}}, NULL)"

    def shell(self) -> str:
        soft, hard = ("unlimited" if value == UNLIMITED else str(value) for value in (self.soft, self.hard))
        return f"prlimit --{self.name}={soft}:{hard} --pid $$"
