"""Ids of one's own for a plain command: a user namespace in which everybody keeps their number, or one is root.

    unshare --user --map-current-user COMMAND        unshare --user --map-root-user COMMAND
    unshare --user --map-users=all --map-groups=all COMMAND

Without privilege the kernel maps one id, the caller's own. Root may map all of them, from outside: so the namespace
comes with the new process, which waits for its map. A process whose id isn't 0 in its namespace loses its capabilities
by `execve`; where it is still to be prepared it keeps them as ambient ones until then.

man 7 user_namespaces, man 2 PR_CAP_AMBIENT
"""

from __future__ import annotations

from ..errors import KernelError
from ..plan.step import PARENT, RUNNER, Row, Slots, Step
from ..unistd import os
from .namespaces import flags
from .runner import make_capabilities_ambient
from .syscall import syscall

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
        _write("/proc/self/setgroups", "deny")  # the kernel's condition for a gid map without privilege
        _write("/proc/self/uid_map", f"{self.user[0]} {self.user[1]} 1")
        _write("/proc/self/gid_map", f"{self.group[0]} {self.group[1]} 1")
        if self.user[0]:
            make_capabilities_ambient()

    def call(self) -> str:
        made = "CLONE_NEWUSER|CLONE_NEWNS" if self.mounts else "CLONE_NEWUSER"
        return f'unshare({made}), write("/proc/self/uid_map", "{self.user[0]} {self.user[1]} 1"), …'

    def shell(self) -> str:
        who = "--map-current-user" if self.user[0] else "--map-root-user"
        return f"unshare --user {who}{' --mount' if self.mounts else ''} sh"


class WriteIdMaps(Step):
    """Tell the kernel which ids inside the new process's user namespace are which outside.

    users, groups: rows of (first id inside, first id outside, how many).
    """

    __slots__ = ("groups", "users")

    phase = "namespaces"
    why = "only somebody outside may map more than one id; until then the new process has none"
    man = "user_namespaces(7)"

    def __init__(
        self, users: tuple[tuple[int, int, int], ...] = EVERYBODY, groups: tuple[tuple[int, int, int], ...] = EVERYBODY
    ) -> None:
        super().__init__(PARENT)
        self.users = users
        self.groups = groups

    def uses(self) -> tuple[str, ...]:
        return ("pid",)

    def apply(self, slots: Slots) -> None:
        pid = slots.found["pid"]
        _write(f"/proc/{pid}/uid_map", _rows(self.users))
        _write(f"/proc/{pid}/gid_map", _rows(self.groups))

    def call(self) -> str:
        return f'write("/proc/PID/uid_map", "{_rows(self.users)}"), write("/proc/PID/gid_map", "{_rows(self.groups)}")'

    def shell(self) -> str:
        return f"echo {_rows(self.users)} > /proc/$PID/uid_map; echo {_rows(self.groups)} > /proc/$PID/gid_map"


class AwaitIdMaps(Step):
    """Wait until the parent has mapped the ids."""

    __slots__ = ()

    waits = True
    phase = "namespaces"
    why = "before that no id means anything in the new user namespace"
    man = "recv(2)"

    def __init__(self) -> None:
        super().__init__(RUNNER)

    def rows(self, slots: Slots) -> list[Row]:
        return []  # the row that waits is the machinery's: it knows the channel

    def call(self) -> str:
        return "recv(parent)"

    def shell(self) -> str:
        return "read go"


def _rows(rows: tuple[tuple[int, int, int], ...]) -> str:
    return "\n".join(" ".join(map(str, row)) for row in rows)


def _write(path: str, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelError("write", (path, text), error.errno or 0, _HINT) from None
