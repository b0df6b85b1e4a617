"""The plain ways out of a container, and what of the host shows inside."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from kernel.attacks import tools

pytestmark = pytest.mark.unhurried

SPECIAL = {"clone3": "ENOSYS"}  # so that the C library falls back to clone


@pytest.fixture
def rootfs(rootfs_busybox):
    tools.probe(rootfs_busybox)
    (rootfs_busybox / "mnt").mkdir()
    return rootfs_busybox


def test_calls_that_lead_out_are_denied(tarbox, rootfs):
    """Mounts, namespaces, handles, modules, keys, clocks …: each by its own error."""
    for options in ((), ("-u", "guest"), ("--init",), ("--security-opt", "no-new-privileges")):
        lines = tarbox.output("run", "--rm", *options, rootfs, "probe", "reach").splitlines()
        assert len(lines) >= 28
        for name, result in map(str.split, lines):
            assert result == SPECIAL.get(name, "EPERM"), (options, name)


def test_without_the_filter_the_capabilities_still_deny(tarbox, rootfs):
    told = tarbox.output("run", "--rm", "--security-opt", "seccomp=unconfined", rootfs, "probe", "reach")
    results = dict(map(str.split, told.splitlines()))
    for name in ("mount", "bind", "remount", "umount", "fsopen", "pivot_root", "cgroup", "unshare", "handle", "module",
                 "kexec", "reboot", "swapon", "iopl"):  # fmt: skip
        assert results[name] in ("EPERM", "ENOSYS"), name  # some kernels have no modules, or no kexec


def test_honest_calls_work(tarbox, rootfs):
    """What the filter must let through for ordinary programs: processes, threads, pipes, chroot, sockets."""
    script = "chroot / true && mkfifo /tmp/f && (echo x > /tmp/f &) && cat /tmp/f && ping -c1 -w2 localhost"
    assert tarbox.output("run", "--rm", rootfs, "sh", "-c", script).startswith("x\n")


def test_a_chroot_leads_nowhere(tarbox, rootfs, tmp_path):
    """Root inside may chroot; climbing back leads to the container's root, as the host's isn't there any more."""
    (rootfs / "marker").touch()
    lines = tarbox.output("run", "--rm", rootfs, "probe", "climb").splitlines()
    assert lines[:2] == ["chroot done", "chroot-up done"]
    assert "marker" in lines
    assert "lost+found" not in lines


def test_no_mount_of_the_host_is_in_the_containers_list(tarbox, rootfs):
    """Its root, the kernel's own file systems, and three files of its own; nothing else is mounted."""
    lines = tarbox.output("run", "--rm", rootfs, "cat", "/proc/self/mountinfo").splitlines()
    for line in lines:
        before, _, after = line.partition(" - ")
        root, place = before.split()[3:5]
        kind = after.split()[0]
        if place == "/":
            assert root.endswith(str(rootfs).rpartition("/")[2])
        elif place.startswith("/etc/"):
            assert place in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
        else:
            assert kind in ("proc", "tmpfs", "devpts", "sysfs", "mqueue", "cgroup", "cgroup2", "devtmpfs"), line
            assert root == "/null" or kind != "devtmpfs"
        assert "shared:" not in before
        assert "master:" not in before


def test_files_that_tell_of_the_host_are_hidden(tarbox, rootfs):
    script = (
        "for f in kcore keys interrupts timer_list sched_debug latency_stats; do"
        " test -e /proc/$f && head -c 100 /proc/$f; done;"
        "for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap;"
        " do ls -A $d 2>/dev/null; done"
    )
    assert tarbox("run", "--rm", rootfs, "sh", "-c", script).stdout == ""


def test_settings_of_the_host_cannot_be_written(tarbox, rootfs):
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/irq/x",
                 "/sys/kernel/mm/ksm/run", "/sys/fs/cgroup/x", "/proc/fs/x", "/proc/bus/x"):  # fmt: skip
        done = tarbox("run", "--rm", rootfs, "sh", "-c", f"echo '|/bin/busybox' > {path}")
        assert done.returncode != 0, path
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_no_release_agent_is_in_reach(tarbox, rootfs):
    """Neither in what is mounted, nor by mounting it once more."""
    script = (
        "find /sys/fs/cgroup -name release_agent; for t in cpu pids devices; do mount -t cgroup -o $t x /mnt; done 2>&1"
    )
    told = tarbox("run", "--rm", rootfs, "sh", "-c", script).stdout
    assert "release_agent" not in told
    assert told.count("mount") >= 3


