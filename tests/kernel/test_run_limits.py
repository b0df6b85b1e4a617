"""Limits bite: memory, processor time, processes, files. Each is felt from inside, and said outside where it kills."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

import roots
from inside import ask, numbers

pytestmark = pytest.mark.unhurried

V1 = os.path.isdir("/sys/fs/cgroup/memory")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def test_a_program_that_needs_too_much_memory_is_killed_and_it_is_said(tarbox, image):
    """10 MB don't fit into 5."""
    done = tarbox("run", "-m", "5m", image, "dd", "if=/dev/zero", "of=/dev/null", "bs=10M", "count=1")
    assert done.returncode == 137
    assert re.fullmatch(
        r"tarbox: the container reached its memory limit of 5 MiB: the kernel killed a process \(.*-m\)\n", done.stderr
    )
    assert tarbox("run", "-m", "64m", image, "dd", "if=/dev/zero", "of=/tmp/x", "bs=10M", "count=1").returncode == 0


def test_a_child_that_needs_too_much_memory_dies_alone(tarbox, image):
    """Process 1 goes on, sees how its child ended, and the container ends with its code."""
    script = "dd if=/dev/zero of=/dev/null bs=50M count=1; echo child: $?"
    done = tarbox("run", "-m", "8m", "--memory-swap", "8m", image, "sh", "-c", f"{script}; exit 4")
    assert done.returncode == 4
    assert done.stdout == "child: 137\n"
    assert "memory limit of 8 MiB" in done.stderr


def test_tmpfs_counts_as_memory(tarbox, image):
    """What is written to /dev/shm is memory of the container."""
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; echo $?"
    done = tarbox("run", "-m", "8m", "--memory-swap", "8m", image, "sh", "-c", script)
    assert done.stdout.strip() in ("137", ""), done.stdout
    assert "memory limit of 8 MiB" in done.stderr or done.returncode == 0


def test_processor_time_is_bounded(tarbox, image):
    """--cpus 0.2: a program that is always busy gets a fifth of a second each second."""
    busy = "timeout 1 sh -c 'while :; do :; done'; times"
    begin = time.monotonic()
    output = tarbox.output("run", "--cpus", "0.2", image, "sh", "-c", busy)
    taken = time.monotonic() - begin
    minutes, seconds = re.findall(r"(\d+)m([\d.]+)s", output.splitlines()[-1])[0]
    used = int(minutes) * 60 + float(seconds)
    assert 0 < used < 0.2 * taken + 0.15, output


def test_the_groups_say_what_was_asked_for(tarbox, image):
    """Read inside, from the container's own view of its groups."""
    options = ("--cpu-shares", "512", "--pids-limit", "33", "-m", "64m", "--memory-swap", "100m", "--cpus", "0.5")
    v1 = {
        "shares": "cat /sys/fs/cgroup/cpu/cpu.shares",
        "pids": "cat /sys/fs/cgroup/pids/pids.max",
        "memory": "cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
        "both": "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
        "quota": "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    }
    v2 = {
        "shares": "cat /sys/fs/cgroup/cpu.weight",
        "pids": "cat /sys/fs/cgroup/pids.max",
        "memory": "cat /sys/fs/cgroup/memory.max",
        "both": "echo $(($(cat /sys/fs/cgroup/memory.max) + $(cat /sys/fs/cgroup/memory.swap.max)))",
        "quota": "cut -d' ' -f1 /sys/fs/cgroup/cpu.max",
    }
    said = ask(tarbox, *options, image, **(v1 if V1 else v2))
    assert said.pop("shares") == ("512" if V1 else said.get("shares", "20")) or not V1
    assert said == {"pids": "33", "memory": str(64 << 20), "both": str(100 << 20), "quota": "50000"}


def test_a_container_stays_on_its_processors(tarbox, image):
    """--cpuset-cpus: what nproc says, and what the kernel lets it use."""
    last = max(os.sched_getaffinity(0))
    said = ask(
        tarbox, "--cpuset-cpus", str(last), image, nproc="nproc", allowed="grep Cpus_allowed_list /proc/self/status",
        wider="taskset -p ffff $$ >/dev/null; grep Cpus_allowed_list /proc/self/status",
    )  # fmt: skip
    assert said["nproc"] == "1"
    assert said["allowed"].split()[-1] == str(last)
    assert said["wider"].split()[-1] == str(last)


def test_a_fork_bomb_is_bounded(tarbox, image):
    """--pids-limit: it can't have more processes, and the machine doesn't feel it."""
    bomb = "b() { b | b & }; b 2>/dev/null; sleep 1; ls -d /proc/[0-9]* | wc -l"
    done = tarbox("run", "--pids-limit", "20", "--timeout", "5s", image, "sh", "-c", f"({bomb}) 2>&1; exit 0")
    assert all(number <= 20 for number in numbers(done.stdout)), done.stdout
    few = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    done = tarbox("run", "--pids-limit", "5", image, "sh", "-c", few)
    assert done.returncode != 0
    assert "can't fork" in done.stderr
    assert tarbox("run", "--pids-limit", "-1", image, "sh", "-c", few).returncode == 0


def test_limits_of_each_process(tarbox, image):
    """--ulimit: soft and hard, felt where the kernel refuses."""
    said = ask(
        tarbox, "--ulimit", "nofile=20:30", "--ulimit", "core=0", "--ulimit", "fsize=1000", image,
        files="ulimit -Sn; ulimit -Hn",
        raised="ulimit -Sn 31",
        core="ulimit -c",
        open="n=3; while [ $n -lt 40 ]; do eval \"exec $n</dev/null\" || exit; n=$((n+1)); done; echo all",
        large="dd if=/dev/zero of=/tmp/x bs=1k count=2; stat -c %s /tmp/x",
    )  # fmt: skip
    assert said["files"].split() == ["20", "30"]
    assert said["raised"] != ""
    assert said["core"] == "0"
    assert "all" not in said["open"].split()
    assert said["large"].split()[-1] == "1000"


@pytest.mark.parametrize("limit", ["nofile=4", "fsize=0", "stack=65536", "data=300000", "nproc=1"])
def test_even_the_smallest_limits_let_a_container_start(tarbox, image, limit):
    """They are the program's, not tarbox's own."""
    name, value = limit.split("=")
    file = {
        "nofile": "open files",
        "fsize": "file size",
        "stack": "stack size",
        "data": "data size",
        "nproc": "processes",
    }
    said = tarbox.output("run", "--ulimit", limit, image, "cat", "/proc/self/limits")
    (line,) = (line for line in said.splitlines() if line.startswith(f"Max {file[name]}"))
    assert line.split()[-3:-1] == [value, value]


def test_a_limit_that_cant_be_raised_is_told_and_the_container_starts(tarbox, image):
    """Without CAP_SYS_RESOURCE; where tarbox has it the limit is simply set."""
    done = tarbox("run", "--ulimit", "nofile=50:1048000", image, "sh", "-c", "ulimit -Sn")
    assert (done.returncode, done.stdout) == (0, "50\n")
    assert done.stderr == "" or re.fullmatch(r"tarbox: the limit nofile can't be raised to 1048000 .*\n", done.stderr)


def test_the_groups_are_gone_afterwards(tarbox, image):
    """In every hierarchy."""
    name = tarbox.output("run", "-m", "20m", image, "hostname").strip()
    assert not [path for path in Path("/sys/fs/cgroup").glob("**/*tarbox*") if name in path.name]
