"""Namespaces that are there already: opened by somebody outside, and joined instead of making new ones.

    nsenter --net=/run/netns/blue COMMAND        nsenter --target 4711 --ipc --uts COMMAND

A namespace is named by a file: `/proc/PID/ns/KIND`, or a mount that keeps it. What is opened is looked at first, and
only a namespace of the kind that was asked for is taken: opening anything else, a FIFO or a device, could wait or do
harm. A PID namespace is entered by children alone, so the parent steps in and out again around making one.

man 2 setns, man 7 namespaces, man 2 NS_GET_NSTYPE
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ELOOP, ENOENT, ENOTDIR, EPERM, ESRCH, EUSERS
from fcntl import ioctl

from ..errors import KernelError, ProcessNotFoundError, UsageError
from ..plan.step import PARENT, Slots, Step
from ..unistd import os
from . import setns
from .namespaces import FLAGS, SHOWN
from .paths import filesystem_of, reopen
from .processes import LINKS
from .setns import slot_of
from .syscall import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

_NS_GET_NSTYPE = 0xB703
_NSFS = 0x6E736673  # the file system type, as statfs(2) tells it
_OURS = "/proc/self/fd/"


def open_namespace(kind: str, path: str) -> int:
    """A descriptor of the namespace that a path leads to; raises UsageError for anything else.

    kind: its OCI name. path: `/proc/self/fd/N` may also be a pidfd of this process's: then it is that process's
    namespace. Raises ProcessNotFoundError where the process has ended.
    """
    number = path.removeprefix(_OURS)
    if path.startswith(_OURS) and (pid := process_of(number)) is not None:
        handle = _open(kind, f"/proc/{pid}/ns/{LINKS[kind]}", f"descriptor {number}")
        try:  # as it lives still, the number was its own when the file was opened
            syscall("pidfd_send_signal", int(number), 0, None, 0)
        except KernelError as error:
            if error.errno == ESRCH:
                os.close(handle)
                raise ProcessNotFoundError(f"the process of descriptor {number} has ended") from None
        return handle
    return _open(kind, path, path)


def process_of(number: str) -> int | None:
    """The process of the pidfd with that number; None for another descriptor, or none at all."""
    try:
        file = os.open(f"/proc/self/fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(file, 4096).decode("ascii", "replace")
    finally:
        os.close(file)
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "Pid":
            if int(value) > 0:
                return int(value)
            why = "has ended" if int(value) < 0 else "isn't in this PID namespace, nor below it"
            raise ProcessNotFoundError(f"the process of descriptor {number} {why}")
    return None


def _open(kind: str, path: str, shown: str) -> int:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise _unopened(path, shown, error.errno or 0) from None
    try:
        if filesystem_of(place) != _NSFS:
            raise UsageError(f"{shown} is no namespace", _EXAMPLE)
        handle = reopen(place, os.O_RDONLY)
    finally:
        os.close(place)
    found = ioctl(handle, _NS_GET_NSTYPE)
    if found != FLAGS[kind]:
        os.close(handle)
        other = next((name for name, flag in FLAGS.items() if flag == found), "another kind of")
        raise UsageError(f"{shown} is a {other} namespace, and a {kind} namespace is wanted", _EXAMPLE)
    return handle


_EXAMPLE = "e.g. /proc/PID/ns/net, or what 'ip netns add' makes: /run/netns/NAME; 'tarbox ns ls' shows all"


def _unopened(path: str, shown: str, errno: int) -> TarboxError:
    pid, _, rest = path.removeprefix("/proc/").partition("/ns/")
    if errno in (ENOENT, ESRCH) and pid.isdecimal() and rest in LINKS.values():
        ended = "has ended" if os.path.exists(f"/proc/{pid}") else "isn't there"
        return ProcessNotFoundError(f"process {pid} {ended}, so there is no namespace of it to join")
    if path.startswith(_OURS):
        number = path.removeprefix(_OURS)
        return UsageError(f"descriptor {number} isn't open", f"open it in the shell that starts tarbox: {number}</…")
    hint = {
        ENOENT: "'tarbox ns ls' shows what there is",
        EACCES: "it takes all the capabilities that the process has, or CAP_SYS_PTRACE",
        EPERM: "it takes all the capabilities that the process has, or CAP_SYS_PTRACE",
    }.get(errno, "")
    if errno in (ENOTDIR, ELOOP, ENOENT):
        return UsageError(f"there is no namespace at {shown}", hint)
    return KernelError("open", (shown,), errno, hint)


class OpenNamespace(Step):
    """Open the namespace of this kind that a path leads to, for joining it."""

    __slots__ = ("kind", "path")

    phase = "namespaces"
    why = "what will be joined is opened and looked at before: only a namespace of the right kind is taken"
    man = "namespaces(7), NS_GET_NSTYPE(2const)"

    def __init__(self, kind: str, path: str) -> None:
        super().__init__(PARENT)
        self.kind = kind
        self.path = path

    def gives(self) -> tuple[str, ...]:
        return (slot_of(self.kind),)

    def apply(self, slots: Slots) -> None:
        slots.give(slot_of(self.kind), open_namespace(self.kind, self.path))

    def call(self) -> str:
        return f'open("{self.path}"), ioctl(NS_GET_NSTYPE) = {SHOWN[self.kind]}'


class Join(setns.Join):
    """Join the namespace of this kind that `OpenNamespace` opened, or that was made for it."""

    __slots__ = ()

    why = "it is shared with those who are in it, instead of being the container's own"

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        return unjoined(self.kind, errno)

    def shell(self) -> str:
        return f"nsenter --{LINKS[self.kind]}=FILE sh"


def unjoined(kind: str, errno: int) -> KernelError:
    """Why a namespace can't be joined."""
    hint = {
        EPERM: "joining takes root in the user namespace that owns it: 'tarbox ns ls' shows whose it is",
        EINVAL: "only a PID namespace below this one can be joined" if kind == "pid" else "",
        EUSERS: "a program with several threads can't",
    }.get(errno, "")
    return KernelError("setns", (SHOWN[kind],), errno, hint)


def step_in(kinds: tuple[str, ...], slots: Slots, back: list[tuple[str, int]]) -> None:
    """Move this process into the namespaces of these kinds that are in their slots.

    back: takes, as that goes on, what `step_back` needs. Into a PID namespace only later children go. Raises
    KernelError.
    """
    for kind in kinds:
        back.append((kind, os.open(f"/proc/self/ns/{LINKS[kind]}", os.O_RDONLY | os.O_CLOEXEC)))
        try:
            syscall("setns", slots.take(slot_of(kind)), FLAGS[kind])
        except KernelError as error:
            raise unjoined(kind, error.errno) from None


def step_back(back: list[tuple[str, int]]) -> None:
    """Return to where this process was."""
    while back:
        kind, handle = back.pop()
        try:
            return_to(kind, handle)
        finally:
            os.close(handle)


def return_to(kind: str, handle: int) -> None:
    """Join a namespace that this process was in; tried again, as what it does next is meant to be done there.

    A time namespace is refused as long as somebody else has this process's memory: a child that was made with it has it
    for some moments more than until it lets its parent go on (EUSERS).
    """
    for pause in (0, 0.001, 0.01, 0.1, 1):
        try:
            syscall("setns", handle, FLAGS[kind])
            return
        except KernelError as error:
            refused = error
            if error.errno == EUSERS:
                from time import sleep

                sleep(pause)
    raise refused
