"""--sig-proxy: who gets the signals of a command in the foreground."""

from __future__ import annotations

import signal
import subprocess

import pytest

pytestmark = pytest.mark.unhurried

CATCHING = "trap 'echo caught; exit 5' INT TERM USR1; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGRTMIN])
def test_without_it_a_signal_ends_the_command_and_the_container(tarbox, number):
    running = tarbox.start("run", "--rm", "--sig-proxy=false", "host", "sh", "-c", CATCHING, stdin=subprocess.DEVNULL)
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(number)
    output, errors = running.communicate(timeout=30)
    assert (running.returncode, output, errors) == (128 + number, b"", b"")


def test_with_it_as_without_a_word_the_container_gets_it(tarbox):
    for option in ((), ("--sig-proxy",), ("--sig-proxy=true",)):
        running = tarbox.start("run", "--rm", *option, "host", "sh", "-c", CATCHING, stdin=subprocess.DEVNULL)
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=30)
        assert (running.returncode, output) == (5, b"caught\n")


def test_what_stops_no_program_doesnt_end_the_command_either(tarbox):
    """The size of the window has changed, and the container, which has a terminal of its own or none, runs on."""
    script = "echo ready; sleep 1; echo still here"
    running = tarbox.start("run", "--rm", "--sig-proxy=false", "host", "sh", "-c", script, stdin=subprocess.DEVNULL)
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGWINCH)
    running.send_signal(signal.SIGCONT)
    output, _ = running.communicate(timeout=30)
    assert (running.returncode, output) == (0, b"still here\n")


def test_keys_to_detach_with_are_refused_with_the_reason(tarbox):
    for words in (["--detach-keys", "ctrl-x"], ["--detach-keys=ctrl-p,ctrl-q"]):
        done = tarbox("run", "--rm", *words, "host", "true")
        assert done.returncode == 125
        assert "no --detach-keys" in done.stderr
        assert "a container ends with its command" in done.stderr
