"""The relay leads clients to a container where the kernel's translation can't, harms nobody, and leaves nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import select
import selectors
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from foreground import command
from relayed import (
    BIG,
    IPV4,
    IPV6,
    PORT,
    RESET,
    Published,
    alive,
    children,
    echo,
    everything,
    is_reset,
    looping,
    name,
    published,
    server,
    two_addresses,
    until,
)
from tarbox.engine import relay
from tarbox.networks.ports import read
from tarbox.networks.reservation import reserve


@pytest.fixture
def ipv6():
    """Two addresses of IPv6 beside ::1."""
    with two_addresses():
        yield


# --- The process -----------------------------------------------------------------------------------------------------


def test_there_is_no_process_until_somebody_comes_and_one_for_all_then():
    with server(echo), published(str(PORT), f"{PORT}/udp") as session:
        assert session.relays() == []
        for _ in range(3):
            with session.client() as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
        assert len(session.relays()) == 1
        serving = session.relays()[0]
    assert not alive(serving)


def test_it_is_nobody_may_nothing_and_has_nothing_but_the_ports():
    with server(echo), published(str(PORT), f"{PORT}/udp") as session, session.client() as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        (serving,) = session.relays()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{serving}/status").read_text().splitlines())
        ids = "65534\t65534\t65534\t65534"
        assert (status["Uid"], status["Gid"], status["Groups"].strip()) == (ids, ids, "")
        assert {status[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
        assert (status["NoNewPrivs"], int(status["SigBlk"], 16)) == ("1", 0)
        limits = Path(f"/proc/{serving}/limits").read_text()
        for limit in ("Max processes", "Max file size", "Max core file size"):
            assert re.search(rf"^{limit} +0 +0 ", limits, re.MULTILINE)
        opened = sorted(os.readlink(f"/proc/{serving}/fd/{number}") for number in os.listdir(f"/proc/{serving}/fd"))
        kinds = [re.sub(r":\[\d+\]", "", path) for path in opened]
        # Both epoll instances, the two ports, the client's connection and its other half.
        assert kinds == ["/dev/null"] * 3 + ["anon_inode:[eventpoll]"] * 2 + ["socket"] * 4
        assert os.getsid(serving) == serving


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_command_that_is_killed(number):
    session = Published(str(PORT))
    with server(echo), session.client() as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        (serving,) = session.relays()
        session.process.send_signal(number)
        assert session.process.wait(60) == (-9 if number == signal.SIGKILL else 143)
        session.end()
        until(lambda: not alive(serving))


def test_it_ends_when_the_session_fails():
    """Whatever happens: here the time is up, and the container is killed."""
    process = subprocess.Popen(
        command("sleep", "60", options=f"--timeout 2 --publish {PORT} --to {IPV4}"), stderr=subprocess.PIPE
    )
    port = int(process.stderr.readline())
    with server(echo), socket.create_connection(("::1", port)) as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        (serving,) = [pid for pid in children(process.pid) if name(pid) == "tarbox-relay"]
        assert process.wait(60) == 137
        assert not alive(serving)
    process.stderr.close()


def test_after_one_that_died_the_next_client_gets_another():
    with server(echo), published(str(PORT)) as session:
        for number in (signal.SIGKILL, signal.SIGTERM):
            with session.client() as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
                (serving,) = session.relays()
                os.kill(serving, number)
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(5) == b""
            until(lambda serving=serving: not Path(f"/proc/{serving}").exists())


def test_keys_of_the_terminal_dont_reach_it():
    with server(echo), published(str(PORT), process_group=0) as session, session.client() as client:
        client.sendall(b"one")
        assert client.recv(5) == b"one"
        os.killpg(session.process.pid, signal.SIGWINCH)
        (serving,) = session.relays()
        assert os.getpgid(serving) != os.getpgid(session.process.pid)


def test_where_no_process_can_be_made_it_is_said_once(monkeypatch):
    def fail() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(relay.os, "fork", fail)
    with reserve(read(str(PORT))) as reserved:
        made = relay.Relay(reserved, (IPV4,))
        with socket.create_connection(("::1", reserved.ports[0].host_first)):
            assert select.select([made], [], [], 30)[0]
            assert "clients that use IPv6 can't be led to the container: [Errno 11]" in made.attend()
        assert made.fileno() == -1
        made.close()


def test_a_port_that_one_held_back_when_it_died_is_served_by_the_next(monkeypatch):
    dead = subprocess.Popen(["true"])
    monkeypatch.setattr(relay.os, "fork", lambda: dead.pid)
    with reserve(read(str(PORT))) as reserved:
        made = relay.Relay(reserved, (IPV4,))
        with socket.create_connection(("::1", reserved.ports[0].host_first)):
            assert select.select([made], [], [], 30)[0]
            assert made.attend() == ""
            made._gate.modify(reserved.sockets[0], 0)
            assert select.select([made], [], [], 30)[0]  # its end
            assert made.attend() == ""
            assert select.select([made], [], [], 30)[0]  # the client, who still waits
        made.close()
    dead.wait()


# --- Connections -----------------------------------------------------------------------------------------------------


def test_each_side_may_end_before_the_other():
    """A half that was closed is closed on the other side, and what comes the other way still comes."""

    def answer_at_the_end(connection: socket.socket) -> None:
        connection.sendall(hashlib.sha256(everything(connection)).digest())

    def say_first(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        said.append(everything(connection))

    said: list[bytes] = []
    data = os.urandom(3 << 20)
    with published(str(PORT)) as session:
        with server(answer_at_the_end), session.client() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert everything(client) == hashlib.sha256(data).digest()
        with server(say_first):
            with session.client() as client:
                assert everything(client) == b"hello"
                client.sendall(data)
            until(lambda: said)
        assert said == [data]


def test_100_mb_each_way_at_once():
    block = os.urandom(1 << 20)
    expected = hashlib.sha256(block * (BIG >> 20)).hexdigest()

    def both_ways(connection: socket.socket) -> str:
        def send() -> None:
            for _ in range(BIG >> 20):
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        digest = hashlib.sha256()
        while part := connection.recv(1 << 18):
            digest.update(part)
        sender.join()
        found.append(digest.hexdigest())

    found: list[str] = []
    with server(both_ways), published(str(PORT)) as session, session.client() as client:
        both_ways(client)
        until(lambda: len(found) == 2)
    assert found == [expected] * 2


@pytest.fixture
def many_files():
    """Room for both ends of a thousand connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_1000_connections_at_once(many_files):
    """All are open at the same time, and each gets what it sent."""
    poller = selectors.DefaultSelector()

    def serve(listener: socket.socket) -> None:
        poller.register(listener, selectors.EVENT_READ)
        while not done.is_set():
            for key, _ in poller.select(0.1):
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    poller.register(connection, selectors.EVENT_READ)
                elif data := key.fileobj.recv(100):
                    key.fileobj.sendall(data)
                else:
                    poller.unregister(key.fileobj)
                    key.fileobj.close()

    done = threading.Event()
    with server() as listener, published(str(PORT)) as session:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        clients = [session.client() for _ in range(1000)]
        for number, client in enumerate(clients):
            client.sendall(b"%04d" % number)
        assert [client.recv(4, socket.MSG_WAITALL) for client in clients] == [b"%04d" % at for at in range(1000)]
        assert len(session.relays()) == 1
        for client in clients:
            client.close()
        until(lambda: len(poller.get_map()) == 1)
        done.set()
        thread.join()
    poller.close()


