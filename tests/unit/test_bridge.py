"""The steps of a bridge network, without a kernel: where they can stand in a plan, and what they tell."""

from __future__ import annotations

import errno

import pytest

from tarbox.errors import UnsupportedError
from tarbox.kernel import bridge
from tarbox.kernel.addresses import packed
from tarbox.kernel.bridge import ConnectVeth, MakeBridge
from tarbox.kernel.forwarding import Forwarding
from tarbox.kernel.interfaces import AwaitNetwork
from tarbox.kernel.namespaces import Spawn
from tarbox.kernel.netlink import NetlinkError
from tarbox.kernel.uts import HostName
from tarbox.plan.plan import Plan

FOUR, SIX = (packed("10.9.0.1"), 24), (packed("fd00:9::1"), 64)
CABLE = ConnectVeth("box0", "v1", b"\x02\x74\x0a\x09\0\x02", ((packed("10.9.0.2"), 24),), (packed("10.9.0.1"),))


def test_a_container_is_plugged_in_when_it_is_there():
    spawn, inside = Spawn(("pid", "network")), HostName("box")
    plan = Plan([MakeBridge("box0", (FOUR,)), Forwarding(), spawn, CABLE, inside, AwaitNetwork()])
    assert [handover.index for handover in plan.handovers] == [4]
    with pytest.raises(ValueError, match="takes pidfd"):
        Plan([CABLE, spawn, inside])
    kept = ConnectVeth("box0", "v1", b"", (), namespace="network namespace")
    Plan([MakeBridge("box0", (FOUR,)), kept, spawn, inside], given=("network namespace",))


def test_what_they_tell():
    assert MakeBridge("box0", (FOUR, SIX)).call() == (
        'send(RTM_NEWLINK "box0" bridge, RTM_NEWADDR 10.9.0.1/24, RTM_NEWADDR fd00:9::1/64), '
        'write("/proc/sys/net/ipv4/conf/box0/route_localnet", "1")'
    )
    assert CABLE.call() == (
        'send(RTM_NEWLINK "v1" veth, master "box0", peer "eth0" in the container), setns(network), '
        "send(RTM_NEWLINK eth0 up, RTM_NEWADDR 10.9.0.2/24, RTM_NEWROUTE default via 10.9.0.1)"
    )
    assert Forwarding().call() == 'write("/proc/sys/net/ipv4/ip_forward", "1")'
    assert "ipv6/conf/all/forwarding" in Forwarding(True).call()


def test_in_a_script_the_helper_outside_plugs_it_in():
    """What begins like this is done by somebody who knows the process's number outside."""
    first, *others = CABLE.shell().split("; ")
    assert first == (
        'nsenter --net="/proc/$process/ns/net" '
        "ip link add eth0 address 02:74:0a:09:00:02 type veth peer name v1 netns $$"
    )
    assert "ip link set v1 master box0" in others


def test_a_bridge_has_one_hardware_address():
    """Made of its first address, so it is the same one each time, and no other network's."""
    assert bridge.mac((FOUR, SIX)).hex(":") == "02:74:0a:09:00:01"
    assert bridge.mac((SIX,)).hex(":") == "02:74:00:00:00:01"
    assert bridge.mac(()) == b""


def test_what_the_kernel_lacks_is_named():
    lacking = NetlinkError("RTM_NEWLINK box0", errno.EOPNOTSUPP, text="Unknown device type")
    made = bridge.unsupported(lacking, "bridges", "CONFIG_BRIDGE")
    assert isinstance(made, UnsupportedError)
    assert str(made) == "this kernel has no bridges (they are CONFIG_BRIDGE in its configuration)"
    other = NetlinkError("RTM_NEWLINK box0", errno.EPERM)
    assert bridge.unsupported(other, "bridges", "CONFIG_BRIDGE") is other
