"""Container engines to measure against, each in namespaces of its own: what they leave goes with those.

    unshare --mount --net --pid --fork …

Docker gets a daemon of its own, with its data in the temporary folder; nothing of a daemon that the machine may have is
used, and none of the machine's interfaces and rules are seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

OWN_ADDRESS = "192.0.2.1"  # of the machine that an engine believes to be on, besides 127.0.0.1
GROUP = f"tarbox-bench-{os.getpid()}"
_PREPARE = (
    "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && ip link set lo up"
    f" && ip addr add {OWN_ADDRESS}/32 dev lo && echo ready && exec cat"
)


class Place:
    """A machine for one engine alone: network, mounts, /run, /var/lib and processes."""

    def __init__(self) -> None:
        kinds = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
        self.holder = subprocess.Popen(
            ["unshare", *kinds, "sh", "-c", _PREPARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.holder.stdout
        if self.holder.stdout.readline() != b"ready\n":
            raise OSError("no namespaces for an engine")
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        first = children.read_text().strip()
        self.entered = ["nsenter", "--mount", "--net", "--pid", f"--target={first}", "--"]

    def close(self) -> None:
        """End its first process, and all others with it."""
        self.holder.communicate()


class Engine:
    """One engine. run: the words that run a container, up to its options. why_not: set when it can't take part."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.run: list[str] = []
        self.image = "tarbox-bench"
        self.entered: list[str] = []
        self.why_not = ""

    def command(self, *options: str, words: tuple[str, ...]) -> list[str]:
        """The command that runs a container with these options, and these words in it."""
        return [*self.run, *options, self.image, *words]

    def close(self) -> None:
        """Leave nothing."""


class Tarbox(Engine):
    """The command of this checkout, or another one, where this program is."""

    def __init__(self, launcher: str, folder: Path, archive: Path) -> None:
        super().__init__("tarbox")
        self.run = [launcher, "--root", str(folder / "tarbox"), "run", "--rm"]
        self.image = str(archive)


class Docker(Engine):
    """A daemon of our own."""

    def __init__(self, folder: Path, archive: Path) -> None:
        super().__init__("docker")
        self.daemon: subprocess.Popen[bytes] | None = None
        self.place: Place | None = None
        found = shutil.which("dockerd")
        if not found:
            self.why_not = "there is no dockerd (apt-get install docker.io)"
            return
        self.place = Place()
        self.entered = self.place.entered
        beside = Path(found).resolve().parent.parent / "bin" / "docker"
        socket = f"unix://{folder}/docker.sock"
        client = [str(beside) if beside.exists() else "docker", "--host", socket]
        folders = {"data-root": "docker", "exec-root": "docker-exec", "pidfile": "docker.pid"}
        words = [f"--{option}={folder}/{name}" for option, name in folders.items()]
        with open(folder / "docker.log", "wb") as log:
            self.daemon = subprocess.Popen(
                [*self.entered, found, f"--host={socket}", "--iptables=true", f"--cgroup-parent=/{GROUP}", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.why_not = self._answers(client, folder / "docker.log") or _told(
            [*client, "import", str(archive), self.image]
        )
        self.run = [shutil.which(client[0]) or client[0], *client[1:], "run", "--rm"]

    def _answers(self, client: list[str], log: Path) -> str:
        end = time.monotonic() + 30
        while _told([*client, "version"]):
            assert self.daemon
            if self.daemon.poll() is not None or time.monotonic() > end:
                return f"its daemon doesn't answer: {(log.read_text().splitlines() or ['no message'])[-1]}"
            time.sleep(0.2)
        return ""

    def close(self) -> None:
        if self.daemon and self.daemon.poll() is None:
            self.daemon.terminate()
            self.daemon.wait()
        if self.place:
            self.place.close()


class Podman(Engine):
    """The same without a daemon; with runc, since crun refuses machines with both kinds of cgroups."""

    def __init__(self, folder: Path, archive: Path) -> None:
        super().__init__("podman")
        self.place: Place | None = None
        found = shutil.which("podman")
        if not found:
            self.why_not = "there is no podman (apt-get install podman containernetworking-plugins)"
            return
        self.place = Place()
        self.entered = self.place.entered
        podman = [
            *self.entered, found, "--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run",
            "--network-config-dir", f"{folder}/podman-networks", "--cgroup-manager", "cgroupfs",
            "--events-backend", "none", "--storage-driver", "overlay", "--runtime", "runc",
        ]  # fmt: skip
        self.why_not = _told([*podman, "import", str(archive), self.image])
        self.image = f"localhost/{self.image}"
        self.run = [shutil.which("nsenter") or "", *podman[1:], "run", "--rm", "--cgroup-parent", f"/{GROUP}"]

    def close(self) -> None:
        if self.place:
            self.place.close()


def _told(command: list[str]) -> str:
    """What a command said last when it failed; empty when it didn't."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else ""


def remove_groups() -> None:
    """Remove the control groups of Docker's and podman's containers: cgroups have no namespace of mounts."""
    for tree in Path("/sys/fs/cgroup").glob(f"*/{GROUP}"):
        for folder, _, _ in os.walk(tree, topdown=False):
            os.rmdir(folder)
