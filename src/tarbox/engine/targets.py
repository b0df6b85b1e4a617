"""What can be entered, and how it is named on the command line.

    4711              a process            pidfd:7        that of an open descriptor
    3d1f…             a running container, by its id or the beginning of it
    lab1              lasting namespaces   /run/netns/x   a namespace by the file that keeps it

All descriptors are opened here, while only the host is in view, and then the process is looked at once more: numbers
are given again, and a process can move to other namespaces meanwhile.

man 5 proc, man 2 pidfd_open, man 2 NS_GET_NSTYPE
"""

from __future__ import annotations

from errno import EINVAL, ESRCH
from fcntl import ioctl
from select import POLLIN, poll

from ..errors import KernelError, ProcessNotFoundError, UnsupportedError, UsageError
from ..kernel.namespaces import FLAGS
from ..kernel.paths import filesystem_of, reopen
from ..kernel.processes import LINKS, Process, inode_of, numbers, parse_map
from ..kernel.syscall import syscall
from ..unistd import os
from . import lasting_namespaces
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NS_GET_NSTYPE = 0xB703
_SYS_PTRACE, _SYS_ADMIN = 19, 21
_MARK = "/tarbox-"
_ID, _SHORT_ID = 64, 12  # letters of a whole id, and of one as it is usually shown
_DIGITS = frozenset("0123456789abcdef")
_ALLOWED = "it takes all the capabilities that the process has, or it has to be yours: try as root"
_AGAIN = "it was just about to change: try again"


class Target:
    """What was found.

    shown: how it was named. namespaces: their descriptors by OCI name. own: the kinds that are the caller's too. root:
    a descriptor of its root, -1 for none. pid: its process, 0 for none. zero: whether its user namespace has an id 0,
    and setgroups whether groups can be set there. traces: whether its processes may trace any that they see, and have
    no other way to the machine's.
    """

    __slots__ = ("namespaces", "own", "pid", "root", "setgroups", "shown", "traces", "zero")

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.namespaces: dict[str, int] = {}
        self.own: set[str] = set()
        self.root = -1
        self.pid = 0
        self.zero = True
        self.setgroups = True
        self.traces = False

    def close(self) -> None:
        """Let go of all of it."""
        for descriptor in (*self.namespaces.values(), self.root):
            if descriptor >= 0:
                os.close(descriptor)
        self.namespaces, self.root = {}, -1


def find(word: str, root: str | None = None) -> Target:
    """The target that a word names; raises UsageError, ProcessNotFoundError and UnsupportedError.

    root: the data root, whose lasting namespaces are meant; None for the default.
    """
    kind, colon, rest = word.partition(":")
    if word.isascii() and word.isdecimal() and len(word) < _SHORT_ID:  # an id of digits alone is longer than any number
        return _process(int(word), f"process {word}")
    if colon and kind == "pidfd" and rest.isascii() and rest.isdecimal():
        return _pidfd(int(rest[:10]))
    if word.startswith("/"):
        return _file(word)
    names = lasting_namespaces.names(root)
    if word in names:
        target = Target(word)
        target.namespaces = lasting_namespaces.opened(lasting_namespaces.existing(word, root))
        return _compared(target)
    if word and _DIGITS.issuperset(word.lower()) and len(word) <= _ID:
        found = _container(word.lower())
        if found:
            return found
    from .nearest import suggest

    near = suggest(word, names)
    kinds = "the number of a process, the id of a running container, a name from 'tarbox ns ls', or a path"
    raise UsageError(
        f"there is nothing to enter by the name {shorten(word)!r}", f"did you mean {near}?" if near else kinds
    )


def _process(pid: int, shown: str, pidfd: int = -1) -> Target:
    """The target that a process is. pidfd: a descriptor of it, which is closed; -1 to open one."""
    target = Target(shown)
    try:
        if pidfd < 0:
            pidfd = _open_process(pid)
        try:
            _look_at(target, pid)
            _insist(target, pid, pidfd)
        finally:
            os.close(pidfd)
    except BaseException:
        target.close()
        raise
    return _compared(target)


def _open_process(pid: int) -> int:
    try:
        return syscall("pidfd_open", pid, 0)
    except KernelError as error:
        if error.errno == ESRCH or not 0 < pid < 1 << 31:
            raise ProcessNotFoundError(f"there is no process {pid}", "'ps -e' lists them") from None
        if error.errno == EINVAL:
            raise UsageError(f"{pid} is a thread of a process, not a process", "'tarbox what' tells which") from None
        raise


