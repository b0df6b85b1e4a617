"""Mounts: which file systems a process sees, and where. By descriptor: made first, attached afterwards.

    mount -t tmpfs -o size=64m,mode=1777 shm /dev/shm        mount --bind -o ro SOURCE TARGET        findmnt

A mount has three parts here, each its own call: a tree (made by `fsopen`/`fsmount`, or cloned from a directory by
`open_tree`), its attributes (`mount_setattr`), and the place where it's attached (`move_mount`). A tree that isn't
attached yet is seen by nobody. Targets are opened inside the container's root by descriptor, so no symlink in an
image can move a mount elsewhere.

man 2 fsopen, man 2 open_tree, man 2 mount_setattr, man 2 move_mount, man 7 mount_namespaces
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOSYS, ENOTDIR, EOVERFLOW
from stat import S_ISDIR

from ..errors import ImageError, KernelError
from ..plan.step import CHILD, PARENT, Slots, Step
from . import paths
from .syscall import syscall

AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH = -100, 0x8000, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x4000, 1 << 17, 1 << 18, 1 << 19, 1 << 20
_MOVE_FROM_EMPTY, _MOVE_TO_EMPTY = 0x04, 0x40
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6

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
_OLD_KERNEL = "tarbox needs Linux 5.12 or newer"


def new_filesystem(kind: str, options: tuple[str, ...], attributes: tuple[str, ...] = (), source: str = "") -> int:
    """Make a file system instance that is attached nowhere; returns its descriptor, raises KernelError.

    kind: e.g. "tmpfs". options: the file system's own, "size=64m" or "userxattr". attributes: see ATTRIBUTES.
    """
    context = syscall("fsopen", kind.encode(), 1, hint=f"does this kernel have {kind}? {_OLD_KERNEL}")
    try:
        try:
            _set(context, "source", source or kind)
            for option in options:
                name, has_value, value = option.partition("=")
                _set(context, name, value if has_value else None)
            syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        except KernelError as error:
            raise KernelError("mount", (kind, *options), error.errno, complaint(context)) from None
        return syscall("fsmount", context, 1, _bits(attributes))
    finally:
        os.close(context)


def _set(context: int, name: str, value: str | None) -> None:
    if value is None:
        syscall("fsconfig", context, _FSCONFIG_SET_FLAG, name.encode(), None, 0)
    else:
        syscall("fsconfig", context, _FSCONFIG_SET_STRING, name.encode(), os.fsencode(value), 0)


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
    setting, clearing = _bits(attributes), _bits(cleared)
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
            hint = _OLD_KERNEL if error.errno == ENOSYS else ""
            raise KernelError("mount_setattr", (shown,), error.errno, hint) from None


def attach(tree: int, target: int) -> None:
    """Attach a tree at the place that the descriptor `target` points at."""
    syscall("move_mount", tree, b"", target, b"", _MOVE_FROM_EMPTY | _MOVE_TO_EMPTY)


def refuse_proc(place: int, target: str) -> None:
    """Raise ImageError when a link of the image leads `target`, which isn't named so, into /proc.

    What is mounted over files of /proc decides what those who set the container up read there and write there.
    """
    if paths.filesystem_of(place) == paths.PROC and target.strip("/").partition("/")[0] != "proc":
        raise ImageError(f"{target} in the container leads into /proc", "nothing is mounted there: use another image")


def _bits(attributes: tuple[str, ...]) -> int:
    bits = 0
    for name in attributes:
        bits |= ATTRIBUTES[name]
    return bits


def _flags(attributes: tuple[str, ...]) -> str:
    return "|".join(f"MOUNT_ATTR_{'RDONLY' if name == 'ro' else name.upper()}" for name in attributes) or "0"


class PrivateMounts(Step):
    """Cut the mounts of the new namespace off from those of the host."""

    __slots__ = ()

    phase = "namespaces"
    why = "the new mount namespace is a copy whose mounts still pass news to the host's; from here on they don't"
    man = "mount(2), mount_namespaces(7)"

    def apply(self, slots: Slots) -> None:
        syscall("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)

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
        cleared: tuple[str, ...] = (), propagation: str = "rprivate", recursively: bool = True, by: str = CHILD,
    ) -> None:  # fmt: skip
        super().__init__(by)
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
        return f"{clone}, mount_setattr({_flags(self.attributes)})" if self.attributes else clone

    def shell(self) -> str:
        options = ",".join(self.attributes)
        return f"mount --{'r' if self.recursive else ''}bind {f'-o {options} ' if options else ''}{self.source} …"


class AttachTree(Step):
    """Attach a tree at a place inside the container's root, which is made when it's missing.

    slot: the tree's. target: the place; a missing one becomes what the tree is, a directory or a file.
    """

    __slots__ = ("slot", "target")

    phase = "filesystem"
    why = "the target is found inside the container's root by descriptor: no symlink in the image can move it"
    man = "move_mount(2), openat2(2)"

    def __init__(self, slot: str, target: str, by: str = CHILD) -> None:
        super().__init__(by)
        self.slot = slot
        self.target = target

    def takes(self) -> tuple[str, ...]:
        return (self.slot, "root")

    def apply(self, slots: Slots) -> None:
        tree, place = slots.take(self.slot), -1
        make = paths.make_directories if S_ISDIR(os.fstat(tree).st_mode) else paths.make_file
        try:
            place = make(slots.take("root"), self.target)
            refuse_proc(place, self.target)
            attach(tree, place)
        except KernelError as error:
            hint = REASONS.get(error.errno, error.hint)
            raise KernelError("move_mount", (self.slot, self.target), error.errno, hint) from None
        finally:
            if place >= 0:
                os.close(place)

    def call(self) -> str:
        return f'move_mount({self.slot}, openat2(ROOT, "{self.target}", RESOLVE_IN_ROOT))'

    def shell(self) -> str:
        return f"mount --move … $ROOT{self.target}"


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


class ReadOnlyMount(Step):
    """Make one mount of the container read only, after what lies on it is there."""

    __slots__ = ("path",)

    phase = "filesystem"
    why = "the directories for the mounts on it had to be made first"
    man = "mount_setattr(2)"

    def __init__(self, path: str, by: str = CHILD) -> None:
        super().__init__(by)
        self.path = path

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        place = paths.open_in(slots.take("root"), self.path)
        try:
            set_attributes(place, ("ro",))
        finally:
            os.close(place)

    def call(self) -> str:
        return f'mount_setattr(openat2(ROOT, "{self.path}"), MOUNT_ATTR_RDONLY)'

    def shell(self) -> str:
        return f"mount -o remount,bind,ro $ROOT{self.path}"


class MountFilesystem(Step):
    """Mount a file system of the kernel's own (proc, sysfs, tmpfs, devpts, mqueue, cgroup2 …) inside the root.

    kind: its type. target: where; made when missing. attributes: see ATTRIBUTES. options: the file system's own.
    """

    __slots__ = ("attributes", "kind", "options", "source", "target")

    phase = "filesystem"
    man = "fsopen(2), fsmount(2), move_mount(2)"

    def __init__(
        self, kind: str, target: str, attributes: tuple[str, ...], options: tuple[str, ...] = (), source: str = "",
        by: str = CHILD,
    ) -> None:  # fmt: skip
        super().__init__(by)
        self.kind = kind
        self.target = target
        self.attributes = attributes
        self.options = options
        self.source = source or kind

    @property
    def why(self) -> str:  # type: ignore[override]
        return _WHY.get(self.kind, "a file system that the kernel makes up")

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        tree = new_filesystem(self.kind, self.options, self.attributes, self.source)
        try:
            place = paths.make_directories(slots.take("root"), self.target)
            try:
                refuse_proc(place, self.target)
                attach(tree, place)
            finally:
                os.close(place)
            facts = os.fstat(tree)
            for name in self.finds():
                slots.found[name] = (facts.st_dev, facts.st_ino)
        finally:
            os.close(tree)

    def finds(self) -> tuple[str, ...]:
        """For /proc and /sys: which directory was mounted, so that what is covered there later is covered in that."""
        return (f"top of {self.target}",) if self.target in ("/proc", "/sys") else ()

    def call(self) -> str:
        options = ",".join(self.options)
        return f'mount("{self.source}", "{self.target}", "{self.kind}", {_flags(self.attributes)}, "{options}")'

    def shell(self) -> str:
        options = ",".join((*self.attributes, *self.options))
        return f"mount -t {self.kind} {f'-o {options} ' if options else ''}{self.source} $ROOT{self.target}"


_WHY = {
    "proc": "programs such as ps read /proc; it must show the processes of the container's PID namespace alone",
    "sysfs": "/sys shows devices and the network interfaces of the container's own network namespace",
    "tmpfs": "files in memory, gone with the container",
    "devpts": "the container's own pseudo-terminals: its /dev/pts/0 is nobody else's",
    "mqueue": "the POSIX message queues of the container's own IPC namespace",
    "cgroup": "programs read their own limits here; the cgroup namespace makes the container's group the top",
    "cgroup2": "programs read their own limits here; the cgroup namespace makes the container's group the top",
}


def _copy_owner(like: str, directory: int, name: str) -> None:
    facts = os.stat(like)
    try:
        os.chown(name, facts.st_uid, facts.st_gid, dir_fd=directory)
    except OSError:  # an owner that a plain user's container doesn't have
        pass
    os.chmod(name, facts.st_mode & 0o7777, dir_fd=directory)


class MountMemory(Step):
    """Mount a tmpfs over a directory of the host, in the container's mount namespace alone, with directories on it.

    path: the directory. size: bytes. names: of the directories that are made on it. like: a directory whose mode and
    owner the first of them gets; "" for none.
    """

    __slots__ = ("like", "names", "path", "size")

    phase = "filesystem"
    why = "everything that is written to the root stays in memory, up to this size, and is gone with the container"
    man = "tmpfs(5)"

    def __init__(self, path: str, size: int, names: tuple[str, ...], like: str = "", by: str = CHILD) -> None:
        super().__init__(by)
        self.path = path
        self.size = size
        self.names = names
        self.like = like

    def apply(self, slots: Slots) -> None:
        tree = new_filesystem("tmpfs", (f"size={self.size}", "mode=755"))
        place = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            attach(tree, place)
            for name in self.names:
                os.mkdir(name, 0o755, dir_fd=tree)
            if self.like:
                _copy_owner(self.like, tree, self.names[0])
        finally:
            os.close(place)
            os.close(tree)

    def call(self) -> str:
        return f'mount("tmpfs", "{self.path}", "tmpfs", 0, "size={self.size}")'

    def shell(self) -> str:
        made = " ".join(f"{self.path}/{name}" for name in self.names)
        return f"mount -t tmpfs -o size={self.size} tmpfs {self.path}" + (f"; mkdir {made}" if made else "")
