"""Kernel settings that belong to a namespace.

    sysctl -w net.ipv4.ip_unprivileged_port_start=0

They are written before the container's root is entered, through the host's own /proc: what stands under /proc/sys/net
there is the network namespace of whoever looks, and no image can put anything else in its place.

man 5 proc_sys, man 8 sysctl
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT, EPERM, EROFS

from ..errors import KernelError, UnsupportedError
from ..plan.step import RUNNER, Register, Row, Slots, Step
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

_AT_FDCWD = -100

# Those that a container gets unasked, and can do without.
USUAL = ("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range")
_ELSEWHERE = "is it spelled right? This kernel may lack it, or keep it for the whole machine"
_REASONS = {
    EINVAL: "the kernel doesn't take that value for it", EPERM: "only root may set it", EACCES: "only root may set it",
    EROFS: "/proc/sys is mounted read-only: is tarbox running in a container itself?",
}  # fmt: skip


def setting(path: str) -> str:
    """What a file below /proc/sys says, "" where there is none; raises KernelError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 64).decode().strip()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise KernelError("read", (path,), error.errno or 0) from None


def ensure(path: str, value: str) -> bool:
    """Write a setting below /proc/sys where it is another one; returns whether it was. Raises KernelError.

    What belongs to a network namespace is that of the one in which this process is.
    """
    if setting(path) == value:
        return False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        hint = _ELSEWHERE if error.errno == ENOENT else _REASONS.get(error.errno or 0, "")
        raise KernelError("write", (path, value), error.errno or 0, hint) from None
    return True


class WriteSetting(Step):
    """Write one setting of a namespace that the process has to itself."""

    __slots__ = ("name", "value")

    phase = "namespaces"
    why = "a setting of the container's own namespace, which the host doesn't feel"
    man = "sysctl(8)"

    def __init__(self, name: str, value: str, by: str = RUNNER) -> None:
        super().__init__(by)
        self.name = name
        self.value = value

    def _path(self) -> str:
        return "/proc/sys/" + self.name.replace(".", "/")

    def rows(self, slots: Slots) -> list[Row]:
        path = self._path()
        if self.name in USUAL and not os.path.exists(path):
            slots.warn(f"this kernel has no setting {self.name}; it is left out")
            return []
        value = self.value.encode()
        unwritable = ((EROFS, 1),) if self.name in USUAL else ()
        return [
            Row("openat", (_AT_FDCWD, path.encode(), os.O_WRONLY | os.O_CLOEXEC, 0), store=2, on=unwritable),
            Row("write", (Register(2), value, len(value))),
        ]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        if errno == ENOENT:
            return UnsupportedError(f"there is no setting {self.name} in the container", _ELSEWHERE)
        return KernelError("write", (self._path(), self.value), errno, _REASONS.get(errno, ""))

    def call(self) -> str:
        return f'write("{self._path()}", "{self.value}")'

    def shell(self) -> str:
        from ..plan.shell import quote

        return f"sysctl -qw {quote(f'{self.name}={self.value}')}"
