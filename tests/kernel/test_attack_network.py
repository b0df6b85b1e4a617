"""A container that lies to those on its network: about its addresses, others' addresses, and the way out.

Each attack is also made on a plain bridge, where it must work: else it would prove nothing here. The liar has
CAP_NET_RAW, as containers have, and CAP_NET_ADMIN.

RFC 826, RFC 4861, IEEE 802.1Q; man 7 packet
"""

from __future__ import annotations

import contextlib
import time

import pytest

import frames
import neighbours
import puppets
from frames import BROADCAST, IPV4, IPV6, ethernet

INNER4, INNER6 = "10.99.1", "fd00:99:1"
FAMILIES = (4, 6)
ODD_MAC = "02:00:00:bb:bb:bb"


class Segment:
    """Three containers and a gateway on one network. safe: whether lies should fail there."""

    def __init__(self, safe, gateway, liar, victim, third):
        self.safe = safe
        self.gateway, self.liar, self.victim, self.third = gateway, liar, victim, third
        (self.interface,) = liar.interfaces()
        (self.theirs,) = victim.interfaces()
        self.macs = {puppet: puppet.mac(puppet.interfaces()[0]) for puppet in (liar, victim, third)}
        self.ip = {
            (puppet, family): puppet.addresses(self.theirs if puppet is victim else puppet.interfaces()[0], family)[0]
            for puppet in (liar, victim, third)
            for family in FAMILIES
        }

    def say(self, *packets):
        """Let the liar put these on the wire."""
        self.liar.send(self.interface, *packets)

    def from_liar(self, kind, payload, to=None):
        """A frame from the liar's own MAC address to the victim's."""
        return ethernet(self.macs[to or self.victim], self.macs[self.liar], kind, payload)

    def hears_last(self, port, marker):
        """What the victim heard before an honest datagram that the liar sends now: frames keep their order."""
        self.liar.tell(self.ip[self.victim, 4], port, marker)
        got, end = [], time.monotonic() + 10
        while not any(text == marker for text, _ in got):
            got += self.victim.heard(port)
            assert time.monotonic() < end, f"honest datagrams don't arrive: {got}"
        return [pair for pair in got if pair[0] != marker]


@contextlib.contextmanager
def plain_bridge():
    """The same with nobody who looks at frames."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(puppets.namespace())
        gateway.output("ip", "link", "add", "br0", "type", "bridge")
        members = []
        for number in (2, 3, 4):
            member = stack.enter_context(puppets.namespace())
            pid = str(member.process.pid)
            gateway.output("ip", "link", "add", f"p{number}", "master", "br0", "type", "veth",
                           "peer", "name", "eth0", "netns", pid)  # fmt: skip
            gateway.output("ip", "link", "set", f"p{number}", "up")
            members.append(member)
        for number, (puppet, interface) in enumerate([(gateway, "br0"), *((one, "eth0") for one in members)], 1):
            puppet.write(f"/proc/sys/net/ipv6/conf/{interface}/accept_dad", "0")
            puppet.output("ip", "addr", "add", f"{INNER4}.{number}/24", "dev", interface)
            puppet.output("ip", "addr", "add", f"{INNER6}::{number}/64", "dev", interface, "nodad")
            puppet.output("ip", "link", "set", interface, "up")
        yield Segment(False, gateway, *members)


@contextlib.contextmanager
def tarbox_network(tarbox, *options):
    """A network of tarbox's, with containers."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(puppets.network(tarbox, "lab", *options))
        gateway = stack.enter_context(puppets.here())
        liar = stack.enter_context(puppets.box(tarbox, "--network", lab, "--cap-add", "NET_ADMIN"))
        others = [stack.enter_context(puppets.box(tarbox, "--network", lab)) for _ in range(2)]
        yield Segment(True, gateway, liar, *others)


