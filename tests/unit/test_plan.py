"""The plan: what it checks, and the handovers that it derives from the order of its steps."""

from __future__ import annotations

import pytest

from planned import Pretend, fork
from tarbox.plan.plan import Plan
from tarbox.plan.step import PARENT, RUNNER


def handovers(*steps, given=()):
    return [repr(handover) for handover in Plan(steps, given).handovers]


def test_the_start_of_the_runner_is_the_handover():
    plan = Plan([Pretend("a", PARENT), fork(), Pretend("b"), Pretend("c")])
    assert [repr(handover) for handover in plan.handovers] == ["2: parent to runner"]
    assert plan.handover(1) is plan.handover(3) is None
    assert (plan.handover(2).sender, plan.handover(2).receiver) == (PARENT, RUNNER)


def test_what_the_runner_takes_of_the_parents_crosses_once():
    steps = [
        Pretend("a", PARENT, gives=("tree", "unused")), Pretend("b", PARENT, takes=("unused",)), fork(),
        Pretend("c", takes=("tree", "stdin"), gives=("proc",)), Pretend("d", takes=("proc", "tree")),
    ]  # fmt: skip
    assert handovers(*steps, given=("stdin",)) == ["3: parent to runner with tree, stdin"]


def test_what_the_parent_opens_while_the_runner_waits_is_its_own():
    """Steps of the parent may come after the start; what they open is theirs alone."""
    Plan([fork(), Pretend("maps", PARENT, uses=()), Pretend("b")])


def test_found_values_are_known_to_later_steps_of_either():
    Plan([Pretend("a", PARENT, finds=("v",)), Pretend("b", PARENT, uses=("v",)), fork(), Pretend("c", uses=("v",))])


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([Pretend("a", PARENT)], "has one step that makes a process; this one has 0"),
        ([fork(), fork()], "this one has 2"),
        ([Pretend("a"), fork()], "name='a'.* comes before there is a runner"),
        ([fork(), Pretend("a", takes=("x",))], "name='a'.* takes x, which no step before it gives"),
        ([fork(), Pretend("a", takes=("x",), gives=("x",))], "name='a'.* takes x, which no step before it gives"),
        (
            [fork(), Pretend("a", takes=("x",)), Pretend("b", gives=("x",))],
            "name='a'.* takes x, which no step before it gives",
        ),
        ([fork(), Pretend("a", uses=("v",))], "name='a'.* uses v, which nothing before it finds"),
        ([fork(), Pretend("a", uses=("v",)), Pretend("b", finds=("v",))], "name='a'.* uses v, which nothing before"),
        ([fork(), Pretend("a"), Pretend("b", PARENT)], "name='b'.* comes after the runner has taken over"),
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

    Plan([Untouchable("a", PARENT), fork(), Untouchable("b"), Untouchable("c")])
