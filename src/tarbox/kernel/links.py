"""Interfaces, addresses and routes of a network namespace: the requests that make them, and what there is.

    ip link add box0 type bridge                  ip link add v1 type veth peer name eth0 netns PID
    ip address add 10.0.0.2/24 dev eth0           ip route add default via 10.0.0.1

Each function makes one request (`netlink.Message`), for `Netlink.send` together with others; the readers at the end
ask a socket. Internet addresses are bytes here, 4 or 16 of them, and those of Ethernet 6.

man 7 rtnetlink, man 8 ip-link, man 8 ip-address, man 8 ip-route
"""

from __future__ import annotations

from errno import ENODEV
from fcntl import ioctl

from .addresses import shown
from .netlink import CREATE, EXCL, REPLACE, Message, NetlinkError, attribute, nested, number, parse, string, text
from .netlink import word as _word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netlink import Netlink

UP = 1  # of an interface's flags
MAIN = 254  # the routing table
STATIC, BY_ADVERTISEMENT = 4, 9  # who made a route
NAME_LIMIT = 15  # bytes of an interface's name

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _DELROUTE, _GETROUTE = (
    16, 17, 18, 20, 21, 22, 24, 25, 26
)  # fmt: skip
_INET, _INET6 = 2, 10
# Attributes of a link, of an address, of a route.
_ADDRESS, _IFNAME, _MTU, _MASTER, _LINKINFO, _NET_NS_PID, _IFALIAS, _AF_SPEC, _NET_NS_FD = (
    1,
    3,
    4,
    10,
    18,
    19,
    20,
    26,
    28,
)
_KIND, _DATA, _SLAVE_KIND, _SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER, _ADDR_GEN_MODE, _MODE_NONE = 1, 8, 1
_PORT_HAIRPIN, _PORT_ISOLATED = 4, 33
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_NODAD = 1, 2, 8, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_UNICAST, _UNIVERSE, _LINK_SCOPE = 1, 0, 253
_SIOCGIFMTU, _SIOCGIFINDEX = 0x8921, 0x8933
_WITHOUT_COUNTERS = number(29, 8)  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS: they are most of an answer


# --- Requests --------------------------------------------------------------------------------------------------------


def bridge(name: str, mtu: int = 0, mac: bytes = b"") -> Message:
    """Make a bridge, down. mtu: 0 for the usual one. mac: a fixed address; without, it changes with the ports."""
    more = (attribute(_ADDRESS, mac) if mac else b"") + (number(_MTU, mtu) if mtu else b"")
    return _link(_NEWLINK, CREATE | EXCL, name, more + nested(_LINKINFO, text(_KIND, "bridge")))


def veth(
    name: str, peer: str, namespace: int = -1, pid: int = 0, master: int = 0, mac: bytes = b"", mtu: int = 0
) -> Message:
    """Make a pair of interfaces that are each other's other end: ours up, the peer down in another namespace.

    namespace: the descriptor of the peer's network namespace, or pid: a process in it. master: the index of a bridge
    that ours becomes a port of. mac: the peer's. mtu: of both, 0 for the usual.
    """
    size = number(_MTU, mtu) if mtu else b""
    where = number(_NET_NS_PID, pid) if namespace < 0 else number(_NET_NS_FD, namespace)
    inside = _header() + text(_IFNAME, peer) + (attribute(_ADDRESS, mac) if mac else b"") + size + where
    info = nested(_LINKINFO, text(_KIND, "veth"), nested(_DATA, attribute(_VETH_PEER, inside)))
    return _link(_NEWLINK, CREATE | EXCL, name, size + (number(_MASTER, master) if master else b"") + info, up=True)


def port(name: str, hairpin: bool = False, isolated: bool = False) -> Message:
    """Say how an interface that is a port of a bridge behaves; it never gets an IPv6 address of its own by itself.

    hairpin: what came in by it may leave by it. isolated: it hears nothing of other isolated ports.
    """
    more = nested(_AF_SPEC, nested(_INET6, attribute(_ADDR_GEN_MODE, bytes([_MODE_NONE]))))
    if hairpin or isolated:
        options = attribute(_PORT_HAIRPIN, bytes([hairpin])) + attribute(_PORT_ISOLATED, bytes([isolated]))
        more += nested(_LINKINFO, text(_SLAVE_KIND, "bridge"), nested(_SLAVE_DATA, options))
    return _link(_NEWLINK, 0, name, more)


