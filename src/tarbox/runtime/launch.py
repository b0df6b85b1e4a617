"""The machinery that carries out plans: what the executor needs of the kernel, put together.

man 2 clone3, man 2 socketpair, man 2 execveat
"""

from __future__ import annotations

from ..kernel import channel, runner, signals
from ..kernel.namespaces import Spawn
from ..kernel.program import Execute
from ..kernel.runner import CloseDescriptors, DeathSignal
from ..plan.executor import KNOCK
from ..plan.step import Row
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..plan.step import Slots, Step

_EVERY = 0xFFFFFFFF
_F_SETFD, _FD_CLOEXEC = 2, 1
INHERITED = "inherited "  # what the names of slots begin with that the program gets as the caller left them


class Table:
    """The rows of one runner, as a program that can be executed, and what the container's program is given."""

    __slots__ = ("arguments", "counts", "environment", "program")

    def __init__(self, program: int, counts: list[int], arguments: list[bytes], environment: list[bytes]) -> None:
        self.program = program
        self.counts = counts
        self.arguments = arguments
        self.environment = environment

    def close(self) -> None:
        """Let go of the program's file."""
        os.close(self.program)


def pair() -> tuple[channel.Channel, channel.Channel]:
    """A channel between the parent and the runner."""
    return channel.pair()


def table(steps: Sequence[Step], slots: Slots, errors: int) -> Table:
    """Turn the runner's steps into its table. errors: the descriptor to which it reports."""
    rows: list[Row] = []
    counts: list[int] = []
    knocked = closed = False
    knock = Row("write", (errors, KNOCK, len(KNOCK)), "write(parent)")
    for step in steps:
        made = step.rows(slots)
        if step.waits:
            made.insert(0, Row("recvfrom", (errors, 0, 0, 0, 0, 0), "recvfrom(parent)"))
        if isinstance(step, DeathSignal):  # a parent that died before it was set sends none; then this row fails
            made.append(knock)
            knocked = True
        elif isinstance(step, CloseDescriptors):
            # Marked, they would stay open in an init, and through /proc/1/fd the container reached what is beneath its
            # mounts: /proc/sys, writable. Only the report's is still needed; an init closes it itself.
            others = ((3, errors - 1), (errors + 1, _EVERY))
            made[:0] = [Row("close_range", (*some, 0)) for some in others if some[0] <= some[1]]
            closed = True
        elif isinstance(step, Execute):
            before = [] if knocked else [knock]
            if not closed:  # what the caller had open is passed on, and nothing of ours
                ours = [errors, *(held for name, held in slots.descriptors.items() if not name.startswith(INHERITED))]
                before += [Row("fcntl", (held, _F_SETFD, _FD_CLOEXEC)) for held in ours]
            rows += before
            counts[-1] += len(before)
        rows += made
        counts.append(len(made))
    last = steps[-1]
    assert isinstance(last, Execute)
    arguments, environment = last.program()
    home = slots.found.get("home")
    if home is not None and not any(variable.startswith(b"HOME=") for variable in environment):
        environment.append(b"HOME=" + os.fsencode(str(home)))
    return Table(runner.executable(runner.image(rows, errors)), counts, arguments, environment)


def spawn(step: Step, slots: Slots, table: Table, keep: list[int]) -> int:
    """Start the runner as the step says, with the descriptors `keep` open; returns its process id.

    Until here a signal ends the command as any other; from here on all are blocked, and whoever serves the container
    reads them, so that none gets lost in between.
    """
    assert isinstance(step, Spawn)
    signals.block_all()
    return step.spawn(slots, table.program, table.arguments, table.environment, keep)


def report(data: bytes) -> tuple[int, int] | None:
    """The row of the runner's table that failed, and its errno."""
    return runner.read_report(data)
