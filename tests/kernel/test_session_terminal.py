"""A session on a terminal: raw mode and back, sizes, ^C and ^Z, jobs of a real shell, the terminal that goes away."""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from foreground import command


class Terminal:
    """A pseudo-terminal with a program on it, driven as a person would: keys in, text out."""

    def __init__(self, *arguments: str) -> None:
        self.keys, self.side = os.openpty()
        self.seen = b""
        self.resize(24, 80)
        self.program = subprocess.Popen(
            arguments, stdin=self.side, stdout=self.side, stderr=self.side,
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
            env={"PATH": os.environ["PATH"], "PS1": "ready> ", "TERM": "dumb"},
        )  # fmt: skip

    def type(self, keys: str) -> None:
        os.write(self.keys, keys.encode())

    def expect(self, text: str, seconds: float = 15) -> str:
        """Read until `text` appears, and take it and what came before away."""
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} isn't in {self.seen!r}"
            if select.select([self.keys], [], [], left)[0]:
                self.seen += os.read(self.keys, 65536)
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode()

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.keys, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self) -> list:
        return termios.tcgetattr(self.side)

    def raw(self) -> bool:
        return not self.modes()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def until_raw(self, wanted: bool = True) -> None:
        until(lambda: self.raw() == wanted)

    def wait(self) -> int:
        """The exit code; what is still written goes to `seen`."""
        end = time.monotonic() + 15
        while self.program.poll() is None:
            assert time.monotonic() < end, f"it doesn't end; {self.seen!r}"
            if select.select([self.keys], [], [], 0.02)[0]:
                self.seen += os.read(self.keys, 65536)
        while select.select([self.keys], [], [], 0)[0]:
            self.seen += os.read(self.keys, 65536)
        return self.program.returncode

    def close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        for descriptor in (self.keys, self.side):
            if descriptor >= 0:
                os.close(descriptor)


