"""A plan for entering what is there: chosen namespaces of a process, of a container, or lasting ones.

    nsenter --target PID --net --pid … COMMAND

No Python goes in: the runner joins, so that nobody inside ever sees the host's interpreter, and all that was opened is
closed before anybody inside can see the process at all.

man 1 nsenter, man 2 setns
"""

from __future__ import annotations

from ..kernel.chroot import ChangeDirectory
from ..kernel.credentials import Credentials
from ..kernel.mounts import PrivateMounts
from ..kernel.namespaces import DieWithParent, Spawn, Unshare
from ..kernel.proc_mount import MountProc
from ..kernel.runner import CloseDescriptors, DeathSignal
from ..kernel.setns import BeBorn, EnterRoot, Join, slot_of
from ..kernel.signals import PYTHONS, DefaultSignals
from ..plan.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..kernel.program import Execute
    from ..plan.step import Step

_ORDER = ("cgroup", "ipc", "uts", "network", "time")


class Entry:
    """What is entered.

    kinds: the OCI names of the namespaces to join. root: the target's root becomes the root, in its mount namespace.
    view: a mount namespace like the caller's with the target's /proc in it, for looking at it with the caller's tools.
    plain: the caller is a plain user, whose rights come from the user namespace. ids: (user, group) to become in a
    user namespace, None to stay who one is; setgroups: whether other groups can be given up there. directory: where
    the command starts, "" for where it is by then.
    """

    __slots__ = ("directory", "ids", "kinds", "plain", "root", "setgroups", "view")

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = tuple(kinds)
        self.root = False
        self.view = False
        self.plain = False
        self.ids: tuple[int, int] | None = None
        self.setgroups = True
        self.directory = ""


def plan(entry: Entry, program: Execute, mask: bytes = bytes(8), given: Sequence[str] = ()) -> Plan:
    """The plan of a command that enters it. given: the slots that are filled, those of the namespaces among them."""
    user = [Join("user")] if "user" in entry.kinds else []
    late = [] if entry.plain else user
    steps: list[Step] = [DieWithParent()]
    if entry.plain:
        steps += user
    if entry.view:
        steps += [Unshare(("mount",)), PrivateMounts()]
    steps += [Join(kind) for kind in _ORDER if kind in entry.kinds]
    if "mount" in entry.kinds:
        steps.append(Join("mount"))
    if entry.root:
        steps.append(EnterRoot())
    if "pid" in entry.kinds:
        steps += [Join("pid"), BeBorn(tuple(slot_of("user") for _ in late))]
        if entry.view:
            steps.append(MountProc())
    steps += late  # root's rights on the machine are given up last
    if entry.ids:
        steps.append(Credentials(*entry.ids, (), setgroups=entry.setgroups))
    if entry.directory:
        steps.append(ChangeDirectory(entry.directory))
    steps += [DefaultSignals(PYTHONS, mask), DeathSignal(), CloseDescriptors(), program]
    return Plan([Spawn(()), *steps], given)
