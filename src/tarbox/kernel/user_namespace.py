"""User namespaces: root inside, an ordinary user outside.

    unshare --user --map-root-user COMMAND        cat /proc/self/uid_map

The map says which ids inside are which ids outside. A process in a new user namespace has all capabilities there, over
what that namespace owns and over nothing else; that is what lets a plain user make the other namespaces. Without help
from a privileged program the kernel maps one id only, the caller's own; root may map any ranges.

man 7 user_namespaces
"""

from __future__ import annotations

from ..errors import KernelError
from ..plan.step import PARENT, Slots, Step
from ..unistd import os
from .namespaces import flags
from .syscall import syscall

_HINT = "does this machine let plain users make user namespaces? see /proc/sys/user/max_user_namespaces"


class EnterUserNamespace(Step):
    """Move this process into user and mount namespaces of its own, as root of them.

    users, groups: rows of (first id inside, first id outside, how many). It is for good: the process stays there.
    """

    __slots__ = ("groups", "users")

    phase = "namespaces"
    why = "id 0 inside is the caller's own id outside: it may mount there, and is nobody special on the host"
    man = "user_namespaces(7)"

    def __init__(self, users: tuple[tuple[int, int, int], ...], groups: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__(PARENT)
        self.users = users
        self.groups = groups

    def apply(self, slots: Slots) -> None:
        syscall("unshare", flags(("user", "mount")), hint=_HINT)
        write("/proc/self/setgroups", b"deny")  # the kernel's condition for a gid map without privilege
        write("/proc/self/uid_map", text_of(self.users))
        write("/proc/self/gid_map", text_of(self.groups))

    def call(self) -> str:
        maps = f'write("/proc/self/uid_map", "{text_of(self.users).decode()}"), write("/proc/self/gid_map", …)'
        return f"unshare(CLONE_NEWUSER|CLONE_NEWNS), {maps}"

    def shell(self) -> str:
        return "unshare --user --map-root-user --mount sh"


def text_of(rows: tuple[tuple[int, int, int], ...]) -> bytes:
    """A map as the kernel takes it."""
    return "\n".join(" ".join(map(str, row)) for row in rows).encode()


def write(path: str, text: bytes, hint: str = _HINT) -> None:
    """Write to a file of /proc; raises KernelError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelError("write", (path, text), error.errno or 0, hint) from None
