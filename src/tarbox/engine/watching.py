"""`tarbox run --profile` and `--step`: a run that is timed, or stopped between its steps.

    tarbox run --profile IMAGE COMMAND        tarbox run --step IMAGE COMMAND

Both are the usual run with somebody who looks on: told by the executor before each of the parent's steps, and by the
runner's marks (`runtime/marks.py`) before each of those inside. Nothing of it is loaded otherwise.

man 1 nsenter
"""

from __future__ import annotations

import sys
import time

from ..errors import StorageError, UsageError
from ..kernel import signals
from ..plan.profile import Profile
from ..plan.step import PARENT
from ..plan.stepping import Stepper
from ..runtime.marks import Marked
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.executor import Execution
    from .options import RunOptions
    from .run import Container

_JSON = "json"
_KINDS = {"mnt": "--mount", "uts": "--uts", "ipc": "--ipc", "net": "--net", "cgroup": "--cgroup"}


def run(options: RunOptions, root: str | None, profile: object, step: bool) -> int:
    """Run a container as `engine.run.run` does, timed or step by step.

    profile: True for a table on standard error, "json", or the path of a file for JSON; anything else for none.
    """
    if step and profile:
        raise UsageError("--profile and --step don't go together", "the times would be those of your reading")
    from .run import run as plain

    if step:
        with_user = Steps(options)
        try:
            return plain(options, root, watch=with_user)
        finally:
            with_user.close()
    times = Times()
    output = _open(profile)
    try:
        times.profile.code = plain(options, root, watch=times)
        times.profile.cleaned = time.time_ns()
        _write(output, times.profile, profile is True)
    finally:
        if output != 2:
            os.close(output)
    return times.profile.code


def _open(profile: object) -> int:
    """Where the profile goes, opened before anything is done."""
    if not isinstance(profile, str) or profile == _JSON:
        return 2
    try:
        return os.open(profile, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"--profile={profile}: {error.strerror}", "is the directory there?") from None


def _write(output: int, profile: Profile, table: bool) -> None:
    if table:
        text = "\n" + profile.table()
    else:
        import json

        text = json.dumps(profile.document()) + "\n"
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[os.write(output, data) :]
    except OSError as error:
        if output != 2:
            raise StorageError(f"can't write the profile: {error.strerror}") from None


class Times:
    """Notes when each step begins."""

    def __init__(self) -> None:
        self.profile = Profile(time.time_ns(), time.process_time_ns())

    def attach(self, container: Container, execution: Execution) -> None:
        """Look on at a container's start."""
        self.profile.plan = container.plan
        self.profile.names = container.names()
        machinery = Marked(self._mark)
        machinery.total = len(container.plan.steps)
        execution.machinery = machinery
        execution.observe = self._observe
        execution.meanwhile = None  # or the program's start would be noticed only after it

    def _observe(self, kind: str, index: int, process: str) -> None:
        if kind == "step":
            self.profile.steps[index] = time.time_ns()

    def _mark(self, index: int, stamp: int) -> None:
        self.profile.steps[index] = stamp

    def started(self) -> None:
        """The program runs."""
        self.profile.started = time.time_ns()

    def ended(self) -> None:
        """It has ended."""
        self.profile.ended = time.time_ns()


