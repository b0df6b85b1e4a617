"""A session: what the command does for a foreground container from its start to its end.

    COMMAND; echo $?                 a shell does the same for its foreground job

It hands the container its standard streams, copies those that must not be handed over, passes signals on to the
container's first process, keeps the caller's terminal in raw mode while the container has one of its own, stops and
continues with the job control of the caller's shell, and brings home the exit status.

Where there is nothing to copy, it only sleeps until a signal or the end of the container wakes it.

Whatever happens, the terminal gets its modes back, with one exception: nothing can run after `kill -9` of the command
itself (`stty sane` then helps).

man 2 signalfd, man 2 pidfd_open, man 2 poll
"""

from __future__ import annotations

import time
from errno import ESRCH
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, poll

from ..errors import KernelError, TarboxError, UsageError
from ..kernel import signals
from ..kernel.syscall import syscall
from ..kernel.terminal import in_foreground
from ..unistd import os
from .foreground import SIGTSTP, Foreground
from .streams import Copy, are_one, make_pipe, may_cross

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .relay import Relay

SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM, SIGCHLD = 1, 2, 3, 9, 15, 17
SIGCONT, SIGSTOP, SIGTTIN, SIGTTOU, SIGWINCH = 18, 19, 21, 22, 28

# Not passed on: what concerns this process alone (its faults, its pipes, its children, its place in the shell's jobs).
_OURS = frozenset((4, 5, 7, 8, SIGKILL, 11, 13, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, 23, SIGWINCH, 31))
_ENDING = (SIGHUP, SIGINT, SIGQUIT, SIGTERM)
_INTERRUPTS = 3  # so many ^C end a container that takes no notice of them
_HANGUP_SECONDS = 10.0  # for a container to end after its terminal has gone
_LINGER_SECONDS = 1.0  # for output of what outlives the container's first process, where it has no PID namespace
_CONSOLE_SECONDS = 0.05  # between two looks at a terminal that no program in the container has open


def _open_nowhere() -> int:
    """Where output goes that nobody is attached to."""
    return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


