"""Volumes whose changes are thrown away: the config's mount, and the steps that make room for the writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tarbox.engine import overlaid
from tarbox.engine.config import config
from tarbox.engine.machine import Machine
from tarbox.engine.options import MountOption, RunOptions
from tarbox.errors import ImageNotFoundError, UnsupportedError, UsageError
from tarbox.kernel.overlay import MakeScratch
from tarbox.kernel.tmpfs import LetGo, MountMemory
from tarbox.spec.validation import validate


def made(options: RunOptions, uid: int = 0) -> Any:
    return config(options, {}, "0123456789abcdef" * 4, Machine("here", uid=uid), "/srv")


def options_of(*mounts: MountOption, memory: int = 0) -> RunOptions:
    options = RunOptions("./rootfs")
    options.mounts = list(mounts)
    options.root_tmpfs = memory
    return options


def test_each_volume_has_its_own_room(tmp_path: Path) -> None:
    (tmp_path / "b:\\").mkdir()
    options = options_of(
        MountOption("overlay", str(tmp_path), "/a", ()), MountOption("overlay", f"{tmp_path}/b:\\", "/b", ("ro",))
    )
    whole = made(options)
    steps = overlaid.steps(options, whole, "/data/scratch/ID", plain=False)
    validate(whole)
    assert steps == [
        MakeScratch("/data/scratch/ID-volume0", ("upper", "work"), (str(tmp_path),)),
        MakeScratch("/data/scratch/ID-volume1", ("upper", "work"), (f"{tmp_path}/b:\\",)),
    ]
    assert [step.record() for step in steps] == [(("tree", f"/data/scratch/ID-volume{number}"),) for number in (0, 1)]
    assert whole["mounts"][-2:] == [
        {
            "destination": "/a", "type": "overlay", "source": "overlay",
            "options": [
                f"lowerdir={tmp_path}", "upperdir=/data/scratch/ID-volume0/upper",
                "workdir=/data/scratch/ID-volume0/work", "volatile",
            ],
        },
        {
            "destination": "/b", "type": "overlay", "source": "overlay",
            "options": [
                "ro", f"lowerdir={tmp_path}/b\\:\\\\", "upperdir=/data/scratch/ID-volume1/upper",
                "workdir=/data/scratch/ID-volume1/work", "volatile",
            ],
        },
    ]  # fmt: skip


def test_with_a_root_in_memory_the_writes_stay_there_too(tmp_path: Path) -> None:
    options = options_of(MountOption("overlay", str(tmp_path), "/a", ()), memory=1 << 20)
    assert overlaid.steps(options, made(options, 1000), "/s/ID", plain=True) == [
        MakeScratch("/s/ID-volume0", ()), MountMemory("/s/ID-volume0", 1 << 20, ("upper", "work"), str(tmp_path)),
        LetGo("/s/ID-volume0"),
    ]  # fmt: skip


def test_a_plain_users_notes_are_kept_where_it_may(tmp_path: Path) -> None:
    options = options_of(MountOption("overlay", str(tmp_path), "/a", ()))
    whole = made(options, 1000)
    overlaid.steps(options, whole, "/s/ID", plain=True)
    assert whole["mounts"][-1]["options"][-2:] == ["volatile", "userxattr"]


def test_what_cannot_be_a_lower_layer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ("x" * 200) / ("y" * 200)).mkdir(parents=True)
    for name, kind, part in (
        ("none", ImageNotFoundError, "there is no such directory"),
        ("file", UsageError, "only a directory takes O"),
        (f"{'x' * 200}/{'y' * 200}", UnsupportedError, "at most 255 bytes"),
    ):
        options = options_of(MountOption("overlay", f"{tmp_path}/{name}", "/a", ()))
        with pytest.raises(kind) as raised:
            overlaid.steps(options, made(options), "/s/ID", plain=False)
        assert part in str(raised.value)


def test_a_plain_user_cannot_lay_one_over_mounts() -> None:
    assert overlaid.mounted_below("/").startswith("/")
    assert overlaid.mounted_below(os.path.dirname(__file__)) == ""
    options = options_of(MountOption("overlay", "/", "/a", ()))
    with pytest.raises(UnsupportedError, match="something is mounted below it"):
        overlaid.steps(options, made(options, 1000), "/s/ID", plain=True)
