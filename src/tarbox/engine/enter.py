"""`tarbox enter` and `tarbox debug`: a command of the host's in chosen namespaces of something that runs.

    nsenter --target PID --net COMMAND

man 1 nsenter
"""

from __future__ import annotations

from ..errors import UsageError
from ..kernel import signals
from ..kernel.setns import BIRTH, ROOT, slot_of
from ..runtime.entry import Entry, plan
from ..unistd import os
from .limits import tell
from .plain_process import carry_out, program
from .targets import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ..plan.plan import Plan
    from .targets import Target

SHELL = "sh"
_NOT_FOR_DEBUGGING = ("mount", "cgroup")


def enter(
    word: str,
    kinds: Collection[str],
    everything: bool,
    command: list[str],
    directory: str = "",
    root: str | None = None,
    told: list[str] | None = None,
) -> int:
    """Run a command in the namespaces of these kinds, OCI names, of a target; returns its exit code.

    word: names the target (`targets.py`). everything: all kinds that it doesn't share with the caller. command: the
    caller's shell where it is empty. directory: where it starts, "" for where the caller is, or the root with "mount".
    root: the data root, None for the default. told: takes the plan as text, and then nothing is done. Raises
    TarboxErrors.
    """
    target = find(word, root)
    try:
        if everything or (not target.pid and not kinds):  # a file is one kind; a name has those that it was given
            kinds = set(target.namespaces)
        if not kinds:
            hint = f"e.g. 'tarbox enter --net {word} -- ip addr', or --all"
            raise UsageError(f"which namespaces of {target.shown} shall be entered?", hint)
        for kind in kinds:
            if kind not in target.namespaces:
                has = ", ".join(target.namespaces)
                raise UsageError(f"{target.shown} has no {kind} namespace", f"it has: {has}")
        entry = Entry([kind for kind in kinds if kind not in target.own])
        entry.root = "mount" in kinds and target.root >= 0
        entry.directory = directory
        shell = SHELL if "mount" in kinds else os.environ.get("SHELL") or SHELL
        return _carry_out(entry, target, command or [shell], told)
    finally:
        target.close()


def debug(
    word: str, command: list[str], directory: str = "", root: str | None = None, told: list[str] | None = None
) -> int:
    """Run a command of the host's in all namespaces of a target but those for mounts and control groups.

    It has a mount namespace like the caller's, with a /proc that shows the target's processes. As for `enter`.
    """
    target = find(word, root)
    try:
        if not target.pid:
            raise UsageError(
                f"{target.shown} is no process, so there is nothing to debug",
                f"'tarbox enter {word}' runs a command in it",
            )
        entry = Entry([kind for kind in target.namespaces if kind not in (*target.own, *_NOT_FOR_DEBUGGING)])
        entry.view = "pid" in entry.kinds
        entry.directory = directory
        return _carry_out(entry, target, command or [os.environ.get("SHELL") or SHELL], told)
    finally:
        target.close()


def _carry_out(entry: Entry, target: Target, command: list[str], told: list[str] | None) -> int:
    entry.plain = os.geteuid() != 0
    if "user" in entry.kinds and target.zero:
        entry.ids, entry.setgroups = (0, 0), target.setgroups
    if "pid" in entry.kinds and target.traces and "user" in target.own:
        tell(
            [f"the processes in there have CAP_SYS_PTRACE, so they can take over {command[0]}, with all that it may do"]
        )
    slots = {slot_of(kind): target.namespaces[kind] for kind in entry.kinds}
    if entry.root:
        slots[ROOT] = target.root
        slots["tree"] = target.root  # for telling why a program doesn't start
    opened = -1
    if "pid" in entry.kinds:
        opened = slots[BIRTH] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    start = program(command, directory=entry.directory or ("/" if entry.root else ""))

    def planned(mask: bytes, given: tuple[str, ...]) -> Plan:
        return plan(entry, start, mask, given)

    try:
        if told is not None:
            from ..plan.explain import PLAIN, render

            told.append(render(planned(bytes(8), tuple(slots)), {}, PLAIN))
            return 0
        signals.leave_on_termination()
        return carry_out(planned, slots)
    finally:
        if opened >= 0:
            os.close(opened)
