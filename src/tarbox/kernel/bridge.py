"""A bridge: a switch in the kernel; a pair of veth interfaces: the cable from it into a container.

    ip link add box0 address 02:74:0a:00:00:01 type bridge
    ip address add 10.0.0.1/24 dev box0; ip link set box0 up
    ip link add v1 master box0 up type veth peer name eth0 netns PID

A frame that comes in by one port leaves by the one behind which its destination is. The bridge is an interface of the
host as well, so that the host can have an address there, and be the router of everybody behind it. A veth pair ends
when the network namespace of either end does.

man 8 bridge, man 4 veth, man 7 rtnetlink
"""

from __future__ import annotations

from errno import EEXIST, ENODEV, ENOENT, EOPNOTSUPP, ESRCH

from ..errors import KernelError, ProcessNotFoundError, UnsupportedError, UsageError
from ..plan.step import PARENT, Slots, Step
from . import links
from .addresses import shown
from .netlink import Message, Netlink, NetlinkError, visit
from .sysctl import ensure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .links import Link

ALIAS = "tarbox"  # the word by which a bridge of ours is known; others may follow it
INSIDE = "eth0"
_IPV4, _IPV6 = "/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"


class MakeBridge(Step):
    """Make a bridge that is up and has these addresses, or make one that is there so.

    addresses: (address as bytes, bits of the network) each. mtu: 0 for the usual. ipv6: whether its network has IPv6.
    """

    __slots__ = ("addresses", "ipv6", "mtu", "name")

    phase = "host"
    why = "a switch, to which containers of one network are plugged; with an address the host is their router"
    man = "bridge(8)"

    def __init__(self, name: str, addresses: tuple[tuple[bytes, int], ...], mtu: int = 0, ipv6: bool = False) -> None:
        super().__init__(PARENT)
        self.name = name
        self.addresses = addresses
        self.mtu = mtu
        self.ipv6 = ipv6

    def apply(self, slots: Slots) -> None:
        with Netlink() as socket:
            bridge = links.link(socket, self.name) or self._made(socket)
            self._check(bridge)
            for path, value in self._settings():
                _ensure(path, value)
            socket.send(self._missing(bridge))

    def _made(self, socket: Netlink) -> Link:
        try:
            socket.send([links.bridge(self.name, self.mtu, mac(self.addresses)), links.set_alias(self.name, ALIAS)])
        except NetlinkError as error:
            if error.errno != EEXIST:  # another command was faster
                raise unsupported(error, "bridges", "CONFIG_BRIDGE") from None
        made = links.link(socket, self.name)
        if made is None:
            raise KernelError("RTM_GETLINK", (self.name,), ENODEV, "somebody removed it as soon as it was made")
        return made

    def _check(self, bridge: Link) -> None:
        # Another command, between making it and giving it the remark, has given it this address.
        begun = not bridge.alias and bridge.mac == mac(self.addresses)
        if bridge.kind != "bridge" or (bridge.alias.partition(" ")[0] != ALIAS and not begun):
            what = bridge.alias or bridge.kind or "hardware"
            raise UsageError(
                f"there is an interface {self.name} already that isn't a bridge of tarbox's ({what})",
                f"see 'ip -d link show {self.name}'; choose another name for the network's bridge",
            )

    def _settings(self) -> list[tuple[str, str]]:
        """Before it is up: what the kernel would do by itself with IPv6, and loopback ports that are published."""
        # Looking whether somebody has its address takes a second or two, in which it would find no neighbours.
        sure = [(f"{_IPV6}/{self.name}/accept_dad", "0")] if self.ipv6 else []
        return [
            *sure,
            (f"{_IPV6}/{self.name}/disable_ipv6", "0" if self.ipv6 else "1"),
            (f"{_IPV6}/{self.name}/accept_ra", "0"),
            (f"{_IPV4}/{self.name}/route_localnet", "1"),
        ]

    def _missing(self, bridge: Link) -> list[Message]:
        requests = [links.address(bridge.index, ip, prefix) for ip, prefix in self.addresses]
        if bridge.alias != ALIAS:
            requests.append(links.set_alias(bridge.index, ALIAS))
        if self.mtu and bridge.mtu != self.mtu:
            requests.append(links.set_mtu(bridge.index, self.mtu))
        return requests if bridge.flags & links.UP else [*requests, links.set_up(bridge.index)]

    def call(self) -> str:
        given = "".join(f", RTM_NEWADDR {_shown(ip, prefix)}" for ip, prefix in self.addresses)
        return f'send(RTM_NEWLINK "{self.name}" bridge{given}), write("{_IPV4}/{self.name}/route_localnet", "1")'

    def shell(self) -> str:
        name, hardware = self.name, mac(self.addresses).hex(":")
        made = f"ip link add {name}{f' address {hardware}' if hardware else ''}{_mtu(self.mtu)} type bridge"
        lines = [f"ip link show {name} >/dev/null 2>&1 || {made}", f"ip link set {name} alias {ALIAS}"]
        lines += [_written(path, value) for path, value in self._settings()]
        lines += [f"ip address replace {_shown(ip, prefix)} dev {name}{_nodad(ip)}" for ip, prefix in self.addresses]
        return "; ".join([*lines, f"ip link set {name}{_mtu(self.mtu)} up"])


