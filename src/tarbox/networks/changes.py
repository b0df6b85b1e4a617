"""Networks that are made and removed, and the subnets that they get: what changes in the folder of definitions.

Loaded only when a network is made or removed, or the default one is used for the first time.
"""

from __future__ import annotations

from ..errors import NetworkError, NetworkNotFoundError, StorageError
from ..unistd import os
from . import choice, leases, request
from .choice import conflict
from .definition import Network, render
from .store import DEFAULT, Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .choice import Taken
    from .definition import Subnet
    from .store import Networks


def create(
    networks: Networks,
    name: str,
    subnets: Sequence[str],
    gateways: Sequence[str],
    ranges: Sequence[str],
    internal: bool,
    ipv6: bool,
    labels: Mapping[str, str],
    options: Mapping[str, str],
) -> Network:
    """Define a network: see `Networks.create`."""
    wanted, ipv6, options = request.checked(name, subnets, gateways, ranges, ipv6, options)
    with Lock(networks.state):
        if os.path.lexists(networks.path(name)):
            raise NetworkError(f"there is a network {name!r} already", f"'tarbox network rm {name}' removes it")
        there = networks.all()
        network = Network(os.urandom(32).hex(), name, (), internal, ipv6, labels, options, _now())
        _refuse_interface(network, [networks.outline(), *there])
        network.subnets = _placed(networks, wanted, ipv6, there)
        _put(networks.path(name), render(network))
    return network


def remove(networks: Networks, name: str) -> Network:
    """Take a definition away: see `Networks.remove`."""
    if name in DEFAULT:
        raise NetworkError("the network bridge is always there, and can't be removed", "others can")
    with Lock(networks.state):
        network = networks.read(name)
        if not network:
            raise NetworkNotFoundError(name, (DEFAULT[0], *networks.names()))
        with leases.Locked(networks.leases(network)) as locked:
            _refuse_used(network, locked)
            os.unlink(networks.path(name))
            leases.remove(locked)
    return network


def choose_default(networks: Networks, keep: bool) -> Network:
    """The default network with a subnet that is free now. keep: note it; the caller holds the lock."""
    network = networks.outline()
    others = [*_taken(networks.all()), *networks.taken_by_routes()]
    network.subnets = (request.laid_out(choice.for_bridge(others)),)
    if keep:
        network.created = _now()
        _put(networks.note, render(network))
    return network


def _placed(networks: Networks, wanted: Sequence[Subnet], ipv6: bool, there: Sequence[Network]) -> tuple[Subnet, ...]:
    """The subnets of a new network: those that are wanted, if they are free, and those that are missing."""
    noted = networks.noted()
    default = _taken([noted] if noted else [])
    used = noted is not None and leases.busy(networks.leases(noted))
    others = [*_taken(there), *(default if used else ()), *networks.taken_by_routes()]
    for subnet in wanted:
        whose = conflict(subnet.version, subnet.network, subnet.prefix, others)
        if whose:
            raise NetworkError(f"{subnet} overlaps {whose}", "choose another, or leave --subnet out for a free one")
    found = {subnet.version: subnet for subnet in wanted}
    if 4 not in found:
        found[4] = request.laid_out(choice.for_network([*others, *default]))
    if 6 not in found and ipv6:
        found[6] = request.laid_out(choice.for_six(others))
    if not used and any(conflict(each.version, each.network, each.prefix, default) for each in wanted):
        os.unlink(networks.note)  # nobody is on the default network: it makes way
    return tuple(found[version] for version in sorted(found))


def _taken(networks: Sequence[Network]) -> list[Taken]:
    """The subnets of networks, each with words that say whose it is."""
    return [
        (subnet.version, subnet.network, subnet.prefix, f"{subnet} of the network {network.name}")
        for network in networks
        for subnet in network.subnets
    ]


def _refuse_interface(network: Network, others: Sequence[Network]) -> None:
    """Raise NetworkError where the name of the network's bridge is taken, by another network or on this machine."""
    for other in others:
        if other.bridge == network.bridge:
            raise NetworkError(
                f"the interface {network.bridge} is that of the network {other.name}", "give the bridge another name"
            )
    if os.path.lexists(f"/proc/sys/net/ipv4/conf/{network.bridge}"):
        raise NetworkError(
            f"there is an interface {network.bridge} on this machine already",
            "tarbox makes a network's bridge, and takes it away: give it a name of its own",
        )


def _refuse_used(network: Network, locked: leases.Locked) -> None:
    texts = [locked.text(name) for name in locked.names()]
    ids = sorted({leases.container(words) for words in texts if words is not None})
    if ids:
        count = "a container" if len(ids) == 1 else f"{len(ids)} containers"
        more = ", ..." if len(ids) > 5 else ""
        raise NetworkError(f"the network {network.name} has {count}: {', '.join(ids[:5])}{more}", "end them first")


def _put(path: str, text: str) -> None:
    """Put a file in its place, whole or not at all. The caller holds the lock: a half-made one is a dead one's."""
    folder, _, _ = path.rpartition("/")
    fresh = f"{folder}/.new"
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            data = text.encode("utf-8", "surrogateescape")
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(fresh, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", "is the disk full or read-only?") from None


def _now() -> str:
    """This moment as RFC 3339 has it, to the nanosecond."""
    import time

    now = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 10**9))}.{now % 10**9:09d}Z"
