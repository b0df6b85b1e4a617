"""Which control groups a process is in, what is limited there, and how much of it is used.

    cat /proc/$PID/cgroup; cat /sys/fs/cgroup/…/memory.max /sys/fs/cgroup/…/memory.current

A limit holds for all groups below the one that it is set in, so that each group is asked and then those above it; of
several limits of one kind the lowest counts. A value that every group starts with is no limit.

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

from ...unistd import os
from ..mountinfo import MountLine
from .groups import read, read_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Value = int | float | str

_NONE = 1 << 62  # bytes: version 1 writes "no limit" as about 2**63, less a page
_DELETED = " (deleted)"


class Group:
    """The group of a process in one hierarchy.

    version: 1 or 2. controllers: of the hierarchy; for version 2 empty, for a named one its name. path: as the kernel
    tells it. folder: where it is seen here, and top: the folder of the uppermost group that is; "" where it isn't seen.
    deleted: whether it was removed with the process in it, as it can be with a zombie.
    """

    __slots__ = ("controllers", "deleted", "folder", "path", "top", "version")

    def __init__(self, version: int, controllers: tuple[str, ...], path: str) -> None:
        self.version = version
        self.controllers = controllers
        self.deleted = path.endswith(_DELETED)
        self.path = path.removesuffix(_DELETED)
        self.folder = self.top = ""

    def levels(self) -> Iterator[tuple[str, str]]:
        """(path, folder) of the group and of those above it that are seen here, without the uppermost."""
        folder, path = self.folder, self.path
        while folder and folder != self.top:
            yield path, folder
            folder, path = os.path.dirname(folder), os.path.dirname(path)


class Limit:
    """One limit.

    resource: what is limited. limit: how much, in `unit`. use: how much is in use in that group, None where that isn't
    counted. group: the path of the group it is set in. file: the control file.
    """

    __slots__ = ("file", "group", "limit", "resource", "unit", "use")

    def __init__(self, resource: str, limit: Value, unit: str, group: str, file: str, use: int | None = None) -> None:
        self.resource = resource
        self.limit = limit
        self.unit = unit
        self.group = group
        self.file = file
        self.use = use


def groups(membership: str, mounts: list[MountLine]) -> list[Group]:
    """The groups in the text of /proc/PID/cgroup, found in the looking process's mounts; version 2 comes last."""
    found = []
    for line in membership.split("\n"):
        number, colon, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if not colon or not second:
            continue
        version = 2 if number == "0" and not controllers else 1
        group = Group(version, tuple(controllers.split(",")) if controllers else (), path)
        if not group.deleted:
            _place(group, mounts)
        found.append(group)
    return sorted(found, key=lambda group: group.version)


def _place(group: Group, mounts: list[MountLine]) -> None:
    """Find the folder of a group; a mount that shows only a part of the hierarchy may hold it or not."""
    if ".." in group.path.split("/"):
        return  # outside of this process's cgroup namespace
    for mount in mounts:
        if mount.fstype != ("cgroup2" if group.version == 2 else "cgroup"):
            continue
        if group.version == 1 and not set(group.controllers) <= set(mount.settings):
            continue
        shown = mount.top.rstrip("/")
        if group.path == shown or group.path.startswith(shown + "/"):
            below = group.path[len(shown) :].rstrip("/")
            if os.path.isdir(mount.point + below):
                group.top, group.folder = mount.point, mount.point + below
                return


def limits(found: list[Group]) -> list[Limit]:
    """What is limited in these groups and above, the lowest limit of each kind."""
    limited: list[Limit] = []
    for group in found:
        for resource, unit, names in _KINDS[group.version]:
            controller = names[0].partition(".")[0]
            if group.version == 2 or controller in group.controllers:
                best = _lowest(group, resource, unit, names)
                if best:
                    limited.append(best)
        limited += _lists(group)
    return sorted(limited, key=lambda one: _ORDER.index(one.resource) if one.resource in _ORDER else len(_ORDER))


_ORDER = (
    "memory", "memory+swap", "memory-throttle", "swap", "cpu", "cpu-weight", "cpus", "memory-nodes", "pids", "io",
    "io-weight", "devices",
)  # fmt: skip

