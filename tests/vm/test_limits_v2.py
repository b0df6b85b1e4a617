"""Limits on a kernel that has version 2 of control groups alone, measured where that can be."""

from __future__ import annotations

import json
import re

import pytest

from vm.conftest import PROJECT, PYTHON
from vm.test_cgroups_v2 import DELEGATE

pytestmark = [pytest.mark.vm, pytest.mark.long]

COMMAND = f"{PYTHON} -I -S {PROJECT}/src/tarbox/__main__.py"


def test_the_contract_holds(inside):
    """Weights, quotas, rates of disks, names of both versions."""
    status, output = inside.python(
        "-m", "pytest", "--all", "-v", "-p", "no:cacheprovider", "tests/contracts/test_limits.py"
    )
    assert status == 0, output
    passed = set(re.findall(r"::(test_\w+)\[v2\] PASSED", output))
    assert {
        "test_processor_time_is_shared_by_weight", "test_an_idle_group_gives_way",
        "test_a_quota_of_a_longer_period_holds",
        "test_writing_is_slowed_down_to_the_rate", "test_operations_on_a_disk_are_counted",
        "test_reading_is_slowed_down_as_well", "test_either_versions_names_are_taken", "test_memory_nodes_hold",
        "test_limits_of_a_parent_count_for_what_is_in_it", "test_what_a_group_uses_is_told",
        "test_huge_pages_have_a_limit",
    } <= passed, output  # fmt: skip


@pytest.fixture
def files(inside):
    """Two files on a disk, 24 and 120 MB, that are in nobody's memory; reading fills memory that can be taken back."""
    script = """
        truncate -s 200M /dev/shm/image; mkfs.ext4 -q /dev/shm/image; losetup /dev/loop7 /dev/shm/image
        mkdir -p /tmp/disk; mount -t ext4 /dev/loop7 /tmp/disk
        dd if=/dev/zero of=/tmp/disk/one bs=1M count=24; dd if=/dev/zero of=/tmp/disk/two bs=1M count=120
        sync; echo 3 > /proc/sys/vm/drop_caches
    """
    status, output = inside("sh", "-ec", script)
    assert status == 0, output
    yield
    status, output = inside("sh", "-ec", "umount /tmp/disk; losetup -d /dev/loop7; rm /dev/shm/image")
    assert status == 0, output


@pytest.mark.usefixtures("files")
def test_memory_high_keeps_a_group_small_without_killing(inside):
    script = (
        "cat /tmp/disk/two > /dev/null; cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup);"
        "cat memory.high memory.current; grep -w high memory.events; grep -w oom_kill memory.events"
    )
    status, output = inside.tarbox("limit", "--memory-high", "16m", "--", "sh", "-ec", script, timeout=60)
    assert status == 0, output
    high, current, events, kills = output.splitlines()
    assert int(high) == 16 << 20
    assert int(current) < 40 << 20, "120 MB were read"
    assert int(events.split()[1]) > 0
    assert kills == "oom_kill 0"


# Two commands in one group of 60 MB: the first reads a file, then the second reads a larger one.
TIGHT = """
cd /sys/fs/cgroup; mkdir -p tight; echo +memory > cgroup.subtree_control; echo 60M > tight/memory.max; cd /tmp
rm -f go done
first='cat /tmp/disk/one > /dev/null; group=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
    echo before $(cat $group/memory.current); : > /tmp/go; while [ ! -e /tmp/done ]; do sleep 0.05; done
    echo after $(cat $group/memory.current)'
second='while [ ! -e /tmp/go ]; do sleep 0.05; done; cat /tmp/disk/two > /dev/null; : > /tmp/done'
$tarbox limit --cgroup-parent tight -- sh -c "$second" &
$tarbox limit --cgroup-parent tight $options -- sh -c "$first"
wait; rmdir /sys/fs/cgroup/tight
"""


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("options", "is_kept"), [("--memory-reservation 40m", True), ("", False)])
def test_a_reservation_is_kept_under_pressure(inside, options, is_kept):
    """What the first has read stays, as far as it is reserved, and goes otherwise."""
    status, output = inside("sh", "-c", f"tarbox='{COMMAND}'; options='{options}'\n{TIGHT}", timeout=90)
    assert status == 0, output
    before, after = (int(number) for number in re.findall(r"^(?:before|after) (\d+)$", output, re.MULTILINE))
    assert before > 20 << 20
    assert (after > 0.8 * before) == is_kept, output


