"""Network interfaces: a new network namespace has one, `lo`, and it is down.

    ip link set lo up

man 7 netdevice, man 7 network_namespaces
"""

from __future__ import annotations

from errno import EPERM

from ..errors import KernelError, UnsupportedError
from ..plan.step import RUNNER, Register, Row, Slots, Step
from .runner import Await

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

_AF_UNIX, _SOCK_DGRAM, _SOCK_CLOEXEC = 1, 2, 0o2000000  # any socket of the namespace will do
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class LoopbackUp(Step):
    """Bring the loopback interface up."""

    __slots__ = ()

    phase = "namespaces"
    why = "a new network namespace has nothing but lo, and that is down; 127.0.0.1 works only once it is up"
    man = "netdevice(7), network_namespaces(7)"

    def __init__(self, by: str = RUNNER) -> None:
        super().__init__(by)

    def rows(self, slots: Slots) -> list[Row]:
        """By the older way, whose answer is an errno: a netlink message is answered by another message."""
        wanted = b"lo".ljust(16, b"\0") + _IFF_UP.to_bytes(2, "little") + bytes(22)  # struct ifreq
        return [
            Row("socket", (_AF_UNIX, _SOCK_DGRAM | _SOCK_CLOEXEC, 0), store=2),
            Row("ioctl", (Register(2), _SIOCSIFFLAGS, wanted)),
        ]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        if errno == EPERM:
            return UnsupportedError(
                "root without CAP_NET_ADMIN can't bring up the loopback of a new network namespace",
                "give the outer container that capability with --cap-add NET_ADMIN, or share the host's network",
            )
        return KernelError("ioctl", ("SIOCSIFFLAGS", "lo"), errno)

    def call(self) -> str:
        return 'ioctl(socket, SIOCSIFFLAGS, {"lo", IFF_UP})'

    def shell(self) -> str:
        return "ip link set lo up"


class AwaitNetwork(Await):
    """Wait until the process outside has connected the network namespace."""

    __slots__ = ()

    phase = "privileges"
    why = "what was mounted meanwhile didn't need the network; the program may, from its first instruction on"

    def shell(self) -> str:
        return ":"
