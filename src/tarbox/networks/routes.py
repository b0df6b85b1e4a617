"""The routes of this machine: which addresses lead where, as everybody may read them.

    cat /proc/net/route /proc/net/ipv6_route          ip route; ip -6 route

Those to very large parts of the Internet, the default route first of all, lead anywhere and take nothing: a tunnel for
everything is often two or more of them.

man 5 proc, man 8 ip-route
"""

from __future__ import annotations

import sys

from ..unistd import os
from .addresses import overlap, text_of_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Route = tuple[int, int, int, str]  # 4 or 6, the first address, how many bits are fixed, the interface
    Taken = tuple[int, int, int, str]  # the same, but with words that say whose it is

LARGEST = 8  # the prefix of the largest subnet that counts: 10.0.0.0/8 is the largest that is private

_PATHS = ("/proc/net/route", "/proc/net/ipv6_route")
_LOCAL, _ANYCAST = 0x80000000, 0x00100000  # flags of the machine's own addresses, which lie in other routes


def read() -> list[Route]:
    """All routes of the main tables that this process sees; none of a protocol that is off."""
    four, six = (_text(path) for path in _PATHS)
    return [*four_of(four), *six_of(six)]


def four_of(table: str) -> list[Route]:
    """The routes of a text like /proc/net/route, whose numbers are in the order of this machine's bytes."""
    found: list[Route] = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) >= 8:
            network, mask = _ordered(words[1]), _ordered(words[7])
            found.append((4, network, mask.bit_count(), words[0]))
    return found


def six_of(table: str) -> list[Route]:
    """The routes of a text like /proc/net/ipv6_route, without the machine's own addresses."""
    found: list[Route] = []
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 10 and not int(words[8], 16) & (_LOCAL | _ANYCAST):
            found.append((6, int(words[0], 16), int(words[1], 16), words[9]))
    return found


def taken(routes: Iterable[Route], own: str = "") -> list[Taken]:
    """What the host's routes have taken, without those of the interface `own`."""
    return [
        (version, network, prefix, f"{text_of_subnet(version, network, prefix)}, a route of the interface {name}")
        for version, network, prefix, name in routes
        if prefix >= LARGEST and name != own
    ]


def conflict(version: int, network: int, prefix: int, others: Iterable[Taken]) -> str:
    """Whose addresses the subnet shares, "" where it is free."""
    for kind, other, other_prefix, whose in others:
        if kind == version and overlap(version, network, prefix, other, other_prefix):
            return whose
    return ""


def _ordered(word: str) -> int:
    return int.from_bytes(int(word, 16).to_bytes(4, sys.byteorder), "big")


def _text(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
