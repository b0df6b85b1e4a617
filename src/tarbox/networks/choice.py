"""Which subnets are free: those that no route of the host leads into, and that no other network has.

    ip route get 10.212.0.1          goes where the default route does: nobody has it

Routes to very large parts of the Internet, the default route first of all, lead anywhere and don't count. A tunnel that
takes everything is often two or more of them.

https://www.rfc-editor.org/rfc/rfc1918, https://www.rfc-editor.org/rfc/rfc4193
"""

from __future__ import annotations

from ..errors import NetworkError
from ..unistd import os
from .addresses import BITS, last, overlap, read_subnet, text_of_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .routes import Route

    Taken = tuple[int, int, int, str]  # as a route, but with words that say whose it is

LARGEST = 8  # the prefix of the largest subnet that counts: 10.0.0.0/8 is the largest that is private

# The default network's, the first that is free; and the spaces in which other networks get theirs, with its size.
_BRIDGE = (
    "10.211.0.0/16", "172.29.0.0/16", "192.168.192.0/20", "10.199.0.0/16", "172.23.0.0/16", "192.168.224.0/20",
)  # fmt: skip
_SPACES, _SIZE = ("10.212.0.0/14", "172.28.0.0/16", "192.168.208.0/20"), 24
_ULA, _ULA_SIZE = 0xFD, 64


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


def for_bridge(others: Sequence[Taken]) -> tuple[int, int, int]:
    """A subnet for the default network; raises NetworkError where none of those that are tried is free."""
    whose = ""
    for word in _BRIDGE:
        subnet = read_subnet(word)
        found = conflict(*subnet, others)
        if not found:
            return subnet
        whose = whose or f"{word} overlaps {found}"
    raise NetworkError(
        f"there is no subnet left for the network bridge: {whose}, and so on to {_BRIDGE[-1]}",
        "tarbox network create --subnet makes a network with a subnet of your choice",
    )


def for_network(others: Sequence[Taken]) -> tuple[int, int, int]:
    """The next free subnet of IPv4 for a network; raises NetworkError where there is none."""
    for word in _SPACES:
        version, network, prefix = read_subnet(word)
        at, end = network, last(version, network, prefix)
        step = 1 << BITS[version] - _SIZE
        spans = [(low, last(kind, low, length)) for kind, low, length, _ in others if kind == version]
        for low, high in sorted(spans):
            if high < at:
                continue
            if low >= at + step:  # as long as there is room before the next one
                break
            at = high // step * step + step
        if at + step - 1 <= end:
            return version, at, _SIZE
    raise NetworkError(
        f"there is no subnet of IPv4 left in {', '.join(_SPACES)}",
        "remove networks that aren't used, or choose one with --subnet",
    )


def for_six(others: Sequence[Taken]) -> tuple[int, int, int]:
    """A subnet of IPv6 that is unique by its random number (RFC 4193), one for each network."""
    while True:
        network = (_ULA << 40 | int.from_bytes(os.urandom(5), "big")) << 80
        if not conflict(6, network, _ULA_SIZE, others):
            return 6, network, _ULA_SIZE
