"""Networks as they are defined and stored: texts, subnets that are free, names that are found."""

from __future__ import annotations

import ipaddress
import os
import random

import pytest

from tarbox.errors import NetworkError, NetworkNotFoundError, StorageError, UnsupportedError, UsageError
from tarbox.networks import choice, leases, request, routes
from tarbox.networks.addresses import read, read_subnet
from tarbox.networks.definition import Network, Subnet, parse, render
from tarbox.networks.store import Networks, derived_id

SEED = random.Random(7)
ID = "ab12" * 16


def number(text: str) -> int:
    return read(text)[1]


def sub(*words: str) -> Subnet:
    """A subnet with its gateway and range, of the words that --subnet, --gateway and --ip-range have."""
    (found,) = request.subnets(words[:1], words[1:2], words[2:3])
    return found


@pytest.fixture
def store(tmp_path):
    """An empty store on a machine whose routes are those of `store.host`."""
    (tmp_path / "state").mkdir()

    class Store(Networks):
        host: list[tuple[int, int, int, str]] = []

    Store.host = []
    return Store(str(tmp_path / "data"), str(tmp_path / "state"), lambda: Store.host)


def leads(store, *words: str, interface: str = "tun0"):
    """Let the host have routes to these subnets."""
    type(store).host = [(*read_subnet(word), interface) for word in words]


# --- The text of a definition ----------------------------------------------------------------------------------------


def facts(network: Network) -> dict[str, object]:
    found = {key: getattr(network, key) for key in network.__slots__ if key != "subnets"}
    return found | {"subnets": [[getattr(subnet, key) for key in subnet.__slots__] for subnet in network.subnets]}


FULL = Network(
    ID, "web", request.subnets(["10.2.0.0/24", "fd00:2::/64"], ["10.2.0.9"], ["10.2.0.128/25"]), True, True,
    {"a.b": "c=d", "e": "", "line": "one\ntwo\\n\\\n", "tab": "\t\r ü \udcff"}, {"mtu": "1400", "bridge": "br7"},
    "2026-01-31T12:00:00.123456789Z",
)  # fmt: skip


def test_a_definition_survives_its_text():
    assert render(FULL).splitlines()[3] == "subnet 10.2.0.0/24 gateway 10.2.0.9 from 10.2.0.128 to 10.2.0.254"
    assert facts(parse(render(FULL), "x")) == facts(FULL)
    least = Network(ID, "web", [], created="now")
    assert facts(parse(render(least), "x")) == facts(least)


def test_any_label_survives():
    for _ in range(500):
        value = "".join(SEED.choice("\\\n nx=\"'\r\0") for _ in range(SEED.randint(0, 12)))
        network = Network(ID, "web", [], labels={"key": value}, created="now")
        assert parse(render(network), "x").labels == {"key": value}


def test_a_text_that_was_cut_is_told_wherever_it_was():
    """None of its beginnings is taken for a network, and the error names the file."""
    text = render(FULL)
    for length in range(len(text)):
        with pytest.raises(StorageError, match=r"/data/networks/web") as raised:
            parse(text[:length], "/data/networks/web")
        assert raised.value.hint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tarbox network 1", "tarbox network 2"), (f"id {ID}\n", ""), (f"id {ID}", "id abc"), ("name web\n", ""),
        ("name web", "nome web"), ("gateway ", "gatway "), ("10.2.0.9", "10.2.0.09"),
        ("from 10.2.0.128", "from fd00::1"), ("to 10.2.0.254", "to 10.3.0.1"),
        ("subnet fd00:2::/64", "subnet 10.9.0.0/24"),
        ("internal\n", "internal\ninternal\n"), ("label a.b=c=d", "label a.b"), ("\ncreated", "\n\ncreated"),
        ("subnet 10.2.0.0/24", "subnet 10.2.0.1/24"),
    ],
)  # fmt: skip
def test_nonsense_is_told(old, new):
    text = render(FULL)
    assert old in text
    with pytest.raises(StorageError, match=r"^/here is no definition"):
        parse(text.replace(old, new), "/here")


