"""`tarbox limit`: limits for plain processes, without a container.

    mkdir /sys/fs/cgroup/box; echo 50M > /sys/fs/cgroup/box/memory.max
    sh -c 'echo $$ > /sys/fs/cgroup/box/cgroup.procs; exec COMMAND'; rmdir /sys/fs/cgroup/box

Here a command gets a group for as long as it runs; groups that last are in `lasting_groups.py`. The group is in the
journal before it is made, so that the next command takes it away when this one was killed.

man 7 cgroups
"""

from __future__ import annotations

from ..errors import ConfigError, UnsupportedError, UsageError
from ..kernel import cgroups, signals
from ..kernel.namespaces import DieWithParent
from ..kernel.oom_score import OomScore
from ..kernel.rlimits import Limit
from ..plan.journal import Journal, sweep
from ..plan.step import PARENT, Slots
from ..unistd import os
from .machine import read_machine
from .plain_process import attend
from .resources import check, limits
from .roots import Roots
from .undo import UNDO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..kernel.cgroups import Backend
    from ..plan.step import Step
    from .options import RunOptions

NO_GROUPS = (
    "no control group may be made here, so nothing can be limited",
    "run it as root; a plain user needs cgroup v2 and a delegated group: "
    "systemd-run --user --scope -p Delegate=yes tarbox limit ...",
)


def run(command: list[str], options: RunOptions, root: str | None = None) -> int:
    """Run a command in a group of its own, with the limits of `options`; returns its exit code.

    What the command leaves running ends with it. Raises a TarboxError when the command couldn't be started.
    root: the data root, None for the default.
    """
    resources = asked(options)
    backend = chosen(cgroups.pick(cgroups.detect(), options.cgroup_parent, resources))
    id = os.urandom(32).hex()
    name = f"tarbox-{id}"
    steps = planned(backend, name, resources)
    journal = Journal(prepared(root), id, UNDO)
    try:
        journal.write([record for step in steps for record in step.record()])
        tell(backend.warnings(resources))
        take([step for step in steps if step.by == PARENT])
        joins = [step for step in steps if step.by != PARENT]
        code = attend(command, [DieWithParent(), *joins, *of_each_process(options)])
        if code:
            tell_of_memory(backend.events(name).oom_kills, options.memory)
        return code
    finally:
        mask = signals.block_all()  # a second ^C must not stop the taking away
        tell([str(error) for error in journal.clean()])
        signals.set_mask(mask)


def explain(command: list[str], options: RunOptions) -> str:
    """What `run` would do with these options, step by step, as text; nothing is done."""
    from ..plan.explain import PLAIN, render
    from .plain_process import plan

    resources = asked(options)
    id = os.urandom(32).hex()
    backend = chosen(cgroups.pick(cgroups.detect(), options.cgroup_parent, resources))
    steps = planned(backend, f"tarbox-{id}", resources)
    own = [DieWithParent(), *(step for step in steps if step.by != PARENT), *of_each_process(options)]
    return render(plan(command, own, [step for step in steps if step.by == PARENT]), {id: "ID"}, PLAIN)


def asked(options: RunOptions) -> dict[str, Any]:
    """The OCI `linux.resources` for the options; raises UsageError for those that can't go together."""
    check(options, read_machine())
    return {**limits(options)}


def chosen(backend: Backend) -> Backend:
    """The backend, unless it can make no groups: then raises UnsupportedError."""
    if not backend.groups("any"):
        raise UnsupportedError(*NO_GROUPS)
    return backend


def planned(backend: Backend, name: str, resources: dict[str, Any]) -> list[Step]:
    """The steps that make the group; raises UsageError for a control that can't be meant."""
    try:
        return backend.steps(name, resources)
    except ConfigError as error:
        raise UsageError(error.message.partition(": ")[2], error.hint) from None


def prepared(root: str | None) -> str:
    """The folder of journals, after finishing the clean-ups that lie in it; from here on signals end us cleanly."""
    roots = Roots(root)
    roots.make()
    for folder in roots.journals:
        tell([str(error) for error in sweep(folder, UNDO)])
    signals.leave_on_termination()
    return roots.journals[0]


def take(steps: list[Step]) -> None:
    """Take steps that are this process's, and tell what they have to say."""
    slots = Slots()
    for step in steps:
        step.apply(slots)
    tell(slots.warnings)


def of_each_process(options: RunOptions) -> list[Step]:
    """What is limited for each process by itself, and not for the group."""
    steps: list[Step] = [Limit(limit.name, limit.soft, limit.hard) for limit in options.ulimits]
    return [*steps, OomScore(options.oom_score_adj)] if options.oom_score_adj is not None else steps


def tell_of_memory(kills: int, limit: int) -> None:
    """Say that the kernel killed for want of memory, if it did. limit: bytes, 0 where it isn't known."""
    if kills:
        count = "a process" if kills == 1 else f"{kills} processes"
        size = f" of {written(limit)}" if limit else ""
        tell([f"the command reached its memory limit{size}: the kernel killed {count} (raise it with -m)"])


def written(size: int) -> str:
    """A number of bytes as people write it: exact where that is short."""
    for unit, bytes_ in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= bytes_:
            return f"{size // bytes_} {unit}" if size % bytes_ == 0 else f"{size / bytes_:.1f} {unit}"
    return f"{size} bytes"


def tell(lines: list[str]) -> None:
    """Write each line to standard error, with our name before it."""
    for line in lines:
        try:
            os.write(2, f"tarbox: {line}\n".encode("utf-8", "replace"))
        except OSError:
            pass
