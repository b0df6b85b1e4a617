"""Mounts: which file systems a process sees, and where. By descriptor: made first, attached afterwards.

    mount -t tmpfs -o size=64m,mode=1777 shm /dev/shm        mount --bind -o ro SOURCE TARGET        findmnt

A mount has three parts here, each its own call: a tree (made by `fsopen`/`fsmount`, or cloned from a directory by
`open_tree`), its attributes (`mount_setattr`), and the place where it's attached (`move_mount`). A tree that isn't
attached yet is seen by nobody. Targets are opened inside the container's root by descriptor, so no symlink in an
image can move a mount elsewhere.

man 2 fsopen, man 2 open_tree, man 2 mount_setattr, man 2 move_mount, man 7 mount_namespaces
"""

from __future__ import annotations

from errno import EINVAL, ENOSYS, ENOTDIR, EOVERFLOW

from ..errors import KernelError
from ..plan.step import PARENT, Register, Row, Slots, Step
from ..unistd import os
from .syscall import syscall

AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH = -100, 0x8000, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x4000, 1 << 17, 1 << 18, 1 << 19, 1 << 20
MOVE_BY_DESCRIPTOR = 0x04 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6

# MOUNT_ATTR_…, by the names that mount(8) uses
ATTRIBUTES = {
    "ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x10, "strictatime": 0x20, "nodiratime": 0x80,
    "nosymfollow": 0x200000,
}  # fmt: skip
_ATIME = 0x70
PROPAGATION = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": MS_UNBINDABLE}
_MISFIT = "a directory can't be mounted on a file, nor a file on a directory"
REASONS = {
    ENOTDIR: _MISFIT,
    EINVAL: _MISFIT,
    EOVERFLOW: "the directory belongs to a user or group that this container doesn't have; chown it to yourself",
}
OLD_KERNEL = "tarbox needs Linux 5.12 or newer"


def new_filesystem(kind: str, options: tuple[str, ...], attributes: tuple[str, ...] = (), source: str = "") -> int:
    """Make a file system instance that is attached nowhere; returns its descriptor, raises KernelError.

    kind: e.g. "tmpfs". options: the file system's own, "size=64m" or "userxattr". attributes: see ATTRIBUTES.
    """
    context = syscall("fsopen", kind.encode(), 1, hint=f"does this kernel have {kind}? {OLD_KERNEL}")
    try:
        try:
            _set(context, "source", source or kind)
            for option in options:
                name, has_value, value = option.partition("=")
                _set(context, name, value if has_value else None)
            syscall("fsconfig", context, FSCONFIG_CMD_CREATE, None, None, 0)
        except KernelError as error:
            raise KernelError("mount", (kind, *options), error.errno, complaint(context)) from None
        return syscall("fsmount", context, 1, bits(attributes))
    finally:
        os.close(context)


def _set(context: int, name: str, value: str | None) -> None:
    if value is None:
        syscall("fsconfig", context, FSCONFIG_SET_FLAG, name.encode(), None, 0)
    else:
        syscall("fsconfig", context, FSCONFIG_SET_STRING, name.encode(), os.fsencode(value), 0)


def complaint(context: int) -> str:
    """What the file system itself says of its failure."""
    try:
        said = os.read(context, 4096).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return said[2:] if said[1:2] == " " else said


def clone_tree(directory: int, path: str = "", recursive: bool = False) -> int:
    """Clone the mount at `path` (of the descriptor itself when empty) into a tree that is attached nowhere."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return syscall("open_tree", directory, os.fsencode(path), flags)


def set_attributes(
    tree: int,
    attributes: tuple[str, ...],
    cleared: tuple[str, ...] = (),
    propagation: str = "",
    recursive: bool = False,
) -> None:
    """Set and clear attributes of a tree; propagation: "private", "slave", "shared", "unbindable" or "".

    recursive: of the mounts below it too.
    """
    setting, clearing = bits(attributes), bits(cleared)
    if (setting | clearing) & _ATIME:
        clearing |= _ATIME  # the access time's attributes are one field: it's cleared before it's set
    fields = (setting, clearing, PROPAGATION.get(propagation, 0), 0)
    if any(fields):
        wanted = b"".join(field.to_bytes(8, "little") for field in fields)
        try:
            syscall("mount_setattr", tree, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), wanted, len(wanted))
        except KernelError as error:
            words = [*attributes, *[f"-{name}" for name in cleared], propagation]
            shown = ",".join(word for word in words if word)
            hint = OLD_KERNEL if error.errno == ENOSYS else ""
            raise KernelError("mount_setattr", (shown,), error.errno, hint) from None


def attach(tree: int, target: int) -> None:
    """Attach a tree at the place that the descriptor `target` points at."""
    syscall("move_mount", tree, b"", target, b"", MOVE_BY_DESCRIPTOR)


def attaching(tree: int | Register, place: int | Register) -> Row:
    """The row that attaches a tree at a place."""
    return Row("move_mount", (tree, b"", place, b"", MOVE_BY_DESCRIPTOR))


def attributes_of(attributes: tuple[str, ...], recursive: bool = False) -> tuple[int, bytes, int]:
    """What mount_setattr(2) is told, after the descriptor and an empty path, to set attributes."""
    wanted = bits(attributes).to_bytes(8, "little") + bytes(24)
    return AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), wanted, len(wanted)


def bits(attributes: tuple[str, ...]) -> int:
    """The attributes as the kernel's number."""
    bits = 0
    for name in attributes:
        bits |= ATTRIBUTES[name]
    return bits


