"""What devices add to a container: looked up on this machine first, then put into its config.

    stat -c '%F %t:%T %a %u:%g' /dev/fuse         mknod -m 600 $ROOT/dev/fuse c 10 229

`look_up` asks the machine and `add` writes the config, so that a config can be made for a machine that isn't this one.
Root's containers get nodes of their own with the host's numbers, mode and owner, and a rule of the devices cgroup for
each. A plain user may make no node: such a container gets the host's own, each mounted by itself.

man 2 mknod, man 2 stat; https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#devices
"""

from __future__ import annotations

import os
from stat import S_IMODE, S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO

from ..errors import ImageNotFoundError, UnsupportedError, UsageError
from .devices import DeviceOption
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.cdi import CdiMount, ContainerEdits, DeviceNode
    from ..spec.runtime import Config, Device, DeviceRule, Mount
    from .devices import CdiName

# The module of the kernel that makes a node which many ask for.
_MODULES = {"/dev/fuse": "fuse", "/dev/net/tun": "tun", "/dev/kvm": "kvm", "/dev/loop-control": "loop",
            "/dev/ppp": "ppp_generic", "/dev/vhost-net": "vhost_net", "/dev/uinput": "uinput"}  # fmt: skip
_NOT_YET = {
    "hooks": "programs that the vendor wants run while the container is made",
    "netDevices": "network interfaces that are moved into the container",
    "intelRdt": "a share of the processor's cache",
}
_ACCESS = "rwm"


class Node:
    """One device. device: as the OCI has it. source: its path on the host. access: some of "rwm", "" for no rule.

    option: how it was asked for. same: whether its path is the one on the host. listed: whether it was only found in a
    directory, and may be passed over.
    """

    __slots__ = ("access", "device", "listed", "option", "same", "source")

    def __init__(
        self, device: Device, source: str, access: str, option: str, same: bool, listed: bool = False
    ) -> None:  # fmt: skip
        self.device = device
        self.source = source
        self.access = access
        self.option = option
        self.same = same
        self.listed = listed


class Edits:
    """Everything that devices add: variables, nodes, mounts, groups, and a line for each thing that has no effect."""

    __slots__ = ("env", "gids", "mounts", "nodes", "warnings")

    def __init__(self) -> None:
        self.env: list[str] = []
        self.nodes: list[Node] = []
        self.mounts: list[Mount] = []
        self.gids: list[int] = []
        self.warnings: list[str] = []


def look_up(wanted: Sequence[DeviceOption | CdiName], folders: Sequence[str] = ()) -> Edits:
    """What the devices add. folders: where the files of the CDI are, instead of the usual places.

    Raises UsageError, ImageNotFoundError, UnsupportedError or ConfigError for what isn't there or can't be meant.
    """
    edits = Edits()
    names: list[CdiName] = []
    for entry in wanted:
        if isinstance(entry, DeviceOption):
            edits.nodes += _nodes(entry)
        else:
            names.append(entry)
    if names:
        from .cdi import Files

        for place, more in Files(folders).edits(names):
            _collect(edits, more, place)
    return edits


def _nodes(option: DeviceOption) -> list[Node]:
    """The device at a path of the host, or all of those below it."""
    shown = f"--device {shorten(option.source)}"
    source = os.path.realpath(option.source)
    try:
        facts = os.stat(source)
    except OSError as error:
        raise ImageNotFoundError(f"{shown}: {error.strerror}", _hint(option.source)) from None
    if not S_ISDIR(facts.st_mode):
        device = _device(facts, option.target)
        if device is None:
            hint = f"-v {shorten(option.source)}:{shorten(option.target)} shows a file of the host"
            raise UsageError(f"{shown} is not a device", hint)
        return [Node(device, source, option.access, shown, option.source == option.target)]
    if source == "/":
        raise UsageError(f"{shown} would search all of the machine for devices", "e.g. --device /dev/snd")
    found: list[Node] = []
    for above, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = f"{above}/{name}"
            device = _device(os.lstat(path), option.target + path[len(source) :])  # links would show a device twice
            if device is not None:
                found.append(Node(device, path, option.access, shown, option.source == option.target, True))
    if not found:
        raise UsageError(f"{shown} is a directory without devices", "ls -l shows c or b in front of a device")
    return found


def _clean(path: str) -> str:
    return "/" + os.path.normpath(path).lstrip("/")


def _hint(path: str) -> str:
    if path in _MODULES:
        return f"modprobe {_MODULES[path]} makes it, if the kernel has it"
    above, _, name = path.rpartition("/")
    try:
        names = os.listdir(above or "/")
    except OSError:
        return f"there is no {above} either"
    from .nearest import suggest

    near = suggest(name, names)
    return f"did you mean {above}/{near}?" if near else f"ls {above or '/'} shows what is there"


