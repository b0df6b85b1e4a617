"""The firewall of the host is somebody else's: what it drops stays dropped, and none of its rules are touched.

Whoever writes a rule with nft, with iptables of either kind, or by way of ufw, firewalld or Docker, ends up with one of
the policies below.

man 8 nft, man 8 iptables
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import boxes
import puppets
from looked import container
from neighbours import HOST, NEIGHBOUR
from testhost import interfaces

LOOPBACK = "127.0.0.1"
NFT = """
table inet hosts {
    set friends { type ipv4_addr; elements = { 198.51.100.1 } }
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
    chain nat { type nat hook postrouting priority srcnat; ip saddr 198.51.100.0/24 masquerade; }
}
"""
STATEFUL = (
    ("-A", "INPUT", "-i", "lo", "-j", "ACCEPT"),
    ("-A", "INPUT", "-m", "state", "--state", "RELATED,ESTABLISHED", "-j", "ACCEPT"),
    ("-A", "FORWARD", "-m", "state", "--state", "RELATED,ESTABLISHED", "-j", "ACCEPT"),
    ("-P", "FORWARD", "DROP"),
    ("-P", "INPUT", "DROP"),
)


def run(*words, **options):
    """The output of a command that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def saved(command):
    """The rules that one kind of iptables has, without what changes by itself."""
    said = subprocess.run([f"{command}-save"], capture_output=True, text=True).stdout
    return re.sub(r"^#.*\n|\[\d+:\d+\]", "", said, flags=re.MULTILINE)


class Nft:
    """A policy of nft's own."""

    def __init__(self):
        run("nft", "-f", "-", input=NFT)

    def allow(self, *match):
        """Let forwarded packets through that come in or leave by these interfaces."""
        run("nft", "add", "rule", "inet", "hosts", "forward", *match, "accept")

    def let_in(self):
        self.allow("iif", "lan0", "ct", "status", "dnat")

    def let_out(self):
        self.allow("oif", "lan0")

    def shown(self):
        return run("nft", "-a", "list", "table", "inet", "hosts")

    def close(self):
        run("nft", "delete", "table", "inet", "hosts")


class Iptables:
    """A policy that iptables made."""

    def __init__(self, kind):
        self.commands = [f"{name}-{kind}" for name in ("iptables", "ip6tables")]
        for command in self.commands:
            for words in STATEFUL:
                run(command, *words)
        run(self.commands[1], "-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT")

    def let_in(self):
        for command in self.commands:
            run(command, "-A", "FORWARD", "-i", "lan0", "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT")

    def let_out(self):
        for command in self.commands:
            run(command, "-A", "FORWARD", "-o", "lan0", "-j", "ACCEPT")

    def shown(self):
        return "\n".join(map(saved, self.commands))

    def close(self):
        for command in self.commands:
            for words in (("-P", "FORWARD", "ACCEPT"), ("-P", "INPUT", "ACCEPT"), ("-F",)):
                run(command, *words)
            if command.endswith("-nft"):
                family = "ip6" if command.startswith("ip6") else "ip"
                run("nft", "delete", "table", family, "filter")


@pytest.fixture(params=["nft", "iptables-nft", "iptables-legacy"])
def policy(request):
    """A host that forwards nothing and lets nobody in, in three ways."""
    kind = request.param.rpartition("-")[2]
    if request.param == "iptables-legacy" and subprocess.run([request.param, "-L"], capture_output=True).returncode:
        pytest.skip("this kernel has no iptables of the old kind")
    made = Nft() if kind == "nft" and request.param == "nft" else Iptables(kind)
    try:
        yield made
    finally:
        made.close()
        Path("/run/xtables.lock").unlink(missing_ok=True)  # of iptables


def reached(puppet, address, port, udp_port):
    """Whether a server is reached: by TCP, by UDP."""
    return [
        puppet.ask_tcp(address, port, seconds=0.5) is not None,
        puppet.ask_udp(address, udp_port, seconds=0.5) is not None,
    ]


