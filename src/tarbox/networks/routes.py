"""The routes of this machine: which addresses lead where, as everybody may read them.

    cat /proc/net/route /proc/net/ipv6_route          ip route; ip -6 route

man 5 proc, man 8 ip-route
"""

from __future__ import annotations

import sys

from ..kernel.links import mtu_of
from ..kernel.netlink import Netlink
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Route = tuple[int, int, int, str]  # 4 or 6, the first address, how many bits are fixed, the interface

_PATHS = ("/proc/net/route", "/proc/net/ipv6_route")
_USUAL = 1500
_LOCAL, _ANYCAST = 0x80000000, 0x00100000  # flags of the machine's own addresses, which lie in other routes


def read() -> list[Route]:
    """All routes of the main tables that this process sees; none of a protocol that is off."""
    four, six = (_text(path) for path in _PATHS)
    return [*four_of(four), *six_of(six)]


def uplink_mtu() -> int:
    """The largest packet of the interfaces that the default routes leave by, 0 for the usual 1500 bytes."""
    names = {name for _, _, prefix, name in read() if prefix == 0 and name != "lo"}
    if not names:
        return 0
    with Netlink() as socket:
        there = [mtu for name in names if (mtu := mtu_of(socket, name))]
    smallest = min(there, default=_USUAL)
    return 0 if smallest >= _USUAL else smallest


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
