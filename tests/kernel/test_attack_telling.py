"""Files that tell of the host: what is hidden of /proc and /sys, read from inside in every way there is to it."""

from __future__ import annotations

import glob
import os

import pytest

from inside import ask
from tarbox.engine import defaults

# What Docker hides in this year, thermal counters aside: those depend on the processors.
HIDDEN = {
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
}  # fmt: skip
WAYS = ("", "/proc/self/root", "/proc/1/root", "/proc/self/cwd/..")
OPTIONS = {
    "plain": (),
    "user": ("-u", "guest"),
    "init": ("--init",),
    "read only": ("--read-only",),
    "tracing": ("--cap-add", "SYS_PTRACE"),
    "network": ("--net", "host"),
    "unfiltered": ("--security-opt", "seccomp=unconfined"),
}


def test_the_list_is_no_shorter_than_dockers():
    assert set(defaults.MASKED_PATHS) >= HIDDEN


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_is_read_of_what_is_hidden(tarbox, rootfs_busybox, name):
    """A file is empty, a folder has nothing in it, whichever way it's reached."""
    paths = " ".join(f"{way}{path}" for path in sorted(HIDDEN) for way in WAYS)
    script = (
        f"for p in {paths}; do [ ! -d $p ] || find $p ! -path $p; [ ! -f $p ] && [ ! -c $p ] || head -c 100 $p; done"
    )
    said = ask(
        tarbox, *OPTIONS[name], rootfs_busybox,
        read=script,
        files="for f in interrupts keys timer_list; do stat -c %t:%T /proc/$f; done",
        power="find /sys /proc -name 'energy_uj' 2>/dev/null",
        throttle="cat /sys/devices/system/cpu/cpu*/thermal_throttle/* 2>/dev/null",
    )  # fmt: skip
    assert said["read"].replace("Permission denied", "") == "" or "can't open" in said["read"], said["read"]
    assert "CPU0" not in said["read"]
    assert set(said["files"].split()) == {"1:3"}
    assert (said["power"], said["throttle"]) == ("", "")


def test_a_cover_is_not_taken_away(tarbox, rootfs_busybox):
    """Neither by unmounting it, nor by a second /proc, nor by moving it."""
    said = ask(
        tarbox, rootfs_busybox,
        umount="umount /proc/interrupts || umount -l /proc/interrupts",
        again="mkdir -p /mnt; mount -t proc proc /mnt; cat /mnt/interrupts",
        bind="mount --bind /proc /mnt; cat /mnt/interrupts",
        move="mount --move /proc/interrupts /mnt",
        remount="mount -o remount,rw /proc/sys",
        after="cat /proc/interrupts",
    )  # fmt: skip
    assert "CPU0" not in "".join(said.values())
    assert said["after"] == ""


def test_what_programs_need_is_there(tarbox, rootfs_busybox):
    """The honest use of /proc and /sys: processors, memory, load, one's own processes, the devices of block."""
    said = ask(
        tarbox, rootfs_busybox,
        processors="grep -c ^processor /proc/cpuinfo", memory="grep MemTotal /proc/meminfo", load="cat /proc/loadavg",
        version="cat /proc/version", own="cat /proc/self/comm", stat="head -1 /proc/stat",
        online="cat /sys/devices/system/cpu/online",
    )  # fmt: skip
    assert int(said["processors"]) == os.cpu_count()
    assert all(said.values())
    assert said["stat"].startswith("cpu ")


def test_the_host_has_something_to_hide():
    """Else the tests above would say nothing."""
    with open("/proc/interrupts") as file:
        assert "CPU0" in file.read(200)
    assert glob.glob("/proc/keys")
