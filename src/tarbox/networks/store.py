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
from .definition import Network, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .choice import Taken
    from .definition import Subnet
    from .leases import Lease
    from .routes import Route

DEFAULT = ("bridge", "default")
_DEFAULT_ROOT, _DEFAULT_BRIDGE = "/var/lib/tarbox", "tarbox0"
_SHORTEST_ID = 4
_OFFSET, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1  # of FNV-1a
_LONGEST = 200  # letters of a name


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
    interface); None has /proc tell them.
    """

    __slots__ = ("_routes", "data", "state")

    def __init__(self, data: str, state: str, routes: Callable[[], list[Route]] | None = None) -> None:
        self.data = data
        self.state = state
        self._routes = routes

    # --- Finding ---

    def names(self) -> list[str]:
        """The names of the networks that were defined, in order."""
        try:
            return sorted(name for name in os.listdir(self.folder) if name[0] != ".")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self.folder}: {error.strerror}") from None

    def find(self, word: str) -> Network:
        """The network of that name, or whose id begins so (4 letters at least).

        Raises NetworkNotFoundError, NetworkError for the beginning of several ids, StorageError for what can't be read.
        """
        if word in DEFAULT:
            return self.default(keep=False)
        found = self.read(word)
        if found:
            return found
        names = self.names()
        if len(word) >= _SHORTEST_ID:
            begun = [network for network in map(self.read, names) if network and network.id.startswith(word)]
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
        return [network for network in map(self.read, self.names()) if network]

    def default(self, keep: bool = True) -> Network:
        """The network `bridge`. keep: whether its subnet is noted, which whoever uses it must do; `created` is then.

        Raises NetworkError where no subnet is free.
        """
        if not keep:
            return self._still_free() or self._chosen(keep)
        with Lock(self.state):
            return self._still_free() or self._chosen(keep)

    def outline(self) -> Network:
        """The network `bridge` without a subnet: what is always the same of it."""
        id = derived_id(self.data)
        bridge = _DEFAULT_BRIDGE if self.data == _DEFAULT_ROOT else f"tb-{id[:12]}"
        return Network(id, DEFAULT[0], (), options={"com.docker.network.bridge.name": bridge})

    def _chosen(self, keep: bool) -> Network:
        from .changes import choose_default

        return choose_default(self, keep)

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
        from .changes import create

        return create(self, name, subnets, gateways, ranges, internal, ipv6, labels or {}, options or {})

    def remove(self, name: str) -> Network:
        """Take a definition away; raises NetworkError while containers are on the network."""
        from .changes import remove

        return remove(self, name)

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
        now = self.noted() if network.name == DEFAULT[0] else self.read(network.name)
        return now is not None and now.id == network.id and str(now.v4) == str(network.v4)

    # --- Files ---

    @property
    def folder(self) -> str:
        """Of the definitions."""
        return f"{self.data}/networks"

    @property
    def note(self) -> str:
        """The file that says which subnet the default network has."""
        return f"{self.state}/networks/{DEFAULT[0]}"

    def path(self, name: str) -> str:
        """The file of a definition."""
        return f"{self.data}/networks/{name}"

    def read(self, name: str) -> Network | None:
        """A definition by its name, None where there is none."""
        if "/" in name or name[:1] in ("", ".") or len(name) > _LONGEST:  # can't be one
            return None
        path = self.path(name)
        text = _text(path)
        if text is None:
            return None
        network = parse(text, path)
        if network.name != name:
            raise StorageError(f"{path} defines the network {network.name!r}", "a file must have its network's name")
        return network

    def noted(self) -> Network | None:
        """The default network as it was first used, None where it wasn't."""
        text = _text(self.note)
        try:
            return parse(text, self.note) if text is not None else None
        except StorageError:  # of another version, say: chosen anew
            return None

    def taken_by_routes(self) -> list[Taken]:
        """What the host's routes have taken, but for the default network's own."""
        from .choice import taken
        from .routes import read

        return taken(self._routes() if self._routes else read(), self.outline().bridge)

    def _still_free(self) -> Network | None:
        """The default network as it was noted, None where it wasn't, or has to make way for a route."""
        noted = self.noted()
        if not noted or not noted.v4 or leases.busy(self.leases(noted)):
            return noted
        from .choice import conflict

        # Other networks aren't in its way: who makes one that would be takes the note away.
        return None if conflict(4, noted.v4.network, noted.v4.prefix, self.taken_by_routes()) else noted


class Lock:
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
