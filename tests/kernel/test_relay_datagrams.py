"""Datagrams are relayed: each client gets its answers, from where it asked, and nobody is remembered for ever."""

from __future__ import annotations

import os
import select
import socket

import pytest

from relayed import (
    IPV4,
    IPV6,
    OTHER,
    PORT,
    back,
    datagram_server,
    looping,
    published,
    two_addresses,
    until,
)
from tarbox.engine import relay_datagrams


@pytest.fixture
def ipv6():
    """Two addresses of IPv6 beside ::1."""
    with two_addresses():
        yield


def test_each_client_gets_the_answers_that_are_its_own():
    ports = set()

    def answer(data: bytes, client: tuple[str, int]) -> list[bytes]:
        ports.add(client[1])
        return [b"1" + data, b"2" + data]

    with datagram_server(answer), published(f"{PORT}/udp") as session:
        clients = [session.datagrams() for _ in range(20)]
        for turn in (b"a", b"b"):
            for number, client in enumerate(clients):
                client.send(turn + b"%d" % number)
            for number, client in enumerate(clients):
                assert {client.recv(100), client.recv(100)} == {
                    b"1" + turn + b"%d" % number,
                    b"2" + turn + b"%d" % number,
                }
        assert len(ports) == 20  # one for each client, and the same each time
        for client in clients:
            client.close()


def test_a_datagram_of_any_size_goes_through():
    with datagram_server(back), published(f"{PORT}/udp") as session, session.datagrams() as client:
        for size in (0, 1, 1472, 9000, 65000):
            data = os.urandom(size)
            client.send(data)
            assert client.recv(1 << 16) == data


def test_the_answer_comes_from_the_address_that_was_written_to(ipv6):
    with datagram_server(back), published(f"{PORT}/udp", f"0.0.0.0::{PORT}/udp") as session:
        for address in ("::1", IPV6, OTHER):
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                client.settimeout(60)
                client.sendto(b"hello", (address, session.ports[0]))
                assert client.recvfrom(100)[1][:2] == (address, session.ports[0])
        for port in session.ports:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(60)
                client.sendto(b"hello", ("127.0.0.3", port))
                assert client.recvfrom(100)[1] == ("127.0.0.3", port)


def test_a_datagram_that_nobody_takes_by_ipv6_goes_there_by_ipv4(ipv6):
    with datagram_server(lambda data, client: [b"old" + data]), published(f"{PORT}/udp", to=(IPV4, IPV6)) as session:
        with session.datagrams() as client:
            client.send(b"1")
            assert client.recv(100) == b"old1"
            client.send(b"2")
            assert client.recv(100) == b"old2"
        with datagram_server(lambda data, client: [b"new" + data], IPV6), session.datagrams() as client:
            client.send(b"3")
            assert client.recv(100) == b"new3"


def test_where_nobody_listens_a_datagram_is_lost_and_a_later_one_isnt():
    with published(f"{PORT}/udp") as session, session.datagrams() as client:
        client.send(b"1")
        until(session.relays)
        with datagram_server(back):

            def answered() -> bool:
                client.send(b"2")
                return bool(select.select([client], [], [], 0.1)[0])

            until(answered)
            assert client.recv(100) == b"2"


def test_of_clients_that_send_datagrams_only_the_latest_are_remembered(monkeypatch):
    monkeypatch.setattr(relay_datagrams, "MOST", 2)
    with datagram_server(back), looping(f"{PORT}/udp") as (loop, port):
        for number in range(5):
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                client.settimeout(60)
                client.sendto(b"%d" % number, ("::1", port))
                assert client.recv(10) == b"%d" % number
                assert len(loop.datagrams.flows) <= 2


def test_a_client_that_was_idle_for_long_is_forgotten(monkeypatch):
    monkeypatch.setattr(relay_datagrams, "IDLE_SECONDS", 0.2)
    with (
        datagram_server(back),
        looping(f"{PORT}/udp") as (loop, port),
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(60)
        client.sendto(b"hello", ("::1", port))
        assert client.recv(10) == b"hello"
        until(lambda: not loop.datagrams.flows)
        assert not loop.owners
        client.sendto(b"again", ("::1", port))
        assert client.recv(10) == b"again"