class ConnectVeth(Step):
    """Plug the container into a bridge, and give its end addresses and a way out.

    name: our end's. mac: of the other one, `eth0`, or b"" for any. addresses: (address as bytes, bits of the network)
    each. gateways: at most one of each family. namespace: the slot with the container's network namespace, or with its
    first process ("pidfd"). hairpin, isolated: see `links.port`.
    """

    __slots__ = ("addresses", "bridge", "gateways", "hairpin", "isolated", "mac", "mtu", "name", "namespace")

    phase = "namespaces"
    why = "a cable with one end in the container, called eth0, and the other one a port of the bridge"
    man = "veth(4)"

    def __init__(
        self,
        bridge: str,
        name: str,
        mac: bytes,
        addresses: tuple[tuple[bytes, int], ...],
        gateways: tuple[bytes, ...] = (),
        mtu: int = 0,
        namespace: str = "pidfd",
        hairpin: bool = False,
        isolated: bool = False,
    ) -> None:
        super().__init__(PARENT)
        self.bridge = bridge
        self.name = name
        self.mac = mac
        self.addresses = addresses
        self.gateways = gateways
        self.mtu = mtu
        self.namespace = namespace
        self.hairpin = hairpin
        self.isolated = isolated

    def takes(self) -> tuple[str, ...]:
        return (self.namespace,)

    def uses(self) -> tuple[str, ...]:
        return ("pid",) if self.namespace == "pidfd" else ()

    def apply(self, slots: Slots) -> None:
        held = slots.take(self.namespace)
        with Netlink() as socket:
            self._plug(socket, held, slots)
        inside: list[Netlink] = []  # whatever fails on the way back, it is closed
        try:
            index = visit(held, lambda: self._inside(inside))
            inside[0].send(
                [
                    *(links.address(index, ip, prefix) for ip, prefix in self.addresses),
                    links.set_up(index),
                    *(links.default_route(gateway, index) for gateway in self.gateways),
                ]
            )
        finally:
            for socket in inside:
                socket.close()

    def _plug(self, socket: Netlink, held: int, slots: Slots) -> None:
        master = links.index_of(socket, self.bridge)
        if not master:
            raise KernelError("RTM_GETLINK", (self.bridge,), ENODEV, "somebody removed the network's bridge")
        # The number is our own child's: it can't be another process's before we have waited for it.
        process = int(str(slots.found["pid"])) if self.namespace == "pidfd" else 0
        namespace = -1 if process else held
        try:
            socket.send(
                [
                    links.veth(self.name, INSIDE, namespace, process, master, self.mac, self.mtu),
                    links.port(self.name, self.hairpin, self.isolated),
                ]
            )
        except NetlinkError as error:
            if error.errno == ESRCH and process:
                raise ProcessNotFoundError("the container's first process ended before it had a network") from None
            raise unsupported(error, "veth interfaces", "CONFIG_VETH") from None

    def _inside(self, sockets: list[Netlink]) -> int:
        """In the container's namespace: the interface's index; it is told how to take IPv6.

        sockets: takes one that was made there.
        """
        sockets.append(Netlink())
        for path, value in self._settings():
            _ensure(path, value)
        return links.index_of(sockets[0], INSIDE)

    def _settings(self) -> tuple[tuple[str, str], ...]:
        if any(len(ip) > 4 for ip, _ in self.addresses):
            return ((f"{_IPV6}/{INSIDE}/accept_ra", "0"), (f"{_IPV6}/{INSIDE}/accept_dad", "0"))
        return ((f"{_IPV6}/{INSIDE}/disable_ipv6", "1"),)

    def call(self) -> str:
        given = "".join(f", RTM_NEWADDR {_shown(ip, prefix)}" for ip, prefix in self.addresses)
        out = "".join(f", RTM_NEWROUTE default via {shown(gateway)}" for gateway in self.gateways)
        plug = f'send(RTM_NEWLINK "{self.name}" veth, master "{self.bridge}", peer "{INSIDE}" in the container)'
        return f"{plug}, setns(network), send(RTM_NEWLINK {INSIDE} up{given}{out})"

    def shell(self) -> str:
        """Done from outside, where $process is the container's first process; the first command is one inside."""
        there = 'nsenter --net="/proc/$process/ns/net" '
        address = f" address {self.mac.hex(':')}" if self.mac else ""
        size = _mtu(self.mtu)
        options = "".join(f" {option} on" for option in ("hairpin", "isolated") if getattr(self, option))
        lines = [
            f"{there}ip link add {INSIDE}{address}{size} type veth peer name {self.name}{size} netns $$",
            f"ip link set {self.name} addrgenmode none up",
            f"ip link set {self.name} master {self.bridge}",
            *([f"ip link set {self.name} type bridge_slave{options}"] if options else []),
            *(f"{there}sh -c {_quoted(_written(path, value))}" for path, value in self._settings()),
            *(f"{there}ip address add {_shown(ip, prefix)} dev {INSIDE}{_nodad(ip)}"
              for ip, prefix in self.addresses),
            f"{there}ip link set {INSIDE} up",
            *(f"{there}ip {'-6 ' if len(gateway) > 4 else ''}route add default via {shown(gateway)} dev {INSIDE}"
              for gateway in self.gateways),
        ]  # fmt: skip
        return "; ".join(lines)


