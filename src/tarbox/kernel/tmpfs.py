"""tmpfs: files in memory, for roots of which nothing is to reach a disk.

    mount -t tmpfs -o size=64m tmpfs DIRECTORY; …; umount -l DIRECTORY

An overlay wants the directories for its writes by path. So the memory is mounted on the host until the overlay is made
of it, a moment later, and is detached there then.

man 5 tmpfs, man 2 umount2
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, EPERM

from ..errors import KernelError
from ..plan.step import PARENT, Slots, Step
from ..unistd import os
from .mounts import attach, new_filesystem
from .syscall import syscall

MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


def _copy_owner(like: str, directory: int, name: str, slots: Slots) -> None:
    facts = os.stat(like)
    user, group = facts.st_uid, facts.st_gid
    if "owners" in slots.found:
        from .idmap import owner

        user, group = owner(slots, user, group)
    try:
        os.chown(name, user, group, dir_fd=directory)
    except OSError:  # an owner that a plain user's container doesn't have
        pass
    os.chmod(name, facts.st_mode & 0o7777, dir_fd=directory)


class MountMemory(Step):
    """Mount a tmpfs over a directory of the host, until what is made of it holds it (`LetGo`), with directories on it.

    path: the directory. size: bytes. names: of the directories that are made on it. like: a directory whose mode and
    owner the first of them gets; "" for none.
    """

    __slots__ = ("like", "names", "path", "size")

    phase = "filesystem"
    why = "everything that is written to the root stays in memory, up to this size, and is gone with the container"
    man = "tmpfs(5)"

    def __init__(self, path: str, size: int, names: tuple[str, ...], like: str = "") -> None:
        super().__init__(PARENT)
        self.path = path
        self.size = size
        self.names = names
        self.like = like

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("mount", self.path),)

    def apply(self, slots: Slots) -> None:
        tree = new_filesystem("tmpfs", (f"size={self.size}", "mode=755"))
        place = -1
        try:
            place = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            attach(tree, place)
            for name in self.names:
                os.mkdir(name, 0o755, dir_fd=tree)
            if self.like:
                _copy_owner(self.like, tree, self.names[0], slots)
        finally:
            os.close(tree)
            if place >= 0:
                os.close(place)

    def call(self) -> str:
        return f'mount("tmpfs", "{self.path}", "tmpfs", 0, "size={self.size}")'

    def shell(self) -> str:
        from ..plan.shell import quote

        made = [f"mount -t tmpfs -o size={self.size},mode=755 tmpfs {quote(self.path)}"]
        names = [quote(f"{self.path}/{name}") for name in self.names]
        if names:
            made.append(f"mkdir -m 755 {' '.join(names)}")
        if self.like:
            like = quote(self.like)
            made += [f"chown --reference={like} {names[0]}", f"chmod --reference={like} {names[0]}"]
        return "; ".join(made)


class LetGo(Step):
    """Detach what is mounted at a directory of the host; whoever holds it keeps it."""

    __slots__ = ("path",)

    late = True
    phase = "filesystem"
    why = "the container's root holds the memory by now; on the host nothing of it is to be seen"
    man = "umount2(2)"

    def __init__(self, path: str) -> None:
        super().__init__(PARENT)
        self.path = path

    def apply(self, slots: Slots) -> None:
        syscall("umount2", os.fsencode(self.path), MNT_DETACH | UMOUNT_NOFOLLOW)

    def call(self) -> str:
        return f'umount2("{self.path}", MNT_DETACH)'

    def shell(self) -> str:
        from ..plan.shell import quote

        return f"umount -l {quote(self.path)}"


def detach(path: str) -> None:
    """Detach what is mounted at `path`, a directory of our own; nothing is done where nothing is."""
    try:
        syscall("umount2", os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW)
    except KernelError as error:
        nothing = error.errno in (EINVAL, ENOENT) or (error.errno == EPERM and os.geteuid())
        if not nothing:  # a plain user's mounts were in a namespace that is gone
            raise
