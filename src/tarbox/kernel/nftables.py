"""nftables: the kernel's packet filter, as tables of chains, rules, and sets and maps that rules look things up in.

    nft add table inet box
    nft add map inet box ports '{ type inet_proto . inet_service : ipv4_addr . inet_service; }'
    nft add element inet box ports '{ tcp . 8080 : 10.0.0.2 . 80 }'
    nft list ruleset

What is asked for together is done together or not at all: requests go to the kernel in a batch (`commit`). Elements of
sets come and go in microseconds, whatever their number, so what changes often is an element and no rule. Tables and
their chains are in `nft_tables.py`, rules in `nft_rules.py`, and what there is in `nft_listing.py`.

man 8 nft; https://wiki.nftables.org; https://docs.kernel.org/networking/netlink_spec/nftables.html
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT

from ..errors import KernelError, UnsupportedError
from . import nft_types as types
from .netlink import (
    CREATE,
    EXCL,
    NETFILTER,
    REQUEST,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    encode,
    nested,
    pack,
    parse,
    string,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .nft_rules import Rule
    from .nft_types import Type, Value

FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
SUBSYSTEM = 10
NEWTABLE, NEWCHAIN, NEWRULE, NEWSET = 0, 3, 6, 9
_GETTABLE, _DELTABLE, _DELRULE, _NEWSETELEM, _DELSETELEM = 1, 2, 8, 12, 14
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_COMMENT = 0  # of user data; in that of a set it has another number
_LAST = 1  # flag of an element: the first value that isn't in the interval any more


class Set:
    """A named set; with `data` a map. types: of the key's parts. intervals: keys may be networks and ranges.

    data: the types of what a key leads to, `types.VERDICT` alone for verdicts.
    """

    __slots__ = ("comment", "data", "intervals", "name", "types")

    def __init__(
        self,
        name: str,
        types: tuple[Type, ...],
        data: tuple[Type, ...] = (),
        intervals: bool = False,
        comment: str = "",
    ) -> None:
        self.name = name
        self.types = types
        self.data = data
        self.intervals = intervals
        self.comment = comment

    def lines(self) -> list[str]:
        """What is between the braces in nft's text."""
        made = [f"type {types.name(self.types)}" + (f" : {types.name(self.data)}" if self.data else "")]
        made += ["flags interval"] if self.intervals else []
        return made + ([f'comment "{self.comment}"'] if self.comment else [])


# --- Requests --------------------------------------------------------------------------------------------------------


def new_table(family: str, name: str, comment: str = "", exclusive: bool = True) -> Message:
    """Make an empty table. exclusive: fail with EEXIST where there is one."""
    body = text(1, name) + (attribute(6, remark(_COMMENT, comment)) if comment else b"")
    flags = CREATE | EXCL if exclusive else CREATE
    return message(NEWTABLE, flags, FAMILIES[family], body, f"add table {family} {name}")


def delete_table(family: str, name: str) -> Message:
    """Remove a table with all that is in it; fails with ENOENT where there is none."""
    return message(_DELTABLE, 0, FAMILIES[family], text(1, name), f"delete table {family} {name}")


def has_table(socket: Netlink, family: str, name: str) -> bool:
    """Whether there is such a table. A question is cheap; the kernel takes ten milliseconds to refuse a batch."""
    try:
        socket.ask(message(_GETTABLE, 0, FAMILIES[family], text(1, name), f"list table {family} {name}"))
    except NetlinkError as error:
        if error.errno != ENOENT:
            raise
        return False
    return True


def flush_chain(family: str, table: str, chain: str) -> Message:
    """Remove all rules of a chain."""
    said = f"flush chain {family} {table} {chain}"
    return message(_DELRULE, 0, FAMILIES[family], text(1, table) + text(2, chain), said)


def flush_set(family: str, table: str, name: str) -> Message:
    """Remove all elements of a set."""
    said = f"flush set {family} {table} {name}"
    return message(_DELSETELEM, 0, FAMILIES[family], text(1, table) + text(2, name), said)


def add_rule(family: str, table: str, chain: str, rule: Rule) -> Message:
    """Add a rule at the end of a chain that is there."""
    return rule_message(FAMILIES[family], table, f"{family} {table}", chain, rule)


