"""System calls that lead into the kernel, from inside of a container: natively, as i386 and as x32.

Each is tried by each way of calling that the machine has, against the error that is expected; and each way of calling
still does honest work. CVE-2026-31431 came in through a socket family, others through io_uring and keyrings.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from kernel.attacks import tools

pytestmark = pytest.mark.unhurried

EPERM, ENOSYS = 1, 38
HEADERS = {"native": "unistd_64.h", "i386": "unistd_32.h", "x32": "unistd_x32.h"}
OPTIONS = {"native": (), "i386": ("-m32",), "x32": ("-DX32",)}
WAYS = tuple(HEADERS) if platform.machine() == "x86_64" else ("native",)

# What is refused in a container as it is, by the errno. Docker's profile lets some through and leaves them to the
# capabilities: the error is the same.
_DENIED = """
    io_uring_setup io_uring_enter io_uring_register userfaultfd keyctl add_key request_key bpf perf_event_open
    kexec_load kexec_file_load open_by_handle_at mount umount2 pivot_root setns init_module finit_module
    delete_module swapon swapoff reboot settimeofday clock_settime acct iopl ioperm quotactl quotactl_fd
    nfsservctl lookup_dcookie vm86 vm86old move_pages fanotify_init fsopen fsmount fsconfig fspick move_mount
    open_tree mount_setattr sethostname setdomainname syslog create_module query_module get_kernel_syms uselib
    ustat sysfs vhangup kcmp pidfd_getfd process_madvise bdflush stime _sysctl
"""
REFUSED = {"clone3": ENOSYS, **dict.fromkeys(_DENIED.split(), EPERM)}
ARGUMENTS = {"io_uring_setup": "1, 0, 0", "syslog": "10, 0, 0", "unshare": "0x10000000, 0, 0"}
# (name, arguments, errno): what depends on an argument.
BY_ARGUMENT = [
    ("unshare", "0x10000000, 0, 0", EPERM), ("unshare", "0x00020000, 0, 0", EPERM),
    ("unshare", "0x40000000, 0, 0", EPERM),
    ("clone", "0x10000011, 0, 0", EPERM), ("clone", "0x00020011, 0, 0", EPERM),
    ("socket", "38, 5, 0", EPERM), ("socket", "40, 1, 0", EPERM), ("personality", "0x0040000, 0, 0", EPERM),
]  # fmt: skip
HONEST = [
    ("getpid", "0, 0, 0"), ("socket", "2, 1, 0"), ("socket", "1, 1, 0"), ("socket", "10, 1, 0"), ("umask", "18, 0, 0"),
    ("personality", "0xffffffff, 0, 0"), ("sync", "0, 0, 0"), ("sched_yield", "0, 0, 0"),
]  # fmt: skip


def known(way):
    """The calls that this way of calling has, by the kernel's headers."""
    names = [HEADERS[way]] if platform.machine() == "x86_64" else ["unistd.h", "unistd_64.h"]
    found = set()
    for folder in (
        "/usr/include/x86_64-linux-gnu/asm",
        "/usr/include/aarch64-linux-gnu/asm",
        "/usr/include/asm-generic",
    ):
        for name in names:
            if (path := Path(folder, name)).exists():
                found |= set(re.findall(r"^#define __NR_(\w+)", path.read_text(), re.MULTILINE))
    assert len(found) > 200
    return found


def program(way, calls):
    text = " ".join(f"ONE({name}, {arguments})" for name, arguments in calls)
    options = ("-static", "-nostdlib", "-fno-stack-protector", "-fno-pic", "-no-pie", "-fno-builtin", *OPTIONS[way])
    return tools.compiled(Path("calls.c"), *options, f"-DLIST={text}")


def made(tarbox, rootfs, way, calls, *options):
    """The errno of each call in a container, in order."""
    tools.install(rootfs / "bin/calls", program(way, calls))
    done = tarbox("run", "--rm", *options, rootfs, "calls")
    if way == "i386" and done.returncode == 126:
        pytest.skip("this kernel runs no 32-bit programs")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == [name for name, _ in calls]
    return [int(errno) for _, errno in lines]


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.mark.parametrize("options", [(), ("-u", "guest"), ("--cap-drop", "ALL"), ("--init",)], ids=" ".join)
def test_what_leads_into_the_kernel_is_refused(tarbox, rootfs_busybox, way, options):
    there = known(way)
    wanted = {name: errno for name, errno in REFUSED.items() if name in there}
    assert len(wanted) > 40
    calls = [(name, ARGUMENTS.get(name, "0, 0, 0")) for name in wanted]
    found = dict(zip(wanted, made(tarbox, rootfs_busybox, way, calls, *options), strict=True))
    assert {name: errno for name, errno in found.items() if errno != wanted[name]} == {}


def test_what_depends_on_an_argument_is_refused(tarbox, rootfs_busybox, way):
    found = made(tarbox, rootfs_busybox, way, [(name, arguments) for name, arguments, _ in BY_ARGUMENT])
    assert found == [errno for _, _, errno in BY_ARGUMENT]


def test_honest_calls_work(tarbox, rootfs_busybox, way):
    """x32 programs can't be had from the kernels of most distributions, which is no fault of the filter's."""
    found = made(tarbox, rootfs_busybox, way, HONEST)
    assert found == [0] * len(HONEST) or (way == "x32" and set(found) == {ENOSYS}), dict(
        zip(HONEST, found, strict=True)
    )


@pytest.mark.skipif("i386" not in WAYS, reason="this machine has one way of calling")
def test_sockets_of_i386_work_by_both_calls(tarbox, rootfs_busybox):
    """Old programs have a single call for all that sockets do, whose arguments no filter can see."""
    found = made(tarbox, rootfs_busybox, "i386", [("socketcall", "1, inet, 0"), ("socket", "2, 1, 0")])
    assert found == [0, 0]


def test_numbers_from_the_future_do_not_exist(tarbox, rootfs_busybox, way):
    assert made(tarbox, rootfs_busybox, way, [("getpid+900", "0, 0, 0"), ("getpid+5000", "0, 0, 0")]) == [ENOSYS] * 2


def test_the_filter_is_what_refuses(tarbox, rootfs_busybox):
    """With the right they need and without the filter some of these get further: so the table above means something."""
    calls = [("unshare", "0x00020000, 0, 0"), ("clone3", "0, 0, 0"), ("keyctl", "0, -3, 0"), ("userfaultfd", "1, 0, 0")]
    assert made(tarbox, rootfs_busybox, "native", calls)[0] == EPERM
    found = made(tarbox, rootfs_busybox, "native", calls, "--privileged")
    assert found[0] == 0
    assert found[1] == 22  # EINVAL: there is such a call, and its arguments are wrong
    assert found[2] == 0
