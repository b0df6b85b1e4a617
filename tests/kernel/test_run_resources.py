"""The rarer limits of `tarbox run`: felt from inside where that can be, else seen in the container's groups."""

from __future__ import annotations

import os
import re
import subprocess
import time

import pytest

import disks
import roots
from tarbox.kernel import cgroups
from tarbox.kernel.cgroups import groups

V1 = os.path.isdir("/sys/fs/cgroup/memory")
v1_only = pytest.mark.skipif(not V1, reason="it needs version 1's controllers")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def shown(tarbox, *words, image):
    """What the container's groups say: file name → text."""
    done = tarbox("run", "--rm", *words, image, "sh", "-c", "cd /sys/fs/cgroup; grep -r . . 2>/dev/null; exit 0")
    assert done.returncode == 0, done.stderr
    lines = (line.partition(":") for line in done.stdout.splitlines())
    return {path.rpartition("/")[2]: text for path, _, text in lines}, done.stderr


@v1_only
def test_options_go_into_the_files_of_version_1(tarbox, image):
    words = (
        "-m", "64m",
        "--memory-reservation", "32m", "--memory-swappiness", "7", "--oom-kill-disable", "--cpu-quota", "40000",
        "--cpu-period", "80000", "--cpu-rt-runtime", "1000", "--cpu-rt-period", "900000", "--cpuset-mems", "0",
        "--cgroup-conf", "cpu.cfs_burst_us=500", "--cgroup-conf", "pids.max=44", "--cgroup-conf", "cpu.weight=100",
    )  # fmt: skip
    said, errors = shown(tarbox, *words, image=image)
    expected = {
        "memory.soft_limit_in_bytes": str(32 << 20), "memory.swappiness": "7", "cpu.cfs_quota_us": "40000",
        "cpu.cfs_period_us": "80000", "cpu.rt_runtime_us": "1000", "cpu.rt_period_us": "900000", "cpuset.mems": "0",
        "cpu.cfs_burst_us": "500", "pids.max": "44", "cpu.shares": "1024",
    }  # fmt: skip
    assert {file: text for file, text in said.items() if file in expected} == expected
    assert errors == ""


@v1_only
def test_what_only_version_2_has_is_refused_by_name(tarbox, image):
    done = tarbox("run", "--memory-high", "32m", image, "true")
    assert done.returncode == 125
    assert "memory.high is a control of cgroup v2" in done.stderr
    assert "--memory-reservation" in done.stderr


def test_kernel_memory_is_taken_and_told(tarbox, image):
    done = tarbox("run", "-m", "64m", "--kernel-memory", "32m", image, "true")
    assert done.returncode == 0
    assert re.fullmatch(r"tarbox: linux\.resources\.memory\.kernel is ignored: .*\n", done.stderr)


def test_never_killing_without_a_limit_is_warned_of(tarbox, image):
    done = tarbox("run", "--oom-kill-disable", image, "true")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1


def test_a_disk_is_named_by_its_node(tarbox, image, tmp_path):
    with disks.below(tmp_path) as disk:
        if not os.path.exists(f"/dev/block/{disk.number}") and not os.path.exists("/dev/vda"):
            pytest.skip("no node for the disk below the temporary folder")
        rates = ("--device-read-bps", f"{disk.number}:1mb", "--device-write-iops", f"{disk.number}:50")
        said, _ = shown(tarbox, *rates, image=image)
        if V1:
            assert said["blkio.throttle.read_bps_device"] == f"{disk.number} {1 << 20}"
            assert said["blkio.throttle.write_iops_device"] == f"{disk.number} 50"
        else:
            assert said["io.max"] == f"{disk.number} rbps={1 << 20} wbps=max riops=max wiops=50"


@pytest.mark.long
def test_a_container_writes_no_faster_than_it_may(tarbox, image, tmp_path):
    with disks.below(tmp_path) as disk:
        if disk.file.is_block_device():
            pytest.skip("the disk below the temporary folder is none that a folder lies on")
        write = ("dd", "if=/dev/zero", "of=/there/written", "bs=64k", "count=48", "oflag=direct")
        words = ("--device-write-bps", f"{disk.number}:1mb", "-v", f"{tmp_path}:/there", "host")
        free = disks.seconds(lambda: tarbox.output("run", "--rm", "-v", f"{tmp_path}:/there", "host", *write))
        if free > 2:
            pytest.skip(f"the disk is busy: without a limit it took {free:.1f} s")
        assert disks.seconds(lambda: tarbox.output("run", "--rm", *words, *write)) >= 2.5


