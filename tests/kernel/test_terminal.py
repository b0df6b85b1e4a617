"""The steps that give a container its terminal and its streams, each in namespaces of its own."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import termios
import traceback

import pytest

from rows import perform
from tarbox.errors import KernelError
from tarbox.kernel.syscall import syscall
from tarbox.kernel.terminal import BindConsole, ChooseStreams, OpenConsole, UseStreams
from tarbox.plan.step import Slots

CLONE_NEWNS = 0x20000
MS_PRIVATE, MS_REC = 1 << 18, 1 << 14


@pytest.fixture
def apart(tmp_path):
    """Runs a function with the slot "tree" set, in a process with a mount namespace; its root has /dev and devpts."""
    root = tmp_path / "root"
    (root / "dev/pts").mkdir(parents=True)

    def run(function) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                syscall("unshare", CLONE_NEWNS)
                syscall("mount", b"none", b"/", None, MS_PRIVATE | MS_REC, None)
                syscall("mount", b"tmpfs", os.fsencode(root / "dev"), b"tmpfs", 0, None)
                (root / "dev/pts").mkdir()
                options = b"newinstance,ptmxmode=0666,mode=0620"
                syscall("mount", b"devpts", os.fsencode(root / "dev/pts"), b"devpts", 0, options)
                os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
                slots = Slots()
                slots.give("tree", os.open(root, os.O_PATH | os.O_DIRECTORY))
                function(slots, root)
            except BaseException:
                os.write(writer, traceback.format_exc().encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as failure:
            text = failure.read().decode()
        os.waitpid(pid, 0)
        assert not text, text

    return run


def test_the_terminal_is_the_first_of_the_containers_own_devpts(apart):
    def check(slots, root):
        OpenConsole().apply(slots)
        assert sorted(os.listdir(root / "dev/pts")) == ["0", "ptmx"]
        held = os.fstat(slots.take("terminal"))
        assert (held.st_dev, held.st_ino) == (os.stat(root / "dev/pts/0").st_dev, os.stat(root / "dev/pts/0").st_ino)
        os.write(slots.take("terminal"), b"out\n")
        assert os.read(slots.take("console"), 100) == b"out\r\n"
        for name in ("console", "terminal"):
            assert not os.get_inheritable(slots.take(name))

    apart(check)


def test_dev_console_is_the_same_terminal(apart):
    def check(slots, root):
        OpenConsole().apply(slots)
        perform(BindConsole().rows(slots))
        assert os.stat(root / "dev/console").st_rdev == os.fstat(slots.take("terminal")).st_rdev
        console = os.open(root / "dev/console", os.O_WRONLY | os.O_NOCTTY)
        os.write(console, b"boot\n")
        assert os.read(slots.take("console"), 100) == b"boot\r\n"

    apart(check)


def test_a_link_at_dev_console_leads_nowhere_outside(apart, tmp_path):
    victim = tmp_path / "victim"

    def check(slots, root):
        os.symlink(f"../../../../../../../..{victim}", root / "dev/console")
        OpenConsole().apply(slots)
        perform(BindConsole().rows(slots))

    apart(check)
    assert not victim.exists()


def test_a_file_in_the_place_of_ptmx_is_refused_with_what_to_do(apart):
    def check(slots, root):
        syscall("umount2", os.fsencode(root / "dev/pts"), 2)
        (root / "dev/pts/ptmx").write_bytes(b"")
        with pytest.raises(KernelError, match="devpts instance"):
            OpenConsole().apply(slots)

    apart(check)


def test_the_size_and_utf8_mode_are_the_callers(apart):
    def check(slots, root):
        _, mine = os.openpty()
        termios.tcsetwinsize(mine, (33, 111))
        modes = termios.tcgetattr(mine)
        modes[0] |= 0o40000
        termios.tcsetattr(mine, termios.TCSANOW, modes)
        os.dup2(mine, 1)
        OpenConsole().apply(slots)
        assert termios.tcgetwinsize(slots.take("terminal")) == (33, 111)
        assert termios.tcgetattr(slots.take("terminal"))[0] & 0o40000

    apart(check)


def test_the_terminal_becomes_the_controlling_one_and_the_users(apart):
    def check(slots, root):
        OpenConsole().apply(slots)
        slots.found["uid"] = 1000
        ChooseStreams(True, True).apply(slots)
        perform(UseStreams(True).rows(slots))
        assert os.getsid(0) == os.getpid() == os.tcgetpgrp(0)
        status = os.fstat(0)
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (1000, 0o620)
        assert all(os.get_inheritable(number) and os.isatty(number) for number in range(3))

    apart(check)


def test_the_hosts_null_device_is_changed_for_the_containers(apart):
    def check(slots, root):
        for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
            slots.give(name, os.open("/dev/null", flags))
        ChooseStreams(True, False).apply(slots)
        perform(UseStreams(False).rows(slots))
        own = os.stat(root / "dev/null")
        for number in range(3):
            assert (os.fstat(number).st_dev, os.fstat(number).st_ino) == (own.st_dev, own.st_ino)

    apart(check)


def test_a_file_in_the_place_of_the_containers_null_device_is_refused(apart):
    def check(slots, root):
        os.unlink(root / "dev/null")
        (root / "dev/null").write_bytes(b"")
        slots.give("stdout", 1)
        slots.give("stderr", 2)
        with pytest.raises(KernelError, match="isn't the null device"):
            ChooseStreams(False, False).apply(slots)

    apart(check)


def test_the_containers_user_owns_its_pipes(apart):
    def check(slots, root):
        reader, writer = os.pipe()
        slots.give("stdout", writer)
        slots.give("stderr", writer)
        slots.found["uid"] = 1000
        ChooseStreams(False, False).apply(slots)
        perform(UseStreams(False).rows(slots))
        assert os.fstat(1).st_uid == os.fstat(reader).st_uid == 1000

    apart(check)


def test_streams_come_in_place_whatever_their_numbers_are(apart):
    def check(slots, root):
        readers = []
        for number in range(3):
            reader, writer = os.pipe()
            readers.append(fcntl.fcntl(reader, fcntl.F_DUPFD, 20))
            slots.descriptors[f"w{number}"] = fcntl.fcntl(writer, fcntl.F_DUPFD, 20)
        for number in range(3):  # 2, 0 and 1 are to become 0, 1 and 2
            os.dup2(slots.take(f"w{number}"), (number + 2) % 3, inheritable=False)
        slots.give("stdin", 2)
        slots.give("stdout", 0)
        slots.give("stderr", 1)
        ChooseStreams(True, False).apply(slots)
        perform(UseStreams(False).rows(slots))
        for number in range(3):
            os.write(number, b"%d" % number)
            assert os.read(readers[number], 10) == b"%d" % number
            assert os.get_inheritable(number)

    apart(check)


def test_what_isnt_0_1_or_2_doesnt_reach_the_program(tmp_path):
    from foreground import command

    done = subprocess.run(
        command("sh", "-c", "exec ls /proc/self/fd"), stdin=subprocess.DEVNULL, capture_output=True, timeout=20
    )
    mine = {entry for entry in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{entry}")}
    inherited = {name for name in mine if int(name) > 2 and os.get_inheritable(int(name))}
    assert set(done.stdout.decode().split()) - inherited == {"0", "1", "2", "3"}  # 3 is the directory that ls reads
