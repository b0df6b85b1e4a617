"""Netlink: the language in which the kernel is told about network interfaces.

    ip link set lo up

A new network namespace has one interface, `lo`, and it is down. A message is a header, the request's own structure and
attributes; the kernel answers each with a number: 0, or an errno.

man 7 netlink, man 7 rtnetlink
"""

from __future__ import annotations

import os

from ..errors import KernelError
from ..plan.step import CHILD, Slots, Step
from .syscall import syscall

_AF_NETLINK, _SOCK_RAW, _SOCK_CLOEXEC, _NETLINK_ROUTE = 16, 3, 0o2000000, 0
_RTM_NEWLINK, _NLM_F_REQUEST, _NLM_F_ACK, _IFF_UP = 16, 1, 4, 1
_LOOPBACK = 1  # lo is always the first interface


def message(kind: int, flags: int, body: bytes) -> bytes:
    """One netlink message with its header."""
    header = (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little") + flags.to_bytes(2, "little")
    return header + (1).to_bytes(4, "little") + bytes(4) + body


def request(text: bytes, what: str) -> None:
    """Send one message to the route family and wait for the kernel's answer; raises KernelError.

    what: how people call it, for the error.
    """
    socket = syscall("socket", _AF_NETLINK, _SOCK_RAW | _SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        os.write(socket, text)
        answer = os.read(socket, 8192)
    except OSError as error:
        raise KernelError("netlink", (what,), error.errno or 0) from None
    finally:
        os.close(socket)
    errno = -int.from_bytes(answer[16:20], "little", signed=True)
    if errno:
        raise KernelError("netlink", (what,), errno)


class LoopbackUp(Step):
    """Bring the loopback interface up."""

    __slots__ = ()

    phase = "namespaces"
    why = "a new network namespace has nothing but lo, and that is down; 127.0.0.1 works only once it is up"
    man = "rtnetlink(7), network_namespaces(7)"

    def __init__(self, by: str = CHILD) -> None:
        super().__init__(by)

    def apply(self, slots: Slots) -> None:
        link = bytes(4) + _LOOPBACK.to_bytes(4, "little") + _IFF_UP.to_bytes(4, "little") * 2
        request(message(_RTM_NEWLINK, _NLM_F_REQUEST | _NLM_F_ACK, link), "lo up")

    def call(self) -> str:
        return "sendto(NETLINK_ROUTE, RTM_NEWLINK lo IFF_UP)"

    def shell(self) -> str:
        return "ip link set lo up"
