"""The planner: an OCI config becomes a plan.

    config.json, and what a config can't know  ──►  [step, step, …]

A pure function: it asks the kernel for nothing, so what a config leads to can be tested, shown and compared anywhere.
What an OCI config doesn't know (snapshots, the caller's streams, a profile's compiled filter) comes beside it.

https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
"""

from __future__ import annotations

from ..errors import ConfigError, UnsupportedError
from ..kernel.capabilities import WHOLE, BoundingSet, Capabilities, mask
from ..kernel.credentials import Credentials, LookUpUser
from ..kernel.devices import LinkDevices, MakeDevices
from ..kernel.interfaces import AwaitNetwork, LoopbackUp
from ..kernel.keyring import NewKeyring
from ..kernel.masks import MaskPaths, OpenCovers, ReadOnlyPaths
from ..kernel.mount_points import AttachTree, FindPlace, MakeFilesystem, MountFilesystem, ReadOnlyMount
from ..kernel.mounts import OpenTree, PrivateMounts
from ..kernel.namespaces import DieWithParent, FileMask, Spawn, Unshare
from ..kernel.no_new_privs import NoNewPrivileges
from ..kernel.pivot_root import AttachRoot, Enter, FindDirectory, PivotRoot, ReadOnlyRoot
from ..kernel.program import Execute
from ..kernel.runner import CloseDescriptors, DeathSignal
from ..kernel.seccomp import LoadSeccomp
from ..kernel.signals import DefaultSignals
from ..kernel.sysctl import WriteSetting
from ..kernel.terminal import BindConsole, ChooseStreams, OpenConsole, UseStreams
from ..kernel.uts import DomainName, HostName
from ..plan.plan import Plan
from ..plan.step import PARENT, RUNNER
from .mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..kernel.cgroups import Backend
    from ..plan.step import Step
    from ..spec.runtime import Config, Linux, Mount, Process
    from .mapped import Ids

# Every container has these, whatever its config lists: https://github.com/opencontainers/runtime-spec, config-linux.md
DEVICES = (
    ("/dev/null", "c", 1, 3), ("/dev/zero", "c", 1, 5), ("/dev/full", "c", 1, 7), ("/dev/random", "c", 1, 8),
    ("/dev/urandom", "c", 1, 9), ("/dev/tty", "c", 5, 0),
)  # fmt: skip
DEFAULT_MASK = 0o022
_FROM_OUTSIDE = ("tmpfs", "devpts", "overlay")  # file systems that show nothing of whoever makes them
_BORN_WITH = ("user", "pid")  # a process can't move itself into these as a whole


class Beside:
    """What stands beside a config.

    steps: those of the image and its snapshot; one of them may give the slot "tree", the container's root. user: as
    for --user, to be looked up in the container's files; None where the config has the numbers. extra_groups: as for
    --group-add. filter: (name of the profile, its program, flags of seccomp(2)), or None. interactive: the caller's
    input is passed on. init: an init of ours is process 1. ignored: signals that this process ignores. held: the
    capabilities in this process's bounding set. cgroups: the backend, and v1: where it has hierarchies of version 1.
    delegated: "cgroup2" or "systemd" for the tree in which it manages a group by itself, "" for none.
    connected: what this process does to a new network namespace once it is there. given: slots that are filled before
    the first step. learn: every system call is told to this process; a number that
    nobody can guess, 0 for not. privileged: the caller may mount, make nodes and so on himself.
    watched: for a container without a PID namespace of its own, the path of a group of version 2 for all of its
    processes, over which a guard watches; "" where there is none. loopback: the caller may bring up a new one.
    """

    __slots__ = (
        "cgroups", "connected", "delegated", "extra_groups", "filter", "given", "held", "ignored", "init",
        "interactive", "learn", "loopback", "privileged", "steps", "user", "v1", "watched",
    )  # fmt: skip

    def __init__(self, cgroups: Backend, v1: Mapping[str, str]) -> None:
        self.cgroups = cgroups
        self.v1 = v1
        self.delegated = ""
        self.steps: list[Step] = []
        self.connected: list[Step] = []
        self.user: str | None = None
        self.extra_groups: tuple[str, ...] = ()
        self.filter: tuple[str, bytes, int] | None = None
        self.interactive = False
        self.learn = 0
        self.init = False
        self.ignored: tuple[int, ...] = ()
        self.held = WHOLE
        self.given: tuple[str, ...] = ()
        self.privileged = True
        self.watched = ""
        self.loopback = True


