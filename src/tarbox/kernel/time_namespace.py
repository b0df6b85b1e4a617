"""Time namespaces: since when the machine has been running, as a container sees it.

    unshare --time --boottime 2592000 --monotonic 2592000 uptime        cat /proc/self/timens_offsets

Two clocks have an offset in each: CLOCK_MONOTONIC and CLOCK_BOOTTIME, which is what /proc/uptime tells. The wall clock
is the machine's alone. The offsets can be written until the first process is in it. `unshare` makes one for children
only, so this process makes it, opens it and lets go of it, and the container's first process joins it.

man 7 time_namespaces
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, EPERM, ERANGE

from ..errors import KernelError, UnsupportedError, UsageError
from ..plan.step import PARENT, Slots, Step
from ..unistd import os
from .joined_namespaces import return_to
from .namespaces import FLAGS
from .setns import slot_of
from .syscall import syscall

_FILE = "/proc/self/timens_offsets"
_SECOND = 1_000_000_000


class MakeTimeNamespace(Step):
    """Make a time namespace, for the container's first process to join.

    offsets: rows of (clock, "monotonic" or "boottime"; nanoseconds that are added to it, negative ones too).
    """

    __slots__ = ("offsets",)

    phase = "namespaces"
    why = "for the container the machine has been running for longer, or shorter; the wall clock stays as it is"
    man = "time_namespaces(7)"

    def __init__(self, offsets: tuple[tuple[str, int], ...]) -> None:
        super().__init__(PARENT)
        self.offsets = offsets

    def gives(self) -> tuple[str, ...]:
        return (slot_of("time"),)

    def apply(self, slots: Slots) -> None:
        try:
            before = os.open("/proc/self/ns/time", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != ENOENT:
                raise
            raise UnsupportedError("this kernel has no time namespaces", "they are there since Linux 5.6") from None
        try:
            syscall("unshare", FLAGS["time"], hint="see /proc/sys/user/max_time_namespaces")
            try:
                if self.offsets:
                    self._write()
                slots.give(slot_of("time"), os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC))
            finally:
                self._let_go(before)
        finally:
            os.close(before)

    def _write(self) -> None:
        try:
            file = os.open(_FILE, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, self._text().encode())
            finally:
                os.close(file)
        except OSError as error:
            if error.errno == ERANGE:
                raise UsageError(
                    "the offset would set a clock before the machine's start, or beyond 146 years",
                    f"since the start it is {_uptime()}; a negative offset can't be larger",
                ) from None
            hint = "it takes CAP_SYS_TIME" if error.errno == EPERM else ""
            raise KernelError("write", (_FILE, self._text()), error.errno or 0, hint) from None

    @staticmethod
    def _let_go(before: int) -> None:
        """Have later children born where this process is."""
        try:
            return_to("time", before)
        except KernelError as error:
            if error.errno not in (EPERM, EINVAL):  # the host's isn't a plain user's: nobody else is born there
                raise

    def _text(self) -> str:
        return "\n".join(f"{clock} {offset // _SECOND} {offset % _SECOND}" for clock, offset in self.offsets)

    def call(self) -> str:
        text = self._text().replace("\n", "; ")
        written = [f'write("{_FILE}", "{text}")'] if self.offsets else []
        return ", ".join(["unshare(CLONE_NEWTIME)", *written, 'open("/proc/self/ns/time_for_children")'])

    def shell(self) -> str:
        shown = "".join(f" --{clock} {offset // _SECOND}" for clock, offset in self.offsets)
        return f"unshare --time{shown} sh"


def _uptime() -> str:
    import time

    seconds = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    days, rest = divmod(seconds, 86400)
    return f"{days}d{rest // 3600}h" if days else f"{rest // 3600}h{rest % 3600 // 60}m" if rest >= 3600 else f"{rest}s"