def test_the_bridge_has_a_name_that_the_kernel_takes():
    assert FULL.bridge == "br7"
    assert Network(ID, "web", [], options={"com.docker.network.bridge.name": "br8"}).bridge == "br8"
    assert Network(ID, "web", []).bridge == "tb-ab12ab12ab12"
    assert (FULL.mtu, Network(ID, "web", []).mtu) == (1400, 0)
    assert (str(FULL.v4), str(FULL.v6)) == ("10.2.0.0/24", "fd00:2::/64")


# --- What is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "gateway", "first", "last", "count"),
    [
        (("10.2.0.0/24",), "10.2.0.1", "10.2.0.1", "10.2.0.254", 253),
        (("10.2.0.0/24", "10.2.0.254"), "10.2.0.254", "10.2.0.1", "10.2.0.254", 253),
        (("10.2.0.0/24", "10.2.0.1", "10.2.0.128/25"), "10.2.0.1", "10.2.0.128", "10.2.0.254", 127),
        (("10.2.0.0/24", "10.2.0.1", "10.2.0.0/30"), "10.2.0.1", "10.2.0.1", "10.2.0.3", 2),
        (("10.2.0.0/24", "10.2.0.1", "10.2.0.7/32"), "10.2.0.1", "10.2.0.7", "10.2.0.7", 1),
        (("10.2.0.0/30",), "10.2.0.1", "10.2.0.1", "10.2.0.2", 1),
        (("fd00:2::/64",), "fd00:2::1", "fd00:2::1", "fd00:2::ffff:ffff:ffff:ffff", 2**64 - 2),
        (("fd00:2::/126",), "fd00:2::1", "fd00:2::1", "fd00:2::3", 2),
    ],
)
def test_a_subnet_is_laid_out(words, gateway, first, last, count):
    subnet = sub(*words)
    assert (subnet.gateway, subnet.first, subnet.last) == (number(gateway), number(first), number(last))
    assert subnet.count() == count
    network = ipaddress.ip_network(words[0])
    if network.num_addresses <= 256:
        free = [at for at in range(subnet.first, subnet.last + 1) if subnet.may_be_used(at)]
        assert len(free) == count
        assert int(network.network_address) not in free
        assert subnet.gateway not in free
        assert network.version == 6 or int(network.broadcast_address) not in free


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((["10.2.0.7/24"],), "10.2.0.0/24"),
        ((["10.2.0.0/24", "10.3.0.0/24"],), "one subnet of IPv4 and one of IPv6"),
        ((["10.2.0.0/31"],), "no room"),
        ((["10.2.0.0/32"],), "no room"),
        ((["fd00::/127"],), "no room"),
        ((["16.0.0.0/7"],), "too large"),
        ((["0.0.0.0/0"],), "can't be a network's"),
        ((["127.1.0.0/16"],), "can't be a network's"),
        ((["224.0.0.0/24"],), "multicast"),
        ((["::/64"],), "can't be a network's"),
        ((["fe80::/64"],), "link-local"),
        ((["10.2.0.0/24"], ["10.3.0.1"]), "the gateway 10.3.0.1 is in no subnet"),
        ((["10.2.0.0/24"], ["fd00::1"]), "is in no subnet"),
        ((["10.2.0.0/24"], ["10.2.0.0"]), "can't be an address of its own"),
        ((["10.2.0.0/24"], ["10.2.0.255"]), "can't be an address of its own"),
        ((["10.2.0.0/24"], ["10.2.0.1", "10.2.0.2"]), "two gateways"),
        (([], ["10.2.0.1"]), "it needs a --subnet"),
        (([], [], ["10.2.0.0/25"]), "it needs a --subnet"),
        ((["10.2.0.0/24"], [], ["10.2.0.0/23"]), "is in no subnet"),
        ((["10.2.0.0/24"], [], ["10.2.0.0/32"]), "no address for a container"),
        ((["10.2.0.0/24"], [], ["10.2.0.1/32"]), "no address for a container"),
        ((["10.2.0.0/24"], [], ["10.2.0.0/25", "10.2.0.128/25"]), "two ranges"),
        ((["web"],), "is not a subnet"),
    ],
)
def test_subnets_that_cannot_be(arguments, said):
    with pytest.raises(UsageError) as raised:
        request.subnets(*arguments)
    assert said in str(raised.value)