def until(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it doesn't happen"
        time.sleep(0.01)


@pytest.fixture
def terminal():
    opened = []

    def open_one(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def shell(terminal):
    """A shell with job control on a terminal; `$S OPTIONS -- COMMAND` would be the session: see `job()`."""
    one = terminal("dash", "-i")
    one.expect("ready> ")
    yield one
    for pid in descendants(one.program.pid):
        os.kill(pid, signal.SIGKILL)


def job(script: str, options: str = "") -> str:
    return shlex.join(command("sh", "-c", script, options=options))


def descendants(pid: int) -> list[int]:
    """All processes below one, the lowest first."""
    found = []
    for child in children(pid).split():
        found += [*descendants(int(child)), int(child)]
    return found


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


# A terminal of its own.


def test_the_program_has_a_terminal_of_its_own_of_the_same_size(terminal):
    one = terminal(*command("sh", "-c", "tty; stty size", options="-it"))
    assert one.wait() == 0
    tty, size = one.seen.decode().split("\r\n")[:2]
    assert tty.startswith("/dev/pts/")
    assert tty != os.ttyname(one.side)
    assert size == "24 80"


def test_keys_go_in_and_text_comes_out_unchanged(terminal):
    one = terminal(*command("sh", "-c", "stty raw -echo; echo go; head -c 6 | od -An -tx1", options="-it"))
    one.expect("go")
    one.until_raw()
    one.type("\x03\x1a\x04\r\x1c\x7f")
    one.expect("03 1a 04 0d 1c 7f")
    assert one.wait() == 0


def test_interrupt_key_reaches_the_programs_own_terminal(terminal):
    one = terminal(
        *command("sh", "-c", "trap 'echo caught; exit 4' INT; echo go; while :; do sleep 0.05; done", options="-it")
    )
    one.expect("go")
    one.until_raw()
    one.type("\x03")
    one.expect("caught")
    assert one.wait() == 4


def test_a_new_size_is_passed_on(terminal):
    one = terminal(
        *command("sh", "-c", "trap 'stty size; exit' WINCH; echo go; while :; do sleep 0.05; done", options="-it")
    )
    one.expect("go")
    one.resize(50, 132)
    one.expect("50 132")
    assert one.wait() == 0


def test_without_i_the_terminal_takes_no_keys_and_stays_as_it_is(terminal):
    one = terminal(*command("sh", "-c", "tty; trap 'exit 6' INT; echo go; while :; do sleep 0.05; done", options="-t"))
    one.expect("go")
    assert not one.raw()
    one.type("\x03")  # a signal for the command, which passes it on
    assert one.wait() == 6


def test_input_that_is_no_terminal_is_refused_with_i_and_t():
    done = subprocess.run(command("true", options="-it"), stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert done.returncode == 125
    assert b"the input device is not a TTY" in done.stderr


def test_20_mb_come_through_the_terminal_into_a_pipe():
    script = "stty -opost; head -c 20000000 /dev/zero"
    done = subprocess.run(
        command("sh", "-c", script, options="-t"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60
    )
    assert (done.returncode, len(done.stdout), set(done.stdout)) == (0, 20000000, {0})


def test_a_terminal_that_the_program_closes_for_a_while_works_again():
    script = "tty=$(tty); echo one; (exec <&- >&- 2>&-; sleep 0.4; echo two >$tty) & exec <&- >&- 2>&-; wait"
    done = subprocess.run(
        command("sh", "-c", script, options="-t"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=20
    )
    assert (done.returncode, done.stdout) == (0, b"one\r\ntwo\r\n")


def test_a_reader_that_goes_away_hangs_the_terminal_up():
    session = subprocess.Popen(
        command("yes", options="-t"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    session.stdout.readline()
    session.stdout.close()
    assert session.wait(10) in (1, 129)  # yes gets SIGHUP, or sees that writing fails


# The modes come back.


def test_raw_while_it_runs_and_the_old_modes_when_it_ends(terminal):
    one = terminal(*command("sh", "-c", "read line; exit 3", options="-it"))
    before = one.modes()
    one.until_raw()
    one.type("\r")
    assert one.wait() == 3
    assert one.modes() == before


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "QUIT", "USR1"])
def test_the_modes_come_back_after_a_signal(terminal, name):
    one = terminal(*command("sleep", "20", options="-it"))
    before = one.modes()
    one.until_raw()
    one.program.send_signal(getattr(signal, f"SIG{name}"))
    assert one.wait() == 128 + getattr(signal, f"SIG{name}")
    assert one.modes() == before


def test_the_modes_come_back_after_a_timeout(terminal):
    one = terminal(*command("sleep", "20", options="-it --timeout 0.7"))
    before = one.modes()
    one.until_raw()
    assert one.wait() == 137
    assert one.modes() == before
    assert b"was killed\r\n" in one.seen


def test_the_modes_come_back_after_an_exception(shell):
    before = shell.modes()
    shell.type(job("sleep 3", "-it --fail-to-thaw") + "\n")
    shell.until_raw()
    until(lambda: pid_of_job(shell))
    os.kill(pid_of_job(shell), signal.SIGTSTP)
    shell.expect("Stopped")
    shell.type("fg\n")
    shell.expect("RuntimeError: it can't be thawed")
    shell.expect("ready> ")
    assert shell.modes() == before


def pid_of_job(shell: Terminal) -> int:
    """The process that the shell has made for its job."""
    children = Path(f"/proc/{shell.program.pid}/task/{shell.program.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def test_the_callers_terminal_keeps_its_flags(terminal):
    one = terminal(*command("sh", "-c", "echo go; read line", options="-it"))
    before = fcntl.fcntl(one.side, fcntl.F_GETFL)
    one.expect("go")
    one.until_raw()
    assert fcntl.fcntl(one.side, fcntl.F_GETFL) == before
    one.type("\r")
    assert one.wait() == 0
    assert fcntl.fcntl(one.side, fcntl.F_GETFL) == before


# Jobs.


@pytest.mark.parametrize("options", ["", "--no-freezer"])
def test_stop_key_stops_the_program_and_fg_continues_it(shell, options):
    shell.type(job("echo pid $$; sleep 1; echo end", options) + "\n")
    shell.expect("\r\npid ")
    pid = int(shell.expect("\r\n"))
    shell.type("\x1a")
    shell.expect("Stopped")
    until(lambda: state(pid) == "T")
    shell.type("fg\n")
    until(lambda: state(pid) != "T")
    shell.expect("\r\nend")
    shell.expect("ready> ")


def test_stopped_with_a_terminal_of_its_own_the_callers_has_its_modes_meanwhile(shell):
    before = shell.modes()
    shell.type(job("echo pid $$; read line; echo got $line", "-it") + "\n")
    shell.expect("\r\npid ")
    pid = int(shell.expect("\r\n"))
    shell.until_raw()
    os.kill(pid_of_job(shell), signal.SIGTSTP)
    shell.expect("Stopped")
    assert shell.modes() == before
    until(lambda: state(pid) == "T")
    shell.resize(30, 90)
    shell.type("fg\n")
    shell.until_raw()
    shell.type("word\r")
    shell.expect("got word")
    shell.expect("ready> ")
    assert shell.modes() == before


def test_a_job_in_the_background_runs_to_its_end(shell):
    shell.type(job("sleep 0.3; echo finished") + " &\n")
    shell.expect("ready> finished\r\n")
    shell.type("wait; echo code $?\n")
    shell.expect("\r\ncode 0")


def test_a_job_in_the_background_stops_when_it_wants_the_terminal(shell):
    before = shell.modes()
    shell.type(job("read line; echo got $line", "-it") + " &\n")
    until(lambda: (pid := pid_of_job(shell)) and state(pid) == "T")
    shell.type("\n")  # it reports before its next prompt
    shell.expect("Stopped (tty output)")
    assert shell.modes() == before
    shell.type("fg\n")
    shell.until_raw()
    shell.type("word\r")
    shell.expect("got word")
    shell.expect("ready> ")
    assert shell.modes() == before


def test_a_job_in_the_background_stops_when_it_reads_keys(shell):
    shell.type(job("echo go; read line; echo got $line", "-i") + " &\n")
    shell.expect("ready> go\r\n")
    end = time.monotonic() + 10
    while state(pid_of_job(shell)) != "T":  # until it is quicker than the shell, which reads them too
        assert time.monotonic() < end
        shell.type("\n")
        time.sleep(0.05)
    shell.type("fg\n")
    time.sleep(0.2)
    shell.type("word\n")
    shell.expect("got")


def test_input_of_a_terminal_without_t(shell):
    shell.type(job("cat; echo end", "-i") + "\n")
    time.sleep(0.3)
    shell.type("one\n")
    shell.expect("one\r\none\r\n")
    shell.type("\x04")
    shell.expect("end\r\n")


def test_output_that_the_terminal_holds_back_doesnt_keep_signals_away(terminal):
    one = terminal(*command("yes"))
    one.expect("y\r\n")  # from here on nobody reads: the terminal's buffer is full at once
    time.sleep(0.5)
    one.program.send_signal(signal.SIGTERM)
    until(lambda: one.program.poll() is not None or not children(one.program.pid))
    one.program.send_signal(signal.SIGTERM)  # the user doesn't want the rest either
    assert one.program.wait(5) == 128 + signal.SIGTERM


def children(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return ""


def test_stop_key_freezes_all_processes_of_a_container(shell, tarbox):
    """With the tarbox command itself: what the first process has started stands still with it."""
    script = "(while :; do date +%N; sleep 0.02; done) & wait"
    shell.type(shlex.join(tarbox.command("run", "--rm", "host", "sh", "-c", script)) + "\n")
    for _ in range(5):
        shell.expect("\r\n")
    shell.type("\x1a")
    shell.expect("Stopped", 20)
    while select.select([shell.keys], [], [], 0.3)[0]:
        os.read(shell.keys, 65536)
    assert not select.select([shell.keys], [], [], 0.5)[0]
    shell.type("fg\n")
    time.sleep(0.5)
    assert len(os.read(shell.keys, 65536).split()) > 10
    shell.type("\x03")
    shell.expect("ready> ")


# The terminal goes away.


def hang_up(one: Terminal) -> None:
    os.close(one.side)
    os.close(one.keys)
    one.side = one.keys = -1


def test_a_hangup_reaches_the_program(terminal, tmp_path):
    out = tmp_path / "out"
    script = f"trap 'echo hung up >{out}; exit' HUP; echo go; while :; do sleep 0.05; done"
    one = terminal(*command("sh", "-c", script, options="-it"))
    one.expect("go")
    hang_up(one)
    assert one.program.wait(10) == 0
    assert out.read_text() == "hung up\n"


def test_a_program_that_ignores_the_hangup_is_killed_after_a_while(terminal):
    one = terminal(
        *command("sh", "-c", "trap '' HUP; echo go; while :; do sleep 0.05; done", options="-it --hangup 0.5")
    )
    one.expect("go")
    begin = time.monotonic()
    hang_up(one)
    assert one.program.wait(10) == 137
    assert 0.4 <= time.monotonic() - begin < 5
