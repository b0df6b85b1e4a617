"""Devices in a container's config: nodes and rules for root's containers, mounts for a plain user's.

    mknod -m 600 $ROOT/dev/fuse c 10 229; echo 'c 10:229 rwm' > devices.allow
    touch $ROOT/dev/fuse; mount --bind /dev/fuse $ROOT/dev/fuse

Root's containers get nodes of their own with the host's numbers, mode and owner, and a rule of the devices cgroup for
each. A plain user may make no node: such a container gets the host's own, each mounted by itself.

man 2 mknod; https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#devices
"""

from __future__ import annotations

from ..errors import ImageNotFoundError, UsageError
from ..unistd import S_IMODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Config, DeviceRule, Mount
    from .device_edits import Edits, Node


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
    if edits.mounts:
        _add_mounts(made, edits.mounts)
    nodes = [node for node in edits.nodes if _has_place(node, made["mounts"])]
    nodes = list({node.device["path"]: node for node in nodes}.values())
    for node in nodes:
        for key in ("uid", "gid"):
            if user and user[key] and key not in node.device:
                node.device[key] = user[key]
    if any(namespace["type"] == "user" for namespace in linux["namespaces"]):
        _mount_nodes(made, edits, nodes, plain)
    else:
        paths = {node.device["path"] for node in nodes}
        linux["devices"] = [device for device in linux["devices"] if device["path"] not in paths]
        if not any(_is_bind(mount) and mount["destination"] == "/dev" for mount in made["mounts"]):
            linux["devices"] += [node.device for node in nodes]
    if plain and edits.gids:
        shown = ", ".join(map(str, edits.gids))
        edits.warnings.append(f"the groups {shown} of a CDI file are left out: a plain user has one group inside")
    if plain or privileged:
        why = "a plain user can't make device nodes anyway" if plain else "--privileged allows all devices"
        edits.warnings += [f"--device-cgroup-rule has no effect: {why}"] if rules else []
        return
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
        if mount["destination"] == "/":
            raise UsageError("a CDI file mounts something at / itself", "its containerPath has to be below it")
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


def _mount_nodes(made: Config, edits: Edits, nodes: list[Node], plain: bool) -> None:
    """The host's own nodes, each mounted at its path, unless something that was asked for is there already."""
    taken = {mount["destination"] for mount in made["mounts"] if _is_bind(mount)}
    if "/dev" in taken:
        taken |= {node.device["path"] for node in nodes}
    for node in nodes:
        path = node.device["path"]
        if path in taken:
            continue
        _tell_of_limits(edits, node, plain)
        made["mounts"].append(
            {"destination": path, "type": "bind", "source": node.source, "options": ["bind", "rprivate"]}
        )
    made["mounts"].sort(key=_depth)


def _tell_of_limits(edits: Edits, node: Node, plain: bool) -> None:
    """Say what of it can't be had with the host's own node, and what a plain user can't do with it."""
    if node.facts is None:
        hint = "no node can be made in a user namespace, so the container is shown the host's"
        raise ImageNotFoundError(f"{node.option}: {node.source} doesn't exist on the host", hint)
    own = {"fileMode": S_IMODE(node.facts.st_mode), "uid": node.facts.st_uid, "gid": node.facts.st_gid}
    if other := [key for key, value in own.items() if node.device.get(key, value) != value]:
        edits.warnings.append(f"{node.option}: {', '.join(other)} stay the host's, whose own node it is")
    if not plain or node.listed:
        return
    if node.access and not {"r", "w"} <= set(node.access):
        edits.warnings.append(
            f"{node.option}: its permissions on the host are all that limits access, as a plain user can't"
        )
    words = {"r": "read", "w": "write"}
    if missing := [word for letter, word in words.items() if letter in node.access and letter not in node.allowed]:
        edits.warnings.append(
            f"{node.option}: you may not {' or '.join(missing)} {node.source}, and neither may your container"
            f" (ls -l {node.source}; is there a group for it that you could be in?)"
        )
