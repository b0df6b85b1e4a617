"""How far a long read has come: one line on standard error when that is a terminal, nothing otherwise.

    pv ARCHIVE | tar -x

man 1 pv
"""

from __future__ import annotations

import time

from ..unistd import os

_WIDTH = 24  # columns of the bar
_EVERY = 0.1  # seconds between drawings

shown = True  # until somebody wants none of it: --quiet


class Progress:
    """A bar for `total` bytes of something. what: said in front. total: 0 when it isn't known.

    Used with `with`; the line is removed at the end, whatever happened.
    """

    __slots__ = ("_done", "_drawn", "_next", "total", "visible", "what")

    def __init__(self, what: str, total: int) -> None:
        self.what = what if len(what) <= 40 else "…" + what[-39:]
        self.total = total
        self.visible = shown and os.isatty(2)
        self._done = 0
        self._drawn = False
        self._next = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._drawn:
            _show(b"\r\x1b[K")

    def advance(self, count: int) -> None:
        """Say that `count` more bytes are done."""
        self._done += count
        if self.visible and (now := time.monotonic()) >= self._next:
            self._next = now + _EVERY
            self._drawn = True
            _show(b"\r" + self._line().encode("utf-8", "replace") + b"\x1b[K")

    def _line(self) -> str:
        what = "".join(letter if letter.isprintable() else "?" for letter in self.what)
        done = f"{self._done / 1e6:.0f}"
        if not self.total:
            return f"{what}  {done} MB"
        filled = min(_WIDTH, _WIDTH * self._done // self.total)
        return f"{what}  [{'#' * filled}{'.' * (_WIDTH - filled)}] {done} of {self.total / 1e6:.0f} MB"


def _show(line: bytes) -> None:
    try:
        os.write(2, line)
    except OSError:  # a terminal that has gone is no reason to stop
        pass