class Session:
    """The standard streams, the signals and the end of one foreground container.

    Made before the container: `slots()` has the descriptors for the plan. Then either `run()` or, when the container
    couldn't be started, `close()`. From before the container's first process is made until `run()` has returned, all
    signals must be blocked (`signals.block_all()`), so that none gets lost in between.

    interactive: pass the caller's standard input on. terminal: the container has a terminal of its own. Raises
    UsageError when both are asked for and the caller's input isn't a terminal. attached: which of "stdin", "stdout"
    and "stderr" are the caller's, none for all; what is written to another is thrown away. proxy: hand signals on to
    the container; without it one that ends programs ends this one, and the container is killed.

    relay: who serves the published ports, for as long as the container runs; to be set before `run()`.
    """

    __slots__ = (
        "_arrivals", "_attached", "_console", "_console_rests", "_descriptors", "_ended_by", "_ends", "_foreground",
        "_freeze", "_ignored", "_input", "_interactive", "_interrupts", "_kill_at", "_kill_reason", "_outputs",
        "_pidfd", "_proxy", "_quiet_since", "_running", "_stop_signal", "_terminal", "_thaw", "relay",
    )  # fmt: skip

    def __init__(self, interactive: bool, terminal: bool, attached: Sequence[str] = (), proxy: bool = True) -> None:
        if interactive and terminal and not os.isatty(0):
            raise UsageError("the input device is not a TTY", "without -t the input may be a pipe or a file")
        self._interactive = interactive
        self._terminal = terminal
        self._attached = tuple(attached) or ("stdout", "stderr")
        self._proxy = proxy
        self._ended_by = self._stop_signal = 0
        self._foreground = Foreground(raw=interactive and terminal)
        self._descriptors: dict[str, int] = {}
        self._ends: list[int] = []  # the container's ends of our pipes, until it has them
        self._input: Copy | None = None
        self._outputs: list[Copy] = []
        self._console = self._pidfd = self._arrivals = -1
        self._console_rests = self._quiet_since = 0.0
        self._running = True
        self._interrupts = 0
        self._kill_at: float | None = None
        self._kill_reason = ""
        self._freeze: Callable[[], None] = self._stop_first_process
        self._thaw: Callable[[], None] = self._continue_first_process
        self.relay: Relay | None = None
        self._ignored = frozenset(signals.ignored())
        if SIGCHLD in self._ignored:  # inherited; the kernel would throw the exit status away
            syscall("rt_sigaction", SIGCHLD, bytes(32), None, 8)
        if not terminal:
            self._choose_streams()

    def slots(self) -> dict[str, int]:
        """The descriptors for the plan: "stdout", "stderr" and, when interactive, "stdin"; none with a terminal."""
        return self._descriptors

    def run(
        self,
        pid: int,
        pidfd: int,
        console: int | None = None,
        *,
        timeout: float | None = None,
        stop_signal: int = 0,
        freeze: Callable[[], None] | None = None,
        thaw: Callable[[], None] | None = None,
    ) -> int:
        """Serve the running container until it has ended, and return its exit code: 128+n when signal n ended it.

        pid, pidfd: its first process, a child of this one. console: the master of its terminal, closed here in the
        end. timeout: seconds until it is killed. stop_signal: what the container gets in the place of the signals that
        end programs, to which an init gives other meanings; 0 for those themselves. freeze, thaw: stop all of its
        processes, and let them go on; without them only the first process stops with the command.
        """
        self._pidfd = pidfd
        self._stop_signal = stop_signal
        if freeze and thaw:
            self._freeze, self._thaw = freeze, thaw
        if timeout is not None:
            self._kill_at = time.monotonic() + timeout
            self._kill_reason = f"the container still ran after the {timeout:g} s of its --timeout and was killed"
        try:
            self._arrivals = signals.signal_descriptor()
            self._close_ends()
            if console is not None:
                self._use_console(console)
            return self._serve(pid)
        finally:
            self.close()

    def close(self) -> None:
        """Give the terminal back and close everything that the session opened; a second call does nothing."""
        self._foreground.give_back()
        self._end_relay()
        self._close_ends()
        self._end_input()
        self._end_outputs()
        self._close_console()
        if self._arrivals >= 0:
            os.close(self._arrivals)
            self._arrivals = -1

    # Before the start: which descriptors the container gets.

    def _choose_streams(self) -> None:
        if self._interactive:
            self._descriptors["stdin"] = self._choose_input()
        self._descriptors["stdout"] = self._choose_output(1, "standard output", "stdout")
        both = {"stdout", "stderr"} <= {*self._attached}
        if both and self._descriptors["stdout"] != 1 and are_one(1, 2):
            self._descriptors["stderr"] = self._descriptors["stdout"]
        else:
            self._descriptors["stderr"] = self._choose_output(2, "standard error", "stderr")

    def _choose_input(self) -> int:
        if may_cross(0):
            return 0
        theirs, ours = make_pipe()
        self._ends.append(theirs)
        os.set_blocking(ours, False)
        self._input = Copy.of_input(0, ours, (ours,))
        return theirs

    def _choose_output(self, caller: int, what: str, name: str) -> int:
        if name not in self._attached:
            nowhere = _open_nowhere()
            self._ends.append(nowhere)
            return nowhere
        if may_cross(caller):
            return caller
        ours, theirs = make_pipe()
        self._ends.append(theirs)
        os.set_blocking(ours, False)
        self._outputs.append(Copy.of_output(what, ours, caller, (ours,)))
        return theirs

    def _close_ends(self) -> None:
        while self._ends:
            os.close(self._ends.pop())

    # While it runs.

    def _serve(self, pid: int) -> int:
        code = 0
        while self._running or self._has_output():
            events = self._wait()
            while (number := signals.read_signal(self._arrivals)) is not None:
                self._handle(number)
            if self._running and self._pidfd in events:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                self._running = False
                self._end_relay()
                self._end_input()
                self._quiet_since = time.monotonic()
            if self.relay and self.relay.fileno() in events and (said := self.relay.attend()):
                self._foreground.tell(said)
            self._copy(events)
            if self._running and self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill(self._kill_reason)
                self._kill_at = None
        if self._ended_by:
            return 128 + self._ended_by
        return code if code >= 0 else 128 - code

    def _has_output(self) -> bool:
        """Whether there is still something to wait for after the end of the container's first process.

        The others in its PID namespace have died with it, so that all output is in the pipes by now and ends there.
        Without such a namespace a process may go on holding a pipe; it has a moment to write.
        """
        if not self._outputs:
            return False
        return any(copy.pending for copy in self._outputs) or time.monotonic() - self._quiet_since < _LINGER_SECONDS

    def _wait(self) -> dict[int, int]:
        """Sleep until something can be done, and return the events by descriptor."""
        interest = {self._arrivals: POLLIN}
        until = self._kill_at if self._running else None
        if self._running:
            interest[self._pidfd] = POLLIN
            if self.relay and self.relay.fileno() >= 0:
                interest[self.relay.fileno()] = POLLIN
        elif not any(copy.pending for copy in self._outputs):
            until = self._quiet_since + _LINGER_SECONDS
        resting = self._console if self._running and self._console_rests > time.monotonic() else -1
        if resting >= 0:
            until = self._console_rests if until is None else min(until, self._console_rests)
        for copy in self._copies():
            for descriptor, wanted in copy.interest():
                if descriptor != resting:
                    interest[descriptor] = interest.get(descriptor, 0) | wanted
        poller = poll()
        for descriptor, wanted in interest.items():
            poller.register(descriptor, wanted)
        return dict(poller.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000 + 1))

    def _end_relay(self) -> None:
        if self.relay:
            self.relay.close()
            self.relay = None

    def _copies(self) -> list[Copy]:
        return [*self._outputs, self._input] if self._input else self._outputs

    def _copy(self, events: dict[int, int]) -> None:
        """Move what can be moved now."""
        for copy in self._copies():
            at_sink = events.get(copy.sink, 0)
            if at_sink & POLLOUT and copy.pending:
                copy.write()
            elif at_sink & (POLLERR | POLLNVAL) or (at_sink & POLLHUP and copy.sink != self._console):
                copy.close()  # nobody will read it
            if copy.source in events and copy.source >= 0 and not copy.pending:
                self._read(copy)
                self._quiet_since = time.monotonic()
            if copy.error:
                self._foreground.tell(copy.error)
                copy.error = ""
        if self._input and self._input.ended:
            self._input = None
        for copy in [copy for copy in self._outputs if copy.ended]:
            self._outputs.remove(copy)
            if self._terminal:
                self._close_console()  # the caller is gone: hang up, as any terminal does

    def _read(self, copy: Copy) -> None:
        if copy is self._input and not self._may_read_input():
            return
        try:
            copy.read()
        except OSError:  # EIO: it isn't open at the other end
            if copy.source == self._console and self._running:  # an init may open it again
                self._console_rests = time.monotonic() + _CONSOLE_SECONDS
            else:
                copy.end()

    def _may_read_input(self) -> bool:
        """In the background, stop, as every program does that reads its terminal there."""
        if not os.isatty(0):
            return True
        if not in_foreground(0) and not self._suspend(SIGTTIN):
            self._end_input()  # nobody can stop us, and nobody will let us read
            return False
        self._foreground.take()  # a job that was continued in the background and then brought to the front
        return in_foreground(0)

    def _end_input(self) -> None:
        if self._input:
            self._input.close()
            self._input = None

    def _end_outputs(self) -> None:
        for copy in self._outputs:
            copy.close()
        self._outputs = []

    # The container's terminal.

    def _use_console(self, console: int) -> None:
        os.set_blocking(console, False)
        self._console = console
        if {"stdout", "stderr"}.isdisjoint(self._attached):
            nowhere = _open_nowhere()
            self._outputs.append(Copy("standard output", console, nowhere, (nowhere,)))
        else:
            self._outputs.append(Copy.of_output("standard output", console, 1, ()))
        if self._interactive:
            self._input = Copy.of_input(0, console, ())
            if not in_foreground(0):
                self._suspend(SIGTTOU)
            self._foreground.take()
        self._foreground.resize(console)

    def _close_console(self) -> None:
        if self._console >= 0:
            self._end_input()
            os.close(self._console)
            self._console = -1

    # Signals.

    def _handle(self, number: int) -> None:
        if number == SIGTSTP:
            self._suspend(SIGTSTP)
        elif number in (SIGCONT, SIGWINCH):
            self._foreground.take()
            if self._console >= 0:
                self._foreground.resize(self._console)
        elif number in _OURS or number in self._ignored:
            return
        elif not self._running:
            if number in _ENDING:  # the user doesn't want to see the rest
                self._end_outputs()
        elif self._proxy:
            self._pass_on(number)
        else:
            self._ended_by = number
            self._send(SIGKILL)

    def _pass_on(self, number: int) -> None:
        self._send(self._stop_signal if self._stop_signal and number in _ENDING else number)
        if number == SIGINT:
            self._interrupts += 1
            if self._interrupts == _INTERRUPTS:
                self._kill(f"interrupted {_INTERRUPTS} times, the container still ran and was killed")
        elif number == SIGHUP and self._foreground.has_gone() and self._kill_at is None:
            self._kill_at = time.monotonic() + _HANGUP_SECONDS
            self._kill_reason = (
                f"the container still ran {_HANGUP_SECONDS:g} s after its terminal had gone and was killed"
            )

    def _kill(self, reason: str) -> None:
        self._foreground.tell(reason)
        self._send(SIGKILL)

    def _suspend(self, number: int) -> bool:
        """Stop the container and this command until it is continued; False if nothing stopped."""
        try:
            self._freeze()
        except (TarboxError, OSError):  # there is no freezer, or it can't stop them all and has let them go again
            self._freeze, self._thaw = self._stop_first_process, self._continue_first_process
            self._freeze()
        self._foreground.stop(number)
        self._thaw()
        if self._console >= 0:
            self._foreground.resize(self._console)
        continued = False
        while (arrived := signals.read_signal(self._arrivals)) is not None:
            if arrived == SIGCONT:
                continued = True
            elif arrived not in (SIGTSTP, SIGTTIN, SIGTTOU):
                self._handle(arrived)
        return continued

    def _stop_first_process(self) -> None:
        self._send(SIGSTOP)

    def _continue_first_process(self) -> None:
        self._send(SIGCONT)

    def _send(self, number: int) -> None:
        try:
            syscall("pidfd_send_signal", self._pidfd, number, None, 0)
        except KernelError as error:
            if error.errno != ESRCH:
                raise
