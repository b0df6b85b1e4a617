"""A soft limit on version 1 of control groups: it counts when the whole machine runs short, so a small machine does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import testhost
from vm.conftest import PROJECT, PYTHON, Inside, started

pytestmark = [pytest.mark.vm, pytest.mark.long]

COMMAND = f"{PYTHON} -I -S {PROJECT}/src/tarbox/__main__.py"
MEMORY, FILE = "384M", 70 << 20  # of the machine, and bytes of each of two files on the outside's disk
# The trees of version 1, as a machine with both versions has them.
TREES = """
umount /sys/fs/cgroup; mount -t tmpfs cgroups /sys/fs/cgroup
for name in memory pids devices freezer; do
    mkdir /sys/fs/cgroup/$name; mount -t cgroup -o $name $name /sys/fs/cgroup/$name
done
"""
# Two containers read a file each, which fills memory that can be taken back; then somebody outside wants more than is
# free. What each of them has is told before and after that.
PRESSURE = """
rm -rf /tmp/marks; mkdir /tmp/marks; echo 3 > /proc/sys/vm/drop_caches
box() {
    name=$1; shift
    $tarbox run --rm -v /mnt:/data:ro -v /tmp/marks:/marks "$@" host sh -c "cat /data/$name > /dev/null
        cat /sys/fs/cgroup/memory/memory.usage_in_bytes > /marks/$name-before; : > /marks/$name-on
        while [ ! -e /marks/go ]; do sleep 0.1; done
        cat /sys/fs/cgroup/memory/memory.usage_in_bytes > /marks/$name-after" &
    running=$!
    while [ ! -e /tmp/marks/$name-on ]; do kill -0 $running || exit 9; sleep 0.1; done
}
box one $one
box two $two
$python -c '
import mmap
facts = dict(line.split(":") for line in open("/proc/meminfo"))
size = int(facts["MemFree"].split()[0]) * 1024 + (45 << 20)
held = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, size, 4096):
    held[at] = 1
'
: > /tmp/marks/go; wait
cd /tmp/marks; for file in *-before *-after; do echo $file $(cat $file); done
"""


@pytest.fixture(scope="module")
def small(test_host: testhost.TestHost) -> Iterator[Inside]:
    """A machine with little memory, and a kernel that has all controllers of version 1."""
    with started(test_host, memory=MEMORY, older=True) as made:
        if made("sh", "-ec", TREES)[0]:
            pytest.skip(f"Debian's own kernel has no memory controller of version 1 any more: {made('uname', '-r')[1]}")
        for name in ("one", "two"):
            Path(made.machine.folder, name).write_bytes(os.urandom(FILE))
        yield made


@pytest.mark.parametrize(("one", "two"), [("16m", ""), ("", "16m"), ("16m", "200m"), ("", "")])
def test_who_is_over_its_reservation_loses_memory_first(small, one, two):
    """Whichever of the two it is; what is within its reservation, or has none, stays. Without any, nobody is spared."""
    options = [f"--memory-reservation {size}" if size else "" for size in (one, two)]
    script = f"tarbox='{COMMAND}'; python={PYTHON}; one='{options[0]}'; two='{options[1]}'\n{PRESSURE}"
    status, output = small("sh", "-c", script, timeout=120)
    assert status == 0, output
    found = {name: int(size) for name, size in re.findall(r"^(\w+-\w+) (\d+)$", output, re.MULTILINE)}
    kept = {}
    for name, size in (("one", one), ("two", two)):
        before, after = found[f"{name}-before"], found[f"{name}-after"]
        assert before > FILE
        kept[name] = after / before
        if size == "16m":
            assert 10 << 20 < after < 45 << 20, output
        elif one or two:
            assert kept[name] > 0.9, output
    if not (one or two):
        assert min(kept.values()) < 0.9, output


def test_run_writes_the_file_of_version_1(small):
    script = "cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes"
    status, output = small.tarbox("run", "--rm", "--memory-reservation", "16m", "host", "sh", "-c", script)
    assert (status, output) == (0, f"{16 << 20}\n")
