"""Another machine, and containers that aren't asked in, against what is meant for the host alone or for one network.

What must not arrive is tried by datagrams and by the first packet of a connection, honest and forged by hand; each time
something that must arrive shows that the way was open.

man 7 ip (route_localnet), man 7 packet
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

import frames
import puppets
from frames import IPV4, ethernet
from neighbours import FAR, HOST, HOST_TOO, NEIGHBOUR, ip
from puppets import network

LOOPBACK = "127.0.0.1"
EVERYWHERE = {4: "0.0.0.0", 6: "::"}


@pytest.fixture
def host():
    """Somebody in the test host."""
    with puppets.here() as puppet:
        yield puppet


@contextlib.contextmanager
def server(tarbox, *options, families=(4,)):
    """A container that answers on port 80 by TCP and UDP, and takes what comes to UDP port 5000."""
    with puppets.box(tarbox, "-h", "server", *options) as box:
        for family in families:
            for kind in ("tcp", "udp"):
                box.serve(80, EVERYWHERE[family], kind)
        box.hear(5000)
        yield box


LOCALLY = ("-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:8080:80/udp", "-p", "127.0.0.1:5000:5000/udp")


def both(puppet, address, port, seconds=0.4):
    """The answers by TCP and by UDP."""
    return [ask(address, port, seconds=seconds) for ask in (puppet.ask_tcp, puppet.ask_udp)]


def macs():
    """The MAC addresses of the host's and of the neighbour's end of the wire between them."""
    words = ip("-o", "link", "show", "lan0").split()
    return words[words.index("link/ether") + 1]


def route_localnet(interface):
    return Path(f"/proc/sys/net/ipv4/conf/{interface}/route_localnet")


def test_a_port_of_loopback_is_not_the_neighbours(tarbox, neighbour, host):
    """Asked in all ways that a neighbour has: the host's addresses, loopback's, the container's by way of the host."""
    with server(tarbox, *LOCALLY) as box:
        assert all(both(host, LOOPBACK, 8080))
        for address in (HOST[4], HOST_TOO[4], HOST[6]):
            assert both(neighbour, address, 8080) == [None, None]
        container = box.address()
        neighbour.output("ip", "route", "add", container, "via", HOST[4])
        assert both(neighbour, container, 80) == [None, None]
        # Loopback's own address leaves a machine only when it is told to let it go.
        neighbour.write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
        neighbour.output("ip", "route", "add", LOOPBACK, "via", HOST[4], "src", NEIGHBOUR[4], "table", "77")
        neighbour.output("ip", "rule", "add", "pref", "5", "to", LOOPBACK, "table", "77")
        neighbour.output("ip", "rule", "add", "pref", "10", "table", "local")
        neighbour.output("ip", "rule", "del", "pref", "0")
        host.watch("lan0")
        neighbour.tell(LOOPBACK, 5000, "to loopback")
        assert host.seen("lan0", b"to loopback")
        assert not box.heard(5000, 0.3)


def test_a_forged_packet_to_loopback_reaches_neither_container_nor_host(tarbox, neighbour, host):
    """A frame for the host with loopback's address in it, as if it had come from the host itself."""
    host.hear(6000, LOOPBACK)
    mine, theirs = macs(), neighbour.mac("lan1")

    def forge(port, text, source=NEIGHBOUR[4]):
        packet = frames.udp((source, 999), (LOOPBACK, port), text)
        neighbour.send("lan1", ethernet(mine, theirs, IPV4, packet))

    # Where somebody lets it in on purpose, the host takes it: so the frames are good ones.
    route_localnet("lan0").write_text("1")
    forge(6000, "let in")
    assert host.heard(6000) == [("let in", NEIGHBOUR[4])]
    route_localnet("lan0").write_text("0")
    with server(tarbox, *LOCALLY) as box:
        host.ask_udp(LOOPBACK, 8080)
        neighbour.watch("lan1")
        for source in (NEIGHBOUR[4], LOOPBACK, HOST[4], box.gateway(), box.address()):
            for port in (5000, 6000):
                forge(port, f"from {source}", source)
            syn = frames.tcp_syn((source, 999), (LOOPBACK, 8080))
            neighbour.send("lan1", ethernet(mine, theirs, IPV4, syn))
        assert not box.heard(5000, 0.3)
        assert not host.heard(6000, 0.1)
        host.tell(LOOPBACK, 5000, "honest")
        assert [text for text, _ in box.heard(5000)] == ["honest"]
        assert not neighbour.seen("lan1", frames.address(LOOPBACK) + frames.address(NEIGHBOUR[4]), 0.1)
        assert route_localnet("lan0").read_text() == "0\n"


