"""The words of the rarer limits: what is taken, what is refused, and with which advice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tarbox.engine import limit_values as values
from tarbox.engine.lasting_groups import name
from tarbox.engine.limits import written
from tarbox.errors import UsageError


def refused(read: Callable[[str], object], text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(text)
    return str(caught.value)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path is the disk 8:0."""
    monkeypatch.setattr(values, "_disk", lambda path: (8, 0))


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (values.swappiness, {"0": 0, "100": 100, "-1": None}, ["101", "-2", "", "x", "1.5", "٣"]),
        (values.oom_score, {"-1000": -1000, "0": 0, "1000": 1000}, ["-1001", "1001", "--5", "1e2"]),
        (values.cpu_period, {"0": 0, "1000": 1000, "1000000": 1000000}, ["999", "1000001", "-1", "100ms"]),
        (values.cpu_quota, {"0": 0, "-1": -1, "1000": 1000, "9000000": 9000000}, ["999", "-2", "0.5"]),
        (values.realtime, {"0": 0, "950000": 950000}, ["-1", "1s"]),
        (values.nodes, {"0": "0", "0-1, 3": "0-1,3"}, ["", "a", "1-0", "-1"]),
        (values.disk_weight, {"0": 0, "10": 10, "1000": 1000}, ["9", "1001", "-10"]),
        (values.parent, {"/web": "web", "web/front/": "web/front", "a.slice": "a.slice"}, ["", "/", "a/../b", "a//b"]),
        (values.net_class, {"0x10001": 65537, "65537": 65537, "1:1": 65537, "ffff:ffff": 2**32 - 1, "0": 0},
         ["", "1:10000", "x", "0x100000000", "1:-1", "1_0", "1:", "+1"]),
        (values.control, {"memory.high=16m": ("memory.high", "16m"), "cpu.max = 5 10": ("cpu.max", "5 10")},
         ["memory.high", "memory.high=", "=1", "../x=1", "memory/x.y=1", "a..b=1", "cgroup.procs=1", "tasks=1",
          "release_agent=/x", "freezer.state=FROZEN", "memory.high=1\n2", ".memory=1", "memory.=1", "mémory.x=1"]),
    ],
)  # fmt: skip
def test_words(read: Callable[[str], object], good: dict[str, object], bad: list[str]) -> None:
    for text, value in good.items():
        assert read(text) == value, text
    for text in bad:
        message = refused(read, text)
        assert "\n" not in message
        assert "(" in message, f"{text!r} is refused without advice: {message}"


@pytest.mark.usefixtures("disk")
def test_limits_of_one_disk() -> None:
    assert values.one_disks_weight("/dev/sda:300") == (8, 0, 300)
    assert values.rate("/dev/sda:1mb") == (8, 0, 1 << 20)
    assert values.rate("8:0:64k") == (8, 0, 64 << 10)
    assert values.operations("/dev/sda:1000") == (8, 0, 1000)
    for text in ("/dev/sda", "/dev/sda:", ":5", "/dev/sda:x", "/dev/sda:0"):
        for read in (values.one_disks_weight, values.rate, values.operations):
            refused(read, text)
    assert "from 10 to 1000" in refused(values.one_disks_weight, "/dev/sda:5")


def test_what_is_no_disk_is_told(tmp_path: Path) -> None:
    assert (
        refused(values.rate, "/dev/not-there:1m") == "/dev/not-there: No such file or directory (lsblk lists the disks)"
    )
    assert "is not a disk" in refused(values.rate, "/dev/null:1m")
    assert f"'df {tmp_path}' tells" in refused(values.rate, f"{tmp_path}:1m")
    assert "no such disk" in refused(values.rate, "4095:1048575:1m")


def test_a_partition_is_told_its_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: True if path.startswith("/sys/dev/block/8:1") else real(path))
    monkeypatch.setattr(os.path, "realpath", lambda path: "/sys/devices/x/block/sda/sda1")
    assert refused(values.rate, "8:1:1m") == "8:1 is a partition, and limits are for whole disks (name /dev/sda)"


def test_huge_pages_are_those_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kilobytes in (64, 2048, 1 << 20):
        (tmp_path / f"hugepages-{kilobytes}kB").mkdir()
    monkeypatch.setattr(values, "_PAGES", str(tmp_path))
    assert values.huge_pages("2m=64m") == ("2MB", 64 << 20)
    assert values.huge_pages("2048k=0") == ("2MB", 0)
    assert values.huge_pages("1g=2g") == ("1GB", 2 << 30)
    assert values.huge_pages("64k=1m") == ("64KB", 1 << 20)
    assert refused(values.huge_pages, "3m=1g") == "this machine has no pages of 3m (it has: 64KB, 2MB, 1GB)"
    refused(values.huge_pages, "2m")
    refused(values.huge_pages, "2m=x")


def test_names_of_lasting_groups() -> None:
    for text in ("a", "build-2", "x_y.z", "9"):
        assert name(text) == text
    for text in ("", ".", "..", "-m", "a/b", "a b", "a\n", "ä", ".x", "x" * 101):
        assert "not the name of a group" in refused(name, text)


def test_sizes_are_written_as_people_do() -> None:
    sizes = (0, 1023, 1 << 10, 1536, 50 << 20, 3 << 30)
    assert [written(size) for size in sizes] == ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "50 MiB", "3 GiB"]
