"""Servers that everybody knows, in a box: reached from everywhere that they should be, and from nowhere else.

nginx, redis and an echo of datagrams in one container of a network with both families; asked by the host, by another
machine, and by containers on the same network, on another one and on an internal one. Each server tells as whom it saw
the one that asked.
"""

from __future__ import annotations

import contextlib
import re
import time

import pytest

import puppets
from neighbours import HOST, HOST_TOO, NEIGHBOUR, neighbour

WEB, REDIS, ECHO = 8080, 6380, 5353
PORTS = ("-p", f"{WEB}:80", "-p", f"{REDIS}:6379", "-p", f"{ECHO}:53/udp")
INSIDE = {WEB: 80, REDIS: 6379, ECHO: 53}
EVERYWHERE = {4: "0.0.0.0", 6: "::"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def start_servers(box, families):
    """Start all three, and wait until the last of them answers."""
    for family in families:
        box.serve(53, EVERYWHERE[family], "udp")
    box.output("nginx")
    bind = ["*", "-::*"] if 6 in families else ["*"]
    box.output("redis-server", "--daemonize", "yes", "--protected-mode", "no", "--save", "", "--bind", *bind)
    end = time.monotonic() + 20
    while box.ask_tcp(LOOPBACK[4], 6379, "PING\r\n") != "+PONG\r\n":
        assert time.monotonic() < end, "redis doesn't start"


class Scene:
    """Who is there. web: the container with the servers on a network with both families, old: one with IPv4 alone."""

    def __init__(self, stack, tarbox, image):
        def box(*options, image="host"):
            return stack.enter_context(puppets.box(tarbox, *options, image=image))

        self.host = stack.enter_context(puppets.here())
        self.neighbour = stack.enter_context(neighbour())
        for name, options in {"lab": ["--ipv6"], "other": ["--ipv6"], "inner": ["--ipv6", "--internal"]}.items():
            stack.enter_context(puppets.network(tarbox, name, *options))
        self.web = box("--network", "lab", *PORTS, image=image)
        self.near, self.away, self.inner = (box("--network", name) for name in ("lab", "other", "inner"))
        self.old = box("-p", "9080:80", "-p", "7380:6379", "-p", "6353:53/udp", image=image)
        start_servers(self.web, (4, 6))
        start_servers(self.old, (4,))

    def seen_as(self, box, client, address, ports=(WEB, REDIS, ECHO)):
        """As whom each of the three servers saw a client; None where it wasn't reached."""
        web, redis, echo = ports
        page = client.ask_tcp(address, web, "GET /who HTTP/1.0\r\n\r\n", seconds=0.7)
        clients = client.ask_tcp(address, redis, "CLIENT LIST\r\n", seconds=0.7)
        answer = client.ask_udp(address, echo, "who", seconds=0.7)
        if page is not None:
            assert "404 Not Found" in page, page
            page = box.read("/var/log/nginx/access.log").splitlines()[-1].split()[0]
        if clients is not None:
            clients = re.findall(r" addr=(\S+):\d+ .* cmd=client", clients)[-1].strip("[]")
        return [page, clients, answer and answer.rpartition(" from ")[2]]


@pytest.fixture(scope="module")
def scene(lasting_tarbox, debian_servers):
    """Made once for all."""
    with contextlib.ExitStack() as stack:
        yield Scene(stack, lasting_tarbox, debian_servers)


@pytest.fixture(autouse=True)
def leaves_nothing():
    """A connection may be served by a process that stays as long as its container: looked at after the last test."""


@FAMILIES
def test_the_host_reaches_a_server_by_loopback(scene, family):
    """The server sees its gateway: loopback's address means somebody else to it."""
    assert scene.seen_as(scene.web, scene.host, LOOPBACK[family]) == [scene.web.gateway(family)] * 3


@FAMILIES
@pytest.mark.parametrize("own", [HOST, HOST_TOO], ids=["main", "other"])
def test_the_host_reaches_a_server_by_its_own_addresses(scene, family, own):
    """As its main address of IPv4, whichever it asked; of IPv6 as the one that it asked."""
    seen = HOST[4] if family == 4 else own[6]
    assert scene.seen_as(scene.web, scene.host, own[family]) == [seen] * 3


@FAMILIES
@pytest.mark.parametrize("own", [HOST, HOST_TOO], ids=["main", "other"])
def test_another_machine_reaches_a_server_and_is_seen_as_itself(scene, family, own):
    assert scene.seen_as(scene.web, scene.neighbour, own[family]) == [NEIGHBOUR[family]] * 3


@FAMILIES
def test_the_host_reaches_a_container_by_its_address(scene, family):
    assert (
        scene.seen_as(scene.web, scene.host, scene.web.address(family), INSIDE.values())
        == [scene.web.gateway(family)] * 3
    )


@FAMILIES
def test_a_container_reaches_another_of_its_network_by_address(scene, family):
    seen = scene.seen_as(scene.web, scene.near, scene.web.address(family), INSIDE.values())
    assert seen == [scene.near.address(family)] * 3


@FAMILIES
@pytest.mark.parametrize("who", ["near", "web"])
def test_a_container_reaches_a_port_of_its_own_network_by_way_of_the_host(scene, family, who):
    """Another one, and the server itself; the answer has to come back through the host, so the gateway is seen."""
    client = getattr(scene, who)
    for address in (HOST[family], HOST_TOO[family], client.gateway(family)):
        assert scene.seen_as(scene.web, client, address) == [scene.web.gateway(family)] * 3, address


@FAMILIES
def test_a_container_of_another_network_has_only_the_published_ports(scene, family):
    assert scene.seen_as(scene.web, scene.away, scene.web.address(family), INSIDE.values()) == [None] * 3
    assert scene.seen_as(scene.web, scene.away, HOST[family]) == [scene.away.address(family)] * 3


@FAMILIES
def test_a_container_of_an_internal_network_has_nothing(scene, family):
    for address in (HOST[family], scene.web.gateway(family), f"{scene.inner.address(4).rpartition('.')[0]}.1"):
        assert scene.seen_as(scene.web, scene.inner, address) == [None] * 3
    assert scene.seen_as(scene.web, scene.inner, scene.web.address(family), INSIDE.values()) == [None] * 3


def test_a_server_without_ipv6_is_reached_by_it_all_the_same(scene):
    """Somebody on the host hands it on, whom the server sees."""
    ports = (9080, 7380, 6353)
    gateway = scene.old.gateway()
    assert scene.seen_as(scene.old, scene.host, LOOPBACK[4], ports) == [gateway] * 3
    assert scene.seen_as(scene.old, scene.neighbour, HOST[4], ports) == [NEIGHBOUR[4]] * 3
    assert scene.seen_as(scene.old, scene.host, LOOPBACK[6], ports) == [gateway] * 3
    assert scene.seen_as(scene.old, scene.host, HOST[6], ports) == [gateway] * 3
    assert scene.seen_as(scene.old, scene.neighbour, HOST[6], ports) == [gateway] * 3


@FAMILIES
def test_a_container_that_asks_outside_is_seen_as_the_host(scene, family):
    """Its own address is known to nobody out there."""
    scene.neighbour.serve(9000 + family, EVERYWHERE[family], "tcp")
    scene.neighbour.serve(9000 + family, EVERYWHERE[family], "udp")
    for ask in (scene.near.ask_tcp, scene.near.ask_udp):
        answer = ask(NEIGHBOUR[family], 9000 + family)
        assert answer
        assert answer.rpartition(" ")[2] == HOST[family]


def test_curl_and_redis_own_client_work(scene):
    """What a person would type."""
    code, page = scene.host.run("curl", "-sS", "--max-time", "5", f"http://localhost:{WEB}/")
    assert code == 0, page
    assert "Welcome to nginx!" in page
    code, page = scene.host.run("curl", "-sS", "--max-time", "5", "-g", f"http://[::1]:{WEB}/")
    assert code == 0, page
    assert "Welcome to nginx!" in page
    said = scene.old.output("redis-cli", "-h", HOST[4], "-p", str(REDIS), "set", "answer", "42")
    assert said == "OK\n"
    assert scene.web.output("redis-cli", "get", "answer") == "42\n"
