"""Paths inside a root: the kernel's walk and the one by hand give the same answers, and neither leads out."""

from __future__ import annotations

import errno
import os
import stat
import time

import pytest

from tarbox.errors import KernelError, TarboxError
from tarbox.kernel import paths


@pytest.fixture(params=["kernel", "by hand"])
def walk(request, monkeypatch):
    """Each test with it runs twice: with openat2, and as if the kernel lacked it."""
    monkeypatch.setattr(paths, "_kernel_walks", request.param == "kernel")
    return request.param


@pytest.fixture
def tree(tmp_path):
    """A root full of traps, as a descriptor; beside it lies what must not be found."""
    root = tmp_path / "root"
    (root / "etc/inner").mkdir(parents=True)
    (root / "srv").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (root / "etc/passwd").write_text("inside")
    (root / "etc/inner/file").write_text("deep")
    os.mkfifo(root / "fifo")
    (root / "long").symlink_to("/".join(["."] * 1000) + "/etc")
    for name, target in LINKS.items():
        (root / name).symlink_to(target.format(outside=tmp_path / "outside"))
    for number in range(45):
        (root / f"chain{number}").symlink_to(f"chain{number + 1}" if number < 44 else "etc/passwd")
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield handle
    os.close(handle)


LINKS = {
    "absolute": "/etc/passwd", "relative": "etc/passwd", "folder": "etc", "slashed": "etc/",
    "up": "../../../etc/passwd",
    "top": "/", "above": "..", "out": "{outside}/secret", "out-up": "../../../../../../../../..{outside}/secret",
    "circle": "circle", "circle1": "circle2", "circle2": "circle1", "dangling": "nowhere", "dangling-deep": "no/where",
    "dangling-up": "../../../made", "dangling-slash": "nowhere/", "to-file-slash": "etc/passwd/", "dot": ".",
    "dotted": "./etc/./inner/..//passwd", "etc/back": "../srv", "etc/root": "/", "etc/self": "self",
    "empty-end": "etc/.",
    "to-fifo": "fifo", "through-file": "etc/passwd/x",
}  # fmt: skip

PATHS = [
    "", ".", "..", "/", "//", "/..", "../..", "etc", "/etc", "etc/", "etc/.", "etc/..", "etc/../etc", "/etc/passwd",
    "etc/passwd/", "etc/passwd/.", "etc/passwd/..", "etc/passwd/x", "nowhere", "nowhere/", "nowhere/..", "nowhere/x",
    "etc//passwd", "./etc/./passwd", "../../etc/passwd", "/../etc/passwd", "etc/../../../etc/passwd", "fifo", "fifo/",
    "fifo/x", "long", "long/passwd", "chain5", "chain4", "chain3", "chain0", "folder/", "folder/passwd", "folder/..",
    "relative/", "absolute/", "above/above/etc/passwd", "top/etc/passwd", "top/../top/..",
    "etc/root/etc/root/etc/passwd",
    "etc/back/..", "folder/inner/../../folder/passwd", "etc/back/../etc/passwd", "x" * 255, "x" * 256,
    "etc/" + "y" * 300,
    "/".join(["etc/.."] * 100) + "/etc/passwd", "circle/x", "circle1/..", "out/..", "above/..", "dot/dot/dot/etc",
    "dangling/", "dangling/x", "dangling-slash/", "etc/self/", "folder/back/../etc/root/srv", "etc/inner/../../fifo",
    *LINKS,
]  # fmt: skip
FLAGS = {
    "path": os.O_PATH,
    "link": os.O_PATH | os.O_NOFOLLOW,
    "folder": os.O_PATH | os.O_DIRECTORY,
    "link-folder": os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
    "read": os.O_RDONLY | os.O_NONBLOCK,
    "write": os.O_WRONLY | os.O_NONBLOCK,
    "read-link": os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK,
}


def _answer(root, path, flags):
    """What opening leads to: (device, inode, kind), or the errno."""
    try:
        handle = paths.open_in(root, path, flags, 0o600)
    except KernelError as error:
        return errno.errorcode[error.errno]
    try:
        facts = os.fstat(handle)
        assert not os.get_inheritable(handle)
        return facts.st_dev, facts.st_ino, stat.S_IFMT(facts.st_mode)
    finally:
        os.close(handle)


