"""From chroot to a container, one namespace at a time: each stop of the walk by hand and by tarbox's way to the same.

    chroot . bash                                      tarbox run ./example bash
    unshare -fp --mount-proc bash                      tarbox isolate --pid -- bash
    unshare -fpmnu --mount-proc bash                   tarbox isolate --pid --mount --uts --net -- bash
    cgcreate, cgset, cgexec … unshare … chroot         tarbox run -h kevin -m 100000000 --cpu-shares 512 ./example bash

What was changed of the original: README.md here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import boxes
import testhost
from seeds import seen

WAIT = "echo __over; read line; "


@pytest.fixture
def example(tmp_path):
    """The folder of the walk: bash, ls and what they are linked with, copied from this machine."""
    top = tmp_path / "example"
    for name in ("bash", "ls", "cat", "mkdir", "mount", "hostname", "readlink", "sleep"):
        program = shutil.which(name)
        libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], capture_output=True, text=True).stdout)
        for file in (program, *libraries):
            copy = top / ("bin/" + name if file == program else file.lstrip("/"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(file), copy)
    (top / "proc").mkdir()
    return top


@contextlib.contextmanager
def stop(command, folder, env=None):
    """Run up to the point where the text looks from outside; gives the process and what was said before and after."""
    environment = dict(env or os.environ, PATH="/bin:/usr/bin:/sbin:/usr/sbin")
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    said = {"before": "", "after": ""}
    try:
        for line in process.stdout:
            if line == "__over\n":
                break
            said["before"] += line
        yield seen.deepest(process.pid), said
    finally:
        said["after"], errors = process.communicate("\n", timeout=60)
    assert (process.returncode, errors) == (0, ""), errors


def ways(tarbox, by_hand, by_tarbox):
    """The two commands with their environments; by_tarbox may be None, while there is no such verb."""
    yield by_hand, dict(os.environ)
    if by_tarbox is not None:
        yield tarbox.command(*by_tarbox), tarbox.environment()


def isolated(tarbox, *kinds_and_command):
    kinds = [word for word in kinds_and_command if word.startswith("--")]
    start = seen.isolate(tarbox, *(kind[2:] for kind in kinds))
    return [*start, *kinds_and_command[len(kinds) :]] if start else None


def test_another_root(tarbox, example):
    """What the host puts into the folder is there inside; the process is one of the host's."""
    script = f"pwd; ls; {WAIT} ls; exit 0"
    run = ("run", "--rm", "-i", example, "bash", "-c", script)
    for command, env in ways(tarbox, ["chroot", str(example), "/bin/bash", "-c", script], run):
        with stop(command, example, env) as (pid, said):
            where, *names = said["before"].split()
            assert where == "/"
            assert {"bin", "proc"} <= set(names)
            assert b"bash" in Path(f"/proc/{pid}/cmdline").read_bytes()
            (example / "hi").touch()
        assert "hi" in said["after"].split()
        (example / "hi").unlink()


def test_processes_of_ones_own(tarbox, example):
    """Number 1 inside, another number outside; number 1's end ends all."""
    script = f"echo $$; cd /proc; echo [0-9]*; readlink self/ns/pid; {WAIT} sleep 1000 & exit 0"
    kinds = ("--pid", "--mount")
    for command, env in ways(
        tarbox,
        ["unshare", "--pid", "--fork", "--mount-proc", str(example / "bin/bash"), "-c", script],
        isolated(tarbox, *kinds, "bash", "-c", script),
    ):
        with stop(command, example, env) as (pid, said):
            me, processes, namespace = said["before"].splitlines()
            assert (me, processes) == ("1", "1")
            assert namespace == os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
            assert seen.of(pid)["NSpid"].split()[-1] == "1"
            assert pid != 1
    # A container of tarbox's: the same, and with files of its own.
    with stop(tarbox.command("run", "--rm", "-i", example, "bash", "-c", script), example, tarbox.environment()) as (
        pid,
        said,
    ):
        assert said["before"].splitlines()[:2] == ["1", "1"]
        assert seen.of(pid)["NSpid"].split()[-1] == "1"


