"""The executor, over a real fork: the order of steps, what crosses, and how errors of either side are raised."""

from __future__ import annotations

import errno
import os

import pytest

from planned import Forking, Pretend, fork, ready
from tarbox import errors
from tarbox.errors import KernelError, TarboxError
from tarbox.kernel import channel
from tarbox.plan.executor import KNOCK, Execution
from tarbox.plan.plan import Plan
from tarbox.plan.step import PARENT, Slots


@pytest.fixture(autouse=True)
def _descriptors_are_closed():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


def execute(steps, given=None, become=None, slots=None, machinery=None, **more):
    """Carry out, wait for the child, and return the execution."""
    slots = slots or Slots()
    slots.descriptors.update(given or {})
    machinery = machinery or Forking(become)
    execution = Execution(Plan(steps, tuple(given or ())), slots, machinery, **more)
    try:
        assert execution.start() == execution.pid == machinery.pid
    finally:
        if machinery.pid:
            os.waitpid(machinery.pid, 0)
    return execution


def last(name="program"):
    return Pretend(name)


def failing(error):
    def act(slots):
        raise error

    return act


class Noted(list):
    """The names of steps in the order in which they were done."""

    def step(self, name, by=PARENT, **more):
        return Pretend(name, by, act=lambda slots: self.append(name), **more)


def test_steps_of_the_parent_are_done_in_their_order_and_the_rest_is_the_runners():
    done = Noted()
    reader, writer = os.pipe()

    def become(steps, slots, errors):
        os.write(writer, " ".join([*done, *(step.name for step in steps)]).encode())
        ready(steps, slots, errors)

    execute([done.step("a"), done.step("b"), fork(), last("c"), last("d")], become=become)
    told = os.read(reader, 100)
    os.close(reader)
    os.close(writer)
    assert done == ["a", "b"]
    assert told == b"a b c d"


def test_steps_of_the_parent_after_the_start_are_done_while_the_runner_waits():
    done = Noted()
    reader, writer = os.pipe()

    def become(steps, slots, errors):
        os.write(writer, os.read(errors, 10))
        ready(steps, slots, errors)

    execute([fork(), done.step("maps"), last()], become=become)
    assert done == ["maps"]
    assert os.read(reader, 10) == KNOCK
    os.close(reader)
    os.close(writer)


def test_observers_are_told_before_each_step_and_the_handover():
    seen = []
    steps = [Pretend("a", PARENT), fork(), Pretend("b", PARENT), last("c"), last()]
    execute(steps, observe=lambda *place: seen.append(place))
    assert seen == [("step", 0, PARENT), ("step", 1, PARENT), ("step", 2, PARENT), ("handover", 3, PARENT)]


def test_meanwhile_is_done_once():
    done = []
    execute([fork(), last()], meanwhile=lambda: done.append(1))
    assert done == [1]


def test_the_runner_keeps_the_channel_and_what_was_opened(tmp_path):
    def open_file(slots):
        slots.give("x", os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT))

    def become(steps, slots, errors):
        os.write(slots.take("x"), b"written")
        ready(steps, slots, errors)

    machinery = Forking(become)
    given = os.open("/dev/null", os.O_RDONLY)
    execution = execute(
        [Pretend("a", PARENT, act=open_file, gives=("x",)), fork(), last()], {"stdin": given}, machinery=machinery
    )
    assert (tmp_path / "x").read_text() == "written"
    assert len(set(machinery.keep)) == 3
    assert machinery.keep[0] == machinery.table_.errors
    assert given in machinery.keep
    assert machinery.table_.closed
    assert execution.slots.descriptors == {"stdin": given}
    os.close(given)


def test_only_results_stay_open_for_the_caller():
    def open_all(slots):
        for name in ("tree", "console", "other"):
            slots.give(name, os.open("/", os.O_PATH))

    given = os.open("/dev/null", os.O_RDONLY)
    steps = [Pretend("a", PARENT, act=open_all, gives=("tree", "console", "other")), fork(), last()]
    execution = execute(steps, given={"stdin": given})
    assert sorted(execution.slots.descriptors) == ["console", "stdin", "tree"]
    for descriptor in execution.slots.descriptors.values():
        os.close(descriptor)


