"""The default filter on the real kernel: what it refuses, natively and as i386 and x32, and what still works."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rows import failure, in_child, perform
from tarbox.engine import defaults
from tarbox.kernel import capabilities, seccomp
from tarbox.kernel.capabilities import Capabilities
from tarbox.kernel.no_new_privs import NoNewPrivileges
from tarbox.kernel.syscall import MACHINE, NUMBERS
from tarbox.kernel.system_calls import X32_BIT, numbers
from tarbox.plan.step import Slots

EPERM, ENOSYS, EINVAL, EFAULT = 1, 38, 22, 14
DEFAULT = capabilities.mask(defaults.CAPABILITIES)
SLOTS = Slots()
X86 = pytest.mark.skipif(MACHINE != "x86_64", reason="the ways of calling of x86-64")


def load(cache, given: int = DEFAULT, profile: str = "default") -> None:
    step = seccomp.LoadSeccomp(profile, *seccomp.load(profile, given, str(cache)))
    perform(NoNewPrivileges().rows(SLOTS) + step.rows(SLOTS))


def probe(name: str, *arguments: int) -> int:
    NUMBERS.setdefault(name, numbers(MACHINE)[name])
    return failure(name, *arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("unshare", (0x10000000,), EPERM), ("clone3", (0, 0), ENOSYS), ("keyctl", (0, -3, 0), EPERM),
        ("add_key", (0, 0, 0, 0, 0), EPERM), ("bpf", (0, 0, 0), EPERM), ("io_uring_setup", (1, 0), EPERM),
        ("userfaultfd", (0,), EPERM), ("mount", (0, 0, 0, 0, 0), EPERM), ("open_tree", (-1, 0, 0), EPERM),
        ("perf_event_open", (0, 0, 0, 0, 0), EPERM), ("setns", (-1, 0), EPERM), ("syslog", (10, 0, 0), EPERM),
        ("socket", (40, 1, 0), EPERM), ("socket", (38, 5, 0), EPERM), ("socket", (1 << 32 | 38, 5, 0), EPERM),
        ("socket", (1 << 32 | 40, 1, 0), EPERM), ("socket", (1 << 63 | 40, 1, 0), EPERM),
        ("personality", (0x0040000,), EPERM), ("personality", (0xFFFFFFFF,), 0), ("personality", (0,), 0),
        ("clone", (0x10000000 | 17, 0, 0, 0, 0), EPERM), ("pivot_root", (0, 0), EPERM),
        ("getpid", (), 0), ("socket", (1, 1, 0), 0), ("socket", (2, 1, 0), 0), ("openat", (-1, 0, 0), EFAULT),
    ],
)  # fmt: skip
def test_probes(tmp_path, name, arguments, expected):
    def body():
        load(tmp_path)
        return probe(name, *arguments)

    assert in_child(body) == expected


def test_a_call_from_the_future_does_not_exist(tmp_path):
    def body():
        load(tmp_path)
        NUMBERS["future"] = 900
        return failure("future")

    assert in_child(body) == ENOSYS


def test_honest_programs_run_under_it(tmp_path):
    """Fork, threads, pipes, sockets, signals, other programs."""
    script = (
        "import subprocess, threading, socket, os, time;"
        "t = threading.Thread(target=time.sleep, args=(0.01,)); t.start(); t.join();"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x';"
        "assert subprocess.run(['/bin/sh', '-c', 'echo ok | cat'], capture_output=True).stdout == b'ok\\n';"
        "os.memfd_create('m'); print('fine')"
    )

    def body():
        load(tmp_path)
        done = subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", script], capture_output=True)
        return done.returncode, done.stdout, done.stderr

    assert in_child(body) == (0, b"fine\n", b"")


def test_with_sys_admin_it_lets_namespaces_be_made(tmp_path):
    def body():
        load(tmp_path, DEFAULT | capabilities.SYS_ADMIN)
        return probe("unshare", 0x00020000), probe("keyctl", 0, -3, 0)

    assert in_child(body) == (0, EPERM)


def test_without_no_new_privs_it_needs_sys_admin(tmp_path):
    rows = seccomp.LoadSeccomp("default", *seccomp.load("default", DEFAULT, str(tmp_path))).rows(SLOTS)

    def with_it():
        perform(rows)
        perform(Capabilities(DEFAULT, DEFAULT).rows(SLOTS))  # later rows pass the filter
        return probe("unshare", 0x10000000)

    def without():
        perform(Capabilities(DEFAULT, DEFAULT).rows(SLOTS))
        perform(rows)

    assert in_child(with_it) == EPERM
    with pytest.raises(AssertionError, match="seccomp"):
        in_child(without)


def test_a_profile_of_ones_own(tmp_path):
    profile = tmp_path / "no-mkdir.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":'
        ' [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}'
    )

    def body():
        load(tmp_path / "cache", profile=str(profile))
        return failure("unshare", 0x00020000), subprocess.run(["mkdir", f"{tmp_path}/x"], capture_output=True).stderr

    code, said = in_child(body)
    assert code == 0
    assert b"Permission denied" in said
    assert not (tmp_path / "x").exists()


# --- The other ways of calling on x86-64 -----------------------------------------------------------------------------


@X86
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [("unshare", (0x10000000,), EPERM), ("clone3", (0, 0), ENOSYS), ("socket", (1 << 32 | 40, 1, 0), EPERM),
     ("keyctl", (0, -3, 0), EPERM), ("mount", (0, 0, 0, 0, 0), EPERM)],
)  # fmt: skip
def test_x32_does_not_slip_through(tmp_path, name, arguments, expected):
    def body():
        load(tmp_path)
        NUMBERS["x32"] = numbers("x32")[name]
        return failure("x32", *arguments)

    assert in_child(body) == expected


@X86
def test_x32_kills_where_it_is_not_listed(tmp_path):
    profile = tmp_path / "p.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}')

    def body():
        load(tmp_path / "cache", profile=str(profile))
        NUMBERS["x32"] = X32_BIT | 39
        return failure("x32")

    assert in_child(body) == ("killed", 31)


I386 = r"""
/* Calls by `int 0x80` with the numbers given as arguments, and prints what each returns. */
typedef unsigned u;
static int call(u n, u a, u b, u c) {
    int r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return r;
}
static void show(int value) {
    char text[12]; int at = 11; u left = value < 0 ? -value : value;
    text[at] = '\n';
    do { text[--at] = '0' + left % 10; left /= 10; } while (left);
    if (value < 0) text[--at] = '-';
    call(4, 1, (u)text + at, 12 - at);
}
void _start(void) {
    u inet[3] = {2, 1, 0};
    show(call(20, 0, 0, 0) > 0);            /* getpid */
    show(call(310, 0x10000000, 0, 0));      /* unshare */
    show(call(435, 0, 0, 0));               /* clone3 */
    show(call(288, 0, -3, 0));              /* keyctl */
    show(call(359, 40, 1, 0));              /* socket: AF_VSOCK */
    show(call(359, 38, 5, 0));              /* socket: AF_ALG */
    show(call(359, 2, 1, 0) > 0);           /* socket: AF_INET */
    show(call(102, 1, (u)inet, 0) > 0);     /* socketcall: AF_INET */
    show(call(900, 0, 0, 0));               /* a call from the future */
    show(call(425, 1, 0, 0));               /* io_uring_setup */
    call(1, 0, 0, 0);
}
"""


@X86
def test_i386_is_filtered_and_its_sockets_work(tmp_path):
    if not shutil.which("gcc"):
        pytest.skip("gcc makes the 32-bit program")
    source, program = tmp_path / "i386.c", tmp_path / "i386"
    source.write_text(I386)
    command = ["gcc", "-m32", "-O1", "-nostdlib", "-static", "-fno-pic", "-no-pie", "-fno-stack-protector"]
    made = subprocess.run([*command, "-o", program, source], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    try:
        free = subprocess.run([program], capture_output=True, check=True).stdout.split()
    except OSError:
        pytest.skip("this kernel runs no 32-bit programs")
    assert free[0] == b"1"

    def body():
        load(tmp_path / "cache")
        done = subprocess.run([program], capture_output=True)
        return done.returncode, done.stdout.split()

    assert in_child(body) == (0, [b"1", b"-1", b"-38", b"-1", b"-1", b"-1", b"1", b"1", b"-38", b"-1"])


def test_without_the_filter_these_calls_get_further():
    """So the refusals above are the filter's. Of a socket's family the kernel looks at 32 bits."""

    def body():
        return [probe("socket", 1 << 32 | 2, 1, 0), probe("clone3", 0, 0), probe("unshare", 0x10000000)]

    assert in_child(body) == [0, EINVAL, 0]
