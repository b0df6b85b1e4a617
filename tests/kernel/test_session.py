"""A session serves what runs in it: bytes, signals, ends. No terminal here; test_session_terminal.py has those."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from foreground import command

pytestmark = pytest.mark.unhurried

BIG = 200 << 20


def run(*arguments: str | Path, options: str = "", **more) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments, options=options), timeout=60, **more)


def start(*arguments: str | Path, options: str = "", **more) -> subprocess.Popen:
    return subprocess.Popen(command(*arguments, options=options), **({"stdin": subprocess.DEVNULL} | more))


def line(process: subprocess.Popen) -> bytes:
    """The next line of output, which says that the program has come that far."""
    return process.stdout.readline()


@pytest.fixture(scope="module")
def big_file(tmp_path_factory):
    """A file of 200 MB in which no two blocks are equal, and its checksum."""
    path = tmp_path_factory.mktemp("big") / "file"
    digest = hashlib.sha256()
    block = bytearray(os.urandom(1 << 20))
    with path.open("wb") as file:
        for number in range(BIG >> 20):
            block[:8] = number.to_bytes(8, "little")
            file.write(block)
            digest.update(block)
    yield path, digest.hexdigest()
    path.unlink()


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Bytes.


def test_200_mb_go_through_files_on_both_sides(big_file, tmp_path):
    source, expected = big_file
    with source.open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        done = run("cat", options="-i", stdin=stdin, stdout=stdout)
    assert done.returncode == 0
    assert checksum(tmp_path / "out") == expected
    (tmp_path / "out").unlink()


def test_200_mb_go_through_pipes_on_both_sides(big_file):
    source, expected = big_file
    with source.open("rb") as file:
        feeder = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        session = start("cat", options="-i", stdin=feeder.stdout, stdout=subprocess.PIPE)
        feeder.stdout.close()
        found = hashlib.file_digest(session.stdout, "sha256").hexdigest()
    session.stdout.close()
    assert (feeder.wait(10), session.wait(10), found) == (0, 0, expected)


def test_200_mb_go_into_a_named_fifo_with_a_slow_start(big_file, tmp_path):
    source, expected = big_file
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found = []

    def collect() -> None:
        with fifo.open("rb", buffering=1 << 20) as reader:
            time.sleep(0.5)
            found.append(hashlib.file_digest(reader, "sha256").hexdigest())

    reader = threading.Thread(target=collect)
    reader.start()
    with source.open("rb") as stdin, fifo.open("wb") as stdout:
        done = run("cat", options="-i", stdin=stdin, stdout=stdout)
    reader.join(30)
    assert (done.returncode, found) == (0, [expected])


def test_output_and_errors_in_one_file_keep_their_order(tmp_path):
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo out; echo err >&2; done"
    with (tmp_path / "log").open("wb") as log:
        assert run("sh", "-c", script, stdout=log, stderr=log).returncode == 0
    assert (tmp_path / "log").read_text() == "out\nerr\n" * 9


def test_output_is_appended_where_the_callers_file_is(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("ab") as file:
        assert run("echo", "after", stdout=file).returncode == 0
    assert log.read_text() == "before\nafter\n"


def test_what_was_written_last_arrives_when_the_program_has_ended_at_once(tmp_path):
    with (tmp_path / "out").open("wb") as out:
        run("sh", "-c", "head -c 150000 /dev/zero; kill -9 $$", stdout=out)
    assert (tmp_path / "out").stat().st_size == 150000


def test_end_of_input_reaches_the_program(tmp_path):
    (tmp_path / "in").write_bytes(b"word")
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        assert run("sh", "-c", "cat; echo end", options="-i", stdin=stdin, stdout=stdout).returncode == 0
    assert (tmp_path / "out").read_bytes() == b"wordend\n"


def test_input_that_the_program_doesnt_want_holds_nothing_up(big_file):
    with big_file[0].open("rb") as stdin:
        done = run("sh", "-c", "exec <&-; sleep 0.3; echo on", options="-i", stdin=stdin, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"on\n")


def test_without_i_the_program_has_no_input():
    done = run("sh", "-c", "cat; readlink /proc/self/fd/0", input=b"secret", stdout=subprocess.PIPE)
    assert done.stdout == b"/dev/null\n"


def test_a_reader_that_goes_away_ends_the_writer_through_a_pipe():
    session = start("yes", stdout=subprocess.PIPE)
    assert line(session) == b"y\n"
    session.stdout.close()
    assert session.wait(10) == 128 + signal.SIGPIPE


def test_a_reader_that_goes_away_ends_the_writer_through_a_copy(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with (tmp_path / "fifo").open("wb") as stdout:
        session = start("yes", stdout=stdout)
    time.sleep(0.3)
    os.close(reader)
    assert session.wait(10) == 128 + signal.SIGPIPE


def test_a_full_disk_is_one_clear_line_and_ends_the_writer():
    with open("/dev/full", "wb") as full:
        done = run("yes", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b"tarbox: standard output can't be written: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("options", ["", "-i"])
def test_closed_streams_of_the_caller_break_nothing(closed, options, tmp_path):
    out = tmp_path / "out"
    inner = command(
        "sh", "-c", f"readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >{out}; exit 7", options=options
    )
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *inner], capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")
    lines = out.read_text().splitlines()
    assert lines[1] == str(out)
    assert "2>" not in closed or lines[2] == "/dev/null"


# What crosses and what doesn't.


def test_pipes_are_handed_over_and_everything_else_is_copied(tmp_path):
    script = "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >&2"
    (tmp_path / "in").write_bytes(b"")
    mine, theirs = os.pipe()
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        run("sh", "-c", script, options="-i", stdin=stdin, stdout=stdout, stderr=theirs)
    held = os.readlink(f"/proc/self/fd/{theirs}")
    os.close(theirs)
    with os.fdopen(mine, "rb") as reader:
        found = reader.read().decode().split()
    assert found[0].startswith("pipe:[")
    assert found[1] == found[2] == held  # 1 was sent to 2 by the script


def test_a_file_opened_for_reading_cant_be_written_through_proc(tmp_path):
    secret = tmp_path / "in"
    secret.write_bytes(b"as it was")
    with secret.open("rb") as stdin:
        run("sh", "-c", "echo changed >/proc/self/fd/0", options="-i", stdin=stdin, stderr=subprocess.DEVNULL)
    assert secret.read_bytes() == b"as it was"


def test_the_callers_pipes_keep_their_flags():
    mine, theirs = os.pipe()
    before = fcntl.fcntl(theirs, fcntl.F_GETFL)
    session = start("sh", "-c", "echo on; sleep 0.2", stdout=theirs, stderr=theirs)
    os.read(mine, 10)
    during = fcntl.fcntl(theirs, fcntl.F_GETFL)
    session.wait(10)
    assert before == during == fcntl.fcntl(theirs, fcntl.F_GETFL)
    os.close(mine)
    os.close(theirs)


# Ends.


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_exit_code_is_the_programs(script, code):
    assert run("sh", "-c", script).returncode == code


def test_a_timeout_kills_with_a_line_that_says_so():
    begin = time.monotonic()
    done = run(
        "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done", options="--timeout 0.5", stderr=subprocess.PIPE
    )
    taken = time.monotonic() - begin
    assert done.returncode == 137
    assert done.stderr == b"tarbox: the container still ran after the 0.5 s of its --timeout and was killed\n"
    assert 0.5 <= taken < 5


def test_a_timeout_does_nothing_to_a_program_that_ends_in_time():
    done = run("sleep", "0.1", options="--timeout 20", stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_exit_code_is_known_although_the_caller_ignores_its_children():
    done = subprocess.run(
        command("sh", "-c", "exit 9"), preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN), timeout=20
    )
    assert done.returncode == 9


# Signals.


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH"])
def test_signals_are_passed_on(name):
    script = f"trap 'echo {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
    session = start("sh", "-c", script, stdout=subprocess.PIPE)
    assert line(session) == b"ready\n"
    session.send_signal(getattr(signal, f"SIG{name}"))
    if name == "WINCH":  # about our terminal, not about the container's
        with pytest.raises(subprocess.TimeoutExpired):
            session.wait(0.5)
        session.terminate()
        assert session.wait(10) == 143
    else:
        assert (line(session), session.wait(10)) == (name.encode() + b"\n", 5)
    session.stdout.close()


def test_real_time_signals_are_passed_on():
    session = start("sh", "-c", "echo ready; exec sleep 20", stdout=subprocess.PIPE)
    assert line(session) == b"ready\n"
    session.send_signal(signal.SIGRTMIN + 3)
    assert session.wait(10) == 128 + signal.SIGRTMIN + 3
    session.stdout.close()


def test_the_third_interrupt_kills_with_a_line_that_says_so():
    session = start(
        "sh", "-c", "trap 'echo caught' INT; echo ready; while :; do sleep 0.05; done",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert line(session) == b"ready\n"
    for _ in range(2):
        session.send_signal(signal.SIGINT)
        assert line(session) == b"caught\n"
    assert session.poll() is None
    session.send_signal(signal.SIGINT)
    _, errors = session.communicate(timeout=10)
    assert session.returncode == 137
    assert errors == b"tarbox: interrupted 3 times, the container still ran and was killed\n"


def test_a_hangup_that_the_caller_ignores_isnt_passed_on():
    inner = command("sh", "-c", "trap 'echo hung up' HUP; echo ready; sleep 0.5; echo end")
    session = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *inner], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert line(session) == b"ready\n"
    session.send_signal(signal.SIGHUP)
    assert session.communicate(timeout=10)[0] == b"end\n"


def test_without_a_terminal_a_hangup_is_no_reason_to_kill():
    script = "trap 'echo reload' HUP; echo ready; sleep 1; echo end"
    session = start("sh", "-c", script, options="--hangup 0.2", stdout=subprocess.PIPE, start_new_session=True)
    assert line(session) == b"ready\n"
    session.send_signal(signal.SIGHUP)
    assert session.communicate(timeout=10)[0] == b"reload\nend\n"


def test_the_program_starts_in_a_session_of_its_own():
    done = run("sh", "-c", "ps -o sid= -p $$; echo $$", stdout=subprocess.PIPE)
    session, pid = done.stdout.split()
    assert session == pid


def test_stopping_the_command_stops_the_program_and_both_go_on_together():
    # A session leader that isn't its parent, else the group is orphaned and the kernel stops nobody.
    session = start("sh", "-c", "echo $$; sleep 1; echo end", stdout=subprocess.PIPE, process_group=0)
    pid = int(line(session))
    session.send_signal(signal.SIGTSTP)
    assert states(session.pid, pid) == "TT"
    session.send_signal(signal.SIGCONT)
    assert session.communicate(timeout=10)[0] == b"end\n"
    assert session.returncode == 0


def states(*pids: int) -> str:
    """The states of processes, once they have settled for 0.2 s."""
    found, since = "", time.monotonic()
    while time.monotonic() - since < 0.2:
        now = "".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids)
        if now != found:
            found, since = now, time.monotonic()
        time.sleep(0.01)
    return found
