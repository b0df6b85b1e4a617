"""nftables on the real kernel: our bytes are what Debian's nft shows as our text, and packets go where rules say."""

from __future__ import annotations

import errno
import json
import socket
import subprocess

import pytest

import netns
import nft_example
from tarbox.kernel import nft_listing, nft_tables, nftables
from tarbox.kernel import nft_types as types
from tarbox.kernel.netlink import NetlinkError
from tarbox.kernel.nft_rules import (
    CT_STATE,
    CT_STATUS,
    ETHER_SADDR,
    FIB_DADDR_TYPE,
    IIFNAME,
    IP6_SADDR,
    IP_SADDR,
    IPV4,
    IPV6,
    L4PROTO,
    NFPROTO,
    OIFNAME,
    PROTOCOL,
    TH_DPORT,
    Rule,
    accept,
    dnat_map,
    drop,
    equal,
    listed,
    masquerade,
    unequal,
    unlisted,
)
from tarbox.kernel.nft_tables import Chain, Table
from tarbox.kernel.nftables import Set, add_element, commit, delete_element, delete_table


@pytest.fixture(autouse=True)
def _network():
    with netns.fresh():
        yield


@pytest.fixture
def nft():
    with nftables.open_socket() as made:
        yield made


# --- Text and bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", nft_example.TEXTS)
def test_what_nft_lists_is_the_text(nft, family):
    """Every expression, set and chain of the example, made of our bytes."""
    table, text = nft_example.TEXTS[family]
    commit(nft, nft_tables.create(table))
    assert netns.output("nft", "list", "table", family, "example") == text


@pytest.mark.parametrize("family", nft_example.TEXTS)
def test_what_nft_makes_of_the_text_is_the_same(nft, family):
    """The text is nft's language, and leads to the very same expressions in the kernel."""
    table, text = nft_example.TEXTS[family]
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    theirs = netns.output("nft", "--debug=netlink", "list", "ruleset")
    commit(nft, [delete_table(family, "example")])
    commit(nft, nft_tables.create(table))
    ours = netns.output("nft", "--debug=netlink", "list", "ruleset")
    assert [_program(line) for line in ours.splitlines()] == [_program(line) for line in theirs.splitlines()]


def _program(line):
    """A line of nft's report, without what tells one loading from the next: numbers of rules."""
    words = line.split()
    return "" if len(words) > 2 and words[2].isdecimal() else line


def test_elements(nft):
    """Of every kind of set and map; what nft shows of them, and what our own reader finds."""
    commit(nft, nft_tables.create(nft_example.INET))
    made = [add_element("inet", "example", *element[:4]) for element in nft_example.ELEMENTS]
    commit(nft, made)
    shown = netns.output("nft", "list", "table", "inet", "example")
    for *_, text in nft_example.ELEMENTS:
        assert text in shown, text
    for name in {element[0].name for element in nft_example.ELEMENTS}:
        mine = [element for element in nft_example.ELEMENTS if element[0].name == name]
        found = [one for one in nft_listing.elements(nft, "inet", "example", name) if not one.last]
        assert sorted(one.comment for one in found) == sorted(element[3] for element in mine)
    (one,) = [one for one in nft_listing.elements(nft, "inet", "example", "ports") if one.comment]
    assert types.show(nft_example.PORTS.types, types.decode(nft_example.PORTS.types, one.key)) == "tcp . 8080"
    assert types.show(nft_example.PORTS.data, types.decode(nft_example.PORTS.data, one.data)) == "10.0.0.2 . 80"
    (one,) = [one for one in nft_listing.elements(nft, "inet", "example", "open") if one.key.startswith(b"\x0a")]
    assert one.end == b"\x0a\xff\xff\xff\0\x50\0\0"
    commit(nft, [delete_element("inet", "example", set, key) for set, key, *_ in nft_example.ELEMENTS])
    assert netns.output("nft", "list", "table", "inet", "example") == nft_example.INET_TEXT


