"""What every backend for control groups promises, tried on each that this machine has.

Every group has a random name, is made by the backend's own steps, and removed as the journal would: by the names that
the steps record.
"""

from __future__ import annotations

import os
import resource
import secrets
import time

import pytest

from boxes import Box, needs, until
from tarbox.errors import KernelError
from tarbox.kernel import cgroups
from tarbox.kernel.cgroups import groups
from tarbox.plan.step import Slots

pytestmark = pytest.mark.root


def test_making_the_steps_does_nothing_yet(backend):
    box = Box(backend, {"pids": {"limit": 5}})
    assert box.steps
    assert not [path for path in backend.groups(box.name) if os.path.exists(path)]


def test_what_the_steps_make_is_what_they_record(backend):
    with Box(backend) as box:
        made = [path for path in backend.groups(box.name) if os.path.isdir(path)]
        assert made
        assert box.records() == [("cgroup", path) for path in made]
    assert not [path for path in made if os.path.exists(path)]


def test_a_child_joins_all_groups(backend):
    with Box(backend) as box:
        status, output = box.run("cat", "/proc/self/cgroup")
        assert status == 0
        joined = [line for line in output.splitlines() if line.endswith("/" + box.name)]
        assert len(joined) == len(box.records())


def test_the_memory_limit_kills_and_the_kill_is_counted(backend):
    needs(backend, "memory")
    with Box(backend, {"memory": {"limit": 20 << 20, "swap": 20 << 20}}) as box:
        assert box.run("dd", "if=/dev/zero", "of=/dev/null", "bs=5M", "count=2")[0] == 0
        assert backend.events(box.name).oom_kills == 0
        status, _ = box.run("dd", "if=/dev/zero", "of=/dev/null", "bs=50M", "count=1")
        assert status == -9
        events = backend.events(box.name)
        assert events.oom_kills == 1
        assert events.memory_peak is not None
        assert 15 << 20 < events.memory_peak <= 20 << 20
    assert backend.events(box.name).oom_kills == 0, "a group that is gone tells nothing, and doesn't raise"


def test_no_more_processes_than_the_limit(backend):
    needs(backend, "pids")
    with Box(backend, {"pids": {"limit": 8}}) as box:
        script = "for one in 1 2 3 4 5 6 7 8 9 10; do sleep 60 >/dev/null 2>&1 & done; echo all of them"
        status, output = box.run("sh", "-c", script)
        assert status != 0
        assert "all of them" not in output
        running = {pid for kind, path in box.records() for pid in (groups.read(path + "/cgroup.procs") or "").split()}
        assert 1 <= len(running) <= 7
    until(lambda: not any(os.path.exists(f"/proc/{pid}/ns/pid") for pid in running))


def test_the_cpuset_holds(backend):
    needs(backend, "cpuset")
    with Box(backend, {"cpu": {"cpus": "0"}}) as box:
        assert box.run("nproc") == (0, "1\n")
    with Box(backend, {"cpu": {"cpus": "0", "mems": "0"}}) as box:
        assert "Cpus_allowed_list:\t0\n" in box.run("cat", "/proc/self/status")[1]


def test_an_impossible_cpu_is_refused_with_the_possible_ones(backend):
    needs(backend, "cpuset")
    allowed = os.cpu_count() or 1
    with pytest.raises(KernelError) as caught, Box(backend, {"cpu": {"cpus": str(allowed + 7)}}):
        pass
    assert "this machine allows 0" in str(caught.value)


def test_the_cpu_quota_holds(backend):
    needs(backend, "cpu")
    with Box(backend, {"cpu": {"quota": 10000, "period": 100000}}) as box:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        box.run("timeout", "1", "sh", "-c", "while :; do :; done")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert used < 0.5, "a tenth of a CPU for one second, and what starting costs"


def test_shares_are_accepted_and_written(backend):
    needs(backend, "cpu")
    with Box(backend, {"cpu": {"shares": 512}}) as box:
        read = [groups.read(f"{path}/{file}") for _, path in box.records() for file in ("cpu.shares", "cpu.weight")]
        assert [value for value in read if value is not None] in (["512\n"], ["59\n"])


DENY_ALL = {"allow": False, "access": "rwm"}


