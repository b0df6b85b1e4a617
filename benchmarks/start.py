#!/usr/bin/env python3
"""How long a container takes from a cold command line, against the peers that are installed.

    benchmarks/start.py [-n 60] [--warmup 5] [--json] [--tarbox PATH]

Each contender runs `true` in a busybox root filesystem and is waited for; one round runs each of them once, in an order
that rotates, so that what the machine does meanwhile hits all alike. Claims are ratios of medians of one such run.

    tarbox     run --rm --net none IMAGE true: overlay, all namespaces, cgroups, capabilities, seccomp, clean-up
    unshare    -fmuipn --mount-proc chroot ROOT /bin/true: namespaces and nothing else
    runc, crun run of a bare bundle: no overlay, no network, no limits
    docker     run --rm --net none, where a daemon answers

Needs root, busybox-static, util-linux, runc; uses crun and docker when they are there. Works in mount and network
namespaces of its own and leaves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(CHECKOUT / "tests"))

import roots  # noqa: E402
import testhost  # noqa: E402


class Contender:
    """One command that is measured. why_not: set when it can't take part, in words."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.command = command
        self.environment = {"PATH": os.environ.get("PATH", ""), "HOME": "/root", "LANG": "C.UTF-8"} | (
            environment or {}
        )
        self.times: list[float] = []
        self.why_not = ""
        self.afterwards: Callable[[], object] = lambda: None

    def once(self, errors: int, null: int) -> float:
        """Run it and return how long it took, in ms; sets `why_not` when it fails."""
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
        os.ftruncate(errors, 0)
        os.lseek(errors, 0, os.SEEK_SET)
        start = time.perf_counter()
        pid = os.posix_spawn(self.command[0], self.command, self.environment, file_actions=actions)
        _, status, _ = os.wait4(pid, 0)
        taken = (time.perf_counter() - start) * 1000
        if status:
            said = os.pread(errors, 4096, 0).decode("utf-8", "replace").strip().splitlines()
            self.why_not = f"exit {os.waitstatus_to_exitcode(status)}: {said[-1] if said else 'no message'}"
        return taken

    def row(self) -> dict[str, float]:
        """Minimum, median and maximum in ms."""
        return {"min": min(self.times), "median": statistics.median(self.times), "max": max(self.times)}


def bundle(folder: Path, root: Path) -> Path:
    """A bundle whose config is what `runc spec` writes, for `true` without a terminal."""
    folder.mkdir()
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    config["root"] = {"path": str(root), "readonly": True}
    path.write_text(json.dumps(config))
    return folder


def launcher(asked: str | None) -> str:
    """The tarbox command: the one asked for, or the one that ./install made, or this checkout's."""
    for path in filter(None, (asked, CHECKOUT / ".venv" / "bin" / "tarbox", CHECKOUT / "bin" / "tarbox")):
        if os.access(path, os.X_OK):
            return str(path)
    raise SystemExit("start.py: no tarbox command; install it, or name it with --tarbox")


def contenders(folder: Path, tarbox: str, host: testhost.TestHost) -> list[Contender]:
    """Everybody who takes part; those who don't have `why_not` set."""
    root = roots.busybox(folder / "root")
    archive = roots.packed(root, folder / "busybox.tar")
    spec = bundle(folder / "bundle", root)
    state = str(folder / "state")
    found = [
        Contender(
            "tarbox", [tarbox, "--root", str(folder / "data"), "run", "--rm", "--net", "none", str(archive), "true"]
        ),
        Contender("unshare", [_path("unshare"), "-fmuipn", "--mount-proc", "chroot", str(root), "/bin/true"]),
        Contender("runc", [_path("runc"), "--root", state, "run", "--bundle", str(spec), "tarbox-bench-runc"]),
    ]
    if crun := shutil.which("crun"):
        found.append(_crun(crun, state, spec))
    if docker := shutil.which("docker"):
        found.append(_docker(docker, archive, host))
    return found