def _device(facts: os.stat_result, path: str) -> Device | None:
    """The OCI's words for a node of the host; None when it isn't a device."""
    if not (S_ISCHR(facts.st_mode) or S_ISBLK(facts.st_mode)):
        return None
    return {
        "type": "c" if S_ISCHR(facts.st_mode) else "b",
        "path": path,
        "major": os.major(facts.st_rdev),
        "minor": os.minor(facts.st_rdev),
        "fileMode": S_IMODE(facts.st_mode),
        "uid": facts.st_uid,
        "gid": facts.st_gid,
    }


def _collect(edits: Edits, more: ContainerEdits, place: str) -> None:
    """Add what a file of the CDI says; place: the file and the JSON path."""
    for key, what in _NOT_YET.items():
        if more.get(key):
            hint = "the device doesn't work as meant without; take it out of a copy of the file, see --cdi-spec-dir"
            raise UnsupportedError(f"{place}.{key}: this version of tarbox can't do that yet: {what}", hint)
    edits.env += more.get("env") or []
    for index, node in enumerate(more.get("deviceNodes") or []):
        edits.nodes.append(_described(node, f"{place}.deviceNodes[{index}]"))
    for index, mount in enumerate(more.get("mounts") or []):
        edits.mounts.append(_mount(mount, f"{place}.mounts[{index}]"))
    gids = [*(more.get("additionalGids") or []), *(more.get("additionalGIDs") or [])]  # type: ignore[misc]
    edits.gids += [gid for gid in gids if gid and gid not in edits.gids]


def _described(node: DeviceNode, place: str) -> Node:
    """A node as a file describes it, with what it leaves out filled in from the host's."""
    source = os.path.realpath(node.get("hostPath") or node["path"])
    kind, major = node.get("type") or "", node.get("major") or 0
    whole = bool(kind) and (major != 0 or kind == "p")
    device: Device = {"type": kind, "path": _clean(node["path"])}
    try:
        facts = os.stat(source)
    except OSError as error:
        if not whole:
            raise ImageNotFoundError(f"{place}: {source}: {error.strerror}", "is its driver loaded?") from None
    else:
        found = _device(facts, device["path"]) or ({"type": "p"} if S_ISFIFO(facts.st_mode) else None)
        device["fileMode"] = S_IMODE(facts.st_mode)
        if not whole:
            if found is None:
                raise UsageError(f"{place}: {source} is not a device")
            if kind and found["type"] != {"u": "c"}.get(kind, kind):
                raise UsageError(f"{place}.type: is {kind}, and {source} is {found['type']}")
            device["type"] = kind or found["type"]
            if not major and device["type"] != "p":
                device["major"], device["minor"] = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    if device["type"] != "p":
        device.setdefault("major", major)
        device.setdefault("minor", node.get("minor") or 0)
    if node.get("fileMode") is not None:
        device["fileMode"] = node["fileMode"] & 0o7777
    for key in ("uid", "gid"):
        if node.get(key) is not None:
            device[key] = node[key]
    access = node.get("permissions") or _ACCESS
    same = device["path"] == (node.get("hostPath") or node["path"])
    return Node(device, source, "" if access == "none" else access, place, same)


def _mount(mount: CdiMount, place: str) -> Mount:
    """A mount as a file describes it; without a type and options it's a bind mount, as all that vendors write are."""
    options = list(mount.get("options") or [])
    kind = mount.get("type") or ""
    bind = kind in ("", "none", "bind") or "bind" in options or "rbind" in options
    source = mount["hostPath"]
    if bind:
        if not os.path.isabs(source):
            raise UsageError(f"{place}.hostPath: must be an absolute path, not {shorten(source)!r}")
        if not os.path.exists(source):
            raise ImageNotFoundError(f"{place}.hostPath: {source} doesn't exist", "is its driver installed?")
        kind = "bind"
        if "bind" not in options and "rbind" not in options:
            options.insert(0, "rbind")
    return {
        "destination": _clean(mount["containerPath"]), "type": kind, "source": source, "options": options,
    }  # fmt: skip


