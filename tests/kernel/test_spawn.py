"""A program started without a fork: in which namespaces, with what it keeps, and what is left when it can't be."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import source
import testhost
from entered import CLONE_NEWPID, CLOSE, SH, ending
from rows import in_child
from tarbox.errors import KernelError
from tarbox.kernel import runner
from tarbox.kernel.runner import executable, image, spawn
from tarbox.kernel.syscall import syscall
from tarbox.plan.step import Register, Row

CLONE_NEWUSER, CLONE_NEWUTS, CLONE_FS, CLONE_NEWNS = 0x10000000, 0x04000000, 0x200, 0x20000
PLAIN_USER = 65533
EVERY_WAY = ["shared", "no memory to execute", "refused"]


@pytest.fixture(params=EVERY_WAY)
def way(request, monkeypatch):
    """The ways there are: to share the memory, and the fork where a machine doesn't let a process do that."""
    monkeypatch.setattr(runner, "_tried", request.param != "shared")
    monkeypatch.setattr(runner, "_native", None)
    if request.param == "refused":
        monkeypatch.setattr(runner, "_native", lambda *arguments: -errno.EINVAL)
    return request.param


class Pipes:
    """Runs rows and then a shell: its exit code, what was reported, its output."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.errors_reader, self.errors = os.pipe()
        self.program = -1

    def start(self, rows, *words, flags=0, keep=(), cgroup=-1, mode=0o111, env=()):
        close = [Row("dup3", (self.writer, 1, 0)), *CLOSE]
        self.program = executable(image([*rows, *close, *ending(SH)], self.errors), mode)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            return spawn(self.program, [b"sh", *words], list(env), flags, [self.errors, self.writer, *keep], cgroup)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self, pid, pidfd):
        os.close(self.errors)
        os.close(self.writer)
        self.errors = self.writer = -1
        with open(self.errors_reader, "rb", closefd=False) as errors, open(self.reader, "rb", closefd=False) as output:
            report, text = runner.read_report(errors.read()), output.read().decode()
        os.close(pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), report, text

    def __call__(self, rows, *words, **options):
        return self.end(*self.start(rows, *words, **options))

    def close(self):
        for descriptor in (self.reader, self.writer, self.errors_reader, self.errors, self.program):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def pipes():
    made = Pipes()
    yield made
    made.close()


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def children():
    with open(f"/proc/self/task/{threading.get_native_id()}/children") as stream:
        return stream.read().split()


def test_it_is_process_1_of_a_new_namespace_and_its_rows_are_done_there(way, pipes):
    rows = [
        Row("sethostname", (b"inside", 6)),
        Row("openat", (-100, b"/usr", os.O_PATH, 0), store=9),
        Row("fchdir", (Register(9),)),
    ]
    host = os.uname().nodename
    words = (b"-c", b'echo $$ $PWD $A "$@"; uname -n; exit 3', b"name", b"a b")
    done = pipes(rows, *words, flags=CLONE_NEWPID | CLONE_NEWUTS, env=[b"A=x"])
    assert done == (3, None, "1 /usr x a b\ninside\n")
    assert os.uname().nodename == host


def test_a_row_that_fails_is_reported(way, pipes):
    assert pipes([Row("chdir", (b"/",)), Row("chdir", (b"/no",))]) == (126, (1, errno.ENOENT), "")


def test_the_pidfd_is_the_process_s(way, pipes):
    pid, pidfd = pipes.start([], b"-c", b"exec sleep 60")
    assert fcntl.fcntl(pidfd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    with open(f"/proc/self/fdinfo/{pidfd}") as stream:
        assert f"Pid:\t{pid}\n" in stream.read()
    assert not select.select([pidfd], [], [], 0)[0]
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 20)[0]
    assert pipes.end(pid, pidfd)[0] == -signal.SIGKILL


def test_it_gets_the_kept_descriptors_and_no_others(way, pipes, tmp_path):
    """In this process they stay closed on exec, or open, as they were."""
    kept, other = (os.open("/usr/share", os.O_PATH) for _ in range(2))
    inherited = os.dup(kept)
    os.set_inheritable(inherited, True)
    rows = [Row("fchdir", (kept,)), Row("fcntl", (other, 1), on=((errno.EBADF, 1),)), Row("chdir", (b"/no",))]
    try:
        code, report, output = pipes(rows, b"-c", b"pwd; ls /proc/$$/fd", keep=(kept, inherited))
        assert (code, report) == (0, None)
        assert output.split() == ["/usr/share", "0", "1", "2"]
        assert [os.get_inheritable(number) for number in (kept, other, inherited)] == [False, False, True]
    finally:
        for number in (kept, other, inherited):
            os.close(number)


def test_only_the_first_three_are_open_in_the_runner_beside_the_kept(way, pipes):
    """Not even what this process was started with."""
    inherited = os.dup(0)
    os.set_inheritable(inherited, True)
    rows = [Row("nanosleep", ((60).to_bytes(16, "little"), 0))]
    pid, pidfd = pipes.start(rows)
    try:
        expected = [0, 1, 2, *sorted((pipes.writer, pipes.errors))]
        end = time.monotonic() + 20
        while (found := sorted(map(int, os.listdir(f"/proc/{pid}/fd")))) != expected:  # the kernel closes them last
            assert time.monotonic() < end, found
        assert os.readlink(f"/proc/{pid}/exe") == "/memfd:runner (deleted)"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(inherited)
    pipes.end(pid, pidfd)


def test_process_1_keeps_no_descriptor_and_the_program_none_either(way, pipes):
    """It closes them while the child goes on already."""
    rows = [Row("openat", (-100, b"/usr", os.O_PATH, 0), store=9), Row("init", ())]
    kept = os.open("/usr", os.O_PATH)
    script = b'ls /proc/$$/fd; while [ -n "$(ls /proc/$PPID/fd | sed 1,3d)" ]; do sleep 0.01; done; ls /proc/$PPID/fd'
    try:
        code, report, output = pipes(rows, b"-c", script, keep=(kept,))
    finally:
        os.close(kept)
    assert (code, report) == (0, None)
    assert output.split() == ["0", "1", "2"] * 2


@pytest.mark.parametrize(
    ("flags", "number"), [(CLONE_FS | CLONE_NEWNS, errno.EINVAL), (CLONE_NEWUSER | CLONE_FS, errno.EINVAL)]
)
def test_flags_that_the_kernel_refuses_leave_nothing(way, pipes, flags, number):
    pipes.program = executable(image([], pipes.errors))
    before = descriptors(), children()
    with pytest.raises(KernelError) as raised:
        spawn(pipes.program, [b"sh"], [], flags, [])
    assert (raised.value.call, raised.value.errno) == ("clone3", number)
    assert (descriptors(), children()) == before


def test_no_room_for_a_namespace_leaves_nothing(way):
    def attempt():
        program = executable(image([], 2))
        syscall("unshare", CLONE_NEWUSER)  # its limits are its own
        with open("/proc/sys/user/max_uts_namespaces", "w") as limit:
            limit.write("0")
        before = descriptors(), children()
        try:
            spawn(program, [b"sh"], [], CLONE_NEWUTS, [])
        except KernelError as error:
            return error.call, error.errno, (descriptors(), children()) == before
        return None

    assert in_child(attempt) == ("clone3", errno.ENOSPC, True)


@pytest.mark.parametrize(
    ("content", "words", "mode", "number"),
    [
        (b"no program", [b"x"], 0o755, errno.ENOEXEC),
        (b"#!/bin/sh\n", [b"x"] * 60 + [b"x" * 100_000] * 100, 0o755, errno.E2BIG),
        (b"#!/bin/sh\n", [b"x"], 0o644, errno.EACCES),
    ],
)
def test_a_program_that_can_t_be_executed_leaves_nothing(way, tmp_path, content, words, mode, number):
    target = tmp_path / "target"
    target.write_bytes(content)
    target.chmod(mode)
    program = os.open(target, os.O_RDONLY)
    before = descriptors(), children()
    try:
        with pytest.raises(KernelError) as raised:
            spawn(program, words, [], CLONE_NEWPID, [])
        assert (raised.value.call, raised.value.errno) == ("execveat", number)
        assert (descriptors(), children()) == before
    finally:
        os.close(program)


def test_a_descriptor_to_keep_that_is_not_open_is_an_error(way, pipes):
    pipes.program = executable(image([], pipes.errors))
    before = descriptors(), children()
    with pytest.raises(KernelError) as raised:
        spawn(pipes.program, [b"sh"], [], 0, [pipes.errors, 1000])
    assert (raised.value.call, raised.value.errno) == ("execveat", errno.EBADF)
    assert (descriptors(), children()) == before
    with pytest.raises(ValueError):
        spawn(pipes.program, [b"sh"], [], 0, [-1, pipes.errors])


@pytest.mark.parametrize("user", [0, PLAIN_USER])
def test_in_a_new_user_namespace_it_keeps_all_capabilities(way, user):
    """Until its ids are mapped, which its user may do when the program is readable."""

    def attempt():
        if user:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            syscall("prctl", 4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: reset by the change of ids
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made = Pipes()
        rows = [
            Row("recvfrom", (theirs.fileno(), 0, 0, 0, 0, 0)),  # the table is read-only: the message itself is dropped
            Row("sethostname", (b"inside", 6)),
            Row("setresuid", (0, 0, 0)),
        ]
        started = made.start(
            rows,
            b"-c",
            b"id -u; uname -n",
            flags=CLONE_NEWUSER | CLONE_NEWUTS,
            keep=[theirs.fileno()],
            mode=0o511,
        )
        theirs.close()
        with open(f"/proc/{started[0]}/uid_map", "w") as stream:
            stream.write(f"0 {user} 1")
        ours.send(b"mapped")
        return made.end(*started)

    assert in_child(attempt) == (0, None, "0\ninside\n")


def test_three_hundred_leave_nothing_behind(way):
    others = children()
    program = executable(image([Row("exit_group", (7,))], 2))
    try:
        for turn in range(300):
            pid, pidfd = spawn(program, [b"sh"], [b"A=%d" % turn], CLONE_NEWUTS, [2])
            os.close(pidfd)
            assert os.waitpid(pid, 0) == (pid, 7 << 8)
            if turn == 1:
                before = descriptors(), mappings()
        assert descriptors() == before[0]
        assert mappings() <= before[1] + 3  # of Python's own
    finally:
        os.close(program)
    assert children() == others


def mappings():
    with open("/proc/self/maps") as stream:
        return len(stream.readlines())


def test_the_code_can_t_be_written_to(pipes):
    assert pipes([], b"-c", b"exit 0")[0] == 0
    with open("/proc/self/maps") as stream:
        assert {line.split()[1] for line in stream if "memfd:spawn" in line} == {"r-xp"}


def test_a_thread_is_not_disturbed(pipes):
    """It goes on counting while others are started, and nothing that it made is touched by them."""
    program = executable(image([Row("exit_group", (0,))], 2))
    counted, ended = [0], threading.Event()

    def count():
        while not ended.is_set():
            counted[0] += 1
            held = [bytes([counted[0] % 256]) * 100 for _ in range(20)]
            assert held == [bytes([counted[0] % 256]) * 100] * 20

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(200):
            seen = counted[0]
            pid, pidfd = spawn(program, [b"sh"], [], 0, [2])
            os.close(pidfd)
            assert os.waitpid(pid, 0)[1] == 0
        assert thread.is_alive()
        assert counted[0] >= seen > 0
    finally:
        ended.set()
        thread.join()
        os.close(program)


def test_it_is_born_in_the_control_group(way, pipes):
    """With a descriptor that is no group the kernel says so: it was asked."""
    folder = os.open("/usr", os.O_RDONLY | os.O_DIRECTORY)
    pipes.program = executable(image([], pipes.errors))
    try:
        with pytest.raises(KernelError) as raised:
            spawn(pipes.program, [b"sh"], [], 0, [], folder)
        assert (raised.value.call, raised.value.errno) == ("clone3", errno.EBADF)
    finally:
        os.close(folder)


WITH_CTYPES = """
import builtins, os
usual = builtins.__import__
def other(name, globals=None, *more):
    if name == "_ctypes" and globals is None:  # not by a statement of the public module's
        raise ImportError(name)
    return usual(name, globals, *more)
