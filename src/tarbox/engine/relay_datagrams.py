"""Datagrams that are relayed: a client's go to the container, and what comes back goes to that client.

    socat -T90 UDP6-RECVFROM:5353,fork UDP4:172.17.0.2:53

Each client gets a socket of its own towards the container, so that answers find their way, and keeps it until nothing
has come through for a while. Answers leave from the address that the client wrote to.

man 7 udp, man 7 ipv6 (IPV6_PKTINFO), man 7 ip (IP_PKTINFO)
"""

from __future__ import annotations

import _socket
import time
from select import EPOLLIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from .relay_loop import Loop, Service

    Address: TypeAlias = tuple[Any, ...]

IDLE_SECONDS = 90.0
MOST = 1024  # clients
_LARGEST = 1 << 16
_BATCH = 32  # datagrams of one socket, until it is another's turn
_CONTROL = 64  # bytes, more than either form of the address needs
_IPV6_PKTINFO, _IP_PKTINFO = 50, 8
_DATAGRAMS = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC


class Datagrams:
    """All clients, who sent or got something last at the end."""

    __slots__ = ("flows", "loop")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.flows: dict[object, Flow] = {}

    def receive(self, service: Service) -> None:
        """Hand on what has come for a port."""
        for _ in range(_BATCH):
            try:
                data, control, _, client = service.socket.recvmsg(_LARGEST, _CONTROL)
            except OSError:
                return
            own = _answering(control)
            key = (service.socket.fileno(), client, *own)
            flow = self.flows.get(key)
            if flow is None:
                if len(self.flows) >= MOST:
                    self.flows[next(iter(self.flows))].end()
                flow = Flow(self, key, service, client, own)
            flow.use()
            flow.send(data)

    def patience(self) -> float | None:
        """Seconds until somebody may have been idle for too long; None without clients."""
        for flow in self.flows.values():
            return max(0.0, flow.used + IDLE_SECONDS - time.monotonic())
        return None

    def expire(self) -> None:
        """Forget who has been idle for too long."""
        before = time.monotonic() - IDLE_SECONDS
        for flow in list(self.flows.values()):
            if flow.used > before:
                return
            flow.end()


def _answering(control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What makes an answer leave from the address that was written to."""
    for level, kind, data in control:
        if (level, kind) == (_socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            # By whatever interface leads there; only an address that each interface may have needs its own.
            return [(level, kind, data if data.startswith(b"\xfe\x80") else data[:16] + bytes(4))]
        if (level, kind) == (_socket.IPPROTO_IP, _IP_PKTINFO):
            return [(level, kind, bytes(4) + data[4:8] + bytes(4))]
    return []


class Flow:
    """One client at one port. used: when something came through last."""

    __slots__ = ("addresses", "all", "answered", "client", "end_there", "key", "last", "own", "service", "used")

    def __init__(
        self, all: Datagrams, key: object, service: Service, client: Address, own: list[tuple[int, int, bytes]]
    ) -> None:
        self.all = all
        self.key = key
        self.service = service
        self.client = client
        self.own = own
        self.addresses = list(service.addresses)
        self.last = b""  # the datagram that may have been for nobody, as long as there is another address
        self.answered = False
        self.used = 0.0
        self.end_there: _socket.socket | None = None
        self._connect()

    def use(self) -> None:
        """Note that the client is there: it goes to the end of the row."""
        self.used = time.monotonic()
        self.all.flows.pop(self.key, None)
        self.all.flows[self.key] = self

    def end(self) -> None:
        """Forget the client."""
        self.all.flows.pop(self.key, None)
        self._leave()

    def _leave(self) -> None:
        if self.end_there:
            self.all.loop.leave(self.end_there)
            self.end_there = None

    def _connect(self) -> bool:
        """Turn to the next of the container's addresses; False if there is none."""
        self._leave()
        while self.addresses:
            address = self.addresses.pop(0)
            try:
                made = _socket.socket(_socket.AF_INET6 if ":" in address else _socket.AF_INET, _DATAGRAMS)
            except OSError:
                return False
            try:
                made.connect((address, self.service.container))
                self.all.loop.watch(made, EPOLLIN, self)
            except OSError:
                self.all.loop.leave(made)
                continue
            self.end_there = made
            return True
        return False

    def send(self, data: bytes) -> None:
        """Send a datagram to the container. One that doesn't get through is lost, as datagrams may be."""
        self.last = data if self.addresses and not self.answered else b""
        try:
            if self.end_there:
                self.end_there.send(data, _socket.MSG_NOSIGNAL)
        except ConnectionRefusedError:  # the one before was
            self._refused()
        except OSError:
            pass

    def _refused(self) -> None:
        """Nobody is there at that address; the datagram goes to the next one."""
        if not self.answered and self.addresses and self._connect():
            self.send(self.last)

    def attend(self, number: int, events: int) -> None:
        """Hand back what has come from the container."""
        for _ in range(_BATCH):
            if not self.end_there:
                return
            try:
                data = self.end_there.recv(_LARGEST)
            except ConnectionRefusedError:
                self._refused()
                return
            except OSError:
                return
            self.answered, self.last = True, b""
            self.use()
            try:
                self.service.socket.sendmsg([data], self.own, _socket.MSG_NOSIGNAL, self.client)
            except OSError:
                pass
