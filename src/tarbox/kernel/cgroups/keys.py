"""Controls by the names of their files: those of this machine as they are, those of the other version translated.

    echo 50M > /sys/fs/cgroup/box/memory.max                                the same limit twice,
    echo 50M > /sys/fs/cgroup/memory/box/memory.limit_in_bytes              on version 2 and on version 1

They come in the OCI's `unified`, which knows version 2's names alone. What the other version can say as well becomes a
part of the resources proper; what it can't is refused by name.

https://docs.kernel.org/admin-guide/cgroup-v2.html; https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

from ...errors import ConfigError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .resources import Resources

_PLACE = "$.linux.resources.unified"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_NOT_LIMITS = ("cgroup", "freezer")  # who is in a group, and whether it runs
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}

# The names of version 2 that version 1 has nothing for, and what comes near there.
_ONLY_V2 = {
    "memory.high": "a soft limit comes near, which counts when the machine runs short: --memory-reservation",
    "memory.min": "",
    "memory.oom.group": "",
    "memory.swap.high": "",
    "memory.zswap.max": "",
    "cpu.weight.nice": "cpu.shares is the weight there",
    "cpu.uclamp.min": "",
    "cpu.uclamp.max": "",
    "io.latency": "",
    "cpuset.cpus.partition": "",
    "pids.peak": "",
}
_RATES = {
    "rbps": "throttleReadBpsDevice",
    "wbps": "throttleWriteBpsDevice",
    "riops": "throttleReadIOPSDevice",
    "wiops": "throttleWriteIOPSDevice",
}


def check(key: str, value: str) -> str:
    """The name of the controller that has the control `key`; raises ConfigError where it can't be one's.

    A key is a file's name, such as `memory.high`, and never leads anywhere else.
    """
    controller, dot, rest = key.partition(".")
    if not dot or not controller or not rest or ".." in key or key.endswith(".") or not _LETTERS.issuperset(key):
        raise ConfigError(_PLACE, f"{key[:60]!r} isn't a control of a controller")
    if controller in _NOT_LIMITS:
        raise ConfigError(_PLACE, f"{key[:60]!r} isn't a limit")
    if not value or not value.isprintable():
        raise ConfigError(_PLACE, f"the value of {key} must be one line of text")
    return controller


def family(key: str) -> str:
    """The controller that has the control `key`, by version 1's name where the versions differ."""
    controller = key.partition(".")[0]
    return "blkio" if controller == "io" else controller


def for_v1(resources: Resources) -> Resources:
    """The resources with version 2's names translated; raises ConfigError, UnsupportedError."""
    return _translated(resources, _from_v2)


def for_v2(resources: Resources) -> Resources:
    """The resources with version 1's names translated; raises ConfigError."""
    return _translated(resources, _from_v1)


def _translated(resources: Resources, translate: Callable[[Resources, str, str], bool]) -> Resources:
    unified = resources.get("unified")
    if not unified:
        return resources
    made: Resources = {kind: dict(part) if isinstance(part, dict) else part for kind, part in resources.items()}
    made["unified"] = {}
    # What is counted together with memory is translated when that is known.
    for key, value in sorted(unified.items(), key=lambda item: "swap" in item[0] or "memsw" in item[0]):
        check(key, str(value))
        if not translate(made, key, str(value).strip()):
            made["unified"][key] = str(value)
    return made


