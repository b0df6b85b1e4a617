"""Control groups by hand: named, lasting, changed, joined, emptied.

    cgcreate -g memory:g; cgset -r memory.max=50M g; cgclassify -g memory:g PID; cgexec -g memory:g COMMAND; cgdelete g

A group is a directory in each tree of control groups that this machine has, and nothing else: it is found by looking
there. Its name there begins with `tarbox-limit-`, so that nobody else's is taken for one.

man 7 cgroups
"""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM, ESRCH

from ..errors import KernelError, TarboxError, UsageError
from ..kernel import cgroups
from ..kernel.cgroups import groups
from ..kernel.cgroups.usage import Usage, processes
from ..kernel.cgroups.v2 import EnableControllers
from ..kernel.cgroups.weights import WriteWeight
from ..plan.journal import Journal
from ..plan.step import PARENT, Slots
from ..unistd import os
from .limits import asked, chosen, of_each_process, planned, prepared, take, tell, tell_of_memory
from .plain_process import attend
from .undo import UNDO
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ..kernel.cgroups import Backend
    from ..plan.step import Step
    from .options import RunOptions

PREFIX = "tarbox-limit-"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_LONGEST_NAME = 100


def name(text: str) -> str:
    """The name of a lasting group; raises UsageError for what can't be one."""
    if not text or not _LETTERS.issuperset(text) or not text[0].isalnum() or len(text) > _LONGEST_NAME:
        hint = f"letters, digits, _ . and -, a letter or digit first, at most {_LONGEST_NAME}"
        raise UsageError(f"{shorten(text)!r} is not the name of a group", hint)
    return text


def create(group: str, options: RunOptions, root: str | None = None) -> None:
    """Make the group `group` with the limits of `options`; it stays until it is removed. Raises TarboxErrors."""
    resources = asked(options)
    backend = _backend()
    if any(os.path.exists(path) for path in backend.groups(PREFIX + group)):
        raise UsageError(f"there is a group {group!r} already", f"'tarbox limit set {group} ...' changes it")
    steps = planned(backend, PREFIX + group, resources)
    journal = Journal(prepared(root), os.urandom(32).hex(), UNDO)
    try:
        journal.write([record for step in steps for record in step.record()])
        tell(backend.warnings(resources))
        take([step for step in steps if step.by == PARENT])
        journal.records = ()  # it is whole now, and nothing of it is to be taken away
    finally:
        tell([str(error) for error in journal.clean()])


def change(group: str, options: RunOptions, lifted: Sequence[str] = (), root: str | None = None) -> None:
    """Change limits of the group; those that aren't named stay.

    lifted: what has no limit any more: "memory", "cpus", "pids". Raises TarboxErrors.
    """
    backend, _ = _found(group)
    prepared(root)
    resources = _with_lifted(asked(options), lifted)
    if not resources:
        raise UsageError("nothing to change", f"e.g. tarbox limit set {group} -m 100m, or memory.max=100m")
    steps = planned(backend, PREFIX + group, resources)
    tell(backend.warnings(resources))
    _write([step for step in steps if isinstance(step, groups.WriteControl | WriteWeight | EnableControllers)])


def execute(group: str, command: list[str], options: RunOptions, root: str | None = None) -> int:
    """Run a command in the group and return its exit code. options: limits of each process."""
    backend, _ = _found(group)
    prepared(root)
    joins = [step for step in planned(backend, PREFIX + group, {}) if isinstance(step, groups.JoinGroup)]
    before = backend.events(PREFIX + group).oom_kills
    code = attend(command, [*joins, *of_each_process(options)])
    if code:
        limit = Usage(backend.groups(PREFIX + group)).memory_limit
        tell_of_memory(backend.events(PREFIX + group).oom_kills - before, limit or 0)
    return code


def add(group: str, numbers: Iterable[int], root: str | None = None) -> None:
    """Move living processes into the group, each with all its threads; its children stay where they are.

    The memory that a process has by then stays counted where it was.
    """
    _, paths = _found(group)
    prepared(root)
    for number in numbers:
        origin = _places(number)
        try:
            _move(number, paths)
        except TarboxError:
            for path in origin:  # all or nothing
                try:
                    _move(number, [path])
                except TarboxError:
                    pass
            raise


def names(root: str | None = None) -> list[str]:
    """The names of all lasting groups, in order."""
    prepared(root)
    return _names(_backend())