class Steps:
    """Shows each step and asks, at the caller's terminal or, without one, line by line from standard input."""

    def __init__(self, options: RunOptions) -> None:
        self._input = self._output = -1
        self._own = False
        self._pid = 0
        self._pending = b""
        self._stepper: Stepper | None = None
        self._execution: Execution | None = None
        self._names: dict[str, str] = {}
        self._open(options.interactive)

    def _open(self, interactive: bool) -> None:
        if not interactive:
            self._input, self._output = 0, 2
            return
        try:
            self._input = self._output = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
            self._own = True
        except OSError:
            text = "--step has nobody to ask: -i gives standard input to the container, and there is no terminal"
            raise UsageError(text, "leave -i out, or run it at a terminal") from None

    def close(self) -> None:
        """Let go of the terminal."""
        if self._own:
            os.close(self._input)

    def attach(self, container: Container, execution: Execution) -> None:
        """Look on at a container's start."""
        self._execution = execution
        self._stepper = Stepper(container.plan, container.names(), self._say, self._ask, self._look)
        machinery = Marked(self._mark, self._spawned)
        machinery.total = len(container.plan.steps)
        execution.machinery = machinery
        execution.observe = self._observe

    def _observe(self, kind: str, index: int, process: str) -> None:
        if kind == "step" and process == PARENT and self._stepper:
            self._stepper.before(index)

    def _mark(self, index: int, stamp: int) -> None:
        if self._stepper:
            self._stepper.before(index)

    def _spawned(self, pid: int) -> None:
        self._pid = pid

    def started(self) -> None:
        """The program runs; there are no steps left."""

    def ended(self) -> None:
        """It has ended."""

    def _say(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(self._output, data) :]

    def _ask(self, prompt: str) -> str | None:
        """A line that is typed. Since there is a process all signals are blocked; but ^C is meant for us here."""
        self._say(prompt)
        mask = signals.set_mask(bytes(8))
        try:
            while b"\n" not in self._pending:
                piece = os.read(self._input, 1)  # what comes after the line may be for a shell
                if not piece:
                    self._say("\n")
                    return None
                self._pending += piece
        finally:
            signals.set_mask(mask)
        line, _, self._pending = self._pending.partition(b"\n")
        if not os.isatty(self._input):
            self._say("\n")
        return line.decode("utf-8", "replace")

    def _look(self) -> None:
        """A shell of the host's: before there is a process beside it, then in its namespaces.

        Also when the root is the container's no program of the image is executed: it would have all rights. The
        shell's root stays the host's; its working directory is the container's.
        """
        shell = [os.environ.get("SHELL") or "/bin/sh"]
        environment = dict(os.environ)
        slots = self._execution.slots.descriptors if self._execution else {}
        us = os.getpid()
        environment["TARBOX_PID"] = str(self._pid or us)
        if "tree" in slots:
            environment["TREE"] = f"/proc/{us}/fd/{slots['tree']}"
        where = "in $TREE is what will be its root" if "tree" in slots else "there is nothing of a root yet"
        if self._pid:
            other = [option for kind, option in _KINDS.items() if _differs(kind, self._pid)]
            if other:
                enter = [f"--target={self._pid}", *other, "--root=/", f"--wd=/proc/{self._pid}/root"]
                shell = ["nsenter", *enter, "--", *shell]
                where = (
                    f"in its namespaces ({' '.join(option[2:] for option in other)}), with your programs; . is its root"
                )
            where += f"; its number is $TARBOX_PID, {self._pid}"
        self._say(f"A shell of yours, with your rights: {where}. 'exit' leads back.\n")
        self._run(shell, environment)

    def _run(self, command: list[str], environment: dict[str, str]) -> None:
        sys.stderr.flush()
        streams = [(os.POSIX_SPAWN_DUP2, self._input, 0), (os.POSIX_SPAWN_DUP2, self._output, 1)]
        streams.append((os.POSIX_SPAWN_DUP2, self._output, 2))
        mask = signals.block_all()  # its keys are its own
        try:
            child = os.posix_spawnp(
                command[0], command, environment, file_actions=streams, setsigmask=[], setsigdef=list(signals.ignored())
            )
            os.waitpid(child, 0)
        except OSError as error:
            self._say(f"{command[0]}: {error.strerror}\n")
        finally:
            if os.isatty(self._input):
                _to_front(self._input)
            signals.set_mask(mask)


def _differs(kind: str, pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    except OSError:
        return False


def _to_front(terminal: int) -> None:
    """A shell with job control may have left the terminal to a job of its own."""
    try:
        os.tcsetpgrp(terminal, os.getpgrp())
    except OSError:
        pass
