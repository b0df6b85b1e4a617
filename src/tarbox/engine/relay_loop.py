"""What the relay's process does all day: wait for whatever can be done next, for all ports and all clients, and do it.

    socat TCP6-LISTEN:8080,fork TCP4:172.17.0.2:80 & socat UDP6-RECVFROM:5353,fork UDP4:172.17.0.2:53

The ports have an epoll instance of their own, the gate, which was there before this process: while nobody has come, the
command that waits for the container needs to look at one descriptor, however many ports there are. The loop's own
instance has the gate in it, and the clients.

man 7 epoll
"""

from __future__ import annotations

import _socket
import time
from select import EPOLLIN, epoll

from ..networks.ports import UDP
from .relay_connections import Connection, Connections
from .relay_datagrams import Datagrams, Flow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..networks.ports import Port

_BATCH = 256  # events at a time
_HELD_SECONDS = 0.2  # until a port that can take nobody is tried again


class Service:
    """A port of the host, and where in the container it leads. addresses: of the container, the best one first."""

    __slots__ = ("addresses", "container", "datagrams", "socket")

    def __init__(self, port: Port, descriptor: int, addresses: tuple[str, ...]) -> None:
        self.socket = _socket.socket(fileno=descriptor)
        self.datagrams = port.protocol == UDP
        self.container = port.container
        # Whoever comes by IPv4 here comes to an address of IPv4, else the kernel would have led him past us.
        old = port.address != "" and ":" not in port.address
        self.addresses = tuple(sorted(addresses, key=lambda address: (":" in address) == old))


class Loop:
    """Ports, clients and who of them is to be looked after. Whatever comes in, it goes on: `run` doesn't return.

    gate: has the descriptors of all services. most: how many connections there may be.
    """

    __slots__ = ("busy", "connections", "datagrams", "gate", "held", "held_until", "hub", "left", "owners", "services")

    def __init__(self, gate: epoll, services: list[Service], most: int) -> None:
        self.gate = gate
        self.services = {service.socket.fileno(): service for service in services}
        self.hub = epoll()
        self.hub.register(gate.fileno(), EPOLLIN)
        self.connections = Connections(self, most)
        self.datagrams = Datagrams(self)
        self.owners: dict[int, Connection | Flow] = {}
        self.busy: set[Connection] = set()  # those with more to move than they got to
        self.left: list[_socket.socket] = []
        self.held: list[int] = []  # ports that can take nobody now
        self.held_until = 0.0

    def watch(self, end: _socket.socket, events: int, owner: Connection | Flow) -> None:
        """From now on the owner is told what happens at this socket."""
        self.hub.register(end.fileno(), events)
        self.owners[end.fileno()] = owner

    def leave(self, end: _socket.socket) -> None:
        """Close a socket, after all events that may be about it are done with: its number is another's then."""
        self.owners.pop(end.fileno(), None)
        self.left.append(end)

    def run(self) -> None:
        """Serve."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait for the next events, and do what they ask for."""
        came = False
        for number, events in self.hub.poll(self._patience(), _BATCH):
            if number == self.gate.fileno():
                came = True
            elif owner := self.owners.get(number):
                owner.attend(number, events)
        busy, self.busy = self.busy, set()
        for connection in busy:
            connection.move()
        if came:
            self._admit()
        self.datagrams.expire()
        while self.left:
            self.left.pop().close()
        if self.held and time.monotonic() >= self.held_until:
            while self.held:
                self.gate.modify(self.held.pop(), EPOLLIN)

    def _patience(self) -> float | None:
        if self.busy:
            return 0
        patience = self.datagrams.patience()
        if self.held:
            rest = max(0.0, self.held_until - time.monotonic())
            return rest if patience is None else min(rest, patience)
        return patience

    def _admit(self) -> None:
        for number, _ in self.gate.poll(0, _BATCH):
            service = self.services[number]
            if service.datagrams:
                self.datagrams.receive(service)
            elif not self.connections.accept(service):
                self.gate.modify(number, 0)
                self.held.append(number)
                self.held_until = time.monotonic() + _HELD_SECONDS
