"""The runner: the last part of a container's set-up, after Python has gone.

The process that becomes the container's program can't stay Python until the end. Its `/proc/<pid>/exe` would be the
host's interpreter, which a container could open, and giving up privileges one by one would leave Python code between
them. So that process executes a program of some 700 bytes from a sealed memory file. It makes the remaining system
calls from a table, row by row, and then executes the container's program:

    setpriv --no-new-privs --bounding-set … --reuid … --regid … --groups … -- /bin/sh

man 2 memfd_create, man 2 execveat, man 2 execve; runner_image.py and runner-x86_64.S are the program
"""

from __future__ import annotations

import errno as codes
import fcntl
import os

from ..errors import KernelError
from ..plan.step import RUNNER, Row, Slots, Step
from .runner_image import image, read_report
from .syscall import addressof, buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["CloseDescriptors", "DeathSignal", "Execute", "enter", "image", "read_report"]

AT_EMPTY_PATH = 0x1000
CLOSE_RANGE_CLOEXEC = 4
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 0x1, 0x2, 0x10
F_ADD_SEALS = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_CMD_CREATE, FSCONFIG_CMD_RECONFIGURE = 0, 6, 7
MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 0x2, 0x4
PR_SET_PDEATHSIG = 1

_EVERY = 0xFFFFFFFF


def enter(
    rows: list[Row],
    arguments: list[bytes],
    environment: list[bytes],
    errors: int,
    init: bool = False,
    keep: tuple[int, ...] = (),
) -> NoReturn:
    """Leave Python for good: make the system calls of `rows`, then execute the container's program.

    arguments: the path of the program, then what it is given, its own name first. environment: `NAME=value` each.
    errors: the writing end of a pipe; the runner writes a report to it when a row fails (`read_report`) and leaves
    with 126, or 127 where the program doesn't exist. The pipe ends without a report once the program runs.
    init: stay as process 1, which passes signals on, reaps orphans and ends as its only child, the program, ends.
    keep: descriptors from 3 up that are passed on; the runner gets no others. A row of `CloseDescriptors` marks these
    too, so a program is only passed one by leaving that out.
    Raises KernelError when the runner can't be executed.
    """
    if errors < 3:
        errors = fcntl.fcntl(errors, fcntl.F_DUPFD_CLOEXEC, 3)
    program = executable(image(rows, errors, init))
    syscall("close_range", 3, _EVERY, CLOSE_RANGE_CLOEXEC, hint="needs Linux 5.11")
    for descriptor in (errors, *keep):
        fcntl.fcntl(descriptor, fcntl.F_SETFD, 0)
    argument_pointers, environment_pointers, memory = _vectors(arguments, environment)
    syscall("execveat", program, b"", argument_pointers, environment_pointers, AT_EMPTY_PATH)
    del memory  # not reached: it had to live until here
    raise AssertionError("execveat returned without an error")


def executable(program: bytes) -> int:
    """A descriptor, closed on exec, of an executable file of these bytes that nobody can write to or replace.

    It has mode 0111: who lacks CAP_DAC_OVERRIDE can't even read it. Raises KernelError.
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
        return _executable_on_tmpfs(program)  # vm.memfd_noexec = 2
    _fill(descriptor, program)
    fcntl.fcntl(descriptor, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    return descriptor


def _executable_on_tmpfs(program: bytes) -> int:
    """The same as a file of a read-only file system that is mounted nowhere; needs CAP_SYS_ADMIN."""
    context = syscall("fsopen", b"tmpfs", FSOPEN_CLOEXEC)
    syscall("fsconfig", context, FSCONFIG_CMD_CREATE, 0, 0, 0)
    mount = syscall("fsmount", context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    writable = os.open("runner", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o111, dir_fd=mount)
    _fill(writable, program)
    os.close(writable)
    # The file system itself, not only this mount of it: no other way in can be writable.
    syscall("fsconfig", context, FSCONFIG_SET_FLAG, b"ro", 0, 0)
    syscall("fsconfig", context, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0)
    descriptor = os.open("runner", os.O_PATH | os.O_CLOEXEC, dir_fd=mount)
    os.close(mount)
    os.close(context)
    return descriptor


def _fill(descriptor: int, program: bytes) -> None:
    view = memoryview(program)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fchmod(descriptor, 0o111)


def _vectors(arguments: list[bytes], environment: list[bytes]) -> tuple[bytes, bytes, object]:
    """Two arrays of pointers as execve takes them, and the memory that they point into."""
    strings = [*arguments, *environment]
    joined = b"\0".join(strings) + b"\0"
    if joined.count(0) != max(1, len(strings)):
        raise KernelError("execve", strings, codes.EINVAL, "arguments and variables can't hold a zero byte")
    memory = buffer(len(joined))
    memoryview(memory).cast("B")[:] = joined
    pointers = []
    at = addressof(memory)
    for string in strings:
        pointers.append(at.to_bytes(8, "little"))
        at += len(string) + 1
    count = len(arguments)
    return b"".join(pointers[:count]) + bytes(8), b"".join(pointers[count:]) + bytes(8), memory


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
        """A shell closes them one by one."""
        return 'for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -lt 3 ] || eval "exec $fd>&-"; done'


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
        """util-linux has it by name."""
        return f"setpriv --pdeathsig {self.signal}"


class Execute(Step):
    """The container's program takes the place of the runner, or becomes its child with `init`.

    path: the program's, in the container. arguments: what it is given, its own name first. environment: NAME=value
    each. It is the last step and has no rows: whoever carries out a plan hands `program()`, `init` and the rows of the
    other steps to `enter()`. `executes` tells it from all others.
    """

    __slots__ = ("arguments", "environment", "init", "path")

    executes = True
    phase = "exec"
    why = "From here on the process is the container's own program."
    man = "execve(2)"

    def __init__(
        self,
        path: str,
        arguments: tuple[str, ...],
        environment: tuple[str, ...] = (),
        init: bool = False,
        by: str = RUNNER,
    ) -> None:
        super().__init__(by)
        self.path = path
        self.arguments = arguments
        self.environment = environment
        self.init = init

    def program(self) -> tuple[list[bytes], list[bytes]]:
        """The arguments and the environment as `enter()` takes them."""
        arguments = [os.fsencode(argument) for argument in (self.path, *self.arguments)]
        return arguments, [os.fsencode(variable) for variable in self.environment]

    def rows(self, slots: Slots) -> list[Row]:
        """None: the runner ends with it anyway."""
        return []

    def call(self) -> str:
        """The values of variables aren't shown: they may be secrets."""
        shown = ", ".join(f'"{argument}"' for argument in self.arguments)
        execve = f'execve("{self.path}", [{shown}], {len(self.environment)} variables)'
        return f"clone(SIGCHLD); {execve}; rt_sigtimedwait(…); wait4(-1, …)" if self.init else execve

    def shell(self) -> str:
        """As typed; the program's own name can only differ from its path in bash."""
        from ..plan.shell import quote

        words = [quote(word) for word in (self.path, *self.arguments[1:])]
        return " ".join(["tini", "--", *words] if self.init else ["exec", *words])
