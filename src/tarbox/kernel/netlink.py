"""Netlink: messages to the kernel about interfaces, addresses, routes and packet filters, and its answers.

    ip monitor all        strace -e trace=%net -v ip link        shows such messages, taken apart

A request is a header of 16 bytes, a fixed part of its kind, and attributes: a length, a type, a value, each on a
boundary of 4 bytes; an attribute may hold attributes. Several requests fit into one datagram. The kernel does all of it
before the call returns, and its answers are there then; so nothing here ever waits.

man 7 netlink, man 7 rtnetlink; https://docs.kernel.org/userspace-api/netlink/intro.html
"""

from __future__ import annotations

from errno import EAGAIN, EINTR, ENOBUFS, ENOPROTOOPT, EPERM

from ..errors import KernelError
from ..unistd import os
from .syscall import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    T = TypeVar("T")

ROUTE, NETFILTER = 0, 12  # protocols
REQUEST, ACK, ROOT, MATCH, REPLACE, EXCL, CREATE, APPEND = 1, 4, 0x100, 0x200, 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000

_AF_NETLINK, _SOCK_RAW, _SOCK_CLOEXEC, _SOCK_NONBLOCK = 16, 3, 0o2000000, 0o4000
_SOL_SOCKET, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 1, 32, 33
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_ERROR, _DONE = 2, 3  # types of answers
_DUMP_INTERRUPTED, _CAPPED, _HAS_REASON = 0x10, 0x100, 0x200  # their flags
_TEXT, _OFFSET = 1, 2  # NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS
_CLONE_NEWNET = 0x40000000
_HEADER = 16
_LARGEST = 65536
_USUAL_BUFFER = 160 << 10  # bytes that a socket sends at once, with room to spare
_TRIES = 20  # of a list that changes while it is read
_HINTS = {EPERM: "it takes CAP_NET_ADMIN in the user namespace that owns the network namespace"}


class NetlinkError(KernelError):
    """The kernel refused a request.

    index: which of those that were sent together. text: its own words, or "". offset: of the attribute in the request's
    body that it dislikes, or -1.
    """

    def __init__(self, call: str, errno: int, index: int = 0, text: str = "", offset: int = -1, hint: str = "") -> None:
        super().__init__(call, None, errno, hint or _HINTS.get(errno, ""))
        if text:
            self.message += f": {text}"
        self.index = index
        self.text = text
        self.offset = offset


class Message:
    """One request. body: what follows its header.

    said: how people read it, e.g. "RTM_NEWLINK box0", or a function that makes that text when somebody wants to.
    """

    __slots__ = ("_said", "body", "flags", "type")

    def __init__(self, type: int, flags: int, body: bytes, said: str | Callable[[], str]) -> None:
        self.type = type
        self.flags = flags
        self.body = body
        self._said = said

    @property
    def said(self) -> str:
        """How people read it."""
        return self._said if isinstance(self._said, str) else self._said()

    def __repr__(self) -> str:
        return self.said


# --- Bytes -----------------------------------------------------------------------------------------------------------


def attribute(type: int, value: bytes) -> bytes:
    """One attribute, at most 65531 bytes of value."""
    size = len(value) + 4
    return (size | type << 16).to_bytes(4, "little") + value + bytes(-size & 3)