@pytest.mark.parametrize("word", ["web", "a", "0", "My_net.1-x", "x" * 200])
def test_names(word):
    assert request.name(word) == word


@pytest.mark.parametrize(
    "word", ["", "-x", ".x", "_x", "a/b", "..", "a b", "ä", "a\n", "x" * 201, "a:b", "container:x", *request.RESERVED]
)
def test_names_that_cannot_be(word):
    with pytest.raises(UsageError):
        request.name(word)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("bridge", "br0", None), ("com.docker.network.bridge.name", "x" * 15, None), ("bridge", "x" * 16, UsageError),
        ("bridge", "a/b", UsageError), ("bridge", "", UsageError), ("bridge", "all", UsageError),
        ("bridge", "a b", UsageError), ("mtu", "1400", None), ("mtu", "0", None),
        ("mtu", "67", UsageError), ("mtu", "65536", UsageError),
        ("mtu", "1e3", UsageError), ("mtu", "-1", UsageError), ("com.docker.network.driver.mtu", "x", UsageError),
        ("com.docker.network.bridge.enable_icc", "true", None),
        ("com.docker.network.bridge.enable_icc", "false", UnsupportedError), ("vlan", "7", UnsupportedError),
    ],
)  # fmt: skip
def test_options_are_done_or_refused(key, value, error):
    """Never taken and forgotten."""
    if error:
        with pytest.raises(error):
            request.options({key: value}, False)
    else:
        assert request.options({key: value}, False) == {key: value}


def test_ipv6_needs_larger_packets():
    with pytest.raises(UsageError, match="1280"):
        request.options({"mtu": "1279"}, True)
    assert request.options({"mtu": "1279"}, False)


# --- Which subnets are free ------------------------------------------------------------------------------------------


def test_routes_are_read():
    """With their flags and the order of bytes that this machine has; its own addresses aren't routes to others."""
    little = ipaddress.IPv4Address("10.1.0.0").packed
    word = f"{int.from_bytes(little, 'little' if os.sys.byteorder == 'little' else 'big'):08X}"
    mask = f"{int.from_bytes(ipaddress.IPv4Address('255.255.0.0').packed, os.sys.byteorder):08X}"
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    rest = "\t0\t0\t0\n"
    default = f"eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000{rest}"
    table = f"{head}{default}tun7\t{word}\t00000000\t0001\t0\t0\t0\t{mask}{rest}"
    assert routes.four_of(table) == [(4, 0, 0, "eth0"), (4, number("10.1.0.0"), 16, "tun7")]
    zero = "0" * 32
    six = f"fd000002{'0' * 24} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n"
    own = f"fd000002{'0' * 23}1 80 {zero} 00 {zero} 00000000 00000003 00000000 80200001     eth0\n"
    assert routes.six_of(six + own) == [(6, number("fd00:2::"), 64, "eth0")]
    assert routes.four_of("") == routes.six_of("") == []


def test_this_machines_routes_can_be_read():
    assert all(kind in (4, 6) and 0 <= prefix <= 128 and name for kind, _, prefix, name in routes.read())


def taken(*words: str):
    return [(*read_subnet(word), word) for word in words]


