"""Ports of the host, taken before the container is there: nobody else gets them, and who has one already is told of.

    nc -l 8080 &            a program that listens takes a port

For each port there is a real socket. What the kernel translates for a container never gets to it, so that nothing but
the kernel's own rules (one listener for an address and a port) decides about conflicts: with programs of the host, with
other containers, with other engines. A single socket takes a port of all addresses, of IPv4 and of IPv6.

man 7 ip, man 7 ipv6, man 2 bind, man 2 listen
"""

from __future__ import annotations

import _socket
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT
from fcntl import F_DUPFD_CLOEXEC, fcntl

from ..errors import KernelError, PortError, UnsupportedError
from ..kernel import rlimits
from ..unistd import os
from .ports import PROTOCOLS, SCTP, TCP, UDP, Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BACKLOG = 1024
_ENOUGH = 256  # descriptors that this process needs for everything else
_V6ONLY = _socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY
_TELL_IPV6, _TELL_IPV4 = (_socket.IPPROTO_IPV6, 49), (_socket.IPPROTO_IP, 8)  # IPV6_RECVPKTINFO, IP_PKTINFO
_LISTS = {TCP: "-ltnp", UDP: "-lunp", SCTP: "-lSnp"}
_PRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class Reserved:
    """Ports that are taken. ports: with the numbers that they got. sockets: the descriptor of each; none waits.

    Those of TCP listen, those of UDP are bound, and those of SCTP are bound and refuse whoever comes.
    """

    __slots__ = ("ports", "sockets")

    def __init__(self, ports: list[Port], sockets: list[int]) -> None:
        self.ports = ports
        self.sockets = sockets

    def close(self) -> None:
        """Give the ports back; a second call does nothing."""
        while self.sockets:
            os.close(self.sockets.pop())

    def __enter__(self) -> Reserved:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def reserve(ports: Sequence[Port]) -> Reserved:
    """Take all of these ports of the host, or none; the same port for the same purpose is taken once.

    Raises PortError when one is in use or may not be taken, and UnsupportedError for what the kernel lacks.
    """
    wanted: list[Port] = []
    single: set[Port] = set()
    for port in ports:
        if port not in single:
            wanted.append(port)
        if port.host_first and port.host_first == port.host_last:
            single.add(port)
    order = sorted(range(len(wanted)), key=lambda at: _freedom(wanted[at]))
    got: dict[int, tuple[Port, int]] = {}
    room = _Room(len(wanted))
    try:
        for at in order:
            got[at] = _take(wanted[at], room, got)
    except BaseException:
        for _, descriptor in got.values():
            os.close(descriptor)
        raise
    finally:
        room.leave()
    return Reserved([got[at][0] for at in range(len(wanted))], [got[at][1] for at in range(len(wanted))])


def _freedom(port: Port) -> int:
    """Single ports go first, and those that may be any go last, so that none takes another's only one."""
    return (port.host_last - port.host_first) if port.host_first else 1 << 16


class _Room:
    """Place for many descriptors, without a higher limit for what this process starts.

    The limit on open files counts only when a descriptor is made. So for many it is raised meanwhile, and they move to
    numbers above the old limit, where they stay usable, and take nobody's place.
    """

    __slots__ = ("_before", "_first")

    def __init__(self, count: int) -> None:
        soft, hard = self._before = rlimits.present("nofile")
        self._first = 0
        if count + _ENOUGH <= soft:
            return
        first = max(min(soft, hard - count - 1), _ENOUGH)
        most = first + count + 1  # one is open twice while it moves
        try:
            rlimits.set_limit("nofile", max(soft, most), max(hard, most))
        except KernelError as error:
            if error.errno != EPERM:
                raise
            raise PortError(
                f"{count} ports need as many open files, and this process may have {hard}",
                f"publish fewer, or raise the hard limit (ulimit -Hn {most})",
            ) from None
        self._first = first

    def keep(self, made: _socket.socket) -> int:
        """The descriptor of a socket, where it may stay."""
        if not self._first:
            return made.detach()
        moved = fcntl(made.fileno(), F_DUPFD_CLOEXEC, self._first)
        made.close()
        return moved

    def leave(self) -> None:
        """Make the limits what they were."""
        if self._first:
            rlimits.set_limit("nofile", *self._before)


