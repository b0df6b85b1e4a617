"""Bridges, veth pairs, addresses and routes: what our requests make is what Debian's ip shows."""

from __future__ import annotations

import errno
import os
import signal

import pytest

import netns
from conftest import PLAIN_USER
from tarbox.errors import KernelError
from tarbox.kernel import links, netlink
from tarbox.kernel.addresses import packed
from tarbox.kernel.netlink import Netlink, NetlinkError

MAC = b"\x02\x74\x0a\x09\x08\x01"


@pytest.fixture(autouse=True)
def _network():
    with netns.fresh():
        yield


@pytest.fixture
def route():
    with Netlink() as made:
        yield made


def test_a_bridge(route):
    route.send([links.bridge("box0", 1400, MAC), links.set_alias("box0", "tarbox")])
    (made,) = netns.shown("link", "show", "box0")
    assert made["linkinfo"]["info_kind"] == "bridge"
    assert (made["mtu"], made["address"], made["ifalias"]) == (1400, "02:74:0a:09:08:01", "tarbox")
    assert "UP" not in made["flags"]
    index = links.index_of(route, "box0")
    assert index == made["ifindex"]
    route.send([links.set_up(index), links.set_mtu(index, 1300)])
    (made,) = netns.shown("link", "show", "box0")
    assert "UP" in made["flags"]
    assert made["mtu"] == 1300
    route.send([links.delete("box0")])
    assert links.index_of(route, "box0") == 0
    assert links.link(route, "box0") is None


@pytest.mark.parametrize("by", ["namespace", "pid"])
def test_a_veth_pair(route, by):
    """Both ends by one request: ours up and a port that never gets an address by itself, the other one inside."""
    with netns.Neighbour() as inside:
        route.send([links.bridge("box0", 0, MAC), links.set_up("box0")])
        descriptor = os.open(f"/proc/{inside.pid}/ns/net", os.O_RDONLY)
        where = {"namespace": descriptor} if by == "namespace" else {"pid": inside.pid}
        master, mac = links.index_of(route, "box0"), MAC[:5] + b"\x02"
        made = links.veth("v1", "eth0", master=master, mac=mac, mtu=1400, **where)
        route.send([made, links.port("v1", hairpin=True, isolated=True)])
        os.close(descriptor)
        (ours,) = netns.shown("link", "show", "v1")
        assert (ours["master"], ours["mtu"], ours["linkinfo"]["info_kind"]) == ("box0", 1400, "veth")
        assert "UP" in ours["flags"]
        port = ours["linkinfo"]["info_slave_data"]
        assert (port["hairpin"], port["isolated"]) == (True, True)
        assert ours["inet6_addr_gen_mode"] == "none"
        (theirs,) = [one for one in netns.shown("link", "show", "eth0", run=inside.run) if one]
        assert (theirs["address"], theirs["mtu"]) == ("02:74:0a:09:08:02", 1400)
        assert "UP" not in theirs["flags"]
        inside.run("ip", "link", "set", "eth0", "up")
        assert "inet6" not in netns.output("ip", "address", "show", "v1")


def test_a_port_is_a_plain_one_unless_asked(route):
    with netns.Neighbour() as inside:
        route.send([links.bridge("box0")])
        route.send([links.veth("v1", "eth0", pid=inside.pid, master=links.index_of(route, "box0")), links.port("v1")])
        (ours,) = netns.shown("link", "show", "v1")
        port = ours["linkinfo"]["info_slave_data"]
        assert (port["hairpin"], port["isolated"]) == (False, False)


