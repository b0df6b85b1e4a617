"""Carrying out a plan: each process walks the same list, does its own steps, and waits at the handovers.

    parent    its steps ── fork ──────────── waits ── its steps ── waits for the runner's end or its report
                             └─ child    its steps ──┘        └── its steps ── becomes the runner

An error in any process reaches the parent with the step that failed. The parent's part ends when the program of the
container runs, or with the exception; taking away what was made is the caller's (see the journal).

What the executor needs of the kernel is given to it as `Machinery`: plans know no system calls.
"""

from __future__ import annotations

import os
from errno import EACCES, ELOOP, ENOENT, ENOEXEC, ENOTDIR

from .. import errors
from ..errors import KernelError, TarboxError
from .step import CHILD, PARENT, RUNNER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import NoReturn, Protocol

    from .plan import Handover, Plan
    from .step import Slots, Step

    class Channel(Protocol):
        """Messages with descriptors between two processes."""

        def send(self, message: bytes, descriptors: list[int]) -> None: ...
        def receive(self) -> tuple[bytes, list[int]]: ...
        def fileno(self) -> int: ...
        def close(self) -> None: ...

    class Machinery(Protocol):
        """What the kernel has to give."""

        def pair(self) -> tuple[Channel, Channel]: ...
        def spawn(self, step: Step, slots: Slots) -> int: ...
        def forked(self) -> None: ...
        def launch(
            self, steps: list[Step], slots: Slots, errors: int, announce: Callable[[bytes], None]
        ) -> NoReturn: ...
        def report(self, data: bytes) -> tuple[int, int] | None: ...

    Observer = Callable[[str, int, str], None]

_HANDOVER, _ERROR, _LAUNCH = b"h", b"e", b"l"
KNOCK = b"k"  # from the runner: to find out whether anybody is there to take it


class Execution:
    """One carrying out of a plan, as the parent sees it.

    slots: what is open already. observe: is told ("step" or "handover", index, process) before each; what it raises is
    that step's error. meanwhile: what the parent may as well do while the child is busy. After `start()`, `pid` is the
    container's first process. results: the slots that stay open for the caller then; what else the steps opened is
    closed, and all of it when `start()` raises.
    """

    __slots__ = ("channel", "machinery", "meanwhile", "observe", "pid", "plan", "results", "slots")

    def __init__(
        self,
        plan: Plan,
        slots: Slots,
        machinery: Machinery,
        observe: Observer | None = None,
        meanwhile: Callable[[], None] | None = None,
        results: tuple[str, ...] = ("pidfd", "console"),
    ) -> None:
        self.plan = plan
        self.meanwhile = meanwhile
        self.results = results
        self.slots = slots
        self.machinery = machinery
        self.observe = observe
        self.channel: Channel | None = None
        self.pid = 0

    def start(self) -> int:
        """Do all steps; returns the process id of the container's program, now running. Raises a TarboxError."""
        given = set(self.slots.descriptors)
        try:
            for index, step in enumerate(self.plan.steps):
                self._hand_over(index, PARENT)
                if step.spawns:
                    self._spawn(index, step)
                elif step.by == PARENT:
                    try:
                        self._do(index, step, PARENT)
                    except TarboxError as error:
                        raise self._cause(error) from error
            self._await_program()
        except BaseException:
            self._close(given)
            raise
        self._close(given.union(self.results))
        return self.pid

    def _cause(self, error: TarboxError) -> TarboxError:
        """The child's error where that is why a step of the parent's failed: what it is done to may be dead by then."""
        if not self.channel:
            return error
        os.kill(self.pid, 9)  # it isn't waited for yet, so the number is its own; it says no more from here on
        message = self.channel.receive()[0]
        return self._error(message) if message[:1] == _ERROR else error

    def _close(self, kept: Collection[str]) -> None:
        """Close the channel and what the steps opened, but not what is in the slots `kept`."""
        if self.channel:
            self.channel.close()
        for name in [name for name in self.slots.descriptors if name not in kept]:
            os.close(self.slots.descriptors.pop(name))

    def _spawn(self, index: int, step: Step) -> None:
        if self.observe:
            self.observe("step", index, PARENT)
        ours, theirs = self.machinery.pair()
        try:
            pid = self.machinery.spawn(step, self.slots)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        if pid:
            theirs.close()
            self.channel, self.pid = ours, pid
            if self.meanwhile:
                self.meanwhile()
            return
        try:
            self.machinery.forked()
            ours.close()
            self.channel = theirs
            self.slots.warnings.clear()  # the parent has them
            self._child(index + 1)
        except BaseException as error:
            _tell_error(theirs, -1, error)
        finally:
            os._exit(125)

    def _child(self, first: int) -> None:
        """The child's walk, from the step after the fork; it doesn't return unless something failed."""
        at = first
        try:
            for at in range(first, len(self.plan.steps)):
                step = self.plan.steps[at]
                self._hand_over(at, CHILD)
                if step.by == RUNNER:
                    self._launch(at)
                elif step.by == CHILD:
                    self._do(at, step, CHILD)
        except BaseException as error:
            assert self.channel
            _tell_error(self.channel, at, error)

    def _launch(self, index: int) -> NoReturn:
        channel = self.channel
        assert channel
        if self.observe:
            self.observe("handover", index, CHILD)
        warnings = "\n".join(self.slots.warnings)

        def announce(rows: bytes) -> None:
            channel.send(_LAUNCH + rows + b"\0" + warnings.encode(), [])

        self.machinery.launch(list(self.plan.steps[index:]), self.slots, channel.fileno(), announce)

    def _do(self, index: int, step: Step, process: str) -> None:
        if self.observe:
            self.observe("step", index, process)
        try:
            step.apply(self.slots)
        except OSError as error:
            raise KernelError(step.call(), None, error.errno or 0) from error

    def _hand_over(self, index: int, process: str) -> None:
        """Send the handover before step `index`, or wait for it, as the plan says of this process."""
        handover = self.plan.handover(index)
        if handover is None or handover.receiver == RUNNER or index == self.plan.spawn + 1:
            return  # the fork itself was the first one
        if self.observe:
            self.observe("handover", index, process)
        assert self.channel
        if handover.sender == process:
            message = _HANDOVER + "\n".join(self.slots.warnings).encode()
            self.slots.warnings.clear()
            try:
                self.channel.send(message, [self.slots.take(name) for name in handover.slots])
            except KernelError:
                if process == CHILD:
                    raise
                raise self._error(self.channel.receive()[0]) from None  # it's gone; its last words say why
        else:
            self._receive(handover)

    def _receive(self, handover: Handover) -> None:
        assert self.channel
        message, descriptors = self.channel.receive()
        if message[:1] == _HANDOVER and len(descriptors) == len(handover.slots):
            self._warn(message[1:])
            for name, descriptor in zip(handover.slots, descriptors, strict=True):
                self.slots.give(name, descriptor)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        raise self._error(message)

    def _await_program(self) -> None:
        """Wait until the program runs: the channel's other end closes by `execve`, or a report comes."""
        assert self.channel
        message = self.channel.receive()[0]
        if message[:1] != _LAUNCH:
            raise self._error(message)
        rows, _, warnings = message[1:].partition(b"\0")
        while (report := self.channel.receive()[0]) == KNOCK:
            pass
        self._warn(warnings)
        if report:
            failed = self.machinery.report(report)
            if failed is None:
                raise self._error(report)
            raise _runner_error(self.plan, os.fsdecode(rows), *failed)

    def _warn(self, lines: bytes) -> None:
        self.slots.warnings += [line for line in lines.decode("utf-8", "replace").split("\n") if line]

    def _error(self, message: bytes) -> TarboxError:
        """The exception that the child's message tells of; an empty message is a child that died."""
        if message[:1] != _ERROR:
            return TarboxError("the container's first process died while it was being set up", "see 'dmesg' for why")
        index, kind, number, *texts = message[1:].decode("utf-8", "replace").split("\0")
        error: TarboxError
        if kind == "KernelError":
            call, hint, shell, listed, *arguments = texts
            error = KernelError(call, arguments if listed == "+" else None, int(number), hint, shell)
        else:
            made = getattr(errors, kind, TarboxError)
            error = made(*texts[:2]) if made is not errors.ConfigError else TarboxError(*texts[:2])
        if (at := int(index)) >= 0:
            error.add_note(f"in step {at}: {self.plan.steps[at]!r}")
        return error