def _from_v2(made: Resources, key: str, value: str) -> bool:
    """Put the meaning of a control of version 2 into `made`; False where version 1 has one by that name."""
    if key in _ONLY_V2:
        raise UnsupportedError(
            f"{key} is a control of cgroup v2, and the {family(key)} controller is version 1 here", _ONLY_V2[key]
        )
    memory = {"memory.max": "limit", "memory.low": "reservation"} | _V1_MEMORY
    if key in memory:
        _part(made, "memory")[memory[key]] = _bytes(key, value)
    elif key == "memory.swap.max":
        limit, swap = _part(made, "memory").get("limit") or 0, _bytes(key, value)
        if swap >= 0 >= limit:
            raise ConfigError(
                _PLACE, f"{key} needs memory.max beside it", "on cgroup v1 swap is limited together with memory"
            )
        made["memory"]["swap"] = limit + swap if swap >= 0 else -1
    elif key == "cpu.max":
        quota, _, period = value.partition(" ")
        _part(made, "cpu")["quota"] = -1 if quota == "max" else _integer(key, quota)
        if period:
            made["cpu"]["period"] = _integer(key, period)
    elif key == "cpu.max.burst":
        _part(made, "cpu")["burst"] = _integer(key, value)
    elif key == "cpu.weight":
        _part(made, "cpu")["shares"] = _shares(_integer(key, value))
    elif key == "io.weight":
        device, _, weight = value.rpartition(" ")
        _weigh(made, key, device.removeprefix("default"), 10 + (_integer(key, weight) - 1) * 990 // 9999)
    elif key == "io.max":
        device, *rates = value.split()
        for rate in rates:
            name, _, most = rate.partition("=")
            if name not in _RATES:
                raise ConfigError(_PLACE, f"{key} knows {', '.join(_RATES)}, not {name!r}")
            _throttle(made, key, _RATES[name], device, 0 if most == "max" else _integer(key, most))
    elif key.startswith("hugetlb.") and key.endswith(".max"):
        _pages(made, key.split(".")[1], _bytes(key, value))
    else:
        return False
    return True


# Two of version 1's own names are among the resources there as well: the order in which they are written matters.
_V1_MEMORY = {"memory.limit_in_bytes": "limit", "memory.memsw.limit_in_bytes": "swap"}
_FROM_V1 = {
    "memory.limit_in_bytes": ("memory", "limit"),
    "memory.soft_limit_in_bytes": ("memory", "reservation"),
    "memory.memsw.limit_in_bytes": ("memory", "swap"),
    "memory.kmem.limit_in_bytes": ("memory", "kernel"),
    "memory.kmem.tcp.limit_in_bytes": ("memory", "kernelTCP"),
    "memory.swappiness": ("memory", "swappiness"),
    "memory.oom_control": ("memory", "disableOOMKiller"),
    "cpu.shares": ("cpu", "shares"),
    "cpu.cfs_quota_us": ("cpu", "quota"),
    "cpu.cfs_period_us": ("cpu", "period"),
    "cpu.cfs_burst_us": ("cpu", "burst"),
    "cpu.rt_period_us": ("cpu", "realtimePeriod"),
    "cpu.rt_runtime_us": ("cpu", "realtimeRuntime"),
    "net_cls.classid": ("network", "classID"),
}
_FROM_V1_RATES = {
    "blkio.throttle.read_bps_device": "throttleReadBpsDevice",
    "blkio.throttle.write_bps_device": "throttleWriteBpsDevice",
    "blkio.throttle.read_iops_device": "throttleReadIOPSDevice",
    "blkio.throttle.write_iops_device": "throttleWriteIOPSDevice",
}


def _from_v1(made: Resources, key: str, value: str) -> bool:
    """Put the meaning of a control of version 1 into `made`; False where version 2 has one by that name."""
    if key in _FROM_V1:
        kind, name = _FROM_V1[key]
        _part(made, kind)[name] = _bytes(key, value)
    elif key in ("blkio.weight", "blkio.bfq.weight"):
        _weigh(made, key, "", _integer(key, value))
    elif key in ("blkio.weight_device", "blkio.bfq.weight_device"):
        device, _, weight = value.partition(" ")
        _weigh(made, key, device, _integer(key, weight))
    elif key in _FROM_V1_RATES:
        device, _, rate = value.partition(" ")
        _throttle(made, key, _FROM_V1_RATES[key], device, _integer(key, rate))
    elif key.startswith("hugetlb.") and key.endswith(".limit_in_bytes"):
        _pages(made, key.split(".")[1], _bytes(key, value))
    elif key.startswith("net_prio."):
        interface, _, priority = value.partition(" ")
        _add(_part(made, "network"), "priorities", {"name": interface, "priority": _integer(key, priority)})
    else:
        return False
    return True


def _part(made: Resources, kind: str) -> dict[str, Any]:
    part: dict[str, Any] = made.setdefault(kind, {})
    return part


def _add(part: dict[str, Any], name: str, entry: dict[str, Any]) -> None:
    part[name] = [*part.get(name, ()), entry]  # the caller's list stays as it is


def _weigh(made: Resources, key: str, device: str, weight: int) -> None:
    if device:
        _add(_part(made, "blockIO"), "weightDevice", {**_device(key, device), "weight": weight})
    else:
        _part(made, "blockIO")["weight"] = weight


def _throttle(made: Resources, key: str, kind: str, device: str, rate: int) -> None:
    _add(_part(made, "blockIO"), kind, {**_device(key, device), "rate": rate})


def _device(key: str, text: str) -> dict[str, int]:
    major, _, minor = text.partition(":")
    return {"major": _integer(key, major), "minor": _integer(key, minor)}


def _pages(made: Resources, size: str, limit: int) -> None:
    _add(made, "hugepageLimits", {"pageSize": size, "limit": limit})


def _bytes(key: str, text: str) -> int:
    """A number with K, M or G after it, as the kernel reads it; "max" is -1."""
    if text in ("max", "-1"):
        return -1
    if text[:2] in ("0x", "0X"):
        return _integer(key, text)
    digits = text.rstrip("bBkKmMgGtTpP")
    unit = text[len(digits) :].upper().removesuffix("B")
    if unit not in _UNITS:
        raise ConfigError(_PLACE, f"{text[:60]!r} isn't a value for {key}")
    return _integer(key, digits, text) * _UNITS[unit]


def _integer(key: str, digits: str, text: str = "") -> int:
    if digits == "-1":
        return -1
    try:
        if digits.isascii() and digits.isalnum():  # no signs, no underscores
            return int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
    except ValueError:
        pass
    raise ConfigError(_PLACE, f"{(text or digits)[:60]!r} isn't a value for {key}")


def _shares(weight: int) -> int:
    """The most `cpu.shares` that stand for this `cpu.weight`: 1024 for 100, the usual ones."""
    from .v2_controls import weight as weight_of

    low, high = 2, 262144
    while low < high:
        middle = (low + high + 1) // 2
        if weight_of(middle) > weight:
            high = middle - 1
        else:
            low = middle
    return low