def test_a_secret_folder(tarbox, example):
    """What is mounted inside isn't seen by the host, nor the host's file below it inside."""
    script = f"mkdir -p secret; mount -n -t tmpfs tmpfs ./secret; echo >secret/hi; {WAIT} ls secret"
    for command, env in ways(
        tarbox,
        ["unshare", "-fp", "--mount", "--mount-proc", str(example / "bin/bash"), "-c", script],
        isolated(tarbox, "--pid", "--mount", "bash", "-c", script),
    ):
        with stop(command, example, env):
            assert os.listdir(example / "secret") == []
            (example / "secret/hello").touch()
            assert os.listdir(example / "secret") == ["hello"]
        (example / "secret/hello").unlink()
    script = f"echo >/secret/hi; {WAIT} ls /secret"
    command = tarbox.command("run", "--rm", "-i", "--tmpfs", "/secret", example, "bash", "-c", script)
    with stop(command, example, tarbox.environment()) as (_, said):
        assert os.listdir(example / "secret") == []
        (example / "secret/hello").touch()
    assert said["after"].split() == ["hi"]


def test_a_name_of_ones_own(tarbox, example):
    """kevin inside, and the machine's name outside."""
    before = os.uname().nodename
    script = f"hostname kevin; hostname; {WAIT}"
    for command, env in ways(
        tarbox,
        ["unshare", "-fpm", "--uts", "--mount-proc", str(example / "bin/bash"), "-c", script],
        isolated(tarbox, "--pid", "--mount", "--uts", "bash", "-c", script),
    ):
        with stop(command, example, env) as (_, said):
            assert said["before"] == "kevin\n"
            assert os.uname().nodename == before
    assert tarbox.output("run", "--rm", "-h", "kevin", example, "hostname") == "kevin\n"


def test_a_network_of_ones_own(tarbox, example):
    """Loopback and nothing else: down after `unshare`, up in a container of tarbox's."""
    script = "ip -o link; exit 0"
    hand = subprocess.check_output(["unshare", "-fpmu", "--net", "--mount-proc", "bash", "-c", script], text=True)
    ours = tarbox.output("run", "--rm", "--net", "none", "host", "bash", "-c", script)
    for told in (hand, ours):
        assert [line.split(": ")[1] for line in told.splitlines()] == ["lo"]
    assert "<LOOPBACK>" in hand
    assert "<LOOPBACK,UP,LOWER_UP>" in ours
    if start := seen.isolate(tarbox, "pid", "mount", "uts", "net"):
        alone = tarbox.output(*start, "bash", "-c", script)
        assert [line.split(": ")[1] for line in alone.splitlines()] == ["lo"]


def test_a_pair_of_interfaces(tarbox, example):
    """One end inside, one outside: both sides answer. It needs no ping program: a connection is refused, not lost."""
    outside = "ip link set veth_container netns {pid}; ip addr add 10.0.0.1/24 dev veth_host; ip link set veth_host up"
    subprocess.run("ip link add veth_host type veth peer name veth_container", shell=True, check=True)
    try:
        command = ["unshare", "-fpmu", "--net", "--mount-proc", "bash", "-c", WAIT]
        with stop(command, example) as (pid, _):
            subprocess.run(outside.format(pid=pid), shell=True, check=True)
            assert "veth_container" not in testhost.interfaces(), "it is gone from the host"
            inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
            set_up = "ip addr add 10.0.0.2/24 dev veth_container; ip link set veth_container up; ip -o link"
            links = subprocess.check_output([*inside, "sh", "-c", set_up], text=True)
            assert "veth_container@" in links
            for start, address in ((["env"], "10.0.0.2"), (inside, "10.0.0.1")):
                done = subprocess.run([*start, "python3", "-c", REACH, address])
                assert done.returncode == 111, "ECONNREFUSED: it was reached, and nobody listens"
    finally:
        subprocess.run(["ip", "link", "del", "veth_host"], check=False, stderr=subprocess.DEVNULL)


def test_a_pair_of_interfaces_and_a_bridge(tarbox, example):
    """The same two connections with a container of tarbox's, which needs no other command.

    The text ends here, and tells of a bridge and the way to others without commands: those two are here as well.
    """
    command = tarbox.command("run", "-i", "--rm", "./example", "bash", "-c", WAIT)
    with stop(command, example.parent, tarbox.environment()) as (pid, _):
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        links = subprocess.check_output([*inside, "ip", "-o", "address", "show", "eth0"], text=True)
        address = re.search(r"inet ([0-9.]+)/16", links)[1]
        (bridge,) = (name for name in testhost.interfaces() if name.startswith("tb-"))
        ports = subprocess.check_output(["ip", "-o", "link", "show", "master", bridge], text=True)
        assert len(ports.splitlines()) == 1
        for start, to in ((["env"], address), (inside, "10.211.0.1")):
            done = subprocess.run([*start, "python3", "-c", REACH, to])
            assert done.returncode == 111, "ECONNREFUSED: it was reached, and nobody listens"
        # A machine beyond the host, of which the host is the router: it sees the host's address.
        with beyond() as (listening, to):
            assert listening.readline() == "listening\n"
            assert subprocess.run([*inside, "python3", "-c", REACH.replace("9)", "99)"), to]).returncode == 0
            assert listening.readline() == "10.77.0.1\n"