def _look_at(target: Target, pid: int) -> None:
    target.pid = pid
    with Process(pid) as process:
        for kind, link in LINKS.items():
            try:
                target.namespaces[kind] = os.open(f"/proc/{pid}/ns/{link}", os.O_RDONLY | os.O_CLOEXEC)
            except PermissionError:
                raise UnsupportedError(f"you may not enter the namespaces of {target.shown}", _ALLOWED) from None
            except OSError:
                process.insist()
                raise ProcessNotFoundError(f"{target.shown} has ended") from None
        target.root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        rows = parse_map(process.text("uid_map"))
        target.zero = any(not first for first, _, _ in rows)
        target.setgroups = (process.text("setgroups") or "").strip() != "deny"
        bounding = int(process.status().get("CapBnd", "0"), 16)
        target.traces = bool(bounding >> _SYS_PTRACE & 1) and not bounding >> _SYS_ADMIN & 1


def _insist(target: Target, pid: int, pidfd: int) -> None:
    """Raise ProcessNotFoundError unless it is still that process, in those namespaces."""
    poller = poll()
    poller.register(pidfd, POLLIN)
    if poller.poll(0):
        raise ProcessNotFoundError(f"{target.shown} has ended")
    with Process(pid) as process:
        for kind, link in LINKS.items():
            if inode_of(process.link(f"ns/{link}")) != os.fstat(target.namespaces[kind]).st_ino:
                raise ProcessNotFoundError(f"{target.shown} has moved to another {kind} namespace", _AGAIN)


def _pidfd(number: int) -> Target:
    """The process of a descriptor that the caller has open."""
    shown = f"the process of descriptor {number}"
    try:
        with open(f"/proc/self/fdinfo/{number}", encoding="ascii") as facts:
            found = next((line.split()[1] for line in facts if line.startswith("Pid:")), "")
    except OSError:
        raise UsageError(
            f"descriptor {number} isn't open", f"the shell that starts tarbox opens it: {number}<…"
        ) from None
    if not found:
        raise UsageError(f"descriptor {number} isn't that of a process", "pidfd_open(2) makes one")
    if int(found) <= 0:
        raise ProcessNotFoundError(f"{shown} has ended, or isn't to be seen from here")
    return _process(int(found), shown, os.dup(number))


def _file(path: str) -> Target:
    """A namespace by a file that leads to it. It is looked at before it is opened, which may wait or do harm."""
    shown = shorten(path, 200)
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except PermissionError:
        raise UnsupportedError(f"you may not enter {shown}", _ALLOWED) from None
    except OSError as error:
        raise UsageError(
            f"there is no namespace at {shown}: {error.strerror}", "'tarbox ns ls' shows what there is"
        ) from None
    try:
        if filesystem_of(place) != lasting_namespaces.NSFS:
            raise UsageError(f"{shown} is no namespace", "e.g. /run/netns/NAME, or /proc/PID/ns/net")
        handle = reopen(place, os.O_RDONLY)
    finally:
        os.close(place)
    target = Target(shown)
    flag = ioctl(handle, _NS_GET_NSTYPE)
    target.namespaces = {next(kind for kind in FLAGS if FLAGS[kind] == flag): handle}
    return _compared(target)


def _container(prefix: str) -> Target | None:
    """The running container whose id begins so, by the name of its control groups; None where there is none."""
    found: dict[str, list[int]] = {}
    for pid in numbers():
        for id in _ids(pid):
            if id.startswith(prefix):
                found.setdefault(id, []).append(pid)
    if not found:
        return None
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} containers have an id that begins with {prefix}", "give more of it: " + _listed(found)
        )
    ((id, pids),) = found.items()
    target = _process(min(pids, key=lambda pid: (not _is_first(pid), pid)), f"container {id[:12]}")
    if id not in _ids(target.pid):
        target.close()
        raise ProcessNotFoundError(f"{target.shown} has ended")
    return target


def first_process(prefix: str) -> int:
    """The first process of the running container whose id begins so; raises ProcessNotFoundError for none."""
    target = _container(prefix) if _DIGITS.issuperset(prefix) and prefix else None
    if target is None:
        raise ProcessNotFoundError(
            f"there is no running container {shorten(prefix)!r}", "by the beginning of its id: --cidfile writes it down"
        )
    target.close()
    return target.pid


def _listed(ids: Iterable[str]) -> str:
    return ", ".join(sorted(id[:16] for id in ids)[:5])


def _ids(pid: int) -> set[str]:
    """The ids of the containers in whose control groups a process is."""
    try:
        with Process(pid) as process:
            text = process.text("cgroup") or ""
    except ProcessNotFoundError:
        return set()
    ids = {part.partition("/")[0] for line in text.splitlines() for part in line.split(_MARK)[1:]}
    return {id for id in ids if len(id) == _ID and _DIGITS.issuperset(id)}


def _is_first(pid: int) -> bool:
    """Whether it is process 1 of a PID namespace below this one."""
    try:
        with Process(pid) as process:
            return process.status().get("NSpid", "").split()[1:][-1:] == ["1"]
    except ProcessNotFoundError:
        return False


def _compared(target: Target) -> Target:
    """The same, with the kinds noted that are the caller's own."""
    for kind, handle in target.namespaces.items():
        if os.fstat(handle).st_ino == os.stat(f"/proc/self/ns/{LINKS[kind]}").st_ino:
            target.own.add(kind)
    return target
