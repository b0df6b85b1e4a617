"""What there is in nftables: tables, base chains, elements of sets and maps, as the kernel tells them.

    nft list tables        nft list chains        nft list map inet box ports

man 8 nft
"""

from __future__ import annotations

from .netlink import Message, Netlink, attributes, parse, string, text
from .nftables import FAMILIES, SUBSYSTEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = 1, 4, 7, 10, 13
_NAMES = {number: name for name, number in FAMILIES.items()}
_COMMENT = 0  # of user data
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_DEVICE_HOOKS = ("ingress", "egress")


class TableFound:
    """A table. comment: that of whoever made it."""

    __slots__ = ("comment", "family", "name")

    def __init__(self, family: str, name: str, comment: str) -> None:
        self.family = family
        self.name = name
        self.comment = comment


class BaseChain:
    """A chain that packets come to. policy: what becomes of those that no rule decides on, "accept" or "drop"."""

    __slots__ = ("family", "hook", "name", "policy", "priority", "table", "type")

    def __init__(self, family: str, table: str, name: str, type: str, hook: str, priority: int, policy: str) -> None:
        self.family = family
        self.table = table
        self.name = name
        self.type = type
        self.hook = hook
        self.priority = priority
        self.policy = policy


class Element:
    """An element of a set or map; `nft_types.decode` takes key and data apart.

    last: of a set of intervals with one field, this only says where one has ended. end: with several fields, the
    interval's last key. A verdict is no data here: it is b"".
    """

    __slots__ = ("comment", "data", "end", "key", "last")

    def __init__(self, found: dict[int, bytes]) -> None:
        self.key = _value(found, 1)
        self.end = _value(found, 10)
        self.data = _value(found, 2)
        self.last = bool(int.from_bytes(found.get(3, b""), "big") & 1)
        self.comment = _comment(found.get(6, b""))


def tables(socket: Netlink) -> list[TableFound]:
    """All tables of the network namespace of the socket."""
    made = []
    for family, found in _dump(socket, _GETTABLE, 0, b"", "list tables"):
        made.append(TableFound(family, string(found[1]), _comment(found.get(6, b""))))
    return made


def base_chains(socket: Netlink) -> list[BaseChain]:
    """All base chains of all tables."""
    made = []
    for family, found in _dump(socket, _GETCHAIN, 0, b"", "list chains"):
        if 4 in found:
            hook = parse(found[4])
            number = _big(hook[1])
            name = _DEVICE_HOOKS[number] if family == "netdev" else _HOOKS[number]
            priority = int.from_bytes(hook[2], "big", signed=True)
            policy = "accept" if _big(found.get(5, b"\1")) else "drop"
            made.append(BaseChain(family, string(found[1]), string(found[3]), string(found[7]), name, priority, policy))
    return made


def sets(socket: Netlink, family: str, table: str) -> list[str]:
    """The names of a table's sets and maps."""
    asked = _dump(socket, _GETSET, FAMILIES[family], text(1, table), f"list sets {family} {table}")
    return [string(found[2]) for _, found in asked if string(found[1]) == table]


def rules(socket: Netlink, family: str, table: str) -> list[bytes]:
    """The expressions of a table's rules, as bytes in which names can be looked for."""
    asked = _dump(socket, _GETRULE, FAMILIES[family], text(1, table), f"list rules {family} {table}")
    return [found.get(4, b"") for _, found in asked if string(found[1]) == table]


def elements(socket: Netlink, family: str, table: str, name: str) -> list[Element]:
    """The elements of a set or map; raises NetlinkError with ENOENT where there is no such one."""
    made = []
    body = text(1, table) + text(2, name)
    for _, found in _dump(socket, _GETSETELEM, FAMILIES[family], body, f"list set {family} {table} {name}"):
        made += [Element(parse(value)) for _, value in attributes(found.get(3, b""))]
    return made


def _dump(socket: Netlink, kind: int, family: int, body: bytes, said: str) -> Iterator[tuple[str, dict[int, bytes]]]:
    request = Message(SUBSYSTEM << 8 | kind, 0, bytes([family, 0, 0, 0]) + body, said)
    for answer in socket.dump(request):
        yield _NAMES.get(answer[0], str(answer[0])), parse(answer, 4)


def _value(found: dict[int, bytes], type: int) -> bytes:
    return parse(found.get(type, b"")).get(1, b"")


def _big(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _comment(data: bytes) -> str:
    """The comment in user data, which are a type, a length, a value each."""
    at = 0
    while at + 2 <= len(data):
        if data[at] == _COMMENT:
            return string(data[at + 2 : at + 2 + data[at + 1]])
        at += 2 + data[at + 1]
    return ""