def plan(config: Config, beside: Beside) -> Plan:
    """The plan of a container in the foreground. Raises ConfigError and UnsupportedError."""
    process, linux = config["process"], config["linux"]
    namespaces = tuple(namespace["type"] for namespace in linux["namespaces"] if not namespace.get("path"))
    joined = {entry["type"]: entry["path"] for entry in linux["namespaces"] if entry.get("path")}
    if "mount" in joined:
        raise UnsupportedError("a container in another one's mount namespace would change its mounts")
    if "mount" not in namespaces:
        raise UnsupportedError("a container without a mount namespace would change the host's mounts")
    if not process["args"]:
        raise ConfigError("$.process.args", "must name a program")
    terminal = process.get("terminal", False)
    ids = _ids(linux, beside, namespaces, joined)
    groups = _groups(linux, beside)
    files = [*_root(config, beside), *_files(config, beside, namespaces, groups, ids)]
    labels = _labels(process, beside.init)
    if linux.get("mountLabel"):
        from .security_labels import label_mounts

        label_mounts(files, beside.steps, linux["mountLabel"])
    early = [step for step in beside.steps if step.phase in ("image", "host")]
    last: list[Step] = []  # what is made with other owners than the host's
    if ids:
        from .mapped import scratch

        files = ids.translate(files, beside.steps)
        early, last = scratch(early)
    outside = [
        *early,
        *(step for step in groups if step.by == PARENT),
        *_user_namespace(linux, beside, namespaces),
        *(step for step in labels if step.by == PARENT),
        *_opened(joined),
        *_time(linux, namespaces),
        *(ids.before() if ids else []),
        *last,
        FileMask(0, PARENT),
        *(step for step in files if step.by == PARENT),
        *(step for step in beside.steps if step.late),
        *([OpenCovers()] if linux.get("maskedPaths") else []),
        *_console(terminal, PARENT),
        *([LookUpUser(beside.user, beside.extra_groups, not beside.privileged)] if beside.user is not None else []),
        *(ids.checked() if ids and beside.user is not None else []),
        FindDirectory(process["cwd"]),
        ChooseStreams(beside.interactive, terminal),
        *(ids.last() if ids else []),
    ]
    born = _born(namespaces, beside)
    inside = [
        *_process(config, namespaces, born, joined, groups, ids),
        *_names(config, linux, namespaces, beside.loopback),
        AttachRoot(),
        *(step for step in files if step.by == RUNNER),
        *_console(terminal, RUNNER),
        *_covers(linux),
        PivotRoot(),
        Enter(process["cwd"]),
        *(_read_only(beside) if config["root"].get("readonly") else []),
        FileMask(_mask(process)),
        UseStreams(terminal),
        *([AwaitNetwork()] if beside.connected and not ids else []),
        *_tail(process, beside, ids is not None, [step for step in labels if step.by == RUNNER]),
    ]
    entered = _entered(namespaces, joined, ids)
    spawn = Spawn(born, any("cgroup" in step.gives() for step in groups), entered)
    after = [*(ids.after(config) if ids else []), *beside.connected]
    return Plan([*outside, spawn, *after, *inside], beside.given)