def test_devices_are_denied_and_allowed(backend, tmp_path):
    rules = [
        DENY_ALL,
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "r"},
    ]
    with Box(backend, {"devices": rules}) as box:
        script = """
            for file in zero null random; do
                (: < /dev/$file) 2>/dev/null && echo $file read
                (: > /dev/$file) 2>/dev/null && echo $file written
            done
            mknod "$1/zero" c 1 5 2>/dev/null && echo zero made
            mknod "$1/null" c 1 3 2>/dev/null && echo null made
            mknod "$1/disk" b 1 5 2>/dev/null && echo disk made
            true
        """
        null = os.open("/dev/null", os.O_RDONLY)  # opened before, it stays open for those who got it
        os.close(null)
        status, output = box.run("sh", "-c", script.replace("2>/dev/null", "2>&-"), "sh", str(tmp_path))
        assert (status, output.split("\n")) == (0, ["zero read", "zero written", "random read", "zero made", ""])


def test_all_devices_again_after_a_rule_for_all(backend):
    with Box(backend, {"devices": [DENY_ALL, {"allow": True, "access": "rwm"}]}) as box:
        assert box.run("sh", "-c", ": < /dev/null && : > /dev/null") == (0, "")


def test_frozen_processes_stand_still_and_go_on(backend, tmp_path):
    ticks = tmp_path / "ticks"
    with Box(backend) as box:
        if not any(os.path.exists(p + f) for _, p in box.records() for f in ("/freezer.state", "/cgroup.freeze")):
            pytest.skip("no freezer")
        with box.start("sh", "-c", f"while :; do echo x >> {ticks}; sleep 0.02; done") as process:
            until(lambda: ticks.exists() and ticks.stat().st_size)
            backend.freeze(box.name)
            size = ticks.stat().st_size
            time.sleep(0.3)
            assert ticks.stat().st_size == size
            backend.thaw(box.name)
            until(lambda: ticks.stat().st_size > size)
            backend.freeze(box.name)
            box.remove()  # frozen as it is
            assert process.wait(timeout=20) == -9


def test_removing_kills_what_is_left_in_groups_below_too(backend):
    with Box(backend) as box, box.start("sleep", "60") as process:
        deep = [path + "/a/b" for _, path in box.records()]
        for path in deep:
            os.makedirs(path)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if os.path.exists(f"{path}/{file}") and not os.path.exists(path + "/cgroup.controllers"):
                    for group in (os.path.dirname(path), path):
                        groups.write(
                            f"{group}/{file}", (groups.read(os.path.dirname(group) + "/" + file) or "").strip()
                        )
            groups.write(path + "/cgroup.procs", str(process.pid))
        box.remove()
        assert process.wait(timeout=20) == -9
        assert not any(os.path.exists(path) for path in backend.groups(box.name))
        box.remove()  # a second time does no harm


def test_a_group_that_exists_is_no_new_group(backend):
    with Box(backend) as box:
        again = Box(backend, name=box.name)
        with pytest.raises(KernelError, match="File exists"):
            again.steps[[bool(step.record()) for step in again.steps].index(True)].apply(Slots())


def test_a_parent_is_shared_and_goes_with_the_last(facts):
    parent = f"tarbox-test-{secrets.token_hex(4)}/inner"
    backend = cgroups.pick(facts, parent)
    limits = {"pids": {"limit": 5}, "cpu": {"cpus": "0"}}
    first, second = Box(backend, limits), Box(backend, limits)
    with first, second:
        parents = [name for kind, name in first.records() if kind == "cgroup-parent"]
        assert parents
        assert all(os.path.isdir(path) for path in parents)
        first.remove()
        assert all(os.path.isdir(path) for path in parents), "the second is still in there"
        assert second.run("true")[0] == 0
    assert not any(os.path.exists(path) for path in parents)


def test_somebody_elses_parent_stays(facts):
    parent = f"tarbox-test-{secrets.token_hex(4)}"
    outer = [os.path.dirname(path) for path in cgroups.pick(facts, parent).groups("x")]
    for path in outer:
        os.mkdir(path)
    try:
        with Box(cgroups.pick(facts, parent)) as box:
            assert box.run("true")[0] == 0
        assert all(os.path.isdir(path) for path in outer)
    finally:
        for path in outer:
            os.rmdir(path)
