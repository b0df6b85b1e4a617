"""`tarbox isolate`: single parts of a container for a plain command, and nothing else of it changed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import roots
from kernel.attacks import tools
from kernel.test_session_terminal import Terminal
from looked import children

KINDS = {
    "mount": "mnt", "uts": "uts", "ipc": "ipc", "net": "net", "pid": "pid", "cgroup": "cgroup", "user": "user",
    "time": "time",
}  # fmt: skip
LOOK = """
import json, os, sys
facts = {"ns": {name: os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))}}
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
for name in ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
             "SigBlk", "SigIgn", "SigCgt", "Umask"):
    facts[name] = status[name].split()
facts["cwd"], facts["pid"], facts["env"] = os.getcwd(), os.getpid(), dict(os.environ)
facts["fds"] = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
facts["root"] = os.stat("/").st_dev, os.stat("/").st_ino
facts["limits"] = open("/proc/self/limits").read()
facts["cgroup"] = open("/proc/self/cgroup").read()
facts["pgid"] = os.getpgid(0), os.getsid(0)
json.dump(facts, sys.stdout)
"""


def look(command, **options):
    """What a program sees of itself when it is started so."""
    return json.loads(subprocess.check_output([*command, "python3", "-I", "-c", LOOK], text=True, **options))


@pytest.fixture
def base(tmp_path):
    """A busybox to be the new root, with the program that climbs out of a chroot; and a file that lies outside."""
    folder = roots.busybox(tmp_path / "base")
    tools.install(folder / "bin/climb", tools.compiled(Path("climb.c")))
    (tmp_path / "outside").write_text("the host's own\n")
    return folder


def changed(before, after):
    """The names of the namespaces that aren't the same; what is for children only isn't counted."""
    kinds = before["ns"].keys() - {"pid_for_children", "time_for_children"}
    return {kind for kind in kinds if before["ns"][kind] != after["ns"][kind]}


# --- Namespaces ---


@pytest.mark.parametrize("kind", KINDS)
def test_one_namespace_and_nothing_else(tarbox, kind):
    """As unshare makes it, and whatever else a process has is the caller's: rights, files, variables, descriptors."""
    reader, writer = os.pipe()
    try:
        os.set_inheritable(reader, True)
        options = {"env": tarbox.environment(MINE="yes"), "cwd": "/usr", "pass_fds": (reader,), "umask": 0o027}
        before = look([], **options)
        after = look(tarbox.command("isolate", f"--{kind}", "--"), **options)
        fork = ["--fork"] if kind in ("pid", "time") else []
        reference = look(["unshare", f"--{kind}", *fork, *(["--map-root-user"] if kind == "user" else [])], **options)
    finally:
        os.close(reader)
        os.close(writer)
    assert changed(before, after) == changed(before, reference) == {KINDS[kind]}
    if kind == "pid":
        assert (after.pop("pid"), after.pop("pgid")) == (1, [0, 0])
    if kind == "user":
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert after.pop(name) == reference[name]
    if kind == "cgroup":  # the names of the groups are told from where it is
        assert {line.rpartition(":")[2] for line in after.pop("cgroup").splitlines()} == {"/"}
    del after["ns"]
    if "pgid" in after:
        assert after["pgid"][1] == before["pgid"][1]
        del after["pgid"], after["pid"]
    assert {name: before[name] for name in after} == after


def test_pairs_and_all_together(tarbox):
    """Any two kinds, and all of them at once."""
    before = look([])
    for kinds in (*itertools.combinations(KINDS, 2), tuple(KINDS)):
        after = look(tarbox.command("isolate", *(f"--{kind}" for kind in kinds), "--"))
        assert changed(before, after) == {KINDS[kind] for kind in kinds}, kinds


def test_a_host_name_of_its_own(tarbox):
    """The row that started it: the machine keeps its name."""
    before = os.uname().nodename
    assert tarbox.output("isolate", "--uts", "--", "sh", "-c", "hostname x; hostname") == "x\n"
    assert tarbox.output("isolate", "-h", "box", "hostname") == "box\n"
    assert os.uname().nodename == before


