"""The parts of a container for a plain command: each alone or some together, and nothing that wasn't asked for.

    unshare --uts --net … sh -c 'mount …; exec setpriv … COMMAND'

`planner.py` makes a whole container of an OCI config; this makes a plan of any of the same steps for a command that
otherwise stays what it is: its files, environment, terminal, rights and open descriptors are the caller's.

man 7 namespaces
"""

from __future__ import annotations

from ..kernel.capabilities import WHOLE, BoundingSet, Capabilities
from ..kernel.credentials import Credentials, LookUpUser
from ..kernel.interfaces import LoopbackUp
from ..kernel.mount_points import AttachTree, FindPlace, MakeFilesystem, MountFilesystem
from ..kernel.mounts import OpenTree, PrivateMounts
from ..kernel.namespaces import DieWithParent, Spawn, Unshare
from ..kernel.no_new_privs import NoNewPrivileges
from ..kernel.pivot_root import AttachRoot, Enter, FindDirectory, PivotRoot, ReadOnlyRoot
from ..kernel.runner import DeathSignal
from ..kernel.seccomp import LoadSeccomp
from ..kernel.signals import PYTHONS, DefaultSignals
from ..kernel.sysctl import WriteSetting
from ..kernel.uts import DomainName, HostName
from ..plan.plan import Plan
from ..plan.step import PARENT, RUNNER
from .mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..kernel.program import Execute
    from ..plan.step import Step
    from ..spec.runtime import Mount

_PROC = ("nosuid", "nodev", "noexec")


class Rights:
    """What the command may do, each a set of capabilities as a number.

    bounding: what it can ever have, of `held`, what this process can. permitted, inheritable, ambient: what it has now;
    permitted is None where that is left to the change of user.
    """

    __slots__ = ("ambient", "bounding", "held", "inheritable", "permitted")

    def __init__(
        self, bounding: int, held: int = WHOLE, permitted: int | None = None, inheritable: int = 0, ambient: int = 0
    ) -> None:
        self.bounding = bounding
        self.held = held
        self.permitted = permitted
        self.inheritable = inheritable
        self.ambient = ambient


class Parts:
    """What was asked for; all of it is empty at first.

    namespaces: new ones, by OCI name. ids: the step that enters a user namespace before all else, for a plain user;
    None where it comes with the new process. hostname, domainname, settings: of those namespaces. groups, limits:
    steps. image: the steps that give the slot "tree", the new root; with `mounts` there must be some. own_root: whether
    that is another root than the caller's. attached: whether it is a tree of mounts, not only a directory. mounts: as
    in an OCI config. chroot: enter it by chroot. read_only: make it read only at the end. directory: where the command
    starts, "" for where the caller is. user: as for --user, None for the caller; extra_groups: as for --group-add.
    setgroups: whether they can be set. rights: None for the caller's. filter: (name, program, flags) of a seccomp
    program. no_new_privileges: set it.
    """

    __slots__ = (
        "attached", "chroot", "directory", "domainname", "extra_groups", "filter", "groups", "hostname", "ids", "image",
        "limits", "mounts", "namespaces", "no_new_privileges", "own_root", "read_only", "rights", "setgroups",
        "settings", "user",
    )  # fmt: skip

    def __init__(self) -> None:
        self.namespaces: tuple[str, ...] = ()
        self.ids: Step | None = None
        self.hostname = ""
        self.domainname = ""
        self.settings: Mapping[str, str] = {}
        self.groups: Sequence[Step] = ()
        self.limits: Sequence[Step] = ()
        self.image: Sequence[Step] = ()
        self.own_root = False
        self.attached = False
        self.mounts: Sequence[Mount] = ()
        self.chroot = False
        self.read_only = False
        self.directory = ""
        self.user: str | None = None
        self.extra_groups: tuple[str, ...] = ()
        self.setgroups = True
        self.rights: Rights | None = None
        self.filter: tuple[str, bytes, int] | None = None
        self.no_new_privileges = False


