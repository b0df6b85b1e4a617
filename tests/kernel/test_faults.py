"""Every step and every handover of a run fails once: the run says which, and nothing is left."""

from __future__ import annotations

import os

import pytest

import faults
import roots
from conftest import PLAIN_USER
from rows import in_child

MESSAGE = "made to fail"


@pytest.fixture
def rootfs(plain_folder):
    return roots.busybox(plain_folder / "busybox")


def sweep_through(scene):
    """In a driver: a run that succeeds, then one for each of its places; returns what was wrong, and how many."""
    faults.be_driver()
    first = faults.Command(scene)
    first.drive()
    usual = first.said()
    wrong = [f"the first run: {first.answer} {usual}"] if first.answer != (0, []) else []
    before = scene.files()
    wrong += [f"the first run left {line}" for line in faults.left(first, before)]
    cases = [{"stop": place.key, "error": MESSAGE} for place in first.places if place.kind != "unlinked"]
    cases = [case for case in cases if case["stop"][0] != "taken"]
    cases += [{"fail": index} for index in first.runner]
    for case in cases:
        command = faults.Command(scene, **case)
        command.drive()
        wrong += [f"{case}: {line}" for line in check(command, case, before, usual)]
    return wrong, len(cases), first.steps, len(first.runner)


def check(command, case, before, usual):
    """What is wrong after a run that was made to fail."""
    told, changes = command.answer or ("nothing was told", [])
    if case.get("error"):
        wrong = [] if MESSAGE in str(told) else [f"the run ended with {told!r}"]
        if case["stop"][0] == "step" and case["stop"][2] == "child" and f"in step {case['stop'][1]}:" not in str(told):
            wrong.append(f"the step isn't named in {told!r}")
    elif case["fail"] == command.steps - 1:
        wrong = [] if "cannot start /no/such/program: No such file" in str(told) else [f"the run ended with {told!r}"]
    else:
        wrong = [] if "Bad file descriptor in row 0 of" in str(told) else [f"the run ended with {told!r}"]
    said = command.said()
    return [*wrong, *changes, *faults.left(command, before), *([f"it said {said!r}"] if said != usual else [])]


@pytest.mark.parametrize("name", [*faults.SCENES, "typed"])
def test_whatever_fails_nothing_is_left(name, plain_folder, rootfs, test_host):
    """No mount, group, process, file or descriptor; the terminal has its modes; the error says what failed."""
    scene = faults.scene(name, plain_folder, rootfs, test_host, PLAIN_USER)
    wrong, cases, steps, runner = in_child(lambda: sweep_through(scene))
    assert not wrong, "\n".join(wrong)
    assert cases > steps > runner > 5
    assert sorted(os.listdir(scene.root)) == ["cache", "journals", "scratch"]
