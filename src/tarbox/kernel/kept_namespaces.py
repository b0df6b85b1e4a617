"""Namespaces that are kept without a process: each by a bind mount of its file.

    touch /run/lab1; unshare --net=/run/lab1 true; nsenter --net=/run/lab1 COMMAND; umount /run/lab1
    ip netns add lab1

A namespace lives as long as anything holds it, and a mount of its file in /proc is enough. Where the files lie must be
a private mount: a mount namespace that is kept there would otherwise be told of the mount that keeps it, and hold
itself for ever; the kernel refuses that.

man 7 namespaces, man 2 mount, man 8 ip-netns
"""

from __future__ import annotations

from errno import EINVAL

from ..errors import KernelError, StorageError, UnsupportedError
from ..plan.step import PARENT, Register, Slots, Step
from ..unistd import os
from . import mountinfo
from .interfaces import LoopbackUp
from .mounts import AT_FDCWD, MS_PRIVATE, MS_REC, attach, clone_tree, set_attributes
from .namespaces import SHOWN, flags
from .processes import LINKS
from .syscall import syscall
from .tmpfs import detach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Row, Value

_MS_BIND = 0x1000
_ALL_IDS = b"0 0 4294967295"


class MakeKeepers(Step):
    """Make the folder in which namespaces are kept, as a private mount of itself, unless it is there."""

    __slots__ = ("path",)

    phase = "host"
    why = "no news of what is mounted here may reach a mount namespace that is kept here: it would hold itself"
    man = "mount_namespaces(7)"

    def __init__(self, path: str) -> None:
        super().__init__(PARENT)
        self.path = path

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("keepers", self.path),)

    def apply(self, slots: Slots) -> None:
        os.makedirs(self.path, 0o700, exist_ok=True)
        if is_mounted(self.path):
            return
        tree = clone_tree(AT_FDCWD, self.path)
        try:
            set_attributes(tree, ("nosuid", "nodev", "noexec"), (), "private")
            place = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                attach(tree, place)
            finally:
                os.close(place)
        finally:
            os.close(tree)

    def call(self) -> str:
        return f'mkdir("{self.path}"), mount("{self.path}", "{self.path}", MS_BIND), mount(MS_PRIVATE)'

    def shell(self) -> str:
        return f"mkdir -p {self.path}; mount --bind {self.path} {self.path}; mount --make-private {self.path}"


class KeepNamespaces(Step):
    """Make new namespaces of these kinds and keep each by a mount in a new folder; no process stays.

    folder: it is made. kinds: OCI names, not "pid": such a one ends with its first process. hostname: of the UTS
    namespace, "" for the machine's.
    """

    __slots__ = ("folder", "hostname", "kinds")

    phase = "namespaces"
    why = "a process makes them, the mounts hold them, and the process may end"
    man = "namespaces(7), unshare(2)"

    def __init__(self, folder: str, kinds: tuple[str, ...], hostname: str = "") -> None:
        super().__init__(PARENT)
        self.folder = folder
        self.kinds = kinds
        self.hostname = hostname

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("tree", self.folder), *(("mount", f"{self.folder}/{LINKS[kind]}") for kind in self.kinds))

    def apply(self, slots: Slots) -> None:
        os.mkdir(self.folder, 0o700)
        if "mount" not in self.kinds:
            self._make()
            return
        # A mount namespace can be kept only in one with a lower number. Since Linux 6.18 each processor counts by
        # itself, so that a newer one can have the lower number: on the processor where ours was made it hasn't.
        for processor in sorted(os.sched_getaffinity(0)):
            if self._make(processor):
                return
        raise UnsupportedError("the kernel keeps no mount namespace here", "in the machine's own mounts it does")

    def _make(self, processor: int | None = None) -> bool:
        """Make them and keep them; False, and nothing is kept, where the mount namespace has an unlucky number."""
        theirs, ours = os.pipe()
        said, saying = os.pipe()
        child = os.fork()
        if not child:
            _be_in_them(self, theirs, ours, saying, processor)
        try:
            os.close(theirs)
            os.close(saying)
            while failed := os.read(said, 256).decode():
                if failed == "made":
                    break
                call, _, errno = failed.rpartition(" ")
                raise KernelError(call, None, int(errno), _hint(int(errno)))
            if "user" in self.kinds:
                _map_all(child)
            for kind in sorted(self.kinds, key="mount".__ne__):
                path = f"{self.folder}/{LINKS[kind]}"
                try:
                    _keep(child, kind, path)
                except KernelError as error:
                    if kind != "mount" or error.errno != EINVAL:
                        raise
                    os.unlink(path)
                    return False
            return True
        finally:
            os.close(ours)
            os.close(said)
            os.waitpid(child, 0)

    def call(self) -> str:
        made = "|".join(SHOWN[kind] for kind in self.kinds)
        return f'fork(), unshare({made}), mount("/proc/PID/ns/…", "{self.folder}/…", MS_BIND)'

    def shell(self) -> str:
        words = [f"--{LINKS[kind].replace('mnt', 'mount')}={self.folder}/{LINKS[kind]}" for kind in self.kinds]
        return f"mkdir {self.folder}; cd {self.folder}; touch …; unshare {' '.join(words)} true"


