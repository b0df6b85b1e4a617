"""What containers mount on, and an image may lack, lies in a layer below it: nothing is made for it on disk."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

import roots

pytestmark = pytest.mark.unhurried

LOOK = "stat -c '%a %u %n' /etc /etc/hosts /proc /sys /dev; cat /etc/hosts"


@pytest.fixture
def bare(tmp_path):
    """A root filesystem with programs, and neither /etc nor /proc nor /sys nor /dev."""
    root = roots.busybox(tmp_path / "bare")
    for name in ("etc", "proc", "sys", "dev"):
        if (root / name).is_dir():
            shutil.rmtree(root / name)
    return root


def uppers(tarbox):
    """What containers that run have written."""
    return [sorted(os.listdir(path)) for path in tarbox.root.glob("scratch/*/upper")]


def test_nothing_lands_in_the_containers_own_directory(tarbox, bare, tmp_path):
    archive = roots.packed(bare, tmp_path / "bare.tar")
    process = tarbox.start("run", "--rm", "-i", archive, "sh", "-c", "echo ready; cat")
    assert process.stdout.readline() == b"ready\n"
    assert uppers(tarbox) == [[]]
    process.stdin.write(b"the end\n")
    assert process.communicate(timeout=30) == (b"the end\n", b"")


def test_all_may_read_them_whatever_the_umask(tarbox, bare, tmp_path):
    archive = roots.packed(bare, tmp_path / "bare.tar")
    before = os.umask(0o077)
    try:
        first = tarbox.output("run", "--rm", "-h", "box", archive, "sh", "-c", LOOK)
    finally:
        os.umask(before)
    again = tarbox.output("run", "--rm", "-h", "box", "-u", "1000", archive, "sh", "-c", LOOK)
    assert first == again
    assert first.splitlines()[:2] == ["755 0 /etc", "644 0 /etc/hosts"]
    assert "\tbox" in first
    places = tarbox.root / "cache" / "places"
    assert {stat.S_IMODE(path.stat().st_mode) for path in [places, *places.iterdir()]} == {0o755}


def test_what_an_image_has_is_what_is_seen(tarbox, bare, tmp_path):
    (bare / "usr" / "etc").mkdir(parents=True)
    (bare / "etc").symlink_to("usr/etc")
    (bare / "sys").mkdir(mode=0o700)
    archive = roots.packed(bare, tmp_path / "image.tar")
    seen = tarbox.output(
        "run", "--rm", "-h", "box", archive, "sh", "-c", "readlink /etc; cat /usr/etc/hostname; ls /etc"
    )
    assert seen.split() == ["usr/etc", "box", "hostname", "hosts", "resolv.conf"]


def test_a_data_root_of_an_older_version_has_none(tarbox, bare, tmp_path):
    archive = roots.packed(bare, tmp_path / "bare.tar")
    tarbox.output("run", "--rm", archive, "true")
    shutil.rmtree(tarbox.root / "cache" / "places")
    assert "localhost" in tarbox.output("run", "--rm", archive, "cat", "/etc/hosts")
    other = roots.packed(bare, tmp_path / "other.tar")
    tarbox.output("run", "--rm", other, "true")
    assert (tarbox.root / "cache" / "places" / "etc" / "hosts").is_file()


def test_many_commands_may_be_the_first(tarbox, bare, tmp_path):
    archives = []
    for number in range(6):
        (bare / "number").write_text(str(number))
        archives.append(roots.packed(bare, tmp_path / f"{number}.tar"))
    started = [tarbox.start("run", "--rm", "--net", "none", archive, "cat", "/number") for archive in archives]
    said = [process.communicate(timeout=60) for process in started]
    assert said == [(str(number).encode(), b"") for number in range(6)]
