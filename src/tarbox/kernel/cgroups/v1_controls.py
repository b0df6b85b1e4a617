"""The files of version 1 that limits are written into.

    echo 20M > /sys/fs/cgroup/memory/box/memory.limit_in_bytes
    echo 50000 > /sys/fs/cgroup/cpu/box/cpu.cfs_quota_us

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

from ...errors import UnsupportedError
from .resources import Control, adapters, block_rates, block_weights, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .resources import Resources

_NO_SWAP_ACCOUNT = "swap isn't limited: this kernel doesn't account for it (boot it with swapaccount=1)"
_NO_SOFT_LIMIT = "the memory reservation is ignored: this kernel has no memory.soft_limit_in_bytes"
_NO_SWAPPINESS = "the memory swappiness is ignored: this kernel has no memory.swappiness"
_NO_TCP_LIMIT = "the limit of memory for TCP is ignored: this kernel has no memory.kmem.tcp.limit_in_bytes"
_NO_REALTIME = "time for real-time processes isn't limited: this kernel has no groups of them (CONFIG_RT_GROUP_SCHED)"
_NO_LEAF = "the leaf weight for disks is ignored: this kernel has no control for it"

# (place in the OCI resources, control file, warning when it is absent), in the order in which they are written.
_MEMORY = (
    (("memory", "reservation"), "memory.soft_limit_in_bytes", _NO_SOFT_LIMIT),
    (("memory", "kernelTCP"), "memory.kmem.tcp.limit_in_bytes", _NO_TCP_LIMIT),
    (("memory", "swappiness"), "memory.swappiness", _NO_SWAPPINESS),
)
_CPU = (
    (("cpu", "shares"), "cpu.shares", ""),
    (("cpu", "period"), "cpu.cfs_period_us", ""),  # the quota is checked against the period, so the period is first
    (("cpu", "quota"), "cpu.cfs_quota_us", ""),
    (("cpu", "burst"), "cpu.cfs_burst_us", ""),
    (("cpu", "realtimePeriod"), "cpu.rt_period_us", _NO_REALTIME),
    (("cpu", "realtimeRuntime"), "cpu.rt_runtime_us", _NO_REALTIME),
    (("cpu", "idle"), "cpu.idle", ""),
)
_RATES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def controls(resources: Resources, mounts: Mapping[str, str]) -> list[Control]:
    """What is to be written where for OCI `linux.resources`, in order, but for cpusets and devices.

    mounts: the controllers that there are; what another would limit is left out, or refused where it marks packets:
    others rely on marks. Raises ConfigError and UnsupportedError.
    """
    made = _memory(resources) + _plain(resources, _CPU)
    pids = number(resources, "pids", "limit")
    if pids is not None:
        made.append(Control("pids.max", str(pids) if pids > 0 else "max"))
    for page in resources.get("hugepageLimits") or ():
        size, limit = page["pageSize"], str(page["limit"])
        made.append(Control(f"hugetlb.{size}.limit_in_bytes", limit))
        # What is only reserved counts too: a program then learns when it asks, and isn't killed when it writes.
        made.append(Control(f"hugetlb.{size}.rsvd.limit_in_bytes", limit, None))
    made += _blocks(resources)
    made += [Control("rdma.max", f"{name} {value}") for name, value in adapters(resources)]
    made = [control for control in made if control.controller in mounts]
    return made + _network(resources, mounts)


def _plain(resources: Resources, table: tuple[tuple[tuple[str, ...], str, str], ...]) -> list[Control]:
    values = [(number(resources, *place), file, absent) for place, file, absent in table]
    return [Control(file, str(value), absent) for value, file, absent in values if value is not None]


def _memory(resources: Resources) -> list[Control]:
    limit, swap = number(resources, "memory", "limit"), number(resources, "memory", "swap")
    made = []
    if limit == -1 and not swap:
        swap = -1  # memory without limit is refused while memory with swap has one
    # Memory with swap may never be less than memory alone: in a new group, both without limit, memory comes first.
    if limit:
        made.append(Control("memory.limit_in_bytes", str(limit)))
    if swap:
        made.append(Control("memory.memsw.limit_in_bytes", str(swap), _NO_SWAP_ACCOUNT))
    if (resources.get("memory") or {}).get("disableOOMKiller"):
        made.append(Control("memory.oom_control", "1"))
    return made + _plain(resources, _MEMORY)


def _blocks(resources: Resources) -> list[Control]:
    made = []
    for device, weight in block_weights(resources):
        made.append(Control("blkio.weight", f"{device} {weight}".strip(), weighs=True))
    leaf = number(resources, "blockIO", "leafWeight")
    if leaf is not None:
        made.append(Control("blkio.leaf_weight", str(leaf), _NO_LEAF))
    for entry in (resources.get("blockIO") or {}).get("weightDevice") or ():
        if entry.get("leafWeight"):
            value = f"{entry['major']}:{entry['minor']} {entry['leafWeight']}"
            made.append(Control("blkio.leaf_weight_device", value, _NO_LEAF))
    for kind, file in _RATES:
        made += [Control(file, f"{device} {rate}") for device, rate in block_rates(resources, kind)]
    return made


def _network(resources: Resources, mounts: Mapping[str, str]) -> list[Control]:
    marks = number(resources, "network", "classID")
    made = [Control("net_cls.classid", str(marks))] if marks is not None else []
    priorities = (resources.get("network") or {}).get("priorities") or ()
    made += [Control("net_prio.ifpriomap", f"{entry['name']} {entry['priority']}") for entry in priorities]
    for control in made:
        name = control.controller
        if name not in mounts:
            raise UnsupportedError(
                f"the container's packets can't be marked: the {name} controller isn't mounted, or can't be written to",
                f"where /proc/cgroups lists it: mkdir /sys/fs/cgroup/{name}; "
                f"mount -t cgroup -o {name} {name} /sys/fs/cgroup/{name}",
            )
    return made
