"""The caller's terminal: no key is ever pushed into it by a container, and the container's own works as one."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time

import pytest

from kernel.attacks import tools


class Caller:
    """A terminal, and tarbox as the command that somebody typed there."""

    def __init__(self, tarbox, *arguments, env=None):
        self.keys, self.side = os.openpty()
        self.seen = b""
        fcntl.ioctl(self.keys, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
        self.program = subprocess.Popen(
            tarbox.command(*arguments), stdin=self.side, stdout=self.side, stderr=self.side, cwd=tarbox.folder,
            env=tarbox.environment(**(env or {})), start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def expect(self, text, seconds=20):
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} isn't in {self.seen!r}"
            self._read(left)
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode()

    def _read(self, seconds):
        if select.select([self.keys], [], [], seconds)[0]:
            self.seen += os.read(self.keys, 65536)

    def type(self, keys):
        os.write(self.keys, keys.encode())

    def ended(self):
        """Wait for the end; (exit code, what it wrote, what somebody pushed into the terminal)."""
        end = time.monotonic() + 20
        while self.program.poll() is None:
            assert time.monotonic() < end, self.seen
            self._read(0.05)
        while select.select([self.keys], [], [], 0)[0]:
            self._read(0)
        modes = termios.tcgetattr(self.side)
        modes[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self.side, termios.TCSANOW, modes)  # what waits can be read without a line's end
        pushed = struct.unpack("i", fcntl.ioctl(self.side, termios.FIONREAD, bytes(4)))[0]
        text = os.read(self.side, pushed) if pushed else b""
        os.close(self.keys)
        os.close(self.side)
        return self.program.returncode, self.seen.decode(), text


OPTIONS = [(), ("-i",), ("-t",), ("-i", "-t"), ("--privileged",), ("-i", "-t", "--privileged"), ("-t", "-u", "guest")]


@pytest.mark.parametrize("options", OPTIONS)
def test_no_key_is_pushed_into_the_callers_terminal(tarbox, rootfs_busybox, options):
    """By TIOCSTI and TIOCLINUX, with anything in the upper half of the request, through every way to a terminal."""
    tools.probe(rootfs_busybox)
    caller = Caller(tarbox, "run", "--rm", *options, rootfs_busybox, "sh", "-c", "probe push > /tmp/told; echo over")
    code, seen, pushed = caller.ended()
    assert (code, pushed) == (0, b""), seen
    assert "over" in seen
    tried = (rootfs_busybox / "tmp/told").read_text().splitlines()
    assert len(tried) > 20
    if not {"-t", "--privileged"} <= set(options):  # the filter keeps keys out of the container's own terminal too
        assert not [line for line in tried if line.endswith(" done")]
        assert "#" not in seen


def test_the_check_sees_pushed_keys(tarbox):
    """What the test above looks for is there when somebody who holds the terminal pushes a key."""
    caller = Caller(tarbox, "version")
    for name in ("#", "\n"):
        try:
            fcntl.ioctl(caller.side, termios.TIOCSTI, name.encode())
        except OSError:
            caller.ended()
            pytest.skip("this kernel lets nobody push keys")
    assert b"#" in caller.ended()[2]


@pytest.mark.parametrize("options", [(), ("-i",)])
def test_without_a_terminal_there_is_none(tarbox, rootfs_busybox, options):
    """The caller's isn't behind any of the streams, nor behind /dev/tty."""
    script = "tty; tty <&1; tty <&2; (: </dev/tty) 2>&1; ls /dev/pts; "
    script += "for n in 0 1 2; do readlink /proc/self/fd/$n; done; echo over"
    _, seen, pushed = Caller(tarbox, "run", "--rm", *options, rootfs_busybox, "sh", "-c", script).ended()
    assert pushed == b""
    assert seen.count("not a tty") == 3
    assert "can't open /dev/tty" in seen
    assert "/dev/pts/" not in seen


def test_the_callers_terminal_has_no_name_inside(tarbox, rootfs_busybox):
    """The container has a devpts of its own, in which it is number 0 and alone."""
    script = "tty; echo /dev/pts/*; stat -c %t:%T /dev/console; for n in 0 1 2; do readlink /proc/self/fd/$n; done"
    code, seen, _ = Caller(tarbox, "run", "--rm", "-it", rootfs_busybox, "sh", "-c", script).ended()
    assert code == 0
    assert seen.split() == ["/dev/pts/0", "/dev/pts/0", "/dev/pts/ptmx", "88:0", *["/dev/pts/0"] * 3]


def test_lines_are_edited_in_the_containers_own_terminal(tarbox, rootfs_busybox):
    """Backspace and ^U do their work, ^C interrupts, and the size is the caller's and follows it."""
    caller = Caller(
        tarbox, "run", "--rm", "-it", "--init", rootfs_busybox, "sh", "-c", "stty size; read a; echo got=$a; cat"
    )
    caller.expect("31 97")
    caller.type("wrong\x15abx\x7fc\r")
    caller.expect("got=abc")
    caller.type("\x03")
    assert caller.ended()[::2] == (130, b"")


def test_the_size_follows(tarbox, rootfs_busybox):
    caller = Caller(
        tarbox, "run", "--rm", "-it", rootfs_busybox, "sh", "-c", "echo on; while :; do stty size; sleep .1; done"
    )
    caller.expect("31 97")
    fcntl.ioctl(caller.keys, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    caller.expect("40 100")
    caller.type("\x03")
    assert caller.ended()[0] == 130


def test_the_modes_that_a_container_sets_are_its_own(tarbox, rootfs_busybox):
    caller = Caller(tarbox, "run", "--rm", "-it", rootfs_busybox, "sh", "-c", "stty -echo -icanon; stty -a; echo over")
    before = termios.tcgetattr(caller.side)
    caller.program.wait()
    assert termios.tcgetattr(caller.side) == before
    code, seen, _ = caller.ended()
    assert code == 0
    assert "-echo" in seen
