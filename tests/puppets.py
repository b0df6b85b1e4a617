"""Containers and machines that do what a test tells them, and tell what they see: both ends of every wire.

    with Puppet(tarbox.start(*container("--network", "lab"))) as box:
        box.ask_udp("192.0.2.2", 53)

`puppet.py` is what runs there, and has all that can be asked for. A container has its own rights and limits while it
does so, since it is told by its standard input.
"""

from __future__ import annotations

import ast
import contextlib
import os
import select
import subprocess
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from conftest import Tarbox

PROGRAM = (Path(__file__).resolve().parent / "puppet.py").read_text()
COMMAND = ("python3", "-I", "-u", "-c", PROGRAM)


class Puppet:
    """A process that runs puppet.py; as a context manager it is gone at the end.

    Whatever that program has can be called here: `puppet.ask_tcp("192.0.2.1", 80)`. What fails there raises
    AssertionError with the error's words.
    """

    def __init__(self, process: subprocess.Popen[bytes], patience: float = 60) -> None:
        self.process = process
        self._unread = b""
        first = self._line(patience)
        assert first == "ready", first

    def __enter__(self) -> Puppet:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: object, patience: float = 60, **named: object) -> Any:
            words = [*map(repr, arguments), *(f"{key}={value!r}" for key, value in named.items())]
            return self.evaluate(f"{name}({', '.join(words)})", patience)

        return call

    def evaluate(self, expression: str, patience: float = 60) -> Any:
        """The value of an expression there."""
        assert self.process.stdin
        self.process.stdin.write(expression.encode() + b"\n")
        self.process.stdin.flush()
        fine, value = ast.literal_eval(self._line(patience))
        assert fine, f"{expression}: {value}"
        return value

    def output(self, *words: str) -> str:
        """Run a command there, insist on success, and return what it wrote."""
        code, said = self.evaluate(f"run(*{words!r})")
        assert code == 0, f"{' '.join(words)}: exit {code}: {said}"
        return str(said)

    def end(self) -> int:
        """Let it end, and return its exit code; what it complained of is in `errors`."""
        try:
            _, errors = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.errors = (errors or b"").decode()
        return self.process.returncode

    def _line(self, patience: float) -> str:
        """The next line of what it says, at the latest after `patience` seconds."""
        assert self.process.stdout
        descriptor, end = self.process.stdout.fileno(), time.monotonic() + patience
        while b"\n" not in self._unread:
            assert select.select([descriptor], [], [], max(0, end - time.monotonic()))[0], "it says nothing"
            data = os.read(descriptor, 65536)
            if not data:
                errors = self.process.stderr.read().decode() if self.process.stderr else ""
                raise AssertionError(f"it ended: exit {self.process.wait(timeout=30)}: {errors}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    # --- what it has

    def addresses(self, interface: str, family: int = 4) -> list[str]:
        """The addresses of an interface that are good outside of its link."""
        said = self.output("ip", f"-{family}", "-o", "addr", "show", "dev", interface, "scope", "global")
        return [line.split()[3].partition("/")[0] for line in said.splitlines()]

    def address(self, family: int = 4) -> str:
        """The one address that it has on the one interface besides loopback."""
        (interface,) = self.interfaces()
        (found,) = self.addresses(interface, family)
        return found

    def interfaces(self) -> list[str]:
        """Its network interfaces besides loopback, by name."""
        lines = self.output("ip", "-o", "link", "show").splitlines()
        names = [line.split(": ")[1].partition("@")[0] for line in lines]
        return [name for name in names if name not in ("lo", *_ALWAYS)]

    def mac(self, interface: str) -> str:
        """An interface's MAC address."""
        words = self.output("ip", "-o", "link", "show", "dev", interface).split()
        return words[words.index("link/ether") + 1]

    def gateway(self, family: int = 4) -> str:
        """Where its default route leads to; empty when it has none."""
        words = self.output("ip", f"-{family}", "route", "show", "default").split()
        return words[words.index("via") + 1] if "via" in words else ""

    def neighbours(self, family: int = 4) -> dict[str, str]:
        """The MAC addresses that it believes others to have, by address."""
        lines = [line.split() for line in self.output("ip", f"-{family}", "neigh", "show").splitlines()]
        return {words[0]: words[words.index("lladdr") + 1] for words in lines if "lladdr" in words}


# Interfaces that some kernels put into every network namespace.
_ALWAYS = ("ifb0", "ifb1", "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0")


def process(*entered: str) -> subprocess.Popen[bytes]:
    """Start the program here, by the command `entered` that executes it somewhere else."""
    return subprocess.Popen([*entered, *COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@contextlib.contextmanager
def box(tarbox: Tarbox, *arguments: str | os.PathLike[str], image: str = "host") -> Iterator[Puppet]:
    """A container with these options that does as it is told; afterwards it must have ended well."""
    with Puppet(tarbox.start("run", "--rm", "-i", *arguments, image, *COMMAND)) as puppet:
        yield puppet
    assert puppet.process.returncode == 0, f"exit {puppet.process.returncode}: {puppet.errors}"


@contextlib.contextmanager
def network(tarbox: Tarbox, name: str, *options: str) -> Iterator[str]:
    """A network with these options for as long as it is needed; gives its name."""
    tarbox.output("network", "create", *options, name)
    try:
        yield name
    finally:
        tarbox.output("network", "rm", name)


@contextlib.contextmanager
def here() -> Iterator[Puppet]:
    """One in the test host itself."""
    with Puppet(process()) as puppet:
        yield puppet


@contextlib.contextmanager
def namespace() -> Iterator[Puppet]:
    """One in a new network namespace with nothing but loopback."""
    with Puppet(process("unshare", "--net")) as puppet:
        puppet.output("ip", "link", "set", "lo", "up")
        yield puppet
