"""Mapped mounts: the same files, shown with other owners, both ways, and nothing copied or changed on disk.

    mount --bind -o X-mount.idmap=b:0:100000:65536 SOURCE TARGET

A container in a user namespace of its own has ids that mean nothing to an image, whose files belong to root. So the
image is mounted with the namespace's map: what is root's on disk is shown as that of the id that is root inside, and
what is written comes to the disk as root's. The kernel takes such a map in the form of a user namespace.

man 2 mount_setattr (MOUNT_ATTR_IDMAP), man 7 user_namespaces, man 2 setfsuid
"""

from __future__ import annotations

from errno import EINVAL, EPERM
from select import POLLIN

from ..errors import KernelError, UnsupportedError
from ..plan.step import PARENT, Row, Slots, Step
from ..spec.mappings import outside_of
from ..unistd import os
from .mount_points import MakeFilesystem
from .mounts import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, OpenTree, attach, clone_tree
from .overlay import OpenOverlay
from .syscall import buffer, syscall
from .tmpfs import detach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.mappings import Rows

IDS = "ids"  # the slot of the container's own map
_CLONE_NEWUSER = 0x10000000
_NOBODY = (1 << 32) - 1  # no id: asks which it is
_MOUNT_ATTR_IDMAP = 0x00100000
_CAPABILITY_VERSION = (0x20080522).to_bytes(4, "little") + bytes(4)


def map_tree(tree: int, map: int, source: str, recursive: bool = False) -> None:
    """Give a tree that is attached nowhere a map, a descriptor of a user namespace; raises UnsupportedError.

    source: where it comes from, for people.
    """
    wanted = b"".join(field.to_bytes(8, "little") for field in (_MOUNT_ATTR_IDMAP, 0, 0, map))
    try:
        syscall("mount_setattr", tree, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), wanted, len(wanted))
    except KernelError as error:
        if error.errno not in (EINVAL, EPERM):
            raise
        raise UnsupportedError(
            f"the file system of {source} can't show its files with other owners",
            "ext4, xfs, btrfs and, since Linux 6.3, tmpfs can; leave --userns, or idmap, out, or use another place",
        ) from None


class MakeMap(Step):
    """Make a map of ids that mounts can have.

    slot: what to call it. users, groups: its rows, from ids on the disk to ids of the host. Finds "owners", the rows of
    the container's own map.
    """

    __slots__ = ("groups", "slot", "users")

    phase = "namespaces"
    why = "the kernel takes a map as a user namespace: a process lives in one just long enough for it to be opened"
    man = "mount_setattr(2), user_namespaces(7)"

    def __init__(self, slot: str, users: Rows, groups: Rows) -> None:
        super().__init__(PARENT)
        self.slot = slot
        self.users = users
        self.groups = groups

    def gives(self) -> tuple[str, ...]:
        return (self.slot,)

    def apply(self, slots: Slots) -> None:
        slots.give(self.slot, make_map(self.users, self.groups))
        if self.slot == IDS:
            slots.found["owners"] = self.users, self.groups

    def call(self) -> str:
        return f'clone3(CLONE_NEWUSER), write("uid_map", "{shown(self.users)}"), write("gid_map", …), open("ns/user")'

    def shell(self) -> str:
        return f"unshare --user --map-users={':'.join(map(str, self.users[0]))} sleep 1 &"


def shown(rows: Rows) -> str:
    """A map as it stands in /proc/PID/uid_map, on one line."""
    return "; ".join(" ".join(map(str, row)) for row in rows[:3]) + ("; …" if len(rows) > 3 else "")


def make_map(users: Rows, groups: Rows) -> int:
    """A descriptor of a user namespace with these maps, in which nobody is."""
    from .guard import dismiss, start_helper
    from .root_maps import write_maps

    theirs, ours = os.pipe()  # the helper ends when nobody holds our end any more, this process included
    try:
        waiting = theirs.to_bytes(4, "little") + POLLIN.to_bytes(4, "little")
        rows = [Row("ppoll", (waiting, 1, 0, 0, 8), optional=True)]
        pid = start_helper(rows, theirs, b"tarbox-map", _CLONE_NEWUSER, [theirs])
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        write_maps(pid, users, groups)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        dismiss((pid, ours))


class MakeFilesAs(Step):
    """What this process makes from here on belongs to these ids of the host; its rights stay what they were.

    Finds "files as", whose they were before.
    """

    __slots__ = ("group", "user")

    phase = "namespaces"
    why = "the directories, nodes and links that are made for the container are to be its root's, and not the host's"
    man = "setfsuid(2), capset(2)"

    def __init__(self, user: int, group: int) -> None:
        super().__init__(PARENT)
        self.user = user
        self.group = group

    def finds(self) -> tuple[str, ...]:
        return ("files as",)

    def apply(self, slots: Slots) -> None:
        slots.found["files as"] = syscall("setfsuid", _NOBODY), syscall("setfsgid", _NOBODY)
        make_files_as(self.user, self.group)

    def call(self) -> str:
        return f"setfsgid({self.group}), setfsuid({self.user}), capset(effective = permitted)"