def _tell_error(channel: Channel, index: int, error: BaseException) -> None:
    """Send what happened to the parent; it may be gone."""
    if isinstance(error, KernelError):
        arguments = ["-"] if error.arguments is None else ["+", *map(_text, error.arguments)]
        fields = ["KernelError", str(error.errno), error.call, error.hint, error.shell, *arguments]
    elif isinstance(error, TarboxError):
        fields = [type(error).__name__, "0", error.message, error.hint]
    else:
        fields = ["TarboxError", "0", f"{type(error).__name__}: {error}", ""]
    fields = [field.replace("\0", " ")[:4096] for field in (str(index), *fields)]
    try:
        channel.send(_ERROR + "\0".join(fields).encode("utf-8", "replace")[:32768], [])
    except (OSError, TarboxError):
        pass


def _text(argument: object) -> str:
    return argument.decode("utf-8", "replace") if isinstance(argument, bytes) else str(argument)


def _runner_error(plan: Plan, announced: str, row: int, errno: int) -> TarboxError:
    """The error of a row of the runner's table, by the step that the row belongs to.

    announced: how many rows each of the runner's steps has, the path of the program, and what may keep it from running.
    """
    rows, program, obstacle = announced.split("\n", 2)
    runner = [step for step in plan.steps if step.by == RUNNER]
    counts = map(int, filter(None, rows.split(",")))
    for step, count in zip(runner, counts, strict=False):  # the last one is the execve itself
        if row < count:
            error = KernelError(step.call(), None, errno)
            error.add_note(f"in row {row} of {step!r}")
            return error
        row -= count
    text = f"cannot start {program}: {os.strerror(errno)}"
    if errno in (ENOENT, ENOTDIR):
        return errors.CommandNotFoundError(text, obstacle or "its interpreter or loader isn't in the image")
    hints = {
        EACCES: "is it executable, and may this user enter its directory?",
        ENOEXEC: "it is no program for this machine, and has no #! line",
        ELOOP: "a program whose interpreter is /proc/self/exe never runs in a container",
    }
    return errors.CommandNotExecutableError(text, obstacle or hints.get(errno, ""))