@pytest.fixture(params=["plain bridge", "tarbox"])
def segment(request, tarbox):
    """Both kinds in turn."""
    with plain_bridge() if request.param == "plain bridge" else tarbox_network(tarbox, "--ipv6") as made:
        yield made


def gateway_address(segment, family):
    """The address of the bridge itself."""
    if not segment.safe:
        return f"{INNER4}.1" if family == 4 else f"{INNER6}::1"
    return segment.victim.gateway(family)


def acquainted(pairs):
    """Let each of these learn an address's MAC address honestly, and wait until the kernel would believe in another."""
    true = {}
    for who, address in pairs:
        family = 6 if ":" in address else 4
        code, said = who.run("ping", f"-{family}", "-c1", "-W3", address)
        assert code == 0, said
        true[who, address] = who.neighbours(family)[address]
    time.sleep(1.1)  # /proc/sys/net/ipv4/neigh/default/locktime
    return true


def lies(segment, claimed, told, told_mac):
    """Frames that say that an address of somebody else's is at the liar's MAC address."""
    ours = segment.macs[segment.liar]
    if ":" not in claimed:
        return [
            frames.arp(operation, (ours, claimed), (told_mac, told)) for operation in (frames.REPLY, frames.REQUEST)
        ]
    return [
        frames.advertise_neighbour((told_mac, told), (ours, claimed), claimed),
        frames.solicit_neighbour((told_mac, told), (ours, claimed)),
    ]


def tagged(frame):
    """The same frame with a tag of VLAN 0, which receivers take off and otherwise pass over."""
    return frame[:12] + b"\x81\x00\x00\x00" + frame[12:]


DISGUISES = pytest.mark.parametrize("disguise", [bytes, tagged], ids=["as they are", "tagged"])


@DISGUISES
def test_a_lie_about_an_address_is_not_believed(segment, disguise):
    """By ARP and NDP: another's address, or the way out, is here; told to a container and to the host."""
    victim, gateway, third = segment.victim, segment.gateway, segment.third
    ways = {family: gateway_address(segment, family) for family in FAMILIES}
    stories = [(victim, segment.ip[third, family]) for family in FAMILIES]
    stories += [(victim, ways[family]) for family in FAMILIES]
    stories += [(gateway, segment.ip[third, family]) for family in FAMILIES]
    true = acquainted(stories)
    gateways_mac = true[victim, ways[4]]
    victim.hear(5000)
    for listener, claimed in stories:
        family = 6 if ":" in claimed else 4
        told = (
            (segment.ip[victim, family], segment.macs[victim]) if listener is victim else (ways[family], gateways_mac)
        )
        segment.say(*map(disguise, lies(segment, claimed, *told)))
    segment.hears_last(5000, "end")
    believed = {
        (listener, claimed): listener.neighbours(6 if ":" in claimed else 4).get(claimed)
        for listener, claimed in stories
    }
    assert believed == (true if segment.safe else dict.fromkeys(true, segment.macs[segment.liar]))


@DISGUISES
def test_a_source_address_that_is_not_its_own_reaches_nobody(segment, disguise):
    """Another container's, one that nobody has, and one from far away."""
    victim = segment.victim
    sources = []
    victim.hear(5001)
    for family, kind, port, everywhere in ((4, IPV4, 5004, "0.0.0.0"), (6, IPV6, 5006, "::")):
        victim.hear(port, everywhere)
        third = segment.ip[segment.third, family]
        nobody = f"{third.rpartition('.')[0]}.200" if family == 4 else f"{third}f"
        for source in (third, nobody, neighbours.FAR[family]):
            packet = frames.udp((source, 999), (segment.ip[victim, family], port), f"as {source}")
            segment.say(disguise(segment.from_liar(kind, packet)))
            sources.append(source)
    segment.hears_last(5001, "end")
    heard = [sender for port in (5004, 5006) for _, sender in victim.heard(port, 0.1)]
    assert heard == ([] if segment.safe else sources)


