"""Netlink's bytes, put together and taken apart; what a kernel could answer, without one."""

from __future__ import annotations

import errno
import struct
from types import SimpleNamespace

import pytest

from tarbox.errors import KernelError
from tarbox.kernel import links, netlink
from tarbox.kernel.netlink import Message, Netlink, NetlinkError, attribute, nested, number, parse, text

ERROR, DONE = 2, 3
CAPPED, HAS_REASON, MULTI, INTERRUPTED = 0x100, 0x200, 2, 0x10


def answer(type, sequence, body, flags=0):
    return struct.pack("=IHHII", 16 + len(body), type, flags, sequence, 4711) + body + bytes(-len(body) % 4)


def error(sequence, number, reason=b"", request=b"", capped=True):
    """What the kernel says of a request: the error, the request's header or all of it, and attributes."""
    flags = (CAPPED if capped else 0) | (HAS_REASON if reason else 0)
    repeated = struct.pack("=IHHII", 16 + len(request), 16, 5, sequence, 0) + (b"" if capped else request)
    return answer(ERROR, sequence, struct.pack("=i", -number) + repeated + bytes(-len(repeated) % 4) + reason, flags)


@pytest.fixture
def kernel(monkeypatch):
    """A socket whose other side is a list of what can be read next: bytes, or an errno."""
    answers: list[bytes | int] = []
    sent: list[bytes] = []

    def read(descriptor, size):
        if not answers:
            raise BlockingIOError(errno.EAGAIN, "nothing")
        head = answers.pop(0)
        if isinstance(head, int):
            raise OSError(head, "no")
        return head

    fake = SimpleNamespace(read=read, write=lambda descriptor, data: sent.append(data))
    monkeypatch.setattr(netlink, "os", fake)
    socket = Netlink.__new__(Netlink)
    socket._descriptor, socket._next, socket._buffer = 99, 1, 1 << 20
    return SimpleNamespace(socket=socket, answers=answers, sent=sent)


REQUESTS = [Message(16, 0, b"abcd", "first"), Message(16, 0, b"", "second"), Message(16, 0, b"", "third")]


def test_attributes_are_padded_and_nested():
    assert attribute(3, b"") == b"\x04\0\x03\0"
    assert attribute(3, b"abcde") == b"\x09\0\x03\0abcde\0\0\0"
    assert text(3, "lo") == b"\x07\0\x03\0lo\0\0"
    assert number(4, 1400) == b"\x08\0\x04\0\x78\x05\0\0"
    assert nested(18, text(1, "veth"), number(2, 7)) == (
        b"\x18\0\x12\x80" + b"\x09\0\x01\0veth\0\0\0\0" + b"\x08\0\x02\0\x07\0\0\0"
    )
    assert parse(nested(18, text(1, "veth"))) == {18: text(1, "veth")}
    assert parse(b"xx" + text(1, "a") + text(1, "b") + text(2, "c"), 2) == {1: b"b\0", 2: b"c\0"}


def test_requests_are_numbered_and_the_last_one_is_confirmed():
    assert netlink.encode(REQUESTS[:2], 7) == (
        struct.pack("=IHHII", 20, 16, 1, 7, 0) + b"abcd" + struct.pack("=IHHII", 16, 16, 1 | 4, 8, 0)
    )


@pytest.mark.parametrize(
    "data", [b"", b"abc", b"\0\0\0\0" * 9, b"\x03\0\x01\0", b"\xff\xff\x01\0ab", b"\x04\0\x01\0" * 9]
)
def test_no_answer_keeps_the_reader_for_ever(data):
    """Lengths that can't be end the reading."""
    assert all(len(value) <= len(data) for _, value in netlink.attributes(data))
    assert len(list(netlink._messages(data))) <= len(data)