def add(made: Config, edits: Edits, rules: Sequence[DeviceRule], plain: bool, privileged: bool) -> None:
    """Put it into a config. rules: those of --device-cgroup-rule. plain: the container is a plain user's.

    privileged: it may use all devices, so that no rule counts. Raises UsageError for what can't be where it is to be.
    """
    process, linux = made["process"], made["linux"]
    if edits.env:
        names = {entry.partition("=")[0] for entry in edits.env}
        kept = [entry for entry in process["env"] if entry.partition("=")[0] not in names]
        process["env"] = [*kept, *{entry.partition("=")[0]: entry for entry in edits.env}.values()]
    user = process.get("user")
    if edits.gids and user:
        user["additionalGids"] = [*(user.get("additionalGids") or []), *edits.gids]
    _add_mounts(made, edits.mounts)
    nodes = [node for node in edits.nodes if _has_place(node, made["mounts"])]
    nodes = list({node.device["path"]: node for node in nodes}.values())
    for node in nodes:
        for key in ("uid", "gid"):
            if user and user[key] and key not in node.device:
                node.device[key] = user[key]
    if plain:
        _mount_nodes(made, edits, nodes)
        if rules:
            edits.warnings.append("--device-cgroup-rule has no effect: a plain user can't make device nodes anyway")
        return
    paths = {node.device["path"] for node in nodes}
    mounted = {mount["destination"] for mount in made["mounts"] if mount.get("type") == "bind"}
    linux["devices"] = [device for device in linux["devices"] if device["path"] not in paths]
    if "/dev" not in mounted:
        linux["devices"] += [node.device for node in nodes]
    if not privileged:
        linux["resources"]["devices"] += [_rule(node) for node in nodes if node.access and node.device["type"] != "p"]
        linux["resources"]["devices"] += rules


def _rule(node: Node) -> DeviceRule:
    kind = "b" if node.device["type"] == "b" else "c"
    return {
        "allow": True, "type": kind, "major": node.device["major"], "minor": node.device["minor"],
        "access": node.access,
    }  # fmt: skip


def _add_mounts(made: Config, more: list[Mount]) -> None:
    """Those of the files replace what would be at the same place; what lies deeper is mounted later."""
    from .config import check_target

    for mount in more:
        check_target(mount["destination"])
    targets = {mount["destination"] for mount in more}
    kept = [mount for mount in made["mounts"] if mount["destination"] not in targets]
    made["mounts"] = sorted([*kept, *more], key=_depth)


def _depth(mount: Mount) -> int:
    return mount["destination"].count("/")


def _is_bind(mount: Mount) -> bool:
    return mount.get("type") == "bind"


def _has_place(node: Node, mounts: list[Mount]) -> bool:
    """Whether the node would be seen at its path; raises UsageError for one that was asked for and wouldn't."""
    path, problem = node.device["path"], ""
    if path in ("/", "/dev"):
        problem = "is a directory of the container"
    for mount in mounts:
        target, whole_dev = mount["destination"], _is_bind(mount) and mount["destination"] == "/dev"
        if target == path and not _is_bind(mount):
            problem = "is taken: something of the container's own is mounted there"
        elif target.startswith(path + "/"):
            problem = f"can't be a device: there is a mount at {target}"
        elif whole_dev and path.startswith("/dev/"):
            if mount.get("source") != "/dev" or not node.same:
                problem = "would be made in the host's directory that is mounted at /dev"
        elif path.startswith(target.rstrip("/") + "/") and target != "/dev":
            problem = f"would be hidden by the mount at {target}"
    if problem and not node.listed:
        raise UsageError(f"{node.option}: {path} {problem}", "give it another path, e.g. --device HOST:/dev/NAME")
    return not problem


def _mount_nodes(made: Config, edits: Edits, nodes: list[Node]) -> None:
    """The host's own nodes, each mounted at its path, unless something that was asked for is there already."""
    taken = {mount["destination"] for mount in made["mounts"] if _is_bind(mount)}
    if "/dev" in taken:
        taken |= {node.device["path"] for node in nodes}
    for node in nodes:
        path = node.device["path"]
        if path in taken:
            continue
        _tell_of_limits(edits, node)
        made["mounts"].append(
            {"destination": path, "type": "bind", "source": node.source, "options": ["bind", "rprivate"]}
        )
    made["mounts"].sort(key=_depth)


def _tell_of_limits(edits: Edits, node: Node) -> None:
    try:
        facts = os.stat(node.source)
    except OSError as error:
        hint = "a plain user's container is shown the host's nodes, as it can't make any"
        raise ImageNotFoundError(f"{node.option}: {node.source}: {error.strerror}", hint) from None
    own = {"fileMode": S_IMODE(facts.st_mode), "uid": facts.st_uid, "gid": facts.st_gid}
    if other := [key for key, value in own.items() if node.device.get(key, value) != value]:
        edits.warnings.append(f"{node.option}: {', '.join(other)} stay the host's, whose own node it is")
    if node.access and not node.listed and not {"r", "w"} <= set(node.access):
        edits.warnings.append(
            f"{node.option}: its permissions on the host are all that limits access, as a plain user can't"
        )
