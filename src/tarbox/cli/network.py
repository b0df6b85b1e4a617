"""`tarbox network`: make, list, show and remove networks that containers of one host share.

tarbox network create --subnet 10.2.0.0/24 web; tarbox run --network web IMAGE; tarbox network rm web
"""

from __future__ import annotations

from ..engine.values import shorten
from ..errors import TarboxError, UnsupportedError, UsageError
from .arguments import parse
from .help import show
from .layout import as_json, columns
from .network_options import CREATE, INSPECT, LS, PRUNE, RM, VERB
from .words import anywhere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .arguments import Verb
    from .main import Globals

_LATER = {
    "connect": "a container is put on its networks when it starts: tarbox run --network NAME",
    "disconnect": "a container is on its networks until it ends",
}


def main(words: list[str], settings: Globals) -> int:
    """Call the command that the first word names."""
    rest = parse(VERB, words).rest
    if not rest:
        raise UsageError("network needs a command", "e.g. 'tarbox network ls'; see 'tarbox network --help'")
    if rest[0] in _LATER:
        raise UnsupportedError(f"this version has no 'network {rest[0]}'", _LATER[rest[0]])
    if rest[0] not in COMMANDS:
        from ..engine.nearest import suggest

        near = suggest(rest[0].lower(), COMMANDS)
        hint = f"did you mean 'tarbox network {near}'?" if near else f"there is: {', '.join(COMMANDS)}"
        raise UsageError(f"network has no command {shorten(rest[0])!r}", hint)
    return COMMANDS[rest[0]](rest[1:], settings)


def create(words: list[str], settings: Globals) -> int:
    """Define a network."""
    found = anywhere(CREATE, words)
    if len(found.rest) != 1:
        what = f"makes one at a time, and {shorten(found.rest[1])!r} is a second name" if found.rest else "needs a name"
        raise UsageError(f"network create {what}", "e.g. 'tarbox network create web'")
    from ..engine import networks

    values: dict[str, Any] = found.values
    subnets, gateways, ranges = ([word for part in values.get(key, ()) for word in part] for key in _OF_SUBNETS)
    network = networks.create(
        found.rest[0],
        subnets,
        gateways,
        ranges,
        internal=values.get("internal") is True,
        ipv6=values.get("ipv6") is True,
        labels=dict(values.get("label", ())),
        options=dict(values.get("opt", ())),
        root=settings.root,
    )
    show(f"{network.id}\n")
    return 0


def ls(words: list[str], settings: Globals) -> int:
    """Print the networks."""
    values: dict[str, Any] = _alone(LS, words)
    from ..engine import network_views
    from ..engine.networks import opened

    filters: dict[str, list[str]] = {}
    for key, value in values.get("filter", ()):
        filters.setdefault(key, []).append(value)
    found = network_views.filtered(network_views.views(opened(settings.root)), filters)
    if values.get("json") is True:
        show(as_json({"networks": [_facts(one) for one in found]}))
        return 0
    lines = [network_views.line(one, values.get("no-trunc") is True) for one in found]
    if values.get("quiet") is True:
        show("".join(f"{line['ID']}\n" for line in lines))
    elif values.get("format") == "json":
        show("".join(as_json(line, indent=None) for line in lines))
    else:
        rows = [("NETWORK ID", "NAME", "DRIVER", "SCOPE")]
        rows += [(line["ID"], line["Name"], line["Driver"], line["Scope"]) for line in lines]
        show("\n".join(columns(rows)) + "\n")
    return 0


def inspect(words: list[str], settings: Globals) -> int:
    """Print all about some networks; what isn't there is told after those that are."""
    found = anywhere(INSPECT, words)
    if not found.rest:
        raise UsageError("network inspect needs a name", "'tarbox network ls' shows them")
    from ..engine.network_views import one
    from ..engine.networks import opened

    networks = opened(settings.root)
    views: list[dict[str, Any]] = []
    failed = _each(found.rest, lambda word: views.append(one(networks, word)))
    show(as_json(views, indent=None if found.values.get("format") else 4))
    return _told(failed)


def rm(words: list[str], settings: Globals) -> int:
    """Remove networks, each that can be; what is wrong with others is told after that."""
    found = anywhere(RM, words)
    if not found.rest:
        raise UsageError("network rm needs a name", "'tarbox network ls' shows them")
    from ..engine import networks
    from ..errors import NetworkNotFoundError

    def remove(word: str) -> None:
        try:
            networks.remove(word, settings.root)
        except NetworkNotFoundError:
            if found.values.get("force") is True:
                return
            raise
        show(f"{word}\n")

    return _told(_each(found.rest, remove))


def prune(words: list[str], settings: Globals) -> int:
    """Remove what is unused."""
    values: dict[str, Any] = _alone(PRUNE, words)
    from ..engine import networks

    filters = values.get("filter", ())
    labels, without = ([text for key, text in filters if key == kind] for kind in ("label", "label!"))
    names = networks.unused(labels, without, settings.root)
    if not names:
        return 0
    if values.get("force") is not True and not _agreed(f"Remove {', '.join(names)}? [y/N] "):
        raise UsageError("nothing was removed", "y agrees; --force doesn't ask")
    removed = []
    failed = _each(names, lambda name: removed.append(networks.remove(name, settings.root)))
    if removed:
        show("\n".join(["Deleted Networks:", *removed, "", ""]))
    return _told(failed)


def _agreed(question: str) -> bool:
    """Whether whoever is at standard input says yes."""
    from ..unistd import os

    show(question)
    answer = b""
    while not answer.endswith(b"\n") and (part := os.read(0, 1)):
        answer += part
    return answer.strip().lower() in (b"y", b"yes")


def _alone(verb: Verb, words: list[str]) -> dict[str, object]:
    """The options of a verb that takes nothing else."""
    found = parse(verb, words)
    if found.rest:
        hint = f"see '{verb.command()} --help'"
        raise UsageError(f"{verb.name} takes no arguments, and {shorten(found.rest[0])!r} is one", hint)
    return found.values


def _each(words: list[str], act: Callable[[str], None]) -> list[TarboxError]:
    """Do something with each word; what went wrong."""
    failed = []
    for word in words:
        try:
            act(word)
        except TarboxError as error:
            failed.append(error)
    return failed


def _told(failed: list[TarboxError]) -> int:
    """Raise the last of the errors, after telling of those before it."""
    if failed:
        from ..engine.limits import tell

        tell([str(error) for error in failed[:-1]])
        raise failed[-1]
    return 0


def _facts(view: dict[str, Any]) -> dict[str, object]:
    """A network for programs, with keys as the other lists have them."""
    config = view["IPAM"]["Config"]
    return {
        "id": view["Id"],
        "name": view["Name"],
        "driver": view["Driver"],
        "created": view["Created"],
        "subnets": [{key: part.get(docker) for key, docker in _KEYS} for part in config],
        "internal": view["Internal"],
        "ipv6": view["EnableIPv6"],
        "labels": view["Labels"],
        "options": view["Options"],
        "containers": sorted(view["Containers"]),
    }


_OF_SUBNETS = ("subnet", "gateway", "ip-range")
_KEYS = (("subnet", "Subnet"), ("gateway", "Gateway"), ("range", "IPRange"))
COMMANDS: dict[str, Callable[[list[str], Globals], int]] = {
    "create": create, "ls": ls, "list": ls, "inspect": inspect, "rm": rm, "remove": rm, "prune": prune,
}  # fmt: skip
