"""Device nodes: the few files of /dev that every program expects, and nothing of the machine's hardware.

    mknod -m 666 /dev/null c 1 3        ln -s /proc/self/fd /dev/fd

A node is a pair of numbers that the kernel understands; making one needs a privilege that a user namespace doesn't
give, so a plain user's container gets the host's own nodes, mounted one by one.

man 2 mknod, man 4 null
"""

from __future__ import annotations

from errno import EEXIST

from ..errors import ImageError, KernelError
from ..plan.step import PARENT, Slots, Step
from ..unistd import S_IFBLK, S_IFCHR, S_IFIFO, os
from . import paths
from .mount_points import tree_of

_KINDS = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}
LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
)


class MakeDevices(Step):
    """Make device nodes inside the container's root.

    nodes: rows of (path, kind "c", "b" or "p", major, minor, mode, uid, gid).
    """

    __slots__ = ("nodes",)

    phase = "filesystem"
    why = "programs expect /dev/null and a few like it; the machine's disks and memory aren't among them"
    man = "mknod(2)"

    def __init__(self, nodes: tuple[tuple[str, str, int, int, int, int, int], ...]) -> None:
        super().__init__(PARENT)
        self.nodes = nodes

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def apply(self, slots: Slots) -> None:
        tree = tree_of(slots)
        directories: dict[str, int] = {}
        try:
            for path, kind, major, minor, mode, uid, gid in self.nodes:
                above, _, name = path.rpartition("/")
                if above not in directories:
                    directories[above] = _directory(tree, above)
                _make(directories[above], name, path, _KINDS[kind] | mode, os.makedev(major, minor), uid, gid)
        finally:
            for directory in directories.values():
                os.close(directory)

    def call(self) -> str:
        return ", ".join(f'mknod("{node[0]}", {node[1]} {node[2]}:{node[3]}, {node[4]:04o})' for node in self.nodes)

    def shell(self) -> str:
        return "; ".join(f"mknod -m {node[4]:o} $ROOT{node[0]} {node[1]} {node[2]} {node[3]}" for node in self.nodes)


def _directory(tree: paths.Tree, path: str) -> int:
    place = tree.find(path, os.O_PATH | os.O_DIRECTORY, 0o755)[1]
    if isinstance(place, paths.Beyond):
        raise ImageError(f"no device nodes can be made in {path} of the container", "mount nothing there")
    return place


def _make(directory: int, name: str, path: str, mode: int, device: int, uid: int, gid: int) -> None:
    try:
        os.mknod(name, mode, device, dir_fd=directory)
        if uid or gid:
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno != EEXIST:  # an image on a /dev of its own may have it already
            raise KernelError("mknod", (path,), error.errno or 0) from None


class LinkDevices(Step):
    """Make the symlinks of /dev that lead into /proc and /dev/pts."""

    __slots__ = ()

    phase = "filesystem"
    why = "shells and programs use /dev/fd, /dev/stdin and their like, which are only links into /proc"
    man = "symlink(2)"

    def __init__(self) -> None:
        super().__init__(PARENT)

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def apply(self, slots: Slots) -> None:
        directory = _directory(tree_of(slots), "/dev")
        try:
            for target, link in LINKS:
                try:
                    os.symlink(target, link[len("/dev/") :], dir_fd=directory)
                except FileExistsError:
                    pass
        finally:
            os.close(directory)

    def call(self) -> str:
        return ", ".join(f'symlink("{target}", "{link}")' for target, link in LINKS)

    def shell(self) -> str:
        return "; ".join(f"ln -s {target} $ROOT{link}" for target, link in LINKS)
