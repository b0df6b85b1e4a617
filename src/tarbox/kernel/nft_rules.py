"""Rules of nftables: what a packet must be like, and what becomes of it. Each is written once, and is text and bytes.

    nft add rule inet box post ip saddr 10.0.0.0/24 oifname != "box0" masquerade
    Rule(equal(IP_SADDR, "10.0.0.0/24"), unequal(OIFNAME, "box0"), masquerade())

The kernel's rules are small programs: "load the source address into register 1", "compare register 1". nft's language
leaves out what is clear by itself: who compares an address of IPv4 must have looked first whether the packet is one of
IPv4. Here that is done as nft does it, so that `nft list` shows a rule as it is written here; a test compares them.

man 8 nft; https://wiki.nftables.org
"""

from __future__ import annotations

from . import nft_types as types
from .netlink import attribute, nested, text
from .nftables import FAMILIES, big

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .nft_types import Type, Value

INET, IPV4, NETDEV, BRIDGE, IPV6 = (FAMILIES[name] for name in ("inet", "ip", "netdev", "bridge", "ip6"))
_NAME, _DATA, _ELEMENT = 1, 2, 1  # attributes of an expression, and of what is in a list
_VALUE, _VERDICT, _CODE, _CHAIN = 1, 2, 1, 2  # of data, and of a verdict
_FIRST, _SECOND = 1, 2  # registers of 16 bytes; those of 4 are numbered from 8 on, in the same memory
_WORDS, _WORD = 8, 4
_EQ, _NEQ, _LTE, _GTE = 0, 1, 3, 5
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(_ELEMENT, text(_NAME, name), nested(_DATA, *attributes))


class Context:
    """What is known while a rule is put together. family: the table's. known: which protocols the packet is of."""

    __slots__ = ("family", "known")

    def __init__(self, family: int) -> None:
        self.family = family
        self.known: set[str] = set()


class Statement:
    """A part of a rule. text: in nft's language. encode: its bytes."""

    __slots__ = ("encode", "text")

    def __init__(self, text: str, encode: Callable[[Context], bytes]) -> None:
        self.text = text
        self.encode = encode

    def __repr__(self) -> str:
        return self.text


class Rule:
    """What is done with the packets that are as the first statements say: the last one."""

    __slots__ = ("comment", "statements")

    def __init__(self, *statements: Statement, comment: str = "") -> None:
        self.statements = statements
        self.comment = comment

    @property
    def text(self) -> str:
        """In nft's language."""
        made = " ".join(statement.text for statement in self.statements)
        return f'{made} comment "{self.comment}"' if self.comment else made

    def encode(self, family: int) -> bytes:
        """Its expressions, for a table of a family."""
        context = Context(family)
        return b"".join([statement.encode(context) for statement in self.statements])


# --- What is looked at -----------------------------------------------------------------------------------------------


class Field:
    """Something of a packet that can be compared. load: the expression that puts it into a register.

    needs: the protocols that the packet must be of to have it. begin: the expression for its first bytes, so many.
    """

    __slots__ = ("begin", "load", "needs", "text", "type")

    def __init__(
        self,
        text: str,
        type: Type,
        load: Callable[[int], bytes],
        needs: tuple[str, ...] = (),
        begin: Callable[[int], bytes] | None = None,
    ) -> None:
        self.text = text
        self.type = type
        self.load = load
        self.needs = needs
        self.begin = begin

    def __repr__(self) -> str:
        return self.text


def _meta(text: str, key: int, type: Type) -> Field:
    return Field(text, type, lambda register: _expression("meta", big(1, register), big(2, key)))


_LINK, _NETWORK, _TRANSPORT = 0, 1, 2


def _payload(text: str, type: Type, base: int, offset: int, *needs: str) -> Field:
    place = big(2, base) + big(3, offset)

    def load(register: int, size: int = type.size) -> bytes:
        return _expression("payload", big(1, register), place, big(4, size))

    return Field(text, type, load, needs, lambda size: load(_FIRST, size))


def _ct(text: str, type: Type, key: int) -> Field:
    return Field(text, type, lambda register: _expression("ct", big(1, register), big(2, key)))


def _fib(text: str, type: Type, result: int, flags: int) -> Field:
    return Field(text, type, lambda register: _expression("fib", big(1, register), big(2, result), big(3, flags)))


_FIB_SADDR, _FIB_DADDR, _FIB_IIF, _FIB_PRESENT = 1, 2, 8, 32

