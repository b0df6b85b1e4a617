"""Networks as Docker shows them: the objects of `docker network inspect` and of its API, and the filters of `ls`.

    docker network inspect web; docker network ls --filter label=com.example.owner --filter type=custom

https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

from ..errors import NetworkError, NetworkNotFoundError, UsageError
from ..networks import leases
from ..networks.addresses import BITS, first, text, text_of_subnet
from ..networks.addresses import last as last_address
from ..networks.store import derived_id
from ..unistd import os
from .networks import BUILT_IN, has, hinted
from .values import shorten, switch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ..networks.definition import Network, Subnet
    from ..networks.store import Networks

    View = dict[str, Any]

FILTERS = ("name", "id", "driver", "label", "type", "scope", "dangling")
_DRIVERS = {"host": "host", "none": "null"}
_NEVER = "0001-01-01T00:00:00Z"  # when what was always there was made, as Go writes it
_SHORTEST_ID = 4
_DEFAULT = "com.docker.network.bridge.default_bridge"


def views(networks: Networks) -> list[View]:
    """All networks, in the order of their names. A plain user has no bridges, only `host` and `none`."""
    found = [_plain(networks, kind) for kind in _DRIVERS]
    if not os.geteuid():
        found += [view(networks, network) for network in (_default(networks), *networks.all())]
    return sorted(found, key=lambda one: str(one["Name"]))


def one(networks: Networks, word: str) -> View:
    """The network of a name, or whose id begins so. Raises NetworkNotFoundError."""
    for kind in _DRIVERS:
        if word == kind or (len(word) >= _SHORTEST_ID and derived_id(networks.data, kind).startswith(word)):
            return _plain(networks, kind)
    if os.geteuid():
        raise hinted(NetworkNotFoundError(word, tuple(_DRIVERS)))
    try:
        return view(networks, networks.find(word))
    except NetworkNotFoundError as error:
        error.known = tuple(sorted({*error.known, *BUILT_IN}))
        raise hinted(error) from None


def view(networks: Networks, network: Network) -> View:
    """A network with bridges, and the containers that are on it now."""
    found = _view(network.name, network.id, network.created or _NEVER, "bridge")
    found["EnableIPv6"] = network.v6 is not None
    found["IPAM"]["Config"] = [_config(subnet) for subnet in network.subnets]
    found["Internal"] = network.internal
    found["Containers"] = _containers(network, leases.held(networks.leases(network)))
    found["Options"] = dict(network.options)
    if network.name == BUILT_IN[0]:
        found["Options"][_DEFAULT] = "true"
    found["Labels"] = dict(network.labels)
    return found


def line(view: View, whole: bool) -> dict[str, str]:
    """A network as `docker network ls --format json` has it: all texts. whole: whether the id isn't shortened."""
    created = str(view["Created"]).removesuffix("Z").replace("T", " ")
    return {
        "CreatedAt": f"{created} +0000 UTC",
        "Driver": view["Driver"],
        "ID": view["Id"] if whole else view["Id"][:12],
        "IPv4": _word(view["EnableIPv4"]),
        "IPv6": _word(view["EnableIPv6"]),
        "Internal": _word(view["Internal"]),
        "Labels": ",".join(f"{key}={value}" for key, value in view["Labels"].items()),
        "Name": view["Name"],
        "Scope": view["Scope"],
    }


def filtered(found: Iterable[View], filters: Mapping[str, list[str]]) -> list[View]:
    """The networks that match: one of the values of each filter, but all labels."""
    return [one for one in found if all(_matches(one, key, values) for key, values in filters.items())]


def check_filter(key: str, value: str) -> None:
    """Raise UsageError for a filter that there isn't, or a value that it can't have."""
    if key not in FILTERS:
        from .nearest import suggest

        near = suggest(key, FILTERS)
        hint = f"did you mean {near}?" if near else f"there is: {', '.join(FILTERS)}"
        raise UsageError(f"networks can't be filtered by {shorten(key)!r}", hint)
    if key == "type" and value not in ("custom", "builtin"):
        raise UsageError(f"{shorten(value)!r} is no type of networks", "custom or builtin")
    if key == "dangling":
        switch(value)


def _matches(view: View, key: str, values: list[str]) -> bool:
    built_in = view["Name"] in BUILT_IN
    if key == "label":
        return all(has(view["Labels"], value) for value in values)
    if key == "type":
        return ("builtin" if built_in else "custom") in values
    if key == "dangling":
        unused = not built_in and not view["Containers"]
        return any(switch(value) == unused for value in values)
    if key in ("name", "id"):
        return any(value in view["Name" if key == "name" else "Id"] for value in values)
    return view["Driver" if key == "driver" else "Scope"] in values


def _default(networks: Networks) -> Network:
    try:
        return networks.default(keep=False)
    except NetworkError:  # there is no subnet left for it
        return networks.outline()


def _plain(networks: Networks, kind: str) -> View:
    return _view(kind, derived_id(networks.data, kind), _NEVER, _DRIVERS[kind])


def _view(name: str, id: str, created: str, driver: str) -> View:
    return {
        "Name": name,
        "Id": id,
        "Created": created,
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": {}, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def _config(subnet: Subnet) -> dict[str, str]:
    found = {"Subnet": str(subnet)}
    part = _range(subnet)
    if part:
        found["IPRange"] = part
    return {**found, "Gateway": text(subnet.version, subnet.gateway)}


def _range(subnet: Subnet) -> str:
    """The smallest subnet that holds what containers are given; "" where that is all of it."""
    broadcast = last_address(subnet.version, subnet.network, subnet.prefix)
    low, high = subnet.first, subnet.last
    if low == subnet.network + 1 and high >= broadcast - (subnet.version == 4):
        return ""
    prefix = BITS[subnet.version] - (low ^ high).bit_length()
    return text_of_subnet(subnet.version, first(subnet.version, low, prefix), prefix)


def _containers(network: Network, held: Iterable[tuple[str, str]]) -> View:
    """The containers by their ids, of what their leases say."""
    found: View = {}
    for address, words in held:
        said = dict(line.partition(" ")[::2] for line in words.splitlines())
        id = said.get("container", "")
        shown = found.setdefault(
            id, {"Name": said.get("name", id[:12]), "EndpointID": "", "MacAddress": said.get("mac", ""),
                 "IPv4Address": "", "IPv6Address": ""}
        )  # fmt: skip
        subnet = network.v6 if ":" in address else network.v4
        if subnet:
            shown[f"IPv{subnet.version}Address"] = f"{address}/{subnet.prefix}"
    return found


def _word(value: object) -> str:
    return "true" if value else "false"
