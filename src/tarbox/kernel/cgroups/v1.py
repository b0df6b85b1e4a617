"""Control groups, version 1: a tree of its own for each controller, or for a few that are mounted together.

    mkdir /sys/fs/cgroup/memory/box; echo 20M > /sys/fs/cgroup/memory/box/memory.limit_in_bytes

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

from . import devices
from .groups import CopyControl, JoinGroup, MakeGroup, MakeParent, WriteControl, read, read_key
from .resources import Events, below, block_rates, number, unapplied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...plan.step import Step
    from .resources import Resources

# The controllers in which a container gets a group, in the order in which the groups are made. They are removed in the
# opposite order, the freezer's first: what is frozen wouldn't die, and only the freezer's group can thaw it.
CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "blkio", "hugetlb", "freezer")

# Which of them a part of the OCI resources needs.
KINDS = (
    ("memory", "memory"),
    ("cpu", "cpu"),
    ("pids", "pids"),
    ("blockIO", "blkio"),
    ("hugepageLimits", "hugetlb"),
    ("devices", "devices"),
)

_NO_SWAP_ACCOUNT = "swap isn't limited: this kernel doesn't account for it (boot it with swapaccount=1)"

# (controller, place in the OCI resources, control file), in the order in which they are written.
_PLAIN = (
    ("memory", ("memory", "reservation"), "memory.soft_limit_in_bytes"),
    ("memory", ("memory", "kernelTCP"), "memory.kmem.tcp.limit_in_bytes"),
    ("memory", ("memory", "swappiness"), "memory.swappiness"),
    ("cpu", ("cpu", "shares"), "cpu.shares"),
    ("cpu", ("cpu", "period"), "cpu.cfs_period_us"),  # the quota is checked against the period, so the period is first
    ("cpu", ("cpu", "quota"), "cpu.cfs_quota_us"),
    ("cpu", ("cpu", "burst"), "cpu.cfs_burst_us"),
    ("cpu", ("cpu", "realtimePeriod"), "cpu.rt_period_us"),
    ("cpu", ("cpu", "realtimeRuntime"), "cpu.rt_runtime_us"),
    ("cpu", ("cpu", "idle"), "cpu.idle"),
    ("blkio", ("blockIO", "weight"), "blkio.weight"),
    ("blkio", ("blockIO", "leafWeight"), "blkio.leaf_weight"),
)
_RATES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


class V1:
    """The backend for version 1.

    mounts: controller → the folder of its hierarchy. parent: the group in each hierarchy under which the containers'
    groups are made; "" for the hierarchy's root.
    """

    __slots__ = ("mounts", "parent")

    def __init__(self, mounts: dict[str, str], parent: str = "") -> None:
        self.mounts = {name: mounts[name] for name in CONTROLLERS if name in mounts}
        self.parent = parent

    def groups(self, name: str) -> tuple[str, ...]:
        """The paths of the groups that the container `name` may have, one a hierarchy."""
        return tuple(dict.fromkeys(self._path(controller, name) for controller in self.mounts))

    def steps(self, name: str, resources: Resources, into: bool = False) -> list[Step]:
        """The steps that make the groups `name`, limit them as OCI `linux.resources` say, and join them.

        into: has no meaning here; a process can't be born into these groups. Raises ConfigError.
        """
        used = self._used(resources)
        steps: list[Step] = []
        for mount in dict.fromkeys(used.values()):
            steps += [MakeParent(path) for path in below(mount, self.parent)]
            steps.append(MakeGroup(below(mount, self.parent, name)[-1]))
        if "cpuset" in used:
            steps += self._cpuset(name, resources)
        steps += self._memory(name, resources)
        for controller, place, file in _PLAIN:
            value = number(resources, *place)
            if controller in self.mounts and value is not None:
                steps.append(WriteControl(f"{self._path(controller, name)}/{file}", str(value)))
        steps += self._pids_and_pages(name, resources)
        if "blkio" in self.mounts:
            for kind, file in _RATES:
                for device, rate in block_rates(resources, kind):
                    steps.append(WriteControl(f"{self._path('blkio', name)}/{file}", f"{device} {rate}"))
        rules = devices.checked(resources)
        if rules and "devices" in self.mounts:
            steps.append(devices.LimitDevices(self._path("devices", name), devices.lines(rules)))
        groups = dict.fromkeys(below(mount, self.parent, name)[-1] for mount in used.values())
        if groups:
            steps.append(JoinGroup(tuple(f"{group}/tasks" for group in groups)))
        return steps

    def warnings(self, resources: Resources) -> list[str]:
        """What of `resources` has no effect here, a line each."""
        lines = unapplied(resources)
        if resources.get("unified"):
            lines.append("linux.resources.unified is ignored: it needs cgroup v2")
        lines += [
            f"linux.resources.{kind} is ignored: the {controller} controller isn't mounted, or can't be written to"
            for kind, controller in KINDS
            if resources.get(kind) and controller not in self.mounts
        ]
        return lines

    def events(self, name: str) -> Events:
        """What happened in the groups `name`; zeros and None when they are gone."""
        if "memory" not in self.mounts:
            return Events(0, None)
        path = self._path("memory", name)
        peak = (read(path + "/memory.max_usage_in_bytes") or "").strip()
        return Events(read_key(path + "/memory.oom_control", "oom_kill") or 0, int(peak) if peak else None)

    def freeze(self, name: str) -> None:
        """Stop all processes of the container `name` where they are; returns when they stand still."""
        from .freezer import freeze_v1

        freeze_v1(self._path("freezer", name) if "freezer" in self.mounts else "")

    def thaw(self, name: str) -> None:
        """Let them go on."""
        from .freezer import thaw_v1

        thaw_v1(self._path("freezer", name) if "freezer" in self.mounts else "")

    def _used(self, resources: Resources) -> dict[str, str]:
        """The controllers in which the container gets a group: each costs its start a little, and its end.

        Some it always needs, to be told of a lack of memory, bounded, kept from devices and stopped; the others only
        when something is limited there.
        """
        cpu = resources.get("cpu") or {}
        wanted = {
            "cpu": bool(cpu.keys() - _CPUSET.keys()),
            "cpuacct": bool(cpu.keys() - _CPUSET.keys()),
            "cpuset": bool(cpu.keys() & _CPUSET.keys()),
            "blkio": bool(resources.get("blockIO")),
            "hugetlb": bool(resources.get("hugepageLimits")),
        }
        return {name: mount for name, mount in self.mounts.items() if wanted.get(name, True)}

    def _path(self, controller: str, name: str) -> str:
        return below(self.mounts[controller], self.parent, name)[-1]

    def _cpuset(self, name: str, resources: Resources) -> list[Step]:
        if "cpuset" not in self.mounts:
            return []
        mount = self.mounts["cpuset"]
        steps: list[Step] = []
        upper = mount
        for path in below(mount, self.parent):  # a parent that is there already may have no CPUs yet either
            steps += [CopyControl(f"{upper}/{file}", f"{path}/{file}", keep=True) for file in _CPUSET.values()]
            upper = path
        path = self._path("cpuset", name)
        for key, file in _CPUSET.items():
            value = resources.get("cpu", {}).get(key)
            if value:
                steps.append(WriteControl(f"{path}/{file}", str(value)))
            else:
                steps.append(CopyControl(f"{upper}/{file}", f"{path}/{file}"))
        return steps

    def _memory(self, name: str, resources: Resources) -> list[Step]:
        if "memory" not in self.mounts:
            return []
        path = self._path("memory", name)
        limit, swap = number(resources, "memory", "limit"), number(resources, "memory", "swap")
        steps: list[Step] = []
        # Memory with swap may never be less than memory alone: in a new group, both without limit, memory comes first.
        if limit:
            steps.append(WriteControl(f"{path}/memory.limit_in_bytes", str(limit)))
        if swap:
            steps.append(WriteControl(f"{path}/memory.memsw.limit_in_bytes", str(swap), _NO_SWAP_ACCOUNT))
        if resources.get("memory", {}).get("disableOOMKiller"):
            steps.append(WriteControl(f"{path}/memory.oom_control", "1"))
        return steps

    def _pids_and_pages(self, name: str, resources: Resources) -> list[Step]:
        steps: list[Step] = []
        pids = number(resources, "pids", "limit")
        if pids is not None and "pids" in self.mounts:
            steps.append(WriteControl(f"{self._path('pids', name)}/pids.max", str(pids) if pids > 0 else "max"))
        if "hugetlb" in self.mounts:
            path = self._path("hugetlb", name)
            steps += [
                WriteControl(f"{path}/hugetlb.{page['pageSize']}.limit_in_bytes", str(page["limit"]))
                for page in resources.get("hugepageLimits") or ()
            ]
        return steps


_CPUSET = {"cpus": "cpuset.cpus", "mems": "cpuset.mems"}