def test_a_mac_address_that_is_not_its_own_moves_nobodys_frames(segment):
    """A bridge learns where a MAC address is from the frames that come with it, unless it is told better."""
    victim, third = segment.victim, segment.third
    third.hear(5000)
    acquainted([(victim, segment.ip[third, 4])])
    forged = ethernet(BROADCAST, segment.macs[third], 0x88B5, b"local experiment")
    segment.say(*[forged] * 3)
    victim.tell(segment.ip[third, 4], 5000, "for the third")
    arrived = [text for text, _ in third.heard(5000, 1)]
    assert arrived == (["for the third"] if segment.safe else [])


def test_an_address_that_it_gives_itself_reaches_nobody(segment):
    """With CAP_NET_ADMIN it can; that doesn't make it anybody else."""
    victim, liar = segment.victim, segment.liar
    victim.hear(5000)
    liar.tell(segment.ip[victim, 4], 5000, "as itself")
    assert victim.heard(5000) == [("as itself", segment.ip[liar, 4])]
    new = f"{segment.ip[liar, 4].rpartition('.')[0]}.201"
    liar.output("ip", "addr", "flush", "dev", segment.interface, "scope", "global")
    liar.output("ip", "addr", "add", f"{new}/16", "dev", segment.interface)
    liar.tell(segment.ip[victim, 4], 5000, "as another")
    assert victim.heard(5000, 1) == ([] if segment.safe else [("as another", new)])


def test_a_mac_address_that_it_gives_itself_reaches_nobody(segment):
    victim, liar = segment.victim, segment.liar
    victim.hear(5000)
    liar.output("ip", "link", "set", segment.interface, "address", ODD_MAC)
    liar.tell(segment.ip[victim, 4], 5000, "from elsewhere")
    packet = frames.udp((segment.ip[liar, 4], 999), (segment.ip[victim, 4], 5000), "by hand")
    segment.say(ethernet(segment.macs[victim], ODD_MAC, IPV4, packet))
    time.sleep(0.3)
    assert sorted(victim.heard(5000, 1)) == (
        [] if segment.safe else [("by hand", segment.ip[liar, 4]), ("from elsewhere", segment.ip[liar, 4])]
    )


PREFIX = "2001:db8:bad::"


def believed_router(puppet):
    """Whether a puppet took a route or an address from a router's advertisement."""
    routes = puppet.output("ip", "-6", "route", "show", "table", "all")
    return PREFIX in routes or "proto ra" in routes


def test_a_container_is_nobodys_router(segment):
    """Its advertisement changes neither the others' routes nor the host's."""
    ours = segment.macs[segment.liar]
    advertised = frames.advertise_router((ours, "fe80::bad"), PREFIX)
    segment.say(advertised, tagged(advertised))
    time.sleep(1)
    believers = [puppet for puppet in (segment.victim, segment.third, segment.gateway) if believed_router(puppet)]
    assert believers == ([] if segment.safe else [segment.victim, segment.third, segment.gateway])


def test_a_container_without_ipv6_is_not_the_hosts_router(tarbox):
    """On a network of IPv4 alone the host may not be a router of IPv6 itself, and would believe in others."""
    with puppets.network(tarbox, "lab") as lab, puppets.here() as host, puppets.box(tarbox, "--network", lab) as liar:
        (interface,) = liar.interfaces()
        before = host.output("ip", "-6", "route")
        liar.send(interface, frames.advertise_router((liar.mac(interface), "fe80::bad"), PREFIX))
        time.sleep(1)
        assert host.output("ip", "-6", "route") == before
        assert not believed_router(host)


def test_a_container_on_a_network_without_ipv6_has_none(tarbox):
    """Not even an address that is good on its link alone, by which it could be reached unseen."""
    with puppets.box(tarbox) as box:
        told = box.output("ip", "-6", "-o", "addr").split()
        assert [word for word in told if "/" in word] == ["::1/128"]
        (interface,) = box.interfaces()
        assert not box.output("ip", "-6", "route", "show", "dev", interface)
