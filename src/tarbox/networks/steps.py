"""What is made on the host for a network, while a container is on it.

    the bridge            made with the first container, gone with the last
    rules                 one table for each family, of which a container adds elements to sets and maps

Both are made under one lock, under which the last container's end takes them away (`teardown.py`): whoever has an
address leased before finds them there, or makes them.

man 8 bridge, man 8 nft
"""

from __future__ import annotations

from ..kernel.bridge import MakeBridge
from ..kernel.forwarding import Forwarding, forwards
from ..plan.step import PARENT, Slots, Step
from ..unistd import os
from . import firewall, leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .firewall import Element


class MakeNetwork(MakeBridge):
    """Make the bridge of a network, or make one that is there so.

    folder: where the network's addresses are leased. table: the name of the rules. held: the files of the addresses
    that the container has leased.
    """

    __slots__ = ("folder", "held", "table")

    def __init__(
        self,
        name: str,
        addresses: tuple[tuple[bytes, int], ...],
        mtu: int,
        ipv6: bool,
        folder: str,
        table: str,
        held: tuple[str, ...],
    ) -> None:
        super().__init__(name, addresses, mtu, ipv6)
        self.folder = folder
        self.table = table
        self.held = held

    def apply(self, slots: Slots) -> None:
        with leases.Locked(os.path.dirname(self.folder), make=True):
            super().apply(slots)

    def record(self) -> tuple[tuple[str, str], ...]:
        network = ("network", f"{self.name} {self.table} {self.folder}")
        return (network, *(("lease", path) for path in self.held))


class AddElements(Step):
    """Let the rules know of the network, of the container and of its published ports.

    table: the name of the rules, in all families. network: elements that stay as long as the network is there. own:
    those that go with the container. folder: of all networks' state. cache: for what can be computed again.
    """

    __slots__ = ("cache", "folder", "network", "own", "table")

    phase = "host"
    why = "rules are the same for all; a container or a published port is one more element of what they look up"
    man = "nft(8)"

    def __init__(
        self, table: str, network: tuple[Element, ...], own: tuple[Element, ...], folder: str, cache: str = ""
    ) -> None:
        super().__init__(PARENT)
        self.table = table
        self.network = network
        self.own = own
        self.folder = folder
        self.cache = cache

    def apply(self, slots: Slots) -> None:
        with leases.Locked(self.folder, make=True):
            made = firewall.add(self.table, (*self.network, *self.own), self.folder, self.cache)
        if made:
            from .barriers import found

            slots.warnings += found((*self.network, *self.own))

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("elements", f"{self.table} {firewall.written(self.own)}"),)

    def call(self) -> str:
        return f"send(NFT_MSG_NEWSETELEM {', '.join(map(str, (*self.network, *self.own)))})"

    def shell(self) -> str:
        return "; ".join(firewall.adding(self.table, (*self.network, *self.own)))


class Forward(Forwarding):
    """Have the machine forward packets, of containers alone where it didn't before.

    table: the name of the rules, which are there. bridge: the network's. folder: of all networks' state.
    """

    __slots__ = ("bridge", "folder", "table")

    def __init__(self, ipv6: bool, table: str, bridge: str, folder: str) -> None:
        super().__init__(ipv6)
        self.table = table
        self.bridge = bridge
        self.folder = folder

    def apply(self, slots: Slots) -> None:
        if forwards(4) and (not self.ipv6 or forwards(6)):
            return
        from . import router

        with leases.Locked(self.folder, make=True):
            router.begin(self.folder, self.table, self.ipv6)

    def shell(self) -> str:
        from . import router

        return router.shell(self.table, self.bridge, super().shell(), self.ipv6)
