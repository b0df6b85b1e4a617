"""What this machine may lack, on a kernel that has it: control groups of version 2 with all controllers."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.long]

USER = "65533"
# A group that belongs to a plain user, as systemd's delegation makes them, and this shell in a group below it.
DELEGATE = f"""
set -e
cd /sys/fs/cgroup
mkdir -p delegated/shell
echo +memory +pids +cpu > cgroup.subtree_control
for group in delegated delegated/shell; do
    chown {USER} $group $group/cgroup.procs $group/cgroup.threads $group/cgroup.subtree_control
done
echo $$ > delegated/shell/cgroup.procs
cd /tmp
exec setpriv --reuid={USER} --regid={USER} --clear-groups -- "$@"
"""
LIMITS = ("-m", "20m", "--memory-swap", "20m", "--pids-limit", "20", "--cpus", "0.5", "--cpuset-cpus", "0")


@pytest.fixture
def run(inside):
    """Runs `tarbox run` on the machine's own files, with the limits, and checks that its group is gone afterwards."""

    def start(*command, options=LIMITS, become=()):
        done = inside.tarbox("run", "--rm", "--net", "none", *options, "host", *command, become=become)
        assert inside("find", "/sys/fs/cgroup", "-name", "tarbox-*") == (0, "")
        return done

    return start


def test_the_machine_is_what_it_should_be(inside):
    status, output = inside("sh", "-c", "cat /sys/fs/cgroup/cgroup.controllers; grep CapEff /proc/self/status")
    assert status == 0
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(output.splitlines()[0].split())
    assert int(output.split()[-1], 16).bit_count() >= 40


def test_a_command_that_fails_tells_so(inside):
    assert inside("sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\nerr\n")


def test_the_contract_holds(inside):
    files = ("tests/contracts/test_cgroups.py", "tests/kernel/test_cgroups.py")
    status, output = inside.python("-m", "pytest", "-v", "-p", "no:cacheprovider", *files)
    assert status == 0, output
    assert len(re.findall(r"\[v2\] PASSED", output)) >= 15, output
    assert not re.findall(r"\[v2\] SKIPPED", output), output
    assert "test_version_2_names_processes_that_are_in_the_way[pids] PASSED" in output


def test_a_plain_user_limits_in_a_delegated_group(inside):
    script = """
import os, sys
from tarbox.kernel import cgroups
from tarbox.kernel.cgroups import groups
from tarbox.plan.step import PARENT, Slots
facts = cgroups.detect()
assert facts.v2.endswith("/delegated") and not facts.programs, (facts.v2, facts.programs)
backend = cgroups.pick(facts)
devices = [{"allow": False, "access": "rwm"}]
steps = backend.steps("box", {"memory": {"limit": 20 << 20, "swap": 20 << 20}, "devices": devices})
for step in steps:
    if step.by == PARENT:
        step.apply(Slots())
child = os.fork()
if not child:
    for file in steps[-1].files:
        groups.write(file, "0")
    os.execvp("dd", ["dd", "if=/dev/zero", "of=/dev/null", "bs=50M", "count=1"])
print("signal", os.waitpid(child, 0)[1] & 127, "kills", backend.events("box").oom_kills)
for _, name in (record for step in steps for record in step.record()):
    groups.remove(name)
print("left", os.path.exists("/sys/fs/cgroup/delegated/box"))
"""
    status, output = inside.python("-S", "-c", script, become=("sh", "-c", DELEGATE, "sh"))
    assert (status, output) == (0, "signal 9 kills 1\nleft False\n")


def test_a_plain_user_without_delegation_is_told(inside):
    script = """
from tarbox.kernel import cgroups
backend = cgroups.pick(cgroups.detect())
print(backend.warnings({"memory": {"limit": 1}}), backend.steps("box", {"memory": {"limit": 1}}))
"""
    become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--")
    status, output = inside.python("-S", "-c", script, become=become)
    assert status == 0, output
    assert "limits are ignored: memory" in output
    assert output.endswith(" []\n")


def test_run_sets_all_limits(run):
    script = "cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpu.max; nproc; cat /proc/self/cgroup"
    expected = "20971520\n0\n20\n50000 100000\n1\n0::/\n"
    assert run("sh", "-c", script) == (0, expected)


def test_run_kills_what_uses_too_much_memory(run):
    status, output = run("dd", "if=/dev/zero", "of=/dev/null", "bs=50M", "count=1")
    assert status == 137
    assert "memory" in output


def test_run_stops_a_fork_bomb(run):
    script = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; echo all of them"
    status, output = run("sh", "-c", script)
    assert status not in (0, 125)
    assert "all of them" not in output


def test_run_lets_only_harmless_devices_be_used(run):
    script = """
        head -c 3 /dev/zero | wc -c; echo x > /dev/null || echo no null
        mknod /tmp/kmsg c 1 11 && { head -c 1 /tmp/kmsg 2>&1 || true; }
    """
    status, output = run("sh", "-c", script)
    assert status == 0
    assert output.startswith("3\n")
    assert "Operation not permitted" in output


@pytest.mark.parametrize(
    ("option", "value", "path"),
    [("--device", "/dev/kmsg:/dev/log:rm", "/dev/log"), ("--device-cgroup-rule", "c 1:11 rm", "/tmp/made")],
)
def test_run_gives_a_device_with_the_access_that_was_asked_for(run, option, value, path):
    """Here a program of the kernel's decides, and not the files of version 1."""
    script = f"[ -e {path} ] || mknod {path} c 1 11; : <{path} && echo read; (: >{path}) 2>&1; true"
    status, output = run("sh", "-c", script, options=(option, value, "--cap-add", "SYSLOG"))
    assert status == 0, output
    assert "read" in output.split(), output
    assert "Operation not permitted" in output


def test_run_as_a_plain_user_limits_in_a_delegated_group(inside):
    start = ("sh", "-c", DELEGATE, "sh", "env", "HOME=/tmp/user", "XDG_RUNTIME_DIR=/tmp/user")
    inside("install", "-d", "-o", USER, "-m", "700", "/tmp/user")
    options = ("-m", "20m", "--memory-swap", "20m")
    command = ("dd", "if=/dev/zero", "of=/dev/null", "bs=50M", "count=1")
    status, output = inside.tarbox("run", "--rm", "--net", "none", *options, "host", *command, become=start)
    assert (status, "memory" in output) == (137, True), output
    assert inside("find", "/sys/fs/cgroup/delegated", "-name", "tarbox-*") == (0, "")