@pytest.mark.parametrize("late", [False, True])
def test_after_a_failure_only_what_was_given_stays_open(late):
    given = os.open("/dev/null", os.O_RDONLY)
    steps = [
        Pretend("a", PARENT, act=lambda slots: slots.give("console", os.open("/", os.O_PATH)), gives=("console",)),
        fork(), last(),
    ]  # fmt: skip
    steps.insert(2 if late else 1, Pretend("b", PARENT, act=failing(TarboxError("no"))))
    slots = Slots()
    with pytest.raises(TarboxError, match="no"):
        execute(steps, given={"stdin": given}, slots=slots)
    assert slots.descriptors == {"stdin": given}
    os.close(given)


def test_an_error_of_the_parent_is_raised_as_it_is():
    machinery = Forking()
    with pytest.raises(errors.StorageError, match="full"):
        execute([Pretend("a", PARENT, act=failing(errors.StorageError("full"))), fork(), last()], machinery=machinery)
    assert machinery.pid == 0


def test_an_error_of_the_operating_system_becomes_one_of_the_step():
    with pytest.raises(KernelError) as raised:
        execute([Pretend("a", PARENT, act=failing(OSError(errno.EIO, "x"))), fork(), last()])
    assert str(raised.value) == 'do("a"): Input/output error'


@pytest.mark.parametrize("place", [("step", 0, PARENT), ("step", 1, PARENT), ("handover", 2, PARENT)])
def test_an_observer_fails_any_place(place):
    def observe(*reached):
        if reached == place:
            raise errors.ImageError("stopped here")

    with pytest.raises(errors.ImageError, match="stopped here"):
        execute([Pretend("a", PARENT), fork(), last()], observe=observe)


def test_a_runner_that_dies_without_a_word_is_an_error():
    with pytest.raises(TarboxError, match="first process died while it was being set up"):
        execute([fork(), last()], become=lambda *_: os._exit(1))


def test_a_start_that_fails_leaves_no_channel():
    class Failing(Forking):
        def spawn(self, step, slots, table, keep):
            raise KernelError("clone3", (), errno.EAGAIN)

    machinery = Failing()
    with pytest.raises(KernelError, match="clone3"):
        execute([fork(), last()], machinery=machinery)
    assert machinery.table_.closed


def test_a_row_that_can_t_be_made_starts_nothing():
    class Impossible(Pretend):
        __slots__ = ()

        def rows(self, slots):
            raise errors.CommandNotFoundError("no such thing")

    machinery = Forking()
    with pytest.raises(errors.CommandNotFoundError):
        execute([fork(), Impossible("a")], machinery=machinery)
    assert machinery.pid == 0


def test_last_words_are_heard_though_the_channel_was_not_read_to_its_end():
    ours, theirs = channel.pair()
    ours.send(b"unread", [])
    theirs.send(b"last words", [])
    theirs.close()
    assert ours.receive() == (b"last words", [])
    assert ours.receive() == (b"", [])
    ours.close()


class ManyRows(Pretend):
    __slots__ = ()

    def rows(self, slots):
        return super().rows(slots) * 3


@pytest.mark.parametrize("knocks", [0, 1])
@pytest.mark.parametrize(("row", "name", "place"), [(0, "b", 0), (1, "c", 0), (3, "c", 2), (4, "d", 0), (5, "e", 0)])
def test_a_row_of_the_runner_that_failed_is_told_by_its_step(row, name, place, knocks):
    def become(steps, slots, errors):
        for _ in range(knocks):
            os.write(errors, KNOCK)
        os.write(errors, bytes([row, errno.EINVAL]))

    steps = [Pretend("a", PARENT), fork(), last("b"), ManyRows("c"), last("d"), last("e")]
    with pytest.raises(KernelError) as raised:
        execute(steps, become=become)
    assert str(raised.value) == f'do("{name}"): Invalid argument'
    assert raised.value.__notes__[0].startswith(f"in row {place} of ")


def test_a_step_explains_its_own_rows():
    class Knowing(Pretend):
        __slots__ = ()

        def explain(self, row, errno, slots):
            return errors.ImageError(f"row {row}, errno {errno}, {slots.found['v']}")

    steps = [Pretend("a", PARENT, act=lambda slots: slots.found.update(v=7), finds=("v",)), fork(), Knowing("b")]
    with pytest.raises(errors.ImageError, match="row 0, errno 5, 7"):
        execute(steps, become=lambda _, __, end: os.write(end, bytes([0, 5])))