def test_huge_pages_are_refused_beyond_the_limit(inside):
    script = """
import mmap, sys
MAP_HUGETLB = 0x40000
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB
first = mmap.mmap(-1, 2 << 20, flags=flags)
first[0] = 1
try:
    mmap.mmap(-1, 4 << 20, flags=flags)
    print("both")
except OSError as error:
    print("one", error.errno)
"""
    assert inside("sh", "-c", "echo 8 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")[0] == 0
    try:
        python = inside.python("-c", "import sys; print(sys.executable)")[1].strip()
        for limit, expected in (("4m", "one 12\n"), ("6m", "both\n")):
            status, output = inside.tarbox("limit", "--hugetlb", f"2m={limit}", "--", python, "-c", script)
            assert (status, output) == (0, expected)
    finally:
        inside("sh", "-c", "echo 0 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


def test_run_writes_the_files_of_version_2(inside):
    options = (
        "--memory-reservation", "8m", "--memory-high", "16m", "-m", "32m", "--cpu-shares", "2048",
        "--cpu-quota", "30000", "--cpu-period", "60000", "--cpuset-mems", "0",
        "--cgroup-conf", "memory.oom.group=1", "--cgroup-conf", "pids.max=9",
    )  # fmt: skip
    files = "memory.low memory.high memory.max cpu.weight cpu.max cpuset.mems memory.oom.group pids.max"
    status, output = inside.tarbox("run", "--rm", *options, "host", "sh", "-c", f"cd /sys/fs/cgroup; cat {files}")
    assert (status, output.split("\n")) == (
        0, [str(8 << 20), str(16 << 20), str(32 << 20), "174", "30000 60000", "0", "1", "9", ""],
    )  # fmt: skip


def test_what_version_2_lacks_is_told_or_refused(inside):
    status, output = inside.tarbox(
        "run", "--rm", "--memory-swappiness", "5", "--oom-kill-disable", "-m", "64m", "host", "true"
    )
    assert status == 0
    assert output.count(" is ignored: cgroup v2 ") == 2, output
    status, output = inside.tarbox("run", "--rm", "--net-class", "1:1", "host", "true")
    assert status == 125
    assert "nftables" in output


def test_a_command_has_limits_and_it_is_told_what_ended_it(inside):
    for options in ((), ("--cgroup-parent", "web/front")):
        command = ("dd", "if=/dev/zero", "of=/dev/null", "bs=50M", "count=1")
        status, output = inside.tarbox("limit", *options, "-m", "20m", "--memory-swap", "20m", "--", *command)
        assert status == 137
        assert "reached its memory limit of 20 MiB: the kernel killed a process" in output
    assert inside("find", "/sys/fs/cgroup", "-name", "tarbox-*", "-o", "-name", "web") == (0, "")


LASTING = """
set -e
$tarbox limit create build -m 64m pids.max=20 cpu.cfs_quota_us=50000
$tarbox limit exec build -- cat /proc/self/cgroup
sleep 600 & sleeper=$!
$tarbox limit add build $sleeper
grep -c tarbox-limit-build /proc/$sleeper/cgroup
$tarbox limit set build memory.limit_in_bytes=32m --pids-limit 7
$tarbox limit ls --json
$tarbox limit rm build && exit 9
$tarbox limit rm --release build
kill -0 $sleeper; kill $sleeper
$tarbox limit create build; $tarbox limit exec build -- sleep 600 & sleep 1
$tarbox limit rm --force build
$tarbox limit ls -q
echo the end
"""


@pytest.mark.parametrize("who", ["root", "user"])
def test_groups_that_last(inside, who):
    script = f"tarbox='{COMMAND}'\n{LASTING}"
    become = ()
    if who == "user":
        inside("install", "-d", "-o", "65533", "-m", "700", "/tmp/user")
        become = ("sh", "-c", DELEGATE, "sh", "env", "HOME=/tmp/user", "XDG_RUNTIME_DIR=/tmp/user")
    status, output = inside(*become, "sh", "-c", script)
    assert status == 0, output
    assert output.endswith("\nthe end\n"), output
    assert re.search(r"^0::/(delegated/)?tarbox-limit-build\n1\n", output, re.MULTILINE)
    (found,) = json.loads(output[output.index("[\n") : output.index("\n]\n") + 3])
    assert (found["memory_limit"], found["pids_limit"], found["cpus"]) == (32 << 20, 7, 0.5)
    assert len(found["processes"]) == 1
    assert "holds a process" in output
    assert inside("find", "/sys/fs/cgroup", "-name", "tarbox-*") == (0, "")
