"""The options that bring files: bind mounts, tmpfs, a read-only root, a root in memory. Measured from inside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import roots
import testhost
from inside import ask, numbers

pytestmark = pytest.mark.unhurried

MS_SHARED = 1 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


@pytest.fixture
def source(tmp_path):
    """A directory that is a mount, with another mounted below it, both passing on what is mounted on them."""
    top = tmp_path / "source"
    top.mkdir()
    testhost.mount("top", str(top), "tmpfs", 0)
    (top / "below").mkdir()
    testhost.mount("below", str(top / "below"), "tmpfs", 0)
    for path in (top, top / "below"):
        testhost.mount("none", str(path), None, MS_SHARED)
        (path / "in").mkdir()
        (path / "out").mkdir()
    (top / "file").write_text("of the host\n")
    yield top
    subprocess.run(["umount", "-R", top], check=True)


def mounted(top: Path) -> set[str]:
    """What is mounted below a directory of the test host."""
    points = (Path(point) for point in testhost.mounts().values())
    return {str(point.relative_to(top)) for point in points if point != top and point.is_relative_to(top)}


def test_a_volume_is_written_through(tarbox, image, tmp_path):
    """Absolute, relative to where the command is called, missing ones made, files as they are, targets nested."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "file").write_text("first\n")
    relative = tarbox.folder / "relative"
    relative.mkdir()
    said = ask(
        tarbox,
        *("-v", f"{tmp_path}/two:/data/inner"),
        *("-v", f"{tmp_path}/one:/data"),
        *("-v", "./relative:/relative"),
        *("-v", f"{tmp_path}/made/for/it:/made"),
        *("-v", f"{tmp_path}/file:/etc/deep/name"),
        image,
        write="echo a >/data/x; echo b >/data/inner/y; echo c >/relative/z; echo d >/made/w",
        file="cat /etc/deep/name; echo second >>/etc/deep/name",
        kinds="stat -c %F /data/inner /etc/deep/name",
    )
    assert (tmp_path / "one/x").read_text() == "a\n"
    assert (tmp_path / "two/y").read_text() == "b\n"
    assert (relative / "z").read_text() == "c\n"
    assert (tmp_path / "made/for/it/w").read_text() == "d\n"
    assert said["write"] == ""
    assert said["file"] == "first"
    assert (tmp_path / "file").read_text() == "first\nsecond\n"
    assert said["kinds"].splitlines() == ["directory", "regular file"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["inner", "x"]


@pytest.mark.parametrize(
    ("mount", "top", "below", "seen"),
    [
        (("-v", "{}:/s"), True, True, True),
        (("-v", "{}:/s:ro"), False, False, True),
        (("--mount", "type=bind,source={},target=/s"), True, True, True),
        (("--mount", "type=bind,src={},dst=/s,readonly"), False, False, True),
        (("--mount", "type=bind,src={},dst=/s,ro,bind-recursive=writable"), False, True, True),
        (("--mount", "type=bind,src={},dst=/s,bind-recursive=disabled"), True, True, False),
        (("--mount", "type=bind,src={},dst=/s,ro,bind-recursive=disabled"), False, False, False),
    ],
)
def test_read_only_is_read_only_all_the_way_down(tarbox, image, source, mount, top, below, seen):
    """As with Docker: mounts below a read-only one are read-only too, unless asked for otherwise."""
    said = ask(
        tarbox,
        *(word.format(source) for word in mount),
        image,
        top="touch /s/t",
        below="touch /s/below/t",
        file="echo x >>/s/file",
        seen="ls /s/below",
        again="mount -o remount,rw /s",
    )
    assert (said["top"] == "") == top
    assert (said["below"] == "") == below
    assert (said["file"] == "") == top
    assert ("out" in said["seen"].split()) == seen
    assert said["again"] != ""
    for name, written in (("top", top), ("below", below)):
        assert written or "Read-only file system" in said[name]


def test_a_read_only_file_stays_as_it_is(tarbox, image, source):
    """The file system under it may be written all the same."""
    mount = f"{source}/file:/etc/passwd:ro"
    said = ask(
        tarbox, "-v", mount, image, read="cat /etc/passwd", write="echo x >/etc/passwd", mode="chmod 600 /etc/passwd"
    )
    assert said["read"] == "of the host"
    assert "Read-only file system" in said["write"]
    assert "Read-only file system" in said["mode"]


@pytest.mark.parametrize(
    ("propagation", "inwards", "outwards"),
    [("", False, False), (":rprivate", False, False), (":rslave", True, False), (":rshared", True, True)],
)
def test_mounts_pass_as_the_propagation_says(tarbox, image, source, propagation, inwards, outwards):
    """Between host and container, for the volume and for what is mounted below it."""
    look = 'grep -q " $d " /proc/self/mountinfo && echo in || echo none'
    script = f"echo on; read x; for d in /s/in /s/below/in; do {look}; done;"
    script += " mount -t tmpfs inside /s/out; mount -t tmpfs inside /s/below/out; echo mounted; read x"
    started = tarbox.start("run", "-i", "--privileged", "-v", f"{source}:/s{propagation}", image, "sh", "-c", script)
    try:
        assert started.stdout.readline() == b"on\n"
        for name in ("in", "below/in"):
            testhost.mount("late", str(source / name), "tmpfs", 0)
        started.stdin.write(b"\n")
        started.stdin.flush()
        found = [started.stdout.readline().decode().strip() for _ in range(3)]
        assert found == [*(["in" if inwards else "none"] * 2), "mounted"]
        arrived = mounted(source) - {"below", "in", "below/in"}
        assert arrived == ({"out", "below/out"} if outwards else set())
    finally:
        started.communicate(b"\n", timeout=10)
    assert started.returncode == 0


def test_a_missing_source_is_refused_to_mount(tarbox, image, tmp_path):
    """Where --mount means what is there, -v makes it."""
    done = tarbox("run", "--mount", f"type=bind,src={tmp_path}/none,dst=/x", image, "true")
    assert done.returncode == 125
    assert done.stderr.startswith(f"tarbox: the source of a mount, {tmp_path}/none, doesn't exist (")
    assert not (tmp_path / "none").exists()
    assert (
        tarbox("run", "--mount", f"type=bind,src={tmp_path}/none,dst=/x,bind-create-src", image, "true").returncode == 0
    )
    assert (tmp_path / "none").is_dir()


@pytest.mark.parametrize(
    "mount",
    [
        ("-v", "{}/new:/x:z,nocopy"),
        ("-v", "{}/new:/x:Z,rw,delegated"),
        ("--mount", "type=bind,src={}/new,dst=/x,bind-create-src,consistency=cached"),
        ("--mount", "type=bind,src={}/new,dst=/x,bind-create-src=true,bind-nonrecursive"),
    ],
)
def test_words_without_a_meaning_here_do_no_harm(tarbox, image, tmp_path, mount):
    """Labels where there is no SELinux, copying, consistency; and a source that is made when that is asked for."""
    option, words = mount
    said = ask(tarbox, option, words.format(tmp_path), image, write="echo through >/x/file")
    assert said["write"] == ""
    assert (tmp_path / "new/file").read_text() == "through\n"


@pytest.mark.parametrize(
    ("source", "target"), [("folder", "/etc/passwd"), ("file", "/etc")], ids=["folder on file", "file on folder"]
)
def test_what_doesnt_fit_is_said(tarbox, image, tmp_path, source, target):
    """A directory on a file, a file on a directory: one line, code 125."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    done = tarbox("run", "-v", f"{tmp_path}/{source}:{target}", image, "true")
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "a directory can't be mounted on a file, nor a file on a directory" in done.stderr


def test_links_in_the_image_lead_no_mount_out(tarbox, tmp_path):
    """A target below a symlink lands where it leads inside the container, and the host stays as it is."""
    root = roots.busybox(tmp_path / "root")
    (tmp_path / "victim").mkdir()
    (root / "data").symlink_to(f"../../../../../..{tmp_path}/victim")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/x").touch()
    said = ask(
        tarbox, "-v", f"{tmp_path}/mine:/data/inner", f"{root}:O", seen=f"ls {tmp_path}/victim/inner /data/inner/"
    )
    assert said["seen"].split().count("x") == 2
    assert not list((tmp_path / "victim").iterdir())


def test_file_systems_in_memory_have_their_size_and_options(tarbox, image):
    """--tmpfs, --mount type=tmpfs, --shm-size: df, ENOSPC, modes and flags."""
    said = ask(
        tarbox, "--tmpfs", "/t:size=1m,mode=1770,uid=1000", "--tmpfs", "/x:exec",
        "--mount", "type=tmpfs,dst=/m,tmpfs-size=2m,tmpfs-mode=700,ro", "--shm-size", "3m", image,
        sizes="df -k /t /m /dev/shm | tail -3",
        owner="stat -c %a:%u /t /m",
        full="dd if=/dev/zero of=/t/x bs=1M count=2",
        shm="dd if=/dev/zero of=/dev/shm/x bs=1M count=4",
        ro="touch /m/x",
        exec="cp /bin/busybox /x/true && /x/true && echo ran",
        noexec="rm /t/x; head -c 100 /bin/busybox >/t/p; chmod +x /t/p; /t/p",
        flags="grep -E ' /(t|m|x) ' /proc/self/mountinfo | cut -d' ' -f5,6",
    )  # fmt: skip
    assert [line.split()[1] for line in said["sizes"].splitlines()] == ["1024", "2048", "3072"]
    assert said["owner"].split() == ["1770:1000", "700:0"]
    assert "No space left on device" in said["full"]
    assert "No space left on device" in said["shm"]
    assert "Read-only file system" in said["ro"]
    assert said["exec"] == "ran"
    assert "Permission denied" in said["noexec"]
    flags = dict(line.split() for line in said["flags"].splitlines())
    assert {"nosuid", "nodev", "noexec"} <= set(flags["/t"].split(","))
    assert "ro" in flags["/m"].split(",")
    assert "noexec" not in flags["/x"].split(",")


def test_a_read_only_root_has_islands(tarbox, image, tmp_path):
    """--read-only: the root can't be written, what is mounted on it can."""
    said = ask(
        tarbox, "--read-only", "--tmpfs", "/tmp", "-v", f"{tmp_path}/v:/made/v", image,
        root="touch /x", etc="touch /etc/x", modes="chmod 700 /bin", tmp="touch /tmp/x", volume="touch /made/v/x",
        dev="touch /dev/x", shm="touch /dev/shm/x",
    )  # fmt: skip
    assert all("Read-only file system" in said[name] for name in ("root", "etc", "modes"))
    assert {said[name] for name in ("tmp", "volume", "dev", "shm")} == {""}
    assert (tmp_path / "v/x").exists()


@pytest.mark.parametrize("kind", ["directory", "host", "written through"])
def test_a_root_in_memory_has_its_size(tarbox, image, kind):
    """--root-tmpfs: df's size, ENOSPC, nothing on disk, and the image as it was."""
    images = {"directory": (image,), "host": ("host",), "written through": (image.removesuffix(":O"),)}
    said = ask(
        tarbox, "--root-tmpfs", "2m", *images[kind],
        size="df -k /usr | tail -1",
        small="echo fits >/usr/small && cat /usr/small",
        big="dd if=/dev/zero of=/usr/big bs=1M count=4",
        known="ls /usr/bin/env",
    )  # fmt: skip
    assert 2048 in numbers(said["size"])
    assert said["small"] == "fits"
    assert "No space left on device" in said["big"]
    assert said["known"] == "/usr/bin/env"
    assert not list((tarbox.root / "scratch").iterdir())
    assert not os.path.exists(f"{image.removesuffix(':O')}/usr/small")
    assert not os.path.exists("/usr/small")


def test_a_working_directory_is_made_on_a_read_only_root(tarbox, image):
    """As with Docker; nothing else can be written afterwards, not through the working directory either."""
    script = "pwd; touch x 2>&1; touch ../x 2>&1; touch /x 2>&1; mkdir /proc/self/cwd/d 2>&1"
    told = tarbox("run", "--rm", "--read-only", "-w", "/new/dir", image, "sh", "-c", script)
    where, *refused = told.stdout.splitlines()
    assert where == "/new/dir", told.stderr
    assert [line for line in refused if line.endswith("Read-only file system")] == refused
    assert len(refused) == 4


@pytest.mark.parametrize("options", [(), ("-i",), ("-t",)])
def test_a_tmpfs_at_dev_has_the_device_nodes(tarbox, image, options):
    script = "echo x >/dev/null && head -c 4 /dev/zero | wc -c && ls /dev/pts/ptmx /dev/fd/0 && df -k /dev | tail -1"
    told = tarbox.output("run", *options, "--tmpfs", "/dev:size=1m", image, "sh", "-c", script).split()
    assert told[:4] == ["4", "/dev/fd/0", "/dev/pts/ptmx", "tmpfs"]
    assert told[4] == "1024"


@pytest.mark.parametrize(
    ("options", "missing"), [((), "/dev/null"), (("-i",), "/dev/null"), (("-t",), "/dev/pts/ptmx")]
)
def test_a_dev_of_ones_own_without_nodes_is_said(tarbox, image, tmp_path, options, missing):
    """Nothing is made in the host's directory."""
    own = tmp_path / "dev"
    own.mkdir()
    done = tarbox("run", *options, "-v", f"{own}:/dev", image, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"tarbox: the container's {missing} can't be opened: No such file or directory (")
    assert "mount nothing" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(own.iterdir())
