"""Honest programs that a simpler last step would break, and beside each the dishonest one that must fail.

A stub that gives up privileges first and is then executed itself, a stub that executes by descriptor, a filter loaded
too early: each breaks some program here.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import sys

import pytest

from entered import CLONE_NEWNS, CLOSE, SH, Started
from tarbox.kernel import syscall
from tarbox.plan.step import Filter, Row

CAP_DAC_OVERRIDE = 1
PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 8, 38
NO_NEW_PRIVILEGES = Row("prctl", (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


@pytest.fixture
def launch(tmp_path):
    """Runs the words through enter(): launch(rows, "/bin/sh", "-c", …) gives (code, report, output)."""
    return lambda *arguments, **options: Started(tmp_path, *arguments, **options).wait()


@pytest.fixture
def busybox(tmp_path):
    """A static program of its own, in a folder that only root may enter."""
    found = shutil.which("busybox")
    if not found:
        pytest.skip("busybox isn't installed (Debian: busybox-static)")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    return shutil.copy(found, folder / "busybox")


def become(user: int) -> list[Row]:
    return [Row("setresgid", (user,) * 3), Row("setresuid", (user,) * 3)]


def capabilities(mask: int) -> Row:
    header = struct.pack("<II", 0x20080522, 0)
    return Row("capset", (header, struct.pack("<6I", mask, mask, 0, 0, 0, 0)))


def refusing(call: str) -> Filter:
    """A filter under which one system call fails with EPERM."""
    instructions = [
        (0x20, 0, 0, 0),  # load the number
        (0x15, 0, 1, syscall.NUMBERS[call]),
        (0x06, 0, 0, 0x00050000 | errno.EPERM),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    return Filter(b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions))


# --- Where the program lies -------------------------------------------------------------------------------------------


def test_a_plain_user_with_the_capability_reaches_a_program_in_a_closed_folder(launch, busybox):
    """The capability is in effect when the program is looked up, though the program itself isn't given it."""
    keep = Row("prctl", (PR_SET_KEEPCAPS, 1, 0, 0, 0))
    rows = [keep, *become(1000), capabilities(1 << CAP_DAC_OVERRIDE), *CLOSE]
    assert launch(rows, "id", "-u", path=busybox) == (0, None, "1000\n")


def test_a_plain_user_without_it_does_not(launch, busybox):
    assert launch([*become(1000), *CLOSE], "id", "-u", path=busybox) == (126, (3, errno.EACCES), "")


def test_a_program_on_a_noexec_mount_is_126(launch, busybox, tmp_path):
    place = tmp_path / "noexec"
    place.mkdir()

    def mount():
        syscall.syscall("unshare", CLONE_NEWNS)
        syscall.syscall("mount", None, b"/", None, 0x44000, None)  # MS_PRIVATE | MS_REC
        syscall.syscall("mount", b"tmpfs", os.fsencode(place), b"tmpfs", 8, None)  # MS_NOEXEC
        shutil.copy(busybox, place / "busybox")

    assert launch(CLOSE, "true", path=place / "busybox", before=mount) == (126, (1, errno.EACCES), "")


# --- Filters ----------------------------------------------------------------------------------------------------------

BY_DESCRIPTOR = """
import os
try:
    os.execve(os.open("/bin/true", os.O_RDONLY), ["true"], {})
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize("init", [False, True], ids=["alone", "init"])
def test_a_filter_may_refuse_execveat(launch, init):
    """The runner itself is executed by descriptor, but before; the filter is the last row, and works."""
    rows = [NO_NEW_PRIVILEGES, *CLOSE, Row("seccomp", (1, 0, refusing("execveat")))]
    done = launch(rows, sys.executable, "-I", "-S", "-c", BY_DESCRIPTOR, init=init)
    assert done == (0, None, os.strerror(errno.EPERM) + "\n")


def test_a_filter_that_refuses_execve_is_reported(launch):
    rows = [*CLOSE, Row("seccomp", (1, 0, refusing("execve")))]
    assert launch(rows, SH) == (126, (2, errno.EPERM), "")


def test_a_filter_that_refuses_write_still_gives_an_exit_code(launch):
    """What is lost is the reason."""
    rows = [*CLOSE, Row("seccomp", (1, 0, refusing("write")))]
    assert launch(rows, "/no/such/program") == (126, None, "")


def test_a_filter_that_the_kernel_refuses_is_reported(launch):
    rows = [*CLOSE, Row("seccomp", (1, 0, Filter(bytes(8))))]
    assert launch(rows, SH) == (126, (1, errno.EINVAL), "")


def test_process_1_that_may_not_block_signals_is_reported(launch):
    """It would never learn of a child's end, and wait for ever."""
    rows = [*CLOSE, Row("seccomp", (1, 0, refusing("rt_sigprocmask")))]
    assert launch(rows, SH, init=True) == (126, (2, errno.EPERM), "")


