"""Other firewalls that stop containers are named, with the command that lets them; the command does."""

from __future__ import annotations

import re
import shutil

import pytest

import netns
from kernel.test_router import LEFT, Running, plug, until_gone

BEYOND = "10.50.0.2"


@pytest.fixture(autouse=True)
def beyond():
    with netns.fresh(), netns.Neighbour() as machine:
        plug("world0", machine, *LEFT)
        yield machine


class Told(Running):
    """A container; told: what the user reads."""

    def __exit__(self, *_):
        _, self.told = self.process.communicate("\n")


def told(tarbox, *options):
    """Whether a container reached the other machine, and what the user read."""
    with Told(tarbox, *options) as container:
        pass
    until_gone()
    return container.said, container.told


def command(line):
    """The one that the warning names."""
    (found,) = re.findall(r"\(`(.*)` lets them\)$", line.strip())
    return found


def drop(*more, family="ip", table="filter", chain="FORWARD", policy="drop"):
    lines = [f"add table {family} {table}", *(f"add chain {family} {table} {one}" for one in more)]
    lines.append(f"add chain {family} {table} {chain} {{ type filter hook forward priority 0; policy {policy}; }}")
    lines += [f"add rule {family} {table} {chain} jump {one}" for one in more]
    netns.output("nft", "; ".join(lines))


def test_nothing_is_said_without(tarbox):
    netns.output(
        "nft", "add table inet other; add chain inet other in { type filter hook input priority 0; policy drop; }"
    )
    assert told(tarbox) == ("out", "")


def test_a_table_of_somebodys(tarbox):
    """Of nft; once the command was given, nothing is said any more, and both ways are open."""
    drop(family="inet", table="site", chain="wall")
    said, line = told(tarbox)
    assert said == "in"
    assert "the firewall's chain 'inet site wall' drops what it doesn't know" in line
    assert "tarbox never changes what isn't its own" in line
    assert line.count("\n") == 1
    netns.output("sh", "-euc", command(line))
    assert told(tarbox) == ("out", "")


def test_dockers(tarbox):
    drop("DOCKER-USER", "DOCKER-FORWARD")
    said, line = told(tarbox)
    assert said == "in"
    assert command(line).startswith("iptables -I DOCKER-USER -i tb-")
    if not shutil.which("iptables-nft"):
        pytest.skip("there is no iptables-nft to give the command to")
    netns.output("sh", "-euc", command(line).replace("iptables", "iptables-nft"))
    assert told(tarbox) == ("out", "")


def test_others_by_name(tarbox):
    drop("ufw-before-forward")
    assert command(told(tarbox)[1]).startswith("ufw route allow in on tb-")
    netns.output("nft", "flush ruleset")
    drop(family="inet", table="firewalld", chain="filter_FORWARD", policy="accept")
    assert command(told(tarbox)[1]).startswith("firewall-cmd --zone=trusted --add-interface=tb-")


def test_only_what_concerns_the_network(tarbox):
    """Neither one for IPv6 where the network has none, nor any where it is internal."""
    drop(family="ip6")
    assert told(tarbox) == ("out", "")
    tarbox.output("network", "create", "six", "--ipv6")
    (line,) = told(tarbox, "--network", "six")[1].splitlines()
    assert command(line).startswith("ip6tables -I FORWARD")
    drop()
    tarbox.output("network", "create", "inside", "--internal")
    assert "firewall" not in told(tarbox, "--network", "inside")[1]


def test_it_is_said_when_rules_are_made(tarbox):
    """Not for each container."""
    drop()
    with Told(tarbox) as first:
        with Told(tarbox) as second:
            pass
        assert second.told == ""
    assert first.told.count("drops what it doesn't know") == 1
    until_gone()
