"""Whose namespaces a container has: its own, the host's, or others' that it joins by path, process or descriptor."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from boxes import until
from inside import ask

KINDS = {"pid": "pid", "ipc": "ipc", "uts": "uts", "cgroupns": "cgroup", "net": "net"}
LINKS = (*KINDS.values(), "time")
SHOWN = f"for n in {' '.join(LINKS)}; do readlink /proc/self/ns/$n; done"


def own() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in LINKS}


def seen(tarbox, *arguments) -> dict[str, str]:
    """The namespaces of a container's program, by the kernel's names."""
    return dict(zip(LINKS, tarbox.output("run", *arguments, "sh", "-c", SHOWN).split(), strict=True))


@pytest.fixture
def other(tarbox, rootfs_busybox):
    """The first process of another container, which has a queue and a host name that can be told."""
    started = tarbox.start("run", "-i", "-h", "neighbour", f"{rootfs_busybox}:O", "sh", "-c", "echo on; read end")
    assert started.stdout.readline() == b"on\n"
    (first,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    yield int(first)
    started.communicate(b"\n", timeout=60)
    assert started.returncode == 0


@pytest.mark.parametrize("option", KINDS)
def test_private_and_host_are_meant_for_one_kind(tarbox, rootfs_busybox, option):
    """host is the caller's; private is a new one; the other kinds stay new ones."""
    kind, ours = KINDS[option], own()
    shared = seen(tarbox, f"--{option}", "host", f"{rootfs_busybox}:O")
    assert {name for name in LINKS if shared[name] == ours[name]} == {kind, "time"}
    new = seen(tarbox, f"--{option}", "private", f"{rootfs_busybox}:O")
    assert {name for name in LINKS if new[name] == ours[name]} == {"time"}


@pytest.mark.parametrize("option", KINDS)
def test_another_containers_is_joined_by_process_path_and_descriptor(tarbox, rootfs_busybox, other, option):
    kind = KINDS[option]
    theirs = {name: os.readlink(f"/proc/{other}/ns/{name}") for name in LINKS}
    pidfd = os.pidfd_open(other)
    file = os.open(f"/proc/{other}/ns/{kind}", os.O_RDONLY)
    try:
        for word in (f"pid:{other}", f"ns:/proc/{other}/ns/{kind}", f"pidfd:{pidfd}", f"pidfd:{file}"):
            arguments = ("run", f"--{option}", word, f"{rootfs_busybox}:O", "sh", "-c", SHOWN)
            inside = tarbox.output(*arguments, pass_fds=(pidfd, file))
            found = dict(zip(LINKS, inside.split(), strict=True))
            assert {name for name in LINKS if found[name] == theirs[name]} == {kind, "time"}, word
    finally:
        os.close(pidfd)
        os.close(file)


def test_all_of_another_container_at_once(tarbox, rootfs_busybox, other):
    """Its processes are seen and can be signalled, its host name is ours; the rest of a start works as without."""
    words = [word for option in KINDS for word in (f"--{option}", f"pid:{other}")]
    said = ask(
        tarbox, *words, "-u", "1000:1000", "--init", f"{rootfs_busybox}:O",
        name="hostname", first="cat /proc/1/cmdline | tr '\\0' ' '", user="id -u", number="echo $$",
        masked="stat -c %t:%T /proc/keys", variable="env | grep -c ^HOSTNAME=",
        descriptors="ls /proc/self/fd",
    )  # fmt: skip
    assert said["name"] == "neighbour"
    assert "read end" in said["first"]
    assert said["user"] == "1000"
    assert int(said["number"]) > 1
    assert said["masked"] == "1:3"
    assert said["variable"] == "0"
    assert said["descriptors"].split() == ["0", "1", "2", "3"]  # 3 is that of ls itself


def test_a_network_that_a_mount_keeps(tarbox, rootfs_busybox, tmp_path):
    """As `ip netns add` makes one. Its interfaces and settings are there, and stay as they are."""
    kept = tmp_path / "blue"
    kept.touch()
    subprocess.run(["unshare", f"--net={kept}", "ip", "address", "add", "10.99.88.77/32", "dev", "lo"], check=True)
    try:
        said = ask(
            tarbox, "--net", f"ns:{kept}", f"{rootfs_busybox}:O",
            addresses="cat /proc/net/fib_trie; ip address", sys="ls /sys/class/net",
        )  # fmt: skip
        assert "10.99.88.77" in said["addresses"]
        assert said["sys"].split() == ["lo"]
        inner = ["nsenter", f"--net={kept}", "ip", "link", "show", "lo"]
        flags = subprocess.run(inner, check=True, capture_output=True, text=True).stdout
        assert "UP" not in flags.partition(">")[0], "what is joined isn't changed"
        done = tarbox("run", "--net", f"ns:{kept}", "--sysctl", "net.ipv4.ip_forward=1", "host", "true")
        assert done.returncode == 125
        assert "--sysctl net.ipv4.ip_forward can't go with" in done.stderr
    finally:
        subprocess.run(["umount", kept], check=True)


