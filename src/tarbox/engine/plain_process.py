"""A plain command, no container, that is prepared by a few steps and then attended to until it ends.

    (echo 0 > /sys/fs/cgroup/box/cgroup.procs; exec COMMAND); echo $?

The command stays in the caller's session and process group, so that its terminal works as ever: the keys of the
terminal reach it directly, and only what others send to this process is handed on. When the command is stopped so is
this process, for the caller's shell to see it.

man 2 fork, man 2 signalfd, man 2 waitpid
"""

from __future__ import annotations

from select import POLLIN, poll

from ..errors import CommandError
from ..kernel import signals
from ..kernel.namespaces import DieWithParent, Spawn
from ..kernel.program import Execute
from ..kernel.runner import DeathSignal
from ..kernel.signals import DefaultSignals
from ..kernel.syscall import syscall
from ..plan.executor import Execution
from ..plan.plan import Plan
from ..plan.step import Slots
from ..runtime import launch
from ..runtime.launch import INHERITED
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..plan.step import Step

_SIGKILL, _SIGSTOP, _SIGCHLD, _SIGCONT = 9, 19, 17, 18
_STOPPING = (20, 21, 22)  # TSTP, TTIN, TTOU: job control
_OURS = (4, 5, 7, 8, 11, 13, 23, 28, 31)  # this process's own faults, and what concerns nobody else


def attend(command: Sequence[str], steps: Sequence[Step], before: Sequence[Step] = ()) -> int:
    """Run a command to its end and return its exit code, 128+n when signal n ended it.

    command: a program, looked for on the path, and its arguments. steps: of the runner, which becomes the command.
    before: of this process. Raises what a step raised, CommandNotFoundError and CommandNotExecutableError.
    """
    if _SIGCHLD in signals.ignored():  # inherited; the kernel would throw the exit status away
        syscall("rt_sigaction", _SIGCHLD, bytes(32), None, 8)
    mask = signals.present_mask()
    slots = Slots()
    slots.descriptors.update(_inherited())
    given = tuple(slots.descriptors)
    ending = [DeathSignal()] if any(isinstance(step, DieWithParent) for step in steps) else []
    environment = tuple(f"{name}={value}" for name, value in os.environ.items())
    program = Execute(command[0], tuple(command), environment, search=_path(), directory=os.getcwd())
    plan = Plan([*before, Spawn(()), *steps, DefaultSignals(signals.PYTHONS, mask), *ending, program], given)
    execution = Execution(plan, slots, launch, results=("pidfd",))
    try:
        try:
            child = execution.start()
        except CommandError as error:
            _reap(execution.pid)
            raise _reworded(error) from None
        except BaseException:
            _reap(execution.pid)
            raise
        finally:
            for line in slots.warnings:
                os.write(2, f"tarbox: {line}\n".encode("utf-8", "replace"))
        os.close(slots.take("pidfd"))
        return _wait(child)
    finally:
        signals.set_mask(mask)


def _path() -> str:
    return os.environ.get("PATH") or os.defpath


def _inherited() -> dict[str, int]:
    """The descriptors beyond the first three that the caller left open for this command's program."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found[f"{INHERITED}{name}"] = int(name)
        except OSError:  # of the listing itself
            pass
    return found


def _reap(child: int) -> None:
    if child:
        try:
            os.kill(child, _SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _reworded(error: CommandError) -> CommandError:
    """There is no container to speak of."""
    return type(error)(error.message.replace(" in the container", ""), error.hint.replace(" in the container", ""))


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
