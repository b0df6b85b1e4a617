"""Exit codes are Docker's, and bytes go through whole, whatever the caller's streams are."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess

import pytest

import roots

pytestmark = pytest.mark.unhurried


def _program(loader: bytes, at: int = 120) -> bytes:
    """An ELF file for this machine that names its loader, and its name's place."""
    machine = 62 if os.uname().machine == "x86_64" else 183
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = len(loader) + 1
    return head + struct.pack("<IIQQQQQQ", 3, 4, at, at, at, size, size, 1) + loader + b"\0"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay, with programs that can't run."""
    root = roots.busybox(tmp_path_factory.mktemp("image") / "root")
    binary = bytearray((root / "bin/busybox").read_bytes())
    binary[18:20] = (183 if os.uname().machine == "x86_64" else 62).to_bytes(2, "little")  # e_machine
    programs = {
        "foreign": bytes(binary),
        "cut": bytes((root / "bin/busybox").read_bytes()[:64]),
        "script": b"#!/nowhere/sh\n",
        "plain": b"echo no interpreter line\n",
        "good": b"#!/bin/sh\nexit 11\n",
        "empty": b"",
        "musl": _program(b"/lib/ld-musl-none.so.1"),
        "odd": _program(b"/etc/passwd"),
        "mad": _program(b"/lib/x", at=1 << 61),
    }
    for name, content in programs.items():
        (root / name).write_bytes(content)
        (root / name).chmod(0o755)
    (root / "closed").write_text("#!/bin/sh\n")
    return f"{root}:O"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("sh", "-c", "exit 0"), 0, ""),
        (("sh", "-c", "exit 1"), 1, ""),
        (("sh", "-c", "exit 125"), 125, ""),
        (("sh", "-c", "exit 255"), 255, ""),
        (("/good",), 11, ""),
        (("sh", "-c", "exec 2>/dev/null; sh -c 'kill -SEGV $$'; exit $?"), 139, ""),
        (("nope",), 127, "there is no program nope in the container"),
        (("/nope",), 127, "there is no /nope in the container"),
        (("/etc/passwd/x",), 127, "there is no /etc/passwd/x in the container"),
        (("",), 127, "the command is an empty name"),
        (("/script",), 127, "its interpreter /nowhere/sh isn't in the image"),
        (("/musl",), 127, "it needs another C library, musl, than the image has: there is no /lib/ld-musl-none.so.1"),
        (("/odd",), 126, "its loader /etc/passwd can't be executed"),
        (("/mad",), 126, "cannot start /mad"),
        (("/etc",), 126, "/etc in the container is a directory, not a program"),
        (("/closed",), 126, "/closed in the container isn't executable"),
        (("/foreign",), 126, f"this machine is {os.uname().machine}"),
        (("/plain",), 126, "has no #! line"),
        (("/empty",), 126, "has no #! line"),
        (("/cut",), 126, "Exec format error"),
        (("x" * 5000,), 127, "there is no program xxx"),
        (("/" + "x/" * 2500,), 127, "there is no /x/x"),
        (("two\nlines",), 127, "there is no program two lines in the container"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_exit_code_says_what_happened(tarbox, image, command, code, said):
    """The program's own, 127 where there is none, 126 where it can't be executed; one line says why."""
    done = tarbox("run", "--rm", image, *command)
    assert done.returncode == code, done.stderr
    if said:
        assert done.stderr.startswith("tarbox: ")
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
        assert len(done.stderr) < 600
    else:
        assert done.stderr == ""


def test_a_signal_that_ends_process_1_is_128_and_its_number(tarbox, image):
    """From inside process 1 is immune, so it's the kernel or the host who ends it."""
    started = tarbox.start("run", image, "sh", "-c", "echo on; exec sleep 30")
    assert started.stdout.readline() == b"on\n"
    pid = _child(started.pid)
    os.kill(pid, 9)
    assert started.wait(10) == 137
    _close(started)


def _child(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return int(children.read().split()[0])


def _close(process: subprocess.Popen) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_output_and_errors_stay_apart_and_in_order(tarbox, image):
    """What isn't text is as good as what is."""
    done = subprocess.run(
        tarbox.command("run", image, "sh", "-c", r"printf 'a\0\377'; printf 'b\n' >&2; printf 'c'"),
        env=tarbox.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"a\0\xffc", b"b\n")


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_200_mb_go_through_whole(tarbox, image, tmp_path, kind):
    """In and out, by pipes and by files, with the same checksum on both sides."""
    size, block = 200 << 20, os.urandom(1 << 20)
    source = tmp_path / "source"
    digest = hashlib.sha256()
    with source.open("wb") as file:
        for number in range(size >> 20):
            part = number.to_bytes(8, "little") + block[8:]
            file.write(part)
            digest.update(part)
    command = tarbox.command("run", "-i", image, "sh", "-c", "tee /dev/stderr | sha256sum | cut -c-64 >/sum; cat /sum")
    # Through both ways at once: what comes in goes out by standard error, and its checksum by standard output.
    with source.open("rb") as stdin, (tmp_path / "copy").open("wb") as copy:
        if kind == "pipe":
            feeder = subprocess.Popen(["cat"], stdin=stdin, stdout=subprocess.PIPE)
            eater = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=copy)
            done = subprocess.run(
                command, env=tarbox.environment(), stdin=feeder.stdout, stdout=subprocess.PIPE, stderr=eater.stdin,
                timeout=120,
            )  # fmt: skip
            feeder.stdout.close()
            eater.stdin.close()
            assert (feeder.wait(10), eater.wait(10)) == (0, 0)
        else:
            done = subprocess.run(
                command, env=tarbox.environment(), stdin=stdin, stdout=subprocess.PIPE, stderr=copy, timeout=120
            )
    assert done.returncode == 0
    assert done.stdout.decode().strip() == digest.hexdigest()
    with (tmp_path / "copy").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hexdigest()
    source.unlink()
    (tmp_path / "copy").unlink()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_closed_are_the_null_device(tarbox, image, tmp_path, closed):
    """And no file of tarbox's own gets their numbers."""
    (tmp_path / "shared").mkdir()
    inner = tarbox.command(
        "run", "-i", "-v", f"{tmp_path}/shared:/shared", image,
        "sh", "-c", "sh -c 'cd /proc/1/fd; for n in *; do echo $n $(readlink $n); done >/shared/fds'; exit 7",
    )  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *inner], env=tarbox.environment(), capture_output=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")
    links = dict(line.split() for line in (tmp_path / "shared/fds").read_text().splitlines())
    assert sorted(links) == ["0", "1", "2"]
    for number, mark in enumerate(("<&-", ">&-", "2>&-")):
        if mark in closed.split():
            assert links[str(number)] == "/dev/null", links


def test_no_descriptor_of_the_callers_gets_in(tarbox, image, tmp_path):
    """Not even one that the caller left open on purpose."""
    (tmp_path / "secret").write_text("secret")
    with (tmp_path / "secret").open() as file:
        os.set_inheritable(file.fileno(), True)
        done = tarbox("run", image, "ls", "/proc/self/fd", pass_fds=(file.fileno(),))
    assert done.stdout.split() == ["0", "1", "2", "3"]  # 3 is ls reading the directory
