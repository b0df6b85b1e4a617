"""The options of `tarbox network` and its commands, and what reads their values.

docker network create --help
"""

from __future__ import annotations

from ..engine.values import shorten
from ..errors import UnsupportedError, UsageError
from .arguments import Option, Verb
from .readers import label

_SWARM = "tarbox has no swarm: a network is of one host"
_OTHER_DRIVERS = {
    "overlay": _SWARM,
    "macvlan": "a bridge is what there is: -p publishes ports, and --network host shares the host's interfaces",
    "ipvlan": "a bridge is what there is: -p publishes ports, and --network host shares the host's interfaces",
    "host": "the network host is there already: --network host",
    "null": "the network none is there already: --network none",
    "none": "the network none is there already: --network none",
}


def _driver(text: str) -> str:
    if text == "bridge":
        return text
    if text in _OTHER_DRIVERS:
        raise UnsupportedError(f"--driver: there is no {text} here", _OTHER_DRIVERS[text])
    raise UsageError(f"there is no driver {shorten(text)!r}", "bridge is the one that there is")


def _subnet(text: str) -> list[str]:
    from ..networks.addresses import read_subnet

    words = text.split(",")
    for word in words:
        read_subnet(word)
    return words


def _address(text: str) -> list[str]:
    from ..networks.addresses import read

    words = text.split(",")
    for word in words:
        read(word)
    return words


def _opt(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{shorten(text)!r} has no {'value' if key else 'name'}", "NAME=VALUE, e.g. mtu=1400")
    return key, value


def _filter(text: str) -> tuple[str, str]:
    from ..engine.network_views import check_filter

    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{shorten(text)!r} has no value", "NAME=VALUE, e.g. name=web or label=com.example.owner")
    check_filter(key, value)
    return key, value


def _prune_filter(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if key not in ("label", "label!") or not value:
        hint = "label=NAME, label=NAME=VALUE, or label!=… for those that don't have it"
        raise UsageError(f"{shorten(text)!r} is no filter of prune", hint)
    return key, value


def _json(text: str) -> str:
    if text == "json":
        return text
    if "{{" in text:
        raise UnsupportedError("--format: this version has no templates", "--format json | jq picks what you want")
    raise UsageError(f"{shorten(text)!r} is no format", "json")


def _json_or_table(text: str) -> str:
    return text if text == "table" else _json(text)


VERB = Verb(
    "network",
    "create|ls|inspect|rm|prune ...",
    "Make networks, list, show and remove them. Containers on one network reach each other, and the outside through the"
    " host; 'tarbox run --network NAME' puts a container on one. The networks 'bridge', 'host' and 'none' are always"
    " there. A network is a definition that stays: its bridge is made for the first container on it, and goes with the"
    " last. Each command has a --help.",
    examples=(
        ("tarbox network create web", "A network, with a subnet that is free."),
        ("tarbox network ls", "All of them."),
        ("tarbox network inspect web", "One of them, with the containers that are on it now."),
        ("tarbox network rm web", "Removed."),
    ),
)
CREATE = Verb(
    "network create",
    "[OPTIONS] NAME",
    "Define a network, and print its id. Without --subnet it gets the next /24 that is free: that no route of this host"
    " leads into, and no other network has. With --ipv6 it gets a random unique local /64 (RFC 4193) as well.",
    (
        Option(("subnet",), "SUBNET", "Its addresses, e.g. 10.2.0.0/24; one of IPv4, one of IPv6", "", _subnet, True),
        Option(("gateway",), "ADDRESS", "The host's own address on it (default the first)", "", _address, True),
        Option(("ip-range",), "SUBNET", "Give containers addresses of this part of it alone", "", _subnet, True),
        Option(("internal",), "", "Without a way out: its containers reach each other and the host alone"),
        Option(("ipv6",), "", "With IPv6 as well; a --subnet of IPv6 says so too"),
        Option(("label",), "NAME=VALUE", "Say something about it, for people and programs", "", label, True),
        Option(
            ("opt", "o"),
            "NAME=VALUE",
            "mtu=BYTES, bridge=INTERFACE, or Docker's names of them",
            "",
            _opt,
            True,
        ),
        Option(("driver", "d"), "DRIVER", "bridge, which is the one that there is", "", _driver),
        Option(("attachable",), "", "Changes nothing: containers can always be put on it"),
    ),
    {
        "aux-address": "--ip-range keeps containers from the other addresses",
        "config-only": "networks don't share definitions: say all of it for each",
        "config-from": "networks don't share definitions: say all of it for each",
        "ingress": _SWARM,
        "scope": _SWARM,
        "ipv4": "a network always has IPv4",
        "ipam-driver": "addresses are given by tarbox: --subnet, --gateway, --ip-range",
        "ipam-opt": "addresses are given by tarbox: --subnet, --gateway, --ip-range",
        "interface-name": "it is -o bridge=INTERFACE",
        "ignore": "",
        "dns": "'tarbox run --dns' is there",
        "disable-dns": "",
        "route": "",
    },
    (
        ("tarbox network create web", "The simplest one."),
        ("tarbox network create --subnet 10.2.0.0/24 --gateway 10.2.0.254 web", "With addresses of your choice."),
        ("tarbox network create --internal db", "Nothing on it gets out, and nothing in but from the host."),
        ("tarbox network create --ipv6 -o mtu=1400 --label team=blue far", "More of what can be said."),
    ),
)
LS = Verb(
    "network ls",
    "[OPTIONS]",
    "List the networks. With several filters a network has to match one value of each, and all labels.",
    (
        Option(
            ("filter", "f"),
            "NAME=VALUE",
            "Only those whose name=, id= (a part will do), driver=, label=, type= (custom, builtin), scope= or"
            " dangling= (true: no container is on it) is so",
            "",
            _filter,
            True,
        ),
        Option(("quiet", "q"), "", "Only their ids"),
        Option(("no-trunc",), "", "Whole ids"),
        Option(("format",), "FORMAT", "table, or json as Docker writes it, one a line", "", _json_or_table),
        Option(("json",), "", "Show them as JSON; docs/json.md has the keys"),
    ),
    examples=(
        ("tarbox network ls --filter type=custom", "Those that somebody made."),
        ("tarbox network ls -q --filter label=team=blue", "The ids of those with a label."),
    ),
)
INSPECT = Verb(
    "network inspect",
    "NAME|ID...",
    "Show all about networks as JSON, with Docker's keys: their subnets, options and labels, and which containers are"
    " on them now, with their addresses.",
    (Option(("format",), "json", "On one line", "", _json),),
    {"verbose": _SWARM, "v": _SWARM},
    (("tarbox network inspect bridge", "The one that containers are on when nobody says another."),),
)
RM = Verb(
    "network rm",
    "[OPTIONS] NAME|ID...",
    "Remove networks that no container is on.",
    (Option(("force", "f"), "", "Don't mind those that there aren't"),),
    examples=(("tarbox network rm web db", "Two of them."),),
)
PRUNE = Verb(
    "network prune",
    "[OPTIONS]",
    "Remove all networks that no container is on.",
    (
        Option(("force", "f"), "", "Don't ask"),
        Option(
            ("filter",),
            "NAME=VALUE",
            "Only those with label=NAME[=VALUE], or label!=… without",
            "",
            _prune_filter,
            True,
        ),
    ),
    {"until": "it filters by label alone"},
    (("tarbox network prune -f --filter label=team=blue", "Those of the blue team, without a question."),),
)
