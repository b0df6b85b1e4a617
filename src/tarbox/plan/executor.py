"""Carrying out a plan: the parent does its steps, then starts the runner, which does all others.

    parent    its steps ── spawns ──────── waits for the runner's end or its report
                              └─ runner    its rows, one after the other ── becomes the program

The rows of the runner are made before it starts, so that everything that can be known to be wrong is known by then. A
row that fails is reported with its number, and told as the step that it belongs to. The parent's part ends when the
program of the container runs, or with an exception; taking away what was made is the caller's (see the journal).

What the executor needs of the kernel is given to it as `Machinery`: plans know no system calls.
"""

from __future__ import annotations

from ..errors import KernelError, TarboxError
from ..unistd import os
from .step import PARENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any, Protocol

    from .plan import Plan
    from .step import Slots, Step

    class Channel(Protocol):
        """Messages between two processes."""

        def send(self, message: bytes, descriptors: list[int]) -> None: ...
        def receive(self) -> tuple[bytes, list[int]]: ...
        def fileno(self) -> int: ...
        def close(self) -> None: ...

    class Table(Protocol):
        """The rows of a runner. counts: how many each of its steps has, in their order."""

        counts: list[int]

        def close(self) -> None: ...

    class Machinery(Protocol):
        """What the kernel has to give."""

        def pair(self) -> tuple[Channel, Channel]: ...
        def table(self, steps: Sequence[Step], slots: Slots, errors: int) -> Any: ...
        def spawn(self, step: Step, slots: Slots, table: Any, keep: list[int]) -> int: ...
        def report(self, data: bytes) -> tuple[int, int] | None: ...

    Observer = Callable[[str, int, str], None]

KNOCK = b"k"  # from the runner, when all that is left is to execute the program


class Execution:
    """One carrying out of a plan, as the parent sees it.

    slots: what is open already. observe: is told ("step" or "handover", index, process) before each; what it raises is
    that step's error. meanwhile: what the parent may as well do while the runner is busy. After `start()`, `pid` is the
    container's first process. receive: gets a descriptor that the runner sends while it works, to keep or to close.
    results: the slots that stay open for the caller then; what else the steps opened is
    closed, and all of it when `start()` raises.
    """

    __slots__ = ("machinery", "meanwhile", "observe", "pid", "plan", "receive", "results", "slots")

    def __init__(
        self,
        plan: Plan,
        slots: Slots,
        machinery: Machinery,
        observe: Observer | None = None,
        meanwhile: Callable[[], None] | None = None,
        results: tuple[str, ...] = ("pidfd", "console", "tree"),
        receive: Callable[[int], None] = os.close,
    ) -> None:
        self.plan = plan
        self.meanwhile = meanwhile
        self.receive = receive
        self.results = results
        self.slots = slots
        self.machinery = machinery
        self.observe = observe
        self.pid = 0

    def start(self) -> int:
        """Do all steps; returns the process id of the container's program, now running. Raises a TarboxError."""
        given = set(self.slots.descriptors)
        try:
            for index in range(self.plan.spawn):
                self._do(index)
            self._spawn()
        except BaseException:
            self._close(given)
            raise
        self._close(given.union(self.results))
        return self.pid

    def _close(self, kept: Collection[str]) -> None:
        """Close what the steps opened, but not what is in the slots `kept`."""
        for name in [name for name in self.slots.descriptors if name not in kept]:
            os.close(self.slots.descriptors.pop(name))

    def _do(self, index: int) -> None:
        step = self.plan.steps[index]
        if self.observe:
            self.observe("step", index, PARENT)
        try:
            step.apply(self.slots)
        except OSError as error:
            raise KernelError(step.call(), None, error.errno or 0) from error

    def _spawn(self) -> None:
        steps, spawn = self.plan.steps, self.plan.spawn
        first = next(index for index in range(spawn + 1, len(steps)) if steps[index].by != PARENT)
        if self.observe:
            self.observe("step", spawn, PARENT)
        ours, theirs = self.machinery.pair()
        try:
            try:
                counts = self._start(steps[spawn], steps[first:], theirs.fileno())
            finally:
                theirs.close()
            try:
                for index in range(spawn + 1, first):
                    self._do(index)
            except TarboxError:
                if _has_ended(ours):  # why nothing can be done to it any more
                    self._await_program(ours, counts, first)
                raise
            if self.observe:
                self.observe("handover", first, PARENT)
            if first > spawn + 1:
                try:
                    ours.send(KNOCK, [])  # it waits until these steps are done
                except TarboxError:  # it is gone already, and what it reported says why
                    pass
            if self.meanwhile:
                self.meanwhile()
            self._await_program(ours, counts, first)
        finally:
            ours.close()

    def _start(self, step: Step, steps: Sequence[Step], errors: int) -> list[int]:
        """Start the runner with these steps; returns how many rows each of them has."""
        table: Table = self.machinery.table(steps, self.slots, errors)
        try:
            self.pid = self.machinery.spawn(step, self.slots, table, [errors, *self.slots.descriptors.values()])
        finally:
            table.close()
        return table.counts

    def _await_program(self, channel: Channel, counts: list[int], first: int) -> None:
        """Wait until the program runs: the channel's other end closes by `execve`, or a report comes."""
        ready = False
        while True:
            message, descriptors = channel.receive()
            for descriptor in descriptors:
                self.receive(descriptor)
            if message == KNOCK:
                ready = True
            elif not descriptors:
                break
        if failed := self.machinery.report(message):
            row, errno = failed
            for step, count in zip(self.plan.steps[first:], counts, strict=True):
                if row < count:
                    error = step.explain(row, errno, self.slots)
                    error.add_note(f"in row {row} of {step!r}")
                    raise error
                row -= count
        if not ready:
            raise TarboxError("the container's first process died while it was being set up", "see 'dmesg' for why")


_DYING = 200  # milliseconds from when a process can't be reached any more until its descriptors are closed


def _has_ended(channel: Channel) -> bool:
    """Whether the other side has ended; what it has said is still to be read."""
    from select import poll

    poller = poll()
    poller.register(channel.fileno(), 0)  # nothing but that it is closed
    return bool(poller.poll(_DYING))
