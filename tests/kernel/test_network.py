"""`tarbox network`: networks made, listed, shown and removed from the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time

import pytest

from kernel.attacks import tools
from tarbox.networks.store import Networks
from testhost import interfaces, state_files


def ids(text: str) -> list[str]:
    return re.findall(r"^[0-9a-f]{12,64}$", text, re.MULTILINE)


def listed(tarbox, *words: str) -> list[str]:
    """The names that `ls` shows."""
    rows = json.loads(tarbox.output("network", "ls", "--json", *words))["networks"]
    return [row["name"] for row in rows]


def inspected(tarbox, name: str) -> dict:
    (found,) = json.loads(tarbox.output("network", "inspect", name))
    return found


def states(tarbox) -> Networks:
    """The store behind the command."""
    name = str(tarbox.root).strip("/").replace("-", "%2d").replace("/", "-")
    return Networks(str(tarbox.root), f"/run/tarbox/{name}")


@pytest.fixture
def route():
    """Make a route of the test host for a subnet, by an interface of that name."""
    made = []

    def add(subnet: str, name: str) -> None:
        for words in (("link", "add", name, "type", "bridge"), ("link", "set", name, "up")):
            subprocess.run(["ip", *words], check=True)
        made.append(name)
        subprocess.run(["ip", "route", "add", subnet, "dev", name], check=True)

    yield add
    for name in made:
        subprocess.run(["ip", "link", "del", name], check=True)


def test_three_are_always_there(tarbox):
    """Looking at them makes nothing."""
    lines = tarbox.output("network", "ls").splitlines()
    assert lines[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    assert [line.split()[1:] for line in lines[1:]] == [
        ["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"],
    ]  # fmt: skip
    assert inspected(tarbox, "bridge")["IPAM"]["Config"] == [{"Subnet": "10.211.0.0/16", "Gateway": "10.211.0.1"}]
    assert not tarbox.root.exists()
    assert not state_files()
    short = lines[2].split()[0]
    assert inspected(tarbox, short)["Name"] == "host"
    assert tarbox.output("network", "list") == tarbox.output("network", "ls")


def test_one_is_made_shown_and_removed(tarbox):
    before = interfaces()
    (id,) = ids(
        tarbox.output(
            "network", "create", "web", "--subnet", "10.2.0.0/24,fd00:2::/64", "--gateway=10.2.0.254", "--ip-range",
            "10.2.0.128/25", "--internal", "--label", "team=blue", "-o", "mtu=1400", "-d", "bridge", "--attachable",
        )
    )  # fmt: skip
    assert len(id) == 64
    found = inspected(tarbox, "web")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", found.pop("Created"))
    assert found == {
        "Name": "web", "Id": id, "Scope": "local", "Driver": "bridge", "EnableIPv4": True, "EnableIPv6": True,
        "IPAM": {"Driver": "default", "Options": {}, "Config": [
            {"Subnet": "10.2.0.0/24", "IPRange": "10.2.0.128/25", "Gateway": "10.2.0.254"},
            {"Subnet": "fd00:2::/64", "Gateway": "fd00:2::1"},
        ]},
        "Internal": True, "Attachable": False, "Ingress": False, "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
        "Containers": {}, "Options": {"mtu": "1400"}, "Labels": {"team": "blue"},
    }  # fmt: skip
    assert inspected(tarbox, id[:12]) == inspected(tarbox, "web")
    assert f"{id[:12]}  web     bridge  local\n" in tarbox.output("network", "ls")
    assert interfaces() == before, "a definition alone is no interface"
    assert tarbox.output("network", "rm", id[:5]) == f"{id[:5]}\n"
    assert listed(tarbox) == ["bridge", "host", "none"]
    assert not state_files()


def test_containers_are_shown_with_their_addresses(tarbox):
    """As their leases say, while they live."""
    tarbox.output("network", "create", "web", "--subnet", "10.2.0.0/24", "--ipv6")
    store = states(tarbox)
    network = store.find("web")
    words = f"container {'c' * 64}\nmac 02:42:0a:02:00:02\n"
    held = [store.lease(network, subnet, words) for subnet in network.subnets]
    try:
        six = inspected(tarbox, "web")["IPAM"]["Config"][1]["Subnet"]
        assert inspected(tarbox, "web")["Containers"] == {
            "c" * 64: {
                "Name": "c" * 12, "EndpointID": "", "MacAddress": "02:42:0a:02:00:02", "IPv4Address": "10.2.0.2/24",
                "IPv6Address": six.replace("::/64", "::2/64"),
            }
        }  # fmt: skip
        assert listed(tarbox, "--filter", "dangling=true") == []
        assert listed(tarbox, "--filter", "dangling=false") == ["bridge", "host", "none", "web"]
        said = tools.complained(tarbox("network", "rm", "web"))
        assert f"the network web has a container: {'c' * 12}" in said
        assert tarbox("network", "prune", "-f").stdout == ""
        assert listed(tarbox, "--filter", "type=custom") == ["web"]
    finally:
        for lease in held:
            os.close(lease.descriptor)
    assert listed(tarbox, "--filter", "dangling=true") == ["web"]
    assert inspected(tarbox, "web")["Containers"] == {}
    assert tarbox.output("network", "rm", "web") == "web\n"
    os.rmdir(f"{store.state}/networks")


def test_a_name_or_subnet_is_taken_once_whoever_asks_at_the_same_time(tarbox):
    """Of twelve that make networks, those by one name are refused but one, and no two get the same subnet."""
    results: dict[str, list[int]] = {}

    def make(name: str) -> None:
        results.setdefault(name, []).append(tarbox("network", "create", name).returncode)

    threads = [threading.Thread(target=make, args=(name,)) for name in ("one", "two", "three") for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["one", "three", "two"]
    assert all(sorted(codes) == [0, 125, 125, 125] for codes in results.values())
    subnets = {inspected(tarbox, name)["IPAM"]["Config"][0]["Subnet"] for name in results}
    assert subnets == {"10.212.0.0/24", "10.212.1.0/24", "10.212.2.0/24"}
    assert sorted(os.listdir(tarbox.root / "networks")) == ["one", "three", "two"]


def test_a_killed_command_leaves_a_whole_network_or_none(tarbox):
    for turn in range(15):
        started = tarbox.start("network", "create", "web", stdin=subprocess.DEVNULL)
        time.sleep(0.01 + 0.006 * turn)
        started.kill()
        started.communicate()
        if "web" in listed(tarbox):
            assert inspected(tarbox, "web")["IPAM"]["Config"][0]["Subnet"] == "10.212.0.0/24"
        else:
            tarbox.output("network", "create", "web")
        tarbox.output("network", "rm", "web")
    assert set(os.listdir(tarbox.root / "networks")) <= {".new"}


def test_what_the_host_leads_elsewhere_is_left_alone(tarbox, route):
    """A subnet that is asked for is refused by the interface's name, one that is chosen is another."""
    route("10.212.0.0/24", "tun7")
    route("10.211.0.0/17", "tun8")
    said = tools.complained(tarbox("network", "create", "--subnet", "10.212.0.128/25", "web"))
    assert "10.212.0.128/25 overlaps 10.212.0.0/24, a route of the interface tun7" in said
    tarbox.output("network", "create", "web")
    assert inspected(tarbox, "web")["IPAM"]["Config"][0]["Subnet"] == "10.212.1.0/24"
    assert inspected(tarbox, "bridge")["IPAM"]["Config"][0]["Subnet"] == "172.29.0.0/16"
    said = tools.complained(tarbox("network", "create", "-o", "bridge=tun7", "db"))
    assert "there is an interface tun7 on this machine already" in said


