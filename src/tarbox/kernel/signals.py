"""Signals: their names, and what a program inherits of how its parent treats them.

    env --default-signal --block-signal= COMMAND
    kill -l

A program that is executed keeps the signals that its parent ignored or blocked. Python ignores SIGPIPE and SIGXFSZ,
and `nohup` SIGHUP; a container's program shall find all of them as the kernel gives them to a first process.

man 7 signal, man 2 rt_sigprocmask, man 2 signalfd
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the interpreter has it already; the public module makes enums at a cost of 6 ms

from ..errors import UsageError
from ..plan.step import RUNNER, Row, Step
from ..unistd import os
from .syscall import buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Slots

NAMES = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
)  # fmt: skip
_ALIASES = {"IOT": 6, "CLD": 17, "POLL": 29, "UNUSED": 31}
PYTHONS = (13, 25)  # PIPE and XFSZ, which Python ignores
RTMIN, RTMAX = 34, 64  # the first two of the kernel's real-time signals belong to the C library

_SIG_SETMASK = 2
_SFD_NONBLOCK = 0o4000
_SFD_CLOEXEC = 0o2000000
_SI_KERNEL = 0x80
_SIGNALFD_SIGINFO = 128  # bytes of one struct signalfd_siginfo

# A fault in one's own code (ILL, TRAP, BUS, FPE, SEGV, SYS) can't wait to be read from a descriptor.
_SYNCHRONOUS = 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 30
_ASYNCHRONOUS = ((1 << 64) - 1 & ~_SYNCHRONOUS).to_bytes(8, "little")


def parse(signal: str) -> int:
    """The number of a signal given as `TERM`, `SIGTERM`, `15`, `RTMIN+3` or `RTMAX-1`, in any case.

    Raises UsageError for anything else, as well as for numbers outside 1 to 64.
    """
    if signal.isascii() and signal.isdigit():
        if len(signal) < 5 and 1 <= int(signal) <= RTMAX:
            return int(signal)
    else:
        short = signal.upper().removeprefix("SIG")
        if short in NAMES:
            return NAMES.index(short) + 1
        if short in _ALIASES:
            return _ALIASES[short]
        real_time = _parse_real_time(short)
        if RTMIN <= real_time <= RTMAX:
            return real_time
    raise UsageError(f"there is no signal {signal!r}", "`kill -l` lists the names; numbers go from 1 to 64")


def _parse_real_time(short: str) -> int:
    for start, sign, first in (("RTMIN", "+", RTMIN), ("RTMAX", "-", RTMAX)):
        if short == start:
            return first
        digits = short.removeprefix(start + sign)
        if digits != short and digits.isascii() and digits.isdigit() and len(digits) < 3:
            return first + int(sign + digits)
    return 0


def name(number: int) -> str:
    """The name of a signal, as `SIGTERM` or `SIGRTMIN+3`; just the number where it has none."""
    if 1 <= number <= len(NAMES):
        return "SIG" + NAMES[number - 1]
    if RTMIN <= number <= RTMAX:
        return f"SIGRTMIN+{number - RTMIN}" if number > RTMIN else "SIGRTMIN"
    return str(number)


def ignored() -> tuple[int, ...]:
    """The numbers of the signals that this process ignores: its own choice (Python's) and what it inherited."""
    ignore = _signal.SIG_IGN
    return tuple(number for number in range(1, RTMAX + 1) if _signal.getsignal(number) is ignore)


def set_mask(mask: bytes) -> bytes:
    """Block exactly the signals in `mask` (8 bytes, bit n-1 of the number is signal n) and return the mask before."""
    old = buffer(8)
    syscall("rt_sigprocmask", _SIG_SETMASK, mask, old, 8)
    return bytes(old)


def present_mask() -> bytes:
    """The signals that are blocked now, as `set_mask` takes them."""
    old = buffer(8)
    syscall("rt_sigprocmask", _SIG_SETMASK, None, old, 8)
    return bytes(old)


def leave_on_termination() -> None:
    """Have SIGHUP and SIGTERM end this process by SystemExit with 128+n, as ^C does by KeyboardInterrupt.

    So what is under way can be taken away. A signal that is ignored (`nohup`) stays ignored.
    """

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (1, 15):
        if _signal.getsignal(number) is _signal.SIG_DFL:
            _signal.signal(number, leave)


def block_all() -> bytes:
    """Block every signal that can wait, until it is read from a `signal_descriptor`; returns the mask before."""
    return set_mask(_ASYNCHRONOUS)


def signal_descriptor() -> int:
    """A descriptor that becomes readable when a signal blocked by `block_all` arrives; close-on-exec, never waits."""
    return syscall("signalfd4", -1, _ASYNCHRONOUS, 8, _SFD_CLOEXEC | _SFD_NONBLOCK)


def read_signal(descriptor: int) -> int | None:
    """The number of the next signal that has arrived at a `signal_descriptor`, or None."""
    try:
        data = os.read(descriptor, _SIGNALFD_SIGINFO)
    except BlockingIOError:
        return None
    return int.from_bytes(data[:4], "little")


def read_sender(descriptor: int) -> tuple[int, bool] | None:
    """The next signal at a `signal_descriptor`, and whether it is the kernel's own, as those of the terminal's keys.

    Those go to all processes in the foreground at once, so that nobody needs to hand them on.
    """
    try:
        data = os.read(descriptor, _SIGNALFD_SIGINFO)
    except BlockingIOError:
        return None
    return int.from_bytes(data[:4], "little"), int.from_bytes(data[8:12], "little", signed=True) == _SI_KERNEL


class DefaultSignals(Step):
    """Give the container's program signals as a first process finds them: none ignored, none blocked.

    ignored: the numbers of those that are ignored until then (`signals.ignored()`). mask: those that stay blocked, for
    a command that isn't in a container (`present_mask`).
    """

    __slots__ = ("ignored", "mask")

    phase = "privileges"
    why = "The program inherits ignored and blocked signals; Python's own choices shall not become its choices."
    man = "rt_sigaction(2)"

    def __init__(self, ignored: tuple[int, ...] = PYTHONS, mask: bytes = bytes(8)) -> None:
        super().__init__(RUNNER)
        self.ignored = ignored
        self.mask = mask

    def rows(self, slots: Slots) -> list[Row]:
        default = bytes(32)  # struct sigaction: SIG_DFL is 0, no flags, no restorer, an empty mask
        rows = [
            Row("rt_sigaction", (number, default, 0, 8), f"rt_sigaction({name(number)}, {{SIG_DFL}}, NULL, 8)")
            for number in self.ignored
        ]
        rows.append(Row("rt_sigprocmask", (_SIG_SETMASK, self.mask, 0, 8), "rt_sigprocmask(SIG_SETMASK, [], NULL, 8)"))
        return rows

    def call(self) -> str:
        actions = [f"rt_sigaction({name(number)}, {{SIG_DFL}}, NULL, 8)" for number in self.ignored]
        return "; ".join([*actions, "rt_sigprocmask(SIG_SETMASK, [], NULL, 8)"])

    def shell(self) -> str:
        return "env --default-signal --block-signal= COMMAND"
