"""One virtual machine for all tests of this lane, started by the first that needs it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import testhost
from vm.machine import PROJECT, Machine, MachineError, lacks

# Inside there is no virtual environment: its interpreter is a link, and `sys.prefix` would be looked for at each start.
PYTHON = os.path.realpath(sys.executable)
PACKAGES = next((path for path in sys.path if path.endswith("site-packages")), "")


class Inside:
    """Runs programs in the virtual machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __call__(self, *command: str, timeout: float = 240) -> tuple[int, str]:
        """Run a command in the checkout; its exit status and output."""
        return self.machine.run(list(command), timeout, PROJECT)

    def open_to_plain_users(self) -> None:
        """Let plain users reach the interpreter and the checkout, which may be in root's home."""
        folders = {str(folder) for path in (PYTHON, f"{PROJECT}/src") for folder in Path(path).parents}
        assert self("chmod", "a+rx", *sorted(folders)) == (0, "")

    def python(self, *arguments: str, become: tuple[str, ...] = (), timeout: float = 240) -> tuple[int, str]:
        """Run this Python with the packages of this virtual environment and tarbox. become: what to start it with."""
        paths = f"PYTHONPATH={PACKAGES}:{PROJECT}/src"
        return self(*become, "env", paths, "PYTHONDONTWRITEBYTECODE=1", PYTHON, *arguments, timeout=timeout)

    def tarbox(self, *arguments: str, become: tuple[str, ...] = (), timeout: float = 240) -> tuple[int, str]:
        """Run the tarbox command of this checkout. become: what to start it with."""
        return self(*become, PYTHON, "-I", "-S", f"{PROJECT}/src/tarbox/__main__.py", *arguments, timeout=timeout)


@pytest.fixture(scope="session")
def inside(test_host: testhost.TestHost) -> Iterator[Inside]:
    """The virtual machine, running."""
    with started(test_host) as made:
        made.open_to_plain_users()
        yield made


@contextlib.contextmanager
def started(
    test_host: testhost.TestHost, parameters: str = "", memory: str = "2G", older: bool = False
) -> Iterator[Inside]:
    """A virtual machine, running until the end of the block. The rest is as for `Machine`."""
    if reason := lacks():
        pytest.skip(reason)
    # The tests have no network; the kernel comes from Debian.
    fetch = [str(Path(__file__).with_name("machine.py")), "--fetch", *(["--older"] if older else [])]
    test_host.outside(sys.executable, *fetch, capture_output=True)
    try:
        machine = Machine(memory, parameters, older)
    except MachineError as error:
        pytest.fail(str(error))
    with machine:
        yield Inside(machine)
