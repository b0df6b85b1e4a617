"""Tables of nftables with their chains, sets and rules: written once, and both requests and text.

    nft add table inet box
    nft add chain inet box post '{ type nat hook postrouting priority srcnat; }'
    nft list table inet box

`create` has the requests that make a table, `Table.text` the same as `nft list` shows it and `nft -f` takes it.

man 8 nft
"""

from __future__ import annotations

from . import nft_types as types
from .netlink import CREATE, EXCL, Message, attribute, nested, text
from .nftables import FAMILIES, NEWCHAIN, NEWSET, big, message, new_table, remark, rule_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .nft_rules import Rule
    from .nftables import Set

_SET_COMMENT, _CHAIN_COMMENT = 7, 0  # kinds of user data
_INTERVAL, _MAP, _CONCATENATED = 4, 8, 0x80  # flags of a set


class Chain:
    """A chain of rules. hook: "" for one that others jump to; with one it is a base chain, which packets come to.

    type: "filter" or "nat". priority: the chains of one hook are gone through from the lowest on. device: where the
    hook belongs to an interface.
    """

    __slots__ = ("comment", "device", "hook", "name", "policy", "priority", "rules", "type")

    def __init__(
        self,
        name: str,
        *rules: Rule,
        hook: str = "",
        type: str = "filter",
        priority: int = 0,
        policy: str = "accept",
        device: str = "",
        comment: str = "",
    ) -> None:
        self.name = name
        self.rules = rules
        self.hook = hook
        self.type = type
        self.priority = priority
        self.policy = policy
        self.device = device
        self.comment = comment

    def lines(self, family: str) -> list[str]:
        """What is between the braces in nft's text, but for the rules."""
        made = [f'comment "{self.comment}"'] if self.comment else []
        if self.hook:
            device = f' device "{self.device}"' if self.device else ""
            when = _priority(family, self.priority, self.hook)
            made.append(f"type {self.type} hook {self.hook}{device} priority {when}; policy {self.policy};")
        return made


class Table:
    """A table with all that is in it. family: "inet" for IPv4 and IPv6, "bridge" for frames on bridges, …"""

    __slots__ = ("chains", "comment", "family", "name", "sets")

    def __init__(self, family: str, name: str, sets: Sequence[Set], chains: Sequence[Chain], comment: str = "") -> None:
        self.family = family
        self.name = name
        self.sets = sets
        self.chains = chains
        self.comment = comment

    @property
    def text(self) -> str:
        """As `nft list table` shows it, and `nft -f` takes it."""
        lines = [f"table {self.family} {self.name} {{"]
        if self.comment:
            lines.append(f'\tcomment "{self.comment}"')
        blocks = [(f"{'map' if one.data else 'set'} {one.name}", one.lines()) for one in self.sets]
        blocks += [
            (f"chain {chain.name}", [*chain.lines(self.family), *(rule.text for rule in chain.rules)])
            for chain in self.chains
        ]
        for number, (head, inner) in enumerate(blocks):
            lines += [""] if number else []
            lines += [f"\t{head} {{", *(f"\t\t{line}" for line in inner), "\t}"]
        return "\n".join([*lines, "}", ""])


def create(table: Table) -> list[Message]:
    """The requests that make a table with all that is in it. The first one fails with EEXIST where it is there."""
    family = FAMILIES[table.family]
    place = f"{table.family} {table.name}"
    made = [new_table(table.family, table.name, table.comment)]
    made += [_set(family, table.name, place, number, one) for number, one in enumerate(table.sets, 1)]
    made += [_chain(family, table.name, place, chain) for chain in table.chains]
    for chain in table.chains:
        made += [rule_message(family, table.name, place, chain.name, rule) for rule in chain.rules]
    return made


def _set(family: int, table: str, place: str, number: int, one: Set) -> Message:
    flags = (_INTERVAL if one.intervals else 0) | (_MAP if one.data else 0)
    attributes = text(1, table) + text(2, one.name) + big(4, types.number(one.types)) + big(5, types.width(one.types))
    if len(one.types) > 1:
        flags |= _CONCATENATED
        fields = [nested(1, big(1, part.size)) for part in one.types]
        attributes += nested(9, nested(2, *fields))
    if one.data:
        attributes += big(6, types.number(one.data)) + big(7, types.width(one.data))
    attributes += big(3, flags) + big(10, number)
    attributes += attribute(13, _notes(one))
    said = f"add {'map' if one.data else 'set'} {place} {one.name} {{ {'; '.join(one.lines())}; }}"
    return message(NEWSET, CREATE | EXCL, family, attributes, said)


def _notes(one: Set) -> bytes:
    """What nft keeps with a set for itself: in which order the bytes of keys and data are, and the comment."""
    made = b""
    for kind, parts in ((0, one.types), (1, one.data)):
        if len(parts) == 1:
            made += bytes([kind, 4, 1 if parts[0].little else 2, 0, 0, 0])
    return made + (remark(_SET_COMMENT, one.comment) if one.comment else b"")


_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_INGRESS = {"ingress": 0, "egress": 1}
_POLICIES = {"accept": 1, "drop": 0}


def _chain(family: int, table: str, place: str, chain: Chain) -> Message:
    attributes = text(1, table) + text(3, chain.name)
    if chain.hook:
        number = _INGRESS[chain.hook] if chain.hook in _INGRESS else _HOOKS.index(chain.hook)
        number = 5 if family == FAMILIES["inet"] and chain.hook == "ingress" else number
        hook = big(1, number) + big(2, chain.priority) + (text(3, chain.device) if chain.device else b"")
        attributes += nested(4, hook) + text(7, chain.type) + big(5, _POLICIES[chain.policy])
    attributes += attribute(12, remark(_CHAIN_COMMENT, chain.comment)) if chain.comment else b""
    lines = " ".join(chain.lines(place.partition(" ")[0]))
    said = f"add chain {place} {chain.name}" + (f" {{ {lines} }}" if lines else "")
    return message(NEWCHAIN, CREATE | EXCL, family, attributes, said)


_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_BRIDGE_PRIORITIES = {"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}


_FITTING = (("dstnat", "prerouting"), ("srcnat", "postrouting"), ("out", "output"))


def _priority(family: str, priority: int, hook: str) -> str:
    """A priority by its name, as nft has it, or by its distance from a name of at most 10."""
    for name, value in (_BRIDGE_PRIORITIES if family == "bridge" else _PRIORITIES).items():
        if (name, hook) not in _FITTING and name in ("dstnat", "srcnat", "out"):
            continue
        if family in ("arp", "netdev") and name != "filter":
            continue
        if abs(distance := priority - value) <= 10:
            return f"{name} {'+' if distance > 0 else '-'} {abs(distance)}" if distance else name
    return str(priority)
