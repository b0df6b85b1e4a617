"""setns: into namespaces that are there already, of some kinds and not of others.

    nsenter --target PID --net --uts COMMAND        nsenter --net=/run/netns/blue COMMAND

A process moves itself, at once, into any kind but one: a PID namespace takes only those who are born in it. So the
runner makes a child there, which goes on, and ends. Before that it lets go of what it has open, and enters the root of
the target, if it is to: whoever is in there already sees the child from its first moment, and may be hostile.

man 2 setns, man 7 namespaces, man 2 clone (CLONE_PARENT), man 2 F_SETOWN
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM, EPERM

from ..errors import KernelError, UnsupportedError
from ..plan.step import RUNNER, Register, Row, Slots, Step
from .namespaces import FLAGS, SHOWN
from .processes import LINKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

ROOT, BIRTH = "target root", "birth"
_CLONE_PARENT, _SIGCHLD = 0x8000, 17
_F_SETOWN = 8


def slot_of(kind: str) -> str:
    """The slot in which the descriptor of the namespace of this kind is."""
    return f"{kind} namespace"


class Join(Step):
    """Move into the namespace of this kind that is in its slot; into a PID namespace only later children are born."""

    __slots__ = ("kind",)

    phase = "namespaces"
    why = "it shares this one with who is in it already, and keeps its own of the other kinds"
    man = "setns(2)"

    def __init__(self, kind: str) -> None:
        super().__init__(RUNNER)
        self.kind = kind

    def takes(self) -> tuple[str, ...]:
        return (slot_of(self.kind),)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("setns", (slots.take(slot_of(self.kind)), FLAGS[self.kind]))]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        below = "only a PID namespace below one's own can be entered" if self.kind == "pid" else ""
        hint = {
            EPERM: "it takes root in the user namespace that owns it: for one of your own add --user",
            EINVAL: below,
        }.get(errno, "")
        return KernelError("setns", (SHOWN[self.kind],), errno, hint)

    def call(self) -> str:
        return f"setns({self.kind}, {SHOWN[self.kind]})"

    def shell(self) -> str:
        return f"nsenter --{LINKS[self.kind].replace('mnt', 'mount')}=/proc/$PID/ns/{LINKS[self.kind]} sh"


class EnterRoot(Step):
    """Make the root of the target's the root, in whose mount namespace this process is by now."""

    __slots__ = ()

    phase = "root"
    why = "joining a mount namespace leads to its uppermost root; the target's may be another one"
    man = "chroot(2)"

    def __init__(self) -> None:
        super().__init__(RUNNER)

    def takes(self) -> tuple[str, ...]:
        return (ROOT,)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("fchdir", (slots.take(ROOT),)), Row("chroot", (b".",)), Row("chdir", (b"/",))]

    def call(self) -> str:
        return 'fchdir("/proc/PID/root"), chroot("."), chdir("/")'

    def shell(self) -> str:
        return "nsenter --target $PID --mount --root sh"


class BeBorn(Step):
    """Go on as a child, which is born in the PID namespace that was joined; its parent is the command that waits.

    The process that was the runner until then tells the child's number by the descriptor in the slot "birth", and
    ends. keeps: further slots that stay open in the child; all others are closed before there is one.
    """

    __slots__ = ("keeps",)

    phase = "namespaces"
    why = "a PID namespace takes only who is born in it; nothing of ours is open then, for whoever looks from inside"
    man = "clone(2), pid_namespaces(7)"

    def __init__(self, keeps: tuple[str, ...] = ()) -> None:
        super().__init__(RUNNER)
        self.keeps = keeps

    def takes(self) -> tuple[str, ...]:
        return (BIRTH, *self.keeps)

    def closes_but(self) -> tuple[str, ...]:
        return self.takes()

    def rows(self, slots: Slots) -> list[Row]:
        """Two processes come out of the second row; that one can't open 0 tells the child from its parent."""
        child, birth = Register(4), slots.take(BIRTH)
        return [
            Row("clone", (_CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0), "clone(CLONE_PARENT|SIGCHLD)", store=4),
            Row("pidfd_open", (child, 0), on=((EINVAL, 2),)),
            Row("fcntl", (birth, _F_SETOWN, child)),
            Row("exit_group", (0,)),
            Row("close", (birth,)),
        ]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        if errno == ENOMEM:
            return UnsupportedError(
                "that PID namespace has ended: its process 1 is gone, and nobody is born there any more"
            )
        return KernelError("clone", ("CLONE_PARENT|SIGCHLD",), errno)

    def call(self) -> str:
        return "close_range(…), clone(CLONE_PARENT|SIGCHLD), exit_group(0) in the parent"

    def shell(self) -> str:
        return "nsenter --target $PID --pid sh"