def test_lists_are_filtered(tarbox):
    tarbox.output("network", "create", "web", "--label", "team=blue", "--label", "os")
    tarbox.output("network", "create", "db", "--label", "team=red")
    id = inspected(tarbox, "db")["Id"]
    for words, found in (
        (("name=e",), ["bridge", "none", "web"]),
        (("name=web", "name=db"), ["db", "web"]),
        ((f"id={id[3:12]}",), ["db"]),
        (("driver=bridge", "type=custom"), ["db", "web"]),
        (("driver=null",), ["none"]),
        (("label=team",), ["db", "web"]),
        (("label=team=blue",), ["web"]),
        (("label=team=blue", "label=os"), ["web"]),
        (("label=team=red", "label=os"), []),
        (("type=builtin",), ["bridge", "host", "none"]),
        (("scope=global",), []),
    ):
        options = [part for word in words for part in ("--filter", word)]
        assert listed(tarbox, *options) == found, words
    assert tarbox.output("network", "ls", "-q", "-f", "name=db") == f"{id[:12]}\n"
    assert tarbox.output("network", "ls", "-q", "--no-trunc", "-f", "name=db") == f"{id}\n"
    (line,) = tarbox.output("network", "ls", "--format", "json", "-f", "name=web").splitlines()
    shown = json.loads(line)
    assert (shown["Name"], shown["Labels"], shown["IPv6"]) == ("web", "team=blue,os=", "false")
    assert tarbox.output("network", "ls", "--format", "table") == tarbox.output("network", "ls")


def test_several_are_removed_and_what_is_missing_is_told(tarbox):
    for name in ("a", "b", "c"):
        tarbox.output("network", "create", name)
    done = tarbox("network", "rm", "a", "nope", "b", "nada")
    assert (done.returncode, done.stdout) == (125, "a\nb\n")
    assert re.findall("there is no network '(.*?)'", done.stderr) == ["nope", "nada"]
    assert tarbox.output("network", "rm", "nope", "-f", "c") == "c\n"
    assert tarbox.output("network", "remove", "--force", "c") == ""