def test_elements_as_commands_do_the_same(nft):
    commit(nft, nft_tables.create(nft_example.INET))
    said = [add_element("inet", "example", *element[:4]).said for element in nft_example.ELEMENTS]
    said += [delete_element("inet", "example", *nft_example.ELEMENTS[0][:2]).said]
    subprocess.run(["nft", "-f", "-"], input="\n".join(said) + "\n", text=True, check=True)
    theirs = netns.output("nft", "list", "ruleset")
    commit(nft, [nftables.flush_set("inet", "example", set.name) for set in nft_example.INET.sets])
    assert netns.output("nft", "list", "table", "inet", "example") == nft_example.INET_TEXT
    commit(nft, [add_element("inet", "example", *element[:4]) for element in nft_example.ELEMENTS[1:]])
    assert netns.output("nft", "list", "ruleset") == theirs


def test_rules_come_and_go(nft):
    chain = Chain("c", Rule(equal(IIFNAME, "a"), drop()))
    commit(nft, nft_tables.create(Table("inet", "t", [], [chain])))
    commit(nft, [nftables.add_rule("inet", "t", "c", Rule(equal(IIFNAME, "b"), drop()))])
    assert netns.output("nft", "list", "chain", "inet", "t", "c").count("drop") == 2
    commit(nft, [nftables.flush_chain("inet", "t", "c")])
    assert "drop" not in netns.output("nft", "list", "chain", "inet", "t", "c")


def test_what_there_is(nft):
    for table, _ in nft_example.TEXTS.values():
        commit(nft, nft_tables.create(table))
    assert {(one.family, one.name, one.comment) for one in nft_listing.tables(nft)} == {
        ("inet", "example", "an example"), ("bridge", "example", ""),
    }  # fmt: skip
    listed = json.loads(netns.output("nft", "-j", "list", "chains"))["nftables"]
    theirs = {tuple(entry["chain"].get(key) for key in ("family", "table", "name", "type", "hook", "prio", "policy"))
              for entry in listed if "hook" in entry.get("chain", {})}  # fmt: skip
    assert {
        (one.family, one.table, one.name, one.type, one.hook, one.priority, one.policy)
        for one in nft_listing.base_chains(nft)
    } == theirs
    assert len(theirs) == 6
    assert sorted(nft_listing.sets(nft, "inet", "example")) == sorted(set.name for set in nft_example.INET.sets)
    with pytest.raises(NetlinkError, match="list set inet example nothing: No such file or directory"):
        nft_listing.elements(nft, "inet", "example", "nothing")


# --- Errors, sizes ---------------------------------------------------------------------------------------------------


def test_errors_name_what_was_asked_for(nft):
    commit(nft, nft_tables.create(nft_example.INET))
    ports, web = nft_example.PORTS, nft_example.ELEMENTS[0][:4]
    commit(nft, [add_element("inet", "example", *web)])
    commit(nft, [add_element("inet", "example", *web, exclusive=False)])
    commit(nft, [nftables.new_table("inet", "example", exclusive=False)])
    free = add_element("inet", "example", ports, ("tcp", 1), ("10.0.0.2", 1))
    for number, index, text, requests in [
        (errno.EEXIST, 1, 'add element inet example ports { tcp . 8080 comment "web" : 10.0.0.2 . 80 }: File exists',
         [free, add_element("inet", "example", *web)]),
        (errno.ENOENT, 0, "delete element inet example ports { tcp . 1 }: No such file",
         [delete_element("inet", "example", ports, ("tcp", 1))]),
        (errno.ENOENT, 1, "add element inet example nothing { 1 }: No such file",
         [free, add_element("inet", "example", Set("nothing", (types.PORT,)), (1,))]),
        (errno.ENOENT, 0, "add element inet nowhere ports { tcp . 1 : 10.0.0.2 . 1 }: No such file",
         [add_element("inet", "nowhere", ports, ("tcp", 1), ("10.0.0.2", 1))]),
        (errno.EEXIST, 0, "add table inet example: File exists", nft_tables.create(nft_example.INET)),
        (errno.ENOENT, 0, "delete table inet nowhere: No such file", [delete_table("inet", "nowhere")]),
        (errno.ENOENT, 0, "add rule inet example nowhere accept: No such file",
         [nftables.add_rule("inet", "example", "nowhere", Rule(accept()))]),
    ]:  # fmt: skip
        with pytest.raises(NetlinkError) as caught:
            commit(nft, requests)
        assert text in str(caught.value)
        assert (caught.value.errno, caught.value.index) == (number, index)
    # All or nothing: what stood before the refused one isn't there either.
    assert len(nft_listing.elements(nft, "inet", "example", "ports")) == 1


