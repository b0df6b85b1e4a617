"""The words that people give to the rarer limits: weights, rates of disks, controls by name.

Every function takes the text and returns the value, or raises UsageError; the command line puts the option's name
before it. Docker's ranges where Docker has the option. A disk is looked up here, as limits know disks by number. Loaded
when such an option is given.
"""

from __future__ import annotations

from ..errors import ConfigError, UsageError
from ..unistd import S_ISBLK, S_ISDIR, os
from .values import processors, shorten, size

_LEAST_SLICE = 1000  # microseconds
_LONGEST_SLICE = 1000000
_PAGES = "/sys/kernel/mm/hugepages"


def _whole(text: str) -> int | None:
    """A whole number, which may be below zero."""
    digits = text.strip().removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None


def swappiness(text: str) -> int | None:
    """How readily memory is swapped out, 0 to 100; -1 leaves it as the machine has it."""
    value = _whole(text)
    if value is None or not -1 <= value <= 100:
        raise UsageError(f"{shorten(text)!r} is not a swappiness", "from 0, as late as possible, to 100")
    return None if value < 0 else value


def oom_score(text: str) -> int:
    """Who is killed first when the machine runs out of memory: -1000, never, to 1000."""
    value = _whole(text)
    if value is None or not -1000 <= value <= 1000:
        raise UsageError(f"{shorten(text)!r} is not an OOM score", "from -1000, never killed, to 1000, killed first")
    return value


def cpu_period(text: str) -> int:
    """The time in which a quota is counted, in microseconds; 0 is unset."""
    value = _whole(text)
    if value is None or (value and not _LEAST_SLICE <= value <= _LONGEST_SLICE):
        raise UsageError(f"{shorten(text)!r} is not a period", "microseconds, from 1000 to 1000000; 100000 is usual")
    return value


def cpu_quota(text: str) -> int:
    """How much of each period may be used, in microseconds; -1 is no limit, 0 is unset."""
    value = _whole(text)
    if value is None or value < -1 or 0 < value < _LEAST_SLICE:
        raise UsageError(f"{shorten(text)!r} is not a quota", "microseconds in each period, 1000 or more, e.g. 50000")
    return value


def realtime(text: str) -> int:
    """Microseconds for real-time processes; 0 is unset."""
    value = _whole(text)
    if value is None or value < 0:
        raise UsageError(f"{shorten(text)!r} is not a time", "microseconds, e.g. 950000")
    return value


def nodes(text: str) -> str:
    """A list of memory nodes as the kernel reads it."""
    try:
        processors(text)
    except UsageError:
        hint = "their numbers, e.g. 0,1; most machines have only node 0"
        raise UsageError(f"{shorten(text)!r} is not a list of memory nodes", hint) from None
    return text.replace(" ", "")


def disk_weight(text: str) -> int:
    """The weight when disks are busy, 10 to 1000; 0 is unset."""
    value = _whole(text)
    if value is None or (value and not 10 <= value <= 1000):
        raise UsageError(f"{shorten(text)!r} is not a weight for disks", "from 10 to 1000")
    return value


def one_disks_weight(text: str) -> tuple[int, int, int]:
    """`/dev/sda:WEIGHT` as (major, minor, weight)."""
    path, weight = _divided(text, "a weight for a disk", "/dev/sda:300")
    value = disk_weight(weight)
    if not value:
        raise UsageError(f"{shorten(text)!r} is not a weight for a disk", "from 10 to 1000, e.g. /dev/sda:300")
    return (*_disk(path), value)


def rate(text: str) -> tuple[int, int, int]:
    """`/dev/sda:1mb` as (major, minor, bytes in each second)."""
    path, amount = _divided(text, "a rate for a disk", "/dev/sda:1mb")
    value = size(amount)
    if not value:
        raise UsageError(f"{shorten(text)!r} lets nothing through", "e.g. /dev/sda:1mb")
    return (*_disk(path), value)


def operations(text: str) -> tuple[int, int, int]:
    """`/dev/sda:1000` as (major, minor, operations in each second)."""
    path, amount = _divided(text, "a rate for a disk", "/dev/sda:1000")
    value = _whole(amount)
    if value is None or value <= 0:
        hint = "operations in each second, e.g. /dev/sda:1000"
        raise UsageError(f"{shorten(text)!r} is not a rate for a disk", hint)
    return (*_disk(path), value)