# By version: the resource, the unit of its limit, the file of the limit and that of its use.
_KINDS = {
    1: (
        ("memory", "bytes", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
        ("memory+swap", "bytes", ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes")),
        ("cpu", "processors", ("cpu.cfs_quota_us", "")),
        ("cpu-weight", "of 1024", ("cpu.shares", "")),
        ("cpus", "list", ("cpuset.cpus", "")),
        ("memory-nodes", "list", ("cpuset.mems", "")),
        ("pids", "tasks", ("pids.max", "pids.current")),
        ("io-weight", "of 500", ("blkio.weight", "")),
    ),
    2: (
        ("memory", "bytes", ("memory.max", "memory.current")),
        ("memory-throttle", "bytes", ("memory.high", "memory.current")),
        ("swap", "bytes", ("memory.swap.max", "memory.swap.current")),
        ("cpu", "processors", ("cpu.max", "")),
        ("cpu-weight", "of 100", ("cpu.weight", "")),
        ("cpus", "list", ("cpuset.cpus", "")),
        ("memory-nodes", "list", ("cpuset.mems", "")),
        ("pids", "tasks", ("pids.max", "pids.current")),
        ("io-weight", "of 100", ("io.weight", "")),
    ),
}  # fmt: skip


def _lowest(group: Group, resource: str, unit: str, names: tuple[str, str]) -> Limit | None:
    best: Limit | None = None
    for path, folder in group.levels():
        value = _value(group, folder, names[0])
        if value is None:
            continue
        if best is not None and (isinstance(value, str) or isinstance(best.limit, str) or value >= best.limit):
            continue
        use = _number(read(f"{folder}/{names[1]}")) if names[1] else None
        best = Limit(resource, value, unit, path, names[0], use)
        if unit.startswith("of "):
            break  # a weight counts against neighbours: the nearest one is the process's own
    return best


def _value(group: Group, folder: str, name: str) -> Value | None:
    """The limit in a control file, None where it is no limit."""
    text = (read(f"{folder}/{name}") or "").strip()
    if not text or text == "max":
        return None
    if name == "cpu.max":
        quota, _, period = text.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100000)
    if name == "cpu.cfs_quota_us":
        period = (read(f"{folder}/cpu.cfs_period_us") or "").strip()
        return None if int(text) < 0 or not period else int(text) / int(period)
    if name.startswith("cpuset."):
        every = (read(f"{group.top}/{name}") or read(f"{group.top}/{name}.effective") or "").strip()
        return None if text == every else text
    value = _number(text.removeprefix("default "))
    usual = {"cpu.shares": 1024, "cpu.weight": 100, "io.weight": 100, "blkio.weight": 500}.get(name)
    return None if value is None or value >= _NONE or value == usual else value


def _lists(group: Group) -> list[Limit]:
    """The limits that come as lines: rates of devices, which devices at all, huge pages."""
    found: list[Limit] = []
    for path, folder in group.levels():
        if group.version == 2:
            lines = (read(f"{folder}/io.max") or "").splitlines()
            found += [Limit("io", line, "device and rates", path, "io.max") for line in lines]
        elif "blkio" in group.controllers:
            for name in ("read_bps", "write_bps", "read_iops", "write_iops"):
                file = f"blkio.throttle.{name}_device"
                lines = (read(f"{folder}/{file}") or "").splitlines()
                found += [Limit("io", f"{line} {name}", "device and rate", path, file) for line in lines]
        elif "devices" in group.controllers:
            lines = (read(f"{folder}/devices.list") or "").splitlines()
            if not any(line.startswith("a ") for line in lines) and not any(one.resource == "devices" for one in found):
                found.append(Limit("devices", len(lines), "rules allow", path, "devices.list"))
        if group.version == 2 or "hugetlb" in group.controllers:
            found += _huge_pages(path, folder, group.version)
    return found


def _huge_pages(path: str, folder: str, version: int) -> list[Limit]:
    ending = ".max" if version == 2 else ".limit_in_bytes"
    found = []
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    for name in names:
        size, dot, rest = name.removeprefix("hugetlb.").partition(".")
        if name.startswith("hugetlb.") and dot + rest == ending:
            value = _number(read(f"{folder}/{name}"))
            if value is not None and value < _NONE:
                used = ".current" if version == 2 else ".usage_in_bytes"
                use = _number(read(f"{folder}/hugetlb.{size}{used}"))
                found.append(Limit(f"huge-pages-{size}", value, "bytes", path, name, use))
    return found


def usage(found: list[Group]) -> dict[str, int]:
    """What is used in the process's own groups: `memory` in bytes, `pids`, `cpu` in nanoseconds.

    What isn't counted in a group below the uppermost is left out: that is the machine's.
    """
    used: dict[str, int | None] = {}
    for group in found:
        if not group.folder or group.folder == group.top:
            continue
        if group.version == 2:
            cpu = read_key(f"{group.folder}/cpu.stat", "usage_usec")
            used.setdefault("cpu", None if cpu is None else cpu * 1000)
        for name, controller, file in (
            ("memory", "memory", "memory.current" if group.version == 2 else "memory.usage_in_bytes"),
            ("pids", "pids", "pids.current"),
            ("cpu", "cpuacct", "cpuacct.usage"),
        ):
            if used.get(name) is None and (group.version == 2 or controller in group.controllers):
                used[name] = _number(read(f"{group.folder}/{file}"))
    return {name: value for name, value in used.items() if value is not None}


def frozen(found: list[Group]) -> bool:
    """Whether all processes of one of the groups are stopped where they are."""
    for group in found:
        for _, folder in group.levels():
            name = "cgroup.freeze" if group.version == 2 else "freezer.state"
            if (read(f"{folder}/{name}") or "").strip() in ("1", "FROZEN"):
                return True
    return False


def _number(text: str | None) -> int | None:
    word = (text or "").strip()
    return int(word) if word.isascii() and word.isdecimal() else None
