"""Control groups, version 1: a tree of its own for each controller, or for a few that are mounted together.

    mkdir /sys/fs/cgroup/memory/box; echo 20M > /sys/fs/cgroup/memory/box/memory.limit_in_bytes

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

from . import devices
from .groups import CopyControl, JoinGroup, MakeGroup, MakeParent, WriteControl, read, read_key
from .resources import Control, Events, below, unapplied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...plan.step import Step
    from .resources import Resources

# The controllers in which a container gets a group, in the order in which the groups are made. They are removed in the
# opposite order, the freezer's first: what is frozen wouldn't die, and only the freezer's group can thaw it.
CONTROLLERS = (
    "memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "blkio", "hugetlb", "net_cls", "net_prio", "rdma",
    "misc", "freezer",
)  # fmt: skip

# Which of them a part of the OCI resources needs.
KINDS = (
    ("memory", "memory"),
    ("cpu", "cpu"),
    ("pids", "pids"),
    ("blockIO", "blkio"),
    ("hugepageLimits", "hugetlb"),
    ("rdma", "rdma"),
    ("devices", "devices"),
)

_CPUSET = {"cpus": "cpuset.cpus", "mems": "cpuset.mems"}


class V1:
    """The backend for version 1.

    mounts: controller → the folder of its hierarchy. parent: the group in each hierarchy under which the containers'
    groups are made; "" for the hierarchy's root. every: whether a group is made in each hierarchy, also where nothing
    is limited yet.
    """

    __slots__ = ("every", "mounts", "parent")

    def __init__(self, mounts: dict[str, str], parent: str = "", every: bool = False) -> None:
        self.mounts = {name: mounts[name] for name in CONTROLLERS if name in mounts}
        self.parent = parent
        self.every = every

    def groups(self, name: str) -> tuple[str, ...]:
        """The paths of the groups that the container `name` may have, one a hierarchy."""
        return tuple(dict.fromkeys(self._path(controller, name) for controller in self.mounts))

    def steps(self, name: str, resources: Resources, into: bool = False) -> list[Step]:
        """The steps that make the groups `name`, limit them as OCI `linux.resources` say, and join them.

        into: has no meaning here; a process can't be born into these groups. Raises ConfigError and UnsupportedError.
        """
        resources, controls, raw = self._read(resources)
        used = self._used(resources, raw)
        steps: list[Step] = []
        for mount in dict.fromkeys(used.values()):
            steps += [MakeParent(path) for path in below(mount, self.parent)]
            steps.append(MakeGroup(below(mount, self.parent, name)[-1]))
        if "cpuset" in used:
            steps += self._cpuset(name, resources)
        steps += [control.step(self._path(control.controller, name)) for control in controls]
        rules = devices.checked(resources)
        if rules and "devices" in self.mounts:
            steps.append(devices.LimitDevices(self._path("devices", name), devices.lines(rules)))
        steps += [control.step(self._path(control.controller, name)) for control in raw]
        groups = dict.fromkeys(below(mount, self.parent, name)[-1] for mount in used.values())
        if groups:
            steps.append(JoinGroup(tuple(f"{group}/tasks" for group in groups)))
        return steps

    def warnings(self, resources: Resources) -> list[str]:
        """What of `resources` has no effect here, a line each."""
        if not resources.keys() - {"devices"}:
            lines = []
        else:
            from .keys import family, for_v1

            resources = for_v1(resources)
            lines = unapplied(resources, {})
            lines += [
                f"{key} can't be set, so this limit is ignored: there is no {family(key)} controller here"
                for key in resources.get("unified") or ()
                if family(key) not in self.mounts
            ]
            memory = resources.get("memory") or {}
            if memory.get("disableOOMKiller") and not memory.get("limit"):
                lines.append("nothing of it is killed for want of memory, and it has no limit: the machine can run out")
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

    def _read(self, resources: Resources) -> tuple[Resources, list[Control], list[Control]]:
        """The resources in the OCI's words, what they write, and what is written by the name of its file after that."""
        if not resources.keys() - {"devices"}:  # the tables are loaded when something is limited
            return resources, [], []
        from .keys import family, for_v1
        from .v1_controls import controls

        resources = for_v1(resources)
        raw = [Control(key, value) for key, value in (resources.get("unified") or {}).items()]
        return resources, controls(resources, self.mounts), [one for one in raw if family(one.file) in self.mounts]

    def _used(self, resources: Resources, raw: list[Control]) -> dict[str, str]:
        """The controllers in which the container gets a group: each costs its start a little, and its end.

        Some it always needs, to be told of a lack of memory, bounded, kept from devices and stopped; the others only
        when something is limited there.
        """
        if self.every:
            return dict(self.mounts)
        cpu, network = resources.get("cpu") or {}, resources.get("network") or {}
        named = {control.controller for control in raw}
        wanted = {
            "cpu": bool(cpu.keys() - _CPUSET.keys()) or "cpu" in named,
            "cpuacct": bool(cpu.keys() - _CPUSET.keys()) or "cpu" in named,
            "cpuset": bool(cpu.keys() & _CPUSET.keys()),
            "blkio": bool(resources.get("blockIO")),
            "hugetlb": bool(resources.get("hugepageLimits")),
            "net_cls": "classID" in network,
            "net_prio": bool(network.get("priorities")),
            "rdma": bool(resources.get("rdma")),
            "misc": False,
        }
        return {name: mount for name, mount in self.mounts.items() if wanted.get(name, True) or name in named}

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
