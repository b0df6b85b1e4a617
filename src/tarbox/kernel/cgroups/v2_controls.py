"""The files of version 2 that limits are written into.

    echo 20M > /sys/fs/cgroup/box/memory.max
    echo '50000 100000' > /sys/fs/cgroup/box/cpu.max

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

from ...errors import ConfigError, UnsupportedError
from .resources import Control, adapters, block_rates, block_weights, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .resources import Resources

# What the OCI can ask of version 1 alone, and why it has no effect here.
LACKING = {
    "memory.swappiness": "cgroup v2 has no control for it",
    "memory.kernelTCP": "cgroup v2 counts it with the rest of the memory",
    "memory.disableOOMKiller": "cgroup v2 can't keep the kernel from killing",
    "cpu.realtimeRuntime": "cgroup v2 doesn't divide time among real-time processes",
    "cpu.realtimePeriod": "cgroup v2 doesn't divide time among real-time processes",
    "blockIO.leafWeight": "cgroup v2 has no control for it",
}
_NO_SWAP_ACCOUNT = "swap isn't limited: this kernel doesn't account for it"
_RATES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def controls(resources: Resources) -> list[Control]:
    """What is to be written for OCI `linux.resources`, in order, but for devices; raises ConfigError.

    Marks on packets are refused with UnsupportedError: others rely on them.
    """
    if resources.get("network"):
        raise UnsupportedError(
            "the container's packets can't be marked: cgroup v2 has neither net_cls nor net_prio",
            "there a rule of nftables matches them by their cgroup, and tarbox doesn't make such rules yet",
        )
    made = _memory(resources) + _cpu(resources)
    pids = number(resources, "pids", "limit")
    if pids is not None:
        made.append(Control("pids.max", str(pids) if pids > 0 else "max"))
    made += _blocks(resources)
    for page in resources.get("hugepageLimits") or ():
        size, limit = page["pageSize"], _or_max(page["limit"])
        made.append(Control(f"hugetlb.{size}.max", limit))
        # What is only reserved counts too: a program then learns when it asks, and isn't killed when it writes.
        made.append(Control(f"hugetlb.{size}.rsvd.max", limit, None))
    made += [Control("rdma.max", f"{name} {value}") for name, value in adapters(resources)]
    return made + [Control(file, str(value)) for file, value in (resources.get("unified") or {}).items()]


def _memory(resources: Resources) -> list[Control]:
    limit, swap = number(resources, "memory", "limit") or 0, number(resources, "memory", "swap") or 0
    reservation = number(resources, "memory", "reservation")
    made = []
    if limit:
        made.append(Control("memory.max", _or_max(limit)))
    # The OCI's "swap" is memory and swap together, as in version 1; here swap is counted by itself.
    if swap > 0:
        if limit <= 0:
            raise ConfigError("$.linux.resources.memory.swap", "needs a memory limit as well")
        if swap < limit:
            raise ConfigError("$.linux.resources.memory.swap", "is memory and swap together: it can't be below limit")
        made.append(Control("memory.swap.max", str(swap - limit), _NO_SWAP_ACCOUNT))
    elif swap < 0 or limit < 0:
        made.append(Control("memory.swap.max", "max", _NO_SWAP_ACCOUNT))
    if reservation:
        made.append(Control("memory.low", _or_max(reservation)))
    return made


def _cpu(resources: Resources) -> list[Control]:
    made = []
    shares, idle = number(resources, "cpu", "shares"), number(resources, "cpu", "idle")
    quota, period = number(resources, "cpu", "quota"), number(resources, "cpu", "period")
    burst = number(resources, "cpu", "burst")
    if idle is not None:
        made.append(Control("cpu.idle", str(idle)))
    if shares and not idle:  # an idle group's weight can't be written
        made.append(Control("cpu.weight", str(weight(shares))))
    if quota or period:
        made.append(Control("cpu.max", f"{_or_max(quota or -1)} {period or 100000}"))
    if burst is not None:
        made.append(Control("cpu.max.burst", str(burst)))
    cpu = resources.get("cpu") or {}
    made += [Control(f"cpuset.{key}", str(cpu[key])) for key in ("cpus", "mems") if cpu.get(key)]
    return made


def _blocks(resources: Resources) -> list[Control]:
    made = []
    for device, value in block_weights(resources):
        made.append(Control("io.weight", f"{device} {value}".strip(), weighs=True))
    for kind, key in _RATES:
        # No rate is no limit, as in version 1.
        made += [Control("io.max", f"{device} {key}={rate or 'max'}") for device, rate in block_rates(resources, kind)]
    return made


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
