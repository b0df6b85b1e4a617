"""What the rules look up: a network, a container's end of a cable, a published port is an element each.

    nft add element inet tarbox ports4 '{ tcp . 8080 : 10.211.0.2 . 80 }'

The rules themselves are in `rules.py`, and made when they aren't there: the first element that can't be added says so.

man 8 nft
"""

from __future__ import annotations

from errno import ENOENT

from ..errors import UnsupportedError
from ..kernel import nft_types as types
from ..kernel.netlink import NetlinkError
from ..kernel.nftables import (
    Set,
    add_element,
    batch,
    commit,
    commit_batch,
    delete_element,
    delete_table,
    element_text,
    has_table,
    open_socket,
)
from ..kernel.seccomp import keep_in, kept
from ..unistd import os
from .addresses import BITS, text
from .leases import ROUTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..kernel.netlink import Message, Netlink
    from .definition import Network, Subnet
    from .ports import Port

_PORT4, _PORT6 = (types.IPV4, types.PORT), (types.IPV6, types.PORT)
SETS = {
    "inet": (
        Set("networks", (types.IFNAME,), comment="bridges"),
        Set("internal", (types.IFNAME,), comment="bridges that lead nowhere"),
        Set("closed4", (types.IFNAME,), comment="between these IPv4 isn't forwarded but for us"),
        Set("closed6", (types.IFNAME,), comment="between these IPv6 isn't forwarded but for us"),
        Set("pairs", (types.IFNAME, types.IFNAME), comment="in and out by the same bridge"),
        Set("members4", (types.IFNAME, types.IPV4), comment="whose addresses are behind which bridge"),
        Set("members6", (types.IFNAME, types.IPV6), comment="whose addresses are behind which bridge"),
        Set("ports4", (types.PROTOCOL, types.PORT), _PORT4),
        Set("ports4_at", (types.IPV4, types.PROTOCOL, types.PORT), _PORT4),
        Set("ports6", (types.PROTOCOL, types.PORT), _PORT6),
        Set("ports6_at", (types.IPV6, types.PROTOCOL, types.PORT), _PORT6),
    ),
    "bridge": (
        Set("ends4", (types.IFNAME, types.ETHER, types.IPV4), comment="who may send as whom"),
        Set("ends6", (types.IFNAME, types.ETHER, types.IPV6), comment="who may send as whom"),
    ),
}
_BY_NAME = {(family, one.name): one for family, sets in SETS.items() for one in sets}
_DEFAULT_ROOT = "/var/lib/tarbox"
_NAME = "tarbox"
_SOURCES = ("networks/rules", "networks/firewall", "kernel/nft_rules", "kernel/nft_tables", "kernel/nft_types",
            "kernel/nftables")  # fmt: skip
_LARGEST = 1 << 16  # bytes of the encoded tables
NEWER = "icmpv6 taddr"  # what not every nft can spell


class Element:
    """One element. key, data: their parts, as nft writes them."""

    __slots__ = ("data", "family", "key", "set")

    def __init__(self, family: str, set: str, key: tuple[str, ...], data: tuple[str, ...] = ()) -> None:
        self.family = family
        self.set = set
        self.key = key
        self.data = data

    def __repr__(self) -> str:
        return f"{self.family} {self.set} {{ {element_text(_BY_NAME[self.family, self.set], self.key, self.data)} }}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Element) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


def name(data: str) -> str:
    """What the tables of a data root are called, in each family."""
    if data == _DEFAULT_ROOT:
        return _NAME
    from .store import derived_id

    return f"{_NAME}-{derived_id(data)[:12]}"


def end_of(table: str, id: str = "") -> str:
    """The name of the host's end of a container's cable, or what all of a data root's begin with."""
    return f"tv-{id[:12]}" if table == _NAME else f"tv{table.removeprefix(_NAME)[1:5]}-{id[:8]}"


# --- What there is for whom ------------------------------------------------------------------------------------------


def of_network(network: Network) -> tuple[Element, ...]:
    """What the rules have to know of a network."""
    return of_bridge(network.bridge, network.internal)