def _born(namespaces: tuple[str, ...], beside: Beside) -> tuple[str, ...]:
    """The kinds of new namespaces that the first process has from its birth.

    A network that is to be connected is one: while that is done from outside, the process goes on inside.
    """
    born = [name for name in _BORN_WITH if name in namespaces and (name != "user" or beside.privileged)]
    if beside.connected:
        born.append("network")
    return tuple(born)


def _ids(linux: Linux, beside: Beside, namespaces: tuple[str, ...], joined: Mapping[str, str]) -> Ids | None:
    """The maps of root's container in a user namespace of its own; None for any other."""
    if not beside.privileged or not ("user" in namespaces or "user" in joined):
        return None
    from .mapped import Ids, refuse

    refuse(joined, namespaces)
    return Ids(linux, "user" in joined)


def _entered(namespaces: tuple[str, ...], joined: Mapping[str, str], ids: Ids | None) -> tuple[str, ...]:
    """The kinds of namespaces that this process enters for a moment, so that the first one is born in them.

    Only so a PID namespace is joined; and who is born in a user namespace may join none of the host's any more.
    """
    if not ids:
        return ("pid",) if "pid" in joined else ()
    entered = tuple(kind for kind in joined if kind != "user")
    return (*entered, "time") if "time" in namespaces else entered


def _groups(linux: Linux, beside: Beside) -> list[Step]:
    """The control groups: made and limited from outside, joined by the process itself."""
    name = linux.get("cgroupsPath", "").strip("/")
    resources: dict[str, Any] = {**(linux.get("resources") or {})}
    steps = beside.cgroups.steps(name, resources, into=not beside.v1)
    if beside.watched:
        from ..kernel.cgroups.groups import JoinGroup, MakeGroup
        from ..kernel.guard import Guard

        if ("cgroup", beside.watched) not in [record for step in steps for record in step.record()]:
            # Made last: what is taken away first, with all that runs in it.
            steps += [MakeGroup(beside.watched), JoinGroup((f"{beside.watched}/cgroup.procs",))]
        steps.append(Guard(beside.watched))
    return steps


def _opened(joined: Mapping[str, str]) -> list[Step]:
    """The namespaces that will be joined, opened while only this process's own /proc is in view."""
    if not joined:
        return []
    from ..kernel.joined_namespaces import OpenNamespace

    return [OpenNamespace(kind, path) for kind, path in joined.items()]


def _user_namespace(linux: Linux, beside: Beside, namespaces: tuple[str, ...]) -> list[Step]:
    """A plain user moves into a namespace of his own before anything is mounted: only there he may do it."""
    if "user" not in namespaces or beside.privileged:
        return []
    from ..kernel.user_namespace import EnterUserNamespace

    return [EnterUserNamespace(_map(linux, "uidMappings"), _map(linux, "gidMappings"))]


def _time(linux: Linux, namespaces: tuple[str, ...]) -> list[Step]:
    """A time namespace of its own, which a process can only join as a whole."""
    offsets = linux.get("timeOffsets")
    if "time" not in namespaces:
        if offsets:
            raise ConfigError("$.linux.timeOffsets", "needs a new time namespace", "clocks of others can't be set")
        return []
    from ..kernel.time_namespace import MakeTimeNamespace

    rows = (offsets or {}).items()
    return [MakeTimeNamespace(tuple((clock, it.get("secs", 0) * 10**9 + it.get("nanosecs", 0)) for clock, it in rows))]


