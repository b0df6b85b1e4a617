"""The executor, over a real fork: the order of steps, what crosses, and how errors of any process reach the parent."""

from __future__ import annotations

import errno
import os

import pytest

from planned import Forking, Pretend, fork
from tarbox import errors
from tarbox.errors import KernelError, TarboxError
from tarbox.kernel import channel
from tarbox.plan.executor import KNOCK, Execution
from tarbox.plan.plan import Plan
from tarbox.plan.step import PARENT, RUNNER, Slots


@pytest.fixture(autouse=True)
def _descriptors_are_closed():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def log(tmp_path):
    """A file to which both processes write, and what it says."""

    class Log:
        def __init__(self):
            self.path = tmp_path / "log"
            self.path.touch()

        def write(self, text):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, f"{text}\n".encode())
            os.close(descriptor)

        def step(self, name, by="child", **more):
            return Pretend(name, by, act=lambda slots: self.write(f"{name} {os.getpid()}"), **more)

        def lines(self):
            return self.path.read_text().splitlines()

    return Log()


def execute(steps, given=None, become=None, slots=None, **more):
    """Carry out, wait for the child, and return the execution."""
    slots = slots or Slots()
    slots.descriptors.update(given or {})
    machinery = Forking(become)
    execution = Execution(Plan(steps, tuple(given or ())), slots, machinery, **more)
    try:
        assert execution.start() == execution.pid
    finally:
        if machinery.pid:
            os.waitpid(machinery.pid, 0)
    return execution


def last(name="program", by=RUNNER):
    return Pretend(name, by)


def failing(error):
    def act(slots):
        raise error

    return act


def test_steps_are_done_in_their_order_each_by_its_process(log):
    steps = [
        log.step("a", PARENT), fork(), log.step("b"), log.step("c"), log.step("d", PARENT), log.step("e"),
        log.step("f", PARENT), log.step("g"), last(),
    ]  # fmt: skip
    execution = execute(steps, become=lambda *_: (log.write(f"h {os.getpid()}"), os._exit(0)))
    parent, child = str(os.getpid()), str(execution.pid)
    who = {"a": parent, "b": child, "c": child, "d": parent, "e": child, "f": parent, "g": child, "h": child}
    assert log.lines() == [f"{name} {pid}" for name, pid in who.items()]


def test_the_runner_gets_the_steps_that_are_left():
    told = []
    reader, writer = os.pipe()

    def become(steps, slots, channel):
        os.write(writer, " ".join(step.name for step in steps).encode())
        os._exit(0)

    execute([fork(), Pretend("a"), last("b"), last("c"), last("d")], become=become)
    told = os.read(reader, 100)
    os.close(reader)
    os.close(writer)
    assert told == b"b c d"


def test_observers_are_told_before_each_step_and_handover(log):
    def observe(kind, index, process):
        log.write(f"{kind} {index} {process}")

    execute([Pretend("a", PARENT), fork(), Pretend("b"), Pretend("c", PARENT), Pretend("d"), last()], observe=observe)
    mine = [line for line in log.lines() if line.endswith("parent")]
    others = [line for line in log.lines() if line.endswith("child")]
    assert mine == ["step 0 parent", "step 1 parent", "handover 3 parent", "step 3 parent", "handover 4 parent"]
    assert others == ["step 2 child", "handover 3 child", "handover 4 child", "step 4 child", "handover 5 child"]


def test_meanwhile_is_done_by_the_parent_once():
    done = []
    execute([fork(), last()], meanwhile=lambda: done.append(os.getpid()))
    assert done == [os.getpid()]


def test_descriptors_cross_both_ways(tmp_path):
    """As open files: the numbers may differ."""

    def open_file(name):
        def act(slots):
            slots.give(name, os.open(tmp_path / name, os.O_RDWR | os.O_CREAT))

        return act

    def write(name):
        def act(slots):
            os.write(slots.take(name), str(os.getpid()).encode())

        return act

    steps = [
        fork(),
        Pretend("a", act=open_file("x"), gives=("x",)),
        Pretend("b", PARENT, act=write("x"), takes=("x",)),
        Pretend("c", PARENT, act=open_file("y"), gives=("y",)),
        Pretend("d", act=write("y"), takes=("y",)),
        last(),
    ]
    execution = execute(steps)
    assert (tmp_path / "x").read_text() == str(os.getpid())
    assert (tmp_path / "y").read_text() == str(execution.pid)