def test_the_first_refused_request_is_told(kernel):
    """By its place in the list and its name, also when a later one was refused too."""
    kernel.answers += [error(2, errno.EBUSY), error(3, errno.ENOENT)]
    with pytest.raises(NetlinkError, match=r"second: Device or resource busy$") as caught:
        kernel.socket.send(REQUESTS)
    assert (caught.value.index, caught.value.errno, caught.value.text) == (1, errno.EBUSY, "")
    assert len(kernel.sent) == 1
    assert caught.value.call == "second"


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_own_words_are_shown(kernel, capped):
    reason = text(1, "Device can not be a port.") + number(2, 20)
    kernel.answers.append(error(1, errno.EINVAL, reason, b"abcde", capped) + error(3, 0))
    with pytest.raises(KernelError, match=r"first: Invalid argument: Device can not be a port$") as caught:
        kernel.socket.send(REQUESTS)
    assert caught.value.text == "Device can not be a port"
    assert caught.value.offset == 4


def test_requests_that_are_well_are_well(kernel):
    kernel.answers.append(error(3, 0))
    kernel.socket.send(REQUESTS)
    kernel.answers.append(error(6, 0))
    kernel.socket.send(REQUESTS)
    kernel.socket.send([])
    assert [struct.unpack_from("=I", data, 8)[0] for data in kernel.sent] == [1, 4]


def test_answers_to_older_requests_are_passed_over(kernel):
    kernel.socket._next = 40
    kernel.answers += [error(3, errno.EPERM) + answer(24, 0, b"news"), error(42, 0)]
    kernel.socket.send(REQUESTS)


def test_too_many_answers(kernel):
    """The first error is there although some didn't fit; without any, nobody knows what was done."""
    kernel.answers += [errno.ENOBUFS, error(1, errno.EEXIST)]
    with pytest.raises(NetlinkError, match="first: File exists"):
        kernel.socket.send(REQUESTS)
    kernel.answers += [errno.ENOBUFS]
    with pytest.raises(NetlinkError, match=r"third: No buffer space available: the kernel gave no answer"):
        kernel.socket.send(REQUESTS)
    with pytest.raises(NetlinkError, match="the kernel gave no answer"):
        kernel.socket.send(REQUESTS)
    kernel.answers += [errno.ENOTCONN]
    with pytest.raises(KernelError, match="recv"):
        kernel.socket.send(REQUESTS)


def test_a_list_that_changed_is_read_again(kernel, monkeypatch):
    """Also one whose end didn't come; for ever it isn't."""
    ask = Message(18, 0, b"", "RTM_GETLINK")

    def serve(descriptor, data):
        sequence = struct.unpack_from("=I", data, 8)[0]
        kernel.sent.append(data)
        entry = answer(16, sequence, b"body", MULTI | (INTERRUPTED if sequence == 1 else 0))
        kernel.answers.extend([entry + entry, answer(DONE, sequence, bytes(4), MULTI)][: 1 if sequence == 2 else 2])

    monkeypatch.setattr(netlink.os, "write", serve)
    assert kernel.socket.dump(ask) == [b"body", b"body"]
    assert len(kernel.sent) == 3
    assert struct.unpack_from("=H", kernel.sent[0], 6)[0] == 0x301
    monkeypatch.setattr(netlink.os, "write", lambda descriptor, data: None)
    with pytest.raises(NetlinkError, match="RTM_GETLINK: Interrupted system call: the list changed each of 20 times"):
        kernel.socket.dump(ask)


def test_a_list_that_ends_with_an_error(kernel):
    kernel.answers.append(answer(DONE, 1, struct.pack("=i", -errno.ENOENT), MULTI))
    with pytest.raises(NetlinkError, match="list: No such file"):
        kernel.socket.dump(Message(13, 0, b"", "list"))


def test_a_question_without_an_answer(kernel):
    with pytest.raises(NetlinkError, match="the kernel gave no answer"):
        kernel.socket.ask(Message(18, 0, b"", "RTM_GETLINK x"))


# --- Requests about links, against bytes that were put together by hand from the kernel's headers --------------------


def ifinfo(index=0, flags=0):
    return struct.pack("=BxHiII", 0, 0, index, flags, flags)