def test_a_socket_goes_on_after_an_error(nft):
    with pytest.raises(NetlinkError):
        commit(nft, [delete_table("inet", "nowhere")] * 20)
    commit(nft, nft_tables.create(nft_example.INET))
    assert [one.name for one in nft_listing.tables(nft)] == ["example"]


@pytest.mark.parametrize("count", [1000, 10000])
def test_many_elements_at_once(nft, count):
    """More than a socket usually takes in a datagram; and as many errors, more than it keeps."""
    commit(nft, nft_tables.create(nft_example.INET))
    ports = nft_example.PORTS
    many = [add_element("inet", "example", ports, ("tcp", port), ("10.0.0.2", port)) for port in range(1, count + 1)]
    commit(nft, many)
    assert len(nft_listing.elements(nft, "inet", "example", "ports")) == count
    with pytest.raises(NetlinkError, match=r"ports \{ tcp \. 1 : 10\.0\.0\.2 \. 1 \}: File exists") as caught:
        commit(nft, many)
    assert caught.value.index == 0
    commit(nft, [delete_element("inet", "example", ports, ("tcp", port)) for port in range(1, count + 1)])
    assert not nft_listing.elements(nft, "inet", "example", "ports")


def test_a_batch_can_be_kept_and_sent_again(nft):
    kept = nftables.batch(nft_tables.create(nft_example.INET))
    nftables.commit_batch(nft, kept)
    with pytest.raises(NetlinkError, match="nftables: File exists"):
        nftables.commit_batch(nft, kept)
    commit(nft, [delete_table("inet", "example")])
    nftables.commit_batch(nft, kept)
    assert netns.output("nft", "list", "ruleset") == nft_example.INET_TEXT
    # In one batch with what was there before: at no moment there is neither.
    commit(nft, [delete_table("inet", "example"), *nft_tables.create(nft_example.INET)])
    assert netns.output("nft", "list", "ruleset") == nft_example.INET_TEXT


def test_tables_in_another_namespace():
    """A socket belongs to the namespace in which it was made."""
    from tarbox.kernel.netlink import NETFILTER, Netlink

    with netns.Neighbour() as there, Netlink.within(there.pidfd, NETFILTER) as inside:
        commit(inside, nft_tables.create(nft_example.BRIDGE))
        assert there.run("nft", "list", "ruleset") == nft_example.BRIDGE_TEXT
        assert netns.output("nft", "list", "ruleset") == ""


# --- Packets ---------------------------------------------------------------------------------------------------------

PORTS = Set("ports", (types.PROTOCOL, types.PORT), (types.IPV4, types.PORT))
PORTS6 = Set("ports6", (types.PROTOCOL, types.PORT), (types.IPV6, types.PORT))
_PUBLISHED = (
    Rule(equal(FIB_DADDR_TYPE, "local"), dnat_map(IPV4, (L4PROTO, TH_DPORT), "ports")),
    Rule(equal(FIB_DADDR_TYPE, "local"), dnat_map(IPV6, (L4PROTO, TH_DPORT), "ports6")),
)
ROUTER = Table(
    "inet", "router", [PORTS, PORTS6],
    [
        Chain("pre", *_PUBLISHED, hook="prerouting", type="nat", priority=-100),
        Chain("out", *_PUBLISHED, hook="output", type="nat", priority=-100),
        Chain(
            "post",
            Rule(equal(IP_SADDR, "127.0.0.0/8"), equal(OIFNAME, "box0"), masquerade()),
            Rule(equal(IP_SADDR, "10.9.0.0/24"), equal(OIFNAME, "box0"), equal(CT_STATUS, "dnat"), masquerade()),
            Rule(equal(IP_SADDR, "10.9.0.0/24"), unequal(OIFNAME, "box0"), masquerade()),
            hook="postrouting", type="nat", priority=100,
        ),
        Chain(
            "through",
            Rule(equal(CT_STATE, "established,related"), accept()),
            Rule(equal(CT_STATUS, "dnat"), accept()),
            Rule(equal(IIFNAME, "box0"), accept()),
            hook="forward", policy="drop",
        ),
    ],
)  # fmt: skip
HOST, BOX, BOX6 = "10.9.0.1", "10.9.0.2", "fd00:9::2"
OUTSIDE_HOST, OUTSIDE, OUTSIDE6 = "192.0.2.1", "192.0.2.2", "fd00:1::2"