def _be_in_them(step: KeepNamespaces, until: int, other: int, saying: int, processor: int | None) -> None:
    """What the child does: be in the namespaces until they are kept. It runs nothing else, and nobody is there yet."""
    code = 1
    try:
        os.close(other)
        if processor is not None:
            os.sched_setaffinity(0, (processor,))
        syscall("unshare", flags(step.kinds))
        if "mount" in step.kinds:
            syscall("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
            detach(os.path.dirname(step.folder))  # or this copy of what is kept there would keep it as well
        if "network" in step.kinds:
            _perform(LoopbackUp().rows(Slots()))
        if step.hostname:
            name = os.fsencode(step.hostname)
            syscall("sethostname", name, len(name))
        os.write(saying, b"made")
        os.read(until, 1)
        code = 0
    except KernelError as error:
        os.write(saying, f"{error.call} {error.errno}".encode())
    finally:
        os._exit(code)


def _perform(rows: list[Row]) -> None:
    """Make the system calls of rows here, as the runner makes them elsewhere."""
    kept: dict[int, int] = {}

    def plain(value: Value) -> int | bytes:
        assert isinstance(value, int | bytes | Register)
        return kept[value.number] if isinstance(value, Register) else value

    for row in rows:
        result = syscall(row.name, *map(plain, row.arguments))
        if row.store:
            kept[row.store] = result


def _hint(errno: int) -> str:
    return "is as much of it there as the machine allows? see /proc/sys/user/max_*_namespaces" if errno == 28 else ""


def _map_all(pid: int) -> None:
    """Everybody keeps their number in the new user namespace."""
    for name in ("uid_map", "gid_map"):
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, _ALL_IDS)
        finally:
            os.close(descriptor)


def _keep(pid: int, kind: str, path: str) -> None:
    """Mount the file of a namespace of a process over a new file."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o400))
    link = "time_for_children" if kind == "time" else LINKS[kind]
    syscall("mount", f"/proc/{pid}/ns/{link}".encode(), os.fsencode(path), None, _MS_BIND, None)


def is_mounted(path: str) -> bool:
    """Whether something is mounted at a path, as this process sees it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return mountinfo.at(mountinfo.parse(table.read()), path) is not None


def remove_keepers(path: str) -> None:
    """Take the folder away if nothing is kept in it any more."""
    try:
        if os.listdir(path):
            return
    except FileNotFoundError:
        return
    while is_mounted(path):
        detach(path)
    try:
        os.rmdir(path)
    except OSError as error:
        raise StorageError(f"cannot remove {path}: {error.strerror}") from None
