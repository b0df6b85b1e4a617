"""A control group is a directory: made by mkdir, set by writing its files, joined by writing a task's number.

    mkdir /sys/fs/cgroup/pids/box; echo 20 > /sys/fs/cgroup/pids/box/pids.max
    echo $$ > /sys/fs/cgroup/pids/box/tasks; …; rmdir /sys/fs/cgroup/pids/box

Here are the steps that do this, for both versions of control groups, and what takes a group away again. Nothing here
follows a path that a container controls: a cgroup file system holds no symbolic links.

man 7 cgroups
"""

from __future__ import annotations

import errno
import time

from ...errors import KernelError, TarboxError, UnsupportedError
from ...plan.step import PARENT, RUNNER, Register, Row, Slots, Step
from ...unistd import os
from ..syscall import syscall

_MARK = "user.tarbox"  # says of a parent group that tarbox made it
_PATIENCE = 5.0  # seconds for what is killed to end: freeing much memory takes its time


class MakeGroup(Step):
    """Make the group `path`; it must be new."""

    __slots__ = ("path",)
    phase = "host"
    why = "A control group counts and limits what all of the container's processes use together."
    man = "cgroups(7)"

    def __init__(self, path: str, by: str = PARENT) -> None:
        super().__init__(by)
        self.path = path

    def apply(self, slots: Slots) -> None:
        try:
            os.mkdir(self.path, 0o755)
        except OSError as error:
            raise KernelError("mkdir", (self.path, "0755"), error.errno or 0, shell=self.shell()) from None

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("cgroup", self.path),)

    def call(self) -> str:
        return f'mkdir("{self.path}", 0755)'

    def shell(self) -> str:
        return f"mkdir {self.path}"


class MakeParent(MakeGroup):
    """Make the group `path`, in which containers' groups lie, unless it is there; the last one out removes it."""

    __slots__ = ()
    why = "The group that was asked for as the parent; it is removed with the last container if tarbox made it."

    def apply(self, slots: Slots) -> None:
        try:
            os.mkdir(self.path, 0o755)
            os.setxattr(self.path, _MARK, b"1")
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.EPERM) and os.path.isdir(self.path):
                return  # an old kernel without such marks: better an empty group too many than somebody's too few
            raise KernelError("mkdir", (self.path, "0755"), error.errno or 0, shell=self.shell()) from None

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("cgroup-parent", self.path),)

    def shell(self) -> str:
        return f"mkdir -p {self.path}"


class WriteControl(Step):
    """Write `value` into the control file `path`.

    absent: the warning that is enough when this kernel has no such file, None when that needn't be said, "" when it is
    an error.
    """

    __slots__ = ("absent", "path", "value")
    phase = "host"
    why = "A limit is a number in one of the group's files."
    man = "cgroups(7)"

    def __init__(self, path: str, value: str, absent: str | None = "", by: str = PARENT) -> None:
        super().__init__(by)
        self.path = path
        self.value = value
        self.absent = absent

    def apply(self, slots: Slots) -> None:
        try:
            write(self.path, self.value)
        except KernelError as error:
            # The kernel makes no files for us: where one is missing, O_WRONLY says ENOENT or, by permission, EACCES.
            if self.absent == "" or error.errno not in (errno.ENOENT, errno.EACCES):
                raise
            if self.absent:
                slots.warn(self.absent)

    def call(self) -> str:
        return f'write("{self.path}", "{self.value}")'

    def shell(self) -> str:
        return f"echo '{self.value}' > {self.path}"


class CopyControl(Step):
    """Copy what the control file `source` says into `path`.

    keep: leave it if it says something already.
    """

    __slots__ = ("keep", "path", "source")
    phase = "host"
    why = "A new cpuset has no CPUs and no memory nodes, so nothing could run in it: it starts with its parent's."
    man = "cpuset(7)"

    def __init__(self, source: str, path: str, keep: bool = False, by: str = PARENT) -> None:
        super().__init__(by)
        self.source = source
        self.path = path
        self.keep = keep

    def apply(self, slots: Slots) -> None:
        if self.keep and (read(self.path) or "").strip():
            return
        value = read(self.source)
        if value is None:
            raise UnsupportedError(f"{self.source} can't be read")
        write(self.path, value.strip())

    def call(self) -> str:
        return f'write("{self.path}", read("{self.source}"))'

    def shell(self) -> str:
        copy = f"cat {self.source} > {self.path}"
        return f'[ -n "$(cat {self.path})" ] || {copy}' if self.keep else copy