def _divided(text: str, what: str, example: str) -> tuple[str, str]:
    path, colon, rest = text.rpartition(":")
    if not colon or not path or not rest:
        raise UsageError(f"{shorten(text)!r} is not {what}", f"e.g. {example}")
    return path, rest


def _disk(path: str) -> tuple[int, int]:
    """The numbers of the disk `path`: a node such as /dev/sda, or `major:minor`."""

    major, colon, minor = path.partition(":")
    if colon and major.isdecimal() and minor.isdecimal():
        number = int(major), int(minor)
    else:
        try:
            facts = os.stat(path)
        except OSError as error:
            raise UsageError(f"{shorten(path)}: {error.strerror}", "lsblk lists the disks") from None
        if not S_ISBLK(facts.st_mode):
            hint = f"'df {path}' tells on which disk it lies" if S_ISDIR(facts.st_mode) else "lsblk lists the disks"
            raise UsageError(f"{shorten(path)} is not a disk", hint)
        number = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    place = f"/sys/dev/block/{number[0]}:{number[1]}"
    if not os.path.exists(place):
        raise UsageError(f"{shorten(path)}: there is no such disk", "lsblk lists them")
    if os.path.exists(f"{place}/partition"):
        whole = os.path.basename(os.path.dirname(os.path.realpath(place)))
        raise UsageError(f"{shorten(path)} is a partition, and limits are for whole disks", f"name /dev/{whole}")
    return number


def parent(text: str) -> str:
    """The path of a group below the root of the control groups, without slashes at its ends."""
    path = text.strip("/")
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") or len(part) > 200 or not part.isprintable() for part in parts):
        raise UsageError(f"{shorten(text)!r} is not a control group", "its path in the tree, e.g. /web or web/front")
    return path


def control(text: str) -> tuple[str, str]:
    """`KEY=VALUE`, where KEY is the name of a file in the groups of this machine, of version 1 or 2."""
    from ..kernel.cgroups.keys import check

    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals:
        raise UsageError(f"{shorten(text)!r} is not a control", "KEY=VALUE, e.g. memory.high=16m or cpu.weight=50")
    try:
        check(key, value)
    except ConfigError as error:
        problem = error.message.partition(": ")[2]
        raise UsageError(problem, error.hint or "the name of a file in a control group, e.g. memory.high=16m") from None
    return key, value


def net_class(text: str) -> int:
    """A class for packets: a number, or `major:minor` in hexadecimal digits as `tc` writes it."""
    major, colon, minor = text.strip().lower().partition(":")
    try:
        if not text.strip().isascii() or "_" in text or "-" in text or "+" in text:
            raise ValueError
        value = int(major, 16) << 16 | int(minor, 16) if colon else int(major, 16 if major[:2] == "0x" else 10)
        if (colon and int(minor, 16) > 0xFFFF) or value >= 1 << 32:
            raise ValueError
    except ValueError:
        hint = "a number such as 0x10001, or as tc writes it, e.g. 1:1"
        raise UsageError(f"{shorten(text)!r} is not a class for packets", hint) from None
    return value


def huge_pages(text: str) -> tuple[str, int]:
    """`2m=64m`: how much memory in pages of that size, as (the kernel's name of the size, bytes)."""
    which, equals, limit = text.partition("=")
    if not equals:
        raise UsageError(f"{shorten(text)!r} is not a limit of huge pages", "SIZE=LIMIT, e.g. 2m=64m")
    wanted, value = size(which), size(limit)
    try:
        there = sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) for name in os.listdir(_PAGES))
    except (OSError, ValueError):
        there = []
    if wanted not in [kilobytes << 10 for kilobytes in there]:
        sizes = ", ".join(_page_name(kilobytes << 10) for kilobytes in there) or "none"
        raise UsageError(f"this machine has no pages of {shorten(which)}", f"it has: {sizes}")
    return _page_name(wanted), value


def _page_name(bytes_: int) -> str:
    for shift, unit in ((30, "GB"), (20, "MB")):
        if bytes_ >> shift:
            return f"{bytes_ >> shift}{unit}"
    return f"{bytes_ >> 10}KB"
