"""The network of a container: which one, at which address, and what of it is published. Loaded only for those.

    ip link add v1 type veth peer name eth0 netns PID; nft add element inet tarbox ports { tcp . 80 : 10.2.0.2 . 80 }

What has to be had before a container can be planned, its addresses and the ports of the host, is taken here; the
kernel's part are steps. The ports go with this process. A journal says beforehand on which network addresses will be
taken; that of the plan, which says which ones, takes its place.

man 4 veth, man 8 nft
"""

from __future__ import annotations

from errno import EACCES, ENOENT, EPERM, EROFS

from ..errors import KernelError, NetworkNotFoundError, UnsupportedError, UsageError
from ..kernel.bridge import ConnectVeth
from ..networks import firewall, leases
from ..networks.addresses import packed, read, text
from ..networks.routes import uplink_mtu
from ..networks.steps import AddElements, Forward, MakeNetwork
from ..networks.store import DEFAULT, Networks
from ..plan.journal import Journal
from ..unistd import os
from . import names
from .undo import UNDO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..networks.definition import Network, Subnet
    from ..networks.leases import Lease
    from ..networks.ports import Port
    from ..networks.reservation import Reserved
    from ..plan.step import Step
    from ..spec.runtime import ImageConfig
    from .options import RunOptions
    from .roots import Roots

_NET_ADMIN = 12  # CAP_NET_ADMIN, man 7 capabilities
_SETTING = "/proc/sys/net/ipv4/ip_forward"  # one of those that a bridge needs


def wanted(options: RunOptions, uid: int, capabilities: int, warnings: list[str]) -> str:
    """The name of the network that a container is to be on, "" for none; raises UnsupportedError where it can't be.

    capabilities: this process's, as a mask. Where nothing was asked for, why there is none is told in `warnings`.
    """
    asked = f"--network {options.network}" if options.network else "-p" if _publishes(options) else ""
    if uid:
        if not asked:
            return ""  # the default of a plain user
        raise UnsupportedError(
            f"{asked}: a plain user may make no interface on the host, so his containers have only loopback",
            "leave it out, give --network host, or run tarbox as root",
        )
    if options.userns.startswith("join "):
        if not asked:
            return ""
        raise UnsupportedError(
            f"{asked}: in a joined user namespace a container's network would be the host's own, and closed to it",
            "leave it out, or join the network as well: --network container:ID or pid:N",
        )
    lacking, remedy = _lacking(capabilities)
    if not lacking:
        return options.network or DEFAULT[0]
    if asked:
        raise UnsupportedError(f"{asked}: {lacking}", f"{remedy}, or choose --network none or host")
    if capabilities >> _NET_ADMIN & 1:  # else the loopback is down as well: `down`
        warnings.append(
            f"the container has no network but its loopback: {lacking} ({remedy}, or choose --network host)"
        )
    return ""


def down() -> str:
    """What the user has to know of a container whose loopback is down."""
    return (
        "the container has no network, and its loopback is down: root without CAP_NET_ADMIN can't change interfaces"
        " (give the outer container that capability with --cap-add NET_ADMIN, or choose --network host)"
    )


def _publishes(options: RunOptions) -> bool:
    return bool(options.ports) or options.publish_all


