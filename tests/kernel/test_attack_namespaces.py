"""What is named as a namespace to be joined and is none: it is told so at once, and nothing is waited for or opened."""

from __future__ import annotations

import os
import socket
import time

import pytest


def refused(tarbox, *options):
    begun = time.monotonic()
    done = tarbox("run", *options, "host", "echo", "joined")
    assert time.monotonic() - begun < 30
    assert (done.returncode, done.stdout) == (125, ""), done
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("option", ["--pid", "--ipc", "--uts", "--cgroupns", "--net", "--time"])
def test_what_is_no_namespace_is_refused(tarbox, tmp_path, option):
    """A FIFO (which would wait for ever), a file, a directory, a socket, a device, a dangling link, another kind."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("net:[4026531833]")
    (tmp_path / "folder").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.close()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("fifo", "file", "folder", "socket"):
        assert f"{tmp_path / name} is no namespace" in refused(tarbox, option, f"ns:{tmp_path / name}")
    for path in ("/dev/null", "/dev/tty", "/proc/self/exe", "/proc/self/fd/0"):
        assert f"{path} is no namespace" in refused(tarbox, option, f"ns:{path}")
    for name in ("dangling", "circle", "nothing"):
        assert "there is no namespace at" in refused(tarbox, option, f"ns:{tmp_path / name}")
    other = "user" if option != "--userns" else "net"
    assert "is a user namespace" in refused(tarbox, option, f"ns:/proc/self/ns/{other}")


def test_a_link_to_a_namespace_is_one(tarbox, tmp_path):
    """The honest use: `ip netns` and others keep links and mounts."""
    (tmp_path / "link").symlink_to(f"/proc/{os.getpid()}/ns/uts")
    assert tarbox.output("run", "--uts", f"ns:{tmp_path / 'link'}", "host", "hostname").strip() == os.uname().nodename


def test_processes_and_descriptors_that_are_none(tarbox):
    assert "process 4194303 isn't there" in refused(tarbox, "--pid", "pid:4194303")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    pidfd = os.pidfd_open(child)
    os.set_inheritable(pidfd, True)
    try:
        assert f"process {child} has ended" in refused(tarbox, "--ipc", f"pid:{child}")
        done = tarbox("run", "--ipc", f"pidfd:{pidfd}", "host", "true", pass_fds=(pidfd,))
        assert (done.returncode, "ended" in done.stderr) == (125, True), done
        os.waitpid(child, 0)
        done = tarbox("run", "--ipc", f"pidfd:{pidfd}", "host", "true", pass_fds=(pidfd,))
        assert (done.returncode, f"the process of descriptor {pidfd} has ended" in done.stderr) == (125, True), done
    finally:
        os.close(pidfd)
    assert "descriptor 77 isn't open" in refused(tarbox, "--ipc", "pidfd:77")


def test_a_pid_namespace_above_is_no_way_out(tarbox, rootfs_busybox):
    """A PID namespace that isn't below this one can't be joined; from inside a container the host's isn't to be had."""
    script = "unshare --pid --fork --kill-child --mount-proc sh -c '"
    inner = " ".join(tarbox.command("run", "--pid", "pidfd:9", str(rootfs_busybox), "true"))
    import subprocess

    done = subprocess.run(
        ["sh", "-c", f"{script}{inner}' 9</proc/self/ns/pid"],
        env=tarbox.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tarbox.folder,
    )  # fmt: skip
    assert done.returncode == 125, done
    assert "only a PID namespace below this one can be joined" in done.stderr
