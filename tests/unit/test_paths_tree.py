"""A container's files while they are put together: the walk crosses into what will be mounted, as the kernel will."""

from __future__ import annotations

import os

import pytest

from tarbox.errors import KernelError, TarboxError
from tarbox.kernel import paths
from tarbox.kernel.paths import Beyond

DIRECTORY = os.O_PATH | os.O_DIRECTORY


@pytest.fixture(params=["kernel", "by hand"])
def walker(request, monkeypatch):
    """Both ways to walk."""
    if request.param == "by hand":
        monkeypatch.setattr(paths, "_kernel_walks", False)


@pytest.fixture
def tree(tmp_path, walker):
    """A root with some links, and beside it what will be mounted in it."""
    for name in ("root/data/inner", "root/run", "root/var", "root/etc", "volume/deep", "memory"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/var/run").symlink_to("/run")
    (tmp_path / "root/up").symlink_to("../../../../../data")
    (tmp_path / "root/into").symlink_to("data/deep")
    (tmp_path / "root/etc/passwd").write_text("root's\n")
    (tmp_path / "volume/passwd").write_text("the volume's\n")
    before = set(os.listdir("/proc/self/fd"))
    opened = [os.open(tmp_path / name, DIRECTORY) for name in ("root", "volume", "memory")]
    made = Tree(opened[0])
    made.volume, made.memory = opened[1:]
    yield made
    for descriptor in opened:
        os.close(descriptor)
    assert set(os.listdir("/proc/self/fd")) == before


class Tree(paths.Tree):  # with room for what the tests mount
    __slots__ = ("memory", "volume")


def where(tree, path, *more):
    """The path that was found, and the real one."""
    found, place = tree.find(path, *more)
    try:
        return found, os.readlink(f"/proc/self/fd/{place}").rpartition("/test_")[2].partition("/")[2]
    finally:
        os.close(place)


def test_without_mounts_it_is_the_roots(tree):
    assert where(tree, "/data/inner") == ("/data/inner", "root/data/inner")
    assert where(tree, "up/inner") == ("/data/inner", "root/data/inner")
    assert where(tree, "/") == ("/", "root")
    assert where(tree, "/var/run/../data") == ("/data", "root/data")


def test_what_lies_over_a_place_is_found_there(tree):
    tree.mount("/data", tree.volume)
    assert where(tree, "/data") == ("/data", "volume")
    assert where(tree, "/data/deep") == ("/data/deep", "volume/deep")
    assert where(tree, "/up/deep") == ("/data/deep", "volume/deep")
    assert where(tree, "/into") == ("/data/deep", "volume/deep")
    assert where(tree, "/data/../run") == ("/run", "root/run")
    with pytest.raises(KernelError):
        tree.find("/data/inner")


def test_a_link_that_leads_to_a_mount_leads_into_it(tree, tmp_path):
    """An image's /var/run is a link to /run, over which memory lies: the place is made there, not beneath."""
    tree.mount("/run", tree.memory)
    assert where(tree, "/var/run/lock", DIRECTORY, 0o755) == ("/run/lock", "memory/lock")
    assert (tmp_path / "memory/lock").is_dir()
    assert not (tmp_path / "root/run/lock").exists()


def test_mounts_within_mounts(tree):
    tree.mount("/data", tree.volume)
    tree.mount("/data/deep", tree.memory)
    assert where(tree, "/data/deep/x", DIRECTORY, 0o755) == ("/data/deep/x", "memory/x")
    assert where(tree, "/data/deep/..") == ("/data", "volume")
    tree.mount("/data", tree.memory)  # over both
    assert where(tree, "/data") == ("/data", "memory")
    assert sorted(tree.mounted) == ["/data"]


def test_a_file_lies_over_a_file(tree, tmp_path):
    file = os.open(tmp_path / "volume/passwd", os.O_PATH)
    tree.mount("/etc/passwd", file)
    assert tree.read("/etc/passwd", 100) == b"the volume's\n"
    with pytest.raises(KernelError):
        tree.find("/etc/passwd", DIRECTORY)
    with pytest.raises(KernelError):
        tree.find("/etc/passwd/x")
    os.close(file)


def test_what_is_made_only_inside_is_told_by_its_slot(tree, tmp_path):
    tree.mount("/run", "proc")
    for path, rest in (
        ("/run", ""), ("/run/a/b", "a/b"), ("/var/run/a", "a"), ("/run/./a//b/", "a/b"), ("/run/a/../b", "b"),
    ):  # fmt: skip
        found, place = tree.find(path)
        assert isinstance(place, Beyond)
        assert (place.slot, place.rest) == ("proc", rest)
        assert found == f"/run/{rest}".rstrip("/")
    assert list((tmp_path / "root/run").iterdir()) == []


def test_the_way_out_of_it_goes_on_in_the_root(tree):
    tree.mount("/run", "proc")
    assert where(tree, "/run/../data") == ("/data", "root/data")
    assert where(tree, "/run/a/../../data/inner") == ("/data/inner", "root/data/inner")


def test_what_lies_over_a_place_in_it_can_be_reached(tree):
    """Memory over /sys/fs/cgroup, though there is no /sys yet."""
    tree.mount("/run", "sys")
    tree.mount("/run/fs/cgroup", tree.memory)
    assert where(tree, "/run/fs/cgroup/pids", DIRECTORY, 0o755) == ("/run/fs/cgroup/pids", "memory/pids")
    assert where(tree, "/var/run/fs/cgroup/pids") == ("/run/fs/cgroup/pids", "memory/pids")
    place = tree.find("/run/fs/other")[1]
    assert isinstance(place, Beyond)
    assert place.rest == "fs/other"


def test_files_and_directories_are_made_on_the_way(tree, tmp_path):
    (tmp_path / "root/etc/resolv.conf").symlink_to("../run/systemd/resolve/stub.conf")
    assert where(tree, "/etc/resolv.conf", os.O_PATH, 0o755, 0o644)[0] == "/run/systemd/resolve/stub.conf"
    assert (tmp_path / "root/run/systemd/resolve/stub.conf").is_file()
    assert where(tree, "/new", DIRECTORY, 0o700) == ("/new", "root/new")
    assert (tmp_path / "root/new").stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_place_of_a_directory_is_an_error(tree):
    with pytest.raises(KernelError, match="Not a directory"):
        tree.find("/etc/passwd", DIRECTORY, 0o755)


def test_a_zero_byte_is_refused(tree):
    with pytest.raises(KernelError):
        tree.find("/etc\0/passwd")


def test_what_is_made_inside_is_never_read(tree):
    tree.mount("/etc", "proc")
    with pytest.raises(TarboxError, match="isn't a regular file"):
        tree.read("/etc/passwd", 100)
    assert tree.read("/nothing", 100) is None
