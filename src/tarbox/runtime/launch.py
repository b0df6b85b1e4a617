"""The machinery that carries out plans: what the executor needs of the kernel, put together.

man 2 clone3, man 2 socketpair, man 2 execveat
"""

from __future__ import annotations

from ..kernel import channel, runner, signals
from ..kernel.capabilities import Capabilities
from ..kernel.credentials import Credentials
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


def table(steps: Sequence[Step], slots: Slots, errors: int, between: Sequence[Row] = (), marked: int = 0) -> Table:
    """Turn the runner's steps into its table. errors: the descriptor to which it reports.

    between: rows that are put before the first step, where they don't count, and after each of the first `marked`.
    """
    rows: list[Row] = [*between]
    counts: list[int] = []
    knocked = False
    ready = [Row("write", (errors, KNOCK, len(KNOCK)), "write(parent)")]
    inherits = not any(isinstance(step, CloseDescriptors) for step in steps)  # what the caller had open is passed on,
    if inherits:
        ours = [held for name, held in slots.descriptors.items() if not name.startswith(INHERITED)]
        ready += [Row("fcntl", (held, _F_SETFD, _FD_CLOEXEC)) for held in (errors, *ours)]  # and nothing of ours
    slots.found["errors"] = errors
    for step in steps:
        made = step.rows(slots)
        if step.waits:
            made.insert(0, Row("recvfrom", (errors, 0, 0, 0, 0, 0), "recv(parent)"))
        if (kept := step.closes_but()) is not None:
            made[:0] = _closing([errors, *map(slots.take, kept)])
        if inherits and isinstance(step, Credentials | Capabilities):
            # While it has more rights than the command will have, as `CloseDescriptors` does: see the planner.
            if not any("label" in later.takes() for later in steps[len(counts) :]):
                theirs = [held for name, held in slots.descriptors.items() if name.startswith(INHERITED)]
                made[:0] = _closing([errors, *theirs])
                ready = [ready[0], Row("fcntl", (errors, _F_SETFD, _FD_CLOEXEC))]
            inherits = False
        if isinstance(step, DeathSignal):  # a parent that died before it was set sends none; then this row fails
            made += ready
            knocked = True
        elif isinstance(step, CloseDescriptors):
            # Marked, they would stay open in an init, and through /proc/1/fd the container reached what is beneath its
            # mounts: /proc/sys, writable. Only the report's is still needed; an init closes it itself.
            made[:0] = _closing([errors])
        elif isinstance(step, Execute) and not knocked:
            rows += ready
            counts[-1] += len(ready)
        if between and len(counts) < marked:
            made += between
        rows += made
        counts.append(len(made))
    last = steps[-1]
    assert isinstance(last, Execute)
    arguments, environment = last.program()
    home = slots.found.get("home")
    if home is not None and not any(variable.startswith(b"HOME=") for variable in environment):
        environment.append(b"HOME=" + os.fsencode(str(home)))
    return Table(runner.executable(runner.image(rows, errors)), counts, arguments, environment)


def _closing(kept: list[int]) -> list[Row]:
    """The rows that close all descriptors from 3 up but these."""
    rows: list[Row] = []
    first = 3
    for last in (*sorted(kept), _EVERY + 1):
        if first < last:
            rows.append(Row("close_range", (first, last - 1, 0)))
        first = last + 1
    return rows


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