def test_shared_memory_and_ipc(tarbox, rootfs_busybox):
    """--ipc host has the host's /dev/shm; none has no /dev/shm."""
    name = f"tarbox-test-{os.getpid()}"
    Path(f"/dev/shm/{name}").write_text("shared")
    try:
        said = ask(
            tarbox, "--ipc", "host", f"{rootfs_busybox}:O", read=f"cat /dev/shm/{name}", x="echo x >/dev/shm/new"
        )
        assert said["read"] == "shared"
        assert Path("/dev/shm/new").read_text() == "x\n"
    finally:
        for path in (f"/dev/shm/{name}", "/dev/shm/new"):
            Path(path).unlink(missing_ok=True)
    assert not tarbox("run", "--ipc", "shareable", f"{rootfs_busybox}:O", "test", "-d", "/dev/shm").returncode
    assert tarbox("run", "--ipc", "none", f"{rootfs_busybox}:O", "grep", "/dev/shm", "/proc/mounts").returncode == 1
    done = tarbox("run", "--ipc", "host", "--shm-size", "1m", f"{rootfs_busybox}:O", "true")
    assert (done.returncode, "--shm-size can't go with --ipc host" in done.stderr) == (125, True)


def test_the_hosts_name_is_seen_and_kept(tarbox, rootfs_busybox):
    said = ask(
        tarbox, "--uts", "host", f"{rootfs_busybox}:O",
        name="hostname; cat /etc/hostname; echo $HOSTNAME", change="hostname other",
    )  # fmt: skip
    assert set(said["name"].split()) == {os.uname().nodename}
    assert "ot permitted" in said["change"]
    for option in ("-h", "--domainname"):
        done = tarbox("run", "--uts", "host", option, "x", f"{rootfs_busybox}:O", "true")
        assert done.returncode == 125
        assert done.stderr.startswith(f"tarbox: {option} x can't go with --uts host")


def test_the_hosts_cgroups_show_where_it_is(tarbox, rootfs_busybox):
    said = ask(
        tarbox, "--cgroupns", "host", f"{rootfs_busybox}:O",
        place="cat /proc/self/cgroup", pids="cat /sys/fs/cgroup/pids/pids.current /sys/fs/cgroup/pids.current",
        write="mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x",
    )  # fmt: skip
    assert "/tarbox-" in said["place"]
    if os.path.exists("/sys/fs/cgroup/pids"):  # version 1: its own group, and not the host's
        assert 0 < int(said["pids"].split()[0]) < 10
    assert "Read-only" in said["write"]


