"""Networks as Docker shows them, and the words of `tarbox network`."""

from __future__ import annotations

import os
import shlex

import pytest

from tarbox.cli import network_options
from tarbox.cli.arguments import parse
from tarbox.cli.words import anywhere
from tarbox.engine import network_views
from tarbox.errors import NetworkNotFoundError, UsageError
from tarbox.networks import request
from tarbox.networks.store import Networks

VERBS = [getattr(network_options, name) for name in ("VERB", "CREATE", "LS", "INSPECT", "RM", "PRUNE")]


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """An empty store, seen by root."""
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Networks(str(tmp_path / "data"), str(tmp_path / "state"), list)


@pytest.mark.parametrize(
    ("subnet", "part", "shown"),
    [
        ("10.2.0.0/24", "", ""),
        ("10.2.0.0/24", "10.2.0.0/24", ""),
        ("10.2.0.0/24", "10.2.0.0/25", "10.2.0.0/25"),
        ("10.2.0.0/24", "10.2.0.128/25", "10.2.0.128/25"),
        ("10.2.0.0/24", "10.2.0.64/28", "10.2.0.64/28"),
        ("10.2.0.0/24", "10.2.0.9/32", "10.2.0.9/32"),
        ("fd00:2::/64", "", ""),
        ("fd00:2::/64", "fd00:2::8000:0/97", "fd00:2::8000:0/97"),
        ("fd00:2::/64", "fd00:2::/65", "fd00:2::/65"),
    ],
)
def test_the_range_is_the_one_that_was_given(networks, subnet, part, shown):
    (found,) = network_views.view(networks, networks.create("web", [subnet], [], [part] if part else []))["IPAM"][
        "Config"
    ][-1:]
    assert (found["Subnet"], found.get("IPRange", "")) == (subnet, shown)
    (laid_out,) = request.subnets([subnet])
    assert laid_out.version == (6 if ":" in found["Gateway"] else 4)


def test_containers_are_told_as_far_as_their_leases_do(networks):
    network = networks.create("web", ["10.2.0.0/24", "fd00:2::/64"])
    held = [
        networks.lease(
            network, network.v4, "container one\nname box\nmac 02:42:00:00:00:01\nport tcp 0.0.0.0:8080 80\n"
        ),
        networks.lease(network, network.v6, "container one\nname box\nmac 02:42:00:00:00:01\n"),
        networks.lease(network, network.v4, "container two\n"),
    ]
    found = network_views.view(networks, network)["Containers"]
    for lease in held:
        os.close(lease.descriptor)
    assert found["one"] == {
        "Name": "box", "EndpointID": "", "MacAddress": "02:42:00:00:00:01", "IPv4Address": "10.2.0.2/24",
        "IPv6Address": "fd00:2::2/64",
    }  # fmt: skip
    assert found["two"] == {
        "Name": "two", "EndpointID": "", "MacAddress": "", "IPv4Address": "10.2.0.3/24", "IPv6Address": "",
    }  # fmt: skip


def test_the_list_is_there_when_the_default_network_has_no_subnet(tmp_path, monkeypatch, networks):
    """Looking helps to find out why."""
    everything = [(4, 10 << 24, 8, "tun0"), (4, 0xAC100000, 12, "tun0"), (4, 0xC0A80000, 16, "tun0")]
    crowded = Networks(networks.data, networks.state, lambda: everything)
    found = network_views.views(crowded)
    assert [one["Name"] for one in found] == ["bridge", "host", "none"]
    assert found[0]["IPAM"]["Config"] == []


def test_ids_are_found_by_their_beginning(networks):
    for view in network_views.views(networks):
        for word in (view["Name"], view["Id"], view["Id"][:4]):
            assert network_views.one(networks, word)["Id"] == view["Id"]
    with pytest.raises(NetworkNotFoundError):
        network_views.one(networks, network_views.one(networks, "host")["Id"][:3])


@pytest.mark.parametrize("key", network_views.FILTERS)
def test_every_filter_is_understood(networks, key):
    value = {"type": "custom", "dangling": "1"}.get(key, "web")
    network_views.check_filter(key, value)
    networks.create("web")
    expected = {"name", "type", "dangling"}
    found = network_views.filtered(network_views.views(networks), {key: [value]})
    assert [one["Name"] for one in found] == (["web"] if key in expected else [])


@pytest.mark.parametrize(("key", "value"), [("nam", "web"), ("", ""), ("type", "all"), ("dangling", "x")])
def test_other_filters_are_refused(key, value):
    with pytest.raises(UsageError):
        network_views.check_filter(key, value)


@pytest.mark.parametrize("line", [line for verb in VERBS for line, _ in verb.examples])
def test_the_examples_are_understood(line):
    tarbox, network, name, *words = shlex.split(line)
    assert (tarbox, network) == ("tarbox", "network")
    (verb,) = [verb for verb in VERBS if verb.name == f"network {name}"]
    anywhere(verb, words)


def test_options_may_come_anywhere():
    """Those that are given several times add up; after two dashes nothing is an option."""
    found = anywhere(
        network_options.CREATE, ["web", "--label", "a=1", "--internal", "more", "--label=b=2", "--", "-x", "-y"]
    )
    assert found.rest == ["web", "more", "-x", "-y"]
    assert found.values == {"label": [("a", "1"), ("b", "2")], "internal": True}
    assert anywhere(network_options.RM, ["--", "-f"]).rest == ["-f"]
    assert not anywhere(network_options.RM, ["--", "-f"]).values
    assert parse(network_options.RM, ["web", "-f"]).rest == ["web", "-f"]
