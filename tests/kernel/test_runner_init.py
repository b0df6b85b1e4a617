"""The runner as process 1: it reaps, passes signals on, ends as the program ends."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios

import pytest

from entered import CLOSE, SH, Started


@pytest.fixture
def launch(tmp_path):
    """Runs the words through enter(): launch(rows, "/bin/sh", "-c", …) gives (code, report, output)."""
    return lambda *arguments, **options: Started(tmp_path, *arguments, **options).wait()


ORPHANS = """
import os, time
reader, writer = os.pipe()
for _ in range(10):
    middle = os.fork()
    if not middle:
        for _ in range(100):
            if not os.fork():
                while os.getppid() != 1:
                    time.sleep(0.005)
                os.write(writer, b"x")
                os._exit(3)
        os._exit(0)
    os.waitpid(middle, 0)
os.close(writer)
count = sum(iter(lambda: len(os.read(reader, 4096)), 0))
end = time.monotonic() + 20
while (left := [name for name in os.listdir("/proc") if name.isdigit()]) != ["1", str(os.getpid())]:
    if time.monotonic() > end:
        break
    time.sleep(0.01)
print(count, len(left), os.getppid())
"""


def test_it_reaps_a_thousand_orphans(launch):
    """All of them became its children, and none is left as a zombie while the program still runs."""
    done = launch(CLOSE, sys.executable, "-I", "-S", "-c", ORPHANS, init=True, pids=True)
    assert done == (0, None, "1000 2 1\n")


def test_it_ends_with_the_program_and_doesn_t_wait_for_orphans(launch):
    assert launch(CLOSE, SH, "-c", "(sleep 60 &); exit 7", init=True, pids=True) == (7, None, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMAX])
def test_a_program_that_a_signal_ends_gives_128_and_its_number(launch, number):
    code, report, _ = launch(CLOSE, SH, "-c", f"ulimit -c 0; kill -{int(number)} $$", init=True)
    assert (code, report) == (128 + number, None)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGRTMIN + 5]
)
def test_it_passes_signals_on(tmp_path, number):
    """The pipe for the report has ended by then, though process 1 lives."""
    script = f"trap 'exit 42' {int(number)}; echo ready; while :; do sleep 0.02; done"
    if number > 32:  # dash knows none of these
        script = f"import signal, os; signal.signal({int(number)}, lambda *_: os._exit(42)); print('ready', flush=True)"
        words = (sys.executable, "-c", script + "\nwhile True: signal.pause()")
    else:
        words = (SH, "-c", script)
    started = Started(tmp_path, CLOSE, *words, init=True)
    assert started.report == b""
    started.wait_for("ready")
    os.kill(started.pid, number)
    assert started.wait()[0] == 42


def test_a_stopped_and_continued_program_goes_on(tmp_path):
    started = Started(tmp_path, CLOSE, SH, "-c", "echo $$; read x; kill -STOP $$; echo on; exit 9", init=True)
    started.wait_for("\n")
    child = int(started.output_file.read_text().split()[0])
    state = ""
    while "T" not in state:
        with open(f"/proc/{child}/stat") as stream:
            state = stream.read().rpartition(")")[2].split()[0]
    os.kill(started.pid, signal.SIGCONT)
    assert started.wait()[0] == 9


def test_the_program_has_no_signal_blocked(launch):
    output = launch(CLOSE, SH, "-c", "grep SigBlk /proc/self/status", init=True)[2]
    assert output.split() == ["SigBlk:", "0" * 16]


# --- Terminals --------------------------------------------------------------------------------------------------------

GROUPS = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
print(os.getpgrp() == os.getpid(), os.tcgetpgrp(0) == os.getpgrp(), flush=True)
signal.pause()
"""


@pytest.fixture
def terminal():
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def lead_session():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_the_program_has_the_foreground_of_its_terminal_and_gets_control_c(tmp_path, terminal):
    ours, theirs = terminal
    words = (sys.executable, "-c", GROUPS)
    started = Started(tmp_path, CLOSE, *words, init=True, before=lead_session, stdin=theirs)
    started.wait_for("\n")
    os.write(ours, b"\x03")
    code, report, output = started.wait()
    assert (code, report, output) == (128 + signal.SIGINT, None, "True True\n")


def test_a_hangup_reaches_the_program(tmp_path):
    ours, theirs = os.openpty()
    script = "trap 'exit 43' HUP; echo ready; while :; do sleep 0.02; done"
    started = Started(tmp_path, CLOSE, SH, "-c", script, init=True, before=lead_session, stdin=theirs)
    os.close(theirs)
    started.wait_for("ready")
    os.close(ours)
    assert started.wait()[0] == 43


def test_without_a_session_of_its_own_it_stays_in_the_caller_s_group(tmp_path, terminal):
    """Else the program would take the foreground from whoever called."""
    script = f"import os; print(os.getpgrp() == {os.getpgrp()})"
    words = (sys.executable, "-c", script)
    assert Started(tmp_path, CLOSE, *words, init=True, stdin=terminal[1]).wait() == (0, None, "True\n")