def _lacking(capabilities: int) -> tuple[str, str]:
    """Why root can't connect a container, and what would help; ("", "") where it can."""
    if not capabilities >> _NET_ADMIN & 1:
        return (
            "root without CAP_NET_ADMIN can't connect a container",
            "give the outer container that capability with --cap-add NET_ADMIN",
        )
    try:
        os.close(os.open(_SETTING, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (EACCES, EPERM):
            return (
                "the network namespace isn't this root's: it belongs to another user namespace",
                "make one as well (unshare --net), or run tarbox as the machine's root",
            )
        if error.errno == EROFS:
            return (
                "/proc/sys is mounted read-only, so there can be neither a bridge nor forwarding",
                "run the outer container with --privileged",
            )
        if error.errno == ENOENT:
            return (f"there is no {_SETTING}, so there can be neither a bridge nor forwarding", "mount /proc")
        raise KernelError("open", (_SETTING,), error.errno or 0) from None
    return "", ""


class Attached(names.Attached):
    """What a container has of a network.

    end: the name of the host's end of its cable. steps: what is made on the host before there is a process. connected:
    what is done once there is one. reserved: the ports of the host that were taken for it. journal: of the addresses,
    until whoever carries out the plan takes it over.
    """

    __slots__ = ("connected", "end", "held", "journal", "network", "reserved", "steps")

    def __init__(self, network: Network) -> None:
        super().__init__((), (), network.internal)
        self.network = network
        self.end = ""
        self.steps: list[Step] = []
        self.connected: list[Step] = []
        self.held: list[Lease] = []
        self.reserved: Reserved | None = None
        self.journal: Journal | None = None

    def let_go(self) -> None:
        """Let go of the addresses: whoever takes things away by the journal gives them back."""
        while self.held:
            os.close(self.held.pop().descriptor)

    def close(self) -> None:
        """Give everything back that was taken here."""
        self.let_go()
        if self.journal:  # there was no container: nobody else will do it
            self.journal.clean()  # what can't be done now stays in it
            self.journal = None
        if self.reserved:
            self.reserved.close()
            self.reserved = None


def attach(
    name: str, options: RunOptions, image: ImageConfig, id: str, roots: Roots, keep: bool, warnings: list[str]
) -> Attached:
    """Take what a container needs of the network by that name or id, and plan its connection.

    keep: whether addresses and ports are taken, or only told which they could be.
    """
    networks = Networks(roots.data, roots.state)
    network = networks.default(keep) if name in DEFAULT else _found(networks, name)
    attached = Attached(network)
    try:
        if keep:
            attached.journal = Journal(roots.journals[0], id, UNDO)
            folder = networks.leases(network)
            attached.journal.write([("leases", f"{network.bridge} {firewall.name(roots.data)} {folder}")])
        ports = _ports(attached, options, image, keep, warnings) if options.ports or options.publish_all else []
        own = _addresses(attached, networks, options, id, keep)
        _plan(attached, own, ports, options, id, roots)
    except BaseException:
        attached.close()
        raise
    return attached


def _found(networks: Networks, name: str) -> Network:
    try:
        return networks.find(name)
    except NetworkNotFoundError as error:
        from .networks import hinted

        raise hinted(error) from None


def _ports(attached: Attached, options: RunOptions, image: ImageConfig, keep: bool, warnings: list[str]) -> list[Port]:
    """What is to be published, taken on the host if it is to be kept."""
    from ..networks.reservation import reserve
    from .publishing import published

    ports = published(options, image, warnings)
    if ports and attached.internal:
        raise UsageError(
            f"the network {attached.network.name} is internal: nothing of it can be published",
            "leave -p out, or choose another network",
        )
    if ports and keep:
        attached.reserved = reserve(ports)
        return attached.reserved.ports
    return ports


def _addresses(
    attached: Attached, networks: Networks, options: RunOptions, id: str, keep: bool
) -> list[tuple[Subnet, int]]:
    """The container's address in each subnet of its network, taken if they are to be kept."""
    network = attached.network
    own = []
    for version, subnet, asked in ((4, network.v4, options.ip), (6, network.v6, options.ip6)):
        if subnet is None:
            if asked:
                raise UsageError(
                    f"the network {network.name} has no IPv{version}, so its container can't have {asked}",
                    "'tarbox network create --ipv6 NAME' makes one that has" if version == 6 else "",
                )
            continue
        wish = read(asked)[1] if asked else None
        if keep:
            lease = networks.lease(network, subnet, f"container {id}\n", wish)
            attached.held.append(lease)
            own.append((subnet, lease.address))
        else:
            own.append((subnet, leases.would_be(networks.leases(network), subnet, wish, network.name)))
    attached.addresses = tuple(text(subnet.version, address) for subnet, address in own)
    attached.gateways = tuple(text(subnet.version, subnet.gateway) for subnet, _ in own)
    return own


def _plan(
    attached: Attached,
    own: list[tuple[Subnet, int]],
    ports: list[Port],
    options: RunOptions,
    id: str,
    roots: Roots,
) -> None:
    network = attached.network
    mac = options.mac_address or _mac(own[0], id)
    state = f"{roots.state}/networks"
    table = firewall.name(roots.data)
    end = attached.end = firewall.end_of(table, id)
    mtu = network.mtu or uplink_mtu()
    gateways = tuple((packed(subnet.version, subnet.gateway), subnet.prefix) for subnet, _ in own)
    six = network.v6 is not None
    held = tuple(lease.path for lease in attached.held)
    shared = firewall.of_network(network)
    elements = (*firewall.of_container(network.bridge, end, mac, own), *firewall.of_ports(ports, own))
    lines = (f"container {id}", f"mac {mac}", *(f"port {port.host()} {port.container}" for port in ports))
    for lease in attached.held:
        lease.note("".join(f"{line}\n" for line in lines) + firewall.noted((*shared, *elements)))
    attached.steps = [
        MakeNetwork(network.bridge, gateways, mtu, six, f"{state}/{network.id}", table, held),
        AddElements(table, shared, elements, state),
        Forward(six, table, network.bridge, state),
    ]
    addresses = tuple((packed(subnet.version, address), subnet.prefix) for subnet, address in own)
    ways = () if network.internal else tuple(gateway for gateway, _ in gateways)
    hardware = bytes.fromhex(mac.replace(":", ""))
    attached.connected = [ConnectVeth(network.bridge, end, hardware, addresses, ways, mtu, hairpin=True)]


def _mac(own: tuple[Subnet, int], id: str) -> str:
    """An address of the link that is the container's as long as its IP address is, so that no neighbour errs."""
    subnet, address = own
    last = packed(4, address) if subnet.version == 4 else bytes.fromhex(id[:8])
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + last)
