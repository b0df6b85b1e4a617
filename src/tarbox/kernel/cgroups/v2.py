"""Control groups, version 2: one tree for all controllers.

    echo +memory > /sys/fs/cgroup/cgroup.subtree_control
    mkdir /sys/fs/cgroup/box; echo 20M > /sys/fs/cgroup/box/memory.max

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import errno

from ...errors import ConfigError, KernelError, UnsupportedError
from ...plan.step import PARENT, Slots, Step
from ...unistd import os
from .groups import JoinGroup, MakeGroup, MakeParent, OpenGroup, WriteControl, read, read_key, write
from .resources import Events, below, block_rates, number, unapplied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .resources import Resources

# Those that a container's group gets wherever it can, so that its use is counted though nothing is limited.
COUNTING = ("cpu", "io", "memory", "pids")

_NO_SWAP_ACCOUNT = "swap isn't limited: this kernel doesn't account for it"

_RATES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


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
        step joins. Raises ConfigError.
        """
        path = self._path(name)
        writes = [one for one in self._writes(resources) if one[0].partition(".")[0] in self.controllers]
        needed = tuple(dict.fromkeys(file.partition(".")[0] for file, _, _ in writes))
        steps: list[Step] = []
        upper = self.root
        for group in below(self.root, self.parent, name):
            names = needed, tuple(one for one in COUNTING if one in self.controllers and one not in needed)
            if names != ((), ()):
                steps.append(EnableControllers(upper, *names))
            steps.append(MakeGroup(group) if group == path else MakeParent(group))
            upper = group
        steps += [WriteControl(f"{path}/{file}", value, absent) for file, value, absent in writes]
        if resources.get("devices") and self.programs:
            from . import device_program, devices

            steps.append(device_program.AllowDevices(path, devices.from_last_sweep(devices.checked(resources))))
        steps.append(OpenGroup(path) if into else JoinGroup((f"{path}/cgroup.procs",)))
        return steps

    def warnings(self, resources: Resources) -> list[str]:
        """What of `resources` has no effect here, a line each."""
        lines = unapplied(
            resources,
            "memory.swappiness",
            "memory.kernelTCP",
            "memory.disableOOMKiller",
            "cpu.realtimeRuntime",
            "cpu.realtimePeriod",
            "blockIO.leafWeight",
        )
        files: dict[str, list[str]] = {}
        for file, _, _ in self._writes(resources):
            files.setdefault(file.partition(".")[0], []).append(file)
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

    def _writes(self, resources: Resources) -> list[tuple[str, str, str]]:
        """(control file, value, the warning that is enough when it is absent), in the order of writing."""
        writes = _memory(resources) + _cpu(resources)
        pids = number(resources, "pids", "limit")
        if pids is not None:
            writes.append(("pids.max", str(pids) if pids > 0 else "max", ""))
        writes += _blocks(resources)
        for page in resources.get("hugepageLimits") or ():
            writes.append((f"hugetlb.{page['pageSize']}.max", str(page["limit"]), ""))
        for file, value in (resources.get("unified") or {}).items():
            controller = file.partition(".")[0]
            if "/" in file or controller in ("", "cgroup", file):
                raise ConfigError("$.linux.resources.unified", f"{file!r} isn't a control of a controller")
            writes.append((file, str(value), ""))
        return writes


def _memory(resources: Resources) -> list[tuple[str, str, str]]:
    limit, swap = number(resources, "memory", "limit") or 0, number(resources, "memory", "swap") or 0
    reservation = number(resources, "memory", "reservation")
    writes = []
    if limit:
        writes.append(("memory.max", _or_max(limit), ""))
    # The OCI's "swap" is memory and swap together, as in version 1; here swap is counted by itself.
    if swap > 0:
        if limit <= 0:
            raise ConfigError("$.linux.resources.memory.swap", "needs a memory limit as well")
        if swap < limit:
            raise ConfigError("$.linux.resources.memory.swap", "is memory and swap together: it can't be below limit")
        writes.append(("memory.swap.max", str(swap - limit), _NO_SWAP_ACCOUNT))
    elif swap < 0 or limit < 0:
        writes.append(("memory.swap.max", "max", _NO_SWAP_ACCOUNT))
    if reservation:
        writes.append(("memory.low", _or_max(reservation), ""))
    return writes


def _cpu(resources: Resources) -> list[tuple[str, str, str]]:
    writes = []
    shares, idle = number(resources, "cpu", "shares"), number(resources, "cpu", "idle")
    quota, period = number(resources, "cpu", "quota"), number(resources, "cpu", "period")
    burst = number(resources, "cpu", "burst")
    if idle is not None:
        writes.append(("cpu.idle", str(idle), ""))
    if shares and not idle:  # an idle group's weight can't be written
        writes.append(("cpu.weight", str(weight(shares)), ""))
    if quota or period:
        writes.append(("cpu.max", f"{_or_max(quota or -1)} {period or 100000}", ""))
    if burst is not None:
        writes.append(("cpu.max.burst", str(burst), ""))
    cpu = resources.get("cpu") or {}
    writes += [(f"cpuset.{key}", str(cpu[key]), "") for key in ("cpus", "mems") if cpu.get(key)]
    return writes


def _blocks(resources: Resources) -> list[tuple[str, str, str]]:
    writes = []
    given = number(resources, "blockIO", "weight")
    if given:
        # 10 to 1000 becomes 1 to 10000, evenly.
        writes.append(("io.weight", str(1 + (given - 10) * 9999 // 990), ""))
    for kind, key in _RATES:
        writes += [("io.max", f"{device} {key}={rate}", "") for device, rate in block_rates(resources, kind)]
    return writes


def _or_max(value: int) -> str:
    return str(value) if value >= 0 else "max"


def weight(shares: int) -> int:
    """The `cpu.weight` (1 to 10000, usually 100) that stands for version 1's `cpu.shares` (2 to 262144, usually 1024).

    The curve goes through both ends and both defaults, and is the one that runc has used since 1.3.2 and crun since
    1.23, so that containers of different engines share a machine fairly.
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = log2(shares)
    return ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))
