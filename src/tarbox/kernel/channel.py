"""A channel between two processes: whole messages, and open descriptors with them (`SCM_RIGHTS`).

    there is no shell command for it; `ss -xp` shows the two ends

A pair of connected sockets of the kind SOCK_SEQPACKET. `_socket` would do, but loading it costs more than all the
messages of a container's start; so the four calls are made here.

man 2 socketpair, man 2 sendmsg, man 7 unix
"""

from __future__ import annotations

from errno import ECONNRESET, EINTR

from ..errors import KernelError
from ..unistd import os
from .syscall import addressof, buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_AF_UNIX, _SOCK_SEQPACKET, _SOCK_CLOEXEC = 1, 5, 0o2000000
_SOL_SOCKET, _SCM_RIGHTS = 1, 1
_MSG_NOSIGNAL, _MSG_CMSG_CLOEXEC = 0x4000, 0x40000000
_LARGEST, _MOST_DESCRIPTORS = 65536, 64


class Channel:
    """One end. A message that was sent arrives whole or not at all; an empty one means that the other end is closed."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The socket."""
        return self._descriptor

    def send(self, message: bytes, descriptors: list[int]) -> None:
        """Send one message of 1 byte to 64 KiB, with up to 64 descriptors; raises KernelError when nobody listens."""
        data = _block(message)
        control = b""
        if descriptors:
            numbers = b"".join(number.to_bytes(4, "little") for number in descriptors)
            control = _word(16 + len(numbers)) + _SOL_SOCKET.to_bytes(4, "little") + _SCM_RIGHTS.to_bytes(4, "little")
            control += numbers + bytes(-len(numbers) % 8)
        attached = _block(control or bytes(8))
        vector = _block(_word(addressof(data)) + _word(len(message)))
        header = _header(addressof(vector), addressof(attached), len(control))
        try:
            syscall("sendmsg", self._descriptor, header, _MSG_NOSIGNAL)
        except KernelError as error:  # its arguments are addresses, which say nothing
            raise KernelError("sendmsg", (f"{len(message)} bytes",), error.errno) from None

    def receive(self) -> tuple[bytes, list[int]]:
        """Wait for one message; (b"", []) when the other end is closed. The descriptors are close-on-exec."""
        data, attached = buffer(_LARGEST), buffer(16 + 4 * _MOST_DESCRIPTORS)
        vector = _block(_word(addressof(data)) + _word(_LARGEST))
        header = _block(_header(addressof(vector), addressof(attached), 16 + 4 * _MOST_DESCRIPTORS))
        while True:
            try:
                size = syscall("recvmsg", self._descriptor, header, _MSG_CMSG_CLOEXEC)
                break
            except KernelError as error:
                # Told once, when the other end was closed before it had read all; what it wrote comes after that.
                if error.errno not in (EINTR, ECONNRESET):
                    raise
        used = int.from_bytes(bytes(header)[40:48], "little")
        control = bytes(attached)[:used]
        numbers = control[16 : int.from_bytes(control[:8], "little")] if used >= 16 else b""
        descriptors = [int.from_bytes(numbers[at : at + 4], "little") for at in range(0, len(numbers), 4)]
        return bytes(data[:size]), descriptors

    def close(self) -> None:
        """Close this end, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def pair() -> tuple[Channel, Channel]:
    """Two connected ends."""
    ends = buffer(8)
    syscall("socketpair", _AF_UNIX, _SOCK_SEQPACKET | _SOCK_CLOEXEC, 0, ends)
    both = bytes(ends)
    return Channel(int.from_bytes(both[:4], "little")), Channel(int.from_bytes(both[4:], "little"))


def _word(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _header(vector: int, control: int, control_size: int) -> bytes:
    """A `struct msghdr` without an address."""
    return bytes(16) + _word(vector) + _word(1) + _word(control if control_size else 0) + _word(control_size) + bytes(8)


def _block(content: bytes) -> Any:
    """The content in memory that has an address and stays where it is."""
    made = buffer(len(content))
    made[:] = content
    return made