def _take(port: Port, room: _Room, got: dict[int, tuple[Port, int]]) -> tuple[Port, int]:
    refused = OSError()
    for number in _numbers(port):
        try:
            made = _bound(port, number)
        except OSError as error:
            refused = error
            if error.errno != EADDRINUSE:
                break
            continue
        try:
            return port.at(made.getsockname()[1]), room.keep(made)
        except BaseException:
            made.close()
            raise
    raise _explained(port, refused, got) from None


def _numbers(port: Port) -> Iterator[int]:
    if port.host_first:
        return iter(range(port.host_first, port.host_last + 1))
    return iter((0, 0, 0))  # somebody may have been quicker with what the kernel chose


def _bound(port: Port, number: int) -> _socket.socket:
    """A socket that has this port of the host; raises OSError."""
    if port.address or not _socket.has_ipv6:
        return _made(port, number, port.address or "0.0.0.0")
    try:
        return _made(port, number, "::", only=False)
    except OSError as error:
        if error.errno not in (EAFNOSUPPORT, EADDRNOTAVAIL):  # the kernel has no IPv6
            raise
    return _made(port, number, "0.0.0.0")


def _made(port: Port, number: int, address: str, only: bool = True) -> _socket.socket:
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    kind = _socket.SOCK_DGRAM if port.protocol == UDP else _socket.SOCK_STREAM
    made = _socket.socket(family, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK, PROTOCOLS[port.protocol])
    try:
        if family == _socket.AF_INET6:
            made.setsockopt(*_V6ONLY, int(only))
        if port.protocol == TCP and number:  # else connections that have ended keep it for a minute
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if port.protocol == UDP and address in ("::", "0.0.0.0"):  # which of them is written to, answers have to tell
            made.setsockopt(*(_TELL_IPV6 if family == _socket.AF_INET6 else _TELL_IPV4), 1)
        made.bind((address, number))
        if port.protocol == TCP:
            made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _explained(port: Port, error: OSError, got: dict[int, tuple[Port, int]]) -> Exception:
    errno = error.errno or 0
    if errno in (EPROTONOSUPPORT, ESOCKTNOSUPPORT):
        return UnsupportedError(
            f"this kernel has no {port.protocol.upper()}: port {port.container}/{port.protocol} can't be published",
            f"`modprobe {port.protocol}` loads it where it is a module",
        )
    if errno == EADDRINUSE:
        return _in_use(port, got)
    if errno == EADDRNOTAVAIL:
        return PortError(f"this host has no address {port.address}", "`ip address` lists those that it has")
    if errno == EACCES and 0 < port.host_first < (least := _unprivileged()):
        return PortError(
            f"port {port.host()} is below {least}, where only root may take one",
            f"choose one from {least} up, or lower the setting net.ipv4.ip_unprivileged_port_start",
        )
    return KernelError("bind", (port.host(),), errno)


def _in_use(port: Port, got: dict[int, tuple[Port, int]]) -> PortError:
    if not port.host_first:
        return PortError(f"no port of the host is free for {port.container}/{port.protocol} of the container")
    if port.host_first != port.host_last:
        return PortError(f"none of the ports {port.host()} of the host is free", "choose others")
    for other, _ in got.values():
        if (other.protocol, other.host_first) == (port.protocol, port.host_first):
            return PortError(
                f"port {port.host()} of the host can't be published twice, "
                f"for {other.container} and {port.container} of the container",
                "choose another for one of them",
            )
    return PortError(
        f"port {port.host()} is already in use on the host",
        f"`ss {_LISTS[port.protocol]} 'sport = :{port.host_first}'` tells who has it; choose another, or none for any",
    )


def _unprivileged() -> int:
    try:
        with open(_PRIVILEGED, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024
