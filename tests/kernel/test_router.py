"""The machine as a router: it is one for containers alone while they are there, and afterwards what it was before."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import netns
from conftest import Tarbox
from testhost import state_files, tables

SWITCH, SIX = "ipv4/ip_forward", "ipv6/conf/all/forwarding"
LEFT, RIGHT = ("10.50.0.1", "10.50.0.2"), ("10.51.0.1", "10.51.0.2")


def kept():
    """What there is of state, but for the journal of the bridge that goes a moment later."""
    return {path for path in state_files() if "/journals/bridge-" not in path}


@pytest.fixture(autouse=True)
def _network():
    """Two other machines, which this one doesn't lead to each other."""
    with netns.fresh():
        yield


def setting(name):
    return Path("/proc/sys/net", name).read_text().strip()


def change(name, value):
    Path("/proc/sys/net", name).write_text(value)


def plug(name, machine, here, there, master=""):
    """A cable from an interface of that name to another machine, which sends all that it has by it."""
    netns.output("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
    owner = name
    if master:
        netns.output("ip", "link", "add", master, "type", "bridge")
        netns.output("ip", "link", "set", name, "up", "master", master)
        owner = master
    netns.output("ip", "address", "add", f"{here}/24", "dev", owner)
    netns.output("ip", "link", "set", owner, "up")
    machine.run("ip", "address", "add", f"{there}/24", "dev", "eth0")
    machine.run("ip", "link", "set", "eth0", "up")
    machine.run("ip", "route", "add", "default", "via", here)


@pytest.fixture
def left():
    with netns.Neighbour() as made:
        plug("world0", made, *LEFT)
        yield made


@pytest.fixture
def right():
    with netns.Neighbour() as made:
        plug("world1", made, *RIGHT)
        yield made


def reaches(machine, address):
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{machine.pid}/ns/net", "ping", "-c", "1", "-W", "1", address],
        stdout=subprocess.DEVNULL,
    )
    return done.returncode == 0


def noted():
    return {path for path in kept() if "/.forwarding" in path}


class Running:
    """A container that answers when it is up, and ends when it is told to."""

    def __init__(self, tarbox, *options):
        script = "ping -c 1 -W 2 10.50.0.2 >/dev/null && echo out || echo in; read line"
        self.process = tarbox.start("run", "--rm", "-i", *options, "host", "sh", "-c", script, text=True)
        self.said = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _, told = self.process.communicate("\n" if self.process.poll() is None else None)
        assert "Traceback" not in told


def until_gone():
    """The bridge goes a moment later."""
    end = time.monotonic() + 10
    while any(one.startswith("tb-") for one in os.listdir("/proc/sys/net/ipv4/conf")):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_nobody_else_is_led_through(tarbox, left, right):
    """Not from one interface to another that was there; containers are, and interfaces that came later."""
    change("ipv4/conf/all/accept_redirects", "0")
    assert not reaches(left, RIGHT[1])
    with Running(tarbox) as container, netns.Neighbour() as later:
        assert container.said == "out"
        assert setting(SWITCH) == "1"
        assert not reaches(left, RIGHT[1])
        assert reaches(left, LEFT[0])
        plug("other1", later, "10.52.0.1", "10.52.0.2")
        assert reaches(later, RIGHT[1])
        assert reaches(right, "10.52.0.2")
        netns.output("ip", "link", "delete", "other1")
    assert (setting(SWITCH), setting("ipv4/conf/all/accept_redirects")) == ("0", "0")
    assert not kept() | tables()
    until_gone()


def test_a_router_stays_one(tarbox, left, right):
    """For everybody: then nothing of it is ours."""
    change(SWITCH, "1")
    with Running(tarbox) as container:
        assert container.said == "out"
        assert reaches(left, RIGHT[1])
        assert not noted()
    assert setting(SWITCH) == "1"
    until_gone()


