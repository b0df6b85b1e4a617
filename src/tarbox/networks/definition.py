"""A network as it is defined: its name, its subnets, and what was said about it. A small text, read at every start.

    tarbox network 1
    id 9f86d081884c7d65…
    name web
    subnet 10.212.0.0/24 gateway 10.212.0.1 from 10.212.0.1 to 10.212.0.254
    internal                          there is no way out of it
    label com.example.owner=me        a backslash and the end of a line are written as \\\\ and \\n
    option mtu=1400
    created 2026-01-31T12:00:00.123456789Z

`created` comes last: a text without it was cut. What the kernel has of a network while containers are on it, a
bridge first of all, is derived from this.

man 8 ip-link (bridge)
"""

from __future__ import annotations

from ..errors import StorageError, UsageError
from .addresses import first as first_address
from .addresses import last as last_address
from .addresses import read, read_subnet, text, text_of_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEAD = "tarbox network 1"
BRIDGE_OPTIONS = ("com.docker.network.bridge.name", "bridge")
MTU_OPTIONS = ("com.docker.network.driver.mtu", "mtu")
_SHORT = 12  # letters of an id that stand for it, in lists and in names of interfaces


class Subnet:
    """The addresses of one protocol on a network.

    version: 4 or 6. network, prefix: its first address, and how many bits are fixed. gateway: the bridge's own address.
    first, last: what containers are given when nobody asks for an address; the gateway may lie between.
    """

    __slots__ = ("first", "gateway", "last", "network", "prefix", "version")

    def __init__(self, version: int, network: int, prefix: int, gateway: int, first: int, last: int) -> None:
        self.version = version
        self.network = network
        self.prefix = prefix
        self.gateway = gateway
        self.first = first
        self.last = last

    def __str__(self) -> str:
        return text_of_subnet(self.version, self.network, self.prefix)

    def holds(self, address: int) -> bool:
        """Whether the address lies in it."""
        return first_address(self.version, address, self.prefix) == self.network

    def may_be_used(self, address: int) -> bool:
        """Whether an address of it can be a container's: not the subnet's own, the gateway's, or the broadcasts'."""
        broadcast = last_address(self.version, self.network, self.prefix) if self.version == 4 else -1
        return address not in (self.network, self.gateway, broadcast)

    def count(self) -> int:
        """How many addresses there are to be given."""
        return self.last - self.first + 1 - (self.first <= self.gateway <= self.last)


class Network:
    """A network: what its definition says.

    id: 64 hexadecimal digits. subnets: one of IPv4, and one of IPv6 where `ipv6` says so. internal: whether there is
    no way out. labels, options: words about it, and for its driver. created: when, as RFC 3339 has it.
    """

    __slots__ = ("created", "id", "internal", "ipv6", "labels", "name", "options", "subnets")

    def __init__(
        self,
        id: str,
        name: str,
        subnets: Sequence[Subnet],
        internal: bool = False,
        ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        created: str = "",
    ) -> None:
        self.id = id
        self.name = name
        self.subnets = tuple(subnets)
        self.internal = internal
        self.ipv6 = ipv6
        self.labels = dict(labels or {})
        self.options = dict(options or {})
        self.created = created

    @property
    def bridge(self) -> str:
        """The name of its interface on the host, at most 15 letters."""
        return self._option(BRIDGE_OPTIONS) or f"tb-{self.id[:_SHORT]}"

    @property
    def mtu(self) -> int:
        """The largest packet in bytes; 0 for that of the host's default route."""
        return int(self._option(MTU_OPTIONS) or 0)

    @property
    def v4(self) -> Subnet | None:
        """The subnet of IPv4."""
        return self._subnet(4)

    @property
    def v6(self) -> Subnet | None:
        """The subnet of IPv6."""
        return self._subnet(6)

    def _subnet(self, version: int) -> Subnet | None:
        for subnet in self.subnets:
            if subnet.version == version:
                return subnet
        return None

    def _option(self, names: tuple[str, str]) -> str:
        return self.options.get(names[0]) or self.options.get(names[1]) or ""


def render(network: Network) -> str:
    """The text of a definition."""
    lines = [_HEAD, f"id {network.id}", f"name {network.name}"]
    for subnet in network.subnets:
        gateway, first, last = (text(subnet.version, at) for at in (subnet.gateway, subnet.first, subnet.last))
        lines.append(f"subnet {subnet} gateway {gateway} from {first} to {last}")
    if network.internal:
        lines.append("internal")
    if network.ipv6:
        lines.append("ipv6")
    lines += [f"label {_escape(key)}={_escape(value)}" for key, value in network.labels.items()]
    lines += [f"option {_escape(key)}={_escape(value)}" for key, value in network.options.items()]
    return "\n".join([*lines, f"created {network.created}", ""])


def parse(text: str, path: str) -> Network:
    """The network of a text; raises StorageError, which names the file `path`, for one that was cut or is none."""
    lines = text.split("\n")
    if lines[0] != _HEAD or len(lines) < 4 or lines[-1] or not lines[-2].startswith("created "):
        raise _nonsense(path, "it was cut short" if lines[0] == _HEAD else f"it doesn't begin with '{_HEAD}'")
    single: dict[str, str] = {}
    several: dict[str, dict[str, str]] = {"label": {}, "option": {}}
    subnets: list[Subnet] = []
    for line in lines[1:-1]:
        word, _, rest = line.partition(" ")
        if word in several:
            key, equals, value = rest.partition("=")
            if not equals:
                raise _nonsense(path, f"{line[:60]!r} has no value")
            several[word][_unescape(key)] = _unescape(value)
        elif word == "subnet":
            subnets.append(_subnet(rest, path))
        elif word in ("id", "name", "created", "internal", "ipv6") and word not in single:
            single[word] = rest
        else:
            raise _nonsense(path, f"{line[:60]!r} means nothing in it")
    id, name = single.get("id", ""), single.get("name", "")
    if len(id) != 64 or not name or len({subnet.version for subnet in subnets}) != len(subnets):
        raise _nonsense(path, "it lacks an id or a name, or has too many subnets")
    labels, options = several["label"], several["option"]
    return Network(id, name, subnets, "internal" in single, "ipv6" in single, labels, options, single["created"])


def _subnet(rest: str, path: str) -> Subnet:
    words = rest.split(" ")
    try:
        if len(words) != 7 or words[1::2] != ["gateway", "from", "to"]:
            raise UsageError("")
        version, network, prefix = read_subnet(words[0])
        found = [read(word) for word in words[2::2]]
        subnet = Subnet(version, network, prefix, *(value for _, value in found))
        if {version} != {kind for kind, _ in found} or not (subnet.holds(subnet.first) and subnet.holds(subnet.last)):
            raise UsageError("")
    except UsageError:
        raise _nonsense(path, f"'subnet {rest[:60]}' is no line of it") from None
    return subnet


def _nonsense(path: str, reason: str) -> StorageError:
    return StorageError(
        f"{path} is no definition of a network: {reason}", "remove the file, and make the network again"
    )


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(value: str) -> str:
    return "\\".join(part.replace("\\n", "\n") for part in value.split("\\\\"))
