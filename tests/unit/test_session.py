"""What of the caller's streams a container may hold, and what is decided before it starts."""

from __future__ import annotations

import fcntl
import os
import socket

import pytest

from tarbox.engine.session import Session
from tarbox.engine.streams import Copy, are_one, may_cross
from tarbox.errors import UsageError
from tarbox.kernel.terminal import ChooseStreams, OpenConsole, UseStreams


@pytest.fixture
def opened():
    """Collects descriptors, and closes them in the end."""
    descriptors: list[int] = []

    def keep(*more: int) -> int:
        descriptors.extend(more)
        return more[0]

    yield keep
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def streams():
    """Puts descriptors in the places of 0, 1 and 2 for one test."""
    saved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in range(3)]

    def put(*descriptors: int) -> None:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)

    yield put
    for number, descriptor in enumerate(saved):
        os.dup2(descriptor, number)
        os.close(descriptor)


def test_pipes_sockets_and_the_null_device_cross(opened):
    reader, writer = os.pipe()
    opened(reader, writer)
    assert may_cross(reader)
    assert may_cross(writer)
    assert may_cross(opened(os.open("/dev/null", os.O_RDWR)))
    one, other = socket.socketpair()
    with one, other:
        assert may_cross(one.fileno())


def test_files_directories_terminals_fifos_and_other_devices_dont_cross(opened, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "file", tmp_path, "/dev/zero", "/dev/full"):
        assert not may_cross(opened(os.open(path, os.O_RDONLY))), path
    assert not may_cross(opened(os.open(tmp_path / "fifo", os.O_RDWR)))
    master, slave = os.openpty()
    assert not may_cross(opened(slave, master))
    assert not may_cross(master)
    assert not may_cross(opened(os.open(tmp_path, os.O_PATH)))
    assert not may_cross(opened(os.memfd_create("file")))


def test_a_duplicate_is_one_with_its_original_and_another_opening_is_not(opened, tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    first = opened(os.open(tmp_path / "file", os.O_RDWR))
    second = opened(os.open(tmp_path / "file", os.O_RDWR))
    os.lseek(second, 2, os.SEEK_SET)
    assert are_one(first, opened(os.dup(first)))
    assert not are_one(first, second)
    assert not are_one(first, opened(os.open(tmp_path / "file", os.O_RDONLY)))


def test_where_everything_may_cross_nothing_is_copied(opened, streams):
    reader, writer = os.pipe()
    opened(reader, writer)
    streams(reader, writer, writer)
    session = Session(interactive=True, terminal=False)
    assert session.slots() == {"stdin": 0, "stdout": 1, "stderr": 2}
    assert session._copies() == []
    session.close()


def test_what_may_not_cross_gets_a_pipe_and_close_leaves_nothing_open(opened, streams, tmp_path):
    file = opened(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    streams(file, file, file)
    before = os.listdir("/proc/self/fd")
    session = Session(interactive=True, terminal=False)
    slots = session.slots()
    assert all(may_cross(descriptor) for descriptor in slots.values())
    assert slots["stdout"] == slots["stderr"] != slots["stdin"]
    assert not any(os.get_inheritable(descriptor) for descriptor in slots.values())
    session.close()
    session.close()
    assert os.listdir("/proc/self/fd") == before


def test_without_i_the_callers_input_isnt_even_looked_at(opened, streams):
    streams(opened(os.open("/dev/null", os.O_RDWR)))
    os.close(0)
    try:
        session = Session(interactive=False, terminal=False)
        assert "stdin" not in session.slots()
        session.close()
    finally:
        os.open("/dev/null", os.O_RDWR)


def test_a_terminal_needs_one_at_the_input_only_with_i(opened, streams):
    streams(opened(os.open("/dev/null", os.O_RDWR)))
    with pytest.raises(UsageError, match="the input device is not a TTY"):
        Session(interactive=True, terminal=True)
    session = Session(interactive=False, terminal=True)
    assert session.slots() == {}
    session.close()


def test_a_copy_keeps_what_the_sink_doesnt_take_and_reads_no_more(opened):
    source, feed = os.pipe()
    drain, sink = os.pipe()
    opened(source, feed, drain, sink)
    for end in (source, sink):
        os.set_blocking(end, False)
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4096)
    copy = Copy("standard output", source, sink)
    os.write(feed, b"x" * 10000)
    copy.read()
    assert [descriptor for descriptor, _ in copy.interest()] == [sink]
    copied = b""
    while copy.pending:
        copied += os.read(drain, 4096)
        copy.write()
    assert copied + os.read(drain, 10000) == b"x" * 10000
    assert source in [descriptor for descriptor, _ in copy.interest()]


def test_a_copy_ends_after_the_end_of_its_source_and_closes_what_it_owns(opened):
    source, feed = os.pipe()
    drain, sink = os.pipe()
    opened(drain)
    os.write(feed, b"last")
    os.close(feed)
    copy = Copy("standard output", source, sink, (source, sink))
    copy.read()
    assert not copy.ended
    copy.read()
    assert copy.ended
    assert (os.read(drain, 10), os.read(drain, 10)) == (b"last", b"")


def test_a_copy_says_why_it_cant_read(opened, tmp_path):
    directory = opened(os.open(tmp_path, os.O_RDONLY))
    copy = Copy("standard input", directory, opened(os.open("/dev/null", os.O_WRONLY)))
    copy.read()
    assert (copy.ended, copy.error) == (True, "standard input can't be read: Is a directory")


def test_the_steps_take_only_what_they_use():
    assert ChooseStreams(True, True).takes() == UseStreams(True).takes() == ("terminal",)
    assert ChooseStreams(True, False).takes() == ("tree", "stdin", "stdout", "stderr")
    assert ChooseStreams(False, False).takes() == ("tree", "stdout", "stderr")
    assert ChooseStreams(False, False).gives() == UseStreams(False).takes() == ("stream 0", "stream 1", "stream 2")
    assert OpenConsole().takes() == ("tree",)
    assert OpenConsole().gives() == ("console", "terminal", "place /dev/console")