@pytest.fixture
def router(nft):
    """This namespace between a container on a bridge and a machine outside, with the table above."""
    with netns.Neighbour() as box, netns.Neighbour() as outside:
        for line in f"""
            link add box0 type bridge
            link set box0 up
            address add {HOST}/24 dev box0
            address add fd00:9::1/64 dev box0 nodad
            link add v1 type veth peer name eth0 netns {box.pid}
            link set v1 master box0 up
            link set v1 type bridge_slave hairpin on
            link add world type veth peer name eth0 netns {outside.pid}
            address add {OUTSIDE_HOST}/24 dev world
            address add fd00:1::1/64 dev world nodad
            link set world up
        """.strip().splitlines():
            netns.output("ip", *line.split())
        for there, address, wide, gate in ((box, BOX, BOX6, HOST), (outside, OUTSIDE, OUTSIDE6, OUTSIDE_HOST)):
            there.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            there.run("ip", "address", "add", f"{wide}/64", "dev", "eth0", "nodad")
            there.run("ip", "link", "set", "eth0", "up")
            if there is box:  # the other one shows who it is that asks
                there.run("ip", "route", "add", "default", "via", gate)
                there.run("ip", "route", "add", "default", "via", "fd00:9::1")
            else:
                there.run("ip", "route", "add", "default", "via", "fd00:1::1")
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/box0/route_localnet"):
            with open(f"/proc/sys/net/{path}", "w") as setting:
                setting.write("1")
        commit(nft, nft_tables.create(ROUTER))
        yield box, outside


def reached(server, client, address):
    """The address of the client as the server sees it, when it connects."""
    client.connect(address)
    accepted, peer = server.accept()
    accepted.close()
    return peer[0]


def unreached(client, address):
    client.settimeout(0.3)
    with pytest.raises(OSError):
        client.connect(address)
    client.close()


def test_published_ports(nft, router):
    """Maps lead to the container, from outside, from the host itself, by 127.0.0.1, and from the container."""
    box, outside = router
    server = box.socket(at=(BOX, 80))
    unreached(outside.socket(), (OUTSIDE_HOST, 8080))
    commit(nft, [add_element("inet", "router", PORTS, ("tcp", 8080), (BOX, 80))])
    assert reached(server, outside.socket(), (OUTSIDE_HOST, 8080)) == OUTSIDE
    assert reached(server, netns.opened(), (OUTSIDE_HOST, 8080)) in (OUTSIDE_HOST, HOST)
    assert reached(server, netns.opened(), ("127.0.0.1", 8080)) == HOST
    assert reached(server, box.socket(), (OUTSIDE_HOST, 8080)) == HOST
    unreached(outside.socket(), (OUTSIDE_HOST, 8081))
    commit(nft, [delete_element("inet", "router", PORTS, ("tcp", 8080))])
    unreached(outside.socket(), (OUTSIDE_HOST, 8080))


def test_a_published_port_of_udp(nft, router):
    box, outside = router
    commit(nft, [add_element("inet", "router", PORTS, ("udp", 5300), (BOX, 53))])
    server = box.socket(kind=socket.SOCK_DGRAM, at=(BOX, 53))
    client = outside.socket(kind=socket.SOCK_DGRAM)
    client.sendto(b"who?", (OUTSIDE_HOST, 5300))
    data, peer = server.recvfrom(100)
    assert (data, peer[0]) == (b"who?", OUTSIDE)
    server.sendto(b"me", peer)
    assert client.recvfrom(100) == (b"me", (OUTSIDE_HOST, 5300))
    client.close()


def test_published_ports_of_ipv6(nft, router):
    box, outside = router
    commit(nft, [add_element("inet", "router", PORTS6, ("tcp", 8080), (BOX6, 80))])
    server = box.socket(socket.AF_INET6, at=(BOX6, 80))
    assert reached(server, outside.socket(socket.AF_INET6), ("fd00:1::1", 8080)) == OUTSIDE6
    assert reached(server, netns.opened(socket.AF_INET6), ("fd00:1::1", 8080)).startswith("fd00:")