def set_up(link: str | int) -> Message:
    """Bring an interface up, by its name or index."""
    return _link(_NEWLINK, 0, link, up=True)


def set_alias(link: str | int, alias: str) -> Message:
    """Give an interface a remark."""
    return _link(_NEWLINK, 0, link, text(_IFALIAS, alias))


def set_mtu(link: str | int, mtu: int) -> Message:
    """Set the largest packet of an interface, in bytes."""
    return _link(_NEWLINK, 0, link, number(_MTU, mtu))


def delete(link: str | int) -> Message:
    """Remove an interface. The kernel waits for 20 to 40 ms until nobody looks at it any more."""
    return _link(_DELLINK, 0, link)


def address(index: int, ip: bytes, prefix: int) -> Message:
    """Give an interface an address, or leave it as it is there. One of IPv6 is not looked for on the link before.

    prefix: the bits of it that are the network's.
    """
    head = bytes([_family(ip), prefix, 0, _UNIVERSE]) + index.to_bytes(4, "little")
    more = attribute(_IFA_LOCAL, ip) + attribute(_IFA_ADDRESS, ip)
    if len(ip) > 4:
        more += number(_IFA_FLAGS, _IFA_NODAD)
    return Message(_NEWADDR, CREATE | REPLACE, head + more, f"RTM_NEWADDR {shown(ip)}/{prefix}")


def delete_address(index: int, ip: bytes, prefix: int) -> Message:
    """Take an address from an interface."""
    head = bytes([_family(ip), prefix, 0, _UNIVERSE]) + index.to_bytes(4, "little")
    return Message(_DELADDR, 0, head + attribute(_IFA_LOCAL, ip), f"RTM_DELADDR {shown(ip)}/{prefix}")


def default_route(gateway: bytes, index: int) -> Message:
    """Send what goes nowhere else to a gateway, which is behind that interface."""
    return route(bytes(len(gateway)), 0, gateway, index)


def route(destination: bytes, prefix: int, gateway: bytes = b"", index: int = 0, table: int = MAIN) -> Message:
    """Send what goes to a network to a gateway, or without one out of an interface; replaces what is there."""
    return Message(
        _NEWROUTE, CREATE | REPLACE, _route(destination, prefix, gateway, index, table),
        f"RTM_NEWROUTE {_to(destination, prefix)}" + (f" via {shown(gateway)}" if gateway else ""),
    )  # fmt: skip


def delete_route(destination: bytes, prefix: int, gateway: bytes = b"", index: int = 0, table: int = MAIN) -> Message:
    """Take a route away."""
    body = _route(destination, prefix, gateway, index, table)
    return Message(_DELROUTE, 0, body, f"RTM_DELROUTE {_to(destination, prefix)}")


def _route(destination: bytes, prefix: int, gateway: bytes, index: int, table: int) -> bytes:
    family = _family(destination)
    scope = _UNIVERSE if gateway or family == _INET6 else _LINK_SCOPE
    head = bytes([family, prefix, 0, 0, table if table < 256 else 0, STATIC, scope, _UNICAST, 0, 0, 0, 0])
    made = head + (attribute(_RTA_DST, destination) if prefix else b"")
    made += attribute(_RTA_GATEWAY, gateway) if gateway else b""
    made += number(_RTA_OIF, index) if index else b""
    return made + (number(_RTA_TABLE, table) if table > 255 else b"")


_SAID = {_NEWLINK: "RTM_NEWLINK", _DELLINK: "RTM_DELLINK", _GETLINK: "RTM_GETLINK"}


def _header(index: int = 0, up: bool = False, family: int = 0) -> bytes:
    """A struct ifinfomsg."""
    flags = UP if up else 0
    return (family | index << 32 | flags << 64 | flags << 96).to_bytes(16, "little")


def _link(type: int, flags: int, link: str | int, more: bytes = b"", up: bool = False) -> Message:
    said = f"{_SAID[type]} {link}"
    if isinstance(link, int):
        return Message(type, flags, _header(link, up) + more, said)
    return Message(type, flags, _header(0, up) + text(_IFNAME, link) + more, said)


