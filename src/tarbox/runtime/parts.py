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
from ..kernel.oom_score import OomScore
from ..kernel.pivot_root import AttachRoot, Enter, FindDirectory, PivotRoot, ReadOnlyRoot
from ..kernel.rlimits import Limit
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
    from typing import Any

    from ..kernel.program import Execute
    from ..plan.step import Step
    from ..spec.runtime import Mount
    from .mapped import Ids

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

    namespaces: new ones, by OCI name. joined: the paths of others' by OCI name. clocks: the offsets of a new time
    namespace, as for `MakeTimeNamespace`. ids: the step that enters a user namespace before all else,
    for a plain user; None where it comes with the new process. maps: which ids that one has, or the joined one; None
    for the same as outside. hostname, domainname, settings: of those namespaces. groups, limits:
    steps. image: the steps that give the slot "tree", the new root; with `mounts` there must be some. own_root: whether
    that is another root than the caller's. attached: whether it is a tree of mounts, not only a directory. mounts: as
    in an OCI config. chroot: enter it by chroot. read_only: make it read only at the end. directory: where the command
    starts, "" for where the caller is. user: as for --user, None for the caller; extra_groups: as for --group-add.
    setgroups: whether they can be set. labels: the steps that have a security module label the command; mount_label:
    the label of what is mounted for it, "" for none. rights: None for the caller's. filter: (name, program, flags) of a
    seccomp program. no_new_privileges: set it.
    """

    __slots__ = (
        "attached", "chroot", "clocks", "directory", "domainname", "extra_groups", "filter", "groups", "hostname",
        "ids", "image", "joined", "labels", "limits", "maps", "mount_label", "mounts", "namespaces",
        "no_new_privileges", "own_root", "read_only", "rights", "setgroups", "settings", "user",
    )  # fmt: skip

    def __init__(self) -> None:
        self.namespaces: tuple[str, ...] = ()
        self.joined: Mapping[str, str] = {}
        self.clocks: tuple[tuple[str, int], ...] = ()
        self.ids: Step | None = None
        self.maps: Ids | None = None
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
        self.labels: Sequence[Step] = ()
        self.mount_label = ""
        self.rights: Rights | None = None
        self.filter: tuple[str, bytes, int] | None = None
        self.no_new_privileges = False


def plan(parts: Parts, program: Execute, mask: bytes = bytes(8), given: Sequence[str] = ()) -> Plan:
    """The plan of a command with these parts. mask: the signals that it has blocked. given: slots that are filled."""
    maps = parts.maps
    own_ids = "user" in parts.namespaces and not parts.ids
    born = tuple(name for name in ("user", "pid") if name in parts.namespaces and not (name == "user" and parts.ids))
    files = [*parts.image, *_mounts(parts)]
    if parts.mount_label:
        from .security_labels import label_mounts

        label_mounts(files, (), parts.mount_label)
    if maps:
        files = maps.translate(files, parts.image if not parts.own_root else _overlays(parts.image))
    early = [step for step in files if step.phase in ("image", "host")]
    last: list[Step] = []  # what is made with other owners than the host's
    if maps:
        from .mapped import scratch

        early, last = scratch(early)
    outside = [
        *(step for step in parts.groups if step.by == PARENT),
        *(step for step in parts.labels if step.by == PARENT),
        *early,
        *_opened(parts),
        *([parts.ids] if parts.ids else []),
        *_clocks(parts),
        *(maps.before() if maps else []),
        *last,
        *(step for step in files if step.by == PARENT and step.phase not in ("image", "host") and not step.late),
        *(step for step in files if step.late),
        *([LookUpUser(parts.user, parts.extra_groups, not parts.setgroups)] if parts.user is not None else []),
        *(maps.checked() if maps and parts.user is not None else []),
        *([FindDirectory(parts.directory)] if _finds_directory(parts) else []),
        *(maps.last() if maps else []),
    ]
    mapped: list[Step] = []
    waiting: list[Step] = []
    if maps:
        mapped = maps.after(_of_each_process(parts))
    elif own_ids:
        from ..kernel.id_maps import EVERYBODY, AwaitIdMaps
        from ..kernel.root_maps import WriteMaps

        mapped, waiting = [WriteMaps(EVERYBODY, EVERYBODY)], [AwaitIdMaps()]
    inside = [
        *waiting,
        DieWithParent(),
        *(step for step in parts.groups if step.by == RUNNER),  # before the cgroup namespace, which begins where we are
        *(maps.inside() if maps else []),
        *_namespaces(parts),
        *_root(parts, [step for step in files if step.by == RUNNER]),
        *(step for step in parts.limits if not (maps and isinstance(step, OomScore))),
        *_tail(parts, mask, program.init),
        program,
    ]
    return Plan([*outside, Spawn(born, entered=_entered(parts)), *mapped, *inside], given)


def _overlays(steps: Sequence[Step]) -> list[Step]:
    from ..kernel.overlay import OpenOverlay

    return [step for step in steps if isinstance(step, OpenOverlay)]


def _of_each_process(parts: Parts) -> Any:
    """As much of an OCI config as says which limits have to be raised from outside a user namespace."""
    limits = [step for step in parts.limits if isinstance(step, Limit)]
    process: dict[str, Any] = {"rlimits": [{"type": step.name, "hard": step.hard} for step in limits]}
    for step in parts.limits:
        if isinstance(step, OomScore):
            process["oomScoreAdj"] = step.value
    return {"process": process}


def _opened(parts: Parts) -> list[Step]:
    if not parts.joined:
        return []
    from ..kernel.joined_namespaces import OpenNamespace

    return [OpenNamespace(kind, path) for kind, path in parts.joined.items()]


def _clocks(parts: Parts) -> list[Step]:
    if "time" not in parts.namespaces:
        return []
    from ..kernel.time_namespace import MakeTimeNamespace

    return [MakeTimeNamespace(parts.clocks)]


def _entered(parts: Parts) -> tuple[str, ...]:
    """What this process enters for a moment: see `planner.py`, which does the same for a container."""
    if "user" in parts.joined or ("user" in parts.namespaces and not parts.ids):
        entered = tuple(kind for kind in parts.joined if kind != "user")
        return (*entered, "time") if "time" in parts.namespaces else entered
    return ("pid",) if "pid" in parts.joined else ()


def _finds_directory(parts: Parts) -> bool:
    """Whether the working directory is found in the new root; without one its path is enough."""
    return bool(parts.directory) and (parts.attached or parts.own_root)


def _namespaces(parts: Parts) -> list[Step]:
    later = tuple(name for name in parts.namespaces if name not in ("user", "pid", "time"))
    steps: list[Step] = []
    entered = (*_entered(parts), "pid", "user")
    joins = [kind for kind in (*parts.joined, *parts.namespaces) if kind not in (*entered, *later)]
    if joins:
        from ..kernel.joined_namespaces import Join

        steps += [Join(kind) for kind in joins]
    if later:
        steps.append(Unshare(later))
    if "mount" in later:
        steps.append(PrivateMounts())
    if parts.hostname:
        steps.append(HostName(parts.hostname))
    if parts.domainname:
        steps.append(DomainName(parts.domainname))
    if "network" in later:
        steps.append(LoopbackUp())
    return [*steps, *(WriteSetting(name, value) for name, value in parts.settings.items())]


def _other_processes(parts: Parts) -> bool:
    """Whether the /proc that the caller sees shows the wrong processes."""
    return "pid" in parts.namespaces or "pid" in parts.joined


def _mounts(parts: Parts) -> list[Step]:
    """What is mounted on a root that is a tree of mounts: /proc first, where its PID namespace isn't the caller's."""
    steps: list[Step] = []
    if not parts.attached:
        return steps
    if _other_processes(parts) and all(mount["destination"] != "/proc" for mount in parts.mounts):
        place = "place /proc"
        steps += [FindPlace("/proc", place, "/proc"), MountFilesystem("proc", "/proc", place, "/proc", _PROC)]
    for number, mount in enumerate(parts.mounts):
        options = MountOptions(mount.get("options") or [])
        target, slot = mount["destination"], f"mount {number}"
        kind, source = mount.get("type") or "bind", mount.get("source", "")
        if kind == "bind":
            tree = OpenTree(
                source, slot, options.recursive, options.attributes, options.cleared,
                options.propagation or "rprivate", options.recursively,
            )  # fmt: skip
            made: Step = parts.maps.bound(tree, mount, options) if parts.maps and options.mapped else tree
        elif parts.maps and options.mapped:
            made = parts.maps.laid(slot, options)
        else:
            made = MakeFilesystem(kind, slot, target, options.attributes, options.own, source)
        place = f"place {target}"
        steps += [made, FindPlace(target, place, slot), AttachTree(slot, place, target)]
    return steps


def _root(parts: Parts, attaching: list[Step]) -> list[Step]:
    """The new root entered, with what is attached to it; without one, only what was asked for of the old one."""
    if not parts.attached and not parts.own_root:
        steps: list[Step] = []
        if _other_processes(parts) and "mount" in parts.namespaces:
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


def _tail(parts: Parts, mask: bytes, init: bool) -> list[Step]:
    """What is given up last. With no_new_privs a filter comes after all else and judges the execve alone.

    A label is asked for first; with an init it comes into force at once, and so after what it needn't allow.
    """
    filters: list[Step] = [LoadSeccomp(*parts.filter)] if parts.filter else []
    labels = [step for step in parts.labels if step.by == RUNNER]
    later = [labels.pop()] if labels and init else []
    steps: list[Step] = [*labels, DefaultSignals(PYTHONS, mask)]
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
    steps += [*later, DeathSignal()]
    return [*steps, *filters] if parts.no_new_privileges else steps