def _crun(crun: str, state: str, spec: Path) -> Contender:
    """crun refuses machines with both kinds of cgroups: there it is given a view without the newer one, by nsenter."""
    how = [crun, "--root", state, "--cgroup-manager=cgroupfs", "run", "--bundle", str(spec), "tarbox-bench-crun"]
    unified = "/sys/fs/cgroup/unified"
    if not os.path.ismount(unified):
        return Contender("crun", how)
    # The process that holds that view waits for input, of which there is none until this program ends.
    view = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"umount {unified} && echo ready && exec cat"]
    holder = subprocess.Popen(view, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    contender = Contender("crun, by nsenter", [_path("nsenter"), f"--mount=/proc/{holder.pid}/ns/mnt", *how])
    contender.afterwards = holder.communicate
    return contender


def _docker(docker: str, archive: Path, host: testhost.TestHost) -> Contender:
    sockets = f"unix:///proc/{host.witness}/root/var/run/docker.sock"  # we see another /run than the daemon
    contender = Contender(
        "docker", [docker, "run", "--rm", "--net", "none", "tarbox-bench", "true"], {"DOCKER_HOST": sockets}
    )
    try:
        done = subprocess.run(
            [docker, "import", archive, "tarbox-bench"], env=contender.environment, capture_output=True, timeout=60
        )
        if done.returncode:
            contender.why_not = "no daemon answers"
            return contender
        remove = [docker, "rmi", "tarbox-bench"]
        contender.afterwards = lambda: subprocess.run(remove, env=contender.environment, capture_output=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        contender.why_not = str(error)
    return contender


def _path(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise SystemExit(f"start.py: {name} is missing: apt-get install runc util-linux busybox-static")
    return found


def measure(everybody: list[Contender], count: int, warmup: int, errors: int) -> None:
    """Let all run `count` times, interleaved, after `warmup` rounds that don't count."""
    with open(os.devnull, "r+b") as null:
        for turn in range(-warmup, count):
            running = [one for one in everybody if not one.why_not]
            if not running:
                return
            shift = turn % len(running)
            for one in running[shift:] + running[:shift]:
                taken = one.once(errors, null.fileno())
                if turn >= 0:
                    one.times.append(taken)


def report(everybody: list[Contender], count: int) -> str:
    """The table: ms, and each median as part of tarbox's."""
    lines = [f"{count} rounds, ms         min   median      max   tarbox is"]
    ours = everybody[0].row()["median"]
    for one in everybody:
        if one.why_not:
            lines.append(f"{one.name:<18}  not measured: {one.why_not}")
            continue
        row = one.row()
        ratio = "" if one is everybody[0] else f"{ours / row['median']:8.2f} of it"
        lines.append(f"{one.name:<18}{row['min']:9.1f}{row['median']:9.1f}{row['max']:9.1f}{ratio:>16}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", type=int, default=60, metavar="N", help="rounds that count (default 60)")
    parser.add_argument("--warmup", type=int, default=5, metavar="N", help="rounds that don't (default 5)")
    parser.add_argument("--json", action="store_true", help="print all times, as JSON")
    parser.add_argument("--tarbox", metavar="PATH", help="the command to measure (default: this checkout's)")
    options = parser.parse_args()
    if options.n < 1 or options.warmup < 1:
        parser.error("-n and --warmup are at least 1: the first run of a tarball unpacks it")
    if os.geteuid():
        parser.error("needs root")
    tarbox = launcher(options.tarbox)
    host = testhost.TestHost()
    host.enter()
    with tempfile.TemporaryDirectory(prefix="tarbox-bench-") as name, tempfile.TemporaryFile() as errors:
        everybody = contenders(Path(name), tarbox, host)
        try:
            measure(everybody, options.n, options.warmup, errors.fileno())
        finally:
            for one in everybody:
                one.afterwards()
            host.leave()
    if options.json:
        rows = {one.name: {"times_ms": one.times, "not_measured": one.why_not} for one in everybody}
        print(json.dumps({"rounds": options.n, "contenders": rows}, indent=1))
    elif not everybody[0].why_not:
        print(report(everybody, options.n))
    if everybody[0].why_not:
        print(f"start.py: tarbox wasn't measured: {everybody[0].why_not}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