def test_where_nobody_listens_the_client_is_reset():
    with published(str(PORT), to=(IPV4, IPV6)) as session:
        assert is_reset(session, 0)
        with server(echo), session.client() as later:  # and somebody may listen later
            later.sendall(b"hello")
            assert later.recv(5) == b"hello"


def test_who_has_ipv6_is_asked_there_first_and_by_ipv4_when_nobody_listens(ipv6):
    with published(str(PORT), to=(IPV4, IPV6)) as session, server(lambda one: one.sendall(b"old")):
        with server(lambda one: one.sendall(b"new"), IPV6), session.client() as client:
            assert everything(client) == b"new"
        with session.client() as client:
            assert everything(client) == b"old"


def test_a_client_that_is_gone_is_gone_for_the_server_too():
    ends: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        try:
            ends.append(connection.recv(10))
        except ConnectionResetError:
            ends.append(b"reset")

    with server(serve), published(str(PORT)) as session:
        with session.client() as client:
            assert client.recv(5) == b"hello"
        until(lambda: ends == [b""])
        with session.client() as client:
            assert client.recv(5) == b"hello"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        until(lambda: ends == [b"", b"reset"])


def test_a_client_that_is_reset_while_the_server_doesnt_read_is_gone_too():
    with server() as listener, published(str(PORT)) as session:
        client = session.client()
        connection, _ = listener.accept()
        fill(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        poller = select.poll()
        poller.register(connection, 0)  # the end alone, whatever there is to read
        assert poller.poll(30000)
        connection.close()


def fill(client: socket.socket) -> int:
    """Send until nothing more is taken for half a second; returns how much was."""
    client.setblocking(False)
    sent, poller = 0, select.poll()
    poller.register(client, select.POLLOUT)
    while poller.poll(500):
        with contextlib.suppress(BlockingIOError):
            sent += client.send(bytes(1 << 16))
        assert sent < 256 << 20
    return sent


def test_a_server_that_is_gone_is_gone_for_the_client_too():
    def reset(connection: socket.socket) -> None:
        connection.recv(5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with published(str(PORT)) as session:
        with server(lambda connection: connection.sendall(b"bye")), session.client() as client:
            assert everything(client) == b"bye"
        with server(reset), session.client() as client:
            client.sendall(b"hello")
            with pytest.raises(ConnectionResetError):
                client.recv(5)


def test_what_a_server_said_before_it_went_is_heard_by_a_client_that_goes_on_sending():
    def refuse(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"too much")

    with server(refuse), published(str(PORT)) as session, session.client() as client:
        fill_and_forget = threading.Thread(target=send_forever, args=(client,))
        fill_and_forget.start()
        assert client.recv(8, socket.MSG_WAITALL) == b"too much"
        fill_and_forget.join()


def send_forever(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client.sendall(bytes(1 << 16))


def test_who_sends_waits_for_who_doesnt_read_and_nothing_piles_up_between():
    with server() as listener, published(str(PORT)) as session, session.client() as client:
        connection, _ = listener.accept()
        with connection:
            sent = fill(client)
            (serving,) = session.relays()
            status = Path(f"/proc/{serving}/status").read_text()
            resident = int(status.partition("RssAnon:")[2].split()[0]) << 10
            assert resident < 16 << 20
            client.setblocking(True)
            client.shutdown(socket.SHUT_WR)
            connection.settimeout(60)
            assert len(everything(connection)) == sent


def test_the_last_of_2000_ports_is_served_where_the_limit_is_1024():
    def low() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    with server(echo, port=10999), published("21001-23000:9000-10999", preexec_fn=low) as session:
        assert session.ports == list(range(21001, 23001))
        with session.client(-1) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        assert is_reset(session, 0)


def test_by_ipv4_it_works_as_well():
    """As a rule the kernel leads these clients itself."""
    with server(echo), published(str(PORT), f"127.0.0.1::{PORT}") as session:
        for at in (0, 1):
            with session.client(at, "127.0.0.1") as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"


def test_more_clients_than_may_be_wait_for_one_to_go():
    with server(echo), looping(str(PORT), most=2) as (loop, port):
        clients = [socket.create_connection(("::1", port), 60) for _ in range(4)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        assert [client.recv(1) for client in clients[:2]] == [b"0", b"1"]
        until(lambda: loop.held)
        assert select.select(clients[2:], [], [], 0.3)[0] == []
        for client in clients[:2]:
            client.close()
        assert [client.recv(1) for client in clients[2:]] == [b"2", b"3"]
        for client in clients[2:]:
            client.close()
        until(lambda: loop.connections.count == 0)
