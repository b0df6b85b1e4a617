"""The machinery that carries out plans: what the executor needs of the kernel, put together.

man 2 clone3, man 2 socketpair, man 2 execveat
"""

from __future__ import annotations

import os
import sys

from ..kernel import channel, runner, signals
from ..kernel.namespaces import Spawn
from ..kernel.runner import DeathSignal, Execute
from ..plan.executor import KNOCK
from ..plan.step import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ..plan.step import Slots, Step


def pair() -> tuple[channel.Channel, channel.Channel]:
    """A channel between the parent and the child."""
    return channel.pair()


def spawn(step: Step, slots: Slots) -> int:
    """Fork as the step says; 0 in the child.

    Until here a signal ends the command as any other; from here on all are blocked, and whoever serves the container
    reads them, so that none gets lost in between.
    """
    assert isinstance(step, Spawn)
    signals.block_all()
    return step.spawn(slots)


def forked() -> None:
    """What the child does first: from here on it can load no code, whatever files come into view."""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []


def launch(steps: list[Step], slots: Slots, errors: int, announce: Callable[[bytes], None]) -> NoReturn:
    """Turn the runner's steps into its table, tell the parent what the rows are, and become the runner."""
    *table, last = steps
    assert isinstance(last, Execute)
    rows = [step.rows(slots) for step in table]
    for step, made in zip(table, rows, strict=True):
        if isinstance(step, DeathSignal):  # a parent that died before it was set sends none; then this row fails
            made.append(Row("write", (errors, KNOCK, len(KNOCK)), "write(parent)"))
    program, obstacle = str(slots.found["program"]), str(slots.found["obstacle"])
    arguments, environment = last.program()
    arguments[0] = os.fsencode(program)
    home = slots.found.get("home")
    if home is not None and not any(variable.startswith(b"HOME=") for variable in environment):
        environment.append(b"HOME=" + os.fsencode(str(home)))
    announce(os.fsencode("\n".join([",".join(str(len(made)) for made in rows), program, obstacle])))
    runner.enter([row for made in rows for row in made], arguments, environment, errors, last.init)


def report(data: bytes) -> tuple[int, int] | None:
    """The row of the runner's table that failed, and its errno."""
    return runner.read_report(data)