def test_only_results_stay_open_for_the_caller():
    def open_both(slots):
        slots.give("tree", os.open("/", os.O_PATH))
        slots.give("console", os.open("/dev/null", os.O_RDWR))

    given = os.open("/dev/null", os.O_RDONLY)
    steps = [Pretend("a", PARENT, act=open_both, gives=("tree", "console")), fork(), last()]
    execution = execute(steps, given={"stdin": given})
    assert sorted(execution.slots.descriptors) == ["console", "stdin"]
    for descriptor in execution.slots.descriptors.values():
        os.close(descriptor)


@pytest.mark.parametrize("by", [PARENT, "child"])
def test_after_a_failure_only_what_was_given_stays_open(by):
    given = os.open("/dev/null", os.O_RDONLY)
    steps = [
        Pretend("a", PARENT, act=lambda slots: slots.give("console", os.open("/", os.O_PATH)), gives=("console",)),
        fork(), Pretend("b", by, act=failing(TarboxError("no"))), last(),
    ]  # fmt: skip
    slots = Slots()
    with pytest.raises(TarboxError, match="no"):
        execute(steps, given={"stdin": given}, slots=slots)
    assert slots.descriptors == {"stdin": given}
    os.close(given)


def test_warnings_of_both_processes_are_told_once_each():
    def warn(*texts):
        return lambda slots: [slots.warn(text) for text in texts]

    steps = [
        Pretend("a", PARENT, act=warn("one")), fork(), Pretend("b", act=warn("two", "drei ä")),
        Pretend("c", PARENT, act=warn("four")), Pretend("d", act=warn("five")), last(),
    ]  # fmt: skip
    assert sorted(execute(steps).slots.warnings) == ["drei ä", "five", "four", "one", "two"]


def test_warnings_from_before_the_fork_arent_doubled():
    assert execute([Pretend("a", PARENT, act=lambda slots: slots.warn("one")), fork(), last()]).slots.warnings == [
        "one"
    ]


def test_values_found_before_the_fork_are_known_after_it(log):
    def find(slots):
        slots.found["v"] = (1, 2)

    steps = [Pretend("a", PARENT, act=find, finds=("v",)), fork()]
    execute([*steps, Pretend("b", act=lambda slots: log.write(slots.found["v"]), uses=("v",)), last()])
    assert log.lines() == ["(1, 2)"]


def test_an_error_of_the_parent_is_raised_as_it_is(log):
    with pytest.raises(errors.StorageError, match="full"):
        execute([Pretend("a", PARENT, act=failing(errors.StorageError("full"))), fork(), log.step("b"), last()])
    assert log.lines() == []


def test_an_error_of_the_parent_after_the_fork_is_raised_as_it_is(log):
    """The child learns it when the channel closes, and does nothing more."""
    with pytest.raises(errors.StorageError, match="full"):
        execute([fork(), Pretend("a", PARENT, act=failing(errors.StorageError("full"))), log.step("b"), last()])
    assert log.lines() == []


def test_an_error_of_the_child_reaches_the_parent_with_the_step(log):
    steps = [fork(), Pretend("a", act=failing(errors.UnsupportedError("no such thing", "buy one"))), log.step("b")]
    with pytest.raises(errors.UnsupportedError) as raised:
        execute([*steps, Pretend("c", PARENT), last()])
    assert str(raised.value) == "no such thing (buy one)"
    assert raised.value.hint == "buy one"
    assert raised.value.__notes__ == [f"in step 1: {steps[1]!r}"]
    assert log.lines() == []


def test_a_system_call_that_failed_in_the_child_is_told_whole():
    error = KernelError("mount", (b"proc", "a\0b", 3), errno.EPERM, "be root", "mount -t proc")
    with pytest.raises(KernelError) as raised:
        execute([fork(), Pretend("a", act=failing(error)), last()])
    assert str(raised.value) == "mount(proc, a b, 3): Operation not permitted (be root)"
    assert (raised.value.call, raised.value.errno, raised.value.shell) == ("mount", errno.EPERM, "mount -t proc")


@pytest.mark.parametrize("by", [PARENT, "child"])
def test_an_os_error_is_told_as_the_call_of_its_step(by):
    with pytest.raises(KernelError) as raised:
        execute([fork(), Pretend("a", by, act=failing(OSError(errno.EIO, "x"))), last()])
    assert str(raised.value) == 'do("a"): Input/output error'