def test_what_the_host_drops_stays_dropped(tarbox, neighbour, policy):
    """In and out, by both families; until somebody allows it in the host's own rules."""
    before = policy.shown()
    with (
        puppets.here() as host,
        puppets.network(tarbox, "lab", "--ipv6") as lab,
        puppets.box(tarbox, "--network", lab, "-p", "8080:80", "-p", "5353:53/udp") as box,
        puppets.box(tarbox, "-p", "9080:80", "-p", "6353:53/udp") as old,
    ):
        for server, families in ((box, ("0.0.0.0", "::")), (old, ("0.0.0.0",)), (neighbour, ("0.0.0.0", "::"))):
            for everywhere in families:
                server.serve(80, everywhere, "tcp")
                server.serve(53, everywhere, "udp")
        inwards = {(HOST[4], 8080): 5353, (HOST[6], 8080): 5353, (HOST[4], 9080): 6353, (HOST[6], 9080): 6353}
        for (address, port), udp_port in inwards.items():
            assert reached(neighbour, address, port, udp_port) == [False, False], address
        for family in (4, 6):
            assert reached(box, NEIGHBOUR[family], 80, 53) == [False, False]
        assert reached(host, LOOPBACK, 8080, 5353) == [True, True]
        assert policy.shown() == before
        policy.let_in()
        for family in (4, 6):
            assert reached(neighbour, HOST[family], 8080, 5353) == [True, True]
            assert reached(box, NEIGHBOUR[family], 80, 53) == [False, False]
        policy.let_out()
        for family in (4, 6):
            assert reached(box, NEIGHBOUR[family], 80, 53) == [True, True]
        allowed = policy.shown()
        assert allowed != before
    assert policy.shown() == allowed


def rules():
    """All rules of the host, of all kinds."""
    legacy = [f"{name}-legacy" for name in ("iptables", "ip6tables")]
    return [run("nft", "list", "ruleset"), *(saved(command) for command in legacy if shutil.which(command))]


def tables():
    return re.findall(r"^table (\S+ \S+)", run("nft", "list", "ruleset"), re.MULTILINE)


def test_no_rule_is_left_after_the_last_container(tarbox, policy):
    """While there is one, there are tables of ours beside the host's."""
    before, theirs = rules(), tables()
    with contextlib.ExitStack() as stack:
        for number in range(3):
            stack.enter_context(puppets.box(tarbox, "-p", f"{8080 + number}:80", "-p", f"127.0.0.1:{9080 + number}:80"))
        assert len(tables()) > len(theirs)
        lab = stack.enter_context(puppets.network(tarbox, "lab", "--ipv6"))
        stack.enter_context(puppets.box(tarbox, "--network", lab, "-p", "7080:80", "-p", "7080:80/udp"))
    assert rules() == before


@pytest.mark.parametrize("others", ["none", "one"])
def test_no_rule_is_left_after_a_command_that_was_killed(tarbox, others):
    """The next command takes away what the killed one left, and nothing of a container that runs."""
    before, links = rules(), interfaces()
    with contextlib.ExitStack() as stack:
        if others == "one":
            other = stack.enter_context(puppets.box(tarbox, "-p", "8081:80"))
            other.serve(80, kind="tcp")
        killed = puppets.Puppet(tarbox.start("run", "--rm", "-i", "-p", "8080:80", "host", *puppets.COMMAND))
        killed.process.send_signal(signal.SIGKILL)
        killed.process.communicate(timeout=20)
        assert rules() != before
        tarbox.output("run", "--rm", "--network", "none", "host", "true")
        assert "8080" not in "".join(rules())
        if others == "one":
            with puppets.here() as host:
                assert host.ask_tcp(LOOPBACK, 8081)
            tarbox.output("run", "--rm", "-p", "8080:80", "host", "true")
    assert rules() == before
    boxes.until(lambda: interfaces() == links)


def test_rules_that_somebody_flushed_come_back_with_the_next_container(tarbox, neighbour):
    """A reload of the host's firewall takes everybody's rules away, ours too: so does `nft flush ruleset`."""
    with puppets.box(tarbox, "-p", "127.0.0.1:8080:80", "-p", "9080:80") as box, puppets.here() as host:
        box.serve(80, kind="tcp")
        box.hear(5000)
        assert host.ask_tcp(LOOPBACK, 8080)
        run("nft", "flush", "ruleset")
        assert neighbour.ask_tcp(HOST[4], 8080, seconds=0.5) is None
        with container(tarbox, "host"):
            assert host.ask_tcp(LOOPBACK, 8080)
            assert neighbour.ask_tcp(HOST[4], 9080)
            neighbour.output("ip", "route", "add", box.address(), "via", HOST[4])
            neighbour.tell(box.address(), 5000, "by a route")
            assert not box.heard(5000, 0.3)
    assert not tables()