@pytest.mark.parametrize("flags", FLAGS)
def test_both_walks_give_the_same_answers(tree, monkeypatch, flags):
    assert len(PATHS) > 80
    answers = []
    for kernel in (True, False):
        monkeypatch.setattr(paths, "_kernel_walks", kernel)
        answers.append({path[:40]: _answer(tree, path, FLAGS[flags]) for path in PATHS})
    assert paths._kernel_walks is False
    assert answers[0] == answers[1]
    assert len({str(answer) for answer in answers[0].values()}) > 5  # they aren't all refused


@pytest.mark.parametrize("flags", FLAGS)
def test_no_path_leads_out(tree, walk, tmp_path, flags):
    outside = {entry.stat().st_ino for entry in (tmp_path, tmp_path / "outside", tmp_path / "outside/secret")}
    for path in PATHS:
        answer = _answer(tree, path, FLAGS[flags])
        assert isinstance(answer, str) or answer[1] not in outside, path


@pytest.mark.parametrize(
    "path", ["", "/", "..", "../../..", "/../..", "above", "above/..", "top", "etc/..", "dot/../dot"]
)
def test_above_the_root_is_the_root(tree, walk, path):
    assert _answer(tree, path, os.O_PATH)[1] == os.fstat(tree).st_ino


@pytest.mark.parametrize(
    ("path", "error"),
    [("circle", "ELOOP"), ("circle1/..", "ELOOP"), ("chain0", "ELOOP"), ("chain4", "ELOOP"), ("out", "ENOENT"),
     ("out-up", "ENOENT"), ("dangling", "ENOENT"), ("etc/passwd/", "ENOTDIR"), ("x" * 256, "ENAMETOOLONG")],
)  # fmt: skip
def test_what_leads_nowhere_is_an_error(tree, walk, path, error):
    assert _answer(tree, path, os.O_PATH) == error


def test_forty_links_are_followed(tree, walk):
    assert _answer(tree, "chain5", os.O_PATH) == _answer(tree, "etc/passwd", os.O_PATH)


def test_a_path_ends_at_no_zero_byte(tree, walk):
    for path in ("etc/passwd\0", "\0", "etc\0/x"):
        assert _answer(tree, path, os.O_PATH) == "EINVAL"
        with pytest.raises(KernelError):
            paths.make_directories(tree, path)


@pytest.mark.parametrize("path", ["dangling", "new", "etc/new", "dangling-up", "folder/new", "out", "out-up"])
def test_files_are_made_inside(tree, walk, tmp_path, path):
    """Through links that dangle too: what is missing is made where they lead to, seen from the root."""
    before = sorted(os.listdir(tmp_path / "outside"))
    handle = paths.make_file(tree, path)
    assert stat.S_ISREG(os.fstat(handle).st_mode)
    os.close(handle)
    assert sorted(os.listdir(tmp_path / "outside")) == before
    assert _answer(tree, path, os.O_PATH)[2] == stat.S_IFREG
    assert (tmp_path / "outside/secret").read_text() == "secret"


@pytest.mark.parametrize(
    "path", ["a/b/c", "dangling/x", "dangling-deep", "dangling-slash", "out-up", "etc/../../../a", "/"]
)
def test_folders_are_made_inside(tree, walk, tmp_path, path):
    before = sorted(os.listdir(tmp_path))
    handle = paths.make_directories(tree, path, 0o750)
    assert stat.S_ISDIR(os.fstat(handle).st_mode)
    os.close(handle)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "outside/secret").read_text() == "secret"


@pytest.mark.parametrize("path", ["etc/passwd", "etc/passwd/x", "fifo", "circle", "to-file-slash", "relative/x"])
def test_no_folder_is_made_of_something_else(tree, walk, path):
    with pytest.raises(KernelError):
        paths.make_directories(tree, path)


def test_a_file_with_a_slash_is_not_made(tree, walk):
    for path in ("new/", "new/.", "dangling-slash"):
        with pytest.raises(KernelError):
            paths.make_file(tree, path)
        assert not os.path.lexists(f"/proc/self/fd/{tree}/new")


