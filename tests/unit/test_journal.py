"""The journal: what it names is taken away, by its owner or by the next command; nothing else ever is."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import time

import pytest

from rows import in_child
from tarbox.errors import StorageError, TarboxError
from tarbox.plan import journal
from tarbox.plan.journal import Journal, read, sweep


class World:
    """Things that can be taken away, in the order in which they were."""

    def __init__(self):
        self.taken = []
        self.undo = {"thing": self._take, "tree": self._take, "stuck": self._refuse, "broken": self._break}

    def _take(self, name):
        self.taken.append(name)

    def _refuse(self, name):
        raise TarboxError(f"{name} is stuck")

    def _break(self, name):
        raise OSError(5, "Input/output error")


@pytest.fixture
def world():
    return World()


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


def written(folder, world, *records, name="one"):
    made = Journal(folder, name, world.undo)
    made.write(records)
    return made


def abandoned(folder, world, *records, name="one"):
    """What a command leaves that was killed."""
    written(folder, world, *records, name=name).close()


def test_clean_takes_away_in_reverse_and_then_itself(folder, world):
    made = written(folder, world, ("thing", "a"), ("thing", "b"), ("tree", "c"))
    assert os.listdir(folder) == ["one"]
    assert made.clean() == []
    assert world.taken == ["c", "b", "a"]
    assert os.listdir(folder) == []


def test_cleaning_twice_does_no_harm(folder, world):
    made = written(folder, world, ("thing", "a"))
    assert made.clean() == made.clean() == []
    assert world.taken == ["a", "a"]


def test_a_journal_that_was_never_written_cleans_nothing(folder, world, monkeypatch):
    """A read-only file system is told of once, by what tried to write it."""

    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "unlink", refuse)
    assert Journal(folder, "one", world.undo).clean() == []
    assert world.taken == []


def test_a_journal_that_cannot_be_removed_is_told_of(folder, world, monkeypatch):
    made = written(folder, world, ("thing", "a"))

    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "unlink", refuse)
    assert [str(error) for error in made.clean()] == [f"cannot remove the journal {folder}/one: Read-only file system"]
    assert world.taken == ["a"]


def test_what_cannot_be_taken_away_stays_for_the_next_command(folder, world):
    """The rest is taken away all the same."""
    made = written(folder, world, ("thing", "a"), ("stuck", "b"), ("broken", "c"), ("thing", "d"))
    errors = made.clean()
    assert [str(error) for error in errors] == ["cannot take away the broken c: Input/output error", "b is stuck"]
    assert world.taken == ["d", "a"]
    world.undo["stuck"] = world.undo["broken"] = world._take
    assert sweep(folder, world.undo) == []
    assert world.taken == ["d", "a", "d", "c", "b", "a"]
    assert os.listdir(folder) == []


def test_sweep_finishes_for_the_dead(folder, world):
    abandoned(folder, world, ("thing", "a"), ("thing", "b"))
    abandoned(folder, world, ("tree", "c"), name="two")
    assert sweep(folder, world.undo) == []
    assert sorted(world.taken) == ["a", "b", "c"]
    assert world.taken.index("b") < world.taken.index("a")
    assert os.listdir(folder) == []
    assert sweep(folder, world.undo) == []
    assert len(world.taken) == 3


def test_sweep_leaves_the_living_alone(folder, world):
    """From another process: a lock is the process's that took it."""
    made = written(folder, world, ("thing", "a"))

    def other():
        assert sweep(folder, world.undo) == []
        return world.taken, os.listdir(folder)

    assert in_child(other) == ([], ["one"])
    assert sweep(folder, world.undo) == []
    assert world.taken == []
    made.close()
    assert in_child(other) == (["a"], [])


def test_sweep_finds_nothing_where_there_is_no_folder(folder, world):
    assert sweep(f"{folder}/none", world.undo) == []


def test_a_killed_owner_lets_go(folder, world):
    """A lock lasts as long as its process, however that ends."""
    reader, writer = os.pipe()
    owner = os.fork()
    if owner == 0:
        try:
            written(folder, world, ("thing", "a"))
            os.write(writer, b"!")
            time.sleep(60)
        finally:
            os._exit(0)
    assert os.read(reader, 1) == b"!"
    os.close(reader)
    os.close(writer)
    sweep(folder, world.undo)
    assert world.taken == []
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    sweep(folder, world.undo)
    assert world.taken == ["a"]


def test_after_a_reboot_only_what_lies_on_disk_is_taken(folder, world, monkeypatch):
    """A name of a kernel object may be another's by then."""
    monkeypatch.setattr(journal, "_boot", lambda: "the boot before")
    abandoned(folder, world, ("thing", "a"), ("tree", "b"))
    monkeypatch.undo()
    assert sweep(folder, world.undo) == []
    assert world.taken == ["b"]
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["a\nthing b", "a\\nb", "\\", "\\\\n", "a b  c ", "\n", "käse", "\udcff\udcfe", "end"])
def test_any_name_comes_back_as_it_was(name, folder, world):
    abandoned(folder, world, ("thing", name), ("thing", "last"))
    assert sweep(folder, world.undo) == []
    assert world.taken == ["last", name]


