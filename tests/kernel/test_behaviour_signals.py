"""Process 1's rules for signals, from inside and from outside; orphans; how fast a wrapped program stops."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

import roots
from kernel.attacks import tools
from looked import children

pytestmark = pytest.mark.unhurried


@pytest.fixture(scope="module", autouse=True)
def host_files(tmp_path_factory):
    with tools.unchanged(tmp_path_factory.mktemp("host") / "canary"):
        yield


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    rootfs = roots.busybox(tmp_path_factory.mktemp("image") / "root")
    tools.behave(rootfs)
    return f"{rootfs}:O"


@contextlib.contextmanager
def running(tarbox, *words):
    """A container that said `ready`; the command, and the number of its process 1 on the host."""
    started = tarbox.start("run", "--rm", *words)
    try:
        assert started.stdout.readline() == b"ready\n", started.stderr.read()
        (first,) = children(started.pid)
        yield started, first
    finally:
        for pid in children(started.pid) if started.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        started.communicate(timeout=30)


def test_from_inside_a_signal_without_a_handler_does_nothing(tarbox, image):
    """None of them all, not even KILL and STOP, which can't be handled."""
    done = tarbox("run", "--rm", image, "behave", "provoke")
    assert (done.returncode, done.stdout, done.stderr) == (3, "alive 0\n", "")


@pytest.mark.parametrize("user", [(), ("-u", "guest")])
def test_a_shell_as_process_1_outlives_them_too(tarbox, image, user):
    script = "for s in TERM HUP USR1 KILL STOP; do kill -$s 1; done; sleep 0.2; grep State /proc/1/status; exit 3"
    done = tarbox("run", "--rm", *user, image, "sh", "-c", script)
    assert (done.returncode, done.stdout.split()[1]) in ((3, "S"), (3, "R"))


def test_from_inside_a_handler_gets_it(tarbox, image):
    """The program is process 1 itself; another process of the container sends."""
    script = "(sleep 0.3; kill -TERM 1; sleep 0.2; kill -USR1 1) & exec behave listen"
    done = tarbox("run", "--rm", image, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (5, "ready\ncaught 15\ncaught 10\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_from_outside_a_signal_without_a_handler_does_nothing(tarbox, image, name):
    """To the command, which passes it on, and to the process itself."""
    with running(tarbox, image, "behave", "deaf") as (command, first):
        os.kill(first, getattr(signal, name))
        command.send_signal(getattr(signal, name))
        time.sleep(0.3)
        assert command.poll() is None
        assert os.path.exists(f"/proc/{first}/exe")


def test_from_outside_kill_ends_everything(tarbox, image):
    script = "sleep 1000 & sleep 1000 & echo ready; wait"
    with running(tarbox, image, "sh", "-c", script) as (command, first):
        below = children(first)
        assert len(below) == 2
        os.kill(first, signal.SIGKILL)
        assert command.wait(20) == 137
        assert not [pid for pid in (first, *below) if os.path.exists(f"/proc/{pid}/exe")]


def test_from_outside_stop_stops(tarbox, image):
    """The other one that no process 1 can refuse; CONT lets it go on."""
    with running(tarbox, image, "behave", "deaf") as (_, first):
        state = Path(f"/proc/{first}/stat")
        for number, wanted in ((signal.SIGSTOP, "T"), (signal.SIGCONT, "S")):
            os.kill(first, number)
            end = time.monotonic() + 10
            while state.read_text().rpartition(")")[2].split()[0] != wanted:
                assert time.monotonic() < end
                time.sleep(0.01)


def test_from_outside_a_handler_gets_it(tarbox, image):
    with running(tarbox, image, "behave", "listen") as (command, first):
        command.send_signal(signal.SIGTERM)
        assert command.stdout.readline() == b"caught 15\n"
        os.kill(first, signal.SIGUSR1)
        assert command.wait(20) == 5


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_with_init_such_signals_end_the_program(tarbox, image, name):
    """It isn't process 1 any more, so they do what they do to any program."""
    with running(tarbox, "--init", image, "behave", "deaf") as (command, _):
        command.send_signal(getattr(signal, name))
        assert command.wait(20) == 128 + getattr(signal, name)


def test_with_init_process_1_is_safe_from_inside(tarbox, image):
    """KILL and STOP do nothing to it, and what it passes on is the program's to handle."""
    script = "trap '' TERM INT; for s in TERM INT KILL STOP; do kill -$s 1; done; sleep 0.3; grep State /proc/1/status"
    assert tarbox.output("run", "--rm", "--init", image, "sh", "-c", script).split()[1] in "SR"
    assert tarbox("run", "--rm", "--init", image, "sh", "-c", "kill -TERM 1; sleep 5").returncode == 143


def test_a_wrapped_program_stops_at_once_with_init(tarbox, image):
    """`sh -c PROGRAM` is what images do. In a second: of a few tries the best, as the machine may be busy."""
    best = 60.0
    for _ in range(5):
        with running(tarbox, "--init", image, "sh", "-c", "echo ready; sleep 1000; echo never") as (command, _):
            since = time.monotonic()
            command.send_signal(signal.SIGTERM)
            assert command.wait(20) == 143
            best = min(best, time.monotonic() - since)
    assert best < 1


def test_a_thousand_orphans_leave_no_zombie_with_init(tarbox, image):
    """Whatever the program; without init they wait for process 1, which doesn't know of them."""
    assert tarbox.output("run", "--rm", "--init", image, "behave", "orphans", "1000") == "zombies 0\n"
    assert tarbox.output("run", "--rm", image, "behave", "orphans", "100") == "zombies 100\n"
