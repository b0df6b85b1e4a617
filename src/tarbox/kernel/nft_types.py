"""The types of values in nftables: of a packet's fields, of a set's keys, of what a map leads to.

    nft describe inet_service        nft describe ct_state

A value may be given as bytes, as a number, or as text in nft's own spelling.

man 8 nft
"""

from __future__ import annotations

from .addresses import hardware, packed, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    Value: TypeAlias = bytes | int | str


class Type:
    """One type. number: nft's own, which it reads from the kernel again. size: in bytes, without what pads it.

    names: of numbers. little: whether numbers are in the order of this machine. flags: whether a value is a set of
    names, as in "new,related". read, write: from and to nft's text, where it isn't a number.
    """

    __slots__ = ("flags", "little", "name", "names", "number", "read", "size", "write")

    def __init__(
        self,
        name: str,
        number: int,
        size: int,
        names: Mapping[str, int] | None = None,
        little: bool = False,
        flags: bool = False,
        read: Callable[[str], bytes] | None = None,
        write: Callable[[bytes], str] | None = None,
    ) -> None:
        self.name = name
        self.number = number
        self.size = size
        self.names = names or {}
        self.little = little
        self.flags = flags
        self.read = read
        self.write = write

    def __repr__(self) -> str:
        return self.name

    def encode(self, value: Value) -> bytes:
        """The value's bytes; raises ValueError for what isn't one."""
        if isinstance(value, str):
            value = self._read(value)
        if isinstance(value, int):
            value = value.to_bytes(self.size, "little" if self.little else "big")
        if len(value) != self.size:
            raise ValueError(f"{value!r} is no {self.name}: it has {len(value)} bytes, not {self.size}")
        return value

    def show(self, value: Value) -> str:
        """The value as nft writes it."""
        if isinstance(value, str):
            return _quoted(value) if self.write is _quoted_name else value
        if isinstance(value, int):
            value = self.encode(value)
        if self.write:
            return self.write(value)
        number = int.from_bytes(value, "little" if self.little else "big")
        if self.flags:
            return ",".join(name for name, bit in self.names.items() if number & bit)
        return next((name for name, known in self.names.items() if known == number), str(number))

    def _read(self, text: str) -> bytes | int:
        if self.read:
            return self.read(text)
        if self.flags:
            number = 0
            for name in text.split(","):
                number |= self._number(name)
            return number
        return self._number(text)

    def _number(self, text: str) -> int:
        number = self.names.get(text)
        if number is None:
            if not text.isascii() or not text.isdecimal():
                raise ValueError(f"{text!r} is no {self.name}")
            number = int(text)
        return number


def _name(text: str) -> bytes:
    name = text.encode()
    if not 0 < len(name) < 16:
        raise ValueError(f"{text!r} is no name of an interface")
    return name.ljust(16, b"\0")


def _quoted(text: str) -> str:
    return f'"{text}"'


def _quoted_name(value: bytes) -> str:
    return _quoted(value.rstrip(b"\0").decode("utf-8", "replace"))


def _colons(value: bytes) -> str:
    return value.hex(":")


IPV4 = Type("ipv4_addr", 7, 4, read=packed, write=shown)
IPV6 = Type("ipv6_addr", 8, 16, read=packed, write=shown)
ETHER = Type("ether_addr", 9, 6, read=hardware, write=_colons)
IFNAME = Type("ifname", 41, 16, little=True, read=_name, write=_quoted_name)
LINK_TYPE = Type("iface_type", 21, 2, {"ether": 1, "loopback": 772, "none": 65534}, True)
PORT = Type("inet_service", 13, 2)
PROTOCOL = Type(
    "inet_proto", 12, 1,
    {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "ipv6-icmp": 58, "dccp": 33, "udplite": 136, "esp": 50, "ah": 51},
)  # fmt: skip
NFPROTO = Type("nf_proto", 2, 1, {"ipv4": 2, "ipv6": 10})
ETHER_TYPE = Type("ether_type", 10, 2, {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "8021q": 0x8100, "8021ad": 0x88A8})
ARP_OPERATION = Type("arp_op", 11, 2, {"request": 1, "reply": 2})
ICMPV6 = Type(
    "icmpv6_type", 29, 1,
    {"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
     "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131,
     "mld-listener-done": 132, "nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135,
     "nd-neighbor-advert": 136, "nd-redirect": 137, "mld2-listener-report": 143},
)  # fmt: skip
CT_STATE = Type(
    "ct_state", 26, 4, {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}, True, True
)
CT_STATUS = Type(
    "ct_status", 28, 4,
    {"expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "dying": 512}, True, True,
)  # fmt: skip
ADDRESS_TYPE = Type(
    "fib_addrtype", 38, 4,
    {"unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6,
     "unreachable": 7, "prohibit": 8}, True,
)  # fmt: skip
PRESENCE = Type("boolean", 39, 4, {"missing": 0, "exists": 1}, True)
VERDICT = Type("verdict", 0xFFFFFF00, 16)

_BITS = 6  # of a type's number within that of several put together


def number(types: Sequence[Type]) -> int:
    """The number of these types in a row."""
    made = 0
    for one in types:
        made = made << _BITS | one.number
    return made


def width(types: Sequence[Type]) -> int:
    """How many bytes they take: each in a row of several begins on a boundary of 4."""
    return types[0].size if len(types) == 1 else sum(one.size + 3 & ~3 for one in types)


def network(type: Type, text: str) -> tuple[bytes, int]:
    """The address and the number of bits of a network like 10.0.0.0/8; raises ValueError for what isn't one."""
    address, _, bits = text.partition("/")
    found = type.encode(address)
    if not bits.isascii() or not bits.isdecimal() or int(bits) > type.size * 8:
        raise ValueError(f"{text!r} is no network: it has no number of bits, at most {type.size * 8}, at its end")
    if int.from_bytes(found, "big") & (1 << type.size * 8 - int(bits)) - 1:
        raise ValueError(f"{text!r} is no network: its address has bits behind the first {bits}")
    return found, int(bits)


def encode(types: Sequence[Type], values: Sequence[Value]) -> bytes:
    """The bytes of a value, or of several in a row; raises ValueError."""
    if len(types) != len(values):
        raise ValueError(f"{len(values)} values for {name(types)}")
    if len(types) == 1:
        return types[0].encode(values[0])
    return b"".join(one.encode(value).ljust(one.size + 3 & ~3, b"\0") for one, value in zip(types, values, strict=True))


def decode(types: Sequence[Type], data: bytes) -> tuple[bytes, ...]:
    """The single values in bytes that the kernel has."""
    if len(types) == 1:
        return (data[: types[0].size],)
    values, at = [], 0
    for one in types:
        values.append(data[at : at + one.size])
        at += one.size + 3 & ~3
    return tuple(values)


def show(types: Sequence[Type], values: Sequence[Value]) -> str:
    """A value, or several in a row, as nft writes them."""
    return " . ".join(one.show(value) for one, value in zip(types, values, strict=True))


def name(types: Sequence[Type]) -> str:
    """The name of these types in a row."""
    return " . ".join(one.name for one in types)