def test_a_forged_packet_of_a_container_does_not_reach_the_hosts_loopback(tarbox, host):
    """The same from below: what listens on the host's loopback is for the host alone."""
    host.hear(6000, LOOPBACK)
    with (
        server(tarbox, *LOCALLY) as box,
        puppets.box(tarbox, "--cap-add", "NET_ADMIN") as liar,
    ):
        (interface,) = liar.interfaces()
        gateway = liar.gateway()
        liar.run("ping", "-c1", "-W2", gateway)
        mine, theirs = liar.mac(interface), liar.neighbours()[gateway]
        for source in (liar.address(), LOOPBACK, gateway, box.address()):
            for port in (5000, 6000):
                packet = frames.udp((source, 999), (LOOPBACK, port), f"from {source}")
                liar.send(interface, ethernet(theirs, mine, IPV4, packet))
        assert not box.heard(5000, 0.3)
        assert not host.heard(6000, 0.1)
        for address in (gateway, box.gateway()):
            assert both(liar, address, 8080) == [None, None]
        host.tell(LOOPBACK, 6000, "honest")
        assert [text for text, _ in host.heard(6000)] == ["honest"]


@pytest.mark.parametrize("family", [4, 6])
def test_a_route_to_containers_by_way_of_the_host_leads_nowhere(tarbox, neighbour, host, family):
    """Neither to a published port nor to another: what a neighbour may use is the host's address."""
    with (
        network(tarbox, "lab", "--ipv6") as lab,
        server(tarbox, "--network", lab, "-p", "8080:80", "-p", "8080:80/udp", families=(4, 6)) as box,
    ):
        box.hear(5001, EVERYWHERE[family])
        assert all(both(neighbour, HOST[family], 8080))
        container = box.address(family)
        neighbour.output("ip", "route", "add", container, "via", HOST[family])
        host.watch("lan0")
        neighbour.tell(container, 5001, "by a route")
        assert host.seen("lan0", b"by a route")
        assert not box.heard(5001, 0.3)
        assert both(neighbour, container, 80) == [None, None]
        assert neighbour.run("ping", "-c1", "-W1", container)[0] != 0


def test_a_neighbour_that_claims_to_be_a_container_is_not_let_in(tarbox, neighbour, host):
    """Addresses of containers come from their bridge alone."""
    with server(tarbox, "-p", "8080:80") as box, puppets.box(tarbox) as friend:
        friend.tell(box.address(), 5000, "from a friend")
        assert box.heard(5000) == [("from a friend", friend.address())]
        host.watch("lan0")
        for source in (friend.address(), box.gateway()):
            packet = frames.udp((source, 999), (box.address(), 5000), "from outside")
            neighbour.send("lan1", ethernet(macs(), neighbour.mac("lan1"), IPV4, packet))
        assert host.seen("lan0", b"from outside") == 2
        assert not box.heard(5000, 0.3)


def test_nothing_leaves_with_an_address_that_is_not_the_hosts(tarbox, neighbour):
    """Neither what a container forges, nor what belongs to no connection and so isn't translated."""
    with puppets.box(tarbox, "--cap-add", "NET_ADMIN") as liar:
        (interface,) = liar.interfaces()
        gateway, own = liar.gateway(), liar.address()
        neighbour.hear(5000, NEIGHBOUR[4])
        liar.tell(NEIGHBOUR[4], 5000, "honest")
        assert neighbour.heard(5000) == [("honest", HOST[4])]
        mine, theirs = liar.mac(interface), liar.neighbours()[gateway]
        neighbour.watch("lan1")
        sources = (own, f"{own.rpartition('.')[0]}.200", "203.0.113.9", LOOPBACK, HOST[4], NEIGHBOUR[4])
        for source in sources:
            reset = bytearray(frames.tcp_syn((source, 999), (NEIGHBOUR[4], 80)))
            reset[33] = 4  # the flag RST in the place of SYN, of a connection that there never was
            finish = bytearray(reset)
            finish[33] = 0x11
            odd = [frames.udp((source, 999), (NEIGHBOUR[4], 5000), f"as {source}")] if source != own else []
            odd += [frames.packet(source, NEIGHBOUR[4], frames.ICMP, b"\0\0\xff\xff" + bytes(4))]
            for packet in (bytes(reset), bytes(finish), *odd):
                liar.send(interface, ethernet(theirs, mine, IPV4, packet))
        to_neighbour = frames.address(NEIGHBOUR[4])
        for source in sources:
            if source != HOST[4]:
                assert not neighbour.seen("lan1", frames.address(source) + to_neighbour, 0.2), source
        assert not [text for text, _ in neighbour.heard(5000, 0.1) if text != f"as {own}"]


