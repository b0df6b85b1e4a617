"""A plain command, no container, that is prepared by a few steps and then attended to until it ends.

    (echo 0 > /sys/fs/cgroup/box/cgroup.procs; exec COMMAND); echo $?

The command stays in the caller's session and process group, so that its terminal works as ever: the keys of the
terminal reach it directly, and only what others send to this process is handed on. When the command is stopped so is
this process, for the caller's shell to see it.

man 2 fork, man 2 signalfd, man 2 waitpid
"""

from __future__ import annotations

import os
from errno import ENOENT, ENOTDIR
from select import POLLIN, poll

from ..errors import CommandError, CommandNotExecutableError, CommandNotFoundError, TarboxError
from ..kernel import signals
from ..kernel.syscall import syscall
from ..plan.step import Slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from ..plan.step import Step

_SIGSTOP, _SIGCHLD, _SIGCONT = 19, 17, 18
_STOPPING = (20, 21, 22)  # TSTP, TTIN, TTOU: job control
_OURS = (4, 5, 7, 8, 11, 13, 23, 28, 31)  # this process's own faults, and what concerns nobody else


def attend(command: Sequence[str], steps: Sequence[Step]) -> int:
    """Run a command to its end and return its exit code, 128+n when signal n ended it.

    command: a program, looked for on the path, and its arguments. steps: taken, in order, by the process that becomes
    the command. Raises what a step raised, CommandNotFoundError and CommandNotExecutableError.
    """
    if _SIGCHLD in signals.ignored():  # inherited; the kernel would throw the exit status away
        syscall("rt_sigaction", _SIGCHLD, bytes(32), None, 8)
    mask = signals.block_all()  # so that none is lost between the fork and the first look
    try:
        reading, writing = os.pipe()
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _become(command, steps, mask, writing, parent)
        os.close(writing)
        with os.fdopen(reading, "rb") as errors:
            problem = errors.read()  # ends when the command runs
        if problem:
            os.waitpid(child, 0)
            raise _error(command[0], problem)
        return _wait(child)
    finally:
        signals.set_mask(mask)


def _become(command: Sequence[str], steps: Sequence[Step], mask: bytes, errors: int, parent: int) -> NoReturn:
    """In the child: take the steps and become the command."""
    try:
        slots = Slots()
        for step in steps:
            step.apply(slots)
        if os.getppid() != parent:  # it was killed before the kernel was asked to tell us
            os._exit(125)
        for line in slots.warnings:
            os.write(2, f"tarbox: {line}\n".encode("utf-8", "replace"))
        signals.forget_pythons()
        signals.set_mask(mask)
        os.execvp(command[0], list(command))
    except TarboxError as error:
        os.write(errors, f"-{error}".encode("utf-8", "replace"))
    except OSError as error:
        os.write(errors, str(error.errno).encode())
    except BaseException as error:
        os.write(errors, f"-{type(error).__name__}: {error}".encode("utf-8", "replace"))
    finally:
        os._exit(125)


def _error(program: str, problem: bytes) -> TarboxError:
    text = problem.decode("utf-8", "replace")
    if text.startswith("-"):
        return CommandError(text[1:])
    number = int(text)
    if number in (ENOENT, ENOTDIR):
        there = "/" in program and os.path.exists(program)
        hint = "the interpreter in its first line doesn't exist" if there else ""
        return CommandNotFoundError(
            f"there is no program {program!r}" + ("" if "/" in program else " on the path"), hint
        )
    return CommandNotExecutableError(f"{program} can't be executed: {os.strerror(number)}")


def _wait(child: int) -> int:
    arrivals = signals.signal_descriptor()
    poller = poll()
    poller.register(arrivals, POLLIN)
    try:
        while True:
            # Looked at before the first signal too: a short command's end may have been told before.
            while (found := os.waitpid(child, os.WNOHANG | os.WUNTRACED))[0]:
                if not os.WIFSTOPPED(found[1]):
                    code = os.waitstatus_to_exitcode(found[1])
                    return code if code >= 0 else 128 - code
                if os.WSTOPSIG(found[1]) in _STOPPING:  # by the terminal's user, and not by whoever holds it alone
                    os.kill(os.getpid(), _SIGSTOP)
            poller.poll()
            while (arrived := signals.read_sender(arrivals)) is not None:
                number, from_kernel = arrived
                if number == _SIGCONT or not (from_kernel or number == _SIGCHLD or number in _OURS):
                    os.kill(child, number)  # it is there until it is waited for
    finally:
        os.close(arrivals)
