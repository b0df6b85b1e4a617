"""A command is killed at every place of a run: the container ends with it, and the next command takes away the rest."""

from __future__ import annotations

import os
import signal

import pytest

import faults
import roots
from conftest import PLAIN_USER
from rows import in_child
from tarbox.engine.options import RunOptions

WRITE_AND_END = ["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i > /dev/shm/$i; echo $i > /tmp/$i; done; exit 0"]


@pytest.fixture
def rootfs(plain_folder):
    return roots.busybox(plain_folder / "busybox")


class Killing:
    """In a driver: runs of a scene that are killed, each followed by another command on the same data root."""

    def __init__(self, scene, rootfs):
        faults.be_driver()
        self.scene = scene
        self.rootfs = rootfs
        first = faults.Command(scene, self.options())
        first.drive()
        self.wrong = [] if first.answer == (0, []) else [f"the first run: {first.answer} {first.said()}"]
        self.places = [place.key for place in first.places]
        self.before = scene.files()
        self.cases = 0

    def options(self, *command):
        options = self.scene.options()
        options.command = list(command) or WRITE_AND_END
        return options

    def kill(self, key, victim, *command):
        """Kill one run at one place, and let the next command clean up."""
        self.cases += 1
        case = f"{victim} killed at {' '.join(map(str, key))}"
        killed = faults.Command(self.scene, self.options(*command), stop=key)
        took = killed.drive(victim)
        if took > faults.GONE:
            self.wrong.append(f"{case}: what it started lived on for {took:.1f} s")
        if victim == "command":
            if killed.status != signal.SIGKILL:
                self.wrong.append(f"{case}: it wasn't there to be killed, {killed.answer}")
        else:
            told, changes = killed.answer or ("nothing was told", [])
            if "died while it was being set up" not in str(told):
                self.wrong.append(f"{case}: the run ended with {told!r}")
            self.wrong += [f"{case}: {line}" for line in (*changes, *faults.left(killed, self.before))]
            return
        following = faults.Command(self.scene, RunOptions(f"{self.rootfs}:O", ["true"]))
        following.drive()
        said = following.said()
        if following.answer != (0, []) or said:
            self.wrong.append(f"{case}: the next command: {following.answer} {said}")
        self.wrong += [f"{case}: left after the next command: {line}" for line in faults.left(killed, self.before)]

    def result(self):
        return self.wrong, self.cases


def scene_of(name, folder, rootfs, host):
    return faults.scene(name, folder, rootfs, host, PLAIN_USER)


@pytest.mark.parametrize("name", faults.SCENES)
def test_a_command_killed_at_any_place_leaves_nothing(name, plain_folder, rootfs, test_host):
    """At each step and handover, in either process; while it runs; and in the middle of taking away."""
    scene = scene_of(name, plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        for key in killing.places:
            killing.kill(key, "command")
        killing.kill(("running", 0, "parent"), "command", "sleep", "60")
        return killing.result()

    wrong, cases = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert cases > 40
    assert [os.listdir(f"{scene.root}/{name}") for name in ("journals", "scratch")] == [[], []]


@pytest.mark.parametrize("name", faults.SCENES)
def test_a_first_process_killed_at_any_place_is_told_of(name, plain_folder, rootfs, test_host):
    """The command says that it died, and leaves nothing."""
    scene = scene_of(name, plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        for key in killing.places:
            if key[2] == "child":
                killing.kill(key, "child")
        return killing.result()

    wrong, cases = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert cases > 20