def test_a_disk_can_be_named_and_not_read(tarbox, rootfs):
    """Nodes may be made, as in Docker; opening those of hardware is denied, whatever the node's mode."""
    number = os.stat("/").st_dev
    script = (
        f"mknod /disk b {os.major(number)} {os.minor(number)}; mknod /mem c 1 1; mknod /kmsg c 1 11; chmod 666 /disk;"
        "for f in disk mem kmsg; do head -c 1 /$f; done; (echo x > /disk) 2>&1"
    )
    for options in ((), ("--init",), ("-m", "64m")):
        done = tarbox("run", "--rm", *options, rootfs, "sh", "-c", script)
        assert done.stderr.count("Operation not permitted") == 3, done.stderr
        assert "Operation not permitted" in done.stdout or "can't create" in done.stdout
        for name in ("disk", "mem", "kmsg"):
            (rootfs / name).unlink()


def test_honest_devices_work(tarbox, rootfs):
    script = (
        "head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; (echo x > /dev/full) 2>&1"
    )
    told = tarbox("run", "--rm", rootfs, "sh", "-c", script).stdout.split()
    assert told[:2] == ["4", "4"]
    assert "space" in told


def test_keys_are_not_shared(tarbox, rootfs):
    """The filter denies the calls; without it the session's keyring is a new one, without the caller's keys."""
    host = tools.install(tarbox.folder / "probe", tools.compiled(tools.Path("probe.c")))
    told = tarbox.output("run", "--rm", rootfs, "probe", "session", "x").split()
    assert told == ["keyring", "-1", "key", "EPERM"]
    ours = subprocess.run([host, "session", "x"], capture_output=True, text=True, check=True).stdout.split()
    assert int(ours[1]) > 0
    inside = tarbox.output(
        "run", "--rm", "--security-opt", "seccomp=unconfined", rootfs, "probe", "session", "x"
    ).split()
    assert int(inside[1]) > 0
    assert inside[1] != ours[1]
    assert inside[3] == "ENOKEY"


def test_abstract_sockets_of_the_host_are_out_of_reach(tarbox, rootfs):
    """Those belong to the network namespace: out of reach without the host's network, in reach with it."""
    name = f"tarbox-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        assert tarbox.output("run", "--rm", rootfs, "probe", "call", name) == "connect ECONNREFUSED\n"
        answer = threading.Thread(target=lambda: server.accept()[0].close())
        answer.start()
        assert tarbox.output("run", "--rm", "--net", "host", rootfs, "probe", "call", name) == "connect done\n"
        answer.join()


def test_the_callers_environment_stays_outside(tarbox, rootfs):
    """The program gets Docker's four variables and what was asked for; process 1 of an init has no more."""
    secrets = {"SECRET_TOKEN": "hush", "LD_LIBRARY_PATH": "/tmp", "PYTHONPATH": "/tmp", "TARBOX_ROOT": str(tarbox.root)}
    secrets["GIVEN"] = "by-name"
    for options in ((), ("--init",)):
        command = (
            "run",
            "--rm",
            *options,
            "-h",
            "box",
            "-e",
            "GIVEN",
            "-e",
            "MINE=1",
            rootfs,
            "cat",
            "/proc/1/environ",
        )
        told = tarbox.output(*command, env=secrets)
        assert sorted(filter(None, told.split("\0"))) == [
            "GIVEN=by-name", "HOME=/root", "HOSTNAME=box", "MINE=1",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]  # fmt: skip


def test_a_plain_users_container_reaches_no_further(plain_tarbox, plain_folder):
    """Root inside is the user outside: the same calls are denied, and the host's devices aren't his to change."""
    import roots

    rootfs = roots.busybox(plain_folder / "rootfs")
    tools.probe(rootfs)
    subprocess.run(["chown", "-Rh", f"{plain_tarbox.user}:{plain_tarbox.user}", rootfs], check=True)
    lines = plain_tarbox.output("run", "--rm", rootfs, "probe", "reach").splitlines()
    for name, result in map(str.split, lines):
        assert result == SPECIAL.get(name, "EPERM"), name
    assert plain_tarbox.output("run", "--rm", rootfs, "id", "-u") == "0\n"
    done = plain_tarbox(
        "run", "--rm", rootfs, "sh", "-c", "chmod 600 /dev/null; chown 5 /proc/keys; mknod /disk b 254 0"
    )
    assert done.returncode != 0
    assert os.stat("/dev/null").st_mode & 0o777 == 0o666