def add_element(
    family: str,
    table: str,
    set: Set,
    key: Sequence[Value],
    data: Sequence[Value] = (),
    comment: str = "",
    exclusive: bool = True,
) -> Message:
    """Add an element to a set, or to a map. key, data: their parts. exclusive: fail with EEXIST where it is there.

    Data of a map of verdicts is ("accept",), ("drop",), ("return",), ("jump NAME",) or ("goto NAME",). Other data for a
    key that is there is refused in any case. Raises ValueError for values that aren't of the types.
    """
    more = nested(2, _data(set, data)) if set.data else b""
    more += attribute(6, remark(_COMMENT, comment)) if comment else b""
    flags = CREATE | EXCL if exclusive else CREATE
    elements = _elements(set, key, more)
    return message(
        _NEWSETELEM, flags, FAMILIES[family], text(1, table) + text(2, set.name) + elements,
        lambda: f"add element {family} {table} {set.name} {{ {element_text(set, key, data, comment)} }}",
    )  # fmt: skip


def delete_element(family: str, table: str, set: Set, key: Sequence[Value]) -> Message:
    """Remove an element; fails with ENOENT where it isn't."""
    body = text(1, table) + text(2, set.name) + _elements(set, key, b"")
    return message(
        _DELSETELEM, 0, FAMILIES[family], body,
        lambda: f"delete element {family} {table} {set.name} {{ {element_text(set, key)} }}",
    )  # fmt: skip


def element_text(set: Set, key: Sequence[Value], data: Sequence[Value] = (), comment: str = "") -> str:
    """An element as nft writes it."""
    made = types.show(set.types, key) + (f' comment "{comment}"' if comment else "")
    return f"{made} : {types.show(set.data, data)}" if data else made


def message(kind: int, flags: int, family: int, body: bytes, said: str | Callable[[], str]) -> Message:
    """A request to nf_tables. body: its attributes."""
    return Message(SUBSYSTEM << 8 | kind, flags, bytes([family, 0, 0, 0]) + body, said)


