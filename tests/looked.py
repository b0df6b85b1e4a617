"""Processes to be looked at: started, found, ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from conftest import Tarbox


def what(tarbox: Tarbox, pid: int | str) -> dict[str, Any]:
    """What `tarbox what` says of a process, as a program reads it."""
    found: dict[str, Any] = json.loads(tarbox.output("what", "--json", str(pid)))
    return found


def children(pid: int) -> list[int]:
    """The numbers of a process's children, whichever of its threads they are of."""
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


@contextlib.contextmanager
def running(*command: str | Path, depth: int = 0) -> Iterator[int]:
    """Run a command and give the number of its only descendant `depth` generations below, when that runs `cat`.

    When its input is closed it ends, and with it whoever waits for it.
    """
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield settled(process, depth)
    finally:
        process.communicate(timeout=30)


def settled(process: subprocess.Popen[bytes], depth: int, names: tuple[str, ...] = ("cat", "busybox")) -> int:
    """The descendant `depth` generations below a process, as soon as it runs a program of one of these names."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pid = process.pid
        with contextlib.suppress(OSError, ValueError):
            for _ in range(depth):
                (pid,) = children(pid)
            if Path(f"/proc/{pid}/comm").read_text().strip() in names:
                return pid
        assert process.poll() is None, f"it ended at once: {process.returncode}"
        time.sleep(0.01)
    raise AssertionError("it never came to run")


@contextlib.contextmanager
def container(tarbox: Tarbox, *arguments: str | Path) -> Iterator[int]:
    """Run `cat` in a container with these options and image, and give the number of its process on the host."""
    process = tarbox.start("run", "-i", *arguments, "cat")
    try:
        yield settled(process, 1)
    finally:
        process.communicate(timeout=30)


def lsns(*options: str, become: tuple[str, ...] = ()) -> list[list[str]]:
    """The rows of lsns with these options, word by word; it is asked again where a process that ended made it fail."""
    for _ in range(50):
        done = subprocess.run([*become, "lsns", "-n", *options], capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def own_namespaces(pid: int) -> set[str]:
    """The kinds of namespaces, by the names in /proc, that a process doesn't share with the kernel's first thread."""
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
    return {kind for kind in kinds if os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/2/ns/{kind}")}
