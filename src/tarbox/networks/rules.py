"""The rules that all networks of a data root share: written once, for the kernel and for people.

    nft list table inet tarbox; nft list table bridge tarbox

They never let anything through that others drop: a packet that is accepted here goes on to everybody else's chains.
They drop, of what goes into our bridges, what nobody inside has asked for and nobody has published; and they change
addresses, of published ports on the way in and of containers on the way out. What differs from container to container
is an element of a set or a map (`firewall.py`), so the rules stay as they are. Loaded when the tables have to be made.

man 8 nft; https://wiki.nftables.org
"""

from __future__ import annotations

from ..kernel.nft_rules import (
    ARP_SADDR_ETHER,
    ARP_SADDR_IP,
    CT_STATE,
    CT_STATUS,
    ETHER_SADDR,
    ETHER_TYPE,
    FIB_DADDR_TYPE,
    ICMPV6_TADDR,
    ICMPV6_TYPE,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    IPV4,
    IPV6,
    L4PROTO,
    NFPROTO,
    OIFNAME,
    TH_DPORT,
    Rule,
    accept,
    dnat_map,
    drop,
    equal,
    goto,
    listed,
    masquerade,
    unequal,
    unlisted,
)
from ..kernel.nft_tables import Chain, Table
from .firewall import SETS, end_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ASKED = equal(CT_STATE, "established,related")
_PAIR = (IIFNAME, OIFNAME)


def tables(name: str) -> tuple[Table, Table]:
    """The two tables by that name: of packets, and of frames between the ports of a bridge."""
    comment = "containers of tarbox; see 'tarbox network ls'"
    return (
        Table("inet", name, SETS["inet"], _packets(), comment),
        Table("bridge", name, SETS["bridge"], _frames(end_of(name)), comment),
    )


def _published(here: bool) -> list[Rule]:
    """What is for a published port goes to the container that has it; a certain address counts before all.

    here: of what this machine sends itself. What comes in for 127.0.0.0/8 is an attack: for the kernel to drop.
    """
    made = []
    first, others = equal(FIB_DADDR_TYPE, "local"), unequal(IP_DADDR, "127.0.0.0/8")
    for family, address, word in ((IPV4, IP_DADDR, "ports4"), (IPV6, IP6_DADDR, "ports6")):
        more = [unequal(IP6_DADDR, "::1")] if family == IPV6 else [] if here else [others]
        made.append(Rule(first, *more, dnat_map(family, (address, L4PROTO, TH_DPORT), f"{word}_at")))
        made.append(Rule(first, *more, dnat_map(family, (L4PROTO, TH_DPORT), word)))
    return made


def _packets() -> Sequence[Chain]:
    ours, beyond = listed(IIFNAME, "networks"), unlisted(OIFNAME, "networks")
    return (
        # A bridge may carry packets for 127.0.0.0/8 (route_localnet), so that what the host published there can be
        # answered. None may come in as such.
        Chain(
            "early",
            Rule(ours, equal(IP_DADDR, "127.0.0.0/8"), drop()),
            Rule(ours, equal(IP_SADDR, "127.0.0.0/8"), drop()),
            hook="prerouting",
            priority=-300,
        ),
        Chain("published", *_published(here=False), hook="prerouting", type="nat", priority=-100),
        Chain("published_here", *_published(here=True), hook="output", type="nat", priority=-100),
        Chain(
            "leaving",
            # Who reaches a neighbour, or itself, by a published port gets the answer by the way it came: from the
            # host. Told by its address: where it came in isn't known here when bridges hand packets to these rules.
            Rule(listed((OIFNAME, IP_SADDR), "members4"), equal(CT_STATUS, "dnat"), masquerade()),
            Rule(listed((OIFNAME, IP6_SADDR), "members6"), equal(CT_STATUS, "dnat"), masquerade()),
            Rule(listed(OIFNAME, "networks"), equal(IP_SADDR, "127.0.0.0/8"), masquerade()),
            Rule(ours, beyond, masquerade()),
            hook="postrouting",
            type="nat",
            priority=100,
        ),
        Chain(
            "forward",
            Rule(_ASKED, accept()),
            # What belongs to no connection isn't translated, and would leave with a container's own address.
            Rule(ours, beyond, equal(CT_STATE, "invalid"), drop()),
            Rule(unlisted(IIFNAME, "networks"), beyond, goto("others")),
            Rule(listed(_PAIR, "pairs"), accept()),
            Rule(listed(IIFNAME, "internal"), drop()),
            Rule(listed(OIFNAME, "internal"), drop()),
            Rule(equal(CT_STATUS, "dnat"), accept()),
            Rule(listed(OIFNAME, "networks"), drop()),
            hook="forward",
        ),
        # If we made the machine a router, it is none for whoever had an interface before (`router.py`).
        Chain(
            "others",
            Rule(equal(CT_STATUS, "dnat"), accept()),
            *(
                Rule(
                    equal(NFPROTO, f"ipv{version}"),
                    listed(IIFNAME, f"closed{version}"),
                    listed(OIFNAME, f"closed{version}"),
                    drop(),
                    comment=f"tarbox switched {switch} on",
                )
                for version, switch in ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding"))
            ),
        ),
        Chain(
            "host",
            Rule(unlisted(IIFNAME, "internal"), accept()),
            Rule(_ASKED, accept()),
            Rule(equal(L4PROTO, "icmp"), accept()),
            Rule(equal(L4PROTO, "ipv6-icmp"), accept()),
            Rule(drop()),
            hook="input",
        ),
    )


def _frames(ends: str) -> Sequence[Chain]:
    """Nobody sends as somebody else: neither IP nor what says whose an address is, nor as a router.

    ends: what the names of our ends of the cables begin with.
    """
    own4, own6 = (IIFNAME, ETHER_SADDR, IP_SADDR), (IIFNAME, ETHER_SADDR, IP6_SADDR)
    claimed = (IIFNAME, ETHER_SADDR, ICMPV6_TADDR)
    return (
        Chain(
            "early",
            Rule(unequal(IIFNAME, f"{ends}*"), accept()),
            Rule(listed(own4, "ends4"), accept()),
            Rule(equal(ETHER_TYPE, "arp"), unlisted((IIFNAME, ARP_SADDR_ETHER, ARP_SADDR_IP), "ends4"), drop()),
            Rule(listed((IIFNAME, ETHER_SADDR, ARP_SADDR_IP), "ends4"), accept()),
            Rule(equal(ICMPV6_TYPE, "nd-router-advert"), drop()),
            Rule(equal(ICMPV6_TYPE, "nd-redirect"), drop()),
            Rule(equal(ICMPV6_TYPE, "nd-neighbor-advert"), unlisted(claimed, "ends6"), drop()),
            Rule(listed(own6, "ends6"), accept()),
            Rule(drop()),
            hook="prerouting",
            priority=-300,
        ),
    )