builtins.__import__ = other
from tarbox.kernel import runner, syscall
assert syscall._native.__name__ == "ctypes"
from tarbox.plan.step import Row
for attempt in range(2):
    program = runner.executable(runner.image([Row("exit_group", (7,))], 2))
    pid, pidfd = runner.spawn(program, [b"x"], [], 0, [2])
    assert os.waitpid(pid, 0)[1] == 7 << 8
    assert runner._native
    try:
        runner.spawn(0, [b"x"], [], 0, [2])
    except runner.KernelError as error:
        print(error.call, error.errno)
"""


def test_the_public_ctypes_serves_as_well():
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(source.PACKAGE.parent)!r})\n" + WITH_CTYPES],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, f"execveat {errno.EACCES}\n" * 2), done.stderr


# --- The other processor ----------------------------------------------------------------------------------------------

AROUND = """
        .globl  _start
        .text
_start: adr     x0, args
        mov     x1, #88
        adr     x2, what
        bl      spawn
        .balign 8
args:   .quad   {flags}
what:   .quad   {program}, argv, envp, 0, {keep}, {keep}, -1
argv:   .quad   0
envp:   .quad   0
spawn:
"""
SCHED_YIELD = 124


@pytest.mark.parametrize("flags", [0, CLONE_NEWUSER], ids=["descriptors", "capabilities"])
def test_aarch64_makes_the_same_calls_in_the_child(tmp_path, flags):
    """The emulator has neither clone3 nor execveat: a call that returns 0 stands for the one, the other fails."""
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not qemu or not shutil.which("aarch64-linux-gnu-ld"):
        pytest.skip("qemu-aarch64 or its binutils aren't installed (Debian: qemu-user-static)")
    text = (testhost.CHECKOUT / "src" / "tarbox" / "kernel" / "spawn-aarch64.S").read_text()
    assert "CLONE3, 435" in text
    text = text.replace("CLONE3, 435", f"CLONE3, {SCHED_YIELD}")
    kept = os.open("/usr", os.O_PATH)
    try:
        (tmp_path / "around.S").write_text(AROUND.format(flags=flags, program=1000, keep=kept) + text)
        made, linked = tmp_path / "around.o", tmp_path / "around"
        subprocess.run(["aarch64-linux-gnu-as", "-o", made, tmp_path / "around.S"], check=True)
        link = ["aarch64-linux-gnu-ld", "--no-warn-rwx-segments", "-N", "-o", linked, made]
        subprocess.run(link, check=True)
        command = ["unshare", "--user", "--map-root-user", qemu, "-strace", linked]  # where it has all capabilities
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, pass_fds=[kept], timeout=60)
    finally:
        os.close(kept)
    calls = [line.split(" ", 1)[1] for line in done.stderr.splitlines() if "(" in line]
    symbols = subprocess.run(["aarch64-linux-gnu-nm", linked], check=True, capture_output=True, text=True).stdout
    at = {name: int(address, 16) for address, _, name in map(str.split, symbols.splitlines())}
    assert calls[0].startswith(f"sched_yield({at['args']},88,{at['what']},")
    calls = calls[1:]
    if flags:
        assert calls[0] == f"capset({at['version']:#x},{at['version'] + 8:#x}) = 0"
        raised = [call for call in calls if call.startswith("prctl(")]
        assert calls[1 : len(raised) + 1] == raised
        assert raised[:-1] == [f"prctl(47,2,{number},0,0,0) = 0" for number in range(len(raised) - 1)]
        assert len(raised) > 38
        assert "errno=22" in raised[-1]
        calls = calls[len(raised) + 1 :]
    assert calls[0] == "close_range(3,4294967295,4) = 0"
    assert calls[1:3] == [f"fcntl({kept},F_SETFD,0) = 0"] * 2
    assert calls[3].startswith(f"execveat(1000,{at['empty']},{at['argv']},{at['envp']},4096,")
    assert calls[4:] == ["exit(127)"]
    assert done.returncode == 127
