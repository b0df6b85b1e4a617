"""Tables with every statement, field and type that there is, and their text as `nft list` writes it."""

from __future__ import annotations

from tarbox.kernel import nft_rules
from tarbox.kernel import nft_types as types
from tarbox.kernel.nft_rules import (
    ARP_DADDR_ETHER,
    ARP_DADDR_IP,
    ARP_OPERATION,
    ARP_SADDR_ETHER,
    ARP_SADDR_IP,
    CT_STATE,
    CT_STATUS,
    ETHER_DADDR,
    ETHER_SADDR,
    ETHER_TYPE,
    FIB_DADDR_TYPE,
    FIB_SADDR_IIF_OIF,
    FIB_SADDR_TYPE,
    ICMPV6_TYPE,
    IIFNAME,
    IIFTYPE,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    IPV4,
    IPV6,
    L4PROTO,
    NFPROTO,
    OIFNAME,
    PROTOCOL,
    TCP_DPORT,
    TCP_SPORT,
    TH_DPORT,
    TH_SPORT,
    UDP_DPORT,
    UDP_SPORT,
    Rule,
    accept,
    counter,
    dnat,
    dnat_map,
    drop,
    equal,
    goto,
    judge,
    jump,
    listed,
    masquerade,
    reject,
    returns,
    snat,
    unequal,
    unlisted,
)
from tarbox.kernel.nft_tables import Chain, Table
from tarbox.kernel.nftables import Set

PORTS = Set("ports", (types.PROTOCOL, types.PORT), (types.IPV4, types.PORT))
PORTS6 = Set("ports6", (types.PROTOCOL, types.PORT), (types.IPV6, types.PORT))
AT = Set("at", (types.IPV4, types.PROTOCOL, types.PORT), (types.IPV4, types.PORT))
BRIDGES = Set("bridges", (types.IFNAME,), comment="those of ours")
NETWORKS = Set("networks", (types.IPV4,), intervals=True)
NETWORKS6 = Set("networks6", (types.IPV6,), intervals=True)
OPEN = Set("open", (types.IPV4, types.PORT), intervals=True)
JUDGED = Set("judged", (types.IFNAME,), (types.VERDICT,))
HOSTS = Set("hosts", (types.ETHER,), (types.IPV4,))