def free(*words: str) -> str:
    version, network, prefix = choice.for_network(taken(*words))
    return str(ipaddress.ip_network((network, prefix))) if version == 4 else ""


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ((), "10.212.0.0/24"),
        (("10.212.0.0/24",), "10.212.1.0/24"),
        (("10.212.0.128/25", "10.212.1.0/30"), "10.212.2.0/24"),
        (("10.212.1.0/24",), "10.212.0.0/24"),
        (("10.212.0.0/23", "10.212.0.0/24", "10.212.2.7/32"), "10.212.3.0/24"),
        (("10.212.0.0/14",), "172.28.0.0/24"),
        (("10.0.0.0/8",), "172.28.0.0/24"),
        (("10.0.0.0/8", "172.16.0.0/12"), "192.168.208.0/24"),
        (("10.0.0.0/8", "172.16.0.0/12", "192.168.208.0/21"), "192.168.216.0/24"),
        (("10.212.0.0/15", "10.214.0.0/16", "10.215.0.0/17", "10.215.128.0/18"), "10.215.192.0/24"),
    ],
)
def test_the_next_free_subnet(others, found):
    assert free(*others) == found


def test_the_next_free_subnet_overlaps_nothing():
    """Whatever is there."""
    for _ in range(300):
        there = []
        for _ in range(SEED.randint(0, 30)):
            prefix = SEED.randint(15, 32)
            there.append(str(ipaddress.ip_network((number("10.212.0.0") + SEED.getrandbits(12), prefix), False)))
        found = ipaddress.ip_network(free(*there))
        assert not any(found.overlaps(ipaddress.ip_network(word)) for word in there)
        if found.network_address != ipaddress.ip_address("10.212.0.0"):  # and nothing before it was free
            before = ipaddress.ip_network((int(found.network_address) - 256, 24))
            assert any(before.overlaps(ipaddress.ip_network(word)) for word in there)


