"""Ids of one's own for a plain command: a user namespace in which everybody keeps their number, or one is root.

    unshare --user --map-current-user COMMAND        unshare --user --map-root-user COMMAND
    unshare --user --map-users=all --map-groups=all COMMAND

Without privilege the kernel maps one id, the caller's own. Root may map all of them, from outside: so the namespace
comes with the new process, which waits for its map. A process whose id isn't 0 in its namespace loses its capabilities
by `execve`; where it is still to be prepared it keeps them as ambient ones until then.

man 7 user_namespaces, man 2 PR_CAP_AMBIENT
"""

from __future__ import annotations

from ..plan.step import PARENT, Slots, Step
from .namespaces import flags
from .runner import Await, make_capabilities_ambient
from .syscall import syscall
from .user_namespace import text_of, write

_HINT = "does this machine let plain users make user namespaces? see /proc/sys/user/max_user_namespaces"
EVERYBODY = ((0, 0, (1 << 32) - 1),)  # all ids but -1, which is none


class EnterIds(Step):
    """Move this process into a user namespace with its own two ids in it. It is for good: the process stays there.

    user, group: (the id inside, the id outside). mounts: whether it gets a mount namespace as well, for making mounts.
    """

    __slots__ = ("group", "mounts", "user")

    phase = "namespaces"
    why = "in a namespace of one's own one may do what else only root may, with what belongs to that namespace"
    man = "user_namespaces(7)"

    def __init__(self, user: tuple[int, int], group: tuple[int, int], mounts: bool) -> None:
        super().__init__(PARENT)
        self.user = user
        self.group = group
        self.mounts = mounts

    def apply(self, slots: Slots) -> None:
        syscall("unshare", flags(("user", "mount") if self.mounts else ("user",)), hint=_HINT)
        write("/proc/self/setgroups", b"deny")  # the kernel's condition for a gid map without privilege
        write("/proc/self/uid_map", text_of(((*self.user, 1),)))
        write("/proc/self/gid_map", text_of(((*self.group, 1),)))
        if self.user[0]:
            make_capabilities_ambient()

    def call(self) -> str:
        made = "CLONE_NEWUSER|CLONE_NEWNS" if self.mounts else "CLONE_NEWUSER"
        return f'unshare({made}), write("/proc/self/uid_map", "{self.user[0]} {self.user[1]} 1"), …'

    def shell(self) -> str:
        who = "--map-current-user" if self.user[0] else "--map-root-user"
        return f"unshare --user {who}{' --mount' if self.mounts else ''} sh"


class AwaitIdMaps(Await):
    """Wait until the parent has mapped the ids."""

    __slots__ = ()

    phase = "namespaces"
    why = "before that no id means anything in the new user namespace"

    def shell(self) -> str:
        return "read go"
