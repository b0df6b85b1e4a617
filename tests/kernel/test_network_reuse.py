"""A port that is published again and again: whoever talks to it talks to the container that has it now.

The kernel remembers where the datagrams of one sender go to. man 8 conntrack
"""

from __future__ import annotations

import pytest

import puppets
from neighbours import HOST

LOOPBACK = "127.0.0.1"


def heard_by(tarbox, name, ask, *options):
    """The answer that a client has from a new container, `name`, with the port published."""
    with puppets.box(tarbox, "-h", name, "-p", "5353:53/udp", *options) as box:
        box.serve(53)
        return ask()


@pytest.mark.parametrize("who", ["host", "neighbour"])
def test_a_client_that_goes_on_sending_is_heard_by_the_next_container(tarbox, neighbour, who):
    """From the same port as before, without a pause: before there is a container, with it, and with its successor."""
    with puppets.here() as host:
        client, address = (host, LOOPBACK) if who == "host" else (neighbour, HOST[4])

        def ask():
            return client.ask_udp(address, 5353, seconds=0.3, source_port=7777, tries=3)

        assert ask() is None  # remembered as one for the host itself
        assert "first got" in (heard_by(tarbox, "first", ask) or "")
        assert ask() is None
        with puppets.box(tarbox):  # has the address that the first one had, should the next free one be given
            assert "second got" in (heard_by(tarbox, "second", ask) or "")


def test_a_connection_ends_with_its_container(tarbox, neighbour):
    """Its successor at the same address is told of a connection that it doesn't know, and says so at once."""
    with puppets.box(tarbox, "-p", "9000:9000") as box:
        box.serve(9000, kind="tcp")
        assert neighbour.ask_tcp(HOST[4], 9000)
    assert neighbour.ask_tcp(HOST[4], 9000, seconds=0.5) is None
    with puppets.box(tarbox, "-h", "next", "-p", "9000:9000") as box:
        box.serve(9000, kind="tcp")
        assert "next got" in neighbour.ask_tcp(HOST[4], 9000)


def test_what_was_published_is_gone_with_the_container(tarbox, neighbour):
    """The port is nobody's again: a server of the host's own can have it, and is reached."""
    with puppets.here() as host:
        with puppets.box(tarbox, "-p", "9000:9000", "-p", "9000:9000/udp") as box:
            box.serve(9000, kind="tcp")
            box.serve(9000)
            assert neighbour.ask_tcp(HOST[4], 9000)
            assert neighbour.ask_udp(HOST[4], 9000)
        host.serve(9000, kind="tcp")
        host.serve(9000)
        assert host.evaluate("socket.gethostname()") in neighbour.ask_tcp(HOST[4], 9000)
        assert host.evaluate("socket.gethostname()") in neighbour.ask_udp(HOST[4], 9000)
