"""Packets of all sizes, and a lot of them: what fits arrives whole, and what doesn't is told so.

man 8 ping (-M do), man 7 ip (IP_MTU_DISCOVER); RFC 1191, RFC 8201
"""

from __future__ import annotations

import pytest

import neighbours
import puppets
from neighbours import HOST, NEIGHBOUR

EVERYWHERE = {4: "0.0.0.0", 6: "::"}
HEADERS = {4: 28, 6: 48}  # of IP and ICMP, or IP and UDP
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def ping(puppet, address, size):
    """Whether an echo of this many bytes comes back without being taken apart on the way."""
    return puppet.run("ping", "-M", "do", "-c1", "-W1", "-s", str(size), address)[0] == 0


@FAMILIES
@pytest.mark.parametrize("mtu", [1500, 1400, 9000])
def test_the_largest_packet_is_what_the_uplink_takes(tarbox, family, mtu):
    """But for more than the usual 1500 bytes, which nobody further away takes; the container's interface says so."""
    with (
        neighbours.neighbour(mtu) as neighbour,
        puppets.network(tarbox, "lab", "--ipv6") as lab,
        puppets.box(tarbox, "--network", lab) as box,
        puppets.box(tarbox, "--network", lab) as near,
    ):
        most = min(mtu, 1500)
        assert f" mtu {most} " in box.output("ip", "-o", "link", "show", "dev", box.interfaces()[0])
        most -= HEADERS[family]
        for address in (NEIGHBOUR[family], near.address(family), box.gateway(family)):
            assert ping(box, address, most), address
            assert not ping(box, address, most + 1), address
        assert neighbour


@FAMILIES
def test_datagrams_of_all_sizes_pass_both_ways(tarbox, neighbour, family):
    """Those of one packet and those that travel in parts: through a published port and through the way out."""
    with (
        puppets.network(tarbox, "lab", "--ipv6") as lab,
        puppets.box(tarbox, "--network", lab, "-p", "5353:53/udp") as box,
    ):
        box.serve(53, EVERYWHERE[family])
        neighbour.serve(53, EVERYWHERE[family])
        most = 1500 - HEADERS[family]
        for size in (0, 1, 500, most - 60, most, most + 1, 9000, 60000):
            text = "x" * size
            for client, address, port in ((neighbour, HOST[family], 5353), (box, NEIGHBOUR[family], 53)):
                answer = client.ask_udp(address, port, text)
                assert answer is not None, (size, address)
                assert f" got {text} from " in answer


@FAMILIES
@pytest.mark.parametrize(
    "amount", [100_000_000, pytest.param(1_000_000_000, marks=pytest.mark.long)], ids=["100MB", "1GB"]
)
def test_large_transfers_arrive_whole(tarbox, neighbour, family, amount):
    """From the host and another machine by a port, to another machine by the way out, and between containers."""
    with (
        puppets.here() as host,
        puppets.network(tarbox, "lab", "--ipv6") as lab,
        puppets.box(tarbox, "--network", lab, "-p", "9000:9000") as box,
        puppets.box(tarbox, "--network", lab) as near,
    ):
        loopback = "127.0.0.1" if family == 4 else "::1"
        ways = [
            (host, loopback, box),
            (host, HOST[family], box),
            (neighbour, HOST[family], box),
            (near, box.address(family), box),
            (box, NEIGHBOUR[family], neighbour),
            (box, HOST[family], host),
        ]
        for client, address, server in ways:
            port = 9000 if server is box else 9001  # that one is taken on the host
            server.take(port, EVERYWHERE[family])
            given = client.give(address, port, amount, patience=300)
            assert server.taken(port, patience=60) == (amount, given), address


@FAMILIES
def test_a_narrow_place_on_the_way_is_told_of(tarbox, family):
    """A network whose packets are larger than the uplink's: connections find out how much gets through."""
    with (
        neighbours.neighbour(1300) as neighbour,
        puppets.network(tarbox, "lab", "--ipv6", "-o", "com.docker.network.driver.mtu=1500") as lab,
        puppets.box(tarbox, "--network", lab, "-p", "9000:9000") as box,
    ):
        for client, address, server in ((box, NEIGHBOUR[family], neighbour), (neighbour, HOST[family], box)):
            server.take(9000, EVERYWHERE[family])
            given = client.give(address, 9000, 5_000_000)
            assert server.taken(9000) == (5_000_000, given)
        assert ping(box, NEIGHBOUR[family], 1300 - HEADERS[family])
        told = box.run("ping", "-M", "do", "-c1", "-W2", "-s", "1400", NEIGHBOUR[family])[1]
        assert "1300" in told, told