def test_an_interface_that_forwarded_by_itself_goes_on(tarbox, left, right):
    change("ipv4/conf/world0/forwarding", "1")
    change("ipv4/conf/world1/forwarding", "1")
    assert reaches(left, RIGHT[1])
    with Running(tarbox):
        assert reaches(left, RIGHT[1])
    assert [setting(f"ipv4/conf/{name}/forwarding") for name in ("all", "world0", "world1", "lo")] == [*"0110"]
    until_gone()


def test_it_stays_where_others_rely_on_it(tarbox, left, right):
    """Whoever made a bridge meanwhile found a router, and had no reason to make it one."""
    with Running(tarbox):
        netns.output("ip", "link", "add", "other0", "type", "bridge")
    assert setting(SWITCH) == "1"
    assert not kept() | tables()
    with Running(tarbox):
        pass
    assert setting(SWITCH) == "1"
    until_gone()


def test_with_ipv6(tarbox, left):
    """Routes that a router told of stay meanwhile, and it is listened to as before afterwards."""
    tarbox.output("network", "create", "six", "--ipv6")
    change("ipv6/conf/world0/accept_ra", "1")
    netns.output("ip", "-6", "route", "add", "2001:db8::/64", "dev", "world0", "proto", "ra")
    with Running(tarbox):
        assert setting(SIX) == "0"
        with Running(tarbox, "--network", "six"):
            assert (setting(SWITCH), setting(SIX), setting("ipv6/conf/world0/accept_ra")) == ("1", "1", "2")
            (name,) = [one.split()[1] for one in tables() if one.startswith("inet")]
            assert '"world0"' in netns.output("nft", "list", "set", "inet", name, "closed6")
        assert setting(SIX) == "1", "the rules are there as long as any container is"
    assert (setting(SWITCH), setting(SIX), setting("ipv6/conf/world0/accept_ra")) == ("0", "0", "1")
    assert not kept()
    until_gone()


def test_a_killed_command_is_mended_by_the_next(tarbox, left, right):
    """At whatever time it was killed."""
    for turn in range(12):
        process = tarbox.start("run", "--rm", "host", "sleep", "60", stdin=subprocess.DEVNULL)
        time.sleep(0.03 + 0.01 * turn)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if setting(SWITCH) == "1":
            assert not reaches(left, RIGHT[1])
        tarbox.output("run", "--rm", "--network", "none", "host", "true")
        assert (setting(SWITCH), noted() | tables()) == ("0", set())
    tarbox.output("run", "--rm", "host", "true")  # whoever was killed between address and journal left a dead lease
    until_gone()


def test_rules_that_somebody_flushed_are_made_with_it(tarbox, left, right):
    with Running(tarbox):
        netns.output("nft", "flush", "ruleset")
        assert reaches(left, RIGHT[1])
        with Running(tarbox) as container:
            assert container.said == "out"
            assert not reaches(left, RIGHT[1])
    assert setting(SWITCH) == "0"
    until_gone()


def test_two_data_roots(tarbox, test_host, tmp_path, left, right):
    """The first one's end leaves the machine closed and the other's containers their way out."""
    other = Tarbox(test_host, tmp_path / "other")
    first = Running(tarbox)
    with Running(other) as second:
        assert (first.said, second.said) == ("out", "out")
        first.__exit__()
        assert setting(SWITCH) == "1"
        assert not reaches(left, RIGHT[1])
        with Running(other) as third:
            assert third.said == "out"
    assert setting(SWITCH) == "0"
    assert not kept() | tables()
    until_gone()


def test_a_script_does_the_same(tarbox, left, right, tmp_path):
    script = tmp_path / "box.sh"
    inner = "ping -c 1 -W 2 10.50.0.2 >/dev/null && echo out; read line"
    script.write_text(tarbox.output("explain", "--script", "run", "--rm", "-i", "host", "sh", "-c", inner))
    process = subprocess.Popen(["sh", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "out\n"
    assert setting(SWITCH) == "1"
    assert not reaches(left, RIGHT[1])
    process.communicate("\n")
    assert (process.returncode, setting(SWITCH)) == (0, "0")
    until_gone()
