"""Flows of UDP to published ports: forgotten when a port comes or goes, so that the next datagram finds its new way.

    conntrack -D -p udp --dport 5353

Loaded only where ports of UDP are published.

man 8 conntrack
"""

from __future__ import annotations

from ..kernel import conntrack, links
from ..kernel.addresses import packed
from ..kernel.netlink import NETFILTER, Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..kernel.conntrack import Flow
    from .firewall import Element


def forget(ports: Sequence[Element]) -> None:
    """Forget what was sent to these published ports of UDP so far: elements whose rules have been changed by now."""
    with Netlink() as socket:
        local = {address.ip for address in links.addresses(socket)}
    with Netlink(NETFILTER) as socket:
        for one in ports:
            *address, _, port = one.key
            version = 4 if one.set.startswith("ports4") else 6
            at = packed(address[0]) if address else b""
            found = conntrack.flows(socket, version, conntrack.UDP, int(port))
            conntrack.forget(socket, [flow for flow in found if _is_for(flow, at, local)])


def _is_for(flow: Flow, at: bytes, local: set[bytes]) -> bool:
    """Whether it was sent to us; what only goes through the machine to another one's port is left alone."""
    to = flow.destination
    if at:
        return to == at
    return to in local or bool(flow.status & conntrack.DNAT) or (len(to) == 4 and to[0] == 127)
