"""The runner on the real kernel: what it reports, what it leaves open, that nobody can change it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from entered import CLOSE, SH, Started, ending
from tarbox.kernel import runner_image, syscall
from tarbox.kernel.runner import enter, executable, image, read_report
from tarbox.plan.step import ANY, Register, Row


@pytest.fixture
def launch(tmp_path):
    """Runs the words through enter(): launch(rows, "/bin/sh", "-c", …) gives (code, report, output)."""
    return lambda *arguments, **options: Started(tmp_path, *arguments, **options).wait()


both_ways = pytest.mark.parametrize("init", [False, True], ids=["alone", "init"])

# --- What is reported -------------------------------------------------------------------------------------------------


@both_ways
def test_the_program_runs_with_its_arguments_environment_and_exit_code(launch, init):
    script = 'echo "$0" "$1" "$A" "$B"; exit 7'
    done = launch(CLOSE, "name", "-c", script, "zero", "one", path=SH, env=("A=x y", "B="), init=init)
    assert done == (7, None, "zero one x y \n")


@both_ways
def test_a_failing_row_is_reported_and_nothing_after_it_happens(launch, init, tmp_path):
    unwanted = tmp_path / "unwanted"
    rows = [Row("chdir", (b"/",)), Row("chdir", (b"/no/such/folder",)), Row("chdir", (b"/tmp",)), *CLOSE]
    code, report, output = launch(rows, SH, "-c", f"touch {unwanted}", init=init)
    assert (code, report, output) == (126, (1, errno.ENOENT), "")
    assert not unwanted.exists()


@both_ways
def test_an_optional_row_may_fail(launch, init):
    rows = [Row("chdir", (b"/no/such/folder",), optional=True), Row("chdir", (b"/usr",)), *CLOSE]
    assert launch(rows, SH, "-c", "pwd", init=init) == (0, None, "/usr\n")


@both_ways
def test_a_missing_program_is_reported_with_its_row(launch, init):
    assert launch(CLOSE, "/no/such/program", init=init) == (126, (1 + init, errno.ENOENT), "")


@both_ways
@pytest.mark.parametrize(
    ("mode", "text", "number"),
    [(0o644, "#!/bin/sh\n", errno.EACCES), (0o755, "no program\n", errno.ENOEXEC), (0o755, "", errno.ENOEXEC)],
    ids=["not executable", "no shebang", "empty"],
)
def test_what_is_no_program_is_126(launch, tmp_path, init, mode, text, number):
    target = tmp_path / "target"
    target.write_text(text)
    target.chmod(mode)
    assert launch(CLOSE, str(target), init=init) == (126, (1 + init, number), "")


def test_an_argument_list_that_is_too_long_is_an_error_in_python(launch):
    code, report, output = launch(CLOSE, SH, *["x" * 100_000] * 100)
    assert (code, report) == (99, None)
    assert output.startswith("KernelError: execveat(")
    assert os.strerror(errno.E2BIG) in output


def test_rows_pass_numbers_addresses_and_negative_numbers(launch):
    """A table of many rows of which each is seen to have had its effect."""
    rows = [
        Row("chdir", (b"/usr/share",)),
        *[Row("prctl", (15, b"name%d" % index, 0, 0, 0)) for index in range(200)],
        Row("setgroups", (2, (7).to_bytes(4, "little") + (4_000_000_000).to_bytes(4, "little"))),
        Row("setresgid", (-1, 123, -1)),
        *CLOSE,
    ]
    look = "import os; print(os.getcwd(), os.getresgid(), os.getgroups(), open('/proc/self/comm').read().strip())"
    code, report, output = launch(rows, sys.executable, "-I", "-S", "-c", look)
    assert (code, report) == (0, None)
    assert output == f"/usr/share (0, 123, 123) [7, 4000000000] {Path(sys.executable).name[:15]}\n"


# --- Registers, and rows that are passed over -------------------------------------------------------------------------


@pytest.fixture(params=["here", "aarch64"])
def shell(request, launch):
    """Runs rows and then a shell: shell(rows, script) gives (code, report, output)."""
    if request.param == "here":
        return lambda rows, script: launch(rows, SH, "-c", script)
    other = request.getfixturevalue("aarch64")
    return lambda rows, script: other([*rows, *ending(SH)], SH, "-c", script)


def directory(path, **options):
    return Row("openat", (-100, path, os.O_PATH | os.O_DIRECTORY, 0), **options)


def test_a_stored_result_is_an_argument_of_later_rows(shell):
    """Each register keeps its own, and an argument that isn't a register may have the number of one."""
    first, last = Register(2), Register(63)
    rows = [
        Row("dup3", (1, 8, 0)),
        directory(b"/usr/share", store=2),
        directory(b"/usr/lib", store=63),
        Row("fchdir", (first,)),
        Row("dup3", (last, 9, 0)),
    ]
    script = "exec 1>&8; pwd; cd /proc/self/fd/9; pwd -P"
    code, report, output = shell(rows, script)
    assert (code, report) == (0, None)
    assert output.split() == ["/usr/share", str(Path("/usr/lib").resolve())]


