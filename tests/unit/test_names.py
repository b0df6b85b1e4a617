"""What a container is told of names: the lines of /etc/hosts and /etc/resolv.conf, and the words that make them."""

from __future__ import annotations

import pytest

from tarbox.engine import name_values, names
from tarbox.engine.files import render
from tarbox.engine.names import Attached
from tarbox.engine.options import RunOptions
from tarbox.errors import UsageError

BOTH = Attached(("172.17.0.2", "fd00:1::2"), ("172.17.0.1", "fd00:1::1"))
IPV4 = Attached(("172.17.0.2",), ("172.17.0.1",))


@pytest.fixture
def machine(monkeypatch):
    """The host's files, in the place of this machine's."""
    files = {"/etc/hosts": "127.0.0.1 localhost\n10.1.1.1 intranet\n", "/etc/resolv.conf": "nameserver 10.0.0.53\n"}
    monkeypatch.setattr(names, "read", lambda path: files.get(path, ""))
    return files


def made(network: str = "bridge", **given: list) -> RunOptions:
    options = RunOptions("host")
    options.network = network
    for name, value in given.items():
        setattr(options, name, value)
    return options


def resolver(attached: Attached | None = BOTH, network: str = "bridge", **given: list) -> tuple[str, list[str]]:
    warnings: list[str] = []
    return names.resolver(made(network, **given), attached, warnings), warnings


# --- /etc/hosts ------------------------------------------------------------------------------------------------------


def test_a_container_finds_its_own_names_at_each_of_its_addresses(machine):
    text = render("box", "example.org", made(), [], BOTH)["hosts"]
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost")
    assert text.endswith("172.17.0.2\tbox.example.org box\nfd00:1::2\tbox.example.org box\n")
    assert "127.0.1.1" not in text
    assert "intranet" not in text


def test_without_a_name_it_has_no_line_of_its_own(machine):
    found = render("", "example.org", made(), [], IPV4)
    assert "172.17.0.2" not in found["hosts"]
    assert "hostname" not in found


def test_added_hosts_come_before_its_own_line_with_all_their_addresses(machine):
    added = [("db", "10.0.0.7"), ("db", "fd00::7"), ("box", "10.9.9.9")]
    lines = names.hosts("box", made(add_hosts=added), IPV4).splitlines()
    assert lines[-4:] == ["10.0.0.7\tdb", "fd00::7\tdb", "10.9.9.9\tbox", "172.17.0.2\tbox"]


@pytest.mark.parametrize(("network", "rest"), [("none", "127.0.1.1\tbox"), ("host", "10.1.1.1 intranet")])
def test_hosts_are_added_without_a_network_of_its_own_too(machine, network, rest):
    lines = names.hosts("box", made(network, add_hosts=[("db", "10.0.0.7")]), None).splitlines()
    assert lines[-1] == rest
    assert "10.0.0.7\tdb" in lines
    assert names.hosts("box", made("host"), None) == machine["/etc/hosts"]


def test_the_hosts_addresses_are_those_that_the_container_sees(machine):
    options = made(add_hosts=[("outside", "host-gateway")])
    assert "172.17.0.1\toutside\nfd00:1::1\toutside\n" in names.hosts("box", options, BOTH)
    options.network = "host"
    assert names.hosts("box", options, None).startswith("127.0.0.1\toutside\n")
    for network in ("none", "/proc/1/ns/net"):
        options.network = network
        with pytest.raises(UsageError, match=r"--add-host outside:host-gateway: .*no way to the host"):
            names.hosts("box", options, None)
    with pytest.raises(UsageError, match="no way to the host"):
        names.hosts("box", options, Attached(("10.0.0.2",), (), internal=True))


# --- /etc/resolv.conf ------------------------------------------------------------------------------------------------


def test_the_hosts_servers_domains_and_options_are_taken_over(machine):
    machine["/etc/resolv.conf"] = (
        "# ours\nnameserver 10.0.0.53\ndomain old.example\nsearch example.org lan\noptions ndots:2\noptions rotate\n"
        "nameserver fd00::53 # the other one\nsortlist 10.0.0.0/8\nnameserver\n"
    )
    assert resolver() == (
        "nameserver 10.0.0.53\nnameserver fd00::53\nsearch example.org lan\noptions ndots:2 rotate\n", [],
    )  # fmt: skip
    assert resolver(IPV4)[0].startswith("nameserver 10.0.0.53\nsearch")


@pytest.mark.parametrize(
    "server",
    ["127.0.0.1", "127.0.0.53", "127.1", "::1", "0:0::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "fe80::1%eth0",
     "fe80::1", "nonsense:"],
)  # fmt: skip
def test_a_server_that_cant_be_reached_is_left_out(machine, server):
    machine["/etc/resolv.conf"] = f"nameserver {server}\nnameserver 10.0.0.53\n"
    assert resolver() == ("nameserver 10.0.0.53\n", [])


def test_behind_the_stub_of_systemd_are_its_servers(machine):
    machine["/etc/resolv.conf"] = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch stub.example\n"
    machine["/run/systemd/resolve/resolv.conf"] = "nameserver 127.0.0.1\nnameserver 10.0.0.54\nsearch lan\n"
    assert resolver() == ("nameserver 10.0.0.54\nsearch lan\n", [])
    machine["/etc/resolv.conf"] = "nameserver 127.0.0.1\n"  # another one's: what systemd asks isn't what that asks
    assert resolver()[1]


