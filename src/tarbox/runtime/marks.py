"""A run that is watched: between its steps the container's first process leaves marks, or waits for a word.

    strace -f -r tarbox run …        perf trace -f tarbox run …

No program of ours is inside, but rows of system calls: after those of each step, one writes a mark to the socket by
which the runner reports, and where steps are to be stopped another one waits there for an answer. The kernel stamps
each message with the time at which it was written (SO_TIMESTAMPNS), whenever this process gets to read it.

man 7 socket, man 7 unix
"""

from __future__ import annotations

import socket
import time

from ..errors import KernelError
from ..kernel import channel
from ..kernel.seccomp import DEFAULT, LoadSeccomp
from ..plan.step import Row
from ..unistd import os
from . import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..plan.step import Slots, Step

    OnMark = Callable[[int, int], None]

_MARK, _GO = b"m", b"g"
_SO_TIMESTAMPNS = 35
_LARGEST = 65536


class MarkedChannel:
    """The parent's end: marks are told to `on_mark`, all else is returned.

    Where the runner waits at each mark, what is sent to a step that waits is kept until that step's own turn has come:
    the first row that waits would take it.
    """

    __slots__ = ("_kept", "_machinery", "_socket")

    def __init__(self, end: channel.Channel, machinery: Marked) -> None:
        self._socket = socket.socket(fileno=os.dup(end.fileno()))
        end.close()
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._machinery = machinery
        self._kept: list[bytes] = []

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno()

    def send(self, message: bytes, descriptors: list[int]) -> None:
        """Send a message; descriptors are never sent here. Raises KernelError when nobody listens."""
        if self._machinery.waits:
            self._kept.append(message)
        else:
            self._write(message)

    def _write(self, message: bytes) -> None:
        try:
            self._socket.send(message, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise KernelError("sendmsg", (f"{len(message)} bytes",), error.errno or 0) from None

    def receive(self) -> tuple[bytes, list[int]]:
        """Wait for a message that isn't a mark; (b"", []) when the other end is closed."""
        while True:
            try:
                message, attached, _flags, _address = self._socket.recvmsg(_LARGEST, 256)
            except ConnectionResetError:  # told once; what was written comes after it
                continue
            if message != _MARK:
                return message, []
            waiting = self._machinery.marked(_stamp(attached))
            if self._machinery.waits:
                self._go_on([_GO, *(self._kept if waiting else ())])

    def _go_on(self, messages: list[bytes]) -> None:
        try:
            for message in messages:
                self._write(message)
        except KernelError:  # it is gone, and what it reported says why
            pass

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


class Marked:
    """The machinery of `launch`, with marks between the runner's steps.

    on_mark: told (index of the step that comes next, the clock in nanoseconds) at each. on_spawn: told the runner's
    process id; with it the runner waits at each mark until `on_mark` has returned.

    A filter of somebody's own may deny the calls, or kill for them, so that after one there are no marks.
    """

    __slots__ = ("_ahead", "_before", "_waiting", "on_mark", "on_spawn", "total", "waits")

    def __init__(self, on_mark: OnMark, on_spawn: Callable[[int], None] | None = None) -> None:
        self.on_mark = on_mark
        self.on_spawn = on_spawn
        self.waits = on_spawn is not None
        self.total = 0  # steps of the plan
        self._ahead: list[int] = []
        self._waiting: set[int] = set()
        self._before = 0

    def pair(self) -> tuple[MarkedChannel, channel.Channel]:
        """A channel between the parent and the runner."""
        ours, theirs = channel.pair()
        return MarkedChannel(ours, self), theirs

    def table(self, steps: Sequence[Step], slots: Slots, errors: int) -> launch.Table:
        """The rows of the runner, with marks before the first step and after each but the last."""
        first = self.total - len(steps)
        mark = [Row("write", (errors, _MARK, 1), optional=True)]
        if self.waits:
            mark.append(Row("recvfrom", (errors, 0, 0, 0, 0, 0), optional=True))
        strict = [step for step in steps if isinstance(step, LoadSeccomp) and step.profile != DEFAULT]
        last = steps.index(strict[0]) if strict else len(steps) - 1
        self._ahead = list(range(first, first + last + 1))
        self._waiting = {index for index, step in enumerate(steps, first) if step.waits}
        self._before = len(mark)
        return launch.table(steps, slots, errors, mark, last)

    def spawn(self, step: Step, slots: Slots, table: launch.Table, keep: list[int]) -> int:
        """Start the runner."""
        pid = launch.spawn(step, slots, table, keep)
        if self.on_spawn:
            self.on_spawn(pid)
        return pid

    def report(self, data: bytes) -> tuple[int, int] | None:
        """The row that failed, counted without the first mark, and its errno."""
        found = launch.report(data)
        return (max(0, found[0] - self._before), found[1]) if found else None

    def marked(self, stamp: int) -> bool:
        """A mark has come; whether the step that comes next is one that waits."""
        index = self._ahead.pop(0)
        self.on_mark(index, stamp)
        return index in self._waiting


def _stamp(attached: list[tuple[int, int, bytes]]) -> int:
    """The time at which a message was written, as the kernel has it; now, where it doesn't say."""
    for level, kind, data in attached:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            return int.from_bytes(data[:8], "little") * 10**9 + int.from_bytes(data[8:16], "little")
    return time.time_ns()
