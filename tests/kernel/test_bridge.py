"""Steps of a bridge network on the real kernel: what they make, what they leave alone, that a shell does the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import netns
from tarbox.engine import plain_process
from tarbox.errors import KernelError, ProcessNotFoundError, UsageError
from tarbox.kernel.addresses import packed
from tarbox.kernel.bridge import ConnectVeth, MakeBridge
from tarbox.kernel.forwarding import Forwarding
from tarbox.kernel.interfaces import AwaitNetwork
from tarbox.kernel.namespaces import DieWithParent, Spawn
from tarbox.kernel.runner import DeathSignal
from tarbox.kernel.signals import DefaultSignals
from tarbox.plan.plan import Plan
from tarbox.plan.step import Slots

FOUR, SIX = (packed("10.9.0.1"), 24), (packed("fd00:9::1"), 64)
BOX, BOX6 = (packed("10.9.0.2"), 24), (packed("fd00:9::2"), 64)
MAC = b"\x02\x74\x0a\x09\0\x02"


@pytest.fixture(autouse=True)
def _network():
    with netns.fresh():
        yield


@pytest.fixture
def box():
    with netns.Neighbour() as made:
        yield made


def slots(box):
    made = Slots()
    made.found["pid"] = box.pid
    made.give("pidfd", box.pidfd)
    return made


def setting(name):
    return Path("/proc/sys/net", name).read_text().strip()


def change(name, value):
    Path("/proc/sys/net", name).write_text(value)


def interface(name, run=netns.output):
    (made,) = [one for one in netns.shown("address", "show", "dev", name, run=run) if one]
    return made


def addresses(name, run=netns.output):
    """What an interface has, those of the link aside."""
    return {
        f"{one['local']}/{one['prefixlen']}" for one in interface(name, run)["addr_info"] if one["scope"] == "global"
    }


# --- The bridge ------------------------------------------------------------------------------------------------------


def test_a_bridge():
    MakeBridge("box0", (FOUR,), 1400).apply(Slots())
    made = interface("box0")
    assert (made["linkinfo"]["info_kind"], made["ifalias"], made["mtu"]) == ("bridge", "tarbox", 1400)
    assert made["address"] == "02:74:0a:09:00:01"
    assert "UP" in made["flags"]
    assert [one["local"] for one in made["addr_info"]] == ["10.9.0.1"]
    assert setting("ipv6/conf/box0/disable_ipv6") == "1"
    assert setting("ipv4/conf/box0/route_localnet") == "1"


def test_a_bridge_with_ipv6():
    MakeBridge("box0", (FOUR, SIX), ipv6=True).apply(Slots())
    assert addresses("box0") == {"10.9.0.1/24", "fd00:9::1/64"}
    assert (setting("ipv6/conf/box0/disable_ipv6"), setting("ipv6/conf/box0/accept_ra")) == ("0", "0")


def test_a_bridge_that_is_there_is_made_so():
    """It stays the same one; whatever somebody changed is as it should be."""
    step = MakeBridge("box0", (FOUR, SIX), 1400, True)
    step.apply(Slots())
    before = interface("box0")
    step.apply(Slots())
    assert interface("box0") | {"linkinfo": None} == before | {"linkinfo": None}  # which has timers
    for command in ("link set box0 down", "link set box0 mtu 1300", "address flush dev box0"):
        netns.output("ip", *command.split())
    change("ipv6/conf/box0/disable_ipv6", "1")
    change("ipv4/conf/box0/route_localnet", "0")
    step.apply(Slots())
    after = interface("box0")
    assert (after["ifindex"], after["mtu"], "UP" in after["flags"]) == (before["ifindex"], 1400, True)
    assert addresses("box0") == {"10.9.0.1/24", "fd00:9::1/64"}
    assert (setting("ipv6/conf/box0/disable_ipv6"), setting("ipv4/conf/box0/route_localnet")) == ("0", "1")


@pytest.mark.parametrize("kind", ["bridge", "veth", "dummy"])
def test_what_is_somebody_elses_is_left_alone(kind):
    done = subprocess.run(["ip", "link", "add", "box0", "type", kind], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        assert kind == "dummy", done.stderr
        netns.output("ip", "link", "add", "box0", "type", "bridge")
    with pytest.raises(UsageError, match="there is an interface box0 already that isn't a bridge of tarbox's"):
        MakeBridge("box0", (FOUR,)).apply(Slots())
    assert "UP" not in interface("box0")["flags"]
    assert not addresses("box0")


def test_bridges_that_are_made_at_once(tmp_path):
    """Whoever comes second finds it, however close."""
    step = MakeBridge("box0", (FOUR,))
    for _ in range(10):
        go, start = os.pipe()
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.close(start)
                    os.read(go, 1)
                    step.apply(Slots())
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        os.close(go)
        os.close(start)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
        assert addresses("box0") == {"10.9.0.1/24"}
        netns.output("ip", "link", "delete", "box0")


# --- The cable -------------------------------------------------------------------------------------------------------


def test_a_container_is_plugged_in(box):
    """It has its address, a way out, no IPv6, and reaches the host; both ends go with it."""
    MakeBridge("box0", (FOUR,), 1400).apply(Slots())
    box.run("ip", "link", "add", "other0", "type", "bridge")  # so that its numbers aren't ours
    before = os.stat("/proc/self/ns/net").st_ino
    ConnectVeth("box0", "v1", MAC, (BOX,), (FOUR[0],), 1400, hairpin=True).apply(slots(box))
    assert os.stat("/proc/self/ns/net").st_ino == before
    inside = interface("eth0", box.run)
    assert (inside["address"], inside["mtu"], "UP" in inside["flags"]) == ("02:74:0a:09:00:02", 1400, True)
    assert [one["local"] for one in inside["addr_info"]] == ["10.9.0.2"]
    (way,) = netns.shown("route", "show", "default", run=box.run)
    assert (way["gateway"], way["dev"]) == ("10.9.0.1", "eth0")
    assert box.run("cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6") == "1\n"
    ours = interface("v1")
    assert (ours["master"], ours["addr_info"], ours["mtu"]) == ("box0", [], 1400)
    assert ours["linkinfo"]["info_slave_data"]["hairpin"] is True
    server = netns.opened(at=("10.9.0.1", 80))
    client = box.socket()
    client.connect(("10.9.0.1", 80))
    accepted, peer = server.accept()
    accepted.close()
    assert peer[0] == "10.9.0.2"


def test_a_container_with_ipv6(box):
    import socket

    MakeBridge("box0", (FOUR, SIX), ipv6=True).apply(Slots())
    ConnectVeth("box0", "v1", MAC, (BOX, BOX6), (FOUR[0], SIX[0])).apply(slots(box))
    assert addresses("eth0", box.run) == {"10.9.0.2/24", "fd00:9::2/64"}
    assert [one["gateway"] for one in netns.shown("-6", "route", "show", "default", run=box.run)] == ["fd00:9::1"]
    assert box.run("cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra") == "0\n"
    netns.opened(socket.AF_INET6, at=("fd00:9::1", 80))
    client = box.socket(socket.AF_INET6)
    client.connect(("fd00:9::1", 80))  # at once: nobody asks first whether the address is free
    assert client.getsockname()[0] == "fd00:9::2"
    assert addresses("v1") == set()


def test_a_program_finds_its_network_ready(capfd):
    """In a whole plan: the process is born in its network namespace, and waits until it is plugged in."""
    script = "ip -br address show eth0; ip route; ping -c 1 -W 2 10.9.0.1 >/dev/null && echo reached"

    def planned(mask, given):
        bridge, cable = MakeBridge("box0", (FOUR,)), ConnectVeth("box0", "v1", MAC, (BOX,), (FOUR[0],))
        program = plain_process.program(("sh", "-c", script))
        last = [DieWithParent(), AwaitNetwork(), DefaultSignals(mask=mask), DeathSignal(), program]
        return Plan([bridge, Spawn(("pid", "network")), cable, *last], given)

    assert plain_process.carry_out(planned) == 0
    first, *others = capfd.readouterr().out.splitlines()
    assert first.split()[0].startswith("eth0@")
    assert first.split()[2:] == ["10.9.0.2/24"]
    assert others == [
        "default via 10.9.0.1 dev eth0 proto static ", "10.9.0.0/24 dev eth0 proto kernel scope link src 10.9.0.2 ",
        "reached",
    ]  # fmt: skip


def test_a_namespace_that_lasts(box):
    """It may be given by a descriptor of its own, without any process."""
    MakeBridge("box0", (FOUR,)).apply(Slots())
    held = Slots()
    held.give("network namespace", os.open(f"/proc/{box.pid}/ns/net", os.O_RDONLY))
    ConnectVeth("box0", "v1", b"", (BOX,), namespace="network namespace").apply(held)
    os.close(held.take("network namespace"))
    assert addresses("eth0", box.run) == {"10.9.0.2/24"}
    assert not netns.shown("route", "show", "default", run=box.run)


def test_it_goes_with_the_container():
    import time

    MakeBridge("box0", (FOUR,)).apply(Slots())
    with netns.Neighbour() as box:
        ConnectVeth("box0", "v1", MAC, (BOX,)).apply(slots(box))
        assert os.path.exists("/proc/sys/net/ipv4/conf/v1")
    end = time.monotonic() + 10
    while os.path.exists("/proc/sys/net/ipv4/conf/v1"):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_containers_that_cant_be_plugged_in(box):
    before = os.stat("/proc/self/ns/net").st_ino
    cable = ConnectVeth("box0", "v1", MAC, (BOX,))
    with pytest.raises(KernelError, match=r"box0.*No such device.*somebody removed the network's bridge"):
        cable.apply(slots(box))
    MakeBridge("box0", (FOUR,)).apply(Slots())
    cable.apply(slots(box))
    with netns.Neighbour() as other, pytest.raises(KernelError, match="RTM_NEWLINK v1: File exists"):
        cable.apply(slots(other))
    unreachable = r"RTM_NEWROUTE default via 192\.0\.2\.1: Network is unreachable"
    with netns.Neighbour() as other, pytest.raises(KernelError, match=unreachable):
        ConnectVeth("box0", "v2", MAC, (BOX,), (packed("192.0.2.1"),)).apply(slots(other))
    with netns.Neighbour() as ended:
        there = slots(ended)
        handle = os.dup(ended.pidfd)
    there.give("pidfd", handle)
    with pytest.raises(ProcessNotFoundError, match="the container's first process ended"):
        ConnectVeth("box0", "v3", MAC, (BOX,)).apply(there)
    os.close(handle)
    assert os.stat("/proc/self/ns/net").st_ino == before


# --- The router ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True])
def test_forwarding(ipv6):
    Forwarding(ipv6).apply(Slots())
    assert setting("ipv4/ip_forward") == "1"
    assert setting("ipv6/conf/all/forwarding") == ("1" if ipv6 else "0")
    Forwarding(ipv6).apply(Slots())


def test_forwarding_where_nothing_may_be_written():
    """What is set already is well; what isn't is told, with what is in the way."""
    netns.output("mount", "--bind", "/proc/sys", "/proc/sys")
    netns.output("mount", "-o", "remount,bind,ro", "/proc/sys")
    try:
        with pytest.raises(KernelError, match=r"ip_forward, 1\): Read-only file .*/proc/sys is mounted read-only"):
            Forwarding().apply(Slots())
        netns.output("mount", "-o", "remount,bind,rw", "/proc/sys")
        Forwarding().apply(Slots())
        netns.output("mount", "-o", "remount,bind,ro", "/proc/sys")
        Forwarding().apply(Slots())
    finally:
        netns.output("umount", "/proc/sys")