@pytest.mark.parametrize(
    ("text", "attached"),
    [("nameserver 127.0.0.53\n", BOTH), ("", BOTH), ("# nothing\n", IPV4), ("nameserver fd00::53\n", IPV4)],
)
def test_where_no_server_is_left_there_is_none_and_it_is_said(machine, text, attached):
    machine["/etc/resolv.conf"] = text + "search lan\n"
    text, warnings = resolver(attached)
    assert "nameserver" not in text.replace("name server", "")
    assert text == "# None of the host's name servers can be reached from the container, so it has none.\nsearch lan\n"
    assert warnings == [
        "none of the host's name servers can be reached from the container, so it has none (--dns ADDRESS gives it one)"
    ]


def test_what_is_asked_for_takes_the_place_of_the_hosts(machine):
    machine["/etc/resolv.conf"] = "nameserver 127.0.0.53\nsearch lan\noptions ndots:2\n"
    assert resolver(dns=["127.0.0.1", "fd00::53"]) == (
        "nameserver 127.0.0.1\nnameserver fd00::53\nsearch lan\noptions ndots:2\n", [],
    )  # fmt: skip
    machine["/etc/resolv.conf"] = "nameserver 10.0.0.53\nsearch lan\noptions ndots:2\n"
    assert resolver(dns_search=["a.example", "b.example"], dns_options=["use-vc", "rotate"])[0] == (
        "nameserver 10.0.0.53\nsearch a.example b.example\noptions use-vc rotate\n"
    )
    assert resolver(dns_search=["."])[0] == "nameserver 10.0.0.53\noptions ndots:2\n"


def test_an_internal_network_learns_nothing_of_the_hosts_servers(machine):
    machine["/etc/resolv.conf"] = "nameserver 10.0.0.53\nsearch lan\noptions ndots:2\n"
    inside = Attached(("10.2.0.2",), ("10.2.0.1",), internal=True)
    assert resolver(inside) == ("# An internal network: no name server outside of it can be reached.\n", [])
    assert resolver(inside, dns=["10.2.0.3"]) == ("nameserver 10.2.0.3\n", [])


def test_the_hosts_network_has_the_hosts_file_but_for_what_is_asked(machine):
    machine["/etc/resolv.conf"] = "nameserver 127.0.0.53\nsearch lan\nsortlist 10.0.0.0/8\n"
    assert resolver(None, "host") == (machine["/etc/resolv.conf"], [])
    assert resolver(None, "host", dns_search=["."]) == ("nameserver 127.0.0.53\n", [])
    assert resolver(None, "host", dns=["9.9.9.9"]) == ("nameserver 9.9.9.9\nsearch lan\n", [])


def test_with_no_network_there_is_what_is_asked_for(machine):
    assert resolver(None, "none") == ("# There is no network but loopback, and no name server.\n", [])
    assert resolver(None, "none", dns=["127.0.0.1"]) == ("nameserver 127.0.0.1\n", [])
    assert resolver(None, "none", dns_options=["use-vc"]) == ("# There is no name server.\noptions use-vc\n", [])


# --- The words of the options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:10.0.0.7", ("db", "10.0.0.7")),
        ("db=10.0.0.7", ("db", "10.0.0.7")),
        ("db:fd00::7", ("db", "fd00::7")),
        ("db=fd00:0::7", ("db", "fd00::7")),
        ("db:[::1]", ("db", "::1")),
        ("my_db.example.org:host-gateway", ("my_db.example.org", "host-gateway")),
    ],
)
def test_an_added_host(text, expected):
    assert name_values.added_host(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "db", "db:", ":10.0.0.7", "db:10.0.0", "db:db2", "db:10.0.0.7\n10.0.0.8 bank", "d b:10.0.0.7", "db\n:10.0.0.7",
     "db\0:10.0.0.7", "db#:10.0.0.7", "-db:10.0.0.7", "a..b:10.0.0.7", f"{'a' * 64}:10.0.0.7",
     f"{'a.' * 127}a:10.0.0.7", "db:fe80::1%eth0", "bücher:10.0.0.7", "db:host-gateway2", "10.0.0.7"],
)  # fmt: skip
def test_what_would_break_a_line_of_hosts_is_refused(text):
    refused(name_values.added_host, text)


@pytest.mark.parametrize("text", ["", "dns.example.org", "10.0.0", "10.0.0.53 10.0.0.54", "10.0.0.53\n", "1.2.3.4\0"])
def test_what_is_no_address_is_no_name_server(text):
    refused(name_values.server, text)


def test_name_servers():
    assert [name_values.server(text) for text in ("10.0.0.53", "FD00::53", "[::1]")] == ["10.0.0.53", "fd00::53", "::1"]


def test_search_domains():
    for text in ("example.org", ".", "lan", "_tcp.example.org", "example.org."):
        assert name_values.domain(text) == text
    for text in ("", "..", "a b", "a\nnameserver 6.6.6.6", "-a.org", f"{'a.' * 127}a", "a;b"):
        refused(name_values.domain, text)


def test_options_of_the_resolver():
    for text in ("ndots:2", "use-vc", "timeout:1", "no-tld-query"):
        assert name_values.option(text) == text
    for text in ("", "ndots:2 rotate", "a\nnameserver 6.6.6.6", "a" * 300, "#"):
        refused(name_values.option, text)


def refused(read, text: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(text)
    assert "\n" not in str(raised.value)
    assert "\0" not in str(raised.value)
    assert len(str(raised.value)) < 250