def nested(type: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(type | NESTED, b"".join(attributes))


def text(type: int, value: str) -> bytes:
    """An attribute that is text, with the zero at its end."""
    return attribute(type, value.encode() + b"\0")


def number(type: int, value: int) -> bytes:
    """An attribute that is a number of 32 bits."""
    return (type << 16 | 8).to_bytes(4, "little") + value.to_bytes(4, "little")


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data` from the offset `at` on, one by one: (type, value)."""
    end = len(data)
    while at + 4 <= end:
        head = int.from_bytes(data[at : at + 4], "little")
        size = head & 0xFFFF
        if size < 4:
            return
        yield head >> 16 & 0x3FFF, data[at + 4 : at + size]
        at += size + 3 & ~3


def parse(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The same by type; the last of each counts."""
    return dict(attributes(data, at))


def word(value: bytes) -> int:
    """The number that an attribute is, in the machine's order of bytes."""
    return int.from_bytes(value, "little")


def string(value: bytes) -> str:
    """The text that an attribute is."""
    return value.partition(b"\0")[0].decode("utf-8", "replace")


def encode(messages: Sequence[Message], first: int = 1) -> bytes:
    """The datagram of these requests, numbered from `first` on. Only the last one asks to be confirmed.

    A request that fails is answered anyhow, and a thousand confirmations wouldn't fit into the socket.
    """
    made, last = [], first + len(messages) - 1
    for sequence, message in enumerate(messages, first):
        made.append(pack(message, message.flags | REQUEST | (ACK if sequence == last else 0), sequence))
    return b"".join(made)


def pack(message: Message, flags: int, sequence: int) -> bytes:
    """One request with all its flags and its number."""
    body = message.body
    head = _HEADER + len(body) | message.type << 32 | flags << 48 | sequence << 64
    return head.to_bytes(_HEADER, "little") + body + bytes(-len(body) & 3)


# --- The socket ------------------------------------------------------------------------------------------------------


class Netlink:
    """A socket to one part of the kernel, in the network namespace in which it was made. Raises KernelError.

    protocol: `ROUTE` or `NETFILTER`. Use it as a context manager, or close it.
    """

    __slots__ = ("_buffer", "_descriptor", "_next")

    def __init__(self, protocol: int = ROUTE) -> None:
        kind = _SOCK_RAW | _SOCK_CLOEXEC | _SOCK_NONBLOCK
        self._next = 1
        self._buffer = _USUAL_BUFFER
        self._descriptor = syscall("socket", _AF_NETLINK, kind, protocol)
        try:
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                self._set(_SOL_NETLINK, option, 1)
        except BaseException:
            self.close()
            raise

    @classmethod
    def within(cls, namespace: int, protocol: int = ROUTE) -> Netlink:
        """The same in another network namespace: a descriptor of it, or of a process in it (a pidfd)."""
        return visit(namespace, lambda: cls(protocol))

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket."""
        return self._descriptor

    def close(self) -> None:
        """Close it, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def send(self, messages: Sequence[Message]) -> None:
        """Have all of these done, in one datagram; raises NetlinkError for the first that the kernel refuses.

        What follows a refused one is done all the same, unless it is a batch of `nftables.py`, which is all or nothing.
        """
        if messages:
            first = self._next
            self.exchange(encode(messages, first), first, len(messages), lambda index: messages[index].said)

    def exchange(self, datagram: bytes, first: int, count: int, said: Callable[[int], str]) -> None:
        """Send a datagram that is encoded already: `count` requests, numbered from `first` on."""
        self._next = first + count
        self._write(datagram, said(0))
        failed: NetlinkError | None = None
        lost, last = False, False
        while not last:
            try:
                answers = os.read(self._descriptor, _LARGEST)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != ENOBUFS:
                    raise KernelError("recv", ("netlink",), error.errno or 0) from None
                lost = True  # more answers than fit; those that fit are there
                continue
            for type, flags, sequence, body in _messages(answers):
                index = sequence - first
                if type != _ERROR or not 0 <= index < count:
                    continue
                last = last or index == count - 1
                errno = -int.from_bytes(body[:4], "little", signed=True)
                if errno and (failed is None or index < failed.index):
                    failed = NetlinkError(said(index), errno, index, *_reason(flags, body))
        if failed:
            raise failed
        if not last:
            raise NetlinkError(said(count - 1), ENOBUFS if lost else EAGAIN, count - 1, "the kernel gave no answer")

    def ask(self, message: Message) -> bytes:
        """The body of the one answer to a question; raises NetlinkError."""
        answers = self._ask(message, REQUEST)
        if not answers:
            raise NetlinkError(message.said, EAGAIN, 0, "the kernel gave no answer")
        return answers[0]

    def dump(self, message: Message) -> list[bytes]:
        """The bodies of all answers to a question for a list; one that changed meanwhile is read again."""
        for _ in range(_TRIES):
            try:
                return self._ask(message, REQUEST | ROOT | MATCH)
            except NetlinkError as error:
                if error.errno != EINTR:
                    raise
        raise NetlinkError(message.said, EINTR, 0, f"the list changed each of {_TRIES} times that it was read")

    def _ask(self, message: Message, flags: int) -> list[bytes]:
        sequence, self._next = self._next, self._next + 1
        self._write(pack(message, message.flags | flags, sequence), message.said)
        found: list[bytes] = []
        changed, whole = False, not flags & ROOT  # a list is whole when its end has come
        while True:
            try:
                answers = os.read(self._descriptor, _LARGEST)
            except BlockingIOError:
                break
            except OSError as error:
                raise NetlinkError(message.said, error.errno or 0) from None
            for type, marks, answered, body in _messages(answers):
                if answered != sequence:
                    continue
                changed = changed or bool(marks & _DUMP_INTERRUPTED)
                if type in (_ERROR, _DONE):
                    whole = True
                    errno = -int.from_bytes(body[:4], "little", signed=True)
                    if errno:
                        reason = _reason(marks, body) if type == _ERROR else ("", -1)
                        raise NetlinkError(message.said, errno, 0, *reason)
                else:
                    found.append(body)
        if changed or not whole:
            raise NetlinkError(message.said, EINTR)
        return found

    def _write(self, datagram: bytes, said: str) -> None:
        if len(datagram) > self._buffer:
            self._buffer = len(datagram) + 4096
            self._set(_SOL_SOCKET, _SO_SNDBUFFORCE, self._buffer)
            self._set(_SOL_SOCKET, _SO_RCVBUFFORCE, self._buffer)
        try:
            os.write(self._descriptor, datagram)
        except OSError as error:
            raise NetlinkError(said, error.errno or 0) from None

    def _set(self, level: int, option: int, value: int) -> None:
        try:
            syscall("setsockopt", self._descriptor, level, option, value.to_bytes(4, "little"), 4)
        except KernelError as error:
            if error.errno != ENOPROTOOPT:  # a kernel before 4.12, whose errors are numbers alone
                raise


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages of a datagram: (type, flags, sequence number, body)."""
    at, end = 0, len(data)
    while at + _HEADER <= end:
        head = int.from_bytes(data[at : at + 12], "little")
        size = head & 0xFFFFFFFF
        if size < _HEADER:
            return
        yield head >> 32 & 0xFFFF, head >> 48 & 0xFFFF, head >> 64, data[at + _HEADER : at + size]
        at += size + 3 & ~3


def _reason(flags: int, body: bytes) -> tuple[str, int]:
    """What the kernel says of an error beside its number: its text and the place, see `NetlinkError`."""
    if not flags & _HAS_REASON:
        return "", -1
    repeated = _HEADER if flags & _CAPPED else word(body[4:8]) + 3 & ~3  # of the request
    found = parse(body, 4 + repeated)
    offset = word(found[_OFFSET]) - _HEADER if _OFFSET in found else -1
    return string(found.get(_TEXT, b"")).rstrip("."), offset


# --- Another namespace -----------------------------------------------------------------------------------------------


def visit(namespace: int, do: Callable[[], T]) -> T:
    """What `do` returns when it is called inside another network namespace; this process is back when it ends.

    namespace: a descriptor of it, or of a process in it (a pidfd). Signals wait meanwhile: what a handler raises would
    come between the way there and the way back. Raises KernelError.
    """
    from .signals import block_all, present_mask, set_mask

    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        mask = present_mask()
        try:
            block_all()
            syscall("setns", namespace, _CLONE_NEWNET)
            try:
                return do()
            finally:
                _return_to(home)
        finally:
            set_mask(mask)
    finally:
        os.close(home)


def _return_to(home: int) -> None:
    """Go back; tried twice, as what this process does next is meant to be done there."""
    try:
        syscall("setns", home, _CLONE_NEWNET)
    except KernelError:
        syscall("setns", home, _CLONE_NEWNET)