def shown_flags(attributes: tuple[str, ...]) -> str:
    """The attributes as people read them in a call."""
    return "|".join(f"MOUNT_ATTR_{'RDONLY' if name == 'ro' else name.upper()}" for name in attributes) or "0"


class PrivateMounts(Step):
    """Cut the mounts of the new namespace off from those of the host."""

    __slots__ = ()

    phase = "namespaces"
    why = "the new mount namespace is a copy whose mounts still pass news to the host's; from here on they don't"
    man = "mount(2), mount_namespaces(7)"

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("mount", (0, b"/", 0, MS_REC | MS_PRIVATE, 0))]

    def call(self) -> str:
        return 'mount(NULL, "/", NULL, MS_REC|MS_PRIVATE)'

    def shell(self) -> str:
        return "mount --make-rprivate /"


class OpenTree(Step):
    """Clone a directory or file of the host into a tree that is attached nowhere yet.

    source: its path on the host. slot: what to call it. attributes, cleared: see `set_attributes`. recursive: with the
    mounts below it; recursively: whether the attributes are for those too. propagation: as for `set_attributes`, with
    an "r" before it for those too.
    """

    __slots__ = ("attributes", "cleared", "propagation", "recursive", "recursively", "slot", "source")

    phase = "filesystem"
    why = (
        "what is mounted from the host is opened before the container's root is entered, and seen by nobody until then"
    )
    man = "open_tree(2), mount_setattr(2)"

    def __init__(
        self, source: str, slot: str, recursive: bool = True, attributes: tuple[str, ...] = (),
        cleared: tuple[str, ...] = (), propagation: str = "rprivate", recursively: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(PARENT)
        self.source = source
        self.slot = slot
        self.recursive = recursive
        self.attributes = attributes
        self.cleared = cleared
        self.propagation = propagation
        self.recursively = recursively

    def gives(self) -> tuple[str, ...]:
        return (self.slot,)

    def apply(self, slots: Slots) -> None:
        tree = clone_tree(AT_FDCWD, self.source, self.recursive)
        slots.give(self.slot, tree)
        try:
            set_attributes(tree, self.attributes, self.cleared, recursive=self.recursively and self.recursive)
            propagation, deep = self.propagation.removeprefix("r"), self.propagation.startswith("r")
            set_attributes(tree, (), (), propagation, deep and self.recursive)
        except KernelError as error:
            raise KernelError(error.call, (self.source, *(error.arguments or ())), error.errno, error.hint) from None

    def call(self) -> str:
        clone = f'open_tree("{self.source}", OPEN_TREE_CLONE{"|AT_RECURSIVE" if self.recursive else ""})'
        return f"{clone}, mount_setattr({shown_flags(self.attributes)})" if self.attributes else clone

    def shell(self) -> str:
        options = ",".join(self.attributes)
        return f"mount --{'r' if self.recursive else ''}bind {f'-o {options} ' if options else ''}{self.source} …"


class MakeSource(Step):
    """Make the directory of the host that is to be mounted, when there is nothing; it stays."""

    __slots__ = ("path",)

    phase = "host"
    why = "-v makes a missing source, as Docker does; --mount refuses it"
    man = "mkdir(2)"

    def __init__(self, path: str) -> None:
        super().__init__(PARENT)
        self.path = path

    def apply(self, slots: Slots) -> None:
        try:
            os.makedirs(self.path, 0o755, exist_ok=True)
        except OSError as error:
            if not os.path.exists(self.path):
                raise KernelError("mkdir", (self.path,), error.errno or 0) from None

    def call(self) -> str:
        return f'mkdir("{self.path}", 0755)'

    def shell(self) -> str:
        return f"mkdir -p {self.path}"
