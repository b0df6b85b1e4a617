"""Network namespaces for single tests, and sockets in them that the test itself holds."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess

from tarbox.kernel import netlink
from tarbox.kernel.syscall import syscall

CLONE_NEWNET = 0x40000000
_opened: list[socket.socket] = []


@contextlib.contextmanager
def fresh():
    """This process is in a network namespace of its own, with loopback up; what was made in it goes with it.

    In the end sockets of `opened` are closed.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscall("unshare", CLONE_NEWNET)
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        while _opened:
            _opened.pop().close()
        syscall("setns", home, CLONE_NEWNET)
        os.close(home)


class Neighbour:
    """A process in a network namespace of its own; use it as a context manager. pid, pidfd: of that process."""

    def __enter__(self):
        self._process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout.read(1) == b"\n"
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)
        return self

    def __exit__(self, *_):
        os.close(self.pidfd)
        self._process.communicate()

    def run(self, *command, **options):
        """The output of a command inside."""
        return output("nsenter", f"--net=/proc/{self.pid}/ns/net", *command, **options)

    def visit(self, do):
        """What a function returns inside."""
        return netlink.visit(self.pidfd, do)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, at=None):
        """A socket inside; at: the address that it is bound to."""
        return self.visit(lambda: opened(family, kind, at))


def opened(family=socket.AF_INET, kind=socket.SOCK_STREAM, at=None):
    """A socket here, which waits for at most some seconds; one of TCP that is bound listens."""
    made = socket.socket(family, kind)
    _opened.append(made)
    made.settimeout(5)
    if at is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(at)
        if kind == socket.SOCK_STREAM:
            made.listen()
    return made


def output(*command, **options):
    """What a command writes; it must succeed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def shown(*command, run=output):
    """What ip(8) says, as JSON."""
    return json.loads(run("ip", "-json", "-details", *command))
