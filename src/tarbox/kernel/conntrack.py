"""What the kernel remembers of flows: where the packets of one go, as was decided for its first one.

    conntrack -L -p udp --dport 53        conntrack -D -p udp --dport 53

Addresses are changed by what is remembered, not by rules: for as long as a client of UDP keeps sending from one port,
its datagrams go where the first one went, whatever rules say by now. Who changes rules makes the kernel forget as well.

man 8 conntrack; https://docs.kernel.org/networking/netlink_spec/conntrack.html
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, EOPNOTSUPP

from .netlink import NESTED, Message, Netlink, NetlinkError, attribute, nested, number, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

UDP = 17
DNAT = 32  # of a flow's status: its destination was changed
_SUBSYSTEM, _GET, _DELETE = 1, 1, 2
_FAMILIES = {4: 2, 6: 10}
_ORIGINAL, _STATUS, _ID, _ZONE, _FILTER = 1, 3, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTOCOL, _NUMBER, _TO_PORT = 1, 2, 1, 3
_DESTINATIONS = {4: 2, 6: 4}  # attributes of a tuple's addresses
_ORIGINAL_FLAGS, _BY_NUMBER, _BY_TO_PORT = 1, 8, 32  # of a filter
_LACKING = (EINVAL, EOPNOTSUPP)  # a kernel without CONFIG_NF_CT_NETLINK


class Flow:
    """A flow by its first packet. destination: the address to which that was sent, as bytes. port: the same."""

    __slots__ = ("destination", "port", "protocol", "status", "version", "which")

    def __init__(self, version: int, body: bytes) -> None:
        found = parse(body, 4)
        first = parse(found[_ORIGINAL])
        protocol = parse(first[_TUPLE_PROTOCOL])
        self.version = version
        self.protocol = protocol[_NUMBER][0]
        self.port = int.from_bytes(protocol.get(_TO_PORT, b""), "big")
        self.destination = parse(first[_TUPLE_IP])[_DESTINATIONS[version]]
        self.status = int.from_bytes(found.get(_STATUS, b""), "big")
        self.which = attribute(_ORIGINAL | NESTED, found[_ORIGINAL])
        for type in (_ID, _ZONE):
            self.which += attribute(type, found[type]) if type in found else b""


def flows(socket: Netlink, version: int, protocol: int, port: int) -> list[Flow]:
    """All flows of IP in that version, 4 or 6, to a port; none where the kernel doesn't tell."""
    wanted = nested(
        _TUPLE_PROTOCOL, attribute(_NUMBER, bytes([protocol])), attribute(_TO_PORT, port.to_bytes(2, "big"))
    )
    # A kernel before 5.8 gives all; the others needn't carry hundreds of thousands over here.
    asked = nested(_ORIGINAL, wanted) + nested(_FILTER, number(_ORIGINAL_FLAGS, _BY_NUMBER | _BY_TO_PORT))
    try:
        answers = socket.dump(_message(_GET, version, asked, "list flows"))
    except NetlinkError as error:
        if error.errno in _LACKING:
            return []
        raise
    found = [Flow(version, body) for body in answers]
    return [flow for flow in found if (flow.protocol, flow.port) == (protocol, port)]


def forget(socket: Netlink, gone: Sequence[Flow]) -> None:
    """Have the kernel forget flows: what comes next is a first packet again. Some may have ended by themselves."""
    try:
        socket.send(
            [_message(_DELETE, flow.version, flow.which, f"forget a flow to port {flow.port}") for flow in gone]
        )
    except NetlinkError as error:
        if error.errno != ENOENT:
            raise


def _message(kind: int, version: int, body: bytes, said: str) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, 0, bytes([_FAMILIES[version], 0, 0, 0]) + body, said)