def mac(addresses: tuple[tuple[bytes, int], ...]) -> bytes:
    """A bridge's own address: always the same one, made of its first internet address; b"" where it has none.

    Without one of its own a bridge takes that of a port, and another when that goes; those behind it would lose it.
    """
    return b"\x02\x74" + addresses[0][0][-4:] if addresses else b""


def unsupported(error: NetlinkError, what: str, option: str) -> KernelError | UnsupportedError:
    """The error to raise: a kind of interface that the kernel lacks is named by its option."""
    if error.errno == EOPNOTSUPP:
        return UnsupportedError(f"this kernel has no {what}", f"they are {option} in its configuration")
    return error


def _ensure(path: str, value: str) -> None:
    """Have a setting of an interface; a machine without IPv6 has none of that, nor needs it off."""
    try:
        ensure(path, value)
    except KernelError as error:
        if error.errno != ENOENT or not path.startswith(_IPV6) or (path.endswith("disable_ipv6") and value == "0"):
            raise


def _written(path: str, value: str) -> str:
    return f"[ ! -e {path} ] || echo {value} > {path}"


def _quoted(text: str) -> str:
    from ..plan.shell import quote

    return quote(text)


def _shown(ip: bytes, prefix: int) -> str:
    return f"{shown(ip)}/{prefix}"


def _nodad(ip: bytes) -> str:
    return " nodad" if len(ip) > 4 else ""


def _mtu(mtu: int) -> str:
    return f" mtu {mtu}" if mtu else ""