def test_the_way_out(router):
    """What comes from the bridge gets the host's address; what isn't published isn't reached."""
    box, outside = router
    server = outside.socket(at=(OUTSIDE, 80))
    assert reached(server, box.socket(), (OUTSIDE, 80)) == OUTSIDE_HOST
    outside.run("ip", "route", "add", "10.9.0.0/24", "via", OUTSIDE_HOST)
    hidden = box.socket(at=(BOX, 81))
    unreached(outside.socket(), (BOX, 81))
    assert reached(hidden, netns.opened(), (BOX, 81)) == HOST


OWNED = Set("owned", (types.IFNAME, types.ETHER, types.IPV4))
OWNED6 = Set("owned6", (types.IFNAME, types.ETHER, types.IPV6))
PLUGGED = Set("plugged", (types.IFNAME,))
GUARD = Table(
    "bridge", "guard", [OWNED, OWNED6, PLUGGED],
    [
        Chain(
            "ports",
            Rule(listed(IIFNAME, "plugged"), unlisted((IIFNAME, ETHER_SADDR, IP_SADDR), "owned"), drop()),
            Rule(listed(IIFNAME, "plugged"), unlisted((IIFNAME, ETHER_SADDR, IP6_SADDR), "owned6"), drop()),
            hook="prerouting", priority=-300,
        ),
    ],
)  # fmt: skip


def test_addresses_of_a_port(nft, router):
    """In the bridge's own table a frame is dropped whose sender isn't who is behind that port."""
    box, _ = router
    box.run("ip", "address", "add", "10.9.0.66/24", "dev", "eth0")
    box.run("ip", "address", "add", "fd00:9::66/64", "dev", "eth0", "nodad")
    (interface,) = [one for one in netns.shown("link", "show", "eth0", run=box.run) if one]
    hardware = interface["address"]
    commit(nft, [*nft_tables.create(GUARD),
                 add_element("bridge", "guard", PLUGGED, ("v1",)),
                 add_element("bridge", "guard", OWNED, ("v1", hardware, BOX)),
                 add_element("bridge", "guard", OWNED6, ("v1", hardware, BOX6))])  # fmt: skip
    for family, host, mine, other in (
        (socket.AF_INET, HOST, BOX, "10.9.0.66"), (socket.AF_INET6, "fd00:9::1", BOX6, "fd00:9::66"),
    ):  # fmt: skip
        server = netns.opened(family, socket.SOCK_DGRAM, (host, 4000))
        netns.output("ip", "neigh", "replace", mine, "lladdr", hardware, "dev", "box0")
        box.run("ip", "neigh", "replace", host, "lladdr", _hardware("box0"), "dev", "eth0")
        for source in (other, mine):
            client = box.socket(family, socket.SOCK_DGRAM, (source, 0))
            client.sendto(source.encode(), (host, 4000))
            client.close()
        assert server.recvfrom(100)[0] == mine.encode()
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.recvfrom(100)
        server.close()


def _hardware(name):
    (interface,) = netns.shown("link", "show", name)
    return interface["address"]


def test_a_rule_for_one_protocol_leaves_the_other_alone(nft, router):
    """What nft leaves out of a rule, because it is clear by itself, is in ours: `ip saddr` means IPv4 alone."""
    box, _ = router
    chain = Chain("in", Rule(unequal(IP_SADDR, "10.9.0.99"), equal(IIFNAME, "box0"), drop()), hook="input", priority=-5)
    commit(nft, nft_tables.create(Table("inet", "only", [], [chain])))
    server = netns.opened(socket.AF_INET6, at=("fd00:9::1", 80))
    assert reached(server, box.socket(socket.AF_INET6), ("fd00:9::1", 80)) == BOX6
    four = netns.opened(at=(HOST, 80))
    unreached(box.socket(), (HOST, 80))
    four.close()
    known = Rule(equal(NFPROTO, "ipv4"), equal(IP_SADDR, "10.0.0.0/8"), accept()).encode(nftables.FAMILIES["inet"])
    alone = Rule(equal(IP_SADDR, "10.0.0.0/8"), accept()).encode(nftables.FAMILIES["inet"])
    assert known == alone
    assert Rule(equal(PROTOCOL, "ip"), drop()).encode(7) != Rule(equal(NFPROTO, "ipv4"), drop()).encode(7)