def of_bridge(bridge: str, internal: bool) -> tuple[Element, ...]:
    """The same by the bridge's name."""
    made = [Element("inet", "networks", (bridge,)), Element("inet", "pairs", (bridge, bridge))]
    return (*made, Element("inet", "internal", (bridge,))) if internal else tuple(made)


def of_container(bridge: str, end: str, mac: str, own: Iterable[tuple[Subnet, int]]) -> tuple[Element, ...]:
    """What they have to know of a container: as whom it may send. end: the host's end of its cable."""
    made = []
    for subnet, address in own:
        made.append(Element("inet", f"members{subnet.version}", (bridge, text(subnet.version, address))))
        if subnet.version == 4:
            made.append(Element("bridge", "ends4", (end, mac, text(4, address))))
        else:
            # Its address on the link as well, and none at all, as which it looks whether somebody has that already.
            six = (text(6, address), text(6, link_address(mac)), "::")
            made += [Element("bridge", "ends6", (end, mac, one)) for one in six]
    return tuple(made)


def of_ports(ports: Iterable[Port], own: Sequence[tuple[Subnet, int]]) -> tuple[Element, ...]:
    """The published ports, but for what only the relay can reach: IPv6 without an address for it, and ::1."""
    addresses = {subnet.version: text(subnet.version, address) for subnet, address in own}
    made = []
    for port in ports:
        wanted = (4, 6) if not port.address else (6,) if ":" in port.address else (4,)
        for version in wanted:
            if version in addresses and port.address != "::1":
                key: tuple[str, ...] = (port.protocol, str(port.host_first))
                name = f"ports{version}"
                if port.address:
                    name, key = f"{name}_at", (port.address, *key)
                made.append(Element("inet", name, key, (addresses[version], str(port.container))))
    return tuple(made)


def link_address(mac: str) -> int:
    """The IPv6 address that an interface has by itself (RFC 4291, appendix A)."""
    one, two, three, four, five, six = (int(part, 16) for part in mac.split(":"))
    last = bytes((one ^ 2, two, three, 0xFF, 0xFE, four, five, six))
    return (0xFE80 << BITS[6] - 16) | int.from_bytes(last, "big")


# --- Done ------------------------------------------------------------------------------------------------------------


def add(table: str, elements: Sequence[Element], folder: str, cache: str = "") -> bool:
    """Add elements, and make the tables first where they aren't there. Returns whether they weren't.

    folder: of all networks' state, which is locked. cache: a directory of one's own where the encoded tables are kept,
    "" for none.
    """
    requests = [_adding(table, element) for element in elements]
    with open_socket() as socket:
        there = [family for family in SETS if has_table(socket, family, table)]
        made = len(there) < len(SETS)
        if made:
            _make(socket, table, there, cache)
            requests = [*(_adding(table, element) for element in _closed(folder)), *requests]
        commit(socket, requests)
    _turn_flows(elements)
    return made


def _adding(table: str, element: Element) -> Message:
    kind = _BY_NAME[element.family, element.set]
    return add_element(element.family, table, kind, element.key, element.data, exclusive=False)


def _closed(folder: str) -> list[Element]:
    """What of the machine isn't to be connected by its being a router, where we made it one."""
    if not os.path.exists(f"{folder}/{ROUTER}"):
        return []
    from .router import closed

    return closed(folder)


def _make(socket: Netlink, table: str, there: Sequence[str], cache: str) -> None:
    """Make the tables. there: the families of which there is one: somebody took the other away."""
    path = _kept_name(table, cache) if cache and not there else ""
    datagram = kept(path, _LARGEST) if path else None
    if datagram:
        try:
            commit_batch(socket, datagram)
            return
        except (NetlinkError, UnsupportedError):  # which request that was the messages know
            pass
    from ..kernel.nft_tables import create
    from .rules import tables

    requests = [delete_table(family, table) for family in there]
    requests += [request for one in tables(table) for request in create(one)]
    datagram = batch(requests)
    commit_batch(socket, datagram, requests)
    if path:
        keep_in(path, datagram)


