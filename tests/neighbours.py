"""Another machine beside the test host, on the same Ethernet; and one far away, which is reached by way of it.

    ip link add lan0 type veth peer name lan1 netns PID

    far away                    the neighbour               the test host
    198.51.100.7 ───────────────192.0.2.2 lan1 ─────── lan0 192.0.2.1 and 192.0.2.3
    2001:db8:ff::7              2001:db8:2::2               2001:db8:2::1 and 2001:db8:2::1:3

The host's default routes lead to the neighbour; the neighbour knows no route to containers but those that a test adds.

man 4 veth, man 8 ip-link
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import puppets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = {4: "192.0.2.1", 6: "2001:db8:2::1"}
HOST_TOO = {4: "192.0.2.3", 6: "2001:db8:2::1:3"}
NEIGHBOUR = {4: "192.0.2.2", 6: "2001:db8:2::2"}
FAR = {4: "198.51.100.7", 6: "2001:db8:ff::7"}
LENGTH = {4: 24, 6: 64}


def ip(*words: str) -> str:
    """Run ip in the test host, insist on success, and return its output."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def neighbour(mtu: int = 1500) -> Iterator[puppets.Puppet]:
    """The other machine, as somebody who does what it is told; the wire to it is gone afterwards."""
    with puppets.namespace() as machine:
        ip("link", "add", "lan0", "mtu", str(mtu), "type", "veth", "peer", "name", "lan1", "mtu", str(mtu),
           "netns", str(machine.process.pid))  # fmt: skip
        try:
            _settle(machine)
            yield machine
        finally:
            ip("link", "del", "lan0")


def _settle(machine: puppets.Puppet) -> None:
    """Give both ends their addresses and routes, usable at once: nobody is asked whether they are taken."""
    Path("/proc/sys/net/ipv6/conf/lan0/accept_dad").write_text("0")
    machine.write("/proc/sys/net/ipv6/conf/lan1/accept_dad", "0")
    for family in (4, 6):
        sure = ("nodad",) if family == 6 else ()
        # What the host sends by itself has the first one of IPv4, but the last one of IPv6.
        for address in (HOST[family], HOST_TOO[family])[:: 1 if family == 4 else -1]:
            ip("addr", "add", f"{address}/{LENGTH[family]}", "dev", "lan0", *sure)
        machine.output("ip", "addr", "add", f"{NEIGHBOUR[family]}/{LENGTH[family]}", "dev", "lan1", *sure)
        machine.output("ip", "addr", "add", FAR[family], "dev", "lo", *sure)
    ip("link", "set", "lan0", "up")
    machine.output("ip", "link", "set", "lan1", "up")
    for family in (4, 6):
        ip(f"-{family}", "route", "add", "default", "via", NEIGHBOUR[family])
