"""Every step, the handover and every row of the runner fails once: the run says which, and nothing is left."""

from __future__ import annotations

import os

import pytest

import faults
import roots
from conftest import PLAIN_USER
from rows import in_child
from tarbox.plan.step import PARENT, RUNNER

MESSAGE = "made to fail"
TYPED = "typed"
IN_HALVES = ("directory", "plain")  # each row of the runner's fails in every run of the tests; else each step's first
REST = [name for name in (*faults.SCENES, TYPED) if name not in IN_HALVES]
NAMES = [
    *((name, name in IN_HALVES) for name in (*faults.SCENES, TYPED)),
    *(pytest.param(name, True, marks=pytest.mark.long) for name in REST),
]


@pytest.fixture
def rootfs(plain_folder):
    return roots.busybox(plain_folder / "busybox")


def sweep_through(scene, whole):
    """In a driver: a run that succeeds, then one for each of its places; returns what was wrong, and the counts."""
    faults.be_driver()
    first = faults.Command(scene)
    first.drive()
    usual = first.said()
    wrong = [f"the first run: {first.answer} {usual}"] if first.answer != (0, []) else []
    before = scene.things()
    wrong += [f"the first run left {line}" for line in faults.left(first, before)]
    wrong += check_places(first)
    later = ("leased", "unlinked", "taken")
    cases = [{"stop": place.key, "error": MESSAGE} for place in first.places if place.kind not in later]
    cases += [{"fail": row} for row in (range(len(first.table)) if whole else first.table.starts)]
    for case in cases:
        command = faults.Command(scene, **case)
        command.drive()
        wrong += [f"{case}: {line}" for line in check(command, case, before, usual)]
    return wrong, len(cases), len(first.steps)


def check_places(command):
    """Every step of the parent's was told of, and the one handover, and the runner had all others."""
    told = [place.key for place in command.places if place.kind in faults.PLACES]
    inside = [kind for kind, by in command.steps if by == RUNNER]
    outside = [("step", index, PARENT) for index, (_, by) in enumerate(command.steps) if by == PARENT]
    wrong = [] if told == [*outside, ("handover", len(outside), PARENT)] else [f"it told of {told}"]
    return wrong if command.table.kinds == inside else [*wrong, f"the runner did {command.table.kinds}"]


def check(command, case, before, usual):
    """What is wrong after a run that was made to fail."""
    told, changes = command.answer or ("nothing was told", [])
    wrong = []
    if case.get("error"):
        named = MESSAGE in str(told)
    else:
        row = case["fail"]
        named = "Bad file descriptor" in str(told) and command.table.owner(row) in str(told)
        if row in command.table.passing:
            named = named or told == 0
    if not named:
        wrong.append(f"the run ended with {told!r}")
    said = command.said()
    return [*wrong, *changes, *faults.left(command, before), *([f"it said {said!r}"] if said != usual else [])]


@pytest.mark.parametrize(("name", "whole"), NAMES)
def test_whatever_fails_nothing_is_left(name, whole, plain_folder, rootfs, test_host):
    """No mount, group, process, file or descriptor; the terminal has its modes; the error says what failed."""
    scene = faults.scene(name, plain_folder, rootfs, test_host, PLAIN_USER)
    wrong, cases, steps = in_child(lambda: sweep_through(scene, whole))
    assert not wrong, "\n".join(wrong)
    assert cases > steps
    assert sorted(os.listdir(scene.root)) == ["cache", "journals", *(["networks"] if name == "six" else []), "scratch"]


REASONS = ("Input/output error", "this kernel has no overlay file system")
# There is another way without these, or what they would do is done already.
SPARE = ("stat", "mkdir", "chown", "fchown", "fchmod", "memfd_create", "mmap", "setns")


@pytest.mark.parametrize("name", [*IN_HALVES, *(pytest.param(n, marks=pytest.mark.long) for n in REST)])
def test_whatever_call_fails_nothing_is_left(name, plain_folder, rootfs, test_host):
    """In the middle of the parent's steps: each system call of theirs fails once."""
    scene = faults.scene(name, plain_folder, rootfs, test_host, PLAIN_USER)

    def drive():
        faults.be_driver()
        first = faults.Command(scene)
        first.drive()
        first.said()
        before = scene.things()
        wrong = []
        for call, (done, path) in enumerate(first.calls):
            command = faults.Command(scene, call=call)
            command.drive()
            told, changes = command.answer or (f"nothing was told: {command.said()}", [])
            lines = [*changes, *faults.left(command, before)]
            if not any(reason in str(told) for reason in REASONS) and (told or done not in SPARE):
                lines.append(f"the run ended with {told!r}")
            wrong += [f"{call} {done} {path}: {line}" for line in lines]
        return wrong, len(first.calls), sum(by == PARENT for _, by in first.steps)

    wrong, calls, steps = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert calls > steps
