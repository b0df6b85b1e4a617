"""`tarbox enter` and `tarbox debug`: the host's commands in chosen namespaces of what runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kernel.attacks import tools
from kernel.test_session_terminal import Terminal
from looked import children, container, running

pytestmark = pytest.mark.unhurried

KINDS = {
    "mount": "mnt", "uts": "uts", "ipc": "ipc", "net": "net", "pid": "pid", "cgroup": "cgroup", "user": "user",
    "time": "time",
}  # fmt: skip
LINKS = " ".join(KINDS.values())
LOOK = f"for kind in {LINKS}; do readlink /proc/self/ns/$kind; done"


def spaces(pid):
    """The namespaces of a process, by the names in /proc."""
    return {link: os.readlink(f"/proc/{pid}/ns/{link}") for link in KINDS.values()}


def entered(text):
    """The same as a command printed it; its own number isn't in the host's /proc when its PID namespace is another."""
    return {line.partition(":")[0]: line for line in text.split()}


@contextlib.contextmanager
def box(tarbox, *options):
    """A process with all namespaces of its own."""
    words = ("isolate", *(options or [f"--{kind}" for kind in KINDS]), "--", "cat")
    process = tarbox.start(*words)
    try:
        end = time.monotonic() + 20
        while not (found := children(process.pid)) or Path(f"/proc/{found[0]}/comm").read_text() != "cat\n":
            assert time.monotonic() < end
            time.sleep(0.01)
        yield found[0]
    finally:
        process.communicate(timeout=30)


def id_of(pid):
    """The id of the container that a process is in."""
    return re.search(r"/tarbox-([0-9a-f]{64})", Path(f"/proc/{pid}/cgroup").read_text())[1]


def test_the_chosen_ones_and_no_others(tarbox):
    """Each kind alone, as the kernel tells of a process that was entered so; all else is the caller's."""
    mine = spaces("self")
    with box(tarbox) as pid:
        theirs = spaces(pid)
        for option, link in KINDS.items():
            if option == "mount":  # it has a /proc of another PID namespace, in which this process isn't
                continue
            command = tarbox.command("enter", f"--{option}", str(pid), "--", "cat")
            with running(*command, depth=1) as inside:
                assert spaces(inside) == mine | {link: theirs[link]}, option
                assert os.stat(f"/proc/{inside}/root").st_ino == os.stat("/").st_ino
                assert os.readlink(f"/proc/{inside}/cwd") == os.getcwd()
        with running(*tarbox.command("enter", "--net", "--uts", str(pid), "cat"), depth=1) as inside:
            assert spaces(inside) == mine | {link: theirs[link] for link in ("net", "uts")}
        with running(*tarbox.command("enter", str(pid), "--all", "--", "cat"), depth=1) as inside:
            assert spaces(inside) == theirs


def test_the_hosts_ip_in_a_containers_network(tarbox, rootfs_busybox):
    """By the beginning of its id; no program of the container's is used, and its limits don't count."""
    with container(tarbox, "-m", "64m", f"{rootfs_busybox}:O") as pid:
        id = id_of(pid)
        short = next(id[:size] for size in range(6, 13) if not id[:size].isdecimal() or size == 12)
        for word in (id, id[:12], short, str(pid)):
            told = tarbox.output("enter", "--net", word, "--", "ip", "-o", "link")
            assert re.fullmatch(r"1: lo: .*\n\d+: eth0@.*\n", told)
        assert tarbox.output("enter", "--uts", id[:12], "hostname") == id[:12] + "\n"
        own = tarbox.output("enter", "--all", id, "sh", "-c", "ls /; hostname; echo $$; cat /proc/self/cgroup; pwd")
        assert "linuxrc" in own
        assert own.split()[-1] == "/"
        assert f"tarbox-{id}" not in tarbox.output("enter", "--net", "--pid", id, "cat", "/proc/self/cgroup")


def test_the_root_of_the_target_is_the_root(tarbox, rootfs_busybox):
    """Also that of a process in a chroot, whose mount namespace is the caller's."""
    with running(*tarbox.command("isolate", "--root", rootfs_busybox, "--chroot", "cat"), depth=1) as pid:
        assert "linuxrc" in tarbox.output("enter", "--mount", str(pid), "ls", "/")
    with running(*tarbox.command("isolate", "--root", rootfs_busybox, "--pid", "cat"), depth=1) as pid:
        assert (
            tarbox.output("enter", "--mount", str(pid), "-w", "/etc", "sh", "-c", "pwd; ls")
            == "/etc\ngroup\nhostname\npasswd\n"
        )
        done = tarbox("enter", "--mount", str(pid), "python3")
        assert done.returncode == 127
        assert "in the target's files" in done.stderr


