"""What is seen inside, asked of a script's container and of tarbox's in the same words, and from outside meanwhile."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from inside import answers
from looked import children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Tarbox

HERE = Path(__file__).resolve().parent
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
QUESTIONS = {
    "status": "cat /proc/self/status",
    "mounts": "cut -d' ' -f5 /proc/self/mountinfo",
    "cgroup": "cat /proc/self/cgroup",
    "hostname": "hostname",
    "pids": "cd /proc; echo [0-9]*",
    "names": "cat /proc/[0-9]*/comm",
    "first": "tr '\\0' ' ' < /proc/1/cmdline",
    "id": "echo $(id -u) $(id -g)",
    "files": "ls /",
    "namespaces": "".join(f"readlink /proc/self/ns/{kind};" for kind in KINDS),
    "interfaces": "cut -d: -f1 /proc/net/dev | tail -n +3",
    "lo": "ip addr show lo",
    "root": "df -k / | tail -1",
}


def probe(rootfs: Path) -> str:
    """Put a program that answers the questions into a root filesystem; returns the command that runs it.

    Then it says `<over>`, and waits for the end of its input, so that one can look at it from outside.
    """
    script = "".join(f"echo '<{name}>'; ( {command} ) 2>&1\n" for name, command in QUESTIONS.items())
    (rootfs / "probe.sh").write_text(f"export PATH=/bin:/sbin:/usr/bin:/usr/sbin\n{script}echo '<over>'; cat\n")
    return "/bin/sh /probe.sh"


@contextlib.contextmanager
def running(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[tuple[dict[str, str], int]]:
    """Run a command in which the probe runs; gives the answers, and the number of a process inside, which waits."""
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told = ""
    try:
        assert process.stdout
        for line in process.stdout:
            if line == "<over>\n":
                break
            told += line
        else:
            raise AssertionError(f"it ended early: {told}{process.stderr and process.stderr.read()}")
        yield answers(told, QUESTIONS), deepest(process.pid)
    finally:
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, ""), errors


def deepest(pid: int) -> int:
    """The only descendant that has no children of its own."""
    while below := children(pid):
        pid = below[0]
    return pid


def fields(status: str) -> dict[str, str]:
    """The lines of /proc/PID/status by name."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}


def of(pid: int | str) -> dict[str, str]:
    """The status of a process, as the tests see it."""
    return fields(Path(f"/proc/{pid}/status").read_text())


def mine() -> dict[str, str]:
    """The status of the tests' own process."""
    return of("self")


def own_kinds(namespaces: str) -> set[str]:
    """The kinds of namespaces that differ from those of the tests."""
    inside = dict(word.split(":") for word in namespaces.split())
    return {kind for kind in KINDS if os.readlink(f"/proc/self/ns/{kind}") != f"{kind}:{inside[kind]}"}


def control(pid: int, controller: str, file: str) -> str:
    """What a control file says of the version 1 group that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{file}").read_text().strip()
    raise AssertionError(f"no group of {controller}")


def version_1() -> bool:
    """Whether control groups have the names and trees that the texts use."""
    return all(os.path.isdir(f"/sys/fs/cgroup/{name}") for name in ("cpu", "cpuacct", "memory"))


def isolate(tarbox: Tarbox, *kinds: str) -> list[str] | None:
    """The start of `tarbox isolate --KIND… --`, or None while this tarbox has no such command.

    The comparisons with it begin to be made when it is there.
    """
    listed = [line.split()[0] for line in tarbox.output("help").splitlines() if line.strip()]
    return ["isolate", *(f"--{kind}" for kind in kinds), "--"] if "isolate" in listed else None
