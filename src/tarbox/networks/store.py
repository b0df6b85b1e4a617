"""All networks of a data root: those that somebody defined, and the default one, `bridge`, which is always there.

    DATA/networks/NAME          a definition: survives a boot
    STATE/networks/bridge       which subnet the default network has, noted when it is first used
    STATE/networks/ID/          the addresses that containers have

A definition is put in place by rename, by one command at a time: of two that make the same name, one is told so. The
default network has no definition, as it is there before anybody thought of networks: its id comes from the data root's
path, and its subnet is whatever is free when it is first used. It keeps that until a boot; but while nobody is on it,
it makes way for a network or a route that wants the same addresses.

man 2 rename, man 2 flock
"""

from __future__ import annotations

import fcntl

from ..errors import NetworkError, NetworkNotFoundError, StorageError
from ..unistd import os
from . import leases
from .definition import Network, Subnet, parse, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .choice import Taken
    from .leases import Lease
    from .routes import Route

DEFAULT = ("bridge", "default")
_DEFAULT_ROOT, _DEFAULT_BRIDGE = "/var/lib/tarbox", "tarbox0"
_SHORTEST_ID = 4
_OFFSET, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1  # of FNV-1a
_LONGEST = 200  # letters of a name


def host_routes() -> list[Route]:
    """The routes of this machine."""
    from .routes import read

    return read()


def derived_id(path: str, kind: str = "bridge") -> str:
    """The id of a network that has no definition: always the same for a data root."""
    value = _OFFSET
    digits = ""
    for byte in os.fsencode(path):
        value = (value ^ byte) * _PRIME & _MASK
    for byte in kind.encode() if kind != DEFAULT[0] else b"":
        value = (value ^ byte) * _PRIME & _MASK
    for turn in range(4):
        digits += f"{value:016x}"
        value = (value ^ turn) * _PRIME & _MASK
    return digits


