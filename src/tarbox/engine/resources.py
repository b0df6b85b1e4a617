"""Limits become the `linux.resources` of an OCI config: memory, processors, processes, disks.

    docker run -m 100m --cpus 0.5 --pids-limit 20 …

Docker's rules and defaults: as much swap again as memory, processors counted in periods of a tenth of a second. Loaded
only when a limit is asked for.

https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
"""

from __future__ import annotations

from ..errors import UsageError
from . import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..spec.runtime import BlockIO, Cpu, Memory, Resources, ThrottleDevice
    from .machine import Machine
    from .options import RunOptions


def check(options: RunOptions, machine: Machine) -> None:
    """Raise UsageError for options that can't go together, or that ask for more than the machine has."""
    _check_memory(options)
    if options.cpus:
        for name, value in (("--cpu-period", options.cpu_period), ("--cpu-quota", options.cpu_quota)):
            if value:
                raise UsageError(f"--cpus and {name} cannot both be set", "--cpus is a quota in a period of 0.1 s")
    if options.cpus > len(machine.cpus):
        raise UsageError(f"--cpus {options.cpus:g} is more than this machine has", f"from 0.01 to {len(machine.cpus)}")
    if options.cpu_rt_runtime > (options.cpu_rt_period or 1000000):
        raise UsageError("--cpu-rt-runtime is more than --cpu-rt-period", "both are microseconds; a period is 1000000")
    if options.cpuset_cpus:
        from .values import processors

        missing = sorted(set(processors(options.cpuset_cpus)) - set(machine.cpus))
        if missing:
            raise UsageError(
                f"--cpuset-cpus {options.cpuset_cpus}: there is no processor {missing[0]} here",
                "available: " + _list(machine.cpus),
            )


def _check_memory(options: RunOptions) -> None:
    if options.memory_swap > 0 and not options.memory:
        raise UsageError(
            "--memory-swap needs --memory", "it is memory and swap together, e.g. -m 100m --memory-swap 200m"
        )
    if 0 < options.memory_swap < options.memory:
        raise UsageError(
            "--memory-swap is less than --memory",
            "it is memory and swap together: equal values mean no swap",
        )
    softer = (("--memory-reservation", options.memory_reservation), ("--memory-high", options.memory_high))
    for name, value in softer:
        if options.memory and value > options.memory:
            raise UsageError(f"{name} is more than --memory", "it would never be reached: make it less")


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def limits(options: RunOptions) -> Resources:
    """The part of the OCI `linux.resources` that limits: only what was asked for."""
    made: Resources = {}
    if memory := _memory(options):
        made["memory"] = memory
    if cpu := _cpu(options):
        made["cpu"] = cpu
    if options.pids_limit > 0:
        made["pids"] = {"limit": options.pids_limit}
    if blocks := _blocks(options):
        made["blockIO"] = blocks
    if options.hugetlb:
        made["hugepageLimits"] = [{"pageSize": size, "limit": limit} for size, limit in dict(options.hugetlb).items()]
    if options.net_class is not None:
        made["network"] = {"classID": options.net_class}
    unified = {"memory.high": str(options.memory_high)} if options.memory_high else {}
    unified |= options.cgroup_conf  # of two with one name the last counts
    if unified:
        made["unified"] = unified
    return made


def _memory(options: RunOptions) -> Memory:
    memory: Memory = {}
    if options.memory:
        # As Docker: as much swap again as memory, unless told.
        memory |= {"limit": options.memory, "swap": options.memory_swap or 2 * options.memory}
    if options.memory_reservation:
        memory["reservation"] = options.memory_reservation
    if options.kernel_memory:
        memory["kernel"] = options.kernel_memory
    if options.memory_swappiness is not None:
        memory["swappiness"] = options.memory_swappiness
    if options.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(options: RunOptions) -> Cpu:
    cpu: Cpu = {}
    if options.cpus:
        cpu |= {"quota": round(options.cpus * defaults.CPU_PERIOD), "period": defaults.CPU_PERIOD}
    if options.cpu_quota:
        cpu["quota"] = options.cpu_quota
    if options.cpu_period:
        cpu["period"] = options.cpu_period
    if options.cpu_shares:
        cpu["shares"] = options.cpu_shares
    if options.cpu_rt_period:
        cpu["realtimePeriod"] = options.cpu_rt_period
    if options.cpu_rt_runtime:
        cpu["realtimeRuntime"] = options.cpu_rt_runtime
    if options.cpuset_cpus:
        cpu["cpus"] = options.cpuset_cpus
    if options.cpuset_mems:
        cpu["mems"] = options.cpuset_mems
    return cpu


def _blocks(options: RunOptions) -> BlockIO:
    blocks: BlockIO = {}
    if options.blkio_weight:
        blocks["weight"] = options.blkio_weight
    if options.blkio_weight_device:
        blocks["weightDevice"] = [
            {"major": major, "minor": minor, "weight": weight} for major, minor, weight in options.blkio_weight_device
        ]
    if options.device_read_bps:
        blocks["throttleReadBpsDevice"] = _rates(options.device_read_bps)
    if options.device_write_bps:
        blocks["throttleWriteBpsDevice"] = _rates(options.device_write_bps)
    if options.device_read_iops:
        blocks["throttleReadIOPSDevice"] = _rates(options.device_read_iops)
    if options.device_write_iops:
        blocks["throttleWriteIOPSDevice"] = _rates(options.device_write_iops)
    return blocks


def _rates(given: list[tuple[int, int, int]]) -> list[ThrottleDevice]:
    return [{"major": major, "minor": minor, "rate": rate} for major, minor, rate in given]
