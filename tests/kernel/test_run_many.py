"""Many at once, and ends at any moment: nothing of one container reaches another, and nothing is left."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

import roots
from conftest import Tarbox


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def left(tarbox: Tarbox) -> list[Path]:
    """What there is besides empty folders and the cache."""
    state = Path("/run/tarbox", str(tarbox.root).strip("/").replace("-", "%2d").replace("/", "-"))
    folders = (tarbox.root / "scratch", tarbox.root / "journals", state / "journals")
    there = [path for folder in folders if folder.exists() for path in folder.iterdir()]
    return [path for path in there if not path.name.startswith("bridge-")] + [  # the bridge goes a moment later
        path
        for path in (*state.glob("*"), *state.glob("networks/*"))
        if path.name not in ("journals", "networks", "bridge")
    ]


def test_twenty_at_once(tarbox, image):
    """Each has its own code, output, name and files."""
    script = "echo $1 >/mine; sleep 0.1; cat /mine; hostname; exit $1"
    started = [tarbox.start("run", "-m", "50m", image, "sh", "-c", script, "sh", str(number)) for number in range(20)]
    names = set()
    for number, process in enumerate(started):
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (number, b"")
        mine, name = output.decode().split()
        assert mine == str(number)
        names.add(name)
    assert len(names) == 20
    assert not left(tarbox)


def test_two_data_roots_side_by_side(test_host, tmp_path, image):
    """Neither takes the other's running container for a dead one's rest."""
    one, two = Tarbox(test_host, tmp_path / "one"), Tarbox(test_host, tmp_path / "two")
    running = one.start("run", "-i", image, "sh", "-c", "echo on; read x; touch /still && echo writes")
    assert running.stdout.readline() == b"on\n"
    before = {path.name for path in (one.root / "scratch").iterdir()}
    assert len(before) == 1
    for tarbox in (two, one, two):
        assert tarbox.output("run", image, "echo", "works") == "works\n"
    assert {path.name for path in (one.root / "scratch").iterdir()} == before
    output, _ = running.communicate(b"\n", timeout=20)
    assert (running.returncode, output) == (0, b"writes\n")
    assert not [*left(one), *left(two)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_any_moment_leaves_nothing(tarbox, image, number):
    """From the first moment of the command to the end of its container."""
    tarbox.output("run", image, "true")
    chance = random.Random(int(number))
    codes = set()
    for _ in range(15):
        started = tarbox.start(
            "run", "-m", "50m", image, "sh", "-c", "trap 'exit 44' INT TERM; sleep 0.2 & wait; exit 0"
        )
        time.sleep(chance.uniform(0, 0.35))
        started.send_signal(number)
        try:
            started.communicate(timeout=20)
        finally:
            started.kill()
        codes.add(started.returncode)
        assert not left(tarbox)
    # By the signal before Python listens, as Python says it, by the container's trap, or not at all.
    assert codes <= {-number, 128 + number, 130, 44, 0, 125}, codes