def _names(backend: Backend) -> list[str]:
    found: set[str] = set()
    for folder in {os.path.dirname(path) for path in backend.groups("any")}:
        try:
            found |= {entry.removeprefix(PREFIX) for entry in os.listdir(folder) if entry.startswith(PREFIX)}
        except OSError:
            pass
    return sorted(found)


def usage(group: str) -> tuple[Usage, list[str]]:
    """What the group uses and may use, and where it is."""
    _, paths = _found(group)
    return Usage(paths), paths


def remove(group: str, kill: bool = False, release: bool = False, root: str | None = None) -> None:
    """Remove the group; raises UsageError while processes are in it, unless they are killed or released.

    release: they go on in the groups that this command is in, as if it had started them.
    """
    _, paths = _found(group)
    prepared(root)
    if release:
        _release(paths)
    left = processes(paths)
    if left and not kill:
        count = "a process" if len(left) == 1 else f"{len(left)} processes"
        hint = "--force kills them, --release moves them out of it"
        raise UsageError(f"the group {group!r} holds {count}: {' '.join(map(str, left[:5]))}", hint)
    for path in reversed(paths):
        groups.remove(path)


def _backend() -> Backend:
    return chosen(cgroups.pick(cgroups.detect(), every=True))


def _found(group: str) -> tuple[Backend, list[str]]:
    """The backend, and the paths of the group; raises UsageError when there is none by that name."""
    backend = _backend()
    paths = [path for path in backend.groups(PREFIX + group) if os.path.isdir(path)]
    if paths:
        return backend, paths
    from .nearest import suggest

    near = suggest(group, _names(backend))
    raise UsageError(f"there is no group {group!r}", f"did you mean {near}?" if near else "see 'tarbox limit ls'")


def _with_lifted(resources: dict[str, Any], lifted: Sequence[str]) -> dict[str, Any]:
    if "memory" in lifted:
        resources["memory"] = {**resources.get("memory", {}), "limit": -1, "swap": -1}
    if "cpus" in lifted:
        resources["cpu"] = {**resources.get("cpu", {}), "quota": -1}
    if "pids" in lifted:
        resources["pids"] = {"limit": -1}
    return resources


def _write(steps: list[Step]) -> None:
    """Take steps that write limits, in an order in which the kernel accepts them.

    Limits that bind each other, such as memory and memory with swap, go in only in one order, which depends on what
    they are now: what is refused is tried again after the others.
    """
    slots = Slots()
    while steps:
        refused: list[tuple[Step, KernelError]] = []
        for step in steps:
            try:
                step.apply(slots)
            except KernelError as error:
                refused.append((step, error))
        if len(refused) == len(steps):
            raise refused[0][1]
        steps = [step for step, _ in refused]
    tell(slots.warnings)


def _move(number: int, paths: Iterable[str]) -> None:
    for path in paths:
        try:
            groups.write(f"{path}/cgroup.procs", str(number))
        except KernelError as error:
            if error.errno == ESRCH:
                raise UsageError(f"there is no process {number}", "'ps -e' lists them") from None
            hint = {
                EINVAL: "it is the kernel's own, or a real-time process, which needs cpu.rt_runtime_us",
                EACCES: "a plain user moves only processes of his own, within what was delegated to him",
                EPERM: "a plain user moves only processes of his own, within what was delegated to him",
            }.get(error.errno, error.hint)
            raise KernelError(error.call, error.arguments, error.errno, hint, error.shell) from None


def _places(number: int | str) -> list[str]:
    """The groups that a process is in, as paths."""
    v1, v2 = cgroups.mounts(groups.read("/proc/self/mountinfo") or "")
    places = []
    for line in (groups.read(f"/proc/{number}/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        mount = v1.get(controllers.partition(",")[0]) if controllers else v2
        if mount:
            places.append(mount + path.rstrip("/"))
    return places


def _release(paths: list[str]) -> None:
    """Move all processes of the groups into this command's own."""
    own = _places("self")
    for path in paths:
        mount = os.path.dirname(path)
        target = max(
            (place for place in own if place == mount or place.startswith(mount + "/")), default=mount, key=len
        )
        for _ in range(100):  # what forks meanwhile is found the next time
            left = processes([path])
            if not left:
                break
            for number in left:
                try:
                    _move(number, [target])
                except UsageError:
                    pass  # ended meanwhile