@pytest.mark.parametrize(
    ("place", "value", "number"),
    [(0, 0, 0), (1, 0, errno.EINVAL), (2, 3, errno.EACCES), (3, 0, errno.EINVAL), (4, 99, errno.EBADF),
     (5, 1, errno.EINVAL)],
)  # fmt: skip
def test_every_argument_can_be_a_register(shell, place, value, number):
    """Of a call that takes six, made with one of them wrong: mmap(0, 100, PROT_READ, MAP_SHARED, a file, 0)."""
    rows = [Row("openat", (-100, b"/etc/passwd", os.O_RDONLY, 0), store=14)]
    for at, good in enumerate((0, 100, 1, 1, None, 0)):
        number_there = value if at == place else good
        if number_there is not None:  # umask returns what the one before it was given
            rows += [Row("umask", (number_there,)), Row("umask", (0,), store=10 + at)]
    rows.append(Row("mmap", tuple(Register(10 + at) for at in range(6))))
    failed = (len(rows) - 1, number) if number else None
    assert shell(rows, "")[1] == failed


def test_what_fails_is_not_stored(shell):
    rows = [
        directory(b"/usr", store=5),
        directory(b"/no", store=5, on=((errno.ENOENT, 0),)),
        Row("fchdir", (Register(5),)),
    ]
    assert shell(rows, "pwd") == (0, None, "/usr\n")


def test_rows_are_passed_over_on_success(shell):
    wrong = Row("chdir", (b"/no",))
    rows = [Row("chdir", (b"/usr",), skip=2), wrong, wrong, Row("chdir", (b"lib",), skip=0)]
    assert shell(rows, "basename $PWD") == (0, None, "lib\n")


@pytest.mark.parametrize(
    ("path", "on", "expected"),
    [
        (b"/no", ((errno.ENOENT, 1),), "/usr"),
        (b"/no", ((errno.ENOTDIR, 0), (errno.ENOENT, 1)), "/usr"),
        (b"/etc/passwd", ((errno.ENOTDIR, 0), (errno.ENOENT, 1)), "/"),
        (b"/no", ((ANY, 1),), "/usr"),
        (b"/etc/passwd", ((errno.ENOENT, 0), (ANY, 1)), "/usr"),
        (b"/no", ((errno.ENOENT, 0), (ANY, 1)), "/"),
        (b"/usr", ((ANY, 1),), "/"),
    ],
)
def test_rows_are_passed_over_at_errnos_that_a_row_names(shell, path, on, expected):
    rows = [Row("chdir", (path,), on=on), Row("chdir", (b"/",), skip=1), Row("chdir", (b"/usr",))]
    assert shell(rows, "pwd") == (0, None, expected + "\n")


def test_an_errno_that_a_row_does_not_name_is_reported(shell):
    rows = [Row("chdir", (b"/usr",), skip=1), *CLOSE, Row("chdir", (b"/no",), on=((errno.EPERM, 0), (errno.EIO, 0)))]
    assert shell(rows, "pwd") == (126, (2, errno.ENOENT), "")


def test_most_rows_that_can_be_passed_over(shell):
    rows = [Row("chdir", (b"/usr",), skip=255), *[Row("chdir", (b"/no",))] * 255]
    assert shell(rows, "pwd") == (0, None, "/usr\n")


@both_ways
def test_a_table_that_ends_without_a_program_ends_in_126(launch, tmp_path, init):
    target = tmp_path / "target"
    target.write_text("no program")
    code, report, _ = launch([*CLOSE, *ending("/no", init)[:-1], Row("chdir", (b"/",), skip=1)], SH)
    assert (code, report) == (126, None)


# --- Several programs to choose from ----------------------------------------------------------------------------------


