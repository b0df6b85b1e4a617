"""Control groups on the real kernel: what belongs to one version alone, and the care that removing takes."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys

import pytest

from rows import perform
from tarbox.errors import KernelError, UnsupportedError
from tarbox.kernel import cgroups
from tarbox.kernel.cgroups import groups
from tarbox.kernel.cgroups.groups import OpenGroup, WriteControl
from tarbox.kernel.cgroups.v2 import EnableControllers
from tarbox.kernel.syscall import buffer, forking_syscall
from tarbox.plan.step import Slots

CLONE_INTO_CGROUP = 0x200000000


@pytest.fixture
def v2_group():
    """A new group of version 2, removed afterwards."""
    _, root = cgroups.mounts(groups.read("/proc/self/mountinfo") or "")
    if not root or not os.access(root, os.W_OK):
        pytest.skip("no cgroup2 file system that we may write to")
    path = f"{root}/tarbox-test-{secrets.token_hex(4)}"
    os.mkdir(path)
    yield path
    groups.remove(path)


@pytest.fixture
def pids_group():
    """A new group of version 1's pids controller, removed afterwards."""
    v1, _ = cgroups.mounts(groups.read("/proc/self/mountinfo") or "")
    if "pids" not in v1 or not os.access(v1["pids"], os.W_OK):
        pytest.skip("version 1's pids controller isn't mounted")
    path = f"{v1['pids']}/tarbox-test-{secrets.token_hex(4)}"
    os.mkdir(path)
    yield path
    groups.remove(path)


def test_a_process_is_born_into_its_group(v2_group):
    slots = Slots()
    OpenGroup(v2_group).apply(slots)
    arguments = buffer(88)
    fields = [CLONE_INTO_CGROUP, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0, 0, 0, slots.take("cgroup")]
    arguments.raw = b"".join(field.to_bytes(8, "little") for field in fields)
    reading, writing = os.pipe()
    child = forking_syscall("clone3", arguments, len(arguments))
    if child == 0:
        os.write(writing, (groups.read("/proc/self/cgroup") or "").encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    os.close(slots.take("cgroup"))
    with os.fdopen(reading) as pipe:
        assert f"0::/{os.path.basename(v2_group)}\n" in pipe.read()


def test_version_2_kills_a_fork_bomb_at_once(v2_group):
    bomb = "import os, signal\nfor _ in range(30): os.fork() or signal.pause()\nsignal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", bomb],
        preexec_fn=lambda: groups.write(v2_group + "/cgroup.procs", "0"),
    )
    groups.remove(v2_group)
    assert process.wait(timeout=30) == -9
    assert not os.path.exists(v2_group)


def test_version_1_kills_what_forks_while_it_is_killed(pids_group):
    groups.write(pids_group + "/pids.max", "40")
    bomb = "while :; do sleep 0.01 & sleep 0.01; done"
    process = subprocess.Popen(["sh", "-c", bomb], preexec_fn=lambda: groups.write(pids_group + "/tasks", "0"))
    groups.remove(pids_group)
    assert process.wait(timeout=30) == -9
    assert not os.path.exists(pids_group)


def test_removing_never_kills_what_is_outside(pids_group, tmp_path):
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        groups.kill(pids_group)
        groups.remove(str(tmp_path / "not there"))
        (tmp_path / "cgroup.procs").write_text(f"{bystander.pid}\n")
        with pytest.raises(KernelError, match="rmdir"):
            groups.remove(str(tmp_path / "cgroup.procs"))  # whatever the journal names, a file isn't a group
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_parent_without_our_mark_is_never_removed(pids_group):
    groups.remove_parent(pids_group)
    assert os.path.isdir(pids_group)
    groups.remove_parent(pids_group + "/not-there")


def test_an_absent_control_warns_where_a_warning_is_enough(pids_group):
    slots = Slots()
    WriteControl(pids_group + "/pids.swap.max", "1", absent="swap isn't limited").apply(slots)
    assert slots.warnings == ["swap isn't limited"]
    with pytest.raises(KernelError, match=r"this kernel has no pids\.swap\.max"):
        WriteControl(pids_group + "/pids.swap.max", "1").apply(slots)


def test_a_bad_value_is_named_with_its_control(pids_group):
    with pytest.raises(KernelError) as caught:
        WriteControl(pids_group + "/pids.max", "many").apply(Slots())
    assert str(caught.value).startswith(f"write({pids_group}/pids.max, many): Invalid argument")
    assert caught.value.shell == f"echo 'many' > {pids_group}/pids.max"


@pytest.mark.parametrize("controller", ["memory", "pids"])  # the second could be enabled, but nobody could join then
def test_version_2_names_processes_that_are_in_the_way(v2_group, controller):
    root = os.path.dirname(v2_group)
    if controller not in (groups.read(root + "/cgroup.controllers") or "").split():
        pytest.skip(f"version 2 has no {controller} controller here")
    EnableControllers(root, (controller,)).apply(Slots())
    process = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: groups.write(v2_group + "/cgroup.procs", "0"))
    try:
        with pytest.raises(UnsupportedError, match="processes are in it directly"):
            EnableControllers(v2_group, (controller,)).apply(Slots())
        EnableControllers(v2_group, (), (controller,)).apply(Slots())  # wanted only: no reason to stop
    finally:
        groups.remove(v2_group)
        assert process.wait(timeout=30) == -9


def test_a_controller_that_is_missing_is_named(v2_group):
    with pytest.raises(UnsupportedError, match="has no controller for tea"):
        EnableControllers(v2_group, ("tea",)).apply(Slots())


def test_hybrid_joins_both_versions():
    facts = cgroups.detect()
    if not (facts.v1 and "hugetlb" in facts.controllers):
        pytest.skip(f"not hybrid with hugetlb in version 2, but {facts.layout}")
    sizes = [name.partition("-")[2] for name in os.listdir("/sys/kernel/mm/hugepages")]
    size = "2MB" if "2048kB" in sizes else pytest.skip("no huge pages of 2 MB")
    name = f"tarbox-test-{secrets.token_hex(4)}"
    backend = cgroups.pick(facts)
    steps = backend.steps(name, {"hugepageLimits": [{"pageSize": size, "limit": 0}], "pids": {"limit": 9}})
    try:
        for step in steps:
            if step.by == "parent":
                step.apply(Slots())
        joins = [step for step in steps if step.by == "runner"]
        shown = subprocess.check_output(
            ["cat", "/proc/self/cgroup"], preexec_fn=lambda: [perform(step.rows(Slots())) for step in joins], text=True
        )
        assert f"0::/{name}\n" in shown
        assert f":pids:/{name}\n" in shown
        assert groups.read(f"{facts.v2}/{name}/hugetlb.2MB.max") == "0\n"
    finally:
        for path in reversed(backend.groups(name)):
            groups.remove(path)
    assert not any(os.path.exists(path) for path in backend.groups(name))