def test_addresses_and_routes(route):
    route.send([links.bridge("box0", 0, MAC), links.set_up("box0")])
    index = links.index_of(route, "box0")
    four, six = packed("10.9.8.1"), packed("fd00:9::1")
    wanted = [links.address(index, four, 24), links.address(index, six, 64),
              links.default_route(packed("10.9.8.254"), index), links.default_route(packed("fd00:9::fe"), index),
              links.route(packed("192.0.2.0"), 24, packed("10.9.8.253")),
              links.route(packed("198.51.100.0"), 24, index=index, table=1000)]  # fmt: skip
    route.send(wanted)
    route.send(wanted)  # what is there already stays as it is
    (made,) = [one for one in netns.shown("address", "show", "box0") if one]
    found = {(one["local"], one["prefixlen"], one["scope"], one.get("nodad", False)) for one in made["addr_info"]}
    assert {("10.9.8.1", 24, "global", False), ("fd00:9::1", 64, "global", True)} <= found
    shown = {(one["dst"], one.get("gateway"), one["dev"]) for one in netns.shown("route")}
    assert {("default", "10.9.8.254", "box0"), ("192.0.2.0/24", "10.9.8.253", "box0")} <= shown
    assert ("default", "fd00:9::fe") in {(one["dst"], one.get("gateway")) for one in netns.shown("-6", "route")}
    (other,) = netns.shown("route", "show", "table", "1000")
    assert (other["dst"], other["dev"], other["scope"]) == ("198.51.100.0/24", "box0", "link")

    assert {(one.ip, one.prefix, one.index) for one in links.addresses(route)} >= {(four, 24, index), (six, 64, index)}
    assert all(len(one.ip) == 16 for one in links.addresses(route, 6))
    mine = {(one.destination, one.prefix, one.gateway, one.index, one.table) for one in links.routes(route, 4)}
    assert {
        (b"", 0, packed("10.9.8.254"), index, links.MAIN),
        (packed("192.0.2.0"), 24, packed("10.9.8.253"), index, links.MAIN),
        (packed("198.51.100.0"), 24, b"", index, 1000),
    } <= mine
    assert (b"", packed("fd00:9::fe"), links.STATIC) in {
        (one.destination, one.gateway, one.by) for one in links.routes(route, 6)
    }
    route.send([links.delete_route(packed("198.51.100.0"), 24, index=index, table=1000),
                links.delete_address(index, four, 24), links.delete_address(index, six, 64)])  # fmt: skip
    assert "10.9.8.1" not in netns.output("ip", "address")
    assert "fd00:9::1" not in netns.output("ip", "address")
    assert not netns.shown("route", "show", "table", "1000")


def test_what_there_is(route):
    route.send([links.bridge("box0", 1400, MAC), links.set_alias("box0", "tarbox"), links.set_up("box0")])
    with netns.Neighbour() as inside:
        route.send([links.veth("v1", "eth0", pid=inside.pid, master=links.index_of(route, "box0"))])
        theirs = {(one["ifname"], one["ifindex"], one["mtu"], one["address"], one.get("ifalias", ""),
                   one.get("linkinfo", {}).get("info_kind", ""), "UP" in one["flags"])
                  for one in netns.shown("link")}  # fmt: skip
        found = links.links(route)
        assert {(one.name, one.index, one.mtu, one.mac.hex(":"), one.alias, one.kind, bool(one.flags & links.UP))
                for one in found} == theirs  # fmt: skip
        assert {one.name: one.master for one in found} == {"lo": 0, "box0": 0, "v1": links.index_of(route, "box0")}
        one = links.link(route, "v1")
        assert (one.name, one.kind, one.master) == ("v1", "veth", links.index_of(route, "box0"))


def test_errors_name_the_request_and_what_the_kernel_says(route):
    route.send([links.bridge("box0")])
    for number, index, text, requests in [
        (errno.EEXIST, 1, "RTM_NEWLINK box0: File exists", [links.set_up("lo"), links.bridge("box0")]),
        (errno.ENODEV, 0, "RTM_NEWLINK nothing: No such device", [links.set_up("nothing"), links.set_up("nobody")]),
        (errno.ENODEV, 0, "RTM_DELLINK nothing: No such device", [links.delete("nothing")]),
        (errno.ERANGE, 0, "RTM_NEWLINK sixteen-letters-: Numerical result out of range",
         [links.bridge("sixteen-letters-")]),
        (errno.EINVAL, 0, "RTM_NEWLINK with/slash: Invalid argument", [links.bridge("with/slash")]),
        (errno.EINVAL, 0, "RTM_NEWLINK box0: Invalid argument: mtu less than device minimum",
         [links.set_mtu("box0", 1)]),
        (errno.ENETUNREACH, 0,
         "RTM_NEWROUTE default via 192.0.2.1: Network is unreachable: Nexthop has invalid gateway",
         [links.default_route(packed("192.0.2.1"), links.index_of(route, "lo"))]),
        (errno.ESRCH, 0, "RTM_NEWLINK v1: No such process", [links.veth("v1", "eth0", pid=(1 << 22) - 1)]),
    ]:  # fmt: skip
        with pytest.raises(NetlinkError) as caught:
            route.send(requests)
        assert text in str(caught.value)
        assert (caught.value.errno, caught.value.index) == (number, index)
    assert links.index_of(route, "sixteen-letters-") == 0
    assert links.index_of(route, "box0" + "\0" * 20) == 0


