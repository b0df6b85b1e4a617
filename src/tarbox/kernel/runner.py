"""The runner: a container's set-up without Python.

The process that becomes the container's program can't be Python. Its `/proc/<pid>/exe` would be the host's interpreter,
which a container could open, and giving up privileges one by one would leave Python code between them. So a program of
some 600 bytes, executed from a sealed memory file, makes the system calls from a table, row by row. The last of them
executes the container's program:

    unshare --mount --pid --fork … sh -c 'mount …; pivot_root …; exec setpriv --no-new-privs -- /bin/sh'

man 2 memfd_create, man 2 clone3, man 2 execveat, man 2 execve; runner_image.py and runner-x86_64.S are the program
"""

from __future__ import annotations

import errno as codes
import fcntl

from ..errors import KernelError
from ..plan.step import ANY, ARGUMENTS, ENVIRONMENT, RUNNER, Row, Slots, Step
from ..unistd import os
from .runner_image import SPAWN, image, read_report
from .syscall import MACHINE, addressof, buffer, forking_syscall, function, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

__all__ = [
    "CloseDescriptors",
    "DeathSignal",
    "enter",
    "execution",
    "image",
    "make_capabilities_ambient",
    "read_report",
    "spawn",
]

AT_EMPTY_PATH = 0x1000
CLONE_VM, CLONE_PIDFD, CLONE_VFORK, CLONE_INTO_CGROUP = 0x100, 0x1000, 0x4000, 0x200000000
CLONE_NEWUSER = 0x10000000
CLOSE_RANGE_CLOEXEC = 4
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, MFD_EXEC = 0x1, 0x2, 0x8, 0x10
MAP_PRIVATE, PROT_READ, PROT_EXEC = 0x2, 0x1, 0x4
F_ADD_SEALS = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_CMD_CREATE, FSCONFIG_CMD_RECONFIGURE = 0, 6, 7
MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 0x2, 0x4
PR_SET_PDEATHSIG = 1
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
SIGCHLD = 17

_EVERY = 0xFFFFFFFF
_WORD = (1 << 64) - 1
_CLONE_ARGS = 88  # bytes of a struct clone_args, with the field for the control group


def spawn(
    program: int,
    arguments: list[bytes],
    environment: list[bytes],
    flags: int,
    keep: Sequence[int],
    cgroup: int = -1,
) -> tuple[int, int]:
    """Start a program in new namespaces without a fork of this process: its process id, and its pidfd.

    The caller has all signals blocked: until the program runs, its process shares this one's memory, and a handler
    that ran there would change it. They are still blocked when the program starts, and what Python ignores is ignored.
    program: its descriptor, which may be closed on exec. arguments: what it is given, its own name first. environment:
    NAME=value each. flags: CLONE_NEW…, as of clone3. keep: descriptors from 3 up that the program gets; it gets no
    others, and in this process all stay as they are. cgroup: the descriptor of the group that it is born in.
    In a new user namespace it has all capabilities, made ambient: no id is mapped yet that would let it keep them.
    Raises KernelError of "clone3" or of "execveat"; then there is no process.
    """
    if keep and min(keep) < 0:
        raise ValueError(f"{keep!r} aren't all descriptors")
    size = 8 * (5 + len(keep)) + _CLONE_ARGS + 8
    memory, argument_pointers, environment_pointers = _vectors(arguments, environment, size)
    start = addressof(memory)
    pidfd_at = start + size - 8
    # What spawn-x86_64.S takes; the zero is for the errno.
    what = (program, argument_pointers, environment_pointers, 0, *keep, -1)
    clone_at = start + 8 * len(what)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, size, tls, set_tid, size, cgroup
    flags |= CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup >= 0 else 0)
    sharing = (flags | CLONE_VM | CLONE_VFORK, pidfd_at, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, max(cgroup, 0))
    view = memoryview(memory).cast("B")
    view[: size - 8] = b"".join([(word & _WORD).to_bytes(8, "little") for word in (*what, *sharing)])
    native = _spawning()
    pid = native(clone_at, _CLONE_ARGS, start) if native else -codes.ENOSYS
    if pid < 0:
        if -pid not in (codes.ENOSYS, codes.EINVAL, codes.EPERM, codes.EACCES):
            raise KernelError("clone3", (f"{flags:#x}",), -pid)
        # Some machine refuses that kind of a child, or code that this process wrote itself: then fork after all.
        view[8 * len(what) : 8 * len(what) + 8] = flags.to_bytes(8, "little")
        pid, failed = _fork(clone_at, program, argument_pointers, environment_pointers, keep, flags)
    else:
        failed = -int.from_bytes(view[24:32], "little", signed=True)
    pidfd = int.from_bytes(view[size - 8 : size - 4], "little")
    if failed:
        os.close(pidfd)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # where SIGCHLD is ignored, nobody needs to
        raise KernelError("execveat", (program, b"", arguments, f"{len(environment)} variables"), failed)
    return pid, pidfd


