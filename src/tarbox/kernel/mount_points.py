"""Mount points: the places in the container where something is mounted, and what is mounted there.

    mkdir -p $ROOT/data; mount --bind SOURCE $ROOT/data        findmnt -R $ROOT

The places are found before the container's root is entered, while nobody else is in it: each is a descriptor. What then
happens inside is no more than attaching one descriptor at another.

man 2 openat2, man 2 move_mount, man 2 fsopen
"""

from __future__ import annotations

from ..errors import ImageError, KernelError
from ..plan.step import PARENT, RUNNER, Register, Row, Slots, Step
from ..unistd import S_ISDIR, os
from . import paths
from .mounts import (
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    OLD_KERNEL,
    REASONS,
    attaching,
    attributes_of,
    bits,
    new_filesystem,
    shown_flags,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError


_WHY = {
    "proc": "programs such as ps read /proc; it must show the processes of the container's PID namespace alone",
    "sysfs": "/sys shows devices and the network interfaces of the container's own network namespace",
    "overlay": "what is written here goes to a directory of the container's own; the one below stays as it is",
    "tmpfs": "files in memory, gone with the container",
    "devpts": "the container's own pseudo-terminals: its /dev/pts/0 is nobody else's",
    "mqueue": "the POSIX message queues of the container's own IPC namespace",
    "cgroup": "programs read their own limits here; the cgroup namespace makes the container's group the top",
    "cgroup2": "programs read their own limits here; the cgroup namespace makes the container's group the top",
}


def tree_of(slots: Slots) -> paths.Tree:
    """The container's files as they are put together, from the slot "tree"."""
    tree = slots.found.get("tree")
    if tree is None:
        tree = slots.found["tree"] = paths.Tree(slots.take("tree"))
    assert isinstance(tree, paths.Tree)
    return tree


def refuse_proc(tree: paths.Tree, place: int | paths.Beyond, target: str) -> None:
    """Raise ImageError when a link of the image leads `target`, which isn't named so, into /proc.

    What is mounted over files of /proc decides what those who set the container up read there and write there.
    """
    inside = place.slot == "/proc" if isinstance(place, paths.Beyond) else paths.filesystem_of(place) == paths.PROC
    if inside and target.strip("/").partition("/")[0] != "proc":
        raise ImageError(f"{target} in the container leads into /proc", "nothing is mounted there: use another image")


def place_rows(slots: Slots, slot: str, register: int = 2, flags: int = 0) -> tuple[list[Row], int | Register]:
    """For a step of the runner: the rows that open a place which `FindPlace` found, and what then stands for it.

    Nothing is opened where the parent has a descriptor of it already. register: where it is kept otherwise. flags: of
    open(2), beside O_PATH.
    """
    beyond = slots.found.get(slot)
    if not isinstance(beyond, paths.Beyond):
        return [], slots.take(slot)
    return [paths.opening(slots.argument(beyond.slot), beyond.rest, register, flags)], Register(register)


class FindPlace(Step):
    """Find the place in the container where something will be mounted, by descriptor; make it when it's missing.

    target: its path. slot: what to call the place. tree: the slot of what will be mounted there; a missing place
    becomes what that is, a directory or a file. It may be one that the runner fills later: then it's a directory.
    """

    __slots__ = ("slot", "target", "tree")

    phase = "filesystem"
    why = "the place is found inside the container's root by descriptor: no symlink in the image can move it"
    man = "openat2(2)"

    def __init__(self, target: str, slot: str, tree: str) -> None:
        super().__init__(PARENT)
        self.target = target
        self.slot = slot
        self.tree = tree

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def gives(self) -> tuple[str, ...]:
        return (self.slot,)

    def apply(self, slots: Slots) -> None:
        tree = tree_of(slots)
        top = slots.descriptors.get(self.tree)
        file = top is not None and not S_ISDIR(os.fstat(top).st_mode)
        try:
            if file:
                found, place = tree.find(self.target, os.O_PATH, 0o755, 0o644)
            else:
                found, place = tree.find(self.target, os.O_PATH | os.O_DIRECTORY, 0o755)
        except KernelError as error:
            hint = REASONS.get(error.errno, error.hint)
            raise KernelError("openat2", (self.target, "RESOLVE_IN_ROOT"), error.errno, hint) from None
        if isinstance(place, paths.Beyond):
            slots.found[self.slot] = place
        else:
            slots.give(self.slot, place)
        refuse_proc(tree, place, self.target)
        tree.mount(found, self.tree if top is None else top)

    def call(self) -> str:
        return f'openat2(ROOT, "{self.target}", {{O_PATH, RESOLVE_IN_ROOT}})'

    def shell(self) -> str:
        return f"mkdir -p $ROOT{self.target}"


class AttachTree(Step):
    """Attach a tree at a place inside the container's root.

    slot: the tree's. place: the slot of the place, see `FindPlace`. target: the place's path.
    """

    __slots__ = ("place", "slot", "target")

    phase = "filesystem"
    why = "what was made outside appears in the container, at a place that was found before"
    man = "move_mount(2)"

    def __init__(self, slot: str, place: str, target: str) -> None:
        super().__init__(RUNNER)
        self.slot = slot
        self.place = place
        self.target = target

    def takes(self) -> tuple[str, ...]:
        return (self.slot, self.place)

    def rows(self, slots: Slots) -> list[Row]:
        rows, place = place_rows(slots, self.place)
        return [*rows, attaching(slots.argument(self.slot), place)]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        return KernelError("move_mount", (self.slot, self.target), errno, REASONS.get(errno, ""))

    def call(self) -> str:
        return f'move_mount({self.slot}, "{self.target}")'

    def shell(self) -> str:
        return f"mount --move … $ROOT{self.target}"


class ReadOnlyMount(Step):
    """Make one mount of the container read only, after what lies on it is there.

    slot: the mount's tree. path: where it is, for people.
    """

    __slots__ = ("path", "slot")

    phase = "filesystem"
    why = "the directories for the mounts on it had to be made first"
    man = "mount_setattr(2)"

    def __init__(self, slot: str, path: str) -> None:
        super().__init__(RUNNER)
        self.slot = slot
        self.path = path

    def takes(self) -> tuple[str, ...]:
        return (self.slot,)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("mount_setattr", (slots.argument(self.slot), b"", *attributes_of(("ro",))))]

    def call(self) -> str:
        return f'mount_setattr("{self.path}", MOUNT_ATTR_RDONLY)'

    def shell(self) -> str:
        return f"mount -o remount,bind,ro $ROOT{self.path}"


