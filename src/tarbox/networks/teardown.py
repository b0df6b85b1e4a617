"""Taking a network's things in the kernel away once its last container has gone: rules at once, the bridge soon.

    nft delete table inet tarbox; ip link delete tarbox0

A ruleset is gone in a tenth of a millisecond. To delete a bridge takes some forty, in which nobody else may change
interfaces, so a process of its own does it a moment later, unless another container has come by then.

man 8 ip-link, man 8 nft
"""

from __future__ import annotations

from ..errors import KernelError
from ..kernel import links
from ..kernel.bridge import ALIAS
from ..kernel.netlink import Netlink
from ..unistd import os
from . import firewall, leases

_LINGER = 0.25  # seconds that a bridge stays without containers: a loop of short ones needn't make it each time
_ABSENT = (2, 19)  # ENOENT, ENODEV


def idle(bridge: str, table: str, folder: str) -> None:
    """Take away what no container needs any more: of this network, and of all where it was the last.

    folder: where the network's addresses are leased.
    """
    base = os.path.dirname(folder)
    if not os.path.isdir(base):
        return
    last = False
    with leases.Locked(base):
        with leases.Locked(folder) as locked:
            leases.remove(locked)
        if leases.busy(folder):
            return
        if leases.any_busy(base):
            firewall.forget(table, bridge)
        else:
            last = True
            _close(base, table)
    if last:
        for other in leases.others(base):
            _close_left(other)
    if _there(bridge):
        _later(bridge, base, folder)


def _close(base: str, table: str) -> None:
    """Take the rules away, and first what only they make harmless: that the machine is a router."""
    if os.path.exists(f"{base}/{leases.ROUTER}"):
        from . import router

        if not router.end(base):
            return
    firewall.close(table)


def _close_left(base: str) -> None:
    """The same for another data root, which left it because somebody still had a container."""
    if os.path.exists(f"{base}/{leases.ROUTER}"):
        from . import router

        with leases.Locked(base):
            if not leases.any_busy(base) and (table := router.table(base)):
                _close(base, table)


def remove(bridge: str, folder: str) -> None:
    """Delete the bridge now, if no container needs it; for who removes a network."""
    base = os.path.dirname(folder)
    if _there(bridge):
        with leases.Locked(base):
            _delete(bridge, folder)


def _there(bridge: str) -> bool:
    with Netlink() as socket:
        return links.index_of(socket, bridge) > 0


def _later(bridge: str, base: str, folder: str) -> None:
    """Have another process delete the bridge, which is nobody's child: who calls this needn't wait for it."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork():
            return  # and end
        os.setsid()
        os.chdir("/")
        os.closerange(0, 1 << 16)
        _sleep(_LINGER)
        with leases.Locked(base):
            _delete(bridge, folder)
    finally:
        os._exit(0)


def _sleep(seconds: float) -> None:
    from time import sleep

    sleep(seconds)


def _delete(bridge: str, folder: str) -> None:
    if leases.busy(folder):
        return
    with Netlink() as socket:
        there = links.link(socket, bridge)
        # A script that `tarbox explain --script` wrote leases nothing, but it has a port, and a remark on the bridge.
        if not there or there.alias != ALIAS or any(link.master == there.index for link in links.links(socket)):
            return
        try:
            socket.send([links.delete(there.index)])
        except KernelError as error:
            if error.errno not in _ABSENT:
                raise