def test_a_network_of_its_own(tarbox):
    """Loopback is up, and there is nothing else."""
    told = json.loads(tarbox.output("isolate", "--net", "ip", "-json", "addr"))
    assert [(link["ifname"], "UP" in link["flags"]) for link in told] == [("lo", True)]
    assert told[0]["addr_info"][0]["local"] == "127.0.0.1"
    setting = ("--sysctl", "net.ipv4.ip_forward=1")
    assert tarbox.output("isolate", "--net", *setting, "cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"


def test_processes_of_its_own(tarbox):
    """Process 1, alone in a fresh /proc when the mounts are its own too; without them the old /proc is seen."""
    script = "echo $$; ls -d /proc/[0-9]* | wc -l"
    alone, together = (
        tarbox.output("isolate", *kind, "sh", "-c", script) for kind in (("--pid",), ("--pid", "--mount"))
    )
    assert together.split()[0] == alone.split()[0] == "1"
    assert int(together.split()[1]) <= 4
    assert int(alone.split()[1]) > 4


def test_process_1_and_signals(tarbox):
    """From inside not even SIGKILL reaches it, nor what it doesn't handle; from outside SIGKILL does."""
    script = (
        "kill -KILL 1; kill -TERM 1; sleep 0.1; echo lives; trap 'echo asked' TERM; kill -TERM 1; trap - TERM;"
        " echo on; exec cat"
    )
    process = tarbox.start("isolate", "--pid", "--mount", "sh", "-c", script, text=True)
    try:
        assert [process.stdout.readline() for _ in range(3)] == ["lives\n", "asked\n", "on\n"]
        (first,) = children(process.pid)
        os.kill(first, signal.SIGTERM)  # cat has no handler
        process.stdin.write("still\n")
        process.stdin.flush()
        assert process.stdout.readline() == "still\n"
        os.kill(first, signal.SIGKILL)
        process.wait(timeout=20)
    finally:
        process.communicate()
    assert process.returncode == 137


def test_all_of_a_pid_namespace_ends_with_process_1(tarbox):
    """The check for what tests leave would find it."""
    script = "setsid sleep 1000 >/dev/null 2>&1 & exit 3"
    assert tarbox("isolate", "--pid", "--mount", "sh", "-c", script).returncode == 3


def test_an_init_is_process_1_instead(tarbox):
    """It ends by the signals that the command ends by, which process 1 by itself would not."""
    words = ("isolate", "--pid", "--mount", "--init", "sh", "-c", "echo $$; sleep 30")
    process = tarbox.start(*words, text=True)
    assert process.stdout.readline() == "2\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM


QUEUES = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
key, name, found = 0x7A7B0001, b"/tarbox-test", []
found.append("sysv" if libc.msgget(key, 0) >= 0 else "none")
found.append("posix" if libc.mq_open(name, os.O_RDONLY) >= 0 else "none")
print(*found, flush=True)
if sys.argv[1] == "make":
    queue = libc.msgget(key, 0o1600 | 0o1000)
    assert queue >= 0 and libc.mq_open(name, os.O_RDONLY | os.O_CREAT, 0o600, None) >= 0
    print("made", flush=True)
    sys.stdin.read()
    libc.msgctl(queue, 0, None)
    libc.mq_unlink(name)
"""


def test_queues_of_two_boxes_never_meet(tarbox):
    """System V and POSIX ones with the same keys; in one IPC namespace they do."""
    make, see = (("python3", "-I", "-c", QUEUES, word) for word in ("make", "see"))
    box = tarbox.start("isolate", "--ipc", *make, text=True)
    try:
        assert [box.stdout.readline() for _ in range(2)] == ["none none\n", "made\n"]
        (inside,) = children(box.pid)
        assert tarbox.output("isolate", "--ipc", *see) == "none none\n"
        assert tarbox.output("isolate", "--uts", *see) == "none none\n"
        assert subprocess.check_output(["nsenter", f"--ipc=/proc/{inside}/ns/ipc", *see], text=True) == "sysv posix\n"
    finally:
        box.communicate()
    assert box.returncode == 0


# --- Namespaces of others ---

JOINED = {"pid": "pid", "ipc": "ipc", "uts": "uts", "cgroupns": "cgroup", "net": "net", "time": "time"}


@pytest.fixture
def other(tarbox):
    """The first process of another command, with namespaces of its own and another name and uptime."""
    words = [f"--{kind}" for kind in ("mount", "pid", "ipc", "cgroup", "net")]
    running = tarbox.start(
        "isolate", *words, "-h", "neighbour", "--uptime-offset", "30d", "sh", "-c", "echo on; read x", text=True
    )
    assert running.stdout.readline() == "on\n"
    yield children(running.pid)[0]
    running.communicate("end\n", timeout=60)
    assert running.returncode == 0


def spaces_of(pid):
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in KINDS.values()}


@pytest.mark.parametrize("option", JOINED)
def test_one_namespace_of_another_process_and_nothing_else(tarbox, other, option):
    """By process, path and descriptor; host and what isn't said are the caller's."""
    kind, ours, theirs = JOINED[option], spaces_of("self"), spaces_of(other)
    pidfd = os.pidfd_open(other)
    try:
        for word in (f"pid:{other}", f"ns:/proc/{other}/ns/{kind}", f"pidfd:{pidfd}"):
            after = look(tarbox.command("isolate", f"--{option}={word}", "--"), pass_fds=(pidfd,))
            assert {name for name in ours if after["ns"][name] != ours[name]} == {kind}, word
            assert after["ns"][kind] == theirs[kind]
    finally:
        os.close(pidfd)
    after = look(tarbox.command("isolate", f"--{option}=host", "--no-new-privileges", "--"))
    assert {name: after["ns"][name] for name in ours} == ours


def test_all_of_another_process_with_mounts_of_its_own(tarbox, other):
    """Its processes are seen in a /proc that is mounted anew, its clocks and its name are there."""
    words = [f"--{option}=pid:{other}" for option in JOINED]
    script = "hostname; cut -d. -f1 /proc/uptime; tr '\\0' ' ' < /proc/1/cmdline; echo; ls /sys/class/net; echo $$"
    name, uptime, first, *net, number = tarbox.output("isolate", *words, "--mount", "sh", "-c", script).splitlines()
    assert name == "neighbour"
    assert int(uptime) > 30 * 86400
    assert "read x" in first
    assert int(number) > 1
    assert net


def test_ids_of_its_own_and_namespaces_of_others(tarbox, other):
    """Who has ids of its own may join none of the host's by itself; it is root for what is its own, and for no more."""
    ours, theirs = spaces_of("self"), spaces_of(other)
    for ids in (["--user"], ["--userns=auto"], ["--uidmap", "0:100000:65536"]):
        words = [f"--{option}=pid:{other}" for option in JOINED]
        after = look(tarbox.command("isolate", *ids, *words, "--"))
        joined = set(JOINED.values())
        assert {name for name in ours if after["ns"][name] != ours[name]} == {*joined, "user"}
        assert {name: after["ns"][name] for name in joined} == {name: theirs[name] for name in joined}
        assert after["Uid"] == ["0"] * 4
        script = ("isolate", *ids, f"--net=pid:{other}", "--uts", "sh", "-c")
        done = tarbox(*script, "hostname mine && hostname; ip link set lo down || echo refused")
        assert done.stdout == "mine\nrefused\n"


def test_ids_that_were_chosen(tarbox, base, tmp_path):
    """Root inside is somebody else outside: to whom the machine's files are others', and a root of its own its own."""
    ids = ("isolate", "--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000")
    show = "cat /proc/self/uid_map /proc/self/gid_map"
    assert tarbox.output(*ids, "sh", "-c", show).split() == ["0", "100000", "1000", "0", "200000", "1000"]
    assert tarbox.output(*ids, "stat", "-c", "%u", "/etc/passwd") == "65534\n"
    assert tarbox(*ids, "touch", tmp_path / "x").returncode == 1
    script = "stat -c %u:%g /etc /tmp/x; touch /mine; stat -c %u /mine"
    for root in (("--root", f"{base}:O"), ("--root", base, "--root-tmpfs", "1m"), ("--root", base)):
        words = (*ids, *root, "--pid", "--tmpfs", "/tmp", "sh", "-c", f"touch /tmp/x; {script}")
        assert tarbox.output(*words) == "0:0\n0:0\n0\n", root
    assert (base / "mine").stat().st_uid == 0
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("root's")
    for option, owner in (("", "65534\n"), (":idmap", "0\n")):
        assert tarbox.output(*ids, "-v", f"{tmp_path}/data:/mnt{option}", "stat", "-c", "%u", "/mnt/file") == owner


def test_ranges_differ_and_the_callers_id_is_kept(tarbox):
    first = tarbox.start("isolate", "--userns=auto", "sh", "-c", "cat /proc/self/uid_map; read x", text=True)
    taken = first.stdout.readline().split()
    second = tarbox.output("isolate", "--userns=auto:size=1000", "cat", "/proc/self/uid_map").split()
    first.communicate("end\n", timeout=60)
    assert (taken[2], second[2]) == ("65536", "1000")
    assert int(second[1]) >= int(taken[1]) + 65536
    kept = tarbox.output("isolate", "--userns=keep-id:uid=1000", "sh", "-c", "id -u; cat /proc/self/uid_map").split()
    assert kept[0] == "1000"
    assert kept[4:7] == ["1000", "1000", "1"]
    assert not tarbox.leftovers()


def test_the_ids_of_another_process(tarbox, base):
    """It is root there, and what is made for it belongs to those ids."""
    words = ("isolate", "--userns=5000:1000", "--net", "-h", "neighbour", "sh", "-c", "echo on; read x")
    running = tarbox.start(*words, text=True)
    assert running.stdout.readline() == "on\n"
    other = children(running.pid)[0]
    try:
        joins = (f"--userns=pid:{other}", f"--net=pid:{other}", f"--uts=pid:{other}")
        script = "id -u; hostname; ip link set lo down && echo down; hostname other; hostname"
        assert tarbox.output("isolate", *joins, "sh", "-c", script) == "0\nneighbour\ndown\nother\n"
        root = ("--root", f"{base}:O")
        told = tarbox.output("isolate", *joins, *root, "sh", "-c", "stat -c %u /etc; touch /x; stat -c %u /x")
        assert told == "0\n0\n"
        done = tarbox("isolate", *joins, "--pid", "--mount", "true")
        assert "a joined user namespace and a new PID namespace" in tools.complained(done)
    finally:
        running.communicate("end\n", timeout=60)


def test_what_is_no_namespace_or_isnt_there_any_more(tarbox, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for word, said in (
        (f"ns:{tmp_path}/fifo", "is no namespace"), ("ns:/proc/self/ns/uts", "is a uts namespace, and a network"),
        ("pid:4194303", "process 4194303 isn't there"),
    ):  # fmt: skip
        assert said in tools.complained(tarbox("isolate", f"--net={word}", "true"))
    done = tarbox("isolate", "--net", "host", "true")
    assert (done.returncode, "--net=host" in done.stderr) == (127, True)


# --- Roots ---


def test_the_old_escape_works_from_a_chroot_and_not_from_a_pivoted_root(tarbox, base, tmp_path):
    """With CAP_SYS_CHROOT in both: that is why containers don't rely on chroot."""
    outside = str(tmp_path / "outside")
    root = ("isolate", "--root", base)
    assert tarbox.output(*root, "--chroot", "climb", outside) == "the host's own\n"
    assert tarbox.output(*root, "--chroot", "--cap-drop", "SYS_CHROOT", "climb", outside) == "chroot EPERM\nno ENOENT\n"
    for options in ((), ("--tmpfs", "/tmp"), ("--root-tmpfs", "1m")):
        assert tarbox.output(*root, *options, "climb", outside) == "no ENOENT\n"
    assert tarbox.output("isolate", "--overlay", base, "climb", outside) == "no ENOENT\n"


def test_a_pivoted_root_shows_nothing_of_the_host(tarbox, base):
    told = tarbox.output("isolate", "--root", base, "--pid", "cat", "/proc/self/mountinfo")
    assert [line.split()[4] for line in told.splitlines()] == ["/", "/proc"]
    assert tarbox.output("isolate", "--root", base, "sh", "-c", "pwd; ls -A /proc") == "/\n"


def test_a_root_is_written_to_unless_it_is_thrown_away(tarbox, base):
    for root in ("--root", f"{base}:O"), ("--overlay", base), ("--root", base, "--root-tmpfs", "1m"):
        assert tarbox.output("isolate", *root, "sh", "-c", "echo x > /made; rm -r /etc; cat /made") == "x\n"
        assert not (base / "made").exists()
        assert (base / "etc").exists()
    assert tarbox("isolate", "--root", base, "--read-only", "touch", "/made").returncode == 1
    assert tarbox.output("isolate", "--root", base, "touch", "/made") == ""
    assert (base / "made").exists()


def test_layers_over_one_another(tarbox, base, tmp_path):
    """The topmost is named first, and a colon in a name has a backslash before it."""
    for name, text in (("a:b", "upper"), ("c", "lower")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "both").write_text(text)
    (tmp_path / "c/below").write_text("seen")
    layers = f"{tmp_path}/a\\:b:{tmp_path}/c:{base}"
    assert tarbox.output("isolate", "--overlay", layers, "cat", "/both", "/below") == "upperseen"


def test_mounts_without_a_new_root(tarbox, tmp_path):
    """The machine's files stay where they are; what is mounted is seen by nobody else."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("shown")
    (tmp_path / "target").mkdir()
    bind = ("-v", f"{tmp_path}/source:{tmp_path}/target")
    assert tarbox.output("isolate", *bind, "cat", f"{tmp_path}/target/file", cwd="/usr") == "shown"
    assert tarbox.output("isolate", *bind, "pwd", cwd="/usr") == "/usr\n"
    script = f"touch {tmp_path}/target/new && ls {tmp_path}/target; stat -f -c %T {tmp_path}/target"
    assert tarbox.output("isolate", "--tmpfs", f"{tmp_path}/target", "sh", "-c", script) == "new\ntmpfs\n"
    assert tarbox(
        "isolate", "-v", f"{tmp_path}/source:{tmp_path}/target:ro", "touch", f"{tmp_path}/target/x"
    ).returncode
    assert (
        tarbox.output("isolate", "-v", f"{tmp_path}/source:{tmp_path}/target:O", "rm", f"{tmp_path}/target/file") == ""
    )
    assert os.listdir(tmp_path / "target") == []
    assert os.listdir(tmp_path / "source") == ["file"]


def test_all_files_of_the_machine_read_only(tarbox, tmp_path):
    """Also those on other file systems; not what is mounted for it."""
    script = f"touch /usr/no {tmp_path}/no /run/no; touch /mnt/yes && echo yes; echo > /dev/null && echo device"
    done = tarbox("isolate", "--read-only", "--tmpfs", "/mnt", "sh", "-c", script)
    assert done.stdout == "yes\ndevice\n"
    assert done.stderr.count("Read-only file system") == 3


def test_nothing_is_made_for_a_mount_on_the_machine(tarbox, tmp_path):
    done = tarbox("isolate", "--tmpfs", tmp_path / "missing", "true")
    assert "on this machine to mount on" in tools.complained(done)
    assert not (tmp_path / "missing").exists()


# --- Rights ---


def status(tarbox, *options):
    """The lines of the status of a command with these options."""
    told = tarbox.output("isolate", *options, "cat", "/proc/self/status")
    return {line.split(":")[0]: line.split(":")[1].strip() for line in told.splitlines() if ":" in line}


def test_capabilities_are_taken_away_for_good(tarbox):
    """Not even a set-uid program of root's has them."""
    mine = {
        line.split(":")[0]: line.split(":")[1].strip() for line in Path("/proc/self/status").read_text().splitlines()
    }
    held = int(mine["CapBnd"], 16)
    without = status(tarbox, "--cap-drop", "NET_RAW", "--cap-drop", "CHOWN")
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(without[name], 16) == held & ~(1 << 13 | 1 << 0)
    assert {status(tarbox, "--caps", "KILL")[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {f"{1 << 5:016x}"}
    nobody = status(tarbox, "-u", "nobody", "--cap-add", "NET_BIND_SERVICE")
    assert nobody["Uid"].split()[0] == "65534"
    assert int(nobody["CapEff"], 16) == 1 << 10
    assert int(status(tarbox, "-u", "nobody")["CapEff"], 16) == 0


def test_without_net_admin_no_route_changes(tarbox):
    """The network may be its own: it is the capability that counts."""
    script = "ip route add 10.9.0.0/16 dev lo && ip route show 10.9.0.0/16"
    assert "10.9.0.0/16" in tarbox.output("isolate", "--net", "sh", "-c", script)
    done = tarbox("isolate", "--net", "--cap-drop", "NET_ADMIN", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Operation not permitted" in done.stderr


READ = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
place = ctypes.create_string_buffer(8)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
here, there = Vector(ctypes.addressof(place), 8), Vector(int(sys.argv[2], 0), 8)
size = libc.process_vm_readv(int(sys.argv[1]), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
print(size, os.strerror(ctypes.get_errno()))
"""


def test_without_sys_ptrace_no_memory_of_others_is_read(tarbox):
    """Of a process with more rights than its own."""
    place = next(line for line in Path("/proc/self/maps").read_text().splitlines() if " r--p " in line).split("-")[0]
    read = ("python3", "-I", "-c", READ, str(os.getpid()), f"0x{place}")
    assert tarbox.output("isolate", "--cap-drop", "CHOWN", *read).split()[0] == "8"
    told = tarbox.output("isolate", "--cap-drop", "SYS_PTRACE", *read)
    assert told == "-1 Operation not permitted\n"


def test_a_filter_and_no_new_privileges(tarbox):
    for options, marks in (
        (("--seccomp", "default"), ("0", "2")),
        (("--no-new-privileges",), ("1", "0")),
        (("--security-opt", "no-new-privileges", "--security-opt", "seccomp=builtin"), ("1", "2")),
    ):
        found = status(tarbox, *options)
        assert (found["NoNewPrivs"], found["Seccomp"]) == marks
    done = tarbox("isolate", "--caps", "none", "--seccomp", "default", "unshare", "--user", "true")
    assert "Operation not permitted" in done.stderr


def test_a_filter_that_allows_little(tarbox, tmp_path):
    """With no_new_privs it is the last thing, so it needs to allow the command alone."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["fcntl", "prctl", "capset", "setresuid", "close_range"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    options = ("--seccomp", tmp_path / "profile.json", "--no-new-privileges", "--cap-drop", "CHOWN")
    assert tarbox.output("isolate", *options, "echo", "runs") == "runs\n"


def test_limits_are_those_of_limit(tarbox):
    told = tarbox("isolate", "--uts", "-m", "5m", "--memory-swap", "5m", "dd", "if=/dev/zero", "of=/dev/null", "bs=20M")
    assert told.returncode == 137
    assert "reached its memory limit of 5 MiB" in told.stderr
    assert tarbox.output("isolate", "--ulimit", "nofile=77", "sh", "-c", "ulimit -n") == "77\n"
    cgroup = tarbox.output("isolate", "--cgroup", "--pids-limit", "9", "cat", "/proc/self/cgroup")
    assert any(line.endswith(":/") for line in cgroup.splitlines())
    assert "tarbox" not in cgroup


# --- The command ---


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -9 $$"), 137), (("/nonexistent",), 127), (("nosuch",), 127),
        (("/etc/passwd",), 126),
    ],
)  # fmt: skip
def test_exit_codes(tarbox, words, code):
    for options in (("--uts",), ("--user", "--mount")):
        done = tarbox("isolate", *options, *words)
        assert done.returncode == code
        assert "container" not in done.stderr
        assert "image" not in done.stderr


def test_its_terminal_is_the_callers(tarbox):
    """The same one, and ^C reaches it directly."""
    words = (
        "isolate",
        "--uts",
        "--net",
        "sh",
        "-c",
        "tty; trap 'echo INT; exit 3' INT; echo ready; while :; do sleep 0.2; done",
    )
    terminal = Terminal(*tarbox.command(*words))
    try:
        assert terminal.expect("ready").split() == [os.ttyname(terminal.side)]
        terminal.type("\x03")
        terminal.expect("INT")
        assert terminal.wait() == 3
    finally:
        terminal.close()


def test_variables_are_added(tarbox):
    told = tarbox.output("isolate", "--uts", "-e", "A=b", "-e", "HOME=/x", "env", env={"MINE": "1"})
    assert {"A=b", "HOME=/x", "MINE=1"} <= set(told.splitlines())


def test_a_command_that_is_killed_leaves_nothing(tarbox, base):
    """What is on disk is taken away by the next command; the network, the mounts and the processes by the kernel."""
    words = ("isolate", "--root", f"{base}:O", "-m", "64m", "--pid", "--net", "sh", "-c", "echo on; exec cat")
    process = tarbox.start(*words, text=True)
    try:
        assert process.stdout.readline() == "on\n"
        (inside,) = children(process.pid)
        process.kill()
        process.wait()
        end = time.monotonic() + 20
        while os.path.exists(f"/proc/{inside}") and time.monotonic() < end:
            time.sleep(0.01)
        assert not os.path.exists(f"/proc/{inside}")
    finally:
        process.communicate()
    assert tarbox.leftovers(0)
    assert tarbox.output("isolate", "--root", f"{base}:O", "true") == ""
    assert not tarbox.leftovers()


# --- As a plain user ---


def test_a_plain_user_needs_a_user_namespace(plain_tarbox):
    assert "add --user" in tools.complained(plain_tarbox("isolate", "--net", "true"))
    before, after = look([]), look(plain_tarbox.command("isolate", *(f"--{kind}" for kind in KINDS), "--"))
    assert changed(before, after) == set(KINDS.values())
    assert after["Uid"] == [str(plain_tarbox.user)] * 4
    assert int(after["CapEff"][0], 16) == 0
    assert plain_tarbox.output("isolate", "--map-root-user", "id", "-u") == "0\n"
    script = "ip link set lo down && ip link show lo"
    assert "state DOWN" in plain_tarbox.output(
        "isolate", "--user", "--net", "--cap-add", "NET_ADMIN", "sh", "-c", script
    )
    assert plain_tarbox("isolate", "--user", "--net", "sh", "-c", script).returncode == 2


def test_a_plain_users_root(plain_tarbox, plain_folder):
    root = roots.busybox(plain_folder / "base")
    subprocess.run(["chown", "-R", f"{plain_tarbox.user}:{plain_tarbox.user}", root], check=True)
    words = ("isolate", "--user", "--pid", "--root", f"{root}:O", "--tmpfs", "/tmp", "sh", "-c")
    assert plain_tarbox.output(*words, "id -u; touch /x /tmp/y; ls -d /x /proc/[0-9]*").split() == [
        str(plain_tarbox.user), "/proc/1", "/x",
    ]  # fmt: skip
    assert not (root / "x").exists()
    assert plain_tarbox("isolate", "--user", "--read-only", "touch", plain_folder / "x").returncode == 1
    assert plain_tarbox.output("isolate", "--no-new-privileges", "--ulimit", "core=0", "id", "-u").strip() != "0"
