"""A real system in a box: a Debian root filesystem made by Debian's own tools, with a shell and a server in it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import pytest

pytestmark = pytest.mark.root

# What a terminal is told beside text: colours, the cursor's place, its title.
_CONTROLS = re.compile(r"\x1b(\[[0-9;?>=]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78cM])")


class Typist:
    """Somebody at a terminal of 100 columns and 30 rows, on which a command was started."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
            os.execve(command[0], command, environment)
        self.seen = ""

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self.terminal, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 30) -> str:
        """Read the screen until it shows the pattern, and forget what it showed up to there."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            ready = select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]
            assert ready, f"never saw {pattern!r}, but {self.seen!r}"
            text = os.read(self.terminal, 65536).decode(errors="replace")
            if "\x1b[c" in text or "\x1b[0c" in text:  # fish asks what kind of terminal this is
                os.write(self.terminal, b"\x1b[?62;c")
            self.seen += _CONTROLS.sub("", text).replace("\r", "")
        self.seen = self.seen[found.end() :]
        return found[0]

    def exit_code(self, seconds: float = 20) -> int:
        """Wait for the command's end; what doesn't end is killed."""
        end = time.monotonic() + seconds
        try:
            while select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]:
                if not os.read(self.terminal, 65536):
                    break
            else:
                os.kill(self.pid, signal.SIGKILL)
        except OSError:  # the other side is closed
            pass
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_fish_is_usable_on_a_terminal(tarbox, debian_fish_tar):
    assert tarbox("run", debian_fish_tar, "true", timeout=240).returncode == 0  # unpacked before anybody types
    user = Typist(tarbox.command("run", "-it", "-h", "box", str(debian_fish_tar), "fish"), tarbox.environment())
    user.wait_for(r"root@box .*# ")
    user.type("echo sum is (math 6 x 7)\r")
    user.wait_for(r"\nsum is 42")
    user.type("tty; stty size\r")
    user.wait_for(r"\n/dev/pts/0\s+30 100")
    user.type("sleep 100\r")
    time.sleep(0.5)
    user.type("\x03")  # ^C ends the program, not the shell
    user.type("echo still $status\r")
    user.wait_for(r"\nstill 130")
    user.type("\x1b[A\x1b[A")  # the line before the last comes back
    user.wait_for("sleep 100")
    user.type("\x15exit 3\r")
    assert user.exit_code() == 3


def test_redis_serves_inside_and_is_gone_with_the_container(tarbox, debian_fish_tar):
    script = (
        "redis-server --daemonize yes --save '' >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do redis-cli ping 2>/dev/null"
        " | grep -q PONG && break; sleep 0.3; done; redis-cli set answer 42; redis-cli get answer; redis-cli dbsize"
    )
    assert tarbox.output("run", debian_fish_tar, "sh", "-c", script, timeout=240).split() == ["OK", "42", "1"]


def test_a_server_runs_with_what_it_was_seen_to_use(tarbox, debian_fish_tar):
    """Learned in one run, enough for the next: as another user, with threads, sockets and a file."""
    script = (
        "cd /tmp; setpriv --reuid redis --regid redis --init-groups redis-server --daemonize yes --dir /tmp >/dev/null;"
        " for i in 1 2 3 4 5 6 7 8 9; do redis-cli ping 2>/dev/null | grep -q PONG && break; sleep 0.3; done;"
        " redis-cli set answer 42; redis-cli save; redis-cli get answer; redis-cli shutdown; ls dump.rdb"
    )
    words = (debian_fish_tar, "sh", "-c", script)
    said = tarbox("run", "--learn", "redis.json", *words, timeout=240)
    assert (said.returncode, said.stdout.split()) == (0, ["OK", "OK", "42", "dump.rdb"]), said.stderr
    capabilities = json.loads((tarbox.folder / "redis.json").read_text())["x-tarbox"]["capabilities"]
    assert {"CAP_SETUID", "CAP_SETGID"} <= set(capabilities)
    rights = ["--security-opt", "seccomp=redis.json", "--cap-drop", "ALL"]
    rights += [word for name in capabilities for word in ("--cap-add", name)]
    assert tarbox.output("run", *rights, *words, timeout=240).split() == said.stdout.split()
    mounting = tarbox("run", *rights, debian_fish_tar, "chroot", "/", "true")
    assert "not permitted" in mounting.stderr


def test_the_package_database_is_whole(tarbox, debian_fish_tar):
    script = (
        "dpkg --audit; dpkg --verify --verify-format rpm | grep -v '^missing.*/usr/share/\\(doc\\|man\\|locale\\)';"
        " apt-get check -qq && dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n' | grep -c '^ii '"
    )
    lines = tarbox.output("run", debian_fish_tar, "sh", "-c", script, timeout=240).splitlines()
    assert len(lines) == 1, lines
    assert int(lines[0]) > 80