def test_what_exists_is_left_as_it_is(tree, walk):
    for path in ("etc/passwd", "fifo", "etc"):
        before = _answer(tree, path, os.O_PATH)
        handle = paths.make_file(tree, path, 0o777)
        assert os.fstat(handle).st_ino == before[1]
        assert os.fstat(handle).st_mode & 0o777 != 0o777
        os.close(handle)
    assert paths.read_in(tree, "etc/passwd", 100) == b"inside"


def test_modes_of_what_is_made(tree, walk):
    mask = os.umask(0)
    try:
        for made, mode in (
            (paths.make_directories(tree, "m/n", 0o710), 0o710),
            (paths.make_file(tree, "o/p", 0o640), 0o640),
        ):
            assert os.fstat(made).st_mode & 0o7777 == mode
            os.close(made)
        assert os.stat("o", dir_fd=tree).st_mode & 0o7777 == 0o755
    finally:
        os.umask(mask)


@pytest.mark.parametrize("path", ["dangling", "etc/passwd", "relative", "new", "circle"])
def test_files_are_created_alike(tree, monkeypatch, path):
    """With O_CREAT, and with O_EXCL, which follows no link."""
    for flags in (os.O_CREAT | os.O_WRONLY, os.O_CREAT | os.O_EXCL | os.O_WRONLY):
        answers = []
        for kernel in (True, False):
            monkeypatch.setattr(paths, "_kernel_walks", kernel)
            answer = _answer(tree, path, flags)
            answers.append(answer if isinstance(answer, str) else answer[2])
            for name in ("nowhere", "new"):
                if os.path.lexists(f"/proc/self/fd/{tree}/{name}"):
                    os.unlink(name, dir_fd=tree)
        assert answers[0] == answers[1]


def test_files_are_read(tree, walk):
    assert paths.read_in(tree, "etc/passwd", 6) == b"inside"
    assert paths.read_in(tree, "up", 100) == b"inside"
    for path in ("nowhere", "etc/passwd/x", "out", "dangling"):
        assert paths.read_in(tree, path, 100) is None


def test_a_file_that_is_too_large_is_refused(tree, walk):
    with pytest.raises(TarboxError, match="too large"):
        paths.read_in(tree, "etc/passwd", 5)
    file = os.open("huge", os.O_CREAT | os.O_WRONLY, dir_fd=tree)
    os.truncate(file, 1 << 40)
    os.close(file)
    with pytest.raises(TarboxError, match="too large"):
        paths.read_in(tree, "huge", 4 << 20)


@pytest.mark.parametrize("path", ["fifo", "to-fifo", "etc", "top"])
def test_what_is_no_regular_file_is_not_read_nor_waited_for(tree, walk, path):
    start = time.monotonic()
    with pytest.raises(TarboxError, match="regular file"):
        paths.read_in(tree, path, 100)
    assert time.monotonic() - start < 1


def test_files_of_proc_are_not_read(walk):
    """Some of them wait, some take away what they tell: /proc/kmsg does both."""
    proc = os.open("/proc", os.O_RDONLY)
    try:
        for path in ("version", "self/status", "kmsg"):
            with pytest.raises(TarboxError, match="regular file"):
                paths.read_in(proc, path, 1 << 20)
        assert paths.filesystem_of(proc) == paths.PROC
    finally:
        os.close(proc)


@pytest.mark.parametrize(
    "path", ["self/fd/0", "self/cwd", "self/root/etc", "self/exe", "self/ns/mnt", "thread-self/root"]
)
def test_magic_links_are_refused(walk, path):
    """Where they lead isn't what they say; the plain links of /proc are followed."""
    proc = os.open("/proc", os.O_RDONLY)
    try:
        assert _answer(proc, path, os.O_PATH) == "ELOOP"
        assert _answer(proc, "mounts", os.O_PATH)[2] == stat.S_IFREG
        assert _answer(proc, "net/dev", os.O_PATH)[2] == stat.S_IFREG
    finally:
        os.close(proc)


def test_no_descriptor_is_left_open(tree, walk):
    before = os.listdir("/proc/self/fd")
    for path in PATHS:
        _answer(tree, path, os.O_PATH)
    paths.read_in(tree, "etc/passwd", 100)
    assert os.listdir("/proc/self/fd") == before
