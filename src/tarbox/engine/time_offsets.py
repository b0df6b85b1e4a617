"""`--uptime-offset`: since when the machine runs, for a container in a time namespace of its own.

    --uptime-offset 30d             both clocks 30 days further
    --uptime-offset -10m            back, as far as the machine's own start
    --uptime-offset boottime=30d,monotonic=1h

man 7 time_namespaces
"""

from __future__ import annotations

from ..errors import UsageError
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import Config

CLOCKS = ("monotonic", "boottime")
_UNITS = {
    "ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000,
    "d": 86_400_000_000_000, "w": 604_800_000_000_000,
}  # fmt: skip
_EXAMPLE = "e.g. 30d, 1h30m, -10m, or boottime=30d,monotonic=1h"
_SECOND = 1_000_000_000
_LARGEST = 2**63 // 2  # nanoseconds; the kernel takes no more


def read(text: str) -> dict[str, int]:
    """Nanoseconds by clock."""
    if "=" not in text:
        return dict.fromkeys(CLOCKS, _nanoseconds(text))
    found: dict[str, int] = {}
    for part in text.split(","):
        clock, _, value = part.partition("=")
        if clock not in CLOCKS or clock in found:
            raise UsageError(f"{shorten(text)!r}: {shorten(clock)!r} is no clock, or named twice", _EXAMPLE)
        found[clock] = _nanoseconds(value)
    return found


def _nanoseconds(text: str) -> int:
    sign, rest, total = (-1, text[1:], 0) if text.startswith("-") else (1, text.removeprefix("+"), 0)
    wrong = UsageError(f"{shorten(text)!r} is not a length of time", _EXAMPLE)
    if rest.isascii() and rest.isdecimal():
        rest += "s"
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("nusmhdw"))]
        rest = rest[len(unit) :]
        whole, _, fraction = number.partition(".")
        if unit not in _UNITS or not (whole + fraction).isdecimal() or len(number) > 25:
            raise wrong
        total += int(whole or 0) * _UNITS[unit]
        total += int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction)
    if not text.strip("+-"):
        raise wrong
    if total > _LARGEST:
        raise UsageError(f"{shorten(text)!r} is more than a clock can be set", "at most 146 years")
    return sign * total


def add(made: Config, offsets: dict[str, int]) -> None:
    """Put them into a config whose time namespace is a new one."""
    made["linux"]["timeOffsets"] = {
        clock: {"secs": offset // _SECOND, "nanosecs": offset % _SECOND} for clock, offset in offsets.items()
    }