class MakeFilesAsBefore(Step):
    """What this process makes is its own again."""

    __slots__ = ()

    phase = "namespaces"
    why = "all that is made for the container is there; who runs a program as somebody else would lose rights by it"
    man = "setfsuid(2), capset(2)"

    def __init__(self) -> None:
        super().__init__(PARENT)

    def uses(self) -> tuple[str, ...]:
        return ("files as",)

    def apply(self, slots: Slots) -> None:
        make_files_as(*slots.found["files as"])  # type: ignore[misc]

    def call(self) -> str:
        return "setfsgid(GID), setfsuid(UID), capset(effective = permitted)"


class MakeOwned(MakeFilesystem):
    """The same file system, whose top belongs to these ids: devpts leaves it to the machine's root."""

    __slots__ = ("group", "user")

    man = "fsopen(2), fsmount(2), chown(2)"

    def __init__(self, made: MakeFilesystem, user: int, group: int) -> None:
        super().__init__(made.kind, made.slot, made.target, made.attributes, made.options, made.source)
        self.user = user
        self.group = group

    def apply(self, slots: Slots) -> None:
        super().apply(slots)
        os.chown(f"/proc/self/fd/{slots.take(self.slot)}", self.user, self.group)

    def call(self) -> str:
        return f"{super().call()}, chown({self.user}, {self.group})"


def make_files_as(user: int, group: int) -> None:
    """Have new files belong to these ids, without losing a capability."""
    syscall("setfsgid", group)
    syscall("setfsuid", user)
    held = buffer(24)
    syscall("capget", _CAPABILITY_VERSION, held)
    data = bytes(held)  # effective, permitted, inheritable, twice
    raised = b"".join(data[at + 4 : at + 8] + data[at + 4 : at + 12] for at in (0, 12))
    syscall("capset", _CAPABILITY_VERSION, raised)


class OpenMappedTree(OpenTree):
    """The same, with the map in a slot. deep: whether it is for the mounts below, too."""

    __slots__ = ("deep", "map")

    why = "nothing is copied or changed: the kernel shows the files with the owners that the container knows"

    def __init__(self, tree: OpenTree, map: str = IDS, deep: bool = False) -> None:
        super().__init__(
            tree.source, tree.slot, tree.recursive, tree.attributes, tree.cleared, tree.propagation, tree.recursively
        )
        self.map = map
        self.deep = deep

    def takes(self) -> tuple[str, ...]:
        return (self.map,)

    def apply(self, slots: Slots) -> None:
        super().apply(slots)
        map_tree(slots.take(self.slot), slots.take(self.map), self.source, self.deep)

    def call(self) -> str:
        return f"{super().call()}, mount_setattr(MOUNT_ATTR_IDMAP, {self.map})"

    def shell(self) -> str:
        return f"mount --{'r' if self.recursive else ''}bind -o X-mount.idmap=… {self.source} …"


class OpenMappedOverlay(OpenOverlay):
    """The same of layers that are shown with the container's map; its upper directory has the owners that it knows.

    A layer with a map has to be attached somewhere to be taken as one, and is, beside the upper directory, until the
    overlay holds it.
    """

    __slots__ = ()

    why = "the image's files are shown with the owners that the container knows, and none is copied for that"
    man = "mount_setattr(2), overlayfs"

    def __init__(self, overlay: OpenOverlay) -> None:
        super().__init__(overlay.slot, overlay.lower, overlay.upper, overlay.work, overlay.options)

    def takes(self) -> tuple[str, ...]:
        return (IDS,)

    def record(self) -> tuple[tuple[str, str], ...]:
        return tuple(("mount", place) for place in self._places())

    def apply(self, slots: Slots) -> None:
        places = self._places()
        try:
            for layer, place in zip(self.lower, places, strict=True):
                os.mkdir(place, 0o700)
                _show(layer, place, slots.take(IDS))
            shown = OpenOverlay(self.slot, tuple(places), self.upper, self.work, self.options)
            shown.apply(slots)
        finally:
            for place in places:
                detach(place)

    def _places(self) -> list[str]:
        return [f"{self.upper}-layer{number}" for number in range(len(self.lower))]

    def call(self) -> str:
        return f"mount_setattr({', '.join(self.lower)}, MOUNT_ATTR_IDMAP, {IDS}), {super().call()}"

    def shell(self) -> str:
        mapped = [
            f"mount --bind -o X-mount.idmap=… {layer} {place}"
            for layer, place in zip(self.lower, self._places(), strict=True)
        ]
        return "; ".join([*mapped, OpenOverlay("", tuple(self._places()), self.upper, self.work, self.options).shell()])


def _show(layer: str, place: str, map: int) -> None:
    """Attach a layer with the map at a directory of ours."""
    tree = clone_tree(AT_FDCWD, layer)
    try:
        map_tree(tree, map, layer)
        target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            attach(tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def owner(slots: Slots, user: int, group: int) -> tuple[int, int]:
    """The ids of the host for two of the container's; the same where it has no map, and where they aren't in it."""
    owners = slots.found.get("owners")
    if owners is None:
        return user, group
    assert isinstance(owners, tuple)
    outside = outside_of(owners[0], user), outside_of(owners[1], group)
    return user if outside[0] is None else outside[0], group if outside[1] is None else outside[1]