def test_process_1_that_may_not_fork_is_reported(launch):
    rows = [*CLOSE, Row("seccomp", (1, 0, refusing("clone")))]
    assert launch(rows, SH, init=True) == (126, (2, errno.EPERM), "")


def test_process_1_that_may_not_wait_for_signals_waits_for_processes(launch):
    rows = [*CLOSE, Row("seccomp", (1, 0, refusing("rt_sigtimedwait")))]
    assert launch(rows, SH, "-c", "sleep 0.1; exit 7", init=True) == (7, None, "")


# --- Who it becomes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def set_uid(plain_folder):
    """A set-uid program of root's, where a plain user can reach it."""
    target = shutil.copy("/usr/bin/id", plain_folder / "id")
    plain_folder.chmod(0o755)
    os.chown(target, 0, 0)
    os.chmod(target, 0o4755)
    return target


def test_a_set_uid_program_gains_its_owner(launch, set_uid):
    assert launch([*become(1000), *CLOSE], "id", "-u", path=set_uid) == (0, None, "0\n")


def test_a_set_uid_program_gains_nothing_with_no_new_privileges(launch, set_uid):
    rows = [NO_NEW_PRIVILEGES, *become(1000), *CLOSE]
    assert launch(rows, "id", "-u", path=set_uid) == (0, None, "1000\n")


# --- What it sees of itself -------------------------------------------------------------------------------------------


def test_a_script_gets_its_own_path(launch, tmp_path):
    target = tmp_path / "script"
    target.write_text('#!/bin/sh -e\necho "$0" "$@"\n')
    target.chmod(0o755)
    assert launch(CLOSE, "other", "a", "b c", path=target) == (0, None, f"{target} a b c\n")


def test_a_script_without_an_interpreter_is_reported(launch, tmp_path):
    target = tmp_path / "script"
    target.write_text("#!/no/such/interpreter\n")
    target.chmod(0o755)
    assert launch(CLOSE, "script", path=target) == (126, (1, errno.ENOENT), "")


@pytest.mark.parametrize("init", [False, True], ids=["alone", "init"])
def test_a_program_finds_itself(launch, busybox, init):
    done = launch(CLOSE, "readlink", "/proc/self/exe", path=busybox, init=init)
    assert done == (0, None, f"{busybox}\n")


def test_its_name_may_differ_from_its_path(launch, busybox):
    """busybox is what it is called."""
    assert launch(CLOSE, "echo", "I am", "echo", path=busybox) == (0, None, "I am echo\n")


def test_its_command_line_is_its_own(launch, busybox):
    output = launch(CLOSE, "cat", "/proc/self/cmdline", path=busybox)[2]
    assert output == "cat\0/proc/self/cmdline\0"
    assert launch(CLOSE, "cat", "/proc/self/comm", path=busybox)[2] == "busybox\n"


def test_two_thousand_variables_arrive_in_order(launch, busybox):
    variables = [f"NAME_{index}=value {index} é" for index in range(2000)]
    code, report, output = launch(CLOSE, "env", path=busybox, env=variables)
    assert (code, report) == (0, None)
    assert output.splitlines() == variables


def test_odd_variables_arrive_as_they_are(launch):
    """Without `=`, twice the same, empty, not UTF-8."""
    variables = [b"ALONE", b"A=1", b"A=2", b"", b"B=\xff\n"]
    output = launch(CLOSE, "cat", "/proc/self/environ", path="/bin/cat", env=variables)[2]
    assert os.fsencode(output) == b"".join(variable + b"\0" for variable in variables)


def test_no_variables_and_empty_arguments(launch):
    script = "import sys; print(sys.argv[1:], len(open('/proc/self/environ').read()))"
    assert launch(CLOSE, sys.executable, "-I", "-S", "-c", script, "", "") == (0, None, "['', ''] 0\n")