def test_a_journal_that_was_cut_short_removes_nothing(folder, world):
    """Wherever the cut is: half a path is the path of something else."""
    abandoned(folder, world, ("tree", "/var/lib/tarbox/scratch/1"), ("thing", "/var"))
    path = f"{folder}/one"
    with open(path, "rb") as file:
        whole = file.read()
    for length in range(len(whole)):
        with open(path, "wb") as file:
            file.write(whole[:length])
        assert sweep(folder, world.undo) == []
        assert world.taken == [], whole[:length]
        assert os.listdir(folder) == []
    with open(path, "wb") as file:
        file.write(whole)
    sweep(folder, world.undo)
    assert world.taken == ["/var", "/var/lib/tarbox/scratch/1"]


@pytest.mark.parametrize(
    "text", ["", "\n", "tarbox 2\nboot x\ntree a\nend\n", "tree a\nend\n", "tarbox 1\nend\n", "\0\0"]
)
def test_what_is_no_journal_names_nothing(text):
    assert read(text) == []


def test_a_half_written_one_is_taken_away(folder, world):
    """Its owner died before it had its name; nothing was made by then."""
    abandoned(folder, world, ("thing", "a"))
    os.rename(f"{folder}/one", f"{folder}/.one")
    with open(f"{folder}/.one", "r+") as file:
        file.truncate(60)
    assert sweep(folder, world.undo) == []
    assert world.taken == []
    assert os.listdir(folder) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(folder, world):
    """The kernel writes what fits before it complains."""

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (70, 70))
        with pytest.raises(StorageError, match=r"cannot write the journal .*No space left"):
            written(folder, world, ("tree", "/a/long/path" * 9))
        return os.listdir(folder)

    assert in_child(write) == []


def test_a_folder_that_cannot_be_written_is_an_error(folder, world):
    with pytest.raises(StorageError, match=r"cannot write the journal .*No such file.*--root"):
        written(f"{folder}/none", world, ("thing", "a"))


def test_an_unknown_kind_is_told_and_kept(folder, world):
    """A newer version made it; that one can take it away."""
    abandoned(folder, world, ("wormhole", "a"), ("thing", "b"))
    errors = sweep(folder, world.undo)
    assert [str(error) for error in errors] == ["a journal names a wormhole, which this tarbox doesn't know"]
    assert world.taken == ["b"]
    assert os.listdir(folder) == ["one"]


@pytest.mark.root
def test_what_somebody_else_wrote_is_not_acted_upon(folder, world):
    """A data root in somebody's home must not make root remove what that user can't."""
    abandoned(folder, world, ("tree", "/etc"))
    os.chown(f"{folder}/one", 65533, 65533)
    assert sweep(folder, world.undo) == []
    assert world.taken == []
    assert os.listdir(folder) == ["one"]


def test_a_link_is_not_followed(folder, world, tmp_path):
    abandoned(folder, world, ("thing", "a"))
    os.rename(f"{folder}/one", tmp_path.parent / f"{tmp_path.name}-elsewhere")
    os.symlink(tmp_path.parent / f"{tmp_path.name}-elsewhere", f"{folder}/one")
    assert sweep(folder, world.undo) == []
    assert world.taken == []
    os.unlink(tmp_path.parent / f"{tmp_path.name}-elsewhere")


def test_a_sweep_that_comes_late_leaves_a_finished_one_alone(folder, world, monkeypatch):
    """Its owner cleans up between the sweep's open and its lock."""
    made = written(folder, world, ("thing", "a"))
    lock = fcntl.flock

    def late(descriptor, operation):
        made.clean()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert sweep(folder, world.undo) == []
    assert world.taken == ["a"]


def test_a_sweep_between_open_and_lock_costs_the_owner_a_second_try(folder, world, monkeypatch):
    """It takes the new file for a dead command's; the journal is there in the end, and locked."""
    lock, swept = fcntl.flock, []

    def early(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", lock)
        swept.append(in_child(lambda: sweep(folder, world.undo)))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", early)
    made = written(folder, world, ("thing", "a"))
    assert swept == [[]]
    assert os.listdir(folder) == ["one"]
    assert in_child(lambda: (sweep(folder, world.undo), world.taken)) == ([], [])
    assert made.clean() == []
    assert world.taken == ["a"]


def test_many_sweeps_at_once_take_each_thing_away_once(folder, tmp_path_factory):
    """Each thing is a file; taking it twice is an error that a sweep would tell of."""
    things = tmp_path_factory.mktemp("things")
    undo = {"thing": os.unlink}
    for number in range(40):
        (things / str(number)).touch()
        made = Journal(folder, f"journal {number}", undo)
        made.write([("thing", str(things / str(number)))])
        made.close()

    def one():
        try:
            os._exit(len(sweep(folder, undo)))
        finally:
            os._exit(99)

    sweepers = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            one()
        sweepers.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in sweepers] == [0, 0, 0, 0]
    assert os.listdir(things) == os.listdir(folder) == []


def test_a_locked_file_that_is_anothers_by_now_stays(tmp_path, monkeypatch):
    """Its owner removed it, and somebody made it again, between the look at it and the lock."""
    path = tmp_path / "held"
    path.write_text("")

    def flock(descriptor, how):
        path.unlink()
        path.write_text("another's")

    monkeypatch.setattr(journal.fcntl, "flock", flock)
    assert journal.drop(str(path))
    assert path.read_text() == "another's"
