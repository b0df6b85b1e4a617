"""User namespaces: root inside, an ordinary user outside.

    unshare --user --map-root-user COMMAND        cat /proc/self/uid_map

The map says which ids inside are which ids outside. A process in a new user namespace has all capabilities there, over
what that namespace owns and over nothing else; that is what lets a plain user make the other namespaces. Without help
from a privileged program the kernel maps one id only: the caller's own.

man 7 user_namespaces
"""

from __future__ import annotations

import os

from ..errors import KernelError
from ..plan.step import PARENT, Slots, Step


class WriteMaps(Step):
    """Write the id maps of the container's user namespace.

    users, groups: rows of (first id inside, first id outside, how many).
    """

    __slots__ = ("groups", "users")

    phase = "namespaces"
    why = "id 0 inside is the caller's own id outside: root in the container, nobody special on the host"
    man = "user_namespaces(7)"

    def __init__(self, users: tuple[tuple[int, int, int], ...], groups: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__(PARENT)
        self.users = users
        self.groups = groups

    def uses(self) -> tuple[str, ...]:
        return ("pid",)

    def apply(self, slots: Slots) -> None:
        process = f"/proc/{slots.found['pid']}"
        _write(f"{process}/setgroups", b"deny")  # the kernel's condition for a gid map without privilege
        _write(f"{process}/uid_map", _rows(self.users))
        _write(f"{process}/gid_map", _rows(self.groups))

    def call(self) -> str:
        return f'write("/proc/PID/uid_map", "{_rows(self.users).decode()}"), write("/proc/PID/gid_map", …)'

    def shell(self) -> str:
        return (
            f"echo deny > /proc/$PID/setgroups; echo '{_rows(self.users).decode()}' > /proc/$PID/uid_map; "
            f"echo '{_rows(self.groups).decode()}' > /proc/$PID/gid_map"
        )


def _rows(rows: tuple[tuple[int, int, int], ...]) -> bytes:
    return "\n".join(" ".join(map(str, row)) for row in rows).encode()


def _write(path: str, text: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)
    except OSError as error:
        hint = "does this machine let plain users make user namespaces? see /proc/sys/user/max_user_namespaces"
        raise KernelError("write", (path, text), error.errno or 0, hint) from None