def _kept_name(table: str, cache: str) -> str:
    """The file of the encoded tables: another one for other sources; "" where those can't be looked at."""
    from .store import derived_id

    package = os.path.dirname(os.path.dirname(__file__))
    identity = ""
    try:
        for name in _SOURCES:
            status = os.stat(f"{package}/{name}.py")
            identity += f" {status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    except OSError:
        return ""
    return f"{cache}/{table}-{derived_id(identity)[:24]}.nft"


def take_back(table: str, words: str) -> None:
    """Remove the elements of a text that `written` made, as far as they are there."""
    elements = read(words)
    requests = [delete_element(one.family, table, _BY_NAME[one.family, one.set], one.key) for one in elements]
    _remove(requests)
    _turn_flows(elements)


def _turn_flows(changed: Iterable[Element]) -> None:
    """Have clients of UDP go by the rules that were changed: the kernel takes them where it took them before."""
    if ports := [one for one in changed if "udp" in one.key]:
        from . import flows

        flows.forget(ports)


def forget(table: str, bridge: str) -> None:
    """Remove what is there of a network."""
    elements = of_bridge(bridge, internal=True)
    requests = [delete_element(one.family, table, _BY_NAME[one.family, one.set], one.key) for one in elements]
    _remove(requests)


def close(table: str) -> None:
    """Remove the tables."""
    _remove([delete_table(family, table) for family in SETS])


_slow: list[Netlink] = []


def _remove(requests: list[Message]) -> None:
    """Have them done, as far as they can be. The socket stays open: see `let_go`."""
    try:
        if not _slow:
            _slow.append(open_socket())
    except UnsupportedError:  # a kernel without has none of it
        return
    _as_far_as_there(_slow[0], requests)


def open_for_long() -> list[int]:
    """The descriptors that `let_go` closes."""
    return [socket.fileno() for socket in _slow]


def let_go() -> None:
    """Close the socket by which something was removed.

    The kernel keeps who does so waiting for some 10 ms, until what was removed is free, unless another process has it.
    """
    while _slow:
        _slow.pop().close()


def _as_far_as_there(socket: Netlink, requests: list[Message]) -> None:
    try:
        commit(socket, requests)
    except NetlinkError as error:
        if error.errno != ENOENT:
            raise
        for request in requests if len(requests) > 1 else ():
            _as_far_as_there(socket, [request])


# --- As text ---------------------------------------------------------------------------------------------------------


def written(elements: Iterable[Element]) -> str:
    """The keys of elements, for a journal."""
    return ";".join(f"{one.family},{one.set},{','.join(one.key)}" for one in elements)


def read(words: str) -> list[Element]:
    """The elements of such a text, without what they lead to."""
    made = []
    for entry in words.split(";") if words else ():
        family, set, *key = entry.split(",")
        made.append(Element(family, set, tuple(key)))
    return made


def shell(table: str, elements: Iterable[Element]) -> str:
    """The commands that add the elements, and make the tables where they aren't there."""
    from .rules import tables

    lines = []
    for one in tables(table):
        mark = "END_OF_TABLE"
        there = f"nft list table {one.family} {table} >/dev/null 2>&1 ||"
        if NEWER in one.text:
            file = '"$WORK/rules"'
            lines += [f"cat > {file} <<'{mark}'", *one.text.strip("\n").split("\n"), mark]
            lines.append(f"# An nft before 1.0.7 has no word for {NEWER}, so it goes without that rule.")
            lines.append(f"{there} nft -f {file} 2>/dev/null || grep -v '{NEWER}' {file} | nft -f -")
        else:
            lines += [f"{there} nft -f - <<'{mark}'", *one.text.strip("\n").split("\n"), mark]
    return "\n".join([*lines, *adding(table, elements)])


def adding(table: str, elements: Iterable[Element]) -> list[str]:
    """The commands that add elements."""
    made = []
    for one in elements:
        shown = element_text(_BY_NAME[one.family, one.set], one.key, one.data)
        made.append(f"nft add element {one.family} {table} {one.set} '{{ {shown} }}'")
    return made


def deleting(table: str, elements: Iterable[Element]) -> list[str]:
    """The commands that delete elements."""
    made = []
    for one in elements:
        shown = element_text(_BY_NAME[one.family, one.set], one.key)
        made.append(f"nft delete element {one.family} {table} {one.set} '{{ {shown} }}'")
    return made
