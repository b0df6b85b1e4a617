"""A script on a kernel that has version 2 of control groups alone."""

from __future__ import annotations

import pytest

from vm.conftest import PROJECT, PYTHON

pytestmark = [pytest.mark.vm, pytest.mark.long]

COMMAND = f"{PYTHON} -I -S {PROJECT}/src/tarbox/__main__.py"
PROBE = (
    "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max /proc/self/cgroup; hostname; id;"
    " grep -E 'Cap(Prm|Bnd)' /proc/self/status; grep -c . /sys/fs/cgroup/cgroup.procs; cut -d' ' -f5- /proc/mounts"
)


def test_a_script_limits_as_tarbox_does(inside):
    """The process is born in its group, which goes with it."""
    words = f"run -h box -m 64m --cpus 0.5 --pids-limit 40 host sh -c '{PROBE.replace(chr(39), chr(34))}; exit 7'"
    status, expected = inside("sh", "-c", f"{COMMAND} {words}")
    assert status == 7, expected
    status, output = inside("sh", "-c", f"{COMMAND} explain --script {words} > /tmp/box.sh && sh /tmp/box.sh")
    assert status == 7, output
    assert output == expected
    assert expected.startswith(f"{64 << 20}\n50000 100000\n40\n0::/\nbox\n")
    assert inside("sh", "-c", "ls -d /sys/fs/cgroup/tarbox-* /tmp/tarbox-script-* 2>/dev/null | wc -l") == (0, "0\n")