# --- What there is ---------------------------------------------------------------------------------------------------


class Link:
    """An interface. kind: "bridge", "veth", … or "" for hardware. master: the index of what it is a port of, or 0."""

    __slots__ = ("alias", "flags", "index", "kind", "mac", "master", "mtu", "name")

    def __init__(self, body: bytes) -> None:
        found = parse(body, 16)
        info = parse(found.get(_LINKINFO, b""))
        self.index = _word(body[4:8])
        self.flags = _word(body[8:12])
        self.name = string(found[_IFNAME])
        self.kind = string(info.get(_KIND, b""))
        self.master = _word(found.get(_MASTER, b""))
        self.mtu = _word(found.get(_MTU, b""))
        self.alias = string(found.get(_IFALIAS, b""))
        self.mac = found.get(_ADDRESS, b"")


class Address:
    """An address of an interface. index: the interface's. prefix: how many bits of `ip` are the network's."""

    __slots__ = ("index", "ip", "prefix")

    def __init__(self, body: bytes) -> None:
        found = parse(body, 8)
        self.index = _word(body[4:8])
        self.prefix = body[1]
        self.ip = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")


class Route:
    """A route. destination: b"" for the default. index: of the interface it leaves by, or 0. by: who made it."""

    __slots__ = ("by", "destination", "gateway", "index", "prefix", "table")

    def __init__(self, body: bytes) -> None:
        found = parse(body, 12)
        self.prefix = body[1]
        self.by = body[5]
        self.destination = found.get(_RTA_DST, b"")
        self.gateway = found.get(_RTA_GATEWAY, b"")
        self.index = _word(found.get(_RTA_OIF, b""))
        self.table = _word(found[_RTA_TABLE]) if _RTA_TABLE in found else body[4]


def index_of(socket: Netlink, name: str) -> int:
    """The index of the interface of this name, 0 for none, in the namespace where the process is: not the socket's."""
    return _word(_asked(socket, name, _SIOCGIFINDEX, "SIOCGIFINDEX"))


def mtu_of(socket: Netlink, name: str) -> int:
    """The largest packet of an interface in the namespace where the process is, in bytes, 0 where there is none.

    Unlike `link`, it doesn't wait while somebody else makes or removes interfaces.
    """
    return _word(_asked(socket, name, _SIOCGIFMTU, "SIOCGIFMTU"))


def _asked(socket: Netlink, name: str, request: int, said: str) -> bytes:
    if len(name.encode()) > NAME_LIMIT:  # the kernel would look for what it begins with
        return b""
    try:
        return ioctl(socket.fileno(), request, name.encode().ljust(40, b"\0"))[16:20]
    except OSError as error:
        if error.errno == ENODEV:
            return b""
        raise NetlinkError(f"{said} {name}", error.errno or 0) from None


def link(socket: Netlink, name: str) -> Link | None:
    """The interface of this name, None where there is none."""
    try:
        return Link(socket.ask(_link(_GETLINK, 0, name, _WITHOUT_COUNTERS)))
    except NetlinkError as error:
        if error.errno == ENODEV:
            return None
        raise


def links(socket: Netlink) -> list[Link]:
    """All interfaces."""
    asked = Message(_GETLINK, 0, _header() + _WITHOUT_COUNTERS, "RTM_GETLINK")
    return [Link(body) for body in socket.dump(asked)]


def addresses(socket: Netlink, family: int = 0) -> list[Address]:
    """All addresses; family: 4 or 6 for those alone."""
    head = bytes([_FAMILIES[family]]) + bytes(7)
    return [Address(body) for body in socket.dump(Message(_GETADDR, 0, head, "RTM_GETADDR"))]


def routes(socket: Netlink, family: int = 0) -> list[Route]:
    """All routes of all tables; family: 4 or 6 for those alone."""
    head = bytes([_FAMILIES[family]]) + bytes(11)
    return [Route(body) for body in socket.dump(Message(_GETROUTE, 0, head, "RTM_GETROUTE"))]


_FAMILIES = {0: 0, 4: _INET, 6: _INET6}


def _family(ip: bytes) -> int:
    return _INET if len(ip) == 4 else _INET6


def _to(destination: bytes, prefix: int) -> str:
    return f"{shown(destination)}/{prefix}" if prefix else "default"