def test_unused_ones_are_removed_when_somebody_agrees(tarbox):
    for name, label in (("a", "x=1"), ("b", "x=2"), ("c", "y=1")):
        tarbox.output("network", "create", name, "--label", label)
    for answer in ("", "n\n", "no\n", "maybe\n"):
        done = tarbox("network", "prune", input=answer)
        assert (done.returncode, done.stdout) == (125, "Remove a, b, c? [y/N] ")
        assert "nothing was removed" in done.stderr
    removed = tarbox.output("network", "prune", "-f", "--filter", "label=x=1")
    assert removed == "Deleted Networks:\na\n\n"
    assert tarbox.output("network", "prune", "-f", "--filter", "label!=x") == "Deleted Networks:\nc\n\n"
    assert "\nb\n" in tarbox.output("network", "prune", input="y\n")
    assert tarbox.output("network", "prune") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "network needs a command"),
        (("creat", "web"), "did you mean 'tarbox network create'?"),
        (("connect", "web", "box"), "a container is put on its networks when it starts"),
        (("create",), "needs a name"),
        (("create", "a", "b"), "'b' is a second name"),
        (("create", "host"), "'host' means something else after --network"),
        (("create", "../x"), "can't be the name of a network"),
        (("create", "web", "--subnet", "10.2.0.7/24"), "--subnet: 10.2.0.7/24 is an address within its subnet"),
        (("create", "web", "--subnet", "10.2.0.0"), "a subnet has a length"),
        (("create", "web", "--gateway", "10.2.0.1"), "it needs a --subnet"),
        (("create", "web", "--subnet", "10.2.0.0/24", "--gateway", "10.3.0.1"), "is in no subnet"),
        (("create", "web", "--driver", "overlay"), "tarbox has no swarm"),
        (("create", "web", "--driver", "macvlan"), "--network host shares the host's interfaces"),
        (("create", "web", "--driver", "brigde"), "there is no driver 'brigde'"),
        (("create", "web", "--config-only"), "this version of tarbox has no --config-only"),
        (("create", "web", "--scope", "swarm"), "tarbox has no swarm"),
        (("create", "web", "--ipv4=false"), "a network always has IPv4"),
        (("create", "web", "-o", "mtu"), "'mtu' has no value"),
        (("create", "web", "-o", "mtu=1"), "no size of packets"),
        (("create", "web", "-o", "vlan=7"), "a bridge has no option 'vlan' here"),
        (("create", "web", "-o", "bridge=averylonginterface"), "can't be the name of a bridge's interface"),
        (("create", "web", "--label", "a b=c"), "has a space"),
        (("create", "web", "--subnt", "10.2.0.0/24"), "did you mean --subnet?"),
        (("ls", "web"), "network ls takes no arguments"),
        (("ls", "--filter", "web"), "has no value"),
        (("ls", "--filter", "nme=web"), "did you mean name?"),
        (("ls", "--filter", "type=own"), "custom or builtin"),
        (("ls", "--filter", "dangling=perhaps"), "neither true nor false"),
        (("ls", "--format", "{{.Name}}"), "this version has no templates"),
        (("ls", "--format", "yaml"), "is no format"),
        (("inspect",), "needs a name"),
        (("inspect", "--format", "table", "bridge"), "is no format"),
        (("rm",), "needs a name"),
        (("rm", "bridge"), "always there"),
        (("rm", "none"), "always there"),
        (("rm", "nope"), "there is no network 'nope'"),
        (("prune", "--filter", "until=1h"), "no filter of prune"),
        (("prune", "web"), "network prune takes no arguments"),
    ],
)
def test_a_slip_is_told(tarbox, words, said):
    """In one line, and nothing is made for it."""
    assert said in tools.complained(tarbox("network", *words))
    assert not tarbox.root.exists()
    assert not state_files()


def test_what_was_meant_is_told(tarbox):
    tarbox.output("network", "create", "web")
    for verb in ("rm", "inspect"):
        assert "there is no network 'wbe' (did you mean web?)" in tools.complained(tarbox("network", verb, "wbe"))
    assert "did you mean bridge?" in tools.complained(tarbox("network", "inspect", "brigde"))
    assert "there is a network 'web' already" in tools.complained(tarbox("network", "create", "web"))


def test_a_definition_that_was_damaged_is_named(tarbox):
    tarbox.output("network", "create", "web")
    path = tarbox.root / "networks/web"
    path.write_bytes(path.read_bytes()[:40])
    for words in (("ls",), ("inspect", "web"), ("rm", "web"), ("create", "db")):
        said = tools.complained(tarbox("network", *words))
        assert f"{path} is no definition of a network: it was cut short (remove the file" in said
    path.unlink()
    tarbox.output("network", "create", "web")


def test_a_plain_user_is_told_why_not(plain_tarbox):
    """He may look at those that his containers have, and is told what the others need."""
    assert listed(plain_tarbox) == ["host", "none"]
    assert inspected(plain_tarbox, "none")["Driver"] == "null"
    for words in (("create", "web"), ("rm", "web"), ("prune",)):
        assert "only root can" in tools.complained(plain_tarbox("network", *words))
    assert "there is no network 'web'" in tools.complained(plain_tarbox("network", "inspect", "web"))
    assert not plain_tarbox.root.exists()


def test_help_is_there(tarbox):
    for verb in ((), ("create",), ("ls",), ("inspect",), ("rm",), ("prune",)):
        assert tarbox.output("network", *verb, "--help").startswith(f"Usage: {' '.join(('tarbox', 'network', *verb))} ")
