"""Forwarding: whether the machine hands packets on from one interface to another, as a router does.

    sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

A bridge's containers reach the world beyond it only where it does. A router of IPv6 doesn't believe other routers: an
interface that learnt its own default route from one would lose it. So such an interface is told to listen all the same.

Here is only how it is switched on; what that opens, and how it is switched off again, is `networks/router.py`.

man 7 ip, man 5 proc_sys_net; https://docs.kernel.org/networking/ip-sysctl.html
"""

from __future__ import annotations

from ..plan.step import PARENT, Slots, Step
from .links import BY_ADVERTISEMENT, links, routes
from .netlink import Netlink
from .sysctl import ensure, setting

_IPV4, _IPV6 = "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"
_CONF = "/proc/sys/net/ipv6/conf"
HOST_LISTENS, ROUTER_LISTENS = "1", "2"  # values of accept_ra


class Forwarding(Step):
    """Have the machine forward packets, where it doesn't yet."""

    __slots__ = ("ipv6",)

    phase = "host"
    why = "from a bridge to the world the machine is a router; without this it drops what isn't for itself"
    man = "ip(7)"

    def __init__(self, ipv6: bool = False) -> None:
        super().__init__(PARENT)
        self.ipv6 = ipv6

    def apply(self, slots: Slots) -> None:
        ensure(_IPV4, "1")
        if self.ipv6 and not forwards(6):
            for name in listeners():
                ensure(f"{_CONF}/{name}/accept_ra", ROUTER_LISTENS)
            ensure(_IPV6, "1")

    def call(self) -> str:
        written = f'write("{_IPV4}", "1")'
        return f'{written}, write("{_IPV6}", "1")' if self.ipv6 else written

    def shell(self) -> str:
        first = "sysctl -qw net.ipv4.ip_forward=1"
        if not self.ipv6:
            return first
        listen = (
            f'for device in $(ip -6 route show proto ra | sed -n "s/.* dev \\([^ ]*\\).*/\\1/p" | sort -u); do '
            f'[ "$(cat "{_CONF}/$device/accept_ra")" != 1 ] || echo 2 > "{_CONF}/$device/accept_ra"; done'
        )
        return f"{first}; {listen}; sysctl -qw net.ipv6.conf.all.forwarding=1"


def forwards(version: int) -> bool:
    """Whether the machine forwards packets of IP in that version, 4 or 6."""
    return setting(_IPV4 if version == 4 else _IPV6) == "1"


def listeners() -> list[str]:
    """The interfaces that learnt routes from a router, and would listen to it no more if the machine became one."""
    with Netlink() as socket:
        learnt = {route.index for route in routes(socket, 6) if route.by == BY_ADVERTISEMENT}
        names = [link.name for link in links(socket) if link.index in learnt] if learnt else []
    return [name for name in names if setting(f"{_CONF}/{name}/accept_ra") == HOST_LISTENS]