def test_no_subnet_left_is_told():
    everything = taken("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    for choose in (choice.for_network, choice.for_bridge):
        with pytest.raises(NetworkError) as raised:
            choose(everything)
        assert "--subnet" in raised.value.hint


def test_routes_that_lead_everywhere_take_nothing():
    """A tunnel for everything is a default route, or two halves of one."""
    everywhere = [(4, 0, 0, "eth0"), (4, 0, 1, "tun0"), (4, 1 << 31, 1, "tun0"), (6, 0, 0, "eth0"), (4, 0, 5, "wg0")]
    assert choice.taken(everywhere) == []
    assert len(choice.taken([(4, number("10.0.0.0"), 8, "tun0")])) == 1


def test_unique_local_subnets():
    """RFC 4193: fd, forty random bits; no two alike."""
    found = {choice.for_six(()) for _ in range(100)}
    assert len(found) == 100
    for version, network, prefix in found:
        assert ipaddress.ip_network("fd00::/8").supernet_of(ipaddress.ip_network((network, prefix)))
        assert (version, prefix) == (6, 64)
        assert not network >> 64 & 0xFFFF


# --- The store -------------------------------------------------------------------------------------------------------


def test_a_network_is_made_found_and_removed(store):
    made = store.create("web", labels={"a": "b"}, options={"mtu": "1400"})
    assert str(made.v4) == "10.212.0.0/24"
    assert (made.v6, made.ipv6) == (None, False)
    assert facts(store.find("web")) == facts(made)
    assert facts(store.find(made.id)) == facts(store.find(made.id[:4])) == facts(made)
    assert store.names() == ["web"]
    path = f"{store.data}/networks/web"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert os.listdir(f"{store.data}/networks") == ["web"]
    assert facts(store.remove("web")) == facts(made)
    assert store.names() == []
    with pytest.raises(NetworkNotFoundError) as raised:
        store.find("web")
    assert raised.value.known == ("bridge",)


def test_a_name_is_taken_once(store):
    store.create("web")
    with pytest.raises(NetworkError, match="already"):
        store.create("web")
    assert str(store.create("db").v4) == "10.212.1.0/24"


def test_ids(store):
    """A name goes before an id; the beginning of several is told, and so are fewer than four letters."""
    made = [store.create(f"n{at}") for at in range(3)]
    path = f"{store.data}/networks/n1"
    twin = made[1]
    twin.id = made[0].id[:20] + "0" * 44
    with open(path, "w") as file:
        file.write(render(twin))
    with pytest.raises(NetworkError, match=r"several networks .*: n0, n1"):
        store.find(twin.id[:8])
    assert store.find(twin.id).name == "n1"
    with pytest.raises(NetworkNotFoundError):
        store.find(made[2].id[:3])
    store.create(made[2].id[:8])
    assert store.find(made[2].id[:8]).name == made[2].id[:8]


@pytest.mark.parametrize("word", ["", ".", "..", "../web", "/etc/passwd", "a/b", "x" * 5000, ".new", "nobody", "a\nb"])
def test_what_is_not_there(store, word):
    store.create("web")
    with pytest.raises(NetworkNotFoundError):
        store.find(word)
    with pytest.raises(NetworkNotFoundError):
        store.remove(word)


def test_a_subnet_that_is_taken_is_refused_by_its_owner(store):
    store.create("web", ["10.2.0.0/16"])
    for other in ("10.2.7.0/24", "10.0.0.0/8"):
        with pytest.raises(NetworkError, match=r"overlaps 10\.2\.0\.0/16 of the network web"):
            store.create("db", [other])
    leads(store, "10.9.0.0/16", "fd00:9::/32")
    for other in ("10.9.1.0/24", "fd00:9::/64"):
        with pytest.raises(NetworkError, match="a route of the interface tun0"):
            store.create("db", [other])
    assert store.names() == ["web"]


def test_what_is_not_given_is_chosen(store):
    leads(store, "10.212.0.0/24")
    assert [str(subnet) for subnet in store.create("a").subnets] == ["10.212.1.0/24"]
    six = store.create("b", ipv6=True)
    assert str(six.v4) == "10.212.2.0/24"
    assert str(six.v6).startswith("fd")
    both = store.create("c", ["fd00:7::/64"])
    assert (str(both.v4), str(both.v6), both.ipv6) == ("10.212.3.0/24", "fd00:7::/64", True)
    asked = store.create("d", ["10.212.4.0/24"], ipv6=True)
    assert str(asked.v4) == "10.212.4.0/24"
    assert asked.v6
    assert str(store.create("e").v4) == "10.212.5.0/24"


def test_a_failed_creation_changes_nothing(store):
    for arguments in ({"subnets": ["x"]}, {"options": {"x": "y"}}, {"gateways": ["10.0.0.1"]}):
        with pytest.raises((UsageError, UnsupportedError)):
            store.create("web", **arguments)
    assert not os.path.exists(store.data)


def test_a_bridge_has_a_name_of_its_own(store):
    store.create("web", options={"bridge": "br-x"})
    for taken in ("br-x", store.default(keep=False).bridge):
        with pytest.raises(NetworkError, match=f"the interface {taken} is that of the network"):
            store.create("db", options={"com.docker.network.bridge.name": taken})
    if os.path.exists("/proc/sys/net/ipv4/conf/eth0"):
        with pytest.raises(NetworkError, match="there is an interface eth0"):
            store.create("db", options={"bridge": "eth0"})


def test_a_definition_that_was_cut_is_named(store):
    store.create("web")
    path = f"{store.data}/networks/web"
    os.truncate(path, 30)
    for call in (lambda: store.find("web"), store.all, lambda: store.create("db"), lambda: store.remove("web")):
        with pytest.raises(StorageError, match=path):
            call()
    os.unlink(path)
    assert store.create("web")


def test_a_renamed_definition_is_told(store):
    store.create("web")
    os.rename(f"{store.data}/networks/web", f"{store.data}/networks/db")
    with pytest.raises(StorageError, match="defines the network 'web'"):
        store.find("db")


# --- The default network ---------------------------------------------------------------------------------------------


def test_the_default_network_is_always_there(store):
    network = store.default()
    assert (network.name, str(network.v4), network.v6) == ("bridge", "10.211.0.0/16", None)
    assert network.id == derived_id(store.data)
    assert len(network.id) == 64
    assert network.bridge == f"tb-{network.id[:12]}"
    assert facts(store.default()) == facts(store.find("bridge")) == facts(store.find("default")) == facts(network)
    assert store.find(network.id[:6]).name == "bridge"
    assert not os.path.exists(store.data)
    with pytest.raises(NetworkError, match="always there"):
        store.remove("bridge")


def test_its_names_come_from_the_data_root():
    """FNV-1a, as its authors published it; no two roots alike."""
    assert derived_id("a").startswith("af63dc4c8601ec8c")
    assert derived_id("foobar").startswith("85944171f73967e8")
    found = {derived_id(f"/data/{at}")[:12] for at in range(2000)}
    assert len(found) == 2000
    assert Networks("/var/lib/tarbox", "/nowhere", list).default(keep=False).bridge == "tarbox0"
    assert len({derived_id("/x"), derived_id("/x", "host"), derived_id("/x", "none")}) == 3


def test_telling_of_it_makes_nothing(tmp_path):
    store = Networks(str(tmp_path / "data"), str(tmp_path / "state"), list)
    assert str(store.default(keep=False).v4) == "10.211.0.0/16"
    assert not list(tmp_path.iterdir())


def test_it_takes_the_first_subnet_that_is_free(store):
    leads(store, "10.211.3.0/24")
    assert str(store.default().v4) == "172.29.0.0/16"
    leads(store, "10.211.3.0/24", "172.16.0.0/12")
    assert str(store.default().v4) == "192.168.192.0/20"
    leads(store)
    assert str(store.default().v4) == "192.168.192.0/20"  # noted, and still free
    os.unlink(f"{store.state}/networks/bridge")  # as a boot does
    store.create("web", ["10.211.9.0/24"])
    assert str(store.default().v4) == "172.29.0.0/16"


def test_its_own_route_is_not_in_its_way(store):
    network = store.default()
    leads(store, "10.211.0.0/16", interface=network.bridge)
    assert str(store.default().v4) == "10.211.0.0/16"


def test_it_stays_while_it_is_used(store):
    """A route that comes later doesn't move it under its containers, and no other network gets its addresses."""
    network = store.default()
    lease = store.lease(network, network.v4, "container c1\n")
    leads(store, "10.211.0.0/17")
    assert str(store.default().v4) == "10.211.0.0/16"
    leads(store)
    with pytest.raises(NetworkError, match=r"overlaps 10.211.0.0/16 of the network bridge"):
        store.create("web", ["10.211.7.0/24"])
    os.close(lease.descriptor)
    assert str(store.create("web", ["10.211.7.0/24"]).v4) == "10.211.7.0/24"
    assert str(store.default().v4) == "172.29.0.0/16"


def test_a_note_that_means_nothing_is_made_anew(store):
    store.default()
    os.truncate(f"{store.state}/networks/bridge", 9)
    assert str(store.default().v4) == "10.211.0.0/16"


def test_who_found_it_before_it_moved_gets_no_address(store):
    network = store.default()
    store.create("web", ["10.211.7.0/24"])
    store.default()
    with pytest.raises(NetworkError, match="just now"):
        store.lease(network, network.v4, "container c1\n")
    assert not leases.busy(store.leases(network))


# --- Networks in use -------------------------------------------------------------------------------------------------


def test_a_network_with_containers_stays(store):
    network = store.create("web", ["10.2.0.0/24", "fd00:2::/64"])
    held = [
        store.lease(network, subnet, f"container {name * 64}\n") for name in "ab" for subnet in (network.v4, network.v6)
    ]
    with pytest.raises(NetworkError, match=rf"the network web has 2 containers: {'a' * 12}, {'b' * 12} "):
        store.remove("web")
    for lease in held[1:]:
        os.close(lease.descriptor)
    with pytest.raises(NetworkError, match=rf"has a container: {'a' * 12} "):
        store.remove("web")
    os.close(held[0].descriptor)
    store.remove("web")
    assert not os.listdir(f"{store.state}/networks")


def test_no_address_on_a_network_that_has_gone(store):
    network = store.create("web")
    store.remove("web")
    again = store.create("web")
    with pytest.raises(NetworkError, match="just now"):
        store.lease(network, network.v4, "container c1\n")
    lease = store.lease(again, again.v4, "container c1\n")
    os.close(lease.descriptor)
    assert os.listdir(f"{store.state}/networks") == [again.id]
