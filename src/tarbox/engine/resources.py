"""Limits become the `linux.resources` of an OCI config: memory, processors, processes.

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

    from ..spec.runtime import Resources
    from .machine import Machine
    from .options import RunOptions


def check(options: RunOptions, machine: Machine) -> None:
    """Raise UsageError for options that can't go together, or that ask for more than the machine has."""
    if options.memory_swap > 0 and not options.memory:
        raise UsageError(
            "--memory-swap needs --memory", "it is memory and swap together, e.g. -m 100m --memory-swap 200m"
        )
    if 0 < options.memory_swap < options.memory:
        raise UsageError(
            "--memory-swap is less than --memory",
            "it is memory and swap together: equal values mean no swap",
        )
    if options.cpus > len(machine.cpus):
        raise UsageError(f"--cpus {options.cpus:g} is more than this machine has", f"from 0.01 to {len(machine.cpus)}")
    if options.cpuset_cpus:
        from .values import processors

        missing = sorted(set(processors(options.cpuset_cpus)) - set(machine.cpus))
        if missing:
            raise UsageError(
                f"--cpuset-cpus {options.cpuset_cpus}: there is no processor {missing[0]} here",
                "available: " + _list(machine.cpus),
            )


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def limits(options: RunOptions) -> Resources:
    """The part of the OCI `linux.resources` that limits: only what was asked for."""
    made: Resources = {}
    if options.memory:
        # As Docker: as much swap again as memory, unless told.
        made["memory"] = {"limit": options.memory, "swap": options.memory_swap or 2 * options.memory}
    if options.cpus or options.cpu_shares or options.cpuset_cpus:
        cpu = made["cpu"] = {}
        if options.cpus:
            cpu["quota"] = round(options.cpus * defaults.CPU_PERIOD)
            cpu["period"] = defaults.CPU_PERIOD
        if options.cpu_shares:
            cpu["shares"] = options.cpu_shares
        if options.cpuset_cpus:
            cpu["cpus"] = options.cpuset_cpus
    if options.pids_limit > 0:
        made["pids"] = {"limit": options.pids_limit}
    return made