def test_lasting_ones_by_name_and_any_by_path(tarbox):
    """All kinds of a name when none is chosen, else the chosen ones."""
    tarbox.output("ns", "create", "--net", "-h", "box", "lab1")
    try:
        mine = spaces("self")
        told = entered(tarbox.output("enter", "lab1", "sh", "-c", LOOK))
        assert {link for link in mine if told[link] != mine[link]} == {"net", "uts"}
        told = entered(tarbox.output("enter", "--net", "lab1", "--", "sh", "-c", LOOK))
        assert {link for link in mine if told[link] != mine[link]} == {"net"}
        assert tarbox.output("enter", "lab1", "hostname") == "box\n"
        with running(*tarbox.command("enter", "lab1", "cat"), depth=1) as inside:
            assert f"{inside} (cat)" in tools.complained(tarbox("ns", "rm", "lab1"))
            assert tarbox.output("enter", f"/proc/{inside}/ns/uts", "hostname") == "box\n"
        assert "has no mount namespace" in tools.complained(tarbox("enter", "--mount", "lab1", "true"))
    finally:
        tarbox.output("ns", "rm", "lab1")


def test_by_an_open_descriptor(tarbox):
    """A pidfd is the same process, whatever its number becomes."""
    with box(tarbox, "--uts") as pid:
        pidfd = os.pidfd_open(pid)
        os.set_inheritable(pidfd, True)
        words = ("enter", "--uts", f"pidfd:{pidfd}", "readlink", "/proc/self/ns/uts")
        assert tarbox.output(*words, pass_fds=(pidfd,)).strip() == spaces(pid)["uts"]
    assert "has ended" in tools.complained(tarbox(*words, pass_fds=(pidfd,)))
    os.close(pidfd)


@pytest.mark.parametrize("kinds", [("--net",), ("--net", "--pid")])
def test_exit_codes_and_signals(tarbox, kinds):
    """Those of the command, also when it was born in another PID namespace."""
    with box(tarbox, "--net", "--pid") as pid:
        words = ("enter", *kinds, str(pid), "--")
        for script, code in (("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)):
            assert tarbox(*words, "sh", "-c", script).returncode == code
        for command, code in (("nosuch", 127), ("/nonexistent", 127), ("/etc/passwd", 126)):
            done = tarbox(*words, command)
            assert done.returncode == code
            assert "container" not in tools.complained(done, code)
        process = tarbox.start(
            *words, "sh", "-c", "trap 'echo asked; exit 4' TERM; echo on; while :; do sleep 0.1; done"
        )
        assert process.stdout.readline() == b"on\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[0] == b"asked\n"
        assert process.returncode == 4
        process = tarbox.start(*words, "sh", "-c", "echo on; exec sleep 1000")
        assert process.stdout.readline() == b"on\n"
        process.kill()  # what it started ends with it: the check for what tests leave would tell
        process.communicate()


def test_its_terminal_is_the_callers(tarbox):
    """^C reaches it directly, and once."""
    with box(tarbox, "--pid") as pid:
        script = "trap 'echo INT' INT; tty; echo ready; sleep 1; sleep 1; exit 3"
        terminal = Terminal(*tarbox.command("enter", "--pid", str(pid), "sh", "-c", script))
        try:
            assert terminal.expect("ready").split() == [os.ttyname(terminal.side)]
            terminal.type("\x03")
            assert terminal.wait() == 3
            assert terminal.seen.count(b"INT") == 1
        finally:
            terminal.close()


def test_a_stopped_command_stops_tarbox_too(tarbox):
    """As ^Z does to both: the caller's shell has to see it."""
    with box(tarbox, "--pid") as pid:
        script = "import os, signal; print('on', flush=True); os.kill(os.getpid(), signal.SIGTSTP); os._exit(4)"
        words = ("enter", "--pid", str(pid), "python3", "-I", "-c", script)
        process = tarbox.start(*words, process_group=0)  # one that isn't orphaned: else nobody could let it go on
        assert process.stdout.readline() == b"on\n"
        end = time.monotonic() + 20
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=20)
        assert process.returncode == 4


def test_only_the_standard_descriptors_go_in(tarbox):
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    with box(tarbox, "--net", "--pid") as pid:
        for kinds in (("--net",), ("--net", "--pid")):
            told = tarbox.output("enter", *kinds, str(pid), "sh", "-c", "ls /proc/self/fd", pass_fds=(reader,))
            assert told.split() == ["0", "1", "2", "3"], "and that of ls itself"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "enter needs a target"),
        (("--net",), "enter needs a target"),
        (("--net", "999999999", "true"), "there is no process 999999999"),
        (("--net", "0", "true"), "there is no process 0"),
        (("--net", "nosuch", "true"), "nothing to enter by the name 'nosuch'"),
        (("--net", "", "true"), "nothing to enter by the name ''"),
        (("--net", "../x", "true"), "nothing to enter by the name '../x'"),
        (("--net", "deadbeefdeadbeef", "true"), "nothing to enter by the name"),
        (("--net", "/nonexistent", "true"), "there is no namespace at /nonexistent"),
        (("--net", "/dev/null", "true"), "/dev/null is no namespace"),
        (("--net", "/proc/self/ns/uts", "true"), "has no network namespace (it has: uts)"),
        (("--net", "pidfd:77", "true"), "descriptor 77 isn't open"),
        (("--net", "pidfd:0", "true"), "descriptor 0 isn't that of a process"),
        ((str(os.getpid()), "true"), "shall be entered?"),
        (("--all", "--net", "1", "true"), "--all is all of them"),
        (("--net", "1", "-w", "here", "true"), "-w here is not an absolute path"),
        (("--nte", "1", "true"), "unknown option --nte"),
    ],
)
def test_a_slip_is_told(tarbox, words, said):
    assert said in tools.complained(tarbox("enter", *words))