def _advertised():
    """Three interfaces: with a route that a router told of, without, and with such a route but deaf by choice."""
    for name, deaf in (("world0", False), ("world1", False), ("world2", True)):
        netns.output("ip", "link", "add", name, "type", "bridge")
        change(f"ipv6/conf/{name}/accept_ra", "0" if deaf else "1")
        netns.output("ip", "link", "set", name, "up")
        if name != "world1":
            netns.output("ip", "-6", "route", "add", f"2001:db8:{name[-1]}::/64", "dev", name, "proto", "ra")


@pytest.mark.parametrize("way", ["apply", "shell"])
def test_a_router_goes_on_listening_to_its_own(way):
    """Where a default route came from an advertisement, later ones are still believed."""
    _advertised()
    if way == "apply":
        Forwarding(True).apply(Slots())
    else:
        netns.output("sh", "-euc", Forwarding(True).shell())
    assert [setting(f"ipv6/conf/world{number}/accept_ra") for number in range(3)] == ["2", "1", "0"]
    assert (setting("ipv4/ip_forward"), setting("ipv6/conf/all/forwarding")) == ("1", "1")


# --- In a shell ------------------------------------------------------------------------------------------------------

SETTINGS = ("ipv6/conf/box0/disable_ipv6", "ipv6/conf/box0/accept_ra", "ipv4/conf/box0/route_localnet",
            "ipv4/ip_forward", "ipv6/conf/all/forwarding")  # fmt: skip