def test_a_parents_group_is_made_its_limits_count_and_it_goes(tarbox, image):
    path = f"tarbox-test-{os.getpid()}/inner"
    inside = tarbox.start(
        "run", "-i", "--rm", "--cgroup-parent", f"/{path}/", "--pids-limit", "9", image, "sh", "-c", "echo up; read x"
    )
    assert inside.stdout.readline() == b"up\n"
    top = "/sys/fs/cgroup/pids/" if V1 else "/sys/fs/cgroup/"
    (group,) = (entry.path for entry in os.scandir(top + path) if entry.is_dir())
    assert groups.read(group + "/pids.max") == "9\n"
    inside.communicate(b"\n", timeout=30)
    assert inside.returncode == 0
    assert not os.path.exists(top + path.partition("/")[0])


@pytest.mark.parametrize(
    "key", ["../pids.max=1", "pids/x.max=1", "cgroup.procs=1", "pids..max=1", "tasks=1", "pids.max"]
)
def test_a_hostile_control_is_refused(tarbox, image, key):
    done = tarbox("run", "--cgroup-conf", key, image, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("tarbox: --cgroup-conf: ")


@pytest.fixture
def net_cls(tmp_path):
    """Version 1's controller that marks packets, mounted for this test."""
    listed = groups.read("/proc/cgroups") or ""
    if not re.search(r"^net_cls\t.*\t1$", listed, re.MULTILINE):
        pytest.skip("this kernel has no net_cls")
    if "net_cls" in cgroups.detect().v1:
        pytest.skip("net_cls is mounted")
    place = tmp_path / "net_cls"
    place.mkdir()
    mount = ["mount", "-t", "cgroup", "-o", "net_cls", "net_cls", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"net_cls can't be mounted: {done.stderr}")
    yield place
    # A hierarchy outlives its mount while a removed group isn't quite gone; then a second mount's end takes it away.
    for attempt in range(10):
        if attempt:
            subprocess.run(mount, check=True)
        subprocess.run(["umount", str(place)], check=True)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            if ":net_cls:" not in (groups.read("/proc/self/cgroup") or ""):
                return
            time.sleep(0.02)
    pytest.fail("the machine keeps net_cls")


@v1_only
@pytest.mark.long
def test_packets_are_marked_where_the_controller_is_mounted(tarbox, image, net_cls):
    said, errors = shown(tarbox, "--net-class", "1:1", image=image)
    assert (said["net_cls.classid"], errors) == ("65537", "")
    assert not [path for path in net_cls.iterdir() if path.is_dir()]


def test_a_mark_that_cant_be_set_is_refused(tarbox, image):
    if "net_cls" in cgroups.detect().v1:
        pytest.skip("net_cls is mounted")
    done = tarbox("run", "--net-class", "1:1", image, "true")
    assert done.returncode == 125
    assert "packets can't be marked" in done.stderr
    assert "mount -t cgroup -o net_cls" in done.stderr or "nftables" in done.stderr


def test_the_oom_score_is_raised_and_lowering_it_at_least_told(tarbox, rootfs_busybox):
    """Seen from inside; here root may lack the right to lower it, and is told."""
    words = ("run", "--rm", "--oom-score-adj")
    image = (f"{rootfs_busybox}:O", "cat", "/proc/self/oom_score_adj")
    assert tarbox.output(*words, "700", *image) == "700\n"
    done = tarbox(*words, "-999", *image)
    told = "tarbox: the OOM score can't be lowered to -999 here, so it stays at "
    assert (done.returncode, done.stdout) == (0, "-999\n") or told in done.stderr
    mine = groups.read("/proc/self/oom_score_adj")
    assert tarbox.output("limit", "--oom-score-adj", "700", "cat", "/proc/self/oom_score_adj") == "700\n"
    assert groups.read("/proc/self/oom_score_adj") == mine