@both_ways
def test_the_first_program_that_is_there_is_executed(launch, tmp_path, init):
    """Missing ones, those that may not be executed and those below a file are passed over, as in a shell."""
    (tmp_path / "plain").write_text("")
    for name, mode in (("one", 0o644), ("two", 0o755)):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} $*\n")
        (tmp_path / name).chmod(mode)
    candidates = ["/no", tmp_path / "plain" / "x", tmp_path / "one", tmp_path / "two", "/bin/false"]
    assert launch(CLOSE, "name", "a", path=candidates, init=init) == (0, None, "two a\n")


def test_the_last_program_s_error_is_reported(launch):
    code, report, _ = launch(CLOSE, "name", path=["/no", "/etc/passwd", "/etc/passwd/x"])
    assert (code, report) == (126, (5, errno.ENOTDIR))


def test_a_program_that_is_none_is_not_passed_over(launch, tmp_path):
    target = tmp_path / "target"
    target.write_text("no program")
    target.chmod(0o755)
    code, report, _ = launch(CLOSE, "name", path=["/no", target, "/bin/true"])
    assert (code, report) == (126, (4, errno.ENOEXEC))


# --- Process 1 in the middle ------------------------------------------------------------------------------------------


def test_rows_after_init_are_the_child_s(shell):
    """Its process stays behind, in the folder where it was."""
    rows = [Row("chdir", (b"/usr",)), Row("init", ()), Row("chdir", (b"/",)), *CLOSE]
    assert shell(rows, "pwd; readlink /proc/$PPID/cwd; exit 5") == (5, None, "/\n/usr\n")


def test_registers_stay_across_init(shell):
    rows = [directory(b"/usr", store=40), Row("init", ()), Row("fchdir", (Register(40),)), *CLOSE]
    assert shell(rows, "pwd") == (0, None, "/usr\n")


def test_a_row_of_the_child_s_that_fails_is_reported(shell):
    rows = [Row("init", ()), Row("chdir", (b"/",)), Row("chdir", (b"/no",))]
    assert shell(rows, "pwd") == (126, (2, errno.ENOENT), "")


# --- What is left open ------------------------------------------------------------------------------------------------


@both_ways
def test_only_the_first_three_descriptors_reach_the_program_and_process_1(launch, init):
    def leak():
        for number in range(100, 120):
            os.dup2(0, number, inheritable=True)

    look = "ls /proc/$$/fd; [ $PPID = 0 ] || ls /proc/$PPID/fd"
    code, report, output = launch(CLOSE, SH, "-c", look, before=leak, init=init, pids=True)
    assert (code, report) == (0, None)
    assert output.split() == ["0", "1", "2"] * (2 if init else 1)


def test_errors_may_have_a_number_below_three(launch):
    """With the standard streams closed, the pipe gets one of their numbers."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(writer, 0)
            enter([*CLOSE, *ending("/no/such/program")], [b"x"], [], 0)
        finally:
            os._exit(99)
    os.close(writer)
    with open(reader, "rb") as stream:
        assert read_report(stream.read()) == (1, errno.ENOENT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 126


def test_kept_descriptors_reach_the_rows(tmp_path):
    reader, writer = os.pipe()
    folder = os.open("/usr/share", os.O_PATH)
    pid = os.fork()
    if not pid:
        try:
            rows = [Row("fchdir", (folder,)), *CLOSE, *ending(SH)]
            enter(rows, [b"sh", b"-c", b'[ "$(pwd)" = /usr/share ]'], [], writer, keep=(folder,))
        finally:
            os._exit(99)
    os.close(writer)
    os.close(folder)
    with open(reader, "rb") as stream:
        assert read_report(stream.read()) is None
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# --- Nobody can change it, and nobody runs it twice -------------------------------------------------------------------


@pytest.mark.parametrize("attempt", ["write", "truncate", "grow", "map"])
def test_the_file_is_sealed(attempt):
    program = image([], 3)
    descriptor = executable(program)
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)  # root may open it, to no avail
    try:
        change = {
            "write": lambda: os.write(again, b"x"),
            "truncate": lambda: os.ftruncate(again, 10),
            "grow": lambda: os.ftruncate(again, 1 << 20),
            "map": lambda: mmap.mmap(again, len(program), mmap.MAP_SHARED, mmap.PROT_WRITE),
        }
        with pytest.raises(PermissionError):
            change[attempt]()
        assert os.pread(again, 1 << 20, 0) == program
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert os.fstat(descriptor).st_mode & 0o7777 == 0o111
    finally:
        os.close(again)
        os.close(descriptor)


# What a program can do to the executable of its process 1.
TAMPER = """
import os
print(os.readlink("/proc/1/exe"))
for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
    try:
        os.write(os.open("/proc/1/exe", flags), b"x")
        print("written")
    except OSError as error:
        print(error.strerror)
