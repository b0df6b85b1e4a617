"""Maps of ids between a user namespace and the one around it: rows of (first inside, first outside, how many).

    0 100000 65536          /proc/PID/uid_map: 0 inside is 100000 outside, 1 is 100001 …

man 7 user_namespaces, https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#user-namespace-mappings
"""

from __future__ import annotations

from ..errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeAlias

    Rows: TypeAlias = tuple[tuple[int, int, int], ...]

LARGEST = (1 << 32) - 2  # -1 is nobody's
_MOST, _LONGEST = 340, 4096  # the kernel's limits: of rows, and a page of text


def rows(mappings: Iterable[Mapping[str, int]]) -> Rows:
    """The rows of an OCI config's `uidMappings` or `gidMappings`."""
    return tuple((row["containerID"], row["hostID"], row["size"]) for row in mappings)


def check(mapped: Rows, path: str, root: bool = True) -> None:
    """Raise ConfigError where the kernel would refuse the map, and say which row. path: the JSON path of the list.

    root: whether the id 0 has to be in it.
    """
    if not mapped or len(mapped) > _MOST:
        raise ConfigError(path, f"must have 1 to {_MOST} rows, not {len(mapped)}")
    if (length := len("".join(f"{a} {b} {size} " for a, b, size in mapped))) >= _LONGEST:
        raise ConfigError(path, f"would be {length} bytes of text, and the kernel takes {_LONGEST - 1}")
    for place, (inside, outside, size) in enumerate(mapped):
        if size < 1:
            raise ConfigError(f"{path}[{place}].size", f"must be 1 or more, not {size}")
        if min(inside, outside) < 0 or max(inside, outside) + size - 1 > LARGEST:
            raise ConfigError(f"{path}[{place}]", f"goes beyond the ids that there are, 0 to {LARGEST}")
    for key, name in ((0, "containerID"), (1, "hostID")):
        taken = sorted((row[key], row[2], place) for place, row in enumerate(mapped))
        for at, (second, _, place) in enumerate(taken[1:]):
            if taken[at][0] + taken[at][1] > second:
                raise ConfigError(f"{path}[{place}].{name}", f"{second} is in another row already")
    if root and outside_of(mapped, 0) is None:
        raise ConfigError(path, "must have the id 0, which sets the container up")


def outside_of(mapped: Rows, id: int) -> int | None:
    """The id outside for one inside, or None."""
    for inside, outside, size in mapped:
        if inside <= id < inside + size:
            return outside + id - inside
    return None


def shown(mapped: Rows) -> str:
    """The ids that there are inside, for people."""
    return ", ".join(f"{inside} to {inside + size - 1}" if size > 1 else str(inside) for inside, _, size in mapped)
