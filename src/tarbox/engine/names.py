"""What a container knows of names: the texts of its /etc/hosts and /etc/resolv.conf.

    printf '172.17.0.2 box\\n' >> hosts; grep -v '^nameserver 127' /etc/resolv.conf > resolv.conf

A name server at the host's loopback address is another one inside, or none: a container with a network of its own can't
reach it. Where that is systemd-resolved's, the servers that it asks itself are in a file of its own. If none is left
the container has none, and is told so: whom it asks is never chosen for it.

man 5 hosts, man 5 resolv.conf, man 8 systemd-resolved
"""

from __future__ import annotations

from ..errors import UsageError
from ..unistd import os
from .options import HOST, NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .options import RunOptions

LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""

_LARGEST = 1 << 20
_RESOLVER = "/etc/resolv.conf"
_STUBS, _BEHIND_STUB = {"127.0.0.53", "127.0.0.54"}, "/run/systemd/resolve/resolv.conf"
_GATEWAY = "host-gateway"


class Attached:
    """How a container is attached to a network of its own.

    addresses: the container's, those of IPv6 among them. gateways: the host's, as the container sees it. internal:
    whether nothing but that network can be reached.
    """

    __slots__ = ("addresses", "gateways", "internal")

    def __init__(self, addresses: tuple[str, ...], gateways: tuple[str, ...] = (), internal: bool = False) -> None:
        self.addresses = addresses
        self.gateways = gateways
        self.internal = internal


def hosts(names: str, options: RunOptions, attached: Attached | None) -> str:
    """The text of /etc/hosts. With the host's network, or others', it is the host's.

    names: the container's own, the full one first; "" where it isn't known. attached: None without a network of its
    own. What `--add-host` says stands before what would be there anyway, as the first line with a name counts.
    """
    added = "".join(f"{address}\t{name}\n" for name, address in _added(options, attached))
    if attached:
        own = "".join(f"{address}\t{names}\n" for address in attached.addresses) if names else ""
        return f"{LOCAL}{added}{own}"
    if options.network == NONE:
        own = f"127.0.1.1\t{names}\n" if names else ""
        return f"{LOCAL}{added}{own}"
    return f"{added}{read('/etc/hosts')}"


def _added(options: RunOptions, attached: Attached | None) -> list[tuple[str, str]]:
    """Names with addresses, a word for the host replaced by the host's addresses."""
    found = []
    for name, address in options.add_hosts:
        if address != _GATEWAY:
            found.append((name, address))
            continue
        gateways = attached.gateways if attached else ("127.0.0.1",) if options.network == HOST else ()
        if not gateways:
            raise UsageError(
                f"--add-host {name}:{_GATEWAY}: from this network there is no way to the host",
                "give an address, or choose another network",
            )
        found += [(name, gateway) for gateway in gateways]
    return found


def resolver(options: RunOptions, attached: Attached | None, warnings: list[str]) -> str:
    """The text of /etc/resolv.conf, made of the host's and of what was asked for."""
    asked = bool(options.dns or options.dns_search or options.dns_options)
    if not attached and not asked:
        if options.network == NONE:
            return "# There is no network but loopback, and no name server.\n"
        return read(_RESOLVER)
    hosts_own = Resolver()
    if options.network != NONE and not (attached and attached.internal):
        hosts_own = Resolver(read(_RESOLVER))
        if attached and not options.dns:
            hosts_own = _reachable(hosts_own, any(":" in address for address in attached.addresses))
    lines = [f"nameserver {address}\n" for address in options.dns or hosts_own.servers]
    if not lines:
        lines = [f"# {_no_server(attached, warnings)}\n"]
    search = [domain for domain in options.dns_search if domain != "."] if options.dns_search else hosts_own.search
    for word, values in (("search", search), ("options", options.dns_options or hosts_own.options)):
        if values:
            lines.append(f"{word} {' '.join(values)}\n")
    return "".join(lines)


class Resolver:
    """A resolv.conf, taken apart."""

    __slots__ = ("options", "search", "servers")

    def __init__(self, text: str = "") -> None:
        self.servers: list[str] = []
        self.search: list[str] = []
        self.options: list[str] = []
        for line in text.split("\n"):
            word, *values = line.split() or [""]
            if word == "nameserver" and values:
                self.servers.append(values[0])
            elif word in ("search", "domain"):  # the last one counts
                self.search = values
            elif word == "options":
                self.options += values


def _reachable(found: Resolver, ipv6: bool) -> Resolver:
    """The same, with those name servers that a container with its own network can reach."""
    if not found.servers:
        found.servers = ["127.0.0.1"]  # that is what an empty file means
    servers = [server for server in found.servers if _reaches(server, ipv6)]
    if not servers and not _STUBS.isdisjoint(found.servers) and (text := read(_BEHIND_STUB)):
        found = Resolver(text)
        servers = [server for server in found.servers if _reaches(server, ipv6)]
    found.servers = servers
    return found


def _reaches(server: str, ipv6: bool) -> bool:
    if ":" not in server:
        return not server.startswith(("127.", "0.")) and server != "0"
    packed = _packed(server)
    if packed.startswith(bytes(10) + b"\xff\xff"):  # an IPv4 address in the clothes of an IPv6 one
        return packed[12] not in (0, 127)
    # Neither the loopback address, nor one that is valid on one of the host's interfaces alone.
    return ipv6 and packed not in (bytes(16), bytes(15) + b"\1", b"") and packed[:2] < b"\xfe\x80"


def _packed(server: str) -> bytes:
    import _socket

    try:
        return _socket.inet_pton(_socket.AF_INET6, server)
    except (OSError, ValueError):  # with a zone, which is the name of an interface of the host's
        return b""


def _no_server(attached: Attached | None, warnings: list[str]) -> str:
    if not attached:
        return "There is no name server."
    if attached.internal:
        return "An internal network: no name server outside of it can be reached."
    said = "none of the host's name servers can be reached from the container, so it has none"
    warnings.append(f"{said} (--dns ADDRESS gives it one)")
    return f"{said[0].upper()}{said[1:]}."


def read(path: str) -> str:
    """The text of a file of the host, "" where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _LARGEST).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)
