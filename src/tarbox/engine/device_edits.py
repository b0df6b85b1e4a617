"""What devices add to a container, looked up on this machine.

    stat -c '%F %t:%T %a %u:%g' /dev/fuse         ls -lR /dev/snd

This asks the machine; `device_config` writes what comes of it into the config and asks for nothing, so that a config
can be made for a machine that isn't this one.

man 2 stat, man 7 inode; https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from __future__ import annotations

from ..errors import ImageNotFoundError, UnsupportedError, UsageError
from ..unistd import S_IMODE, S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, os
from .devices import DeviceOption
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.cdi import CdiMount, ContainerEdits, DeviceNode
    from ..spec.runtime import Device, Mount
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

    option: how it was asked for. same: whether its path is the one on the host. facts: of the host's node, None where
    there is none. listed: whether it was only found in a directory, and may be passed over. allowed: what of "rw" the
    host lets the caller do with it.
    """

    __slots__ = ("access", "allowed", "device", "facts", "listed", "option", "same", "source")

    def __init__(
        self, device: Device, source: str, access: str, option: str, same: bool, facts: os.stat_result | None,
        listed: bool = False,
    ) -> None:  # fmt: skip
        self.device = device
        self.source = source
        self.access = access
        self.option = option
        self.same = same
        self.facts = facts
        self.listed = listed
        self.allowed = "".join(
            letter for letter, mode in (("r", os.R_OK), ("w", os.W_OK)) if facts and os.access(source, mode)
        )


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
        return [Node(device, source, option.access, shown, option.source == option.target, facts)]
    if source == "/":
        raise UsageError(f"{shown} would search all of the machine for devices", "e.g. --device /dev/snd")
    found: list[Node] = []
    for above, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = f"{above}/{name}"
            facts = os.lstat(path)  # not through links, which would show a device twice
            device = _device(facts, option.target + path[len(source) :])
            if device is not None:
                same = option.source == option.target
                found.append(Node(device, path, option.access, shown, same, facts, listed=True))
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

    near = suggest(name, names) or suggest(name.lower(), names)
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
            if key == "hooks":
                what += ", " + " and ".join(f"{hook['path']} ({hook['hookName']})" for hook in more["hooks"])
                hint += ", and have the container's command do what they did, e.g. ldconfig"
            raise UnsupportedError(f"{place}.{key}: this version of tarbox can't do that yet: {what}", hint)
    edits.env += more.get("env") or []
    for index, node in enumerate(more.get("deviceNodes") or []):
        edits.nodes.append(_described(node, f"{place}.deviceNodes[{index}]"))
    for index, mount in enumerate(more.get("mounts") or []):
        edits.mounts.append(_mount(mount, f"{place}.mounts[{index}]"))
    gids = [*(more.get("additionalGids") or []), *(more.get("additionalGIDs") or [])]  # type: ignore[misc]
    edits.gids = [*dict.fromkeys(edits.gids + [gid for gid in gids if gid])]


def _described(node: DeviceNode, place: str) -> Node:
    """A node as a file describes it, with what it leaves out filled in from the host's."""
    source = os.path.realpath(node.get("hostPath") or node["path"])
    kind, major = node.get("type") or "", node.get("major") or 0
    whole = bool(kind) and (major != 0 or kind == "p")
    device: Device = {"type": kind, "path": _clean(node["path"])}
    facts = None
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
    return Node(device, source, "" if access == "none" else access, place, same, facts)


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
