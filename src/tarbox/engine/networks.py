"""The networks of a data root as commands ask for them: by words, with hints for those that were mistyped.

    docker network create --subnet 10.2.0.0/24 web; docker network ls; docker network rm web

Definitions alone are made and removed here: what the kernel has of a network comes with the first container on it, and
goes with the last.
"""

from __future__ import annotations

from ..errors import NetworkError, NetworkNotFoundError, UnsupportedError
from ..networks.leases import busy
from ..networks.store import Networks
from ..unistd import os
from .roots import Roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..networks.definition import Network

BUILT_IN = ("bridge", "host", "none")


def opened(root: str | None = None) -> Networks:
    """The networks of a data root, None for the default one; nothing is made."""
    roots = Roots(root)
    return Networks(roots.data, roots.state)


def find(networks: Networks, word: str) -> Network:
    """The network of a name, or whose id begins so; raises NetworkNotFoundError with the name that was meant."""
    try:
        return networks.find(word)
    except NetworkNotFoundError as error:
        raise hinted(error) from None


def hinted(error: NetworkNotFoundError) -> NetworkNotFoundError:
    """The same error, with the name that was probably meant."""
    from .nearest import suggest

    near = suggest(error.word, error.known)
    if near:
        error.hint = f"did you mean {near}?"
    return error


def create(
    name: str,
    subnets: Sequence[str] = (),
    gateways: Sequence[str] = (),
    ranges: Sequence[str] = (),
    internal: bool = False,
    ipv6: bool = False,
    labels: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    root: str | None = None,
) -> Network:
    """Define a network, as `Networks.create` does; raises TarboxErrors, and then nothing was made."""
    _root_only("make")
    from ..networks.request import checked

    checked(name, subnets, gateways, ranges, ipv6, options or {})  # before there is a data root for what can't be
    _prepare(root)
    return opened(root).create(name, subnets, gateways, ranges, internal, ipv6, labels, options)


def remove(word: str, root: str | None = None) -> str:
    """Remove a network by its name or id; its name. Raises NetworkNotFoundError, NetworkError while it is in use."""
    _root_only("remove")
    networks = opened(root)
    if word in BUILT_IN:
        raise NetworkError(f"the network {word} is always there, and can't be removed", "those that you made can")
    name = find(networks, word).name
    _prepare(root)
    network = networks.remove(name)
    from ..networks import teardown

    teardown.remove(network.bridge, networks.leases(network))
    return network.name


def unused(labels: Sequence[str] = (), without: Sequence[str] = (), root: str | None = None) -> list[str]:
    """The names of the networks that no container is on.

    labels, without: `NAME` or `NAME=VALUE`; only networks that have all of the first and none of the second.
    """
    _root_only("remove")
    networks = opened(root)
    return [
        network.name
        for network in networks.all()
        if all(has(network.labels, label) for label in labels)
        and not any(has(network.labels, label) for label in without)
        and not busy(networks.leases(network))
    ]


def has(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether there is a label as `NAME` or `NAME=VALUE` says."""
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def _root_only(what: str) -> None:
    if os.geteuid():
        raise UnsupportedError(
            f"only root can {what} networks: they are interfaces and rules of the host",
            "a plain user's containers have --network none and host",
        )


def _prepare(root: str | None) -> None:
    from .limits import prepared

    prepared(root)