def _process(
    config: Config,
    namespaces: tuple[str, ...],
    born: tuple[str, ...],
    joined: Mapping[str, str],
    groups: list[Step],
    ids: Ids | None,
) -> list[Step]:
    """How the new process leaves the caller's namespaces."""
    linux = config["linux"]
    steps: list[Step] = [DieWithParent()]
    if not ids and (score := config["process"].get("oomScoreAdj")) is not None:
        from ..kernel.oom_score import OomScore

        steps.append(OomScore(score))
    steps += [step for step in groups if step.by == RUNNER]  # before the cgroup namespace, which begins where we are
    if ids:
        steps += ids.inside()
    elif joined or "time" in namespaces:
        from ..kernel.joined_namespaces import Join

        steps += [Join(kind) for kind in (*joined, *namespaces) if kind == "time" or (kind in joined and kind != "pid")]
    later = tuple(name for name in namespaces if name not in (*_BORN_WITH, *born, "time"))
    if "user" in namespaces and linux.get("rootfsPropagation"):
        return [*steps, Unshare(later)]  # news from the host are wanted, and none can go back: the kernel sees to that
    return [*steps, Unshare(later), PrivateMounts()]


def _map(linux: Linux, key: str) -> tuple[tuple[int, int, int], ...]:
    rows = linux.get(key) or []
    return tuple((row["containerID"], row["hostID"], row["size"]) for row in rows)  # type: ignore[attr-defined]


def _names(config: Config, linux: Linux, namespaces: tuple[str, ...], loopback: bool) -> list[Step]:
    """The host name, the loopback interface and the settings of the namespaces."""
    steps: list[Step] = []
    if "uts" in namespaces:
        if config.get("hostname"):
            steps.append(HostName(config["hostname"]))
        if config.get("domainname"):
            steps.append(DomainName(config["domainname"]))
    if "network" in namespaces and loopback:
        steps.append(LoopbackUp())
    if linux.get("sysctl"):
        steps += [WriteSetting(name, value) for name, value in linux["sysctl"].items()]
    return steps


def _root(config: Config, beside: Beside) -> list[Step]:
    """The container's root: a tree, with what the image itself mounts on it."""
    own = [step for step in beside.steps if step.phase == "filesystem" and not step.late]
    if any("tree" in step.gives() for step in own):
        return own
    return [OpenTree(config["root"]["path"], "tree"), *own]


def _files(
    config: Config, beside: Beside, namespaces: tuple[str, ...], groups: list[Step], ids: Ids | None
) -> list[Step]:
    """Everything that is mounted on the root, in the config's order, and the device nodes."""
    steps: list[Step] = []
    own_dev = True
    for number, mount in enumerate(config.get("mounts") or []):
        options = MountOptions(mount.get("options") or [])
        kind, target = mount.get("type") or "bind", mount["destination"]
        if kind == "bind" or options.bind:
            slot = f"mount {number}"
            steps += [_bind(mount, options, slot, ids), *_attached(slot, target)]
            own_dev = own_dev and target != "/dev"
        elif kind == "overlay" and options.mapped:
            steps += _mapped_overlay(target, options, ids)
        elif kind == "cgroup":
            steps += _cgroup_mounts(target, options, beside, namespaces, groups)
        else:
            steps += _filesystem(kind, target, options.attributes, options.own, mount.get("source", ""))
        if target == "/dev" and own_dev:
            steps += _devices(config["linux"], beside)
    return steps


def _attached(slot: str, target: str) -> list[Step]:
    place = f"place {target}"
    return [FindPlace(target, place, slot), AttachTree(slot, place, target)]


def _filesystem(
    kind: str, target: str, attributes: tuple[str, ...], options: tuple[str, ...], source: str = ""
) -> list[Step]:
    """A file system of the kernel's: made outside, or inside where it shows the namespaces of its maker."""
    if kind in _FROM_OUTSIDE:
        return [MakeFilesystem(kind, target, target, attributes, options, source), *_attached(target, target)]
    place = f"place {target}"
    made = MountFilesystem(kind, target, place, target, attributes, options, source)
    return [FindPlace(target, place, target), made]


def _read_only(beside: Beside) -> list[Step]:
    """The root made read only, with what the image itself mounted on it."""
    own = [step for step in beside.steps if isinstance(step, AttachTree)]
    return [*(ReadOnlyMount(step.slot, step.target) for step in own), ReadOnlyRoot()]