def test_who_may_not_is_told_what_it_takes(test_host):
    """A plain user's socket refuses, by number and with a hint."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tarbox.kernel import links; from tarbox.kernel.netlink import Netlink\n"
        "try: Netlink().send([links.bridge('box0')])\n"
        "except Exception as error: print(error)\n"
    )
    become = ("setpriv", f"--reuid={PLAIN_USER}", f"--regid={PLAIN_USER}", "--clear-groups")
    source = str(test_host.plain_main.parent.parent)
    told = netns.output(*become, test_host.plain_python, "-B", "-c", program, source, cwd="/")
    assert "RTM_NEWLINK box0: Operation not permitted" in told
    assert "it takes CAP_NET_ADMIN" in told


def test_a_thousand_addresses_at_once(route):
    """More requests than a socket has room for confirmations; and as many errors."""
    index = links.index_of(route, "lo")
    many = [links.address(index, bytes([10, 1, number >> 8, number & 255]), 32) for number in range(3000)]
    route.send(many)
    assert len([one for one in links.addresses(route, 4) if one.ip.startswith(b"\x0a\x01")]) == 3000
    away = [links.delete_address(index, bytes([10, 1, number >> 8, number & 255]), 32) for number in range(3000)]
    route.send(away)
    with pytest.raises(NetlinkError, match=r"RTM_DELADDR 10\.1\.0\.0/32: Cannot assign requested address") as caught:
        route.send(away)
    assert caught.value.index == 0
    assert [one.ip for one in links.addresses(route, 4)] == [bytes([127, 0, 0, 1])]


# --- Another namespace -----------------------------------------------------------------------------------------------


def here():
    return os.stat("/proc/self/ns/net").st_ino


def test_a_socket_in_another_namespace():
    """By a descriptor of the namespace or of a process; the process itself is where it was."""
    before = here()
    with netns.Neighbour() as inside:
        descriptor = os.open(f"/proc/{inside.pid}/ns/net", os.O_RDONLY)
        for handle in (descriptor, inside.pidfd):
            with Netlink.within(handle) as route:
                assert here() == before
                route.send([links.bridge(f"box{handle}")])
        os.close(descriptor)
        assert inside.run("ip", "-br", "link").count("box") == 2
        assert "box" not in netns.output("ip", "-br", "link")


def test_nothing_keeps_us_there():
    before = here()
    with netns.Neighbour() as inside:
        with pytest.raises(ZeroDivisionError):
            netlink.visit(inside.pidfd, lambda: 1 // 0)
        assert here() == before
        wrong = os.open("/proc/self/ns/uts", os.O_RDONLY)
        with pytest.raises(KernelError, match="setns"):
            netlink.visit(wrong, here)
        os.close(wrong)
        assert here() == before
        assert netlink.visit(inside.pidfd, here) == os.stat(f"/proc/{inside.pid}/ns/net").st_ino


def test_a_signal_waits_until_we_are_back():
    """What its handler raises comes when this process is home, and not in between."""
    seen = []
    before = here()

    def handler(number, frame):
        seen.append(here())
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        with netns.Neighbour() as inside, pytest.raises(KeyboardInterrupt):
            netlink.visit(inside.pidfd, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert seen == [before]
        assert here() == before
        assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_a_process_that_has_ended():
    with netns.Neighbour() as inside:
        handle = os.dup(inside.pidfd)
    with pytest.raises(KernelError, match="setns"):
        Netlink.within(handle)
    os.close(handle)


def test_a_socket_isnt_for_programs_that_are_executed(route):
    assert not os.get_inheritable(route.fileno())
    number = route.fileno()
    route.close()
    route.close()
    with pytest.raises(OSError):
        os.fstat(number)