IIFNAME, OIFNAME = _meta("iifname", 6, types.IFNAME), _meta("oifname", 7, types.IFNAME)
IIFTYPE = _meta("meta iiftype", 8, types.LINK_TYPE)
PROTOCOL = _meta("meta protocol", 1, types.ETHER_TYPE)
NFPROTO, L4PROTO = _meta("meta nfproto", 15, types.NFPROTO), _meta("meta l4proto", 16, types.PROTOCOL)
ETHER_DADDR = _payload("ether daddr", types.ETHER, _LINK, 0, "ether")
ETHER_SADDR = _payload("ether saddr", types.ETHER, _LINK, 6, "ether")
ETHER_TYPE = _payload("ether type", types.ETHER_TYPE, _LINK, 12, "ether")
IP_SADDR = _payload("ip saddr", types.IPV4, _NETWORK, 12, "ip")
IP_DADDR = _payload("ip daddr", types.IPV4, _NETWORK, 16, "ip")
IP6_SADDR = _payload("ip6 saddr", types.IPV6, _NETWORK, 8, "ip6")
IP6_DADDR = _payload("ip6 daddr", types.IPV6, _NETWORK, 24, "ip6")
ARP_OPERATION = _payload("arp operation", types.ARP_OPERATION, _NETWORK, 6, "arp")
ARP_SADDR_ETHER = _payload("arp saddr ether", types.ETHER, _NETWORK, 8, "arp")
ARP_SADDR_IP = _payload("arp saddr ip", types.IPV4, _NETWORK, 14, "arp")
ARP_DADDR_ETHER = _payload("arp daddr ether", types.ETHER, _NETWORK, 18, "arp")
ARP_DADDR_IP = _payload("arp daddr ip", types.IPV4, _NETWORK, 24, "arp")
TH_SPORT = _payload("th sport", types.PORT, _TRANSPORT, 0)
TH_DPORT = _payload("th dport", types.PORT, _TRANSPORT, 2)
TCP_SPORT = _payload("tcp sport", types.PORT, _TRANSPORT, 0, "tcp")
TCP_DPORT = _payload("tcp dport", types.PORT, _TRANSPORT, 2, "tcp")
UDP_SPORT = _payload("udp sport", types.PORT, _TRANSPORT, 0, "udp")
UDP_DPORT = _payload("udp dport", types.PORT, _TRANSPORT, 2, "udp")
ICMPV6_TYPE = _payload("icmpv6 type", types.ICMPV6, _TRANSPORT, 0, "frame ip6", "ipv6-icmp")
ICMPV6_TADDR = _payload("icmpv6 taddr", types.IPV6, _TRANSPORT, 8, "frame ip6", "ipv6-icmp")
CT_STATE, CT_STATUS = _ct("ct state", types.CT_STATE, 0), _ct("ct status", types.CT_STATUS, 2)
FIB_SADDR_TYPE = _fib("fib saddr type", types.ADDRESS_TYPE, 3, _FIB_SADDR)
FIB_DADDR_TYPE = _fib("fib daddr type", types.ADDRESS_TYPE, 3, _FIB_DADDR)
FIB_SADDR_IIF_OIF = _fib("fib saddr . iif oif", types.PRESENCE, 1, _FIB_SADDR | _FIB_IIF | _FIB_PRESENT)

# How it is found out whether a packet is of a protocol, by the table's family; where none is named, it always is.
_TRANSPORTS = {"tcp": "tcp", "udp": "udp", "ipv6-icmp": "ipv6-icmp"}
_NETWORKS = {
    (INET, "ether"): (IIFTYPE, "ether"), (IPV4, "ether"): (IIFTYPE, "ether"), (IPV6, "ether"): (IIFTYPE, "ether"),
    (INET, "ip"): (NFPROTO, "ipv4"), (INET, "ip6"): (NFPROTO, "ipv6"), (INET, "frame ip6"): (NFPROTO, "ipv6"),
    (BRIDGE, "ip"): (PROTOCOL, "ip"), (BRIDGE, "ip6"): (PROTOCOL, "ip6"), (BRIDGE, "arp"): (ETHER_TYPE, "arp"),
    (BRIDGE, "frame ip6"): (ETHER_TYPE, "ip6"), (NETDEV, "ip"): (PROTOCOL, "ip"), (NETDEV, "ip6"): (PROTOCOL, "ip6"),
    (NETDEV, "arp"): (PROTOCOL, "arp"), (NETDEV, "frame ip6"): (PROTOCOL, "ip6"),
}  # fmt: skip


