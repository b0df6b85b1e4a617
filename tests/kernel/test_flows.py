"""Clients of UDP that keep one socket: they reach whoever has the published port now."""

from __future__ import annotations

import socket
import time

import pytest

import netns
from kernel.test_router import LEFT, Running, plug, until_gone
from tarbox.kernel import conntrack
from tarbox.kernel.netlink import NETFILTER, Netlink
from testhost import state_files

ANSWER = """
import os, socket, sys
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind(("", 80))
print("up", flush=True)
while True:
    data, client = own.recvfrom(100)
    own.sendto(sys.argv[1].encode(), client)
    if data == b"end": break
"""


@pytest.fixture(autouse=True)
def client():
    """A client's socket on another machine."""
    with netns.fresh(), netns.Neighbour() as machine:
        plug("world0", machine, *LEFT)
        made = machine.socket(kind=socket.SOCK_DGRAM)
        made.settimeout(0.5)
        made.connect((LEFT[0], 5353))
        yield made
    assert not state_files()


def start(tarbox, name, *options):
    process = tarbox.start(
        "run", "--rm", *(options or ("-p", "5353:80/udp")), "host", "python3", "-c", ANSWER, name, text=True
    )
    assert process.stdout.readline() == "up\n", process.communicate()
    return process


def asked(client, data=b"who"):
    """Who answers within some time."""
    for _ in range(10):
        try:
            client.send(data)
            return client.recv(100).decode()
        except (TimeoutError, ConnectionRefusedError):
            time.sleep(0.02)
    return ""


def end(process, client):
    asked(client, b"end")
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told


def remembered(port=5353):
    with Netlink(NETFILTER) as own:
        return conntrack.flows(own, 4, conntrack.UDP, port)


@pytest.mark.parametrize("where", ["", f"{LEFT[0]}:"])
def test_a_client_follows_the_port(tarbox, client, where):
    """From one container to the next, which has another address, without a pause in which it would be forgotten."""
    for name in ("one", "two", "three"):
        process = start(tarbox, name, "-p", f"{where}5353:80/udp")
        assert asked(client) == name
        end(process, client)
        assert not [flow for flow in remembered() if flow.status & conntrack.DNAT]
    until_gone()


def test_a_client_that_was_too_early(tarbox, client):
    """What it sent went to the host itself; from the port's publishing on it goes to the container."""
    with Running(tarbox):  # whose rules have the kernel remember flows
        for _ in range(2):
            assert not asked(client)
        assert remembered()
        process = start(tarbox, "late")
        assert asked(client) == "late"
        assert all(flow.status & conntrack.DNAT for flow in remembered()), "else the relay has to hand it on"
        end(process, client)
    until_gone()


def test_flows_of_others_are_left_alone(tarbox, client):
    """To the same port of other machines, and to other ports of this one."""
    others = {(bytes((10, 51, 0, 2)), 5353), (bytes((127, 0, 0, 1)), 5354)}
    with Running(tarbox), netns.Neighbour() as beyond, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        plug("world1", beyond, "10.51.0.1", "10.51.0.2")
        for address in ("10.51.0.2", "127.0.0.1"):
            own.sendto(b"out", (address, 5353))
            own.sendto(b"out", (address, 5354))
        process = start(tarbox, "one")
        now = {(flow.destination, flow.port) for port in (5353, 5354) for flow in remembered(port)}
        assert others <= now
        assert (bytes((127, 0, 0, 1)), 5353) not in now
        end(process, client)
    until_gone()


def test_nothing_is_looked_at_without_udp(tarbox):
    report = tarbox("run", "--rm", "-p", "8080:80", "host", "true", python=("-X", "importtime"))
    assert report.returncode == 0
    assert "tarbox.networks.firewall" in report.stderr
    assert "conntrack" not in report.stderr
    until_gone()


def test_many_flows():
    """More than fit into one answer, or one datagram of requests."""
    netns.output("nft", "add table inet t; add chain inet t c { type filter hook output priority 0; }")
    netns.output("nft", "add rule inet t c ct state new counter")
    for _ in range(2000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", ("127.0.0.1", 5353))
    with Netlink(NETFILTER) as own:
        found = conntrack.flows(own, 4, conntrack.UDP, 5353)
        assert len(found) > 1000
        conntrack.forget(own, found)
        assert not conntrack.flows(own, 4, conntrack.UDP, 5353)
        conntrack.forget(own, found)  # they have gone: that is no error