def _bind(mount: Mount, options: MountOptions, slot: str, ids: Ids | None) -> Step:
    tree = OpenTree(
        mount.get("source", ""), slot, options.recursive, options.attributes, options.cleared,
        options.propagation or "rprivate", options.recursively,
    )  # fmt: skip
    if not (options.mapped or mount.get("uidMappings") or mount.get("gidMappings")):
        return tree
    if ids is None:
        raise _unmapped(mount["destination"])
    return ids.bound(tree, mount, options)


def _mapped_overlay(target: str, options: MountOptions, ids: Ids | None) -> list[Step]:
    if ids is None:
        raise _unmapped(target)
    return [ids.laid(target, options), *_attached(target, target), *_made_read_only(target, options)]


def _made_read_only(target: str, options: MountOptions) -> list[Step]:
    return [ReadOnlyMount(target, target)] if "ro" in options.attributes else []


def _unmapped(target: str) -> UnsupportedError:
    return UnsupportedError(
        f"the mount at {target} can't be mapped", "that takes root, and a user namespace: --userns auto"
    )


def _devices(linux: Linux, beside: Beside) -> list[Step]:
    """The nodes of /dev: made, or the host's own where making them isn't allowed."""
    listed = {path: (path, kind, major, minor, 0o666, 0, 0) for path, kind, major, minor in DEVICES}
    for device in linux.get("devices") or []:
        listed[device["path"]] = (
            device["path"], device["type"], device.get("major", 0), device.get("minor", 0),
            device.get("fileMode", 0o666), device.get("uid", 0), device.get("gid", 0),
        )  # fmt: skip
    if beside.privileged:
        return [MakeDevices(tuple(listed.values())), LinkDevices()]
    steps: list[Step] = []
    for path in listed:
        steps += [OpenTree(path, f"device {path}", recursive=False), *_attached(f"device {path}", path)]
    return [*steps, LinkDevices()]


def _cgroup_mounts(
    target: str, options: MountOptions, beside: Beside, namespaces: tuple[str, ...], groups: list[Step]
) -> list[Step]:
    """/sys/fs/cgroup: one mount on version 2; on version 1 one for each controller in which there is a group of ours.

    The others would show the host's own groups.
    """
    made = [name for step in groups for kind, name in step.record() if kind == "cgroup"]
    if not beside.v1 and "user" in namespaces and "cgroup" not in namespaces and made:
        return [OpenTree(made[-1], target, False, options.attributes), *_attached(target, target)]
    if not beside.v1 or beside.delegated == "cgroup2":
        return _filesystem("cgroup2", target, options.attributes, options.own)
    if "user" in namespaces and not beside.privileged:
        return []  # a plain user has no group in it, and the host's would be shown
    hierarchies: dict[str, list[str]] = {}
    for controller, path in beside.v1.items():
        if not any(group.startswith(path + "/") for group in made):
            continue
        hierarchies.setdefault(path, []).append(controller)
    plain = tuple(name for name in options.attributes if name != "ro")
    steps = _filesystem("tmpfs", target, plain, ("mode=755",))
    for controllers in hierarchies.values():
        for name in controllers:
            place = f"{target}/{name}"
            if "cgroup" in namespaces:
                steps += _filesystem("cgroup", place, options.attributes, tuple(controllers))
            else:  # its top would be the host's, or that of others: the container's own group is shown
                own = next(group for group in made if group.startswith(beside.v1[name] + "/"))
                steps += [OpenTree(own, place, False, options.attributes), *_attached(place, place)]
    if beside.delegated:  # the one that it manages by itself, and so may write to
        steps += _filesystem("cgroup", f"{target}/{beside.delegated}", plain, ("none", f"name={beside.delegated}"))
    return [*steps, *_made_read_only(target, options)]


def _console(terminal: bool, by: str) -> list[Step]:
    if not terminal:
        return []
    return [OpenConsole()] if by == PARENT else [BindConsole()]


