"""Taking a network's things in the kernel away once its last container has gone: rules at once, the bridge soon.

    nft delete table inet tarbox; ip link delete tarbox0

A ruleset is gone in a tenth of a millisecond. To delete a bridge takes some forty, in which nobody else may change
interfaces, so a process of its own does it a moment later, unless another container has come by then. That process
holds a journal which names the bridge: if it is killed, the next command does its work.

man 8 ip-link, man 8 nft
"""

from __future__ import annotations

from ..errors import KernelError
from ..kernel import links
from ..kernel.bridge import ALIAS
from ..kernel.netlink import Netlink
from ..kernel.syscall import syscall
from ..plan.journal import Journal
from ..unistd import os
from . import firewall, leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LINGER = 0.25  # seconds that a bridge stays without containers: a loop of short ones needn't make it each time
_BETWEEN, _LONG = 0.02, 10.0  # seconds between two looks at its ports, and for all of them
_ABSENT = (2, 19)  # ENOENT, ENODEV
NAME = b"tarbox-bridge"  # that process, as ps(1) and top(1) know it
_PR_SET_NAME = 15


def idle(bridge: str, table: str, folder: str) -> None:
    """Take away what no container needs any more: of this network, and of all where it was the last.

    folder: where the network's addresses are leased.
    """
    base = os.path.dirname(folder)
    if not os.path.isdir(base):
        return
    if _unused(table, bridge, folder, base) and _there(bridge):
        _later(bridge, base, folder)
    else:
        _apart(lambda: None)


def _unused(table: str, bridge: str, folder: str, base: str) -> bool:
    """Whether this was the network's last container; then the rules forget the network."""
    with leases.Locked(base):
        with leases.Locked(folder) as locked:
            leases.remove(locked)
        if leases.busy(folder):
            return False
        last = not leases.any_busy(base)
        if last:
            _close(base, table)
        else:
            firewall.forget(table, bridge)
    if last:
        for other in leases.others(base):
            _close_left(other)
    return True


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


def abandon(bridge: str, table: str, folder: str) -> None:
    """The same after a command that may have ended between taking addresses and saying which."""
    with leases.Locked(folder) as locked:
        for name in locked.names():
            locked.drop(name)
    idle(bridge, table, folder)


def remove(bridge: str, folder: str, patience: float = 1.0) -> None:
    """Delete the bridge now, if no container needs it.

    patience: seconds that it may take until its ports have gone: the kernel ends a network some time after the last
    process in it.
    """
    base = os.path.dirname(folder)
    while True:
        with leases.Locked(base):
            if _delete(bridge, folder):
                return
        if patience <= 0:
            return
        _sleep(_BETWEEN)
        patience -= _BETWEEN


def _there(bridge: str) -> bool:
    with Netlink() as socket:
        return links.index_of(socket, bridge) > 0


def _later(bridge: str, base: str, folder: str) -> None:
    """Have another process delete the bridge; no child of this one, which may live on for long and wait for none."""
    undo = {"bridge": lambda name: remove(bridge, folder, _LONG)}
    journal = Journal(f"{os.path.dirname(base)}/journals", f"bridge-{os.urandom(8).hex()}", undo)
    journal.write([("bridge", f"{bridge} {folder}")])

    def soon() -> None:
        syscall("prctl", _PR_SET_NAME, NAME, 0, 0, 0)
        _sleep(LINGER)
        journal.clean()

    try:
        _apart(soon, journal.descriptor)
    finally:
        journal.close()  # that process holds it on


def _apart(do: Callable[[], None], *kept: int) -> None:
    """Do something in a process that is nobody's child, with these descriptors of ours and no others.

    Ports of the host, say, are free when this returns. What takes the kernel time to close is closed by that process.
    """
    slow = firewall.spent()
    child = os.fork()
    if child:
        firewall.let_go()
        os.waitpid(child, 0)
        return
    try:
        first = 0
        for descriptor in (*sorted((*kept, *slow)), 1 << 16):
            os.closerange(first, descriptor)
            first = descriptor + 1
        if os.fork():
            return
        os.setsid()
        os.chdir("/")
        firewall.let_go()
        do()
    finally:
        os._exit(0)


def _sleep(seconds: float) -> None:
    from time import sleep

    sleep(seconds)


def _delete(bridge: str, folder: str) -> bool:
    """Delete the bridge unless somebody needs it; False where somebody's cable is still in it."""
    if leases.busy(folder):
        return True
    with Netlink() as socket:
        there = links.link(socket, bridge)
        # A script that `tarbox explain --script` wrote leases nothing, but it leaves a remark on the bridge, and has a
        # port: then it is for the script to delete it.
        if not there or there.alias != ALIAS:
            return True
        if any(link.master == there.index for link in links.links(socket)):
            return False
        try:
            socket.send([links.delete(there.index)])
        except KernelError as error:
            if error.errno not in _ABSENT:
                raise
    return True
