"""Published ports without a container: addresses of this host's loopback stand for it, and a cat runs in a session."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from foreground import command
from tarbox.engine.relay_loop import Loop, Service
from tarbox.networks.ports import read
from tarbox.networks.reservation import reserve

IPV4 = "127.0.0.2"
IPV6, OTHER = "fd00:77::2", "fd00:77::9"
PORT = 9000
BIG = 100 << 20
RESET = struct.pack("ii", 1, 0)


@contextlib.contextmanager
def two_addresses():
    """Two addresses of IPv6 beside ::1."""
    for address in (IPV6, OTHER):
        subprocess.run(["ip", "-6", "address", "add", f"{address}/128", "dev", "lo", "nodad"], check=True)
    try:
        yield
    finally:
        for address in (IPV6, OTHER):
            subprocess.run(["ip", "-6", "address", "del", f"{address}/128", "dev", "lo"], check=True)


class Published:
    """A session whose container is a cat, with published ports."""

    def __init__(self, *texts: str, to: tuple[str, ...] = (IPV4,), **options) -> None:
        words = [*(f"--publish {text}" for text in texts), *(f"--to {address}" for address in to)]
        self.process = subprocess.Popen(
            command("cat", options=" ".join(["-i", *words])), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, **options,
        )  # fmt: skip
        self.ports = [int(word) for word in self.process.stderr.readline().split()]

    def client(self, at: int = 0, address: str = "::1") -> socket.socket:
        made = socket.create_connection((address, self.ports[at]), 60)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def datagrams(self, at: int = 0, address: str = "::1") -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.settimeout(60)
        made.connect((address, self.ports[at]))
        return made

    def relays(self) -> list[int]:
        """The processes that serve."""
        return [pid for pid in children(self.process.pid) if name(pid) == "tarbox-relay"]

    def end(self) -> int:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait(60)
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def published(*texts: str, to: tuple[str, ...] = (IPV4,), **options):
    made = Published(*texts, to=to, **options)
    try:
        yield made
    finally:
        code = made.end()
    assert code == 0


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"\nPPid:\t{pid}\n" in (entry / "status").read_text():
                found.append(int(entry.name))
    return found


def name(pid: int) -> str:
    return Path("/proc", str(pid), "comm").read_text().strip()


def until(true) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it didn't come to that"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def server(serve=None, address: str = IPV4, port: int = PORT):
    """A listener; with `serve`, each connection is given to that function, in a thread of its own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=4096) as listener:
        threads = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.settimeout(60)
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

        def one(connection: socket.socket) -> None:
            with connection:
                serve(connection)

        if serve:
            main = threading.Thread(target=accept)
            main.start()
        try:
            yield listener
        finally:
            if serve:
                listener.shutdown(socket.SHUT_RDWR)
                main.join()
                for thread in threads:
                    thread.join()


def is_reset(session: Published, at: int) -> bool:
    """Whether a client is reset, at once or when it reads."""
    try:
        with session.client(at) as client:
            return client.recv(1) is None
    except ConnectionResetError:
        return True


def everything(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def echo(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            connection.sendall(data)


@contextlib.contextmanager
def datagram_server(answer, address: str = IPV4):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind((address, PORT))

        def serve() -> None:
            while True:
                data, client = own.recvfrom(1 << 16)
                if data == b"end":
                    return
                for part in answer(data, client):
                    own.sendto(part, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield own
        finally:
            with socket.socket(own.family, socket.SOCK_DGRAM) as stop:
                stop.sendto(b"end", (address, PORT))
            thread.join()


def back(data: bytes, client: object) -> list[bytes]:
    return [data]


@contextlib.contextmanager
def looping(text: str, most: int = 10):
    """The loop in a thread of this process, for bounds that take too long to reach otherwise; gives the port."""
    with reserve(read(text)) as reserved, select.epoll() as gate:
        services = [Service(reserved.ports[0], os.dup(reserved.sockets[0]), (IPV4,))]
        gate.register(services[0].socket, select.EPOLLIN)
        loop = Loop(gate, services, most)
        reader, writer = socket.socketpair()
        with reader, writer:
            loop.hub.register(reader, select.EPOLLIN)  # nobody's: it only wakes the loop

            def run() -> None:
                while not select.select([reader], [], [], 0)[0]:
                    loop.turn()

            thread = threading.Thread(target=run)
            thread.start()
            try:
                yield loop, reserved.ports[0].host_first
            finally:
                writer.send(b"end")
                thread.join()
                for end in [*loop.left, *(end for one in set(loop.owners.values()) for end in ends(one))]:
                    end.close()
                services[0].socket.close()
                loop.hub.close()


def ends(owner) -> list[socket.socket]:
    return owner.ends if hasattr(owner, "ends") else [owner.end_there]
