"""Control groups, version 2: one tree for all controllers.

    echo +memory > /sys/fs/cgroup/cgroup.subtree_control
    mkdir /sys/fs/cgroup/box; echo 20M > /sys/fs/cgroup/box/memory.max

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import errno

from ...errors import KernelError, UnsupportedError
from ...plan.step import PARENT, Slots, Step
from ...unistd import os
from .groups import JoinGroup, MakeGroup, MakeParent, OpenGroup, read, read_key, write
from .resources import Events, below, unapplied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .resources import Control, Resources

# Those that a container's group gets wherever it can, so that its use is counted though nothing is limited.
COUNTING = ("cpu", "io", "memory", "pids")


class EnableControllers(Step):
    """Let the groups below `path` have the controllers `needed`, and those of `wanted` if that is possible.

    Both are names in order; the controllers stay enabled afterwards, as others may rely on them by then.
    """

    __slots__ = ("needed", "path", "wanted")
    phase = "host"
    why = "A group has a controller's files only if the group above passes the controller down."
    man = "cgroups(7)"

    def __init__(self, path: str, needed: tuple[str, ...], wanted: tuple[str, ...] = (), by: str = PARENT) -> None:
        super().__init__(by)
        self.path = path
        self.needed = needed
        self.wanted = wanted

    def apply(self, slots: Slots) -> None:
        file = f"{self.path}/cgroup.subtree_control"
        enabled = (read(file) or "").split()
        missing = [name for name in dict.fromkeys(self.needed + self.wanted) if name not in enabled]
        if not missing:
            return
        needed = [name for name in self.needed if name in missing]
        # A group with processes of its own can't pass controllers down, or only in a way that leaves the groups below
        # without processes. The tree's root may; it is the one that has no type.
        if os.path.exists(self.path + "/cgroup.type") and (read(self.path + "/cgroup.procs") or "").strip():
            if needed:
                raise UnsupportedError(
                    f"{self.path} can't limit {', '.join(needed)} for groups below it: processes are in it directly",
                    f"move them: mkdir {self.path}/rest; echo $$ > {self.path}/rest/cgroup.procs",
                )
            return
        try:
            write(file, " ".join("+" + name for name in missing))
        except KernelError:
            if needed:
                self._enable_needed(file, needed)

    def _enable_needed(self, file: str, needed: list[str]) -> None:
        try:
            write(file, " ".join("+" + name for name in needed))
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                raise UnsupportedError(f"{self.path} has no controller for {', '.join(needed)}") from None
            raise

    def call(self) -> str:
        return f'write("{self.path}/cgroup.subtree_control", "{self._value()}")'

    def shell(self) -> str:
        return f"echo {self._value()} > {self.path}/cgroup.subtree_control"

    def _value(self) -> str:
        return " ".join("+" + name for name in dict.fromkeys(self.needed + self.wanted))


class V2:
    """The backend for version 2.

    root: the group below which containers' groups are made: the root of the tree, or a group that was delegated to
    this user. controllers: those that it has. programs: whether device programs may be attached. parent: a group
    between the two, "" for none.
    """

    __slots__ = ("controllers", "parent", "programs", "root")

    def __init__(self, root: str, controllers: tuple[str, ...], programs: bool = True, parent: str = "") -> None:
        self.root = root
        self.controllers = controllers
        self.programs = programs
        self.parent = parent

    def groups(self, name: str) -> tuple[str, ...]:
        """The path of the group of the container `name`, alone in a tuple."""
        return (self._path(name),)

    def steps(self, name: str, resources: Resources, into: bool = False) -> list[Step]:
        """The steps that make the group `name`, limit it as OCI `linux.resources` say, and join it.

        into: whether the process will be made by `clone3(CLONE_INTO_CGROUP)`: then the slot `cgroup` is given, and no
        step joins. Raises ConfigError and UnsupportedError.
        """
        path = self._path(name)
        controls = [control for control in _controls(resources) if control.controller in self.controllers]
        needed = tuple(dict.fromkeys(control.controller for control in controls))
        steps: list[Step] = []
        upper = self.root
        for group in below(self.root, self.parent, name):
            names = needed, tuple(one for one in COUNTING if one in self.controllers and one not in needed)
            if names != ((), ()):
                steps.append(EnableControllers(upper, *names))
            steps.append(MakeGroup(group) if group == path else MakeParent(group))
            upper = group
        steps += [control.step(path) for control in controls]
        if resources.get("devices") and self.programs:
            from . import device_program, devices

            steps.append(device_program.AllowDevices(path, devices.from_last_sweep(devices.checked(resources))))
        steps.append(OpenGroup(path) if into else JoinGroup((f"{path}/cgroup.procs",)))
        return steps

    def warnings(self, resources: Resources) -> list[str]:
        """What of `resources` has no effect here, a line each."""
        if not resources.keys() - {"devices"}:
            return []
        from .keys import for_v2
        from .v2_controls import LACKING

        lines = unapplied(for_v2(resources), LACKING)
        files: dict[str, list[str]] = {}
        for control in _controls(resources):
            files.setdefault(control.controller, []).append(control.file)
        lines += [
            f"{', '.join(names)} can't be set, so this limit is ignored: {self.root} has no {controller} controller"
            for controller, names in files.items()
            if controller not in self.controllers
        ]
        return lines

    def events(self, name: str) -> Events:
        """What happened in the group `name`; zeros and None when it is gone."""
        path = self._path(name)
        # Kills in groups that the container made inside are counted in `memory.events`, upwards through the tree.
        kills = read_key(path + "/memory.events", "oom_kill")
        if kills is None:
            kills = read_key(path + "/memory.events.local", "oom_kill")
        peak = (read(path + "/memory.peak") or "").strip()
        return Events(kills or 0, int(peak) if peak else None)

    def freeze(self, name: str) -> None:
        """Stop all processes of the container `name` where they are; returns when they stand still."""
        from .freezer import freeze_v2

        freeze_v2(self._path(name))

    def thaw(self, name: str) -> None:
        """Let them go on."""
        from .freezer import thaw_v2

        thaw_v2(self._path(name))

    def _path(self, name: str) -> str:
        return below(self.root, self.parent, name)[-1]


def _controls(resources: Resources) -> list[Control]:
    """What is to be written, in order; the tables are loaded when something is limited."""
    if not resources.keys() - {"devices"}:
        return []
    from .keys import for_v2
    from .v2_controls import controls

    return controls(for_v2(resources))