"""


def test_process_1_is_the_memory_file_and_never_the_interpreter(launch):
    code, _, output = launch(CLOSE, sys.executable, "-I", "-S", "-c", TAMPER, init=True, pids=True)
    assert code == 0
    assert output.splitlines() == ["/memfd:runner (deleted)", *[os.strerror(errno.ETXTBSY)] * 3]


@both_ways
def test_a_second_pass_ends_in_126(launch, tmp_path, init):
    """A program whose interpreter is /proc/self/exe executes the runner again, and gets nothing from it."""
    target = tmp_path / "target"
    target.write_text("#!/proc/self/exe\n")
    target.chmod(0o755)
    assert launch(CLOSE, str(target), init=init) == (126, None, "")


def test_where_memory_files_may_not_be_executed_a_read_only_tmpfs_serves(launch):
    sysctl = Path("/proc/sys/vm/memfd_noexec")
    if not sysctl.exists():
        pytest.skip("this kernel has no vm.memfd_noexec (Linux 6.3)")
    before = sysctl.read_text()

    def forbid():
        sysctl.write_text("2")  # of the new pid namespace

    code, report, output = launch(CLOSE, sys.executable, "-I", "-S", "-c", TAMPER, init=True, pids=True, before=forbid)
    assert (code, report) == (0, None)
    name, *attempts = output.splitlines()
    assert name == "/runner"
    assert set(attempts) <= {os.strerror(errno.EROFS), os.strerror(errno.ETXTBSY)}
    assert sysctl.read_text() == before


def test_the_file_on_tmpfs_can_t_be_changed():
    from tarbox.kernel.runner import _executable_on_tmpfs

    descriptor = _executable_on_tmpfs(image([], 3))
    try:
        path = f"/proc/self/fd/{descriptor}"
        assert os.stat(path).st_mode & 0o7777 == 0o111
        for flags in (os.O_WRONLY, os.O_RDWR):
            with pytest.raises(OSError, match=re.escape(os.strerror(errno.EROFS))):
                os.open(path, flags)
        with pytest.raises(OSError, match=re.escape(os.strerror(errno.EROFS))):
            os.chmod(path, 0o777)
    finally:
        os.close(descriptor)


# --- The other processor ----------------------------------------------------------------------------------------------


@pytest.fixture
def aarch64(tmp_path, monkeypatch):
    """Runs an aarch64 image in QEMU: aarch64(rows, *words) gives (code, report, output)."""
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not qemu:
        pytest.skip("qemu-aarch64 isn't installed (Debian: qemu-user-static)")
    monkeypatch.setattr(runner_image, "MACHINE", "aarch64")
    monkeypatch.setattr(syscall, "NUMBERS", {**syscall._NUMBERS["aarch64"], **syscall._COMMON})

    def run(rows, *words):
        reader, writer = os.pipe()
        program = tmp_path / "runner"
        program.write_bytes(image(rows, writer))
        program.chmod(0o755)
        command = [qemu, "-0", words[0], program, *words[1:]]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[writer], env={"A": "1"})
        os.close(writer)
        with open(reader, "rb") as stream:
            report = stream.read()
        output = child.communicate(timeout=60)[0].decode()
        return child.returncode, read_report(report), output

    return run


@both_ways
def test_aarch64_runs_rows_and_the_program(aarch64, init):
    rows = [Row("chdir", (b"/no",), optional=True), Row("chdir", (b"/usr",)), *CLOSE, *ending(SH, init)]
    assert aarch64(rows, "sh", "-c", "pwd; echo $A; exit 7") == (7, None, "/usr\n1\n")


@both_ways
def test_aarch64_reports_failures(aarch64, init):
    rows = [Row("chdir", (b"/usr",)), Row("chdir", (b"/no",)), *ending(SH, init)]
    assert aarch64(rows, "sh") == (126, (1, errno.ENOENT), "")
    assert aarch64([*CLOSE, *ending("/no/such/program", init)], "x") == (126, (1 + init, errno.ENOENT), "")
    assert aarch64([*CLOSE, *ending("/etc/passwd", init)], "x") == (126, (1 + init, errno.EACCES), "")


def test_aarch64_as_process_1_ends_as_its_child_ends(aarch64):
    rows = [*CLOSE, *ending(SH, init=True)]
    assert aarch64(rows, "sh", "-c", "kill -9 $$")[0] == 128 + signal.SIGKILL
    assert aarch64(rows, "sh", "-c", "(sleep 0.1 &); sleep 0.3; exit 5")[0] == 5
