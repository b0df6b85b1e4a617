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
from ..kernel.setns import BIRTH
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
    from collections.abc import Callable, Mapping, Sequence

    from ..plan.step import Step

_SIGKILL, _SIGSTOP, _SIGCHLD, _SIGCONT = 9, 19, 17, 18
_STOPPING = (20, 21, 22)  # TSTP, TTIN, TTOU: job control
_OURS = (4, 5, 7, 8, 11, 13, 23, 28, 31)  # this process's own faults, and what concerns nobody else


def attend(command: Sequence[str], steps: Sequence[Step], before: Sequence[Step] = ()) -> int:
    """Run a command to its end and return its exit code, 128+n when signal n ended it.

    command: a program, looked for on the path, and its arguments. steps: of the runner, which becomes the command.
    before: of this process. Raises what a step raised, CommandNotFoundError and CommandNotExecutableError.
    """

    return carry_out(lambda mask, given: plan(command, steps, before, mask, given))


def plan(
    command: Sequence[str],
    steps: Sequence[Step],
    before: Sequence[Step] = (),
    mask: bytes = bytes(8),
    given: tuple[str, ...] = (),
) -> Plan:
    """The plan of a command that is the caller's but for these steps, see `attend`."""
    ending = [DeathSignal()] if any(isinstance(step, DieWithParent) for step in steps) else []
    last = [DefaultSignals(signals.PYTHONS, mask), *ending, program(command)]
    return Plan([*before, Spawn(()), *steps, *last], given)


def program(command: Sequence[str], variables: Sequence[str] = (), directory: str = "", init: bool = False) -> Execute:
    """The step that becomes the command, with the caller's environment.

    variables: NAME=value that come over the caller's; without a value, as the caller has it. directory: where it
    starts, for telling what went wrong; "" for here. init: a small one of ours stays as its parent.
    """
    environment = dict(os.environ)
    for variable in variables:
        name, equals, value = variable.partition("=")
        if equals:
            environment[name] = value
    listed = tuple(f"{name}={value}" for name, value in environment.items())
    search = environment.get("PATH") or os.defpath
    return Execute(command[0], tuple(command), listed, init, search, directory or here())


def here() -> str:
    """The working directory; "/" where that isn't there any more."""
    try:
        return os.getcwd()
    except OSError:
        return "/"


def carry_out(planned: Callable[[bytes, tuple[str, ...]], Plan], slots_too: Mapping[str, int] | None = None) -> int:
    """Carry out a plan that ends with a command, and attend to that; returns its exit code as `attend` does.

    planned: makes the plan, from the mask of signals that the command is to have, and the slots that are filled before.
    slots_too: open descriptors of the caller's for it; with one in the slot "birth" the command is a child of the
    runner's, see `kernel/setns.py`.
    """
    if _SIGCHLD in signals.ignored():  # inherited; the kernel would throw the exit status away
        syscall("rt_sigaction", _SIGCHLD, bytes(32), None, 8)
    mask = signals.present_mask()
    slots = Slots()
    slots.descriptors.update(_inherited())
    slots.descriptors.update(slots_too or {})
    execution = Execution(planned(mask, tuple(slots.descriptors)), slots, launch, results=("pidfd",))
    birth = slots.descriptors.get(BIRTH)
    try:
        try:
            child = execution.start()
        except CommandError as error:
            _reap(execution.pid, birth)
            raise _reworded(error) from None
        except BaseException:
            _reap(execution.pid, birth)
            raise
        finally:
            for line in slots.warnings:
                os.write(2, f"tarbox: {line}\n".encode("utf-8", "replace"))
        os.close(slots.take("pidfd"))
        return _wait(child if birth is None else _born(child, birth))
    finally:
        signals.set_mask(mask)


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


def _born(parent: int, birth: int) -> int:
    """The process that was born in the place of the runner, `parent`, which has ended or is about to; 0 for none."""
    from fcntl import F_GETOWN, fcntl

    try:
        os.waitpid(parent, 0)
    except ChildProcessError:
        pass
    return fcntl(birth, F_GETOWN)


def _reap(child: int, birth: int | None = None) -> None:
    if child and birth is not None:
        child = _born(child, birth)
    if child:
        try:
            os.kill(child, _SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _reworded(error: CommandError) -> CommandError:
    """There is no container to speak of."""
    message, hint = error.message, error.hint
    for words, instead in ((" in the container", ""), ("isn't in the image", "isn't there"), (" in the image", "")):
        message, hint = message.replace(words, instead), hint.replace(words, instead)
    return type(error)(message, hint)


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
