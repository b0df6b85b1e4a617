"""What the OCI runtime specification calls `linux.resources`, read with care; and where a container's group lies.

https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
"""

from __future__ import annotations

from ...errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...plan.step import Step

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


class Control:
    """One line for one of a group's files.

    file: its name, which begins with its controller's. absent: the warning that is enough when this kernel has no such
    file, None when that needn't be said, "" when it is an error. weighs: whether it is a weight among users of disks,
    for which kernels have more than one file.
    """

    __slots__ = ("absent", "file", "value", "weighs")

    def __init__(self, file: str, value: str, absent: str | None = "", weighs: bool = False) -> None:
        self.file = file
        self.value = value
        self.absent = absent
        self.weighs = weighs

    @property
    def controller(self) -> str:
        """The controller that has this file."""
        return self.file.partition(".")[0]

    def step(self, folder: str) -> Step:
        """The step that writes it into the group `folder`."""
        if self.weighs:
            from .weights import WriteWeight

            return WriteWeight(folder, self.value)
        from .groups import WriteControl

        return WriteControl(f"{folder}/{self.file}", self.value, self.absent)


_ALWAYS = {"memory.kernel": "kernels have no such limit any more; the memory limit counts the kernel's memory as well"}


def unapplied(resources: Resources, lacking: dict[str, str]) -> list[str]:
    """A warning for each part of `resources` that has no control on any machine or, by `lacking`, not on this one.

    lacking: place in the resources, such as "memory.swappiness", → why it has no effect.
    """
    lines = []
    for place, why in {**_ALWAYS, **lacking}.items():
        kind, _, key = place.partition(".")
        part = resources.get(kind) or {}
        if part.get(key) is not None and part[key] is not False:
            lines.append(f"linux.resources.{place} is ignored: {why}")
    if (resources.get("memory") or {}).get("useHierarchy") is False:
        lines.append("linux.resources.memory.useHierarchy is always true: groups below count in those above")
    return lines


def block_rates(resources: Resources, kind: str) -> Iterator[tuple[str, int]]:
    """The ("major:minor", rate) pairs of one of blockIO's throttle lists."""
    for entry in (resources.get("blockIO") or {}).get(kind) or ():
        yield f"{entry['major']}:{entry['minor']}", entry["rate"]


def block_weights(resources: Resources) -> Iterator[tuple[str, int]]:
    """("major:minor" or "" for all disks, weight) of blockIO."""
    given = number(resources, "blockIO", "weight")
    if given:
        yield "", given
    for entry in (resources.get("blockIO") or {}).get("weightDevice") or ():
        if entry.get("weight"):
            yield f"{entry['major']}:{entry['minor']}", entry["weight"]


def adapters(resources: Resources) -> Iterator[tuple[str, str]]:
    """(name, what it may use, as the kernel reads it) of each entry in `rdma`."""
    for name, entry in (resources.get("rdma") or {}).items():
        keys = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        given = [f"{file}={entry[key]}" for key, file in keys if entry.get(key) is not None]
        if given:
            yield name, " ".join(given)


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