class Networks:
    """The networks of one data root.

    data, state: its folders; nothing is made in them before a network is made or used, but the state folder must be
    there by then. routes: tells the host's routes when a subnet is chosen, as (4 or 6, first address, fixed bits,
    interface).
    """

    __slots__ = ("_routes", "data", "state")

    def __init__(self, data: str, state: str, routes: Callable[[], list[Route]] = host_routes) -> None:
        self.data = data
        self.state = state
        self._routes = routes

    # --- Finding ---

    def names(self) -> list[str]:
        """The names of the networks that were defined, in order."""
        try:
            return sorted(name for name in os.listdir(self._folder) if name[0] != ".")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self._folder}: {error.strerror}") from None

    def find(self, word: str) -> Network:
        """The network of that name, or whose id begins so (4 letters at least).

        Raises NetworkNotFoundError, NetworkError for the beginning of several ids, StorageError for what can't be read.
        """
        if word in DEFAULT:
            return self.default(keep=False)
        found = self._read(word)
        if found:
            return found
        names = self.names()
        if len(word) >= _SHORTEST_ID:
            begun = [network for network in map(self._read, names) if network and network.id.startswith(word)]
            if derived_id(self.data).startswith(word):
                begun.append(self.default(keep=False))
            if len(begun) == 1:
                return begun[0]
            if begun:
                said = ", ".join(network.name for network in begun)
                raise NetworkError(f"several networks have an id that begins with {word}: {said}", "write more of it")
        raise NetworkNotFoundError(word, (DEFAULT[0], *names))

    def all(self) -> list[Network]:
        """All networks that were defined, in the order of their names."""
        return [network for network in map(self._read, self.names()) if network]

    def default(self, keep: bool = True) -> Network:
        """The network `bridge`. keep: whether its subnet is noted, which whoever uses it must do.

        Raises NetworkError where no subnet is free.
        """
        if not keep:
            return self._default()[0]
        with _Lock(self.state):
            network, fresh = self._default()
            if fresh:
                _put(self._note, render(network))
            return network

    # --- Making and removing ---

    def create(
        self,
        name: str,
        subnets: Sequence[str] = (),
        gateways: Sequence[str] = (),
        ranges: Sequence[str] = (),
        internal: bool = False,
        ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Network:
        """Define a network; the kernel hears of it when the first container is on it.

        subnets, gateways, ranges: as text. A subnet of IPv4 is chosen where none is given, one of IPv6 where only
        `ipv6` asks for one. Raises UsageError, UnsupportedError and NetworkError; then nothing has changed.
        """
        from . import request

        request.name(name)
        wanted = request.subnets(subnets, gateways, ranges)
        ipv6 = ipv6 or any(subnet.version == 6 for subnet in wanted)
        options = request.options(options or {}, ipv6)
        with _Lock(self.state):
            if os.path.lexists(self._path(name)):
                raise NetworkError(f"there is a network {name!r} already", f"'tarbox network rm {name}' removes it")
            there = self.all()
            network = Network(os.urandom(32).hex(), name, (), internal, ipv6, labels, options, _now())
            _refuse_interface(network, [self._bridge(), *there])
            network.subnets = self._placed(wanted, ipv6, there)
            _put(self._path(name), render(network))
        return network

    def remove(self, name: str) -> Network:
        """Take a definition away; raises NetworkError while containers are on the network."""
        if name in DEFAULT:
            raise NetworkError("the network bridge is always there, and can't be removed", "others can")
        with _Lock(self.state):
            network = self._read(name)
            if not network:
                raise NetworkNotFoundError(name, (DEFAULT[0], *self.names()))
            folder = self.leases(network)
            with leases.Locked(folder) as locked:
                _refuse_used(network, locked)
                os.unlink(self._path(name))
                leases.remove(locked)
        return network

    # --- Addresses ---

    def leases(self, network: Network) -> str:
        """The folder of the addresses that are taken on a network."""
        return f"{self.state}/networks/{network.id}"

    def lease(self, network: Network, subnet: Subnet, words: str, wanted: int | None = None) -> Lease:
        """Take an address on a network, and make sure that the network is still there: see `leases.take`."""
        lease = leases.take(self.leases(network), subnet, words, wanted, network.name)
        if self.still(network):
            return lease
        os.close(lease.descriptor)
        with leases.Locked(self.leases(network)) as locked:
            locked.drop(lease.path.rpartition("/")[2])
            leases.remove(locked)
        raise NetworkError(f"the network {network.name} was removed, or moved, just now", "try it again")

    def still(self, network: Network) -> bool:
        """Whether a network is still what it was; once an address is leased, it stays so."""
        now = self._noted() if network.name == DEFAULT[0] else self._read(network.name)
        return now is not None and now.id == network.id and str(now.v4) == str(network.v4)

    # --- Inside ---

    @property
    def _folder(self) -> str:
        return f"{self.data}/networks"

    @property
    def _note(self) -> str:
        return f"{self.state}/networks/{DEFAULT[0]}"

    def _path(self, name: str) -> str:
        return f"{self.data}/networks/{name}"

    def _read(self, name: str) -> Network | None:
        """A definition, None where there is none."""
        if "/" in name or name[:1] in ("", ".") or len(name) > _LONGEST:  # can't be one
            return None
        path = self._path(name)
        text = _text(path)
        if text is None:
            return None
        network = parse(text, path)
        if network.name != name:
            raise StorageError(f"{path} defines the network {network.name!r}", "a file must have its network's name")
        return network

    def _noted(self) -> Network | None:
        """The default network as it was first used, None where it wasn't."""
        text = _text(self._note)
        try:
            return parse(text, self._note) if text is not None else None
        except StorageError:  # of another version, say: chosen anew
            return None

    def _bridge(self) -> Network:
        """The default network without a subnet: what is always the same of it."""
        id = derived_id(self.data)
        bridge = _DEFAULT_BRIDGE if self.data == _DEFAULT_ROOT else f"tb-{id[:12]}"
        return Network(id, DEFAULT[0], (), options={"com.docker.network.bridge.name": bridge})

    def _default(self) -> tuple[Network, bool]:
        """The default network, and whether its subnet was chosen just now."""
        noted = self._noted()
        if noted and leases.busy(self.leases(noted)):
            return noted, False
        from . import choice, request

        network = self._bridge()
        others = _taken(self.all()) + choice.taken(self._routes(), network.bridge)
        if noted and noted.v4 and not choice.conflict(4, noted.v4.network, noted.v4.prefix, others):
            return noted, False
        network.subnets = (request.laid_out(choice.for_bridge(others)),)
        network.created = _now()
        return network, True

    def _placed(self, wanted: Sequence[Subnet], ipv6: bool, there: Sequence[Network]) -> tuple[Subnet, ...]:
        """The subnets of a new network: those that are wanted, if they are free, and those that are missing."""
        from . import choice, request

        noted = self._noted()
        default = _taken([noted] if noted else [])
        used = noted is not None and leases.busy(self.leases(noted))
        others = _taken(there) + (default if used else [])
        others += choice.taken(self._routes(), self._bridge().bridge)
        for subnet in wanted:
            whose = choice.conflict(subnet.version, subnet.network, subnet.prefix, others)
            if whose:
                raise NetworkError(f"{subnet} overlaps {whose}", "choose another, or leave --subnet out for a free one")
        if not used and any(choice.conflict(each.version, each.network, each.prefix, default) for each in wanted):
            os.unlink(self._note)  # nobody is on the default network: it makes way
        found = {subnet.version: subnet for subnet in wanted}
        if 4 not in found:
            found[4] = request.laid_out(choice.for_network([*others, *default]))
        if 6 not in found and ipv6:
            found[6] = request.laid_out(choice.for_six(others))
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


class _Lock:
    """The state folder, in which nobody else makes, removes or chooses a network meanwhile."""

    __slots__ = ("_descriptor", "_folder")

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> None:
        try:
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise StorageError(f"cannot lock {self._folder}: {error.strerror}") from None

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)


def _text(path: str) -> str | None:
    """What is in a file, None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(descriptor, 1 << 16):
                parts.append(part)
            return b"".join(parts).decode("utf-8", "surrogateescape")
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


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