def _covers(linux: Linux) -> list[Step]:
    steps: list[Step] = []
    if linux.get("readonlyPaths"):
        steps.append(ReadOnlyPaths(tuple(linux["readonlyPaths"])))
    if linux.get("maskedPaths"):
        steps.append(MaskPaths(tuple(linux["maskedPaths"])))
    return steps


def _mask(process: Process) -> int:
    user = process.get("user")
    return user.get("umask", DEFAULT_MASK) if user else DEFAULT_MASK


def _limits(process: Process) -> list[Step]:
    if not process.get("rlimits"):
        return []
    from ..kernel.rlimits import Limit

    limits = process["rlimits"]
    return [Limit(it["type"].removeprefix("RLIMIT_").lower(), it["soft"], it["hard"]) for it in limits]


def _labels(process: Process, init: bool) -> list[Step]:
    """The steps that have security modules label the program."""
    if not (process.get("apparmorProfile") or process.get("selinuxLabel")):
        return []
    from .security_labels import steps

    return steps(process, init)


def _tail(process: Process, beside: Beside, new_user: bool, labels: Sequence[Step] = ()) -> list[Step]:
    """What is done after Python has gone; every process that enters a container ends with these.

    labels: the steps for those of security modules. They are asked for first, while nothing is given up and no filter
    is in the way. With an init they come into force at once, and so after all that a profile needn't allow.

    A filter needs CAP_SYS_ADMIN unless the process has given up new privileges: with that it comes last and judges
    only the execve, without it it comes first and has to allow the rows after it, as in other runtimes.
    """
    sets = process.get("capabilities") or {}
    bounding, permitted = mask(sets.get("bounding") or ()), mask(sets.get("permitted") or ())
    effective, inheritable = mask(sets.get("effective") or ()), mask(sets.get("inheritable") or ())
    ambient = mask(sets.get("ambient") or ())
    no_new = process.get("noNewPrivileges", False)
    filters: list[Step] = [LoadSeccomp(*beside.filter)] if beside.filter else []
    if beside.learn:
        from ..kernel.seccomp_notify import LoadNotifier

        filters = [LoadNotifier(*(beside.filter or ("unconfined", b"", 0)), beside.learn)]
    later = [labels[-1]] if labels and beside.init else []
    steps: list[Step] = [*labels[: len(labels) - len(later)], DefaultSignals(beside.ignored), NewKeyring()]
    steps += _limits(process)
    if no_new:
        steps.append(NoNewPrivileges())
    else:
        steps += filters
    held = WHOLE if new_user else beside.held  # a new user namespace comes with all
    if not later:
        steps.append(CloseDescriptors())
    steps.append(BoundingSet(bounding, held))
    steps.append(_credentials(process, beside, sets != {}))
    steps.append(Capabilities(permitted, effective, inheritable, ambient, root_only=beside.user is not None))
    steps += [*later, DeathSignal(), *([CloseDescriptors()] if later else [])]
    if no_new:
        steps += filters
    arguments = process["args"]
    environment, search = tuple(process.get("env") or ()), _variable(process, "PATH")
    return [
        *steps,
        Execute(arguments[0], tuple(arguments), environment, beside.init, search, process["cwd"]),
    ]


def _credentials(process: Process, beside: Beside, capable: bool) -> Step:
    if beside.user is not None:
        return Credentials(None, None, None, setgroups=beside.privileged)
    user = process.get("user") or {"uid": 0, "gid": 0}
    groups: Sequence[int] = user.get("additionalGids") or ()
    keep = capable and user["uid"] != 0
    return Credentials(user["uid"], user["gid"], tuple(groups), keep=keep, setgroups=beside.privileged)


def _variable(process: Process, name: str) -> str:
    for variable in process.get("env") or ():
        if variable.startswith(name + "="):
            return variable[len(name) + 1 :]
    return ""