@pytest.mark.parametrize("family", [4, 6])
def test_two_networks_meet_at_published_ports_alone(tarbox, neighbour, family):
    """One network's containers don't reach another's by their addresses, though the host knows the way to both."""
    with (
        network(tarbox, "one", "--ipv6"),
        network(tarbox, "two", "--ipv6"),
        server(tarbox, "--network", "one", "-p", "8080:80", "-p", "8080:80/udp", families=(4, 6)) as box,
        puppets.box(tarbox, "--network", "one") as near,
        puppets.box(tarbox, "--network", "two") as away,
    ):
        box.hear(5001, EVERYWHERE[family])
        near.tell(box.address(family), 5001, "from near")
        assert [text for text, _ in box.heard(5001)] == ["from near"]
        away.tell(box.address(family), 5001, "from away")
        assert not box.heard(5001, 0.3)
        assert both(away, box.address(family), 80) == [None, None]
        for puppet in (near, away, box):
            for address in (HOST[family], HOST_TOO[family]):
                assert all(both(puppet, address, 8080)), f"{address} {puppet is near}"


@pytest.mark.parametrize("family", [4, 6])
def test_an_internal_network_has_no_outside(tarbox, neighbour, host, family):
    """Neither way: not to the host's other addresses, the neighbour, far away; nor from there, even to a port."""
    with (
        network(tarbox, "lab", "--internal", "--ipv6") as lab,
        server(tarbox, "--network", lab, families=(4, 6)) as box,
        puppets.box(tarbox, "--network", lab) as friend,
        puppets.box(tarbox) as stranger,
    ):
        box.hear(5001, EVERYWHERE[family])
        assert all(both(friend, box.address(family), 80))
        for puppet in (neighbour, host):
            puppet.hear(6000, EVERYWHERE[family])
        stranger_sees = HOST[4] if family == 4 else None
        if stranger_sees:
            stranger.tell(NEIGHBOUR[4], 6000, "from the stranger")
            assert neighbour.heard(6000) == [("from the stranger", HOST[4])]
        for address in (NEIGHBOUR[family], FAR[family], HOST[family]):
            with contextlib.suppress(AssertionError):  # there is no route: the kernel says so
                friend.tell(address, 6000, "from within")
        assert not neighbour.heard(6000, 0.3)
        assert not host.heard(6000, 0.1)
        neighbour.output("ip", "route", "add", box.address(family), "via", HOST[family])
        neighbour.tell(box.address(family), 5001, "from outside")
        with contextlib.suppress(AssertionError):
            stranger.tell(box.address(family), 5001, "from next door")
        assert not box.heard(5001, 0.3)


def test_an_internal_network_gives_itself_no_way_out(tarbox, neighbour):
    """CAP_NET_ADMIN adds a default route; it leads nowhere."""
    with (
        network(tarbox, "lab", "--internal") as lab,
        puppets.box(tarbox, "--network", lab) as honest,
        puppets.box(tarbox, "--network", lab, "--cap-add", "NET_ADMIN") as liar,
    ):
        neighbour.hear(6000)
        gateway = f"{liar.address().rpartition('.')[0]}.1"
        liar.run("ip", "route", "add", "default", "via", gateway)
        liar.run("ping", "-c1", "-W1", gateway)
        with contextlib.suppress(AssertionError):
            liar.tell(NEIGHBOUR[4], 6000, "out")
        assert not neighbour.heard(6000, 0.5)
        assert liar.run("ping", "-c1", "-W2", honest.address())[0] == 0


@contextlib.contextmanager
def resolver(folder, address):
    """The host's /etc/resolv.conf names this server meanwhile."""
    file = folder / "resolv.conf"
    file.write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", file, "/etc/resolv.conf"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "/etc/resolv.conf"], check=True)


def test_names_asked_for_on_an_internal_network_stay_there(tarbox, neighbour, tmp_path):
    """Its questions reach no name server outside, neither by themselves nor by way of the host."""
    with resolver(tmp_path, NEIGHBOUR[4]), network(tarbox, "lab", "--internal") as lab:
        neighbour.watch("lan1")
        with puppets.box(tarbox) as open_box:
            open_box.run("getent", "hosts", "told.example")
        assert neighbour.seen("lan1", b"\4told\7example")
        with puppets.box(tarbox, "--network", lab) as box:
            code, said = box.run("getent", "hosts", "secret.example")
            assert code != 0, said
            for line in box.read("/etc/resolv.conf").splitlines():
                if line.startswith("nameserver"):
                    box.ask_udp(line.split()[1], 53, "\x12\x34\1\0\0\1\0\0\0\0\0\0\6secret\7example\0\0\1\0\1")
        assert not neighbour.seen("lan1", b"\6secret\7example")