def _depend(context: Context, fields: Sequence[Field]) -> bytes:
    """The expressions that make sure that the packet has these fields, as far as it isn't known."""
    made = b""
    for need in [need for field in fields for need in field.needs]:
        field, value = (L4PROTO, need) if need in _TRANSPORTS else _NETWORKS.get((context.family, need), (None, ""))
        if field and f"{field.text} {value}" not in context.known:
            made += field.load(_FIRST) + _compare(_EQ, field.type.encode(value))
            context.known.add(f"{field.text} {value}")
    return made


def _compare(operation: int, value: bytes) -> bytes:
    return _expression("cmp", big(1, _FIRST), big(2, operation), nested(3, attribute(_VALUE, value)))


def _mask(size: int, mask: bytes) -> bytes:
    """Register 1 and a mask."""
    values = nested(4, attribute(_VALUE, mask)) + nested(5, attribute(_VALUE, bytes(size)))
    return _expression("bitwise", big(1, _FIRST), big(2, _FIRST), big(3, size), values)


# --- Conditions ------------------------------------------------------------------------------------------------------


def equal(field: Field, value: Value) -> Statement:
    """Only packets of which a field has this value, or is in a network like "10.0.0.0/8", or in "80-89"; or a flag."""
    return _matching(field, value, False)


def unequal(field: Field, value: Value) -> Statement:
    """Only packets of which it hasn't."""
    return _matching(field, value, True)


def _matching(field: Field, value: Value, inverted: bool) -> Statement:
    type = field.type
    negation = ("! " if type.flags else "!= ") if inverted else ""
    shown = f"{field.text} {negation}{type.show(value)}"
    given = value if isinstance(value, str) else ""

    def encode(context: Context) -> bytes:
        made = _depend(context, [field])
        if "/" in given:
            return made + _in_network(field, given, inverted)
        made += field.load(_FIRST)
        if type.flags:
            return made + _mask(type.size, type.encode(value)) + _compare(_EQ if inverted else _NEQ, bytes(type.size))
        if "-" in given and type is types.PORT:
            first, _, last = given.partition("-")
            if inverted:
                ends = nested(3, attribute(_VALUE, type.encode(first))), nested(4, attribute(_VALUE, type.encode(last)))
                return made + _expression("range", big(1, _FIRST), big(2, _NEQ), *ends)
            return made + _compare(_GTE, type.encode(first)) + _compare(_LTE, type.encode(last))
        if type is types.IFNAME and given.endswith("*"):
            return made + _compare(_NEQ if inverted else _EQ, given[:-1].encode())
        if not inverted:
            context.known.add(f"{field.text} {given}")
        return made + _compare(_NEQ if inverted else _EQ, type.encode(value))

    return Statement(shown, encode)


def _in_network(field: Field, network: str, inverted: bool) -> bytes:
    """Compare what a network has in common: its first bytes, or its first bits by a mask."""
    address, bits = types.network(field.type, network)
    operation = _NEQ if inverted else _EQ
    if field.begin and bits and not bits % 8:
        return field.begin(bits // 8) + _compare(operation, address[: bits // 8])
    size = field.type.size
    mask = ((1 << bits) - 1 << size * 8 - bits).to_bytes(size, "big")
    return field.load(_FIRST) + _mask(size, mask) + _compare(operation, address)


def listed(fields: Field | tuple[Field, ...], name: str) -> Statement:
    """Only packets whose field, or fields together, are an element of the set or map `name`."""
    return _looked_up(fields, name, False)


def unlisted(fields: Field | tuple[Field, ...], name: str) -> Statement:
    """Only packets of which they aren't."""
    return _looked_up(fields, name, True)


_INVERTED = 1


def _looked_up(fields: Field | tuple[Field, ...], name: str, inverted: bool) -> Statement:
    several = fields if isinstance(fields, tuple) else (fields,)
    flags = big(5, _INVERTED) if inverted else b""

    def encode(context: Context) -> bytes:
        return _load(context, several) + _expression("lookup", text(1, name), big(2, _FIRST), flags)

    return Statement(f"{_together(several)} {'!= ' if inverted else ''}@{name}", encode)


def _load(context: Context, fields: tuple[Field, ...]) -> bytes:
    """The expressions that put these fields into registers, one after the other from the first one on."""
    made, register = _depend(context, fields), _WORDS
    for field in fields:
        made += field.load(register)
        register += (field.type.size + _WORD - 1) // _WORD
    return made


def _together(fields: tuple[Field, ...]) -> str:
    return " . ".join(field.text for field in fields)


# --- What becomes of a packet ----------------------------------------------------------------------------------------


def verdict(code: int, chain: str = "") -> bytes:
    """The data that is a verdict."""
    number = big(_CODE, code & 0xFFFFFFFF)
    return nested(_VERDICT, number, text(_CHAIN, chain)) if chain else nested(_VERDICT, number)


def _verdict(shown: str, code: int, chain: str = "") -> Statement:
    made = _expression("immediate", big(1, 0), nested(2, verdict(code, chain)))
    return Statement(f"{shown} {chain}" if chain else shown, lambda context: made)


def accept() -> Statement:
    """It goes on to the next base chain."""
    return _verdict("accept", ACCEPT)


def drop() -> Statement:
    """It is gone."""
    return _verdict("drop", DROP)


def returns() -> Statement:
    """It goes on in the chain that led here; in a base chain the policy decides."""
    return _verdict("return", RETURN)


def jump(chain: str) -> Statement:
    """It goes through another chain, and comes back."""
    return _verdict("jump", JUMP, chain)


def goto(chain: str) -> Statement:
    """It goes through another chain, and doesn't come back."""
    return _verdict("goto", GOTO, chain)


def judge(fields: Field | tuple[Field, ...], name: str) -> Statement:
    """The map `name` of verdicts decides by these fields; where it has none the next rule does."""
    several = fields if isinstance(fields, tuple) else (fields,)

    def encode(context: Context) -> bytes:
        return _load(context, several) + _expression("lookup", text(1, name), big(2, _FIRST), big(3, 0))

    return Statement(f"{_together(several)} vmap @{name}", encode)


def counter() -> Statement:
    """It is counted."""
    made = _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))
    return Statement("counter packets 0 bytes 0", lambda context: made)


