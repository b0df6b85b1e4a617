"""Which capabilities the kernel found that a process and its descendants have, when something needed them.

    perf stat -e capability:cap_capable --filter 'cap == 7 && ret == 0' COMMAND

The kernel has a tracepoint where it answers the question "does this process have that capability?" (since Linux 6.14).
A counter of perf's for each capability is all that is needed. Only root may have them: CAP_PERFMON or CAP_SYS_ADMIN on
the machine itself.

tracefs, which has the tracepoint's number, is mounted nowhere: a mount of one's own that is attached nowhere will do.

man 2 perf_event_open, man 5 tracefs
"""

from __future__ import annotations

from fcntl import ioctl

from ..unistd import os
from .syscall import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PERF_TYPE_TRACEPOINT = 2
_ATTRIBUTES = 128  # bytes of a struct perf_event_attr
_DISABLED, _INHERIT = 1, 2
_FD_CLOEXEC = 8
_ENABLE, _SET_FILTER = 0x2400, 0x40082406
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6


class Counters:
    """A counter for each of some capabilities, of one process and all that it will start. They don't count yet."""

    __slots__ = ("_descriptors",)

    def __init__(self, pid: int, capabilities: Iterable[int]) -> None:
        """Make them. pid: the process. capabilities: by number. Raises KernelError and OSError where it can't be."""
        self._descriptors: dict[int, int] = {}
        attributes = _attributes(_tracepoint())
        try:
            for capability in capabilities:
                counter = syscall("perf_event_open", attributes, pid, -1, -1, _FD_CLOEXEC)
                self._descriptors[capability] = counter
                syscall("ioctl", counter, _SET_FILTER, f"cap == {capability} && ret == 0".encode())
        except BaseException:
            self.close()
            raise

    def enable(self) -> None:
        """Count from now on, for all of these processes."""
        for counter in self._descriptors.values():
            ioctl(counter, _ENABLE, 0)

    def used(self) -> set[int]:
        """The capabilities that were found since, by number."""
        return {
            capability
            for capability, counter in self._descriptors.items()
            if int.from_bytes(os.read(counter, 8), "little")
        }

    def close(self) -> None:
        """Let go of them; a second call does nothing."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def _tracepoint() -> int:
    context = syscall("fsopen", b"tracefs", _FSOPEN_CLOEXEC)
    try:
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, 0, 0, 0)
        mount = syscall("fsmount", context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        # Every look-up in there makes files of the kernel's; only this one is made.
        file = os.open("events/capability/cap_capable/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)
    try:
        return int(os.read(file, 20))
    finally:
        os.close(file)


def _attributes(tracepoint: int) -> bytes:
    """A `struct perf_event_attr`: type, size, config, then three words, then the flags."""
    words = _PERF_TYPE_TRACEPOINT | _ATTRIBUTES << 32, tracepoint, 0, 0, 0, _DISABLED | _INHERIT
    made = b"".join(word.to_bytes(8, "little") for word in words)
    return made + bytes(_ATTRIBUTES - len(made))
