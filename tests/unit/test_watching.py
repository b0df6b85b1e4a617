"""What is told of a run that is watched: sums of times, questions and answers. No run is needed."""

from __future__ import annotations

import pytest

from planned import Pretend, fork
from tarbox.plan.plan import Plan
from tarbox.plan.profile import Profile
from tarbox.plan.step import PARENT
from tarbox.plan.stepping import Left, Stepper

PLAN = Plan([Pretend("open 5f3a", PARENT), fork(), Pretend("attach"), Pretend("execute")])
MS = 1_000_000


def profile():
    made = Profile(100 * MS, 40 * MS)
    made.plan = PLAN
    made.names = {"5f3a": "ID"}
    made.steps = {0: 110 * MS, 1: 111 * MS, 2: 114 * MS, 3: 115 * MS}
    made.started, made.ended, made.cleaned = 120 * MS, 220 * MS, 223 * MS
    return made


def test_a_step_ends_where_the_next_begins():
    assert profile().times() == [(0, MS), (1, 3 * MS), (2, MS), (3, 5 * MS)]


def test_what_has_no_time_of_its_own_is_in_what_comes_before():
    made = profile()
    del made.steps[3]
    assert made.times() == [(0, MS), (1, 3 * MS), (2, 6 * MS)]


def test_a_clock_that_was_set_back_makes_no_time_negative():
    made = profile()
    made.steps[1] = 1
    assert min(time for _, time in made.times()) == 0


def test_nothing_is_left_out_of_the_sum():
    assert [time // MS for _, time in profile().parts()] == [40, 10, 10, 100, 3]
    assert profile().phases() == [
        ("filesystem", "parent", MS), ("namespaces", "parent", 3 * MS), ("filesystem", "runner", 6 * MS),
    ]  # fmt: skip


def test_the_table_has_all_of_it():
    lines = profile().table().splitlines()
    assert lines[2] == "   1.000  10.0    1 " + 'do("open $ID")'.ljust(60) + " ####"
    assert "   5.000  50.0    4 " in lines[6]
    assert lines[6].endswith(" " + "#" * 20)
    assert " 163.000        together" in lines


def test_the_document_has_the_same():
    found = profile().document()
    assert found["seconds"] == {"python": 0.04, "plan": 0.01, "steps": 0.01, "program": 0.1, "clean_up": 0.003}
    assert [step["number"] for step in found["steps"]] == [1, 2, 3, 4]


def stepper(*answers):
    said, looks = [], []
    ahead = list(answers)
    return Stepper(PLAN, {"5f3a": "ID"}, said.append, lambda prompt: ahead.pop(0), lambda: looks.append(1)), said, looks


def test_a_step_is_shown_and_taken():
    made, said, _ = stepper("", "n")
    made.before(0)
    made.before(1)
    assert 'do("open $ID")' in said[0]
    assert "step 2 of 4" in said[1]


def test_going_on_asks_no_more():
    made, said, _ = stepper("c")
    made.before(0)
    made.before(1)
    made.before(2)
    assert len(said) == 1


def test_questions_that_lead_back():
    made, said, looks = stepper("?", "p", "s", "x\x1b[31m", "n")
    made.before(2)
    assert len(looks) == 1
    assert "->   3  " in said[2]
    assert said[2].count("ok") == 2
    assert "\x1b" not in said[3]


@pytest.mark.parametrize("answer", ["q", None])
def test_leaving(answer):
    made, _, _ = stepper("n", answer)
    made.before(0)
    with pytest.raises(Left, match="before step 2 of 4"):
        made.before(1)
