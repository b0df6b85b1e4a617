"""The caller's terminal: raw mode while the container has a terminal of its own, and the shell's job control.

    stty raw -echo; …; stty sane
    kill -STOP $$                    what ^Z does to a job; `fg` and `bg` continue it

man 3 termios, man 7 credentials (sessions and process groups), man 7 signal
"""

from __future__ import annotations

from ..kernel import signals
from ..kernel.terminal import in_foreground, make_raw, set_modes, set_window_size, window_size
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGTSTP = 20


class Foreground:
    """The terminal that the command was started on. raw: whether the container's terminal takes every key of it."""

    __slots__ = ("_controlled", "_modes", "raw")

    def __init__(self, raw: bool) -> None:
        self.raw = raw
        self._modes: list[Any] | None = None
        self._controlled = _has_terminal()

    def take(self) -> None:
        """Put it in raw mode, if that is wanted, isn't done yet, and this job is in the foreground."""
        if self.raw and self._modes is None and in_foreground(0):
            self._modes = make_raw(0)

    def give_back(self) -> None:
        """Give it the modes back that it had."""
        if self._modes is not None:
            set_modes(0, self._modes)
            self._modes = None

    def resize(self, console: int) -> None:
        """Give the container's terminal its size, that of the first of the caller's streams that is a terminal."""
        for mine in (1, 0, 2):
            size = window_size(mine)
            if size is not None:
                set_window_size(console, size)
                return

    def has_gone(self) -> bool:
        """Whether there was a controlling terminal and is none any more."""
        return self._controlled and not _has_terminal()

    def tell(self, text: str) -> None:
        """Say one line to the user on standard error, in whichever mode the terminal is."""
        try:
            os.write(2, f"tarbox: {text}{chr(13) if self._modes is not None else ''}\n".encode())
        except OSError:
            pass

    def stop(self, number: int) -> None:
        """Stop as the signal `number` (SIGTSTP, SIGTTIN or SIGTTOU) stops every program; returns when continued.

        Its own effect is used, so that the shell gives the right reason, and nothing stops that nobody could continue
        (an orphaned process group) or that ignores the signal. The terminal has its own modes meanwhile.
        """
        self.give_back()
        mask = signals.block_all()
        without = int.from_bytes(mask, "little") & ~(1 << number - 1)
        # A reader or writer in the background is stopped with its whole pipeline; ^Z has reached that already.
        os.kill(os.getpid() if number == SIGTSTP else 0, number)
        signals.set_mask(without.to_bytes(8, "little"))  # here it stops
        signals.set_mask(mask)
        self.take()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
