"""A command is killed at every place of a run: the container ends with it, and the next command takes away the rest."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

import faults
import roots
from boxes import until
from conftest import PLAIN_USER
from rows import in_child
from tarbox.engine.options import RunOptions
from tarbox.engine.roots import Roots
from tarbox.kernel import cgroups
from tarbox.plan.step import PARENT
from testhost import interfaces


@pytest.fixture
def rootfs(plain_folder):
    return roots.busybox(plain_folder / "busybox")


class Killing:
    """In a driver: runs of a scene that are killed, each followed by another command on the same data root.

    places, table: of a run that isn't. wrong: what went wrong, a line each. cases: how many runs were killed.
    """

    def __init__(self, scene, rootfs, init=None):
        faults.be_driver()
        self.scene = scene
        self.rootfs = rootfs
        self.init = init
        first = faults.Command(scene, self.options())
        first.drive()
        self.wrong = [] if first.answer == (0, []) else [f"the first run: {first.answer} {first.said()}"]
        self.places = [place.key for place in first.places]
        self.steps = first.steps
        self.table = first.table
        self.before = scene.things()
        self.cases = 0

    def options(self, *command):
        options = self.scene.options()
        options.command = list(command) or faults.WRITE_AND_END
        options.init = options.init if self.init is None else self.init
        return options

    def kill(self, key, *command):
        """Kill the command at one place, and let the next one clean up; returns the one that was killed."""
        killed = faults.Command(self.scene, self.options(*command), stop=key)
        self.check_gone(f"killed at {' '.join(map(str, key))}", killed, killed.drive())
        return killed

    def kill_at_row(self, row):
        """Kill the command while the runner waits before one of its rows, and let the next one clean up."""
        command = () if row in self.table.passing else LASTING  # a row that isn't reached must not start that
        killed = faults.Command(self.scene, self.options(*command), hold=row, wakes=not self.table.is_bound(row))
        took = killed.drive()
        case = f"killed at row {row}, {self.table.owner(row)}"
        if killed.held:
            self.check_gone(case, killed, took)
        elif row not in self.table.passing:
            self.wrong.append(f"{case}: the runner didn't come there, {killed.answer}")

    def check_gone(self, case, killed, took):
        self.cases += 1
        if took > faults.GONE:
            self.wrong.append(f"{case}: what it started lived on for {took:.1f} s")
        if killed.status != signal.SIGKILL:
            self.wrong.append(f"{case}: it wasn't there to be killed, {killed.answer}")
        following = faults.Command(self.scene, RunOptions(f"{self.rootfs}:O", ["true"]))
        following.drive()
        said = following.said()
        if following.answer != (0, []) or said:
            self.wrong.append(f"{case}: the next command: {following.answer} {said}")
        self.wrong += [f"{case}: left after the next command: {line}" for line in faults.left(killed, self.before)]

    def kill_runner(self, row):
        """Kill the runner while it waits before one of its rows: the command tells of it, and leaves nothing."""
        command = faults.Command(self.scene, self.options(), hold=row)
        command.drive("child")
        case = f"the runner killed at row {row}, {self.table.owner(row)}"
        if not command.held:
            assert row in self.table.passing, case
            return
        self.cases += 1
        told, changes = command.answer or ("nothing was told", [])
        # Once it has said that it is ready, its end is that of the program.
        if told != 128 + signal.SIGKILL if row > self.table.ready() else DIED not in str(told):
            self.wrong.append(f"{case}: the run ended with {told!r}")
        self.wrong += [f"{case}: {line}" for line in (*changes, *faults.left(command, self.before))]

    def result(self):
        return self.wrong, self.cases


LASTING = ("sleep", "60")  # what doesn't end by itself if it is started after all
DIED = "the container's first process died while it was being set up"


def scene_of(name, folder, rootfs, host):
    return faults.scene(name, folder, rootfs, host, PLAIN_USER)


WHOLE = ("directory", "plain")  # killed at each place in every run of the tests; the others at each second
# How many addresses a container has there.
CONNECTED = {"directory": 1, "host": 1, "memory": 1, "terminal": 1, "shared": 1, "published": 1, "six": 2}
SCENES = [
    *((name, 1 if name in WHOLE else 2) for name in faults.SCENES),
    *(pytest.param(name, 1, marks=pytest.mark.long) for name in faults.SCENES if name not in WHOLE),
]


@pytest.mark.parametrize(("name", "every"), SCENES)
def test_a_command_killed_at_any_place_leaves_nothing(name, every, plain_folder, rootfs, test_host):
    """At each of its steps and at the handover; while it runs; and in the middle of taking away."""
    scene = scene_of(name, plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        taken = [key for key in killing.places if key[0] == "leased"]
        steps = [key for key in killing.places if key[0] in faults.PLACES]
        later = killing.places[len(taken) + len(steps) :]
        for key in [*taken, *steps[:-1:every], steps[-1], *later[:: every * every]]:
            killing.kill(key, *(LASTING if key[0] == "handover" else ()))
        killing.kill(("running", 0, "parent"), *LASTING)
        return *killing.result(), killing.steps, killing.places

    wrong, cases, steps, places = in_child(drive)
    assert not wrong, "\n".join(wrong)
    outside = [("step", index, PARENT) for index, (_, by) in enumerate(steps) if by == PARENT]
    taken = [key for key in places if key[0] == "leased"]
    assert len(taken) == CONNECTED.get(name, 0)
    told = [*taken, *outside, ("handover", len(outside), PARENT)]
    assert places[: len(told)] == told
    later = places[len(told) :]
    assert {key[0] for key in later} == {"running", "ended", "unlinked", "taken"}
    assert cases == len([*taken, *outside[::every], *later[:: every * every]]) + 2
    assert [os.listdir(f"{scene.root}/{name}") for name in ("journals", "scratch")] == [[], []]


@pytest.mark.parametrize(("name", "every"), SCENES)
def test_a_command_killed_at_any_step_of_the_runner_ends_it(name, every, plain_folder, rootfs, test_host):
    """By the kernel's signal; where there is none yet, or none any more, it finds out before the program runs."""
    scene = scene_of(name, plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        rows = killing.table.places()[::every]
        for row in rows:
            killing.kill_at_row(row)
        return *killing.result(), len(rows)

    wrong, cases, rows = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert cases == rows


@pytest.mark.long
@pytest.mark.parametrize("name", faults.SCENES)
def test_a_command_killed_at_any_row_of_the_runner_ends_it(name, plain_folder, rootfs, test_host):
    """In the middle of its steps, too."""
    scene = scene_of(name, plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        for row in range(len(killing.table)):
            killing.kill_at_row(row)
        return *killing.result(), len(killing.table) - len(killing.table.passing)

    wrong, cases, sure = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert cases >= sure


@pytest.mark.parametrize(("name", "every"), SCENES)
def test_a_runner_killed_at_any_step_is_told_of(name, every, plain_folder, rootfs, test_host):
    """The command says that it died, and leaves nothing."""
    scene = scene_of(name, plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        rows = killing.table.places()[::every]
        for row in rows:
            killing.kill_runner(row)
        return *killing.result(), len(rows)

    wrong, cases, rows = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert cases == rows


@pytest.mark.parametrize("name", ["memory", "plain-memory"])
def test_memory_that_is_mounted_for_a_moment_is_let_go_by_the_next_command(name, plain_folder, rootfs, test_host):
    """Of a command that is killed between the two steps; what a plain user mounts the host never sees."""
    scene = scene_of(name, plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        kinds = [kind for kind, _ in killing.steps]
        mounted = []
        for index in range(kinds.index("MountMemory"), kinds.index("LetGo") + 2):
            killed = faults.Command(scene, killing.options(), stop=("step", index, PARENT))
            took = killed.drive()
            mounted.append(sum(scene.root in line for line in faults.mounts()))
            killing.check_gone(f"killed at {kinds[index]}", killed, took)
        return killing.wrong, mounted

    wrong, mounted = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert (mounted[0], mounted[-1]) == (0, 0)
    assert set(mounted[1:-1]) == ({0} if scene.user else {1})


def test_a_command_killed_while_it_unpacks_leaves_nothing(plain_folder, rootfs, test_host):
    """Neither half an image nor a lock, and the next command unpacks it."""
    archive = roots.packed(rootfs, plain_folder / "busybox.tar")
    scene = scene_of("memory", plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        wrong, before = killing.wrong, killing.before | {f"file {scene.root}/{name}" for name in ("layers", "sources")}
        for index in (0, 1, 7, 60):
            killed = faults.Command(scene, RunOptions(str(archive), ["true"]), stop=("unpacking", index, "parent"))
            killed.drive("command")
            wrong += [] if killed.status == signal.SIGKILL else [f"{index}: it wasn't there to be killed"]
            following = faults.Command(scene, RunOptions(f"{rootfs}:O", ["true"]))
            following.drive()
            wrong += [f"{index}: {following.answer}"] if following.answer != (0, []) else []
            wrong += [f"{index}: {line}" for line in faults.left(killed, before)]
        last = faults.Command(scene, RunOptions(str(archive), ["true"]))
        last.drive()
        return wrong, last.answer, os.listdir(f"{scene.root}/scratch")

    assert in_child(drive) == ([], (0, []), [])


@pytest.mark.parametrize("name", ["directory", "plain"])
def test_a_clean_up_that_is_killed_too_is_finished_by_the_one_after(name, plain_folder, rootfs, test_host):
    """At each thing that the second command takes away, and at each file of it."""
    scene = scene_of(name, plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        number = 0
        while True:
            first = faults.Command(scene, killing.options("sleep", "60"), stop=("running", 0, "parent"))
            first.drive("command")
            at = [("taken", number // 2, "parent"), ("unlinked", number // 2, "parent")][number % 2]
            second = faults.Command(scene, RunOptions(f"{rootfs}:O", ["true"]), stop=at)
            second.drive("command")
            third = faults.Command(scene, RunOptions(f"{rootfs}:O", ["true"]))
            third.drive()
            if third.answer != (0, []):
                killing.wrong.append(f"{at}: {third.answer} {third.said()}")
            for command in (first, second):
                killing.wrong += [f"{at}: {line}" for line in faults.left(command, killing.before)]
            if second.status != signal.SIGKILL and at[0] == "taken":
                return killing.wrong, number
            number += 1

    wrong, number = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert number > (4 if name == "directory" else 3)  # a plain user's container leaves less to take away


def test_a_command_leaves_a_living_one_alone(plain_folder, rootfs, test_host):
    """Its groups, its files, its journal: they are somebody's."""
    scene = scene_of("directory", plain_folder, rootfs, test_host)

    def drive():
        faults.be_driver()
        options = scene.options()
        options.command = ["sh", "-c", "sleep 1; cat /etc/hostname /shared/file; echo > /tmp/x"]
        living = faults.Command(scene, options)
        while not living.places or living.places[-1].kind != "running":
            living.hear_once()
        told, files = [], [name for _, name in living.names if name.startswith("/")]
        before = living.scene.things()
        for _ in range(3):
            other = faults.Command(scene, RunOptions(f"{rootfs}:O", ["true"]))
            other.drive(alone=False)
            found = living.scene.things()
            told.append((other.answer, all(map(os.path.lexists, files)), before - found))
        living.drive()
        return told, len(files), living.answer, living.said()

    told, count, answer, said = in_child(drive)
    assert told == [((0, []), True, set())] * 3
    assert count > 5
    assert (answer, said) == ((0, []), "")


def test_a_container_that_is_frozen_when_its_command_is_killed(plain_folder, rootfs, test_host):
    """It can't die before it is thawed: the next command does both."""
    scene = scene_of("directory", plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs)
        killed = faults.Command(scene, killing.options("sleep", "60"))
        while not killed.places or killed.places[-1].kind != "running":
            killed.hear_once()
        backend = cgroups.pick(cgroups.detect())
        backend.freeze(killed.name)
        os.kill(killed.pid, signal.SIGKILL)
        killed.drive(alone=False)
        following = faults.Command(scene, RunOptions(f"{rootfs}:O", ["true"]))
        following.drive()
        return killing.wrong, following.answer, following.said(), faults.left(killed, killing.before)

    assert in_child(drive) == ([], (0, []), "", [])


def test_whoever_deletes_a_bridge_is_killed(tarbox, rootfs_busybox):
    """A moment after the last container: the next command deletes it, whatever it does itself; or uses it again."""
    for words in (("--net", "none"), (), ("-p", "8080:80")):
        before = {entry for entry in os.listdir("/proc") if entry.isdigit()}
        tarbox.output("run", rootfs_busybox, "true")
        (bridge,) = (name for name in interfaces() if name.startswith("tb-"))  # a cable may be on its way out
        (journal,) = _journals(tarbox)
        holders = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid not in before and _holds(pid, journal)]
        assert len(holders) == 1
        os.kill(int(holders[0]), signal.SIGKILL)
        until(lambda pid=holders[0], journal=journal: not _holds(pid, journal))
        time.sleep(0.4)
        until(lambda there=bridge: interfaces() == {"lo", there})
        assert _journals(tarbox) == [journal]
        tarbox.output("run", *words, rootfs_busybox, "true")
        assert journal not in _journals(tarbox)
        until(lambda: interfaces() == {"lo"} and not _journals(tarbox))


def _journals(tarbox):
    folder = Roots(str(tarbox.root)).journals[0]
    return [f"{folder}/{name}" for name in os.listdir(folder)]


def _holds(pid, path):
    """Whether a process has the file open."""
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{number}") == path for number in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


@pytest.mark.parametrize("init", [True, False])
def test_a_command_killed_while_its_container_changes_ids(init, plain_folder, rootfs, test_host):
    """The kernel forgets the signal of a parent's death at such a change; what dies before it is set again counts."""
    scene = scene_of("directory", plain_folder, rootfs, test_host)

    def drive():
        killing = Killing(scene, rootfs, init)
        first, last = killing.table.of("Credentials")[0], killing.table.ready()
        for row in range(first, last + 2):
            killing.kill_at_row(row)
        loose = sum(not killing.table.is_bound(row) for row in range(first, last + 2))
        return *killing.result(), last + 2 - first, loose

    wrong, cases, rows, loose = in_child(drive)
    assert not wrong, "\n".join(wrong)
    assert cases == rows > loose > 2


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.long)])
def test_a_command_killed_at_any_moment_leaves_nothing(count, tarbox, rootfs_busybox):
    """From outside, within system calls too; one command then takes away what all of them left."""
    image = f"{rootfs_busybox}:O"
    assert tarbox("run", image, "true").returncode == 0
    before = _kept(tarbox)
    chance = random.Random(count)
    killed = 0
    for _ in range(count):
        options = ("-u", "guest", "-m", "64m", "--init", "--tmpfs", "/scratch", image)
        command = tarbox.start("run", *options, "sh", "-c", "echo > /tmp/x; sleep 0.01")
        time.sleep(chance.uniform(0, 0.08))
        command.kill()
        command.communicate()
        killed += command.returncode == -signal.SIGKILL
    done = tarbox("run", image, "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert _kept(tarbox) == before
    assert killed > count / 4


def _kept(tarbox):
    """What lies in the data root and the state folder; a left group would still have its journal there.

    A bridge that is about to go has one as well.
    """
    found = set()
    until(lambda: not any("bridge-" in name for name in os.listdir(Roots(str(tarbox.root)).journals[0])))
    for top in (str(tarbox.root), Roots(str(tarbox.root)).state):
        for folder, names, files in os.walk(top):
            found |= {os.path.join(folder, name) for name in (*names, *files)}
    return found
