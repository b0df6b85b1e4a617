"""The network of a container: which one, at which address, and what of it is published. Loaded only for those.

    ip link add v1 type veth peer name eth0 netns PID; nft add element inet tarbox ports { tcp . 80 : 10.2.0.2 . 80 }

What has to be had before a container can be planned, its addresses and the ports of the host, is taken here; the
kernel's part are steps. What was taken goes with this process, or by the journal.

man 4 veth, man 8 nft
"""

from __future__ import annotations

from ..errors import UnsupportedError, UsageError
from ..kernel.bridge import ConnectVeth
from ..kernel.forwarding import Forwarding
from ..networks import firewall, leases
from ..networks.addresses import packed, read, text
from ..networks.ports import exposed, reserve
from ..networks.routes import routes, uplink_mtu
from ..networks.steps import AddElements, MakeNetwork
from ..networks.store import Networks
from .options import HOST, NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..networks.definition import Network, Subnet
    from ..networks.ports import Reserved
    from ..plan.step import Step
    from ..spec.runtime import ImageConfig
    from .options import RunOptions
    from .roots import Roots

DEFAULT = "bridge"
_NET_ADMIN = 12  # CAP_NET_ADMIN, man 7 capabilities


def wanted(options: RunOptions, uid: int, capabilities: int) -> str:
    """The name of the network that a container is to be on, "" for none; raises UnsupportedError where it can't be.

    capabilities: this process's, as a mask.
    """
    if options.network in (NONE, HOST) or options.network.startswith("/"):
        return ""
    if uid:
        if not options.network and not options.ports and not options.publish_all:
            return ""  # the default of a plain user
        asked = f"--network {options.network}" if options.network else "-p"
        raise UnsupportedError(
            f"{asked}: a plain user may make no interface on the host, so his containers have only loopback",
            "leave it out, give --network host, or run tarbox as root",
        )
    if not capabilities >> _NET_ADMIN & 1:
        if not options.network and not options.ports and not options.publish_all:
            return ""
        raise UnsupportedError(
            "root without CAP_NET_ADMIN can't connect a container",
            "give the outer container that capability (--cap-add NET_ADMIN), or choose --network none or host",
        )
    return DEFAULT if options.network in ("", "default") else options.network


class Attached:
    """What a container has of a network.

    steps: what is made on the host before there is a process. connected: what is done once there is one. addresses: its
    own, as text. gateways: those of the network, as text. reserved: the ports of the host that were taken for it.
    """

    __slots__ = ("addresses", "connected", "gateways", "held", "network", "reserved", "steps", "warnings")

    def __init__(self, network: Network) -> None:
        self.network = network
        self.steps: list[Step] = []
        self.connected: list[Step] = []
        self.addresses: list[str] = []
        self.gateways: list[str] = []
        self.held: list[leases.Lease] = []
        self.reserved: Reserved | None = None
        self.warnings: list[str] = []

    def let_go(self) -> None:
        """Let go of the addresses: whoever takes things away by the journal may give them back."""
        while self.held:
            self.held.pop().close()

    def close(self) -> None:
        """Give everything back that was taken here."""
        for lease in self.held:
            lease.release()
        self.held = []
        if self.reserved:
            self.reserved.close()
            self.reserved = None


def attach(name: str, options: RunOptions, image: ImageConfig, id: str, roots: Roots, keep: bool) -> Attached:
    """Take what a container needs of the network by that name or id, and plan its connection.

    keep: whether addresses and ports are taken, or only told which they could be.
    """
    there = routes()
    networks = Networks(roots.data, roots.state)
    network = networks.default(there) if name == DEFAULT else networks.find(name)
    attached = Attached(network)
    try:
        _plan(attached, options, image, id, roots, keep)
    except BaseException:
        attached.close()
        raise
    return attached


def _plan(attached: Attached, options: RunOptions, image: ImageConfig, id: str, roots: Roots, keep: bool) -> None:
    network = attached.network
    published = [*options.ports, *(exposed(image, options.expose) if options.publish_all else ())]
    if published and network.internal:
        raise UsageError(
            f"network {network.name} is internal: nothing of it can be published",
            "leave -p out, or choose another network",
        )
    attached.reserved = reserve(published) if published and keep else None
    final = attached.reserved.ports if attached.reserved else published
    folder = f"{roots.state}/networks/{network.id}"
    own: list[tuple[Subnet, int]] = []
    for subnet, asked in ((network.v4, options.ip), (network.v6, options.ip6)):
        if subnet is None:
            if asked:
                version = "IPv4" if asked is options.ip else "IPv6"
                raise UsageError(f"network {network.name} has no {version} addresses, so {asked} can't be had")
            continue
        wish = read(asked)[1] if asked else None
        if keep:
            lease = leases.take(folder, subnet, f"container {id}\n", wish)
            attached.held.append(lease)
            own.append((subnet, lease.address))
        else:
            own.append((subnet, leases.next_free(folder, subnet, wish)))
    attached.addresses = [text(subnet.version, address) for subnet, address in own]
    attached.gateways = [text(subnet.version, subnet.gateway) for subnet, _ in own]
    mac = options.mac_address or _mac(own[0], id)
    veth = f"tv-{id[:12]}"
    if keep:
        lines = "".join(f"{line}\n" for line in (f"container {id}", f"mac {mac}", *(port.line() for port in final)))
        for lease in attached.held:
            lease.write(lines)
    table = firewall.name(roots.data)
    mtu = network.mtu or uplink_mtu()
    attached.steps = [
        MakeNetwork(
            network.bridge,
            tuple((packed(subnet.version, subnet.gateway), subnet.prefix) for subnet in network.subnets),
            mtu,
            network.v6 is not None,
            folder,
            table,
            tuple(lease.path for lease in attached.held),
        ),
        Forwarding(network.v6 is not None),
        AddElements(
            table,
            firewall.of_network(network),
            (*firewall.of_container(network, veth, mac, own), *firewall.of_ports(final, own)),
            f"{roots.state}/networks",
        ),
    ]
    addresses = tuple((packed(subnet.version, address), subnet.prefix) for subnet, address in own)
    gateways = () if network.internal else tuple(packed(subnet.version, subnet.gateway) for subnet, _ in own)
    hardware = bytes.fromhex(mac.replace(":", ""))
    attached.connected = [ConnectVeth(network.bridge, veth, hardware, addresses, gateways, mtu, hairpin=True)]


def _mac(own: tuple[Subnet, int], id: str) -> str:
    """An address of the link that is the container's as long as its IP address is, so that no neighbour errs."""
    subnet, address = own
    last = packed(4, address) if subnet.version == 4 else bytes.fromhex(id[:8])
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + last)
