"""Connections that are relayed: what one side sends, the other one gets, in both directions, until both have ended.

    socat TCP6-LISTEN:8080,fork TCP4:172.17.0.2:80

Nothing is kept here: bytes are looked at (MSG_PEEK), sent on as far as the other side takes them, and only then taken
out of the queue that they came in (MSG_TRUNC). So who doesn't read slows down who writes, as without a relay, and
what a connection costs is what the kernel lets a connection have.

Events come edge-triggered: each says once that something can be read or written, and it is remembered until a call says
otherwise. So a side that is waited for by nobody wakes nobody.

man 7 tcp, man 7 epoll, man 2 shutdown
"""

from __future__ import annotations

import _socket
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .relay_loop import Loop, Service

NEAR, FAR = 0, 1  # the client's side, the container's side

_EVENTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
_CHUNK = 1 << 16
_ROUNDS = 16  # chunks of one connection, until it is another's turn
_BATCH = 64  # connections that are accepted at a time
_RESENDS = 3  # of the first packet to a container that doesn't answer at all: 15 s
_NON_BLOCKING = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
_RESET = (1).to_bytes(4, "little") + bytes(4)  # struct linger: on, and 0 s
_ALIVE = (  # peers that are gone without a word are found out after some two minutes
    (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, 60),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, 15),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, 4),
    (_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1),
)

_memory = bytearray(_CHUNK)
_view = memoryview(_memory)


class Connections:
    """All of them. most: how many there may be; more wait to be accepted."""

    __slots__ = ("count", "loop", "most")

    def __init__(self, loop: Loop, most: int) -> None:
        self.loop = loop
        self.most = most
        self.count = 0

    def accept(self, service: Service) -> bool:
        """Take in who waits at a port; False if that can't go on for now."""
        for _ in range(_BATCH):
            if self.count >= self.most:
                return False
            try:
                number, _ = service.socket._accept()  # type: ignore[attr-defined]  # what `socket` makes its accept of
            except (BlockingIOError, ConnectionAbortedError):
                return True
            except OSError:  # no memory, no descriptors: it may be there in a moment
                return False
            client = _socket.socket(fileno=number)
            client.setblocking(False)
            self.count += 1
            Connection(self, client, service)
        return True


class Connection:
    """One client and the container's program that it came for."""

    __slots__ = ("addresses", "all", "connecting", "ends", "flowing", "port", "readable", "writable")

    def __init__(self, all: Connections, client: _socket.socket, service: Service) -> None:
        self.all = all
        self.addresses = list(service.addresses)
        self.port = service.container
        self.ends = [client]
        self.connecting = True
        self.flowing = [True, True]  # from this side to the other
        self.readable = [False, False]
        self.writable = [False, False]
        try:
            self._watch(client)
            self._connect()
        except OSError:
            self._end(reset=True)

    def _watch(self, end: _socket.socket) -> None:
        for option in _ALIVE:
            end.setsockopt(*option)
        self.all.loop.watch(end, _EVENTS, self)

    def _connect(self) -> None:
        """Begin to connect to the next of the container's addresses; without one the client is told so by a reset."""
        while self.addresses:
            address = self.addresses.pop(0)
            try:
                end = _socket.socket(_socket.AF_INET6 if ":" in address else _socket.AF_INET, _NON_BLOCKING)
            except OSError:
                continue
            try:
                end.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_SYNCNT, _RESENDS)
                try:
                    end.connect((address, self.port))
                except BlockingIOError:
                    pass
                self._watch(end)
            except OSError:
                self.all.loop.leave(end)
                continue
            self.ends.append(end)
            return
        self._end(reset=True)

    def attend(self, number: int, events: int) -> None:
        """Something happened at the end with this descriptor."""
        side = NEAR if number == self.ends[NEAR].fileno() else FAR
        if side == NEAR and events & EPOLLERR:
            self._end(reset=True)
            return
        if side == FAR and self.connecting:
            if events & (EPOLLERR | EPOLLHUP) or self.ends[FAR].getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
                self.all.loop.leave(self.ends.pop())
                self._connect()
                return
            self.connecting = not events & EPOLLOUT
        if events & ~EPOLLOUT:
            self.readable[side] = True
        if events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            self.writable[side] = True
        if not self.connecting:
            self.move()

    def move(self) -> None:
        """Move what can be moved, up to a fair share; the rest follows when it is this connection's turn again."""
        for source, sink in ((NEAR, FAR), (FAR, NEAR)):
            for _ in range(_ROUNDS):
                if not (self.flowing[source] and self.readable[source] and self.writable[sink]):
                    break
                try:
                    self._move_chunk(source, sink)
                except OSError:
                    self._end(reset=True)
                    return
            else:
                self.all.loop.busy.add(self)
        if not any(self.flowing):
            self._end()

    def _move_chunk(self, source: int, sink: int) -> None:
        try:
            size = self.ends[source].recv_into(_memory, _CHUNK, _socket.MSG_PEEK)
        except BlockingIOError:
            self.readable[source] = False
            return
        try:
            if size:
                size = self.ends[sink].send(_view[:size], _socket.MSG_NOSIGNAL)
            else:
                self.flowing[source] = False
                self.ends[sink].shutdown(_socket.SHUT_WR)
        except BlockingIOError:
            self.writable[sink] = False
            return
        except OSError:
            if sink == NEAR:
                raise
            self.flowing[source] = False  # it takes no more, but may have said something before it went
            self.readable[sink] = True
            return
        if size:
            self.ends[source].recv_into(_memory, size, _socket.MSG_TRUNC)

    def _end(self, reset: bool = False) -> None:
        for end in self.ends:
            if reset:
                try:
                    end.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
                except OSError:
                    pass
            self.all.loop.leave(end)
        self.ends.clear()
        self.flowing = [False, False]
        self.all.loop.busy.discard(self)
        self.all.count -= 1
