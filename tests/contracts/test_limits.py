"""Limits are felt: each is measured where it bites, on every backend that this machine has."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import subprocess
import time

import pytest

import disks
from boxes import Box, needs, until
from tarbox.errors import KernelError, UnsupportedError
from tarbox.kernel import cgroups
from tarbox.kernel.cgroups import groups
from tarbox.kernel.cgroups.usage import Usage

pytestmark = pytest.mark.root

BUSY = ("sh", "-c", "while :; do :; done")


@pytest.fixture
def disk(tmp_path):
    with disks.below(tmp_path) as found:
        yield found


def cpu_seconds(pid):
    """The processor time of a process that has ended, which it is waited for."""
    used = os.wait4(pid, 0)[2]
    return used.ru_utime + used.ru_stime


def compete(*boxes, seconds=1.8):
    """One busy process in each box, all on one processor; the processor time that each got."""
    started = []
    processor = min(os.sched_getaffinity(0))
    try:
        for box in boxes:
            join = box.join
            started.append(
                subprocess.Popen(BUSY, preexec_fn=lambda join=join: (os.sched_setaffinity(0, {processor}), join()))
            )
        time.sleep(seconds)
    finally:
        for process in started:
            process.kill()
        used = [cpu_seconds(process.pid) for process in started]
        for process in started:
            process.returncode = -9
    return used


def test_processor_time_is_shared_by_weight(backend):
    needs(backend, "cpu")
    heavy, light = Box(backend, {"cpu": {"shares": 4096}}), Box(backend, {"cpu": {"shares": 512}})
    with heavy, light:
        much, little = compete(heavy, light)
    assert much > 2.5 * little, f"eight to one was asked for, and it was {much:.2f} s to {little:.2f} s"


def test_an_idle_group_gives_way(backend):
    needs(backend, "cpu")
    normal, idle = Box(backend, {"cpu": {"shares": 1024}}), Box(backend, {"cpu": {"idle": 1}})
    with normal, idle:
        assert idle.says("cpu.idle") == "1"
        much, little = compete(normal, idle)
    assert much > 5 * little, f"{much:.2f} s to {little:.2f} s"


def test_a_quota_of_a_longer_period_holds(backend):
    needs(backend, "cpu")
    with Box(backend, {"cpu": {"quota": 40000, "period": 200000, "burst": 1000}}) as box:
        assert box.says("cpu.cfs_burst_us", "cpu.max.burst") == "1000"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        box.run("timeout", "1.5", *BUSY)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert used < 0.65, "a fifth of a processor for a second and a half, and what starting costs"
        counted = Usage([path for _, path in box.records()])
        assert counted.cpus == 0.2
        assert counted.cpu_seconds is not None
        assert 0.1 < counted.cpu_seconds < used + 0.2


@pytest.mark.long
def test_writing_is_slowed_down_to_the_rate(backend, disk):
    needs(backend, "io" if "io" in getattr(backend, "controllers", ()) else "blkio")
    free = disks.seconds(lambda: subprocess.run(disk.write(48, "64k"), check=True, stderr=subprocess.DEVNULL))
    if free > 1.5:
        pytest.skip(f"the disk is busy: 3 MB took {free:.1f} s without a limit")
    with Box(backend, {"blockIO": {"throttleWriteBpsDevice": [{**disk.entry, "rate": 1 << 20}]}}) as box:
        taken = disks.seconds(lambda: box.run(*disk.write(48, "64k")))
    assert taken >= 2.5, f"3 MB at 1 MB a second took {taken:.1f} s"


@pytest.mark.long
def test_operations_on_a_disk_are_counted(backend, disk):
    needs(backend, "io" if "io" in getattr(backend, "controllers", ()) else "blkio")
    with Box(backend, {"blockIO": {"throttleWriteIOPSDevice": [{**disk.entry, "rate": 10}]}}) as box:
        taken = disks.seconds(lambda: box.run(*disk.write(35, "4k")))
    assert taken >= 2, f"35 writes at 10 a second took {taken:.1f} s"


@pytest.mark.long
def test_reading_is_slowed_down_as_well(backend, disk):
    needs(backend, "io" if "io" in getattr(backend, "controllers", ()) else "blkio")
    subprocess.run(disk.write(48, "64k"), check=True, stderr=subprocess.DEVNULL)
    read = ["dd", f"if={disk.file}", "of=/dev/null", "bs=64k", "count=48", "iflag=direct"]
    rates = {"throttleReadBpsDevice": [{**disk.entry, "rate": 1 << 20}]}
    with Box(backend, {"blockIO": rates | {"throttleReadIOPSDevice": [{**disk.entry, "rate": 10000}]}}) as box:
        taken = disks.seconds(lambda: box.run(*read))
    assert taken >= 2.5, f"3 MB at 1 MB a second took {taken:.1f} s"


def test_weights_for_disks_are_written_and_it_is_told_when_no_disk_looks_at_them(backend):
    needs(backend, "io" if "io" in getattr(backend, "controllers", ()) else "blkio")
    with Box(backend, {"blockIO": {"weight": 300}}) as box:
        assert box.says("blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight").split()[-1] in ("300", "2930")
        schedulers = [groups.read(f"/sys/block/{name}/queue/scheduler") or "" for name in os.listdir("/sys/block")]
        heeded = any("[bfq]" in line or "[cfq]" in line for line in schedulers)
        assert heeded or [line for line in box.slots.warnings if "bfq scheduler or io.cost" in line]


def test_a_disks_own_weight_is_refused_with_its_scheduler(backend, disk):
    needs(backend, "blkio")
    scheduler = groups.read(f"/sys/dev/block/{disk.number}/queue/scheduler") or "[none]"
    if "[bfq]" in scheduler:
        pytest.skip("this disk takes weights")
    with (
        pytest.raises(KernelError, match="its scheduler must be bfq, and is"),
        Box(backend, {"blockIO": {"weightDevice": [{**disk.entry, "weight": 300}]}}),
    ):
        pass


def test_a_process_over_its_limit_waits_when_none_may_be_killed(backend):
    needs(backend, "memory")
    resources = {"memory": {"limit": 20 << 20, "swap": 20 << 20, "disableOOMKiller": True}}
    if backend.warnings(resources):
        pytest.skip("version 2 can't do that, and says so")
    with Box(backend, resources) as box:
        path = box.path("memory.oom_control")
        with box.start("dd", "if=/dev/zero", "of=/dev/null", "bs=50M", "count=1") as process:
            until(lambda: groups.read_key(path + "/memory.oom_control", "under_oom") == 1)
            assert process.poll() is None
            assert backend.events(box.name).oom_kills == 0
            groups.write(path + "/memory.memsw.limit_in_bytes", str(200 << 20))
            groups.write(path + "/memory.limit_in_bytes", str(200 << 20))
            assert process.wait(timeout=20) == 0, "with more memory it goes on"


def test_soft_limits_and_swappiness_are_as_asked(backend):
    """What they do is seen only when the whole machine runs short."""
    needs(backend, "memory")
    resources = {"memory": {"limit": 64 << 20, "reservation": 32 << 20, "swappiness": 7}}
    with Box(backend, resources) as box:
        assert box.says("memory.low", "memory.soft_limit_in_bytes") == str(32 << 20)
        swappiness = [groups.read(path + "/memory.swappiness") for _, path in box.records()]
        assert [text for text in swappiness if text is not None] == ["7\n"] or backend.warnings(resources)


def test_real_time_needs_time_of_its_own(backend):
    """Where the kernel divides it: a group has none until it is given some."""
    needs(backend, "cpu")
    resources = {"cpu": {"realtimeRuntime": 20000, "realtimePeriod": 1000000}}
    if backend.warnings(resources):
        pytest.skip("version 2 can't do that, and says so")
    with Box(backend, {"cpu": {"shares": 1024}}) as none:
        none.path("cpu.rt_runtime_us")
        assert none.run("chrt", "-r", "1", "true")[0] != 0
    with Box(backend, resources) as some:
        assert some.run("chrt", "-r", "1", "echo", "real") == (0, "real\n")


def test_memory_nodes_hold(backend):
    needs(backend, "cpuset")
    with Box(backend, {"cpu": {"mems": "0"}}) as box:
        assert "Mems_allowed_list:\t0\n" in box.run("cat", "/proc/self/status")[1]
    with pytest.raises(KernelError, match="this machine allows 0"), Box(backend, {"cpu": {"mems": "63"}}):
        pass


def test_either_versions_names_are_taken(backend):
    needs(backend, "memory", "pids", "cpu")
    for names in (
        {"memory.max": "64M", "cpu.max": "50000 100000", "pids.max": "9", "cpu.weight": "100"},
        {"memory.limit_in_bytes": "64m", "cpu.cfs_quota_us": "50000", "pids.max": "9", "cpu.shares": "1024"},
    ):
        with Box(backend, {"unified": names}) as box:
            found = Usage([path for _, path in box.records()])
            assert (found.memory_limit, found.cpus, found.pids_limit) == (64 << 20, 0.5, 9)
            assert found.weight in (100, 1024)


def test_a_name_that_this_kernel_lacks_is_told(backend):
    needs(backend, "pids")
    with (
        pytest.raises(KernelError, match=r"pids\.tea, 1\): No such file .*this kernel has no pids\.tea"),
        Box(backend, {"unified": {"pids.tea": "1"}}),
    ):
        pass


def test_huge_pages_have_a_limit(backend):
    there = os.path.isdir("/sys/kernel/mm/hugepages/hugepages-2048kB")
    if not there or backend.warnings({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}):
        pytest.skip("no huge pages of 2 MB, or no controller for them")
    with Box(backend, {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}) as box:
        for file in (
            ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"),
            ("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max"),
        ):
            assert box.says(*file) == str(4 << 20)


def test_what_a_group_uses_is_told(backend):
    needs(backend, "memory", "pids")
    with Box(backend, {"memory": {"limit": 64 << 20}}) as box, box.start("sleep", "60") as process:
        paths = [path for _, path in box.records()]
        until(lambda: Usage(paths).processes)
        found = Usage(paths)
        assert found.processes == (process.pid,)
        assert found.memory_limit == 64 << 20
        assert found.memory is not None
        assert (found.pids, found.pids_limit, found.oom_kills) == (1, None, 0)
        os.kill(process.pid, signal.SIGKILL)
    gone = Usage(paths)
    assert (gone.processes, gone.memory, gone.cpus, gone.cpu_seconds) == ((), None, None, None)


def test_a_mark_on_packets_is_refused_where_there_is_no_controller_for_it(backend):
    if "net_cls" in getattr(backend, "mounts", ()):
        pytest.skip("this machine has net_cls")
    with pytest.raises(UnsupportedError, match="packets can't be marked"):
        Box(backend, {"network": {"classID": 1}})


def test_limits_of_a_parent_count_for_what_is_in_it(facts):
    parent = f"tarbox-test-{secrets.token_hex(4)}"
    backend = cgroups.pick(facts, parent)
    needs(backend, "pids")
    with Box(backend, {"pids": {"limit": 100}}) as box:
        path = os.path.dirname(box.path("pids.max"))
        assert path.endswith(parent)
        groups.write(path + "/pids.max", "6")
        status, output = box.run("sh", "-c", "for one in 1 2 3 4 5 6 7 8; do sleep 60 >/dev/null 2>&1 & done; echo all")
        assert status != 0
        assert "all" not in output
