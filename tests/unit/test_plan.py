"""The plan: what it checks, and the handovers that it derives from the order of its steps."""

from __future__ import annotations

import pytest

from planned import Pretend, fork
from tarbox.plan.plan import Plan
from tarbox.plan.step import CHILD, PARENT, RUNNER


def handovers(*steps, given=()):
    return [repr(handover) for handover in Plan(steps, given).handovers]


def test_the_fork_is_the_first_handover():
    assert handovers(Pretend("a", PARENT), fork(), Pretend("b")) == ["2: parent to child"]


def test_neighbours_of_one_process_hand_over_nothing():
    plan = Plan([fork(), Pretend("a"), Pretend("b"), Pretend("c", PARENT), Pretend("d"), Pretend("e", RUNNER)])
    assert [handover.index for handover in plan.handovers] == [1, 3, 4, 5]
    assert plan.handover(2) is None
    assert plan.handover(3).sender == CHILD
    assert plan.handover(3).receiver == PARENT
    assert plan.handover(5).receiver == RUNNER


def test_descriptors_from_before_the_fork_need_not_cross():
    steps = [Pretend("a", PARENT, gives=("tree",)), fork(), Pretend("b", takes=("tree", "stdin"))]
    assert handovers(*steps, given=("stdin",)) == ["2: parent to child"]


def test_descriptors_cross_with_the_last_handover_before_they_are_needed():
    steps = [
        fork(), Pretend("a", gives=("console",)), Pretend("b", PARENT), Pretend("c"),
        Pretend("d", PARENT, takes=("console",)), Pretend("e", PARENT, takes=("console",)), Pretend("f"),
    ]  # fmt: skip
    assert handovers(*steps) == [
        "1: parent to child",
        "2: child to parent",
        "3: parent to child",
        "4: child to parent with console",
        "6: parent to child",
    ]


def test_what_the_parent_opens_after_the_fork_crosses_to_the_child():
    steps = [fork(), Pretend("a", PARENT, gives=("x", "y")), Pretend("b", takes=("y",)), Pretend("c", takes=("x",))]
    assert handovers(*steps) == ["2: parent to child with y, x"]


def test_a_slot_that_is_filled_anew_crosses_anew():
    steps = [
        fork(), Pretend("a", gives=("x",)), Pretend("b", PARENT, takes=("x",)), Pretend("c", gives=("x",)),
        Pretend("d", PARENT, takes=("x",)),
    ]  # fmt: skip
    assert handovers(*steps)[1:] == ["2: child to parent with x", "3: parent to child", "4: child to parent with x"]


def test_the_runner_has_what_the_child_has():
    steps = [fork(), Pretend("a", gives=("x",), finds=("uid",)), Pretend("b", RUNNER, takes=("x",), uses=("uid",))]
    assert handovers(*steps) == ["1: parent to child", "2: child to runner"]


def test_values_found_before_the_fork_are_known_after_it():
    Plan([Pretend("a", PARENT, finds=("v",)), fork(), Pretend("b", uses=("v",)), Pretend("c", PARENT, uses=("v",))])


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([Pretend("a", PARENT)], "has one step that makes a process; this one has 0"),
        ([fork(), fork()], "this one has 2"),
        ([Pretend("a"), fork()], "name='a'.* comes before there is a child"),
        ([Pretend("a", RUNNER), fork()], "name='a'.* comes before there is a runner"),
        ([fork(), Pretend("a", takes=("x",))], "name='a'.* takes x, which no step before it gives"),
        ([fork(), Pretend("a", takes=("x",), gives=("x",))], "name='a'.* takes x, which no step before it gives"),
        (
            [fork(), Pretend("a", takes=("x",)), Pretend("b", gives=("x",))],
            "name='a'.* takes x, which no step before it gives",
        ),
        ([fork(), Pretend("a", uses=("v",))], "name='a'.* uses v, which nothing before it finds in the same process"),
        (
            [fork(), Pretend("a", finds=("v",)), Pretend("b", PARENT, uses=("v",))],
            "name='b'.* uses v, which nothing before",
        ),
        (
            [fork(), Pretend("a", PARENT, finds=("v",)), Pretend("b", uses=("v",))],
            "name='b'.* uses v, which nothing before",
        ),
        ([fork(), Pretend("a", RUNNER), Pretend("b")], "name='b'.* comes after the runner has taken over"),
        ([fork(), Pretend("a", RUNNER), Pretend("b", PARENT)], "name='b'.* comes after the runner has taken over"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(steps, problem):
    """By name of the step: it is a mistake of whoever planned."""
    with pytest.raises(ValueError, match=problem):
        Plan(steps)


def test_records_are_in_the_order_of_the_steps():
    plan = Plan([Pretend("a", PARENT, record=(("x", "1"), ("y", "2"))), fork(), Pretend("b", record=(("z", "3"),))])
    assert plan.records() == [("x", "1"), ("y", "2"), ("z", "3")]


def test_nothing_is_done_to_make_a_plan():
    """Neither applied nor asked for rows."""

    class Untouchable(Pretend):
        __slots__ = ()

        def apply(self, slots):
            raise AssertionError

        rows = apply

    Plan([Untouchable("a", PARENT), fork(), Untouchable("b"), Untouchable("c", RUNNER)])