def big(type: int, value: int) -> bytes:
    """An attribute that is a number of 32 bits, in the order of the network as everything in nf_tables."""
    return attribute(type, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def remark(kind: int, comment: str) -> bytes:
    """A comment as nft keeps it, in data that the kernel doesn't look into; raises ValueError where nft couldn't."""
    data = comment.encode() + b"\0"
    if len(data) > 128 or not comment.isprintable() or '"' in comment:
        raise ValueError(f"{comment!r} can't be a comment: at most 127 bytes of printable letters, no quotation marks")
    return bytes([kind, len(data)]) + data


_APPEND = 0x800


def rule_message(family: int, table: str, place: str, chain: str, rule: Rule) -> Message:
    """Add a rule at the end of a chain. place: how people read family and table."""
    body = text(1, table) + text(2, chain) + nested(4, rule.encode(family))
    body += attribute(7, remark(_COMMENT, rule.comment)) if rule.comment else b""
    return message(NEWRULE, CREATE | _APPEND, family, body, lambda: f"add rule {place} {chain} {rule.text}")


_CODES = {"accept": 1, "drop": 0, "return": -5, "jump": -3, "goto": -4}


def _data(set: Set, values: Sequence[Value]) -> bytes:
    if set.data == (types.VERDICT,):
        word, _, chain = str(values[0]).partition(" ")
        return nested(2, big(1, _CODES[word]) + (text(2, chain) if chain else b""))
    return attribute(1, types.encode(set.data, values))


def _elements(set: Set, key: Sequence[Value], more: bytes) -> bytes:
    """The list of one element. more: its other attributes."""
    if not set.intervals:
        return nested(3, nested(1, nested(1, attribute(1, types.encode(set.types, key))), more))
    first, last = [], []
    for type, value in zip(set.types, key, strict=True):
        low, high = _interval(type, value)
        first.append(low)
        last.append(high)
    start = nested(1, attribute(1, types.encode(set.types, first)))
    if len(set.types) > 1:
        return nested(3, nested(1, start, nested(10, attribute(1, types.encode(set.types, last))), more))
    after = int.from_bytes(last[0], "big") + 1
    if after >> 8 * set.types[0].size:  # it goes on to the end
        return nested(3, nested(1, start, more))
    end = nested(1, attribute(1, after.to_bytes(set.types[0].size, "big")))
    return nested(3, nested(1, start, more), nested(1, end, big(3, _LAST)))


def _interval(type: Type, value: Value) -> tuple[bytes, bytes]:
    """The first and the last value of a network, of a range, or of a single one."""
    if isinstance(value, str) and "/" in value:
        low, bits = types.network(type, value)
        rest = (1 << type.size * 8 - bits) - 1
        return low, (int.from_bytes(low, "big") | rest).to_bytes(type.size, "big")
    if isinstance(value, str) and "-" in value and type is not types.IFNAME:
        first, _, last = value.partition("-")
        return type.encode(first), type.encode(last)
    return type.encode(value), type.encode(value)


# --- A batch ---------------------------------------------------------------------------------------------------------


def batch(messages: Sequence[Message]) -> bytes:
    """These requests as the kernel takes them together; the same bytes can be sent again and again."""
    bracket = b"\0\0" + SUBSYSTEM.to_bytes(2, "big")
    begin, end = (Message(kind, 0, bracket, "nftables") for kind in (_BATCH_BEGIN, _BATCH_END))
    return encode([begin, *messages]) + pack(end, REQUEST, len(messages) + 2)


def commit(socket: Netlink, messages: Sequence[Message]) -> None:
    """Have all of these done, or none; raises NetlinkError for the first that the kernel refuses.

    Its `index` is that of the request, or -1 where all are well and yet can't be done together. Raises
    UnsupportedError where the kernel lacks what a table, a chain or a rule is made of.
    """
    if messages:
        commit_batch(socket, batch(messages), messages)


def commit_batch(socket: Netlink, datagram: bytes, messages: Sequence[Message] = ()) -> None:
    """The same for requests that are encoded already (`batch`); messages: the same, for the names in an error."""
    count = int.from_bytes(datagram[-12:-8], "little") - 1  # the number of the last one, which ends the batch

    def said(index: int) -> str:
        return messages[index - 1].said if 0 < index <= len(messages) else "nftables"

    try:
        socket.exchange(datagram, 1, count, said)
    except NetlinkError as error:
        refused = messages[error.index - 1] if 0 < error.index <= len(messages) else None
        error.index -= 1
        if lacking := _lacking(error, refused):
            raise UnsupportedError(f"this kernel can't do what is needed for '{error.call}'", lacking) from error
        raise


def open_socket() -> Netlink:
    """A socket for nftables; raises UnsupportedError where the kernel has none."""
    try:
        return Netlink(NETFILTER)
    except KernelError as error:
        if error.errno in (EPROTONOSUPPORT, EAFNOSUPPORT):
            raise UnsupportedError("this kernel has no nftables", _NONE) from None
        raise


_NONE = "it takes CONFIG_NF_TABLES in its configuration"
_OPTIONS = {
    "nat": "CONFIG_NFT_NAT", "masq": "CONFIG_NFT_MASQ", "redir": "CONFIG_NFT_REDIR", "ct": "CONFIG_NFT_CT",
    "fib": "CONFIG_NFT_FIB_INET, CONFIG_NFT_FIB_IPV4 and CONFIG_NFT_FIB_IPV6",
    "reject": "CONFIG_NFT_REJECT_INET, and for bridges CONFIG_NFT_BRIDGE_REJECT",
    "meta": "CONFIG_NF_TABLES, and for bridges' names CONFIG_NFT_BRIDGE_META",
}  # fmt: skip
_FAMILY_OPTIONS = {
    1: "CONFIG_NF_TABLES_INET", 2: "CONFIG_NF_TABLES_IPV4", 3: "CONFIG_NF_TABLES_ARP", 5: "CONFIG_NF_TABLES_NETDEV",
    7: "CONFIG_NF_TABLES_BRIDGE", 10: "CONFIG_NF_TABLES_IPV6",
}  # fmt: skip


def _lacking(error: NetlinkError, refused: Message | None) -> str:
    """Which option of the kernel's configuration is missing, where that is why; "" for other reasons."""
    if error.errno not in (ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, EAFNOSUPPORT):
        return ""
    if refused is None:
        return _NONE if error.errno != ENOENT else ""
    kind = refused.type & 0xFF
    if kind == NEWTABLE:
        return f"it takes {_FAMILY_OPTIONS[refused.body[0]]} in its configuration"
    type, disliked = _disliked(error, refused)
    name = ""
    if kind == NEWCHAIN and type == 7:
        name = string(disliked)
    elif kind == NEWRULE and type == 1:
        name = string(parse(disliked).get(1, b""))  # an expression's
    return f"it takes {_OPTIONS[name]} in its configuration" if name in _OPTIONS else ""


def _disliked(error: NetlinkError, refused: Message) -> tuple[int, bytes]:
    """The attribute to which the kernel points."""
    return next(attributes(refused.body, error.offset), (0, b"")) if error.offset >= 4 else (0, b"")
