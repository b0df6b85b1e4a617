"""What is named as a namespace to be joined and is none: it is told so at once, and nothing is waited for or opened."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import pytest

from kernel.attacks import tools
from looked import children

pytestmark = pytest.mark.unhurried


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
    inner = " ".join(tarbox.command("run", "--net", "none", "--pid", "pidfd:9", str(rootfs_busybox), "true"))
    import subprocess

    done = subprocess.run(
        ["sh", "-c", f"{script}{inner}' 9</proc/self/ns/pid"],
        env=tarbox.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tarbox.folder,
    )  # fmt: skip
    assert done.returncode == 125, done
    assert "only a PID namespace below this one can be joined" in done.stderr


JOINS = {
    "run": lambda pid, rootfs: ("run", "--rm", "--pid", f"pid:{pid}", rootfs, "busybox", "echo", "on"),
    "isolate": lambda pid, rootfs: (
        *("isolate", f"--pid=pid:{pid}", "--root", rootfs, "-m", "64m", "--caps", "CHOWN"),
        *("busybox", "echo", "on"),
    ),
}


@contextlib.contextmanager
def prying(tarbox, rootfs, *options):
    """A container that looks into every process it sees; yields its first process and what it has told at the end."""
    tools.probe(rootfs)
    words = ("run", "--rm", "--init", *options, rootfs, "probe", "pry", "120")
    racer, lines = tarbox.start(*words, text=True), []
    try:
        assert racer.stdout.readline() == "prying\n"
        yield children(racer.pid)[0], lines
    finally:
        racer.terminate()
        lines += racer.stdout.read().splitlines()
        racer.communicate()


@pytest.mark.parametrize("verb", JOINS)
def test_who_may_trace_is_joined_by_nobody_with_roots_rights(tarbox, rootfs_busybox, verb):
    """It would take over what is made there. In a user namespace of its own it couldn't, and may be joined."""
    with prying(tarbox, rootfs_busybox, "--cap-add", "SYS_PTRACE") as (pid, lines):
        for path in (f"pid:{pid}", f"ns:/proc/{pid}/ns/pid"):
            words = [str(word).replace(f"pid:{pid}", path) for word in JOINS[verb](pid, rootfs_busybox)]
            assert "has CAP_SYS_PTRACE, so it could take over" in tools.complained(tarbox(*words))
        assert tarbox(*JOINS[verb](pid, rootfs_busybox)[:-2], "sh", "-c", "echo no").stdout == ""
    seen = {line.split()[1] for line in lines if line.startswith("pid ")}
    assert len(seen) < 3, "nobody came"


@pytest.mark.parametrize("verb", JOINS)
@pytest.mark.parametrize("theirs", [(), ("--userns", "auto", "--cap-add", "SYS_PTRACE")], ids=["", "userns"])
def test_who_is_joined_gets_hold_of_nothing_of_the_hosts(tarbox, rootfs_busybox, verb, theirs):
    """It sees that somebody comes, and their container's own programs; no interpreter, no root and no descriptor."""
    with prying(tarbox, rootfs_busybox, "--security-opt", "seccomp=unconfined", *theirs) as (pid, lines):
        for _ in range(40):
            assert tarbox.output(*JOINS[verb](pid, rootfs_busybox)) == "on\n"
    assert len({line.split()[1] for line in lines if line.startswith("pid ")}) > 5, "it did look at those who came"
    for line in lines:
        assert not line.startswith(("foreign", "writable /memfd")), line
        assert "python" not in line
        assert ".so" not in line
    taken = {line.split(" ", 1)[1] for line in lines if line.startswith("taken ")}
    assert {name.partition(":")[0] for name in taken} <= {"/dev/null", "pipe", "socket"}, taken


def test_who_joins_may_trace(tarbox, rootfs_busybox):
    """The honest use: a container with a debugger looks at one that has none."""
    other = tarbox.start("run", "--rm", "-i", rootfs_busybox, "cat", text=True)
    try:
        other.stdin.write("on\n")
        other.stdin.flush()
        assert other.stdout.readline() == "on\n"
        (pid,) = children(other.pid)
        words = ("--cap-add", "SYS_PTRACE", "--pid", f"pid:{pid}", f"{rootfs_busybox}:O")
        told = tarbox.output("run", *words, "sh", "-c", "cat /proc/1/comm; readlink /proc/1/exe")
        assert told == "cat\n/bin/busybox\n"
    finally:
        other.communicate()