_UNREACHABLE, _RESET, _ANY_FAMILY = 0, 1, 2
_REASONS = {"no-route": 0, "port-unreachable": 1, "host-unreachable": 2, "admin-prohibited": 3}


def reject(reason: str = "port-unreachable") -> Statement:
    """It is gone, and its sender is told; reason: also "tcp reset", for TCP alone."""
    if reason == "tcp reset":
        made = _expression("reject", big(1, _RESET), attribute(2, b"\0"))
        return Statement("reject with tcp reset", lambda context: made)
    made = _expression("reject", big(1, _ANY_FAMILY), attribute(2, bytes([_REASONS[reason]])))
    shown = "" if reason == "port-unreachable" else f" with icmpx {reason}"
    return Statement(f"reject{shown}", lambda context: made)


# --- Addresses that are changed --------------------------------------------------------------------------------------

_SNAT, _DNAT = 0, 1
_PORTS_GIVEN = 2


def dnat(address: bytes | str, port: int = 0) -> Statement:
    """It goes to this address instead, and to that port."""
    return _changed("dnat", _DNAT, address, port)


def snat(address: bytes | str, port: int = 0) -> Statement:
    """It comes from this address instead."""
    return _changed("snat", _SNAT, address, port)


def _changed(word: str, kind: int, address: bytes | str, port: int) -> Statement:
    wide = ":" in address if isinstance(address, str) else len(address) > 4
    type, family = (types.IPV6, IPV6) if wide else (types.IPV4, IPV4)
    shown = type.show(address)
    made = _immediate(_FIRST, type.encode(address)) + (_immediate(_SECOND, types.PORT.encode(port)) if port else b"")
    ports = big(5, _SECOND) + big(7, _PORTS_GIVEN) if port else b""
    made += _expression("nat", big(1, kind), big(2, family), big(3, _FIRST), ports)
    place = f"[{shown}]:{port}" if wide and port else f"{shown}:{port}" if port else shown
    return Statement(f"{word} {'ip6' if wide else 'ip'} to {place}", lambda context: made)


def dnat_map(family: int, fields: Field | tuple[Field, ...], name: str, port: bool = True) -> Statement:
    """It goes where the map `name` says, by these fields: to an address, and a port; not found, the next rule decides.

    family: `IPV4` or `IPV6`, of the addresses in the map. port: whether they have ports.
    """
    several = fields if isinstance(fields, tuple) else (fields,)
    second = _WORDS + (4 if family == IPV6 else 1)

    def encode(context: Context) -> bytes:
        found = _load(context, several) + _expression("lookup", text(1, name), big(2, _FIRST), big(3, _FIRST))
        ports = big(5, second) if port else b""
        return found + _expression("nat", big(1, _DNAT), big(2, family), big(3, _FIRST), ports)

    word = "ip6" if family == IPV6 else "ip"
    return Statement(f"dnat {word} to {_together(several)} map @{name}", encode)


def masquerade() -> Statement:
    """It comes from the address of the interface by which it leaves."""
    made = _expression("masq")
    return Statement("masquerade", lambda context: made)


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", big(1, register), nested(2, attribute(_VALUE, value)))