def _fork(
    clone_at: int, program: int, argument_pointers: int, environment_pointers: int, keep: Sequence[int], flags: int
) -> tuple[int, int]:
    """The same by a copy of this process: its id, and the errno of its execveat or 0."""
    reader, writer = os.pipe()
    try:
        try:
            pid = forking_syscall("clone3", clone_at, _CLONE_ARGS)
        except KernelError as error:
            raise KernelError("clone3", (f"{flags:#x}",), error.errno) from None
        if not pid:
            try:
                if flags & CLONE_NEWUSER:
                    make_capabilities_ambient()
                syscall("close_range", 3, _EVERY, CLOSE_RANGE_CLOEXEC)
                for descriptor in keep:
                    fcntl.fcntl(descriptor, fcntl.F_SETFD, 0)
                syscall("execveat", program, b"", argument_pointers, environment_pointers, AT_EMPTY_PATH)
            except (KernelError, OSError) as error:
                os.write(writer, (error.errno or 0).to_bytes(8, "little"))
            finally:
                os._exit(127)
        os.close(writer)
        writer = -1
        return pid, int.from_bytes(os.read(reader, 8), "little")
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def make_capabilities_ambient() -> None:
    """Let this process keep all that it may do, in a user namespace of its own, over an execve as another id than 0."""
    every = buffer(24)
    memoryview(every).cast("B")[:] = b"\xff" * 24
    syscall("capset", (0x20080522).to_bytes(8, "little"), every)
    for capability in range(64):
        try:
            syscall("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
        except KernelError:
            return  # the one before was the last


_native: Callable[..., int] | None = None
_tried = False


def _spawning() -> Callable[..., int] | None:
    """The function in spawn-x86_64.S, or None where this process may not execute what it wrote itself."""
    global _native, _tried
    if not _tried:
        _tried = True
        try:
            _native = function(_executable_memory(SPAWN[MACHINE]), 3)
        except (KernelError, KeyError):
            _native = None
    return _native


def _executable_memory(code: bytes) -> int:
    """The address of these bytes, which nothing in the process can write to."""
    try:
        descriptor = syscall("memfd_create", b"spawn", MFD_CLOEXEC | MFD_NOEXEC_SEAL)  # mapped it is executable
    except KernelError:
        descriptor = syscall("memfd_create", b"spawn", MFD_CLOEXEC)  # before Linux 6.3
    try:
        os.write(descriptor, code)
        return syscall("mmap", 0, len(code), PROT_READ | PROT_EXEC, MAP_PRIVATE, descriptor, 0)
    finally:
        os.close(descriptor)


def execution(candidates: list[bytes]) -> list[Row]:
    """The rows that execute the first of these programs which is there; the error of the last one is reported.

    candidates: paths. A file that may not be executed counts as missing, as it does for execvp(3).
    """
    rows: list[Row] = []
    for at, candidate in enumerate(candidates, 1):
        shown = f'execve("{os.fsdecode(candidate)}", argv, envp)'
        if at == len(candidates):
            return [*rows, Row("execve", (candidate, ARGUMENTS, ENVIRONMENT), shown)]
        # A row has room for two errnos: the second row makes the same call for the others.
        for_two = ((codes.ENOENT, 1), (ANY, 0)), ((codes.EACCES, 0), (codes.ENOTDIR, 0))
        rows += [Row("execve", (candidate, ARGUMENTS, ENVIRONMENT), shown, on=on) for on in for_two]
    raise ValueError("there is no program to execute")


def enter(
    rows: list[Row],
    arguments: list[bytes],
    environment: list[bytes],
    errors: int,
    keep: Sequence[int] = (),
) -> NoReturn:
    """Leave Python for good: make the system calls of `rows`, of which one executes another program (`execution`).

    arguments: what that program is given, its own name first. environment: `NAME=value` each.
    errors: the writing end of a pipe; the runner writes a report to it when a row fails (`read_report`) and leaves
    with 126. The pipe ends without a report once the program runs.
    keep: descriptors from 3 up that are passed on; the runner gets no others. A row of `CloseDescriptors` marks these
    too, so a program is only passed one by leaving that out.
    Raises KernelError when the runner can't be executed.
    """
    if errors < 3:
        errors = fcntl.fcntl(errors, fcntl.F_DUPFD_CLOEXEC, 3)
    program = executable(image(rows, errors))
    memory, argument_pointers, environment_pointers = _vectors(arguments, environment)
    syscall("close_range", 3, _EVERY, CLOSE_RANGE_CLOEXEC, hint="needs Linux 5.11")
    for descriptor in (errors, *keep):
        fcntl.fcntl(descriptor, fcntl.F_SETFD, 0)
    syscall("execveat", program, b"", argument_pointers, environment_pointers, AT_EMPTY_PATH)
    del memory  # not reached: it had to live until here
    raise AssertionError("execveat returned without an error")


def executable(program: bytes, mode: int = 0o111) -> int:
    """A descriptor, closed on exec, of an executable file of these bytes that nobody can write to or replace.

    mode: 0111 means that who lacks CAP_DAC_OVERRIDE can't even read it. Then a process that executes it isn't
    "dumpable": its files in /proc are root's, so a plain user can't write its id maps; with 0511 they can.
    Raises KernelError.
    """
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    try:
        try:
            descriptor = syscall("memfd_create", b"runner", flags | MFD_EXEC)
        except KernelError as error:
            if error.errno != codes.EINVAL:
                raise
            descriptor = syscall("memfd_create", b"runner", flags)  # before Linux 6.3
    except KernelError as error:
        if error.errno not in (codes.EACCES, codes.EPERM):
            raise
        return _executable_on_tmpfs(program, mode)  # vm.memfd_noexec = 2
    try:
        _fill(descriptor, program, mode)
        fcntl.fcntl(descriptor, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _executable_on_tmpfs(program: bytes, mode: int = 0o111) -> int:
    """The same as a file of a read-only file system that is mounted nowhere; needs CAP_SYS_ADMIN."""
    context = syscall("fsopen", b"tmpfs", FSOPEN_CLOEXEC)
    syscall("fsconfig", context, FSCONFIG_CMD_CREATE, 0, 0, 0)
    mount = syscall("fsmount", context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    writable = os.open("runner", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=mount)
    _fill(writable, program, mode)
    os.close(writable)
    # The file system itself, not only this mount of it: no other way in can be writable.
    syscall("fsconfig", context, FSCONFIG_SET_FLAG, b"ro", 0, 0)
    syscall("fsconfig", context, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0)
    descriptor = os.open("runner", os.O_PATH | os.O_CLOEXEC, dir_fd=mount)
    os.close(mount)
    os.close(context)
    return descriptor


def _fill(descriptor: int, program: bytes, mode: int) -> None:
    view = memoryview(program)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fchmod(descriptor, mode)


def _vectors(arguments: list[bytes], environment: list[bytes], before: int = 0) -> tuple[Any, int, int]:
    """Two arrays of pointers as execve takes them: the memory that holds everything, and where they begin.

    before: so many bytes of the memory are left free for the caller.
    """
    strings = [*arguments, *environment]
    joined = b"\0".join(strings) + b"\0"
    if joined.count(0) != max(1, len(strings)):
        raise KernelError("execve", strings, codes.EINVAL, "arguments and variables can't hold a zero byte")
    arrays = 8 * (len(strings) + 2)
    size = before + arrays + len(joined)
    memory = buffer(size + -size % 1024)  # each size is a type of its own
    start = addressof(memory) + before
    at = start + arrays
    pointers = []
    for part in (arguments, environment):
        for string in part:
            pointers.append(at.to_bytes(8, "little"))
            at += len(string) + 1
        pointers.append(bytes(8))
    memoryview(memory).cast("B")[before:size] = b"".join([*pointers, joined])
    return memory, start, start + 8 * (len(arguments) + 1)


class CloseDescriptors(Step):
    """Closes every descriptor from 3 up when the program is executed."""

    __slots__ = ()

    phase = "privileges"
    why = "A descriptor of the host's that stayed open would be a way out of the container."
    man = "close_range(2)"

    def __init__(self, by: str = RUNNER) -> None:
        super().__init__(by)

    def rows(self, slots: Slots) -> list[Row]:
        """Marks them, because the runner still needs its own; CLOSE_RANGE_CLOEXEC is there since Linux 5.11."""
        return [Row("close_range", (3, _EVERY, CLOSE_RANGE_CLOEXEC), self.call())]

    def call(self) -> str:
        """One call for all of them."""
        return "close_range(3, ~0U, CLOSE_RANGE_CLOEXEC)"

    def shell(self) -> str:
        """One by one. Only bash can close those from 10 up."""
        close = 'for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -lt 3 ] || eval "exec $fd>&-"; done'
        return f"bash -c '{close}; exec \"$@\"' - COMMAND"


class Await(Step):
    """Wait until the parent has done its steps after the process was made. A plan has one such step at most."""

    __slots__ = ()

    why = "what follows needs what is done outside"
    man = "recv(2)"
    waits = True

    def rows(self, slots: Slots) -> list[Row]:
        """None: the row that waits is the machinery's, which knows the channel."""
        return []

    def call(self) -> str:
        """On the channel to the parent."""
        return "recv(parent)"


class DeathSignal(Step):
    """Has the container killed when the process that started it dies. Comes after the steps that change ids."""

    __slots__ = ("signal",)

    phase = "privileges"
    why = "A container in the foreground doesn't outlive the command that shows its output."
    man = "prctl(2), PR_SET_PDEATHSIG(2const)"

    def __init__(self, signal: int = 9, by: str = RUNNER) -> None:
        super().__init__(by)
        self.signal = signal

    def rows(self, slots: Slots) -> list[Row]:
        """After the ids have changed: the kernel forgets the signal at each such change."""
        return [Row("prctl", (PR_SET_PDEATHSIG, self.signal, 0, 0, 0), self.call())]

    def call(self) -> str:
        """The signal by number."""
        return f"prctl(PR_SET_PDEATHSIG, {self.signal})"

    def shell(self) -> str:
        """util-linux has it, by name."""
        from .signals import name

        return f"setpriv --pdeathsig {name(self.signal).removeprefix('SIG')} COMMAND"