INET = Table(
    "inet", "example", [PORTS, PORTS6, AT, BRIDGES, NETWORKS, NETWORKS6, OPEN, JUDGED, HOSTS],
    [
        Chain(
            "pre",
            Rule(equal(FIB_DADDR_TYPE, "local"), dnat_map(IPV4, (L4PROTO, TH_DPORT), "ports"), comment="published"),
            Rule(equal(FIB_DADDR_TYPE, "local"), dnat_map(IPV6, (L4PROTO, TH_DPORT), "ports6")),
            Rule(dnat_map(IPV4, (IP_DADDR, L4PROTO, TH_DPORT), "at")),
            Rule(dnat_map(IPV4, ETHER_SADDR, "hosts", port=False)),
            Rule(equal(TCP_DPORT, 80), dnat("10.0.0.2", 8080)),
            Rule(equal(UDP_DPORT, "53"), dnat(bytes([10, 0, 0, 2]))),
            Rule(equal(TCP_DPORT, 80), dnat("fd00::2", 8080)),
            hook="prerouting", type="nat", priority=-100, comment="what comes in",
        ),
        Chain(
            "out",
            Rule(equal(FIB_DADDR_TYPE, "local"), unequal(IP_DADDR, "127.0.0.0/8"),
                 dnat_map(IPV4, (L4PROTO, TH_DPORT), "ports")),
            hook="output", type="nat", priority=-100,
        ),
        Chain(
            "post",
            Rule(equal(CT_STATUS, "dnat"), masquerade()),
            Rule(equal(IP_SADDR, "10.0.0.0/24"), unequal(IP_DADDR, "10.0.0.0/24"), masquerade()),
            Rule(equal(IP_SADDR, "10.0.0.0/23"), unequal(OIFNAME, "box0"), snat("192.0.2.1")),
            Rule(equal(IP6_SADDR, "fd00::/64"), equal(L4PROTO, "tcp"), snat("fd01::1", 1024)),
            Rule(equal(FIB_SADDR_TYPE, "local"), equal(OIFNAME, "box0"), masquerade()),
            hook="postrouting", type="nat", priority=105,
        ),
        Chain(
            "through",
            Rule(equal(CT_STATE, "established,related"), accept()),
            Rule(equal(CT_STATE, "invalid"), drop()),
            Rule(unequal(CT_STATUS, "dnat"), drop()),
            Rule(listed(IIFNAME, "bridges"), unlisted(OIFNAME, "bridges"), counter(), accept()),
            Rule(judge(IIFNAME, "judged")),
            Rule(equal(IIFNAME, "box-*"), jump("others")),
            Rule(equal(ICMPV6_TYPE, "nd-neighbor-solicit"), accept()),
            Rule(equal(L4PROTO, "ipv6-icmp"), accept()),
            Rule(equal(FIB_SADDR_IIF_OIF, "missing"), drop()),
            Rule(equal(L4PROTO, "tcp"), reject("tcp reset")),
            Rule(listed((IP_DADDR, TCP_DPORT), "open"), accept()),
            Rule(equal(TCP_DPORT, "1024-65535"), accept()),
            Rule(unequal(TCP_SPORT, "1024-65535"), accept()),
            Rule(equal(TH_SPORT, 53), accept()),
            Rule(unequal(UDP_SPORT, 53), accept()),
            Rule(listed(IP_SADDR, "networks"), returns()),
            Rule(unlisted(IP6_DADDR, "networks6"), goto("others")),
            Rule(equal(PROTOCOL, "ip"), accept()),
            Rule(equal(NFPROTO, "ipv6"), accept()),
            Rule(equal(IP6_SADDR, "fe80::/10"), accept()),
            Rule(equal(IIFTYPE, "loopback"), accept()),
            Rule(reject("admin-prohibited")),
            Rule(reject()),
            hook="forward", policy="drop",
        ),
        Chain("others"),
    ],
    comment="an example",
)  # fmt: skip
INET_TEXT = """\
table inet example {
	comment "an example"
	map ports {
		type inet_proto . inet_service : ipv4_addr . inet_service
	}

	map ports6 {
		type inet_proto . inet_service : ipv6_addr . inet_service
	}

	map at {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}

	set bridges {
		type ifname
		comment "those of ours"
	}

	set networks {
		type ipv4_addr
		flags interval
	}

	set networks6 {
		type ipv6_addr
		flags interval
	}

	set open {
		type ipv4_addr . inet_service
		flags interval
	}

	map judged {
		type ifname : verdict
	}

	map hosts {
		type ether_addr : ipv4_addr
	}

	chain pre {
		comment "what comes in"
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local dnat ip to meta l4proto . th dport map @ports comment "published"
		fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6
		dnat ip to ip daddr . meta l4proto . th dport map @at
		dnat ip to ether saddr map @hosts
		tcp dport 80 dnat ip to 10.0.0.2:8080
		udp dport 53 dnat ip to 10.0.0.2
		tcp dport 80 dnat ip6 to [fd00::2]:8080
	}

	chain out {
		type nat hook output priority -100; policy accept;
		fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to meta l4proto . th dport map @ports
	}

	chain post {
		type nat hook postrouting priority srcnat + 5; policy accept;
		ct status dnat masquerade
		ip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 masquerade
		ip saddr 10.0.0.0/23 oifname != "box0" snat ip to 192.0.2.1
		ip6 saddr fd00::/64 meta l4proto tcp snat ip6 to [fd01::1]:1024
		fib saddr type local oifname "box0" masquerade
	}

	chain through {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct state invalid drop
		ct status ! dnat drop
		iifname @bridges oifname != @bridges counter packets 0 bytes 0 accept
		iifname vmap @judged
		iifname "box-*" jump others
		icmpv6 type nd-neighbor-solicit accept
		meta l4proto ipv6-icmp accept
		fib saddr . iif oif missing drop
		meta l4proto tcp reject with tcp reset
		ip daddr . tcp dport @open accept
		tcp dport 1024-65535 accept
		tcp sport != 1024-65535 accept
		th sport 53 accept
		udp sport != 53 accept
		ip saddr @networks return
		ip6 daddr != @networks6 goto others
		meta protocol ip accept
		meta nfproto ipv6 accept
		ip6 saddr fe80::/10 accept
		meta iiftype loopback accept
		reject with icmpx admin-prohibited
		reject
	}

	chain others {
	}
}
"""

PLUGGED = Set("plugged", (types.IFNAME, types.ETHER))
OWNED = Set("owned", (types.IFNAME, types.ETHER, types.IPV4))
OWNED6 = Set("owned6", (types.IFNAME, types.ETHER, types.IPV6))