def plan(parts: Parts, program: Execute, mask: bytes = bytes(8), given: Sequence[str] = ()) -> Plan:
    """The plan of a command with these parts. mask: the signals that it has blocked. given: slots that are filled."""
    born = tuple(name for name in ("user", "pid") if name in parts.namespaces and not (name == "user" and parts.ids))
    files = [*parts.image, *_mounts(parts)]
    outside = [
        *(step for step in parts.groups if step.by == PARENT),
        *(step for step in files if step.phase in ("image", "host")),
        *([parts.ids] if parts.ids else []),
        *(step for step in files if step.by == PARENT and step.phase not in ("image", "host") and not step.late),
        *(step for step in files if step.late),
        *([LookUpUser(parts.user, parts.extra_groups, not parts.setgroups)] if parts.user is not None else []),
        *([FindDirectory(parts.directory)] if _finds_directory(parts) else []),
    ]
    mapped: list[Step] = []
    waiting: list[Step] = []
    if "user" in born:
        from ..kernel.id_maps import AwaitIdMaps, WriteIdMaps

        mapped, waiting = [WriteIdMaps()], [AwaitIdMaps()]
    inside = [
        *waiting,
        DieWithParent(),
        *(step for step in parts.groups if step.by == RUNNER),  # before the cgroup namespace, which begins where we are
        *_namespaces(parts),
        *_root(parts, [step for step in files if step.by == RUNNER]),
        *parts.limits,
        *_tail(parts, mask),
        program,
    ]
    return Plan([*outside, Spawn(born), *mapped, *inside], given)


def _finds_directory(parts: Parts) -> bool:
    """Whether the working directory is found in the new root; without one its path is enough."""
    return bool(parts.directory) and (parts.attached or parts.own_root)


def _namespaces(parts: Parts) -> list[Step]:
    later = tuple(name for name in parts.namespaces if name not in ("user", "pid"))
    steps: list[Step] = [Unshare(later)] if later else []
    if "mount" in later:
        steps.append(PrivateMounts())
    if parts.hostname:
        steps.append(HostName(parts.hostname))
    if parts.domainname:
        steps.append(DomainName(parts.domainname))
    if "network" in later:
        steps.append(LoopbackUp())
    return [*steps, *(WriteSetting(name, value) for name, value in parts.settings.items())]


def _mounts(parts: Parts) -> list[Step]:
    """What is mounted on a root that is a tree of mounts: /proc first, where its PID namespace is new."""
    steps: list[Step] = []
    if not parts.attached:
        return steps
    if "pid" in parts.namespaces and all(mount["destination"] != "/proc" for mount in parts.mounts):
        place = "place /proc"
        steps += [FindPlace("/proc", place, "/proc"), MountFilesystem("proc", "/proc", place, "/proc", _PROC)]
    for number, mount in enumerate(parts.mounts):
        options = MountOptions(mount.get("options") or [])
        target, slot = mount["destination"], f"mount {number}"
        kind, source = mount.get("type") or "bind", mount.get("source", "")
        if kind == "bind":
            made: Step = OpenTree(
                source, slot, options.recursive, options.attributes, options.cleared,
                options.propagation or "rprivate", options.recursively,
            )  # fmt: skip
        else:
            made = MakeFilesystem(kind, slot, target, options.attributes, options.own, source)
        place = f"place {target}"
        steps += [made, FindPlace(target, place, slot), AttachTree(slot, place, target)]
    return steps


def _root(parts: Parts, attaching: list[Step]) -> list[Step]:
    """The new root entered, with what is attached to it; without one, only what was asked for of the old one."""
    if not parts.attached and not parts.own_root:
        steps: list[Step] = []
        if "pid" in parts.namespaces and "mount" in parts.namespaces:
            from ..kernel.proc_mount import MountProc

            steps.append(MountProc())
        if parts.directory:
            from ..kernel.chroot import ChangeDirectory

            steps.append(ChangeDirectory(parts.directory))
        return steps
    steps = [AttachRoot(), *attaching] if parts.attached else []
    if parts.chroot:
        from ..kernel.chroot import ChangeRoot

        steps.append(ChangeRoot())
    else:
        steps.append(PivotRoot())
    if parts.directory:
        steps.append(Enter(parts.directory))
    return [*steps, ReadOnlyRoot()] if parts.read_only else steps


def _tail(parts: Parts, mask: bytes) -> list[Step]:
    """What is given up last. With no_new_privs a filter comes after all else and judges the execve alone."""
    filters: list[Step] = [LoadSeccomp(*parts.filter)] if parts.filter else []
    steps: list[Step] = [DefaultSignals(PYTHONS, mask)]
    if parts.no_new_privileges:
        steps.append(NoNewPrivileges())
    else:
        steps += filters
    rights = parts.rights
    if rights and rights.bounding != rights.held:
        steps.append(BoundingSet(rights.bounding, rights.held))
    if parts.user is not None:
        keep = bool(rights and rights.permitted is not None)
        steps.append(Credentials(None, None, None, keep=keep, setgroups=parts.setgroups))
    if rights and rights.permitted is not None:
        steps.append(Capabilities(rights.permitted, rights.permitted, rights.inheritable, rights.ambient))
    steps.append(DeathSignal())
    return [*steps, *filters] if parts.no_new_privileges else steps