def processes(word: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


LEAVE = "setsid sleep {0} & sleep {0} & (trap '' TERM HUP; sleep {0}) & "


def test_nothing_outlives_a_container_among_the_hosts_processes(tarbox, rootfs_busybox):
    """Whatever it started is gone with its first process, though that is process 1 of nothing; its code is kept."""
    mark = f"4711{os.getpid()}"
    script = LEAVE.format(mark) + "exit 7"
    done = tarbox("run", "--pid", "host", f"{rootfs_busybox}:O", "sh", "-c", script)
    assert done.returncode == 7, done.stderr
    assert not done.stderr
    until(lambda: not processes(mark))  # who takes the bridge away has the command line of its maker
    done = tarbox(
        "run", "--pid", "host", "--timeout", "1", f"{rootfs_busybox}:O", "sh", "-c", LEAVE.format(mark) + "wait"
    )
    assert done.returncode == 137
    until(lambda: not processes(mark))  # who takes the bridge away has the command line of its maker


@pytest.mark.parametrize("tty", [(), ("-t",)])
def test_nothing_outlives_a_command_that_was_killed(tarbox, rootfs_busybox, tty):
    """kill -9 of the command: the container is gone at once, and the next command finds nothing but empty groups."""
    mark = f"4712{os.getpid()}"
    script = LEAVE.format(mark) + "echo on; wait"
    started = tarbox.start("run", "--pid", "host", *tty, f"{rootfs_busybox}:O", "sh", "-c", script)
    assert started.stdout.readline().strip() == b"on"
    until(lambda: len(processes(mark)) >= 4)  # the shell's own command line has it, too
    started.kill()
    started.communicate()
    until(lambda: not processes(mark))
    until(lambda: not processes("tarbox-guard"))
    assert tarbox("run", f"{rootfs_busybox}:O", "true").stderr == ""


def test_a_bomb_of_forks_among_the_hosts_processes_ends(tarbox, rootfs_busybox):
    mark = f"4713{os.getpid()}"
    script = f"b() {{ sleep {mark} & b & b & }}; b; sleep 1; exit 0"
    done = tarbox("run", "--pid", "host", "--pids-limit", "60", f"{rootfs_busybox}:O", "sh", "-c", script)
    assert done.returncode in (0, 2)
    until(lambda: not processes(mark))


def uptime(text: str) -> float:
    return float(text.split()[0])


@pytest.mark.parametrize("init", [(), ("--init",)])
def test_the_machine_has_been_up_for_longer(tarbox, rootfs_busybox, init):
    """For the container's first process already; the wall clock and the host stay as they are."""
    said = ask(
        tarbox, *init, "--uptime-offset", "30d", f"{rootfs_busybox}:O",
        uptime="cat /proc/uptime", ours="readlink /proc/self/ns/time", first="readlink /proc/1/ns/time",
        clock="date +%s", offsets="cat /proc/self/timens_offsets",
    )  # fmt: skip
    now = uptime(Path("/proc/uptime").read_text())
    assert abs(uptime(said["uptime"]) - now - 30 * 86400) < 60
    assert said["ours"] == said["first"] != os.readlink("/proc/self/ns/time")
    assert abs(int(said["clock"]) - time.time()) < 60
    assert said["offsets"].split() == ["monotonic", "2592000", "0", "boottime", "2592000", "0"]


def test_clocks_go_back_and_one_by_one(tarbox, rootfs_busybox):
    """No further than the machine's own start; a time namespace without an offset; none unless it is asked for."""
    before = uptime(Path("/proc/uptime").read_text())
    said = ask(tarbox, "--uptime-offset", "-5s", f"{rootfs_busybox}:O", uptime="cat /proc/uptime")
    assert uptime(said["uptime"]) < before + 55
    said = ask(tarbox, "--uptime-offset", "boottime=1d", f"{rootfs_busybox}:O", offsets="cat /proc/self/timens_offsets")
    assert said["offsets"].split() == ["monotonic", "0", "0", "boottime", "86400", "0"]
    done = tarbox("run", "--uptime-offset", "-30000d", f"{rootfs_busybox}:O", "true")
    assert done.returncode == 125
    assert "before the machine's start" in done.stderr
    ours = os.readlink("/proc/self/ns/time")
    for words, same in (((), True), (("--time", "host"), True), (("--time", "private"), False)):
        found = tarbox.output("run", *words, f"{rootfs_busybox}:O", "readlink", "/proc/self/ns/time").strip()
        assert (found == ours) == same
    assert os.readlink("/proc/self/ns/time_for_children") == ours


def test_a_time_namespace_is_joined(tarbox, rootfs_busybox):
    options = ("run", "-i", "--uptime-offset", "10d", f"{rootfs_busybox}:O", "sh", "-c", "echo on; read end")
    started = tarbox.start(*options)
    assert started.stdout.readline() == b"on\n"
    (first,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    said = ask(tarbox, "--time", f"pid:{first}", f"{rootfs_busybox}:O", uptime="cat /proc/uptime")
    started.communicate(b"\n", timeout=60)
    assert uptime(said["uptime"]) > 10 * 86400


def test_a_plain_user_has_the_hosts(plain_tarbox, plain_folder):
    """What the user's own namespaces can't show is the host's, mounted; joining is root's."""
    import roots

    image = roots.busybox(plain_folder / "image")
    subprocess.run(["chown", "-R", f"{plain_tarbox.user}:{plain_tarbox.user}", image], check=True)
    ours = own()
    shared = seen(plain_tarbox, "--ipc", "host", "--uts", "host", "--cgroupns", "host", "--net", "host", f"{image}:O")
    assert {name for name in LINKS if shared[name] == ours[name]} == {*LINKS} - {"pid"}
    said = ask(plain_tarbox, "--uptime-offset", "30d", f"{image}:O", uptime="cat /proc/uptime")
    assert uptime(said["uptime"]) > 30 * 86400
    done = plain_tarbox("run", "--net", f"pid:{os.getpid()}", f"{image}:O", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("tarbox: --network: a plain user can't join a namespace")
    done = plain_tarbox("run", "--pid", "host", f"{image}:O", "true")
    if done.returncode:  # without a control group of the user's nothing would end all of it
        assert "only a control group ends all of a container" in done.stderr