BRIDGE = Table(
    "bridge", "example", [PLUGGED, OWNED, OWNED6],
    [
        Chain(
            "ports",
            Rule(unlisted((IIFNAME, ETHER_SADDR), "plugged"), drop()),
            Rule(listed((IIFNAME, ETHER_SADDR, IP_SADDR), "owned"), accept()),
            Rule(listed((IIFNAME, ETHER_SADDR, IP6_SADDR), "owned6"), accept()),
            Rule(unlisted((IIFNAME, ARP_SADDR_ETHER, ARP_SADDR_IP), "owned"), drop()),
            Rule(equal(ARP_SADDR_IP, "192.0.2.1"), drop()),
            Rule(equal(ARP_DADDR_IP, "192.0.2.1"), unequal(ARP_DADDR_ETHER, bytes(6)), drop()),
            Rule(equal(ARP_OPERATION, "request"), accept()),
            Rule(equal(IP_DADDR, "192.0.2.1"), accept()),
            Rule(equal(IP6_DADDR, "fe80::1"), accept()),
            Rule(equal(ICMPV6_TYPE, "nd-neighbor-advert"), drop()),
            Rule(equal(ETHER_SADDR, "aa:bb:cc:dd:ee:ff"), unequal(ETHER_DADDR, b"\x02\0\0\0\0\x01"), accept()),
            Rule(equal(UDP_DPORT, 67), drop()),
            Rule(equal(ETHER_TYPE, "ip6"), drop()),
            Rule(unequal(ETHER_TYPE, "arp"), unequal(PROTOCOL, 0x0800), drop()),
            hook="prerouting", priority=-200,
        ),
        Chain("nat", hook="postrouting", priority=290),
    ],
)  # fmt: skip
BRIDGE_TEXT = """\
table bridge example {
	set plugged {
		type ifname . ether_addr
	}

	set owned {
		type ifname . ether_addr . ipv4_addr
	}

	set owned6 {
		type ifname . ether_addr . ipv6_addr
	}

	chain ports {
		type filter hook prerouting priority filter; policy accept;
		iifname . ether saddr != @plugged drop
		iifname . ether saddr . ip saddr @owned accept
		iifname . ether saddr . ip6 saddr @owned6 accept
		iifname . arp saddr ether . arp saddr ip != @owned drop
		arp saddr ip 192.0.2.1 drop
		arp daddr ip 192.0.2.1 arp daddr ether != 00:00:00:00:00:00 drop
		arp operation request accept
		ip daddr 192.0.2.1 accept
		ip6 daddr fe80::1 accept
		icmpv6 type nd-neighbor-advert drop
		ether saddr aa:bb:cc:dd:ee:ff ether daddr != 02:00:00:00:00:01 accept
		udp dport 67 drop
		ether type ip6 drop
		ether type != arp meta protocol != ip drop
	}

	chain nat {
		type filter hook postrouting priority srcnat - 10; policy accept;
	}
}
"""

TEXTS = {"inet": (INET, INET_TEXT), "bridge": (BRIDGE, BRIDGE_TEXT)}

# (set, key, data, comment, text)
ELEMENTS = [
    (PORTS, ("tcp", 8080), ("10.0.0.2", 80), "web", 'tcp . 8080 comment "web" : 10.0.0.2 . 80'),
    (PORTS, (17, "53"), (bytes([10, 0, 0, 2]), 53), "", "udp . 53 : 10.0.0.2 . 53"),
    (PORTS6, ("sctp", 9), ("fd00::2", 65535), "", "sctp . 9 : fd00::2 . 65535"),
    (AT, ("192.0.2.1", "tcp", 80), ("10.0.0.2", 80), "", "192.0.2.1 . tcp . 80 : 10.0.0.2 . 80"),
    (BRIDGES, ("box0",), (), "first", '"box0" comment "first"'),
    (BRIDGES, ("fifteen-letters",), (), "", '"fifteen-letters"'),
    (NETWORKS, ("10.0.0.0/8",), (), "private", '10.0.0.0/8 comment "private"'),
    (NETWORKS, ("192.0.2.1",), (), "", "192.0.2.1"),
    (NETWORKS, ("192.0.2.3-192.0.2.9",), (), "", "192.0.2.3-192.0.2.9"),
    (NETWORKS, ("255.0.0.0/8",), (), "", "255.0.0.0/8"),
    (NETWORKS6, ("fd00::/64",), (), "", "fd00::/64"),
    (OPEN, ("10.0.0.0/8", 80), (), "", "10.0.0.0/8 . 80"),
    (OPEN, ("192.0.2.1", "1024-2047"), (), "", "192.0.2.1 . 1024-2047"),
    (JUDGED, ("box1",), ("drop",), "", '"box1" : drop'),
    (JUDGED, ("box2",), ("jump others",), "", '"box2" : jump others'),
    (HOSTS, ("02:00:00:00:00:01",), ("10.0.0.3",), "", "02:00:00:00:00:01 : 10.0.0.3"),
]

FIELDS = {name: field for name, field in vars(nft_rules).items() if isinstance(field, nft_rules.Field)}


def all_rules():
    """The texts of all rules, in one."""
    return INET_TEXT + BRIDGE_TEXT
