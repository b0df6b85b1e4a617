"""A container can't reach the terminal that it was started from, whichever way it is started."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time

import pytest

# Pushes "!" as if it had been typed, with the plain request and with a high bit set, which the kernel drops but a
# filter that compares 64 bits doesn't see; through every descriptor, /dev/tty and /dev/console.
PUSH = r"""
open($tty, "+<", "/dev/tty"); open($console, "+<", "/dev/console");
for $fd (0, 1, 2, $tty ? fileno($tty) : (), $console ? fileno($console) : ()) {
    for $request (0x5412, 0x100005412, 0x8000000000005412, 0x541c, 0xffffffff0000541c) {
        for $key ("!", "\n") { $done .= syscall(IOCTL, $fd, $request, my $pushed = $key) == 0 ? "pushed " : "refused " }
    }
}
print STDERR "$done\n"; print "$done\n";
""".replace("IOCTL", {"x86_64": "16", "aarch64": "29"}[os.uname().machine])
READ_KEYS = "for fd in 0 1 2; do timeout 1 head -c 1 <&$fd; done; stty -F /dev/tty sane; stty -echo; stty -echo <&1; :"


@pytest.fixture
def terminal():
    """Runs a command on a fresh terminal, and returns its exit code, what it wrote, and what was left to be read."""
    keys, side = os.openpty()

    def run(command: list[str], env: dict[str, str], **streams) -> tuple[int, bytes, int]:
        program = subprocess.Popen(
            command, env=env, **({"stdin": side, "stdout": side, "stderr": side} | streams),
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(side, termios.TIOCSCTTY, 0)),
            pass_fds=(side,),
        )  # fmt: skip
        seen, end = b"", time.monotonic() + 60
        while program.poll() is None or select.select([keys], [], [], 0.05)[0]:
            assert time.monotonic() < end, seen
            if select.select([keys], [], [], 0.05)[0]:
                seen += os.read(keys, 65536)
        run.modes = termios.tcgetattr(side)
        termios.tcsetattr(side, termios.TCSANOW, _uncooked(side))  # so that half a line counts too
        return program.returncode, seen, struct.unpack("i", fcntl.ioctl(side, termios.FIONREAD, bytes(4)))[0]

    run.side = side
    yield run
    os.close(keys)
    os.close(side)


def _uncooked(side: int) -> list:
    modes = termios.tcgetattr(side)
    modes[3] &= ~termios.ICANON
    return modes


def test_the_attack_works_on_a_terminal_that_it_can_reach(terminal):
    """Otherwise the tests below would pass for nothing: with the caller's terminal in hand, keys are pushed."""
    code, seen, _ = terminal(["perl", "-e", PUSH], dict(os.environ))
    if b"pushed" not in seen:
        with open("/proc/sys/dev/tty/legacy_tiocsti") as setting:
            assert setting.read() == "0\n"
        pytest.skip("this kernel refuses TIOCSTI to everybody")
    assert code == 0


@pytest.mark.parametrize("options", [[], ["-i"], ["--privileged"], ["-i", "--security-opt", "seccomp=unconfined"]])
def test_no_key_can_be_pushed_into_the_callers_terminal(terminal, tarbox, options):
    command = tarbox.command("run", "--rm", *options, "host", "perl", "-e", PUSH)
    code, seen, left = terminal(command, tarbox.environment())
    assert b"refused" in seen, seen
    assert b"pushed" not in seen
    assert (code, left) == (0, 0)


@pytest.mark.parametrize("options", [["-t"], ["-it"], ["-it", "--cap-add", "SYS_ADMIN"], ["-it", "--privileged"]])
def test_with_a_terminal_of_its_own_the_callers_gets_nothing(terminal, tarbox, options):
    """And where the filter is on, its own gets nothing either."""
    command = tarbox.command("run", "--rm", *options, "host", "perl", "-e", PUSH)
    code, seen, left = terminal(command, tarbox.environment())
    assert b"refused" in seen or b"pushed" in seen, seen  # it has run
    assert "--privileged" in options or b"pushed" not in seen
    assert (code, left) == (0, 0)


def test_the_callers_modes_cant_be_changed_nor_its_keys_be_read(terminal, tarbox):
    before = termios.tcgetattr(terminal.side)
    code, seen, _ = terminal(tarbox.command("run", "--rm", "host", "sh", "-c", READ_KEYS), tarbox.environment())
    assert code == 0, seen
    assert terminal.modes == before


@pytest.mark.parametrize("options", [[], ["-i"]])
def test_no_descriptor_of_the_container_is_a_terminal_a_file_or_a_folder(terminal, tarbox, tmp_path, options):
    script = "for fd in 0 1 2; do [ -t $fd ] && echo terminal; readlink /proc/self/fd/$fd; done; ls /proc/self/fd"
    with open(tmp_path / "file", "wb") as file:
        _, seen, _ = terminal(
            tarbox.command("run", "--rm", *options, "host", "sh", "-c", script), tarbox.environment(), stderr=file
        )
    lines = seen.decode().split()
    assert "terminal" not in lines
    assert all(found.startswith(("pipe:[", "/dev/null")) for found in lines[:3]), lines
    assert lines[3:] == ["0", "1", "2", "3"], "3 is the folder that ls reads"