def test_a_bridge():
    made = links.bridge("box0", 1400, b"\x02\x74\x0a\0\0\x01")
    assert (made.type, made.flags, made.said) == (16, 0x600, "RTM_NEWLINK box0")
    assert made.body == (
        ifinfo()
        + b"\x09\0\x03\0box0\0\0\0\0"  # IFLA_IFNAME
        + b"\x0a\0\x01\0\x02\x74\x0a\0\0\x01\0\0"  # IFLA_ADDRESS
        + b"\x08\0\x04\0\x78\x05\0\0"  # IFLA_MTU
        + b"\x10\0\x12\x80"  # IFLA_LINKINFO
        + b"\x0b\0\x01\0bridge\0\0"  # IFLA_INFO_KIND
    )


@pytest.mark.parametrize(("where", "told"), [({"namespace": 9}, b"\x08\0\x1c\0\x09\0\0\0"),
                                             ({"pid": 300}, b"\x08\0\x13\0\x2c\x01\0\0")])  # fmt: skip
def test_a_veth_pair(where, told):
    made = links.veth("v1", "eth0", master=3, mac=b"\x02\0\0\0\0\x02", mtu=1400, **where)
    assert (made.type, made.flags, made.said) == (16, 0x600, "RTM_NEWLINK v1")
    peer = (
        ifinfo()
        + b"\x09\0\x03\0eth0\0\0\0\0"
        + b"\x0a\0\x01\0\x02\0\0\0\0\x02\0\0"
        + b"\x08\0\x04\0\x78\x05\0\0"
        + told  # IFLA_NET_NS_FD or IFLA_NET_NS_PID
    )
    assert made.body == (
        ifinfo(flags=1)
        + b"\x07\0\x03\0v1\0\0"
        + b"\x08\0\x04\0\x78\x05\0\0"
        + b"\x08\0\x0a\0\x03\0\0\0"  # IFLA_MASTER
        + struct.pack("=HH", 4 + 12 + 4 + 4 + len(peer), 0x8012)
        + b"\x09\0\x01\0veth\0\0\0\0"
        + struct.pack("=HH", 4 + 4 + len(peer), 0x8002)  # IFLA_INFO_DATA
        + struct.pack("=HH", 4 + len(peer), 1)  # VETH_INFO_PEER
        + peer
    )


def test_addresses_and_routes():
    made = links.address(5, bytes([10, 0, 0, 2]), 24)
    assert (made.type, made.flags, made.said) == (20, 0x500, "RTM_NEWADDR 10.0.0.2/24")
    assert made.body == b"\x02\x18\0\0\x05\0\0\0" + b"\x08\0\x02\0\x0a\0\0\x02" + b"\x08\0\x01\0\x0a\0\0\x02"
    made = links.address(5, b"\xfd" + bytes(14) + b"\x02", 64)
    assert made.said == "RTM_NEWADDR fd00::2/64"
    assert made.body.endswith(b"\x08\0\x08\0\x02\0\0\0")  # IFA_FLAGS: IFA_F_NODAD
    made = links.default_route(bytes([10, 0, 0, 1]), 5)
    assert (made.type, made.flags, made.said) == (24, 0x500, "RTM_NEWROUTE default via 10.0.0.1")
    assert made.body == b"\x02\0\0\0\xfe\x04\0\x01\0\0\0\0" + b"\x08\0\x05\0\x0a\0\0\x01" + b"\x08\0\x04\0\x05\0\0\0"
    made = links.route(bytes([192, 168, 1, 0]), 24, index=5, table=1000)
    assert made.said == "RTM_NEWROUTE 192.168.1.0/24"
    assert made.body == (
        b"\x02\x18\0\0\0\x04\xfd\x01\0\0\0\0" + b"\x08\0\x01\0\xc0\xa8\x01\0" + b"\x08\0\x04\0\x05\0\0\0"
        + b"\x08\0\x0f\0\xe8\x03\0\0"
    )  # fmt: skip


def test_an_interface_by_name_or_index():
    assert links.set_up("lo").body == ifinfo(flags=1) + b"\x07\0\x03\0lo\0\0"
    assert links.set_up(3).body == ifinfo(3, 1)
    assert (links.delete("v1").type, links.delete("v1").said) == (17, "RTM_DELLINK v1")
    assert links.set_alias(3, "tarbox").body == ifinfo(3) + b"\x0b\0\x14\0tarbox\0\0"
