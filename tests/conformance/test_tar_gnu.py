"""What tarbox unpacks equals what GNU tar unpacks, file by file."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

import roots
from tarballs import facts
from tarbox.images.layers import Layers
from tarbox.plan.step import Slots

pytestmark = pytest.mark.unhurried


def by_tarbox(archive: Path, data: Path) -> tuple[Path, list[str]]:
    slots = Slots()
    Layers(str(data)).unpack(str(archive)).apply(slots)
    layer = Layers(str(data)).find(str(archive))
    assert layer is not None
    assert os.path.samefile(Layers(str(data)).place(str(archive)), layer.tree)
    return Path(layer.tree), slots.warnings


def by_tar(archive: Path, directory: Path) -> Path:
    directory.mkdir()
    subprocess.run(
        ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", archive, "-C", directory], check=True
    )
    return directory


def assert_same(archive: Path, tmp_path: Path) -> None:
    ours, warnings = by_tarbox(archive, tmp_path / "data")
    theirs = by_tar(archive, tmp_path / "theirs")
    assert not warnings
    one, other = facts(ours), facts(theirs)
    assert sorted(one) == sorted(other)
    assert {name: (one[name], other[name]) for name in one if one[name] != other[name]} == {}
    assert len(one) > 1


@pytest.fixture
def odd_tree(tmp_path: Path) -> Path:
    """A small tree with one of everything that a root filesystem may hold."""
    top = tmp_path / "odd"
    (top / "usr/lib").mkdir(parents=True)
    (top / "lib").symlink_to("usr/lib")
    (top / "usr/lib/library.so").write_bytes(b"library" * 1000)
    os.link(top / "usr/lib/library.so", top / "second-name")
    (top / "loop").symlink_to("loop")
    os.link(top / "loop", top / "loop-again", follow_symlinks=False)
    os.mkfifo(top / "fifo", 0o620)
    os.mknod(top / "null", 0o20666, os.makedev(1, 3))
    os.mknod(top / "disk", 0o60640, os.makedev(259, 70000))
    shell = top / "set-user"
    shell.write_bytes(b"x")
    os.chown(shell, 33, 44)
    shell.chmod(0o6755)
    ping = top / "ping"
    ping.write_bytes(b"ping")
    os.chown(ping, 7, 7)
    os.setxattr(ping, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(ping, "user.note", b"binary\0\n=\xff")
    os.setxattr(top / "usr", "user.folder", b"")
    os.chown(top / "loop", 70000, 3_000_000, follow_symlinks=False)
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    (top / "closed").mkdir()
    (top / "closed/inside").write_text("x")
    (top / "closed").chmod(0)
    deep = top / ("d" * 200) / ("e" * 200) / ("ü" * 100)
    deep.mkdir(parents=True)
    (deep / "long.txt").write_text("long")
    (top / "long-link").symlink_to("t" * 1000)
    (top / os.fsdecode(b"not-utf8-\xff\n")).write_text("name")
    (top / "empty").write_bytes(b"")
    (top / "old").write_bytes(b"old")
    os.utime(top / "old", ns=(0, -1_500_000_001))
    with open(top / "sparse", "wb") as sparse:
        for place in (1 << 20, 5 << 20, 9 << 20):
            sparse.seek(place)
            sparse.write(random.Random(place).randbytes(70_000))
        sparse.truncate(20 << 20)
    with open(top / "holes", "wb") as holes:
        holes.truncate(3 << 20)
    with open(top / "many-holes", "wb") as many:
        for place in range(200):
            many.seek(place * 65536)
            many.write(b"%d" % place)
    (top / "large").write_bytes(random.Random(1).randbytes(3_500_001))
    # Not by rglob, which on older Pythons follows links, and fails on long ones.
    found = [Path(folder, name) for folder, folders, files in os.walk(top) for name in (*folders, *files)]
    for path in sorted(found, reverse=True):
        if path.name != "old":
            os.utime(path, ns=(0, 1_500_000_000_123_456_789), follow_symlinks=False)
    return top


FORMS = {
    "gnu": ["--format=gnu"],
    "gnu-sparse": ["--format=gnu", "--sparse"],
    "pax": ["--format=pax", "--xattrs", "--xattrs-include=*"],
    "pax-sparse-0.0": ["--format=pax", "--sparse", "--sparse-version=0.0", "--xattrs", "--xattrs-include=*"],
    "pax-sparse-0.1": ["--format=pax", "--sparse", "--sparse-version=0.1", "--xattrs", "--xattrs-include=*"],
    "pax-sparse-1.0": ["--format=pax", "--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"],
    "pax-global": ["--format=pax", "--pax-option=comment=for all"],
    "ustar": ["--format=ustar", "--exclude=long*", "--exclude=ddd*", "--exclude=loop*", "--exclude=disk",
              "--exclude=old"],
    "v7": ["--format=v7", "--exclude=d*", "--exclude=long*", "--exclude=null", "--exclude=fifo", "--exclude=loop*",
           "--exclude=old"],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_archive_gives_the_files_that_gnu_tar_gives(form, odd_tree, tmp_path):
    archive = tmp_path / "odd.tar"
    options = FORMS[form]
    subprocess.run(["tar", *options, "--numeric-owner", "-cf", archive, "-C", odd_tree, "."], check=True)
    assert_same(archive, tmp_path)


def test_holes_stay_holes(odd_tree, tmp_path):
    archive = tmp_path / "odd.tar"
    subprocess.run(["tar", "--format=pax", "--sparse", "-cf", archive, "-C", odd_tree, "holes", "sparse"], check=True)
    ours, _warnings = by_tarbox(archive, tmp_path / "data")
    assert os.stat(ours / "holes").st_blocks == 0
    assert os.stat(ours / "sparse").st_blocks * 512 < 1 << 20


COMPRESSORS = {"gzip": ["gzip", "-1"], "bzip2": ["bzip2", "-1"], "xz": ["xz", "-1"], "zstd": ["zstd", "-q", "-3"]}


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_what_the_compressors_write_is_read_whatever_its_name(kind, odd_tree, tmp_path):
    """In one member and in two."""
    plain = tmp_path / "odd.tar"
    subprocess.run(["tar", "--format=pax", "-cf", plain, "-C", odd_tree, "."], check=True)
    packed = tmp_path / "odd.zip"
    content = plain.read_bytes()
    parts = [content[:1_000_001], content[1_000_001:]]
    packed.write_bytes(b"".join(
        subprocess.run([*COMPRESSORS[kind], "-c"], input=part, capture_output=True, check=True).stdout for part in parts
    ))  # fmt: skip
    ours, _warnings = by_tarbox(packed, tmp_path / "data")
    layers = Layers(str(tmp_path / "data"))
    by_tarbox(plain, tmp_path / "data")
    one, other = layers.find(str(packed)), layers.find(str(plain))
    assert one is not None
    assert other is not None
    assert one.digest == other.digest
    assert one.tree == other.tree == str(ours)
    said = subprocess.run(["sha256sum", plain], capture_output=True, check=True, text=True).stdout.split()[0]
    assert one.digest == "sha256:" + said


def test_a_debian_root_filesystem_equals_what_gnu_tar_unpacks(test_host, tmp_path):
    debian = roots.debian(test_host, "minbase")
    assert_same(debian, tmp_path)
    layer = Layers(str(tmp_path / "data")).find(str(debian))
    assert layer is not None
    machine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout
    assert layer.architecture == machine.strip()