REACH = "import socket, sys; s = socket.socket(); s.settimeout(10); sys.exit(s.connect_ex((sys.argv[1], 9)))"
TELL = (
    "import socket; s = socket.create_server(('', 99)); print('listening', flush=True); "
    "print(s.accept()[1][0], flush=True)"
)


@contextlib.contextmanager
def beyond():
    """A machine behind another interface of the host's, which tells of who connects to it; its address."""
    process = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE)
    there = ["nsenter", f"--net=/proc/{process.pid}/ns/net"]
    try:
        own = os.readlink("/proc/self/ns/net")
        boxes.until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own)
        for words in (
            ["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", str(process.pid)],
            ["ip", "address", "add", "10.77.0.1/24", "dev", "uplink"],
            ["ip", "link", "set", "uplink", "up"],
            [*there, "ip", "address", "add", "10.77.0.2/24", "dev", "eth0"],
            [*there, "ip", "link", "set", "eth0", "up"],
        ):
            subprocess.run(words, check=True)
        with subprocess.Popen([*there, "python3", "-c", TELL], stdout=subprocess.PIPE, text=True) as telling:
            yield telling.stdout, "10.77.0.2"
    finally:
        process.communicate()


@pytest.mark.skipif(not seen.version_1(), reason="the text's control groups are version 1's")
def test_all_of_it_in_one_line(tarbox, example):
    """Every namespace, another root, a name and a control group with two limits."""
    group = f"walk-{os.getpid()}"
    folders = [f"/sys/fs/cgroup/{name}/{group}" for name in ("cpu", "cpuacct", "memory")]
    script = f"hostname; cd /; echo *; cat /proc/1/comm; {WAIT}"
    hand = [
        "cgexec", "-g", f"cpu,cpuacct,memory:{group}",
        "unshare", "-fpnumi", "--mount-proc", "chroot", str(example), "/bin/bash", "-c",
        f"mount -t proc proc /proc; hostname kevin && export PS1='\\h: ' && bash -c '{script}'",
    ]  # fmt: skip
    limits = ("-h", "kevin", "-m", "100000000", "--cpu-shares", "512")
    ours = ("run", "--rm", "-i", *limits, example, "bash", "-c", script)
    subprocess.run(["cgcreate", "-g", f"cpu,cpuacct,memory:{group}"], check=True)
    found = []
    try:
        subprocess.run(["cgset", "-r", "cpu.shares=512", group], check=True)
        subprocess.run(["cgset", "-r", "memory.limit_in_bytes=100000000", group], check=True)
        for command, env in ways(tarbox, hand, ours):
            with stop(command, example, env) as (pid, said):
                limit = seen.control(pid, "memory", "memory.limit_in_bytes")
                shares = seen.control(pid, "cpu", "cpu.shares")
                name, files, first = said["before"].splitlines()
                kinds = {kind for kind in seen.KINDS
                         if os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")}  # fmt: skip
                found.append((name, limit, shares, first))
                assert {"bin", "proc"} <= set(files.split())
                assert kinds >= {"ipc", "mnt", "net", "pid", "uts"}
    finally:
        for folder in folders:
            os.rmdir(folder)
    assert found == [("kevin", "99999744", "512", "bash")] * 2


@pytest.mark.skipif(not seen.version_1(), reason="a file named tasks is version 1's")
def test_a_process_is_moved(tarbox):
    """`echo $PID > …/tasks` and `tarbox limit add`: the process itself notices nothing."""
    group = f"walk-{os.getpid()}"
    by_hand = Path(f"/sys/fs/cgroup/pids/{group}")
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        by_hand.mkdir()
        (by_hand / "tasks").write_text(str(sleeper.pid))
        assert f":pids:/{group}" in Path(f"/proc/{sleeper.pid}/cgroup").read_text()
        tarbox.output("limit", "create", group, "--pids-limit", "7")
        tarbox.output("limit", "add", group, str(sleeper.pid))
        assert f":pids:/{group}" not in Path(f"/proc/{sleeper.pid}/cgroup").read_text()
        assert seen.control(sleeper.pid, "pids", "pids.max") == "7"
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
        tarbox("limit", "rm", "--force", group)
        by_hand.rmdir()
