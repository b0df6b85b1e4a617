"""systemd in a container, on a kernel with control groups of version 2 alone and AppArmor."""

from __future__ import annotations

import pytest

import roots
from vm.conftest import PYTHON
from vm.machine import PROJECT

pytestmark = [pytest.mark.vm, pytest.mark.long]

TARBOX = (PYTHON, "-I", "-S", f"{PROJECT}/src/tarbox/__main__.py", "--root", "/tmp/systemd")
# Everything is slow here: the first part waits until systemd answers at all.
BOOT = """
export PYTHONDONTWRITEBYTECODE=1
"$@" /sbin/init &
command=$!
enter() { nsenter -a -t $(cat /proc/$command/task/$command/children) "$@"; }
for attempt in $(seq 60); do
    state=$(enter systemctl is-system-running --wait 2>/dev/null) && echo "$state" && break
    sleep 1
done
enter systemctl --failed --no-legend --no-pager
enter cat /sys/fs/cgroup/memory.max /proc/1/attr/current
enter sh -c 'echo max > /sys/fs/cgroup/memory.max' 2>/dev/null || echo kept
enter sh -c 'ls -d /sys/fs/cgroup/system.slice/dbus.service'
kill -TERM $command
wait $command
echo ended with $?
ls -d /sys/fs/cgroup/tarbox-* 2>/dev/null
"""


def test_debian_boots_in_its_own_group_and_stays_within_its_limits(inside, test_host):
    archive = roots.debian(test_host, "minbase", "systemd", "systemd-sysv", "dbus")
    command = (*TARBOX, "run", "--rm", "-m", "200m", str(archive))
    status, output = inside("sh", "-c", BOOT, "sh", *command, timeout=900)
    assert output.splitlines() == [
        "running",
        str(200 << 20),
        "tarbox-default (enforce)",
        "kept",
        "/sys/fs/cgroup/system.slice/dbus.service",
        "ended with 0",
    ], output
    assert status == 2  # of ls: nothing is left


def test_where_the_kernel_doesnt_keep_it_from_its_limits_they_are_above_it(inside):
    """The file system of control groups mounted without nsdelegate."""
    script = "cat /proc/self/cgroup; echo max > /sys/fs/cgroup/memory.max; echo wrote $?; sleep 2"
    look = """
    mount -o remount,memory_recursiveprot cgroup2 /sys/fs/cgroup
    "$@" &
    for attempt in $(seq 100); do
        group=$(ls -d /sys/fs/cgroup/tarbox-*/payload 2>/dev/null) && grep -q . "$group/cgroup.procs" && break
        sleep 0.1
    done
    cat "$group/../memory.max"
    wait
    mount -o remount,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
    """
    command = (*TARBOX, "run", "--rm", "--systemd", "always", "-m", "50m", "host", "sh", "-c", script)
    status, output = inside("sh", "-c", look, "sh", *command)
    assert status == 0, output
    assert sorted(output.splitlines()) == ["0::/", str(50 << 20), "wrote 0"], output
    assert inside("find", "/sys/fs/cgroup", "-name", "tarbox-*") == (0, "")
    assert "nsdelegate" in inside("grep", "cgroup2", "/proc/mounts")[1]