class MakeFilesystem(Step):
    """Make a file system that isn't attached yet.

    kind: its type. slot: what to call it. attributes: see ATTRIBUTES. options: the file system's own. target: where it
    will be attached, for people.
    """

    __slots__ = ("attributes", "kind", "options", "slot", "source", "target")

    phase = "filesystem"
    man = "fsopen(2), fsmount(2)"

    def __init__(
        self, kind: str, slot: str, target: str, attributes: tuple[str, ...], options: tuple[str, ...] = (),
        source: str = "", by: str = PARENT,
    ) -> None:  # fmt: skip
        super().__init__(by)
        self.kind = kind
        self.slot = slot
        self.target = target
        self.attributes = attributes
        self.options = options
        self.source = source or kind

    @property
    def why(self) -> str:  # type: ignore[override]
        return _WHY.get(self.kind, "a file system that the kernel makes up")

    def gives(self) -> tuple[str, ...]:
        return (self.slot,)

    def apply(self, slots: Slots) -> None:
        slots.give(self.slot, new_filesystem(self.kind, self.options, self.attributes, self.source))

    def call(self) -> str:
        options = ",".join(self.options)
        return f'mount("{self.source}", "{self.target}", "{self.kind}", {shown_flags(self.attributes)}, "{options}")'

    def shell(self) -> str:
        options = ",".join((*self.attributes, *self.options))
        return f"mount -t {self.kind} {f'-o {options} ' if options else ''}{self.source} $ROOT{self.target}"


class MountFilesystem(MakeFilesystem):
    """Mount a file system of the kernel's that shows a namespace of its maker's (proc, sysfs, mqueue, cgroup …).

    place: the slot of where it goes, see `FindPlace`.
    """

    __slots__ = ("place",)

    man = "fsopen(2), fsmount(2), move_mount(2)"

    def __init__(
        self, kind: str, slot: str, place: str, target: str, attributes: tuple[str, ...], options: tuple[str, ...] = (),
        source: str = "",
    ) -> None:  # fmt: skip
        super().__init__(kind, slot, target, attributes, options, source, RUNNER)
        self.place = place

    def takes(self) -> tuple[str, ...]:
        return (self.place,)

    def rows(self, slots: Slots) -> list[Row]:
        context, made = Register(3), slots.register(self.slot)
        rows = [Row("fsopen", (self.kind.encode(), 1), store=3)]
        for option in (f"source={self.source}", *self.options):
            name, has_value, value = option.partition("=")
            how = FSCONFIG_SET_STRING if has_value else FSCONFIG_SET_FLAG
            rows.append(Row("fsconfig", (context, how, name.encode(), os.fsencode(value) if has_value else 0, 0)))
        rows += [
            Row("fsconfig", (context, FSCONFIG_CMD_CREATE, 0, 0, 0)),
            Row("fsmount", (context, 1, bits(self.attributes)), store=made.number),
        ]
        opening, place = place_rows(slots, self.place)
        return [*rows, *opening, attaching(made, place)]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        hint = f"does this kernel have {self.kind}? {OLD_KERNEL}" if row == 0 else REASONS.get(errno, "")
        return KernelError("mount", (self.kind, self.target, *self.options), errno, hint)