def test_a_mistake_in_the_child_is_told_too():
    with pytest.raises(TarboxError, match=r"ZeroDivisionError: .*zero") as raised:
        execute([fork(), Pretend("a", act=lambda slots: 1 // 0), last()])
    assert "in step 1:" in raised.value.__notes__[0]


def test_an_error_longer_than_a_message_is_cut():
    with pytest.raises(KernelError) as raised:
        execute([fork(), Pretend("a", act=failing(KernelError("x" * 99999, ("y" * 99999,) * 99, 1, "z" * 99999)))])
    assert raised.value.errno == 1


@pytest.mark.parametrize("place", [("step", 2, PARENT), ("step", 3, "child"), ("handover", 2, PARENT),
    ("handover", 2, "child"), ("handover", 3, PARENT), ("handover", 3, "child"), ("handover", 4, "child")])  # fmt: skip
def test_an_observer_fails_any_place(place):
    """In either process, and the parent raises what was raised there."""

    def observe(*reached):
        if reached == place:
            raise errors.ImageError("stopped here")

    steps = [fork(), Pretend("a"), Pretend("b", PARENT), Pretend("c"), last()]
    with pytest.raises(errors.ImageError, match="stopped here"):
        execute(steps, observe=observe)


@pytest.mark.parametrize("after", range(4))
def test_a_child_that_dies_without_a_word_is_an_error(after):
    """In its steps, at a handover, or in the place of the runner before that is there."""
    steps = [fork(), Pretend("a"), Pretend("b", PARENT), Pretend("c"), Pretend("d"), last()]
    at = [1, 3, 4, 5][after]
    if at < 5:
        steps[at].act = lambda slots: os._exit(1)

    class Dying(Forking):
        def launch(self, *_):
            os._exit(1)

    machinery = Dying()
    with pytest.raises(TarboxError, match="first process died while it was being set up"):
        Execution(Plan(steps), Slots(), machinery).start()
    os.waitpid(machinery.pid, 0)


def test_a_fork_that_fails_leaves_no_channel():
    class Failing(Forking):
        def spawn(self, step, slots):
            raise KernelError("clone3", (), errno.EAGAIN)

    with pytest.raises(KernelError, match="clone3"):
        Execution(Plan([fork(), last()]), Slots(), Failing()).start()


def test_the_parents_end_is_the_childs_end(tmp_path):
    """A child whose parent is gone stops at the next handover, and doesn't become the program."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            os.close(reader)
            steps = [fork(), Pretend("a", PARENT, act=lambda slots: os._exit(0)), Pretend("b"), last()]
            Execution(Plan(steps), Slots(), Forking(lambda *_: os.write(writer, b"!"))).start()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == 0
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_knock_is_no_report():
    """The runner knocks to find out whether somebody is there."""
    execute([fork(), last()], become=lambda steps, slots, channel: (os.write(channel, KNOCK), os._exit(0)))
    steps = [fork(), last()]
    with pytest.raises(errors.CommandNotFoundError):
        execute(steps, become=lambda _, __, end: (os.write(end, KNOCK), os.write(end, b"\0\2"), os._exit(1)))


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


def reported(row, number, steps=None):
    """What is raised when the runner's row `row` failed."""
    steps = steps or [fork(), Pretend("a"), last("b"), ManyRows("c", RUNNER), last("d"), last()]
    with pytest.raises(TarboxError) as raised:
        execute(steps, become=lambda steps, slots, channel: (os.write(channel, bytes([row, number])), os._exit(1)))
    return raised.value


@pytest.mark.parametrize(("row", "name", "place"), [(0, "b", 0), (1, "c", 0), (3, "c", 2), (4, "d", 0)])
def test_a_row_of_the_runner_that_failed_is_told_by_its_step(row, name, place):
    error = reported(row, errno.EINVAL)
    assert str(error) == f'do("{name}"): Invalid argument'
    assert error.__notes__[0].startswith(f"in row {place} of ")


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOENT, errors.CommandNotFoundError, "cannot start /bin/program: No such file or directory (obstacle)"),
        (errno.EACCES, errors.CommandNotExecutableError, "cannot start /bin/program: Permission denied (obstacle)"),
    ],
)
def test_a_program_that_does_not_start_is_told_with_its_obstacle(number, kind, text):
    error = reported(5, number)
    assert type(error) is kind
    assert str(error) == text


def test_a_program_whose_name_is_not_text_can_be_told_of():
    class Odd(Forking):
        def launch(self, steps, slots, channel, announce):
            announce(b"0\n/bin/\xff\xfe\n")
            os.write(channel, bytes([0, errno.ENOEXEC]))
            os._exit(1)

    machinery = Odd()
    with pytest.raises(errors.CommandNotExecutableError, match="cannot start /bin/\udcff\udcfe: Exec format error"):
        Execution(Plan([fork(), last()]), Slots(), machinery).start()
    os.waitpid(machinery.pid, 0)