CHANGING = ("ifindex", "link_index", "link_netnsid", "stats", "stats64", "linkinfo", "flags", "operstate")


def state(box):
    """All that is to be seen of the network, without numbers and clocks that are others each time."""
    seen = []
    for run in (netns.output, box.run):
        for one in filter(None, netns.shown("address", run=run)):
            one["up"] = "UP" in one["flags"]
            one["kind"] = one.get("linkinfo", {}).get("info_kind")
            port = one.get("linkinfo", {}).get("info_slave_data", {})
            one["port"] = {key: port.get(key) for key in ("hairpin", "isolated")}
            one["addr_info"] = [(address["local"], address["prefixlen"], address.get("nodad"))
                                for address in one["addr_info"] if address["scope"] == "global"]  # fmt: skip
            if one["ifname"] == "v1":  # ours has any
                del one["address"]
            seen.append({key: value for key, value in one.items() if key not in CHANGING})
        found = [*netns.shown("-4", "route", run=run), *netns.shown("-6", "route", run=run)]
        seen.append([(one["dst"], one.get("gateway"), one["dev"]) for one in found if one["dst"][:4] != "fe80"])
    seen.append([setting(name) for name in SETTINGS])
    seen.append(box.run("cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"))
    return seen


@pytest.mark.parametrize("wide", [False, True])
def test_a_shell_does_the_same(box, wide):
    bridge = MakeBridge("box0", (FOUR, SIX) if wide else (FOUR,), 1400, wide)
    inside, out = ((BOX, BOX6), (FOUR[0], SIX[0])) if wide else ((BOX,), (FOUR[0],))
    cable = ConnectVeth("box0", "v1", MAC, inside, out, 1400, hairpin=True, isolated=True)
    steps = [bridge, bridge, Forwarding(wide), cable]
    for step in steps:
        step.apply(slots(box))
    ours = state(box)
    with netns.fresh(), netns.Neighbour() as other:
        script = "\n".join([f"process={other.pid}", *(step.shell() for step in steps)])
        netns.output("sh", "-euc", script)
        assert state(other) == ours