class JoinGroup(Step):
    """Move the calling task into groups by writing "0" into `files`.

    files: `tasks` of each hierarchy of version 1, which moves one thread and is quick; `cgroup.procs` of version 2,
    which waits until no process of the machine is forking.
    """

    __slots__ = ("files",)
    phase = "namespaces"
    why = "Whoever is in the group is counted, and so is everybody whom they start; the first process joins itself."
    man = "cgroups(7)"

    def __init__(self, files: tuple[str, ...], by: str = RUNNER) -> None:
        super().__init__(by)
        self.files = files

    def rows(self, slots: Slots) -> list[Row]:
        rows = []
        for path in self.files:
            rows.append(Row("openat", (-100, os.fsencode(path), os.O_WRONLY | os.O_CLOEXEC, 0), store=2))
            rows.append(Row("write", (Register(2), b"0", 1)))
        return rows

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        path = self.files[row // 2]
        return KernelError("write", (path, "0"), errno, _hint(path, errno), f"echo 0 > {path}")

    def call(self) -> str:
        return "; ".join(f'write("{path}", "0")' for path in self.files)

    def shell(self) -> str:
        if len(self.files) == 1:
            return f"echo $$ > {self.files[0]}"
        return f"for file in {' '.join(self.files)}; do echo $$ > $file; done"


class OpenGroup(Step):
    """Open the group `path` for `clone3(CLONE_INTO_CGROUP)`, whose child starts its life in it."""

    __slots__ = ("path",)
    phase = "host"
    why = "A process that is born in its group never has to be moved, which is slow on a busy machine."
    man = "clone(2)"

    def __init__(self, path: str, by: str = PARENT) -> None:
        super().__init__(by)
        self.path = path

    def apply(self, slots: Slots) -> None:
        try:
            slots.give("cgroup", os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise KernelError("open", (self.path, "O_PATH|O_DIRECTORY"), error.errno or 0) from None

    def gives(self) -> tuple[str, ...]:
        return ("cgroup",)

    def call(self) -> str:
        return f'open("{self.path}", O_PATH|O_DIRECTORY|O_CLOEXEC)'


def write(path: str, *values: str) -> None:
    """Write each of `values`, one at least, into the control file `path`, by a call of its own; raises KernelError."""
    value = values[0]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for value in values:
                os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        number = error.errno or 0
        shell = f"echo '{value}' > {path}"
        raise KernelError("write", (path, value), number, _hint(path, number), shell) from None


def _hint(path: str, number: int) -> str:
    folder, name = os.path.split(path)
    if name in ("cpuset.cpus", "cpuset.mems") and number not in (errno.ENOENT, errno.EBUSY):
        upper = os.path.dirname(folder)
        allowed = read(f"{upper}/{name}.effective") or read(f"{upper}/{name}")
        return f"this machine allows {allowed.strip()}" if allowed else ""
    if number == errno.ENOENT and os.path.isdir(folder):
        return f"this kernel has no {name}"
    if name == "cpu.rt_runtime_us" and number == errno.EINVAL:
        above = (read(f"{os.path.dirname(folder)}/{name}") or "").strip()
        return f"at most the period, and what the group above has: {above}"
    if name.startswith(("memory.memsw.", "memory.limit_")) and number == errno.EINVAL:
        return "memory and swap together (memory.memsw.limit_in_bytes) can't be less than memory.limit_in_bytes"
    if name.startswith("memory.") and number == errno.EBUSY:
        return "more is in use, and can't be given back"
    if number == errno.ENODEV and name.startswith(("blkio.", "io.")):
        return "it must be a whole disk, not a partition: lsblk lists them"
    if number in (errno.EINVAL, errno.ERANGE):
        return "the kernel doesn't accept this value"
    return ""


def read(path: str) -> str | None:
    """What the control file `path` says, or None when it or its group isn't there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = b""
        while part := os.read(descriptor, 65536):
            content += part
        return content.decode("ascii", "replace")
    except OSError:  # ENODEV: the group was removed between open and read
        return None
    finally:
        os.close(descriptor)


def read_key(path: str, key: str) -> int | None:
    """The number after `key` in a control file of lines "key number", or None when there is none."""
    for line in (read(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdecimal():
            return int(value)
    return None


def remove(path: str) -> None:
    """Remove the group `path` with all groups below, killing what is still in them; fine when it isn't there.

    Raises KernelError when something in it doesn't die within five seconds. Kills only processes that are in the
    group, checked by descriptor, so that a number that was given to another process meanwhile harms nobody.
    """
    if _rmdir(path):
        return
    deadline = time.monotonic() + _PATIENCE
    pause = 0.0005
    while True:
        busy = False
        for group in _tree(path):  # the lowest first
            kill(group)
            busy = not _rmdir(group) or busy
        if not busy:
            return
        if time.monotonic() > deadline:
            left = " ".join((read(path + "/cgroup.procs") or "").split()[:5])
            hint = f"process {left} doesn't end" if left else "a process outside of this pid namespace is in it"
            raise KernelError("rmdir", (path,), errno.EBUSY, hint, f"rmdir {path}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def remove_parent(path: str) -> None:
    """Remove the group `path` if tarbox made it as a parent of containers' groups and nothing is in it any more."""
    try:
        if os.getxattr(path, _MARK) == b"1":
            os.rmdir(path)
    except OSError as error:
        # Gone, somebody else's, or still in use by the next container, which will remove it.
        if error.errno not in (errno.ENOENT, errno.ENODATA, errno.ENOTSUP, errno.EBUSY):
            raise KernelError("rmdir", (path,), error.errno or 0) from None


def kill(path: str) -> None:
    """Send SIGKILL to every process in the group `path`, frozen ones included; says nothing of when they end."""
    if os.path.exists(path + "/cgroup.kill"):  # version 2: one write for all, also for those that are being forked
        try:
            write(path + "/cgroup.kill", "1")
            return
        except KernelError:
            pass  # a threaded group has none of its own; ENODEV: just removed
    victims: dict[str, int] = {}
    for process in (read(path + "/cgroup.procs") or "").split():
        try:
            if process != "0":  # one that this pid namespace can't see
                victims[process] = os.pidfd_open(int(process))
        except OSError:
            pass  # ended meanwhile
    try:
        # Who was in the group when its list was read may have ended before its descriptor was opened, and its number
        # may be another's now. Whoever is in the second list as well is the process that the descriptor holds.
        for process in (read(path + "/cgroup.procs") or "").split():
            if process in victims:
                try:
                    syscall("pidfd_send_signal", victims[process], 9, None, 0)
                except TarboxError:
                    pass  # ended meanwhile
    finally:
        for descriptor in victims.values():
            os.close(descriptor)
    for name, value in (("/freezer.state", "THAWED"), ("/cgroup.freeze", "0")):  # a frozen process dies when thawed
        if os.path.exists(path + name):
            try:
                write(path + name, value)
            except KernelError:
                pass  # removed meanwhile


def _rmdir(path: str) -> bool:
    """Whether the group is gone; False when something is still in it."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise KernelError("rmdir", (path,), error.errno or 0, shell=f"rmdir {path}") from None
    return True


def _tree(path: str) -> list[str]:
    """The group and all groups below it, each before the one that holds it."""
    found = [path]
    for group in found:  # grows while it is read; no recursion: a container may nest its groups as deep as it likes
        try:
            found += [entry.path for entry in os.scandir(group) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            pass  # removed meanwhile
    return found[::-1]