def test_a_fifo_is_never_opened(tarbox, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert "is no namespace" in tools.complained(tarbox("enter", tmp_path / "fifo", "true", timeout=20))


def test_a_process_that_moves_is_not_entered(tarbox):
    """It changes its namespaces all the time: either all are those of one moment, or it is refused."""
    script = """
import ctypes, os
libc = ctypes.CDLL(None)
print(flush=True)
while True:
    libc.unshare(0x04000000 | 0x08000000)
"""
    mover = subprocess.Popen(["python3", "-I", "-c", script], stdout=subprocess.PIPE)
    try:
        mover.stdout.readline()
        refused = 0
        for _ in range(10):
            done = tarbox("enter", "--uts", "--ipc", str(mover.pid), "true")
            if done.returncode:
                assert "has moved to another" in tools.complained(done)
                refused += 1
        assert refused
    finally:
        mover.kill()
        mover.communicate()


# --- debug ---


def test_a_debugger_is_not_in_the_containers_group(tarbox, rootfs_busybox):
    """Of 16 MB it may use a hundred; it sees the container's processes, network, name and files."""
    with container(tarbox, "-m", "16m", f"{rootfs_busybox}:O") as pid:
        id = id_of(pid)
        code = "x = b'0' * 10**8; print(len(x))"
        assert tarbox.output("debug", id[:12], "--", "python3", "-I", "-c", code) == "100000000\n"
        script = (
            "ls -d /proc/[0-9]* | head -1; cat /proc/1/comm; hostname; ls /proc/1/root/linuxrc; grep -c : /proc/net/dev"
        )
        told = tarbox.output("debug", id, "sh", "-c", script, cwd="/usr").split()
        assert told == ["/proc/1", "cat", id[:12], "/proc/1/root/linuxrc", "2"]
        assert tarbox.output("debug", id, "pwd", cwd="/usr") == "/usr\n"
        assert f"tarbox-{id}" not in tarbox.output("debug", id, "cat", "/proc/1/root/proc/self/cgroup")
        with running(*tarbox.command("debug", id, "cat"), depth=1) as inside:
            mine, theirs, seen = spaces("self"), spaces(pid), spaces(inside)
            assert {link for link in seen if seen[link] == theirs[link] != mine[link]} == {"ipc", "net", "pid", "uts"}
            assert seen["cgroup"] == mine["cgroup"]
            assert seen["mnt"] not in (mine["mnt"], theirs["mnt"])
            assert f"tarbox-{id}" not in Path(f"/proc/{inside}/cgroup").read_text()
        assert "/proc/1" not in [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]


def test_debugging_what_shares_the_processes(tarbox):
    """Then /proc stays as it is."""
    with box(tarbox, "--net") as pid:
        told = tarbox.output("debug", str(pid), "sh", "-c", f"cat /proc/{pid}/comm; readlink /proc/self/ns/mnt")
        assert told.split() == ["cat", os.readlink("/proc/self/ns/mnt")]
    assert "debug needs a target" in tools.complained(tarbox("debug"))
    assert "is no process" in tools.complained(tarbox("debug", "/proc/self/ns/net"))


# --- as a plain user ---


def test_a_plain_user_enters_what_is_his(plain_tarbox):
    """With the user namespace, as root of it."""
    words = ("isolate", "--map-root-user", "--net", "--pid", "--mount", "-h", "box", "cat")
    with running(*plain_tarbox.command(*words), depth=1) as pid:
        told = plain_tarbox.output(
            "enter", "--user", "--uts", "--net", str(pid), "sh", "-c", "id -u; hostname; ip -o link"
        )
        assert told.split()[:2] == ["0", "box"]
        assert told.count("\n") == 3
        assert "add --user" in tools.complained(plain_tarbox("enter", "--uts", str(pid), "true"))
        assert plain_tarbox.output("enter", "--all", str(pid), "sh", "-c", "echo /proc/[0-9]*").split()[0] == "/proc/1"
        assert plain_tarbox.output("debug", str(pid), "sh", "-c", "cat /proc/1/comm; hostname") == "cat\nbox\n"
    with running("unshare", "--net", "cat") as pid:
        assert "you may not enter" in tools.complained(plain_tarbox("enter", "--net", str(pid), "true"))


def test_root_enters_a_plain_users(tarbox, plain_tarbox):
    """It becomes root there, and nobody more on the machine."""
    words = ("isolate", "--map-root-user", "--net", "--pid", "--mount", "cat")
    with running(*plain_tarbox.command(*words), depth=1) as pid:
        told = tarbox.output("enter", "--all", str(pid), "sh", "-c", "id -u; cat /proc/self/uid_map; echo $$")
        assert told.split()[:4] == ["0", "0", str(plain_tarbox.user), "1"]
        with running(*tarbox.command("enter", "--all", str(pid), "cat"), depth=1) as inside:
            assert os.stat(f"/proc/{inside}").st_uid == plain_tarbox.user
        assert tarbox.output("debug", str(pid), "cat", "/proc/1/comm") == "cat\n"


# --- against a hostile container ---


def test_who_pries_in_a_container_never_sees_the_hosts_interpreter(tarbox, rootfs_busybox, tmp_path):
    """A container with a debugger's rights looks into everything that appears, while its namespaces are entered."""
    tools.probe(rootfs_busybox)
    racer = tarbox.start(
        "run", "--rm", "--init", "--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined", rootfs_busybox,
        "probe", "pry", "120", text=True,
    )  # fmt: skip
    try:
        assert racer.stdout.readline() == "prying\n"
        (pid,) = children(racer.pid)
        for number in range(150):
            kinds = (("--pid", "--mount"), ("--all",), ("--pid", "--mount", "--net"))[number % 3]
            done = tarbox("enter", *kinds, str(pid), "--", "busybox", "echo", "on")
            assert done.stdout == "on\n"
            assert "have CAP_SYS_PTRACE, so they can take over busybox" in done.stderr
    finally:
        racer.terminate()
        lines = racer.stdout.read().splitlines()
        racer.communicate()
    seen = {line.split()[1] for line in lines if line.startswith("pid ")}
    assert len(seen) > 5, "it did look at those who came"
    allowed = {"/memfd:runner (deleted)", "/bin/busybox", "/bin/probe"}
    for line in lines:
        if line.startswith(("exe ", "map ")):
            assert line.split(" ", 1)[1] in allowed, line
        assert not line.startswith("foreign"), f"a root or a folder of the host's: {line}"
        assert not line.startswith("writable /memfd"), line
        assert "python" not in line
        assert ".so" not in line
    opened = {line.split(" ", 1)[1] for line in lines if line.startswith(("fd ", "taken "))}
    assert {name.partition(":")[0] for name in opened} <= {"/dev/null", "pipe", "socket", "/dev/null (deleted)"}, opened
