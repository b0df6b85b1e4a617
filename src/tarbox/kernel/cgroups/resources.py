"""What the OCI runtime specification calls `linux.resources`, read with care; and where a container's group lies.

https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
"""

from __future__ import annotations

from ...errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Resources = dict[str, Any]


class Events:
    """What happened in a container's groups.

    oom_kills: how many processes the kernel killed for want of memory. memory_peak: the most bytes that were in use at
    once, or None where the kernel doesn't tell.
    """

    __slots__ = ("memory_peak", "oom_kills")

    def __init__(self, oom_kills: int, memory_peak: int | None) -> None:
        self.oom_kills = oom_kills
        self.memory_peak = memory_peak


def number(resources: Resources, *place: str) -> int | None:
    """The whole number at `place`, or None when it isn't given; raises ConfigError when it isn't a number."""
    value: Any = resources
    for key in place:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ConfigError("$.linux.resources." + ".".join(place), "must be in an object")
        value = value.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ConfigError("$.linux.resources." + ".".join(place), f"must be a whole number, not {value!r}")


_UNAPPLIED = ("network", "rdma", "memory.kernel", "blockIO.weightDevice")


def unapplied(resources: Resources, *more: str) -> list[str]:
    """A warning for each part of `resources` that tarbox knows no control for, on any machine or, with `more`, here."""
    lines = []
    for place in (*_UNAPPLIED, *more):
        kind, _, key = place.partition(".")
        value = resources.get(kind)
        if value and (not key or value.get(key)):
            lines.append(f"linux.resources.{place} is ignored: there is no control for it here")
    return lines


def block_rates(resources: Resources, kind: str) -> Iterator[tuple[str, int]]:
    """The ("major:minor", rate) pairs of one of blockIO's throttle lists."""
    for entry in (resources.get("blockIO") or {}).get(kind) or ():
        yield f"{entry['major']}:{entry['minor']}", entry["rate"]


def below(mount: str, parent: str, name: str = "") -> list[str]:
    """The paths of the groups on the way from `mount` down `parent` to `name`, without `mount` itself.

    Raises ConfigError for a name that would lead out of there.
    """
    paths = []
    path = mount
    for part in (*parent.split("/"), name):
        if not part:
            continue
        if part in (".", "..") or "\n" in part or "\0" in part or len(part) > 255:
            raise ConfigError("$.linux.cgroupsPath", f"{part!r} isn't the name of a group")
        path += "/" + part
        paths.append(path)
    if "/" in name:
        raise ConfigError("$.linux.cgroupsPath", f"{name!r} isn't the name of a group")
    return paths
