"""Unpacking as a plain user, by two commands at once, and what is removed or refused around it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import PLAIN_USER
from tarballs import END, file, header, pax
from tarbox.errors import ArchitectureError, StorageError
from tarbox.images import architecture
from tarbox.images.layers import Layers
from tarbox.kernel.trees import remove_tree
from tarbox.plan.step import Slots

ARM = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00"


def in_child(work, uid=0) -> int:
    """Run `work()` in a forked process as this user; its exit status is 0 unless it raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return child


@pytest.fixture
def public(tmp_path):
    """A folder that a plain user can reach and write to."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    mine = tmp_path / "mine"
    mine.mkdir()
    os.chown(mine, PLAIN_USER, PLAIN_USER)
    return mine


def test_a_plain_user_gets_all_but_owners_devices_and_capabilities_and_is_told(public):
    archive = public / "a.tar"
    archive.write_bytes(
        header("closed", b"5", mode=0) + file("closed/f", b"x", uid=5, gid=5, mode=0o640)
        + header("null", b"3", device=(1, 3)) + header("also", b"1", link="null")
        + pax([("SCHILY.xattr.security.capability", "x"), ("SCHILY.xattr.user.a", "b")])
        + file("ping", b"x", mode=0o444) + END
    )  # fmt: skip
    layers = Layers(str(public / "data"))

    def work() -> None:
        slots = Slots()
        layers.unpack(str(archive)).apply(slots)
        told = " ".join(slots.warnings)
        assert "device nodes" in told
        assert "security" in told

    assert os.waitpid(in_child(work, PLAIN_USER), 0)[1] == 0
    layer = layers.find(str(archive))
    assert layer is not None
    tree = Path(layer.tree)
    assert sorted(os.listdir(tree)) == ["closed", "ping"]
    assert stat.S_IMODE(os.stat(tree / "closed").st_mode) == 0o700
    status = os.stat(tree / "closed/f")
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (PLAIN_USER, 0o640)
    assert os.listxattr(tree / "ping") == ["user.a"]


def test_two_commands_unpack_once(tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"".join(file(f"f{number}", b"x" * 5000) for number in range(1500)) + END)
    layers = Layers(str(tmp_path / "data"))
    children = [in_child(lambda: layers.unpack(str(archive)).apply(Slots())) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert len(os.listdir(tmp_path / "data/layers")) == 1
    assert os.listdir(tmp_path / "data/scratch") == []
    layer = layers.find(str(archive))
    assert layer is not None
    before = os.stat(layer.tree).st_ctime_ns
    layers.unpack(str(archive)).apply(Slots())
    assert os.stat(layer.tree).st_ctime_ns == before


def test_the_same_contents_under_two_names_are_one_layer_and_a_lost_layer_is_made_again(tmp_path):
    layers = Layers(str(tmp_path / "data"))
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(file("f", b"x") + END)
        layers.unpack(str(tmp_path / name)).apply(Slots())
    one, other = layers.find(str(tmp_path / "a.tar")), layers.find(str(tmp_path / "b.tar"))
    assert one is not None
    assert other is not None
    assert one.tree == other.tree
    remove_tree(os.path.dirname(one.tree))
    assert layers.find(str(tmp_path / "a.tar")) is None
    layers.unpack(str(tmp_path / "a.tar")).apply(Slots())
    assert layers.find(str(tmp_path / "a.tar")) is not None


def test_an_image_for_another_processor_is_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(architecture, "MACHINE", "x86_64")
    monkeypatch.setattr(architecture, "_HANDLERS", str(tmp_path / "none"))
    (tmp_path / "a.tar").write_bytes(file("bin/sh", ARM, mode=0o755) + END)
    layers = Layers(str(tmp_path / "data"))
    with pytest.raises(ArchitectureError, match="arm64"):
        layers.unpack(str(tmp_path / "a.tar")).apply(Slots())
    layer = layers.find(str(tmp_path / "a.tar"))
    assert layer is not None
    assert layer.architecture == "arm64"


def test_a_full_disk_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,nr_inodes=40", "tmpfs", disk], check=True)
    try:
        many = tmp_path / "many.tar"
        many.write_bytes(b"".join(file(f"f{number}", b"x") for number in range(100)) + END)
        with pytest.raises(StorageError, match="No space"):
            Layers(str(disk / "data")).unpack(str(many)).apply(Slots())
        assert [os.listdir(disk / "data" / name) for name in ("layers", "sources", "scratch")] == [[], [], []]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_read_only_data_root_is_one_clear_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(file("f", b"x") + END)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="data root"):
        Layers(str(tmp_path / "file/data")).unpack(str(tmp_path / "a.tar")).apply(Slots())


def test_a_mount_in_a_tree_is_never_emptied(tmp_path):
    """Also a bind mount, which is on the same device."""
    safe, tree = tmp_path / "safe", tmp_path / "tree"
    (tree / "a/mounted").mkdir(parents=True)
    safe.mkdir()
    (safe / "file").write_text("x")
    subprocess.run(["mount", "--bind", safe, tree / "a/mounted"], check=True)
    try:
        for path in (tree, tree / "a/mounted"):
            with pytest.raises(StorageError, match="mounted"):
                remove_tree(str(path))
        assert (safe / "file").exists()
    finally:
        subprocess.run(["umount", tree / "a/mounted"], check=True)
    remove_tree(str(tree))
    assert not tree.exists()


def test_a_plain_user_removes_closed_directories(public):
    def work() -> None:
        (public / "t/a/b").mkdir(parents=True)
        (public / "t/a/b/f").write_text("x")
        for name in ("t/a/b", "t/a", "t"):
            (public / name).chmod(0o500 if name != "t/a" else 0)
        remove_tree(str(public / "t"))
        assert not (public / "t").exists()

    assert os.waitpid(in_child(work, PLAIN_USER), 0)[1] == 0
