"""What a group uses now, and what it may use, read from whichever files it has.

    cat /sys/fs/cgroup/memory/box/memory.usage_in_bytes /sys/fs/cgroup/cpuacct/box/cpuacct.usage      version 1
    cat /sys/fs/cgroup/box/memory.current /sys/fs/cgroup/box/cpu.stat                                 version 2

man 7 cgroups
"""

from __future__ import annotations

from ...unistd import os
from .groups import read, read_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_LIMIT = 1 << 62  # version 1 says it with the largest number that a page counter holds


class Usage:
    """One group of one or more hierarchies, at one moment; None is unknown, for a limit also that there is none.

    memory, memory_limit, memory_peak: bytes. cpu_seconds: processor time since it was made. cpus: how many processors'
    time it may use. weight: its weight for processors, as the kernel has it. cpuset: the processors it may use.
    pids, pids_limit: processes and threads. oom_kills: those killed for want of memory. processes: their numbers.
    """

    __slots__ = (
        "cpu_seconds", "cpus", "cpuset", "memory", "memory_limit", "memory_peak", "oom_kills", "pids", "pids_limit",
        "processes", "weight",
    )  # fmt: skip

    def __init__(self, paths: Sequence[str]) -> None:
        self.memory = _number(paths, "memory.current", "memory.usage_in_bytes")
        self.memory_limit = _number(paths, "memory.max", "memory.limit_in_bytes")
        self.memory_peak = _number(paths, "memory.peak", "memory.max_usage_in_bytes")
        self.cpu_seconds = _cpu_seconds(paths)
        self.cpus = _cpus(paths)
        self.weight = _number(paths, "cpu.weight", "cpu.shares")
        self.cpuset = _text(paths, "cpuset.cpus") or None
        self.pids = _number(paths, "pids.current")
        self.pids_limit = _number(paths, "pids.max")
        self.oom_kills = next(
            (
                kills
                for path in paths
                for file in ("memory.events", "memory.oom_control")
                if (kills := read_key(f"{path}/{file}", "oom_kill")) is not None
            ),
            None,
        )
        self.processes = processes(paths)


def processes(paths: Sequence[str]) -> tuple[int, ...]:
    """The processes in these groups and in all below, each once, in order."""
    found: set[int] = set()
    for path in paths:
        for folder, _, _ in os.walk(path):
            found |= {int(number) for number in (read(folder + "/cgroup.procs") or "").split()}
    return tuple(sorted(found))


def _text(paths: Sequence[str], *files: str) -> str | None:
    for file in files:
        for path in paths:
            text = read(f"{path}/{file}")
            if text is not None:
                return text.strip()
    return None


def _number(paths: Sequence[str], *files: str) -> int | None:
    text = _text(paths, *files) or ""
    return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None


def _cpu_seconds(paths: Sequence[str]) -> float | None:
    nanoseconds = _number(paths, "cpuacct.usage")
    if nanoseconds is not None:
        return nanoseconds / 1e9
    for path in paths:
        microseconds = read_key(path + "/cpu.stat", "usage_usec")
        if microseconds is not None:
            return microseconds / 1e6
    return None


def _cpus(paths: Sequence[str]) -> float | None:
    both = (_text(paths, "cpu.max") or "").split()
    if not both:
        both = [_text(paths, "cpu.cfs_quota_us") or "", _text(paths, "cpu.cfs_period_us") or ""]
    if len(both) == 2 and both[0].isdecimal() and both[1].isdecimal() and int(both[1]):
        return int(both[0]) / int(both[1])
    return None
