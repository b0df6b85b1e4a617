"""Every path that is touched while a container is made, as a link, a FIFO or a device of a hostile image."""

from __future__ import annotations

import os
import stat

import pytest

from kernel.attacks import tools

pytestmark = pytest.mark.unhurried

# Where each may lead: the host's folder by its whole path, from below, round in a circle, to what isn't there.
TARGETS = {
    "absolute": "{canary}",
    "relative": "../../../../../../../../../..{canary}",
    "through proc": "/proc/self/root{canary}",
    "through a descriptor": "/proc/self/fd/4",
    "through the first process": "/proc/1/root/../..{canary}",
    "circle": "{place}",
    "circle of two": "/circle",
    "missing": "/not/there/yet",
    "setting": "/proc/sys/kernel",
    "status": "/proc/self/attr",
}
PLACES = ("proc", "sys", "dev", "etc", "data")
BELOW = ("etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/passwd", "etc/group", "data/sub", "work")


@pytest.fixture
def canary(tmp_path):
    watched = tools.Canary(tmp_path / "canary")
    yield watched
    watched.check()


def _put(rootfs, place, make):
    """Put something in the place of a file or folder of the image."""
    path = rootfs / place
    path.parent.mkdir(exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        path.rename(rootfs / f"was-{path.name}")
    else:
        path.unlink(missing_ok=True)
    make(path)


def _run(tarbox, rootfs, canary, tmp_path):
    """Run with everything that mounts; the start is refused in one line, or all that was mounted lies inside."""
    tools.probe(rootfs)
    volume = tmp_path / "volume"
    volume.mkdir(exist_ok=True)
    (volume / "mine").touch()
    script = (
        "probe covers /proc /was-proc; echo x > /etc/hosts; echo y > /data/new; touch /tmpfs/new /dev/shm/new;"
        "chmod 700 /etc/hostname /dev/null /data; ls -l /data; cat /proc/self/mountinfo"
    )
    options = ("-v", f"{volume}:/data", "-v", f"{volume}/mine:/data/sub/file", "--tmpfs", "/tmpfs", "-w", "/work")
    done = tarbox("run", "--rm", *options, rootfs, "/bin/busybox", "sh", "-c", script, timeout=20)
    assert "bare" not in done.stdout
    canary.check()
    if "tarbox:" in done.stderr:
        assert done.returncode in (125, 126, 127)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("place", [*PLACES, *BELOW])
def test_a_link_in_the_place_of_what_is_touched(tarbox, rootfs_busybox, canary, tmp_path, place, kind):
    target = TARGETS[kind].format(canary=canary.folder, place=f"/{place}")
    (rootfs_busybox / "circle").symlink_to(f"/{place}")
    _put(rootfs_busybox, place, lambda path: path.symlink_to(target))
    _run(tarbox, rootfs_busybox, canary, tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "socket", "null", "disk", "empty file", "directory"])
@pytest.mark.parametrize("place", [*PLACES, *BELOW])
def test_something_else_in_the_place_of_what_is_touched(tarbox, rootfs_busybox, canary, tmp_path, place, kind):
    """A FIFO is never waited for, a device never opened."""
    make = {
        "fifo": os.mkfifo,
        "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
        "null": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        "disk": lambda path: os.mknod(path, stat.S_IFBLK | 0o600, os.stat("/").st_dev),
        "empty file": lambda path: path.touch(),
        "directory": lambda path: path.mkdir(),
    }[kind]
    _put(rootfs_busybox, place, make)
    _run(tarbox, rootfs_busybox, canary, tmp_path)


def test_links_below_the_root_of_a_mount(tarbox, rootfs_busybox, canary):
    """/dev/pts, /dev/shm and the rest lie on a /dev that was just made: links of the image there are never met."""
    for name in ("pts", "shm", "mqueue", "null", "ptmx", "console", "fd", "stdin"):
        (rootfs_busybox / "dev" / name).symlink_to(canary.folder)
    script = "ls -ld /dev/pts /dev/shm; stat -c %t:%T /dev/null; grep -c canary /proc/self/mountinfo"
    lines = tarbox("run", "--rm", rootfs_busybox, "sh", "-c", script).stdout.splitlines()
    assert [line[0] for line in lines[:2]] == ["d", "d"]
    assert lines[2:] == ["1:3", "0"]


def test_a_volume_of_devices_is_checked(tarbox, rootfs_busybox, canary, tmp_path):
    """Whoever brings a /dev of his own: its null isn't taken for the null device because of its name."""
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "null").symlink_to(canary.folder / "file")
    done = tarbox("run", "--rm", "-v", f"{dev}:/dev", rootfs_busybox, "true")
    assert "null" in tools.complained(done) or "No such file" in done.stderr
    (dev / "null").unlink()
    (dev / "null").write_text("")
    assert "null device" in tools.complained(tarbox("run", "--rm", "-v", f"{dev}:/dev", rootfs_busybox, "true"))


def test_a_mask_is_the_null_device_and_out_of_reach(tarbox, rootfs_busybox, canary):
    """Reading gives nothing; its mode and owner, which are the host's, can't be changed through it."""
    script = "stat -c %t:%T /proc/keys; cat /proc/keys; chmod 666 /proc/keys; chown 0 /proc/keys; touch /proc/keys"
    done = tarbox("run", "--rm", rootfs_busybox, "sh", "-c", script)
    assert done.stdout == "1:3\n"
    assert done.stderr.count("Read-only file system") == 3


def test_a_mask_is_made_of_the_right_null_device(tarbox, rootfs_busybox, canary):
    """The image's own /dev/null isn't asked."""
    os.mknod(rootfs_busybox / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert tarbox.output("run", "--rm", rootfs_busybox, "stat", "-c", "%t:%T", "/proc/keys", "/dev/null") == "1:3\n" * 2


@pytest.mark.parametrize("target", ["/proc", "/proc/self", "/proc/sys", "/proc/1/attr", "/sys/../proc"])
def test_no_mount_is_led_over_proc(tarbox, rootfs_busybox, tmp_path, target):
    """Who reads or writes /proc in a container must be able to rely on its being /proc."""
    (rootfs_busybox / "data").symlink_to(target)
    for option in (("-v", f"{tmp_path}:/data"), ("--tmpfs", "/data"), ("--mount", "type=tmpfs,target=/data")):
        done = tarbox("run", "--rm", *option, rootfs_busybox, "true")
        assert "leads into /proc" in tools.complained(done)
    if target != "/proc":
        return
    assert "/proc" in tools.complained(tarbox("run", "--rm", "-v", f"{tmp_path}:/proc", rootfs_busybox, "true"))


def test_a_folder_of_sys_that_is_proc(tarbox, rootfs_busybox):
    (rootfs_busybox / "sys").rmdir()
    (rootfs_busybox / "sys").symlink_to("proc")
    assert "leads into /proc" in tools.complained(tarbox("run", "--rm", rootfs_busybox, "true"))


def test_a_proc_elsewhere_in_the_image_is_covered_too(tarbox, rootfs_busybox):
    """An honest oddity: /proc is a link to another folder of the image."""
    tools.probe(rootfs_busybox)
    (rootfs_busybox / "proc").rmdir()
    (rootfs_busybox / "srv").mkdir()
    (rootfs_busybox / "proc").symlink_to("srv")
    assert tarbox.output("run", "--rm", rootfs_busybox, "probe", "covers", "/srv") == "proc /srv\n"


def test_honest_links_are_followed(tarbox, rootfs_busybox, tmp_path):
    """/var/run → /run, resolv.conf into a folder of systemd's that isn't there yet, a volume behind a link."""
    for path in ("run", "srv"):
        (rootfs_busybox / path).mkdir()
    (rootfs_busybox / "var/run").symlink_to("/run")
    (rootfs_busybox / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (rootfs_busybox / "data").symlink_to("/srv")
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("of the volume\n")
    options = ("-v", f"{volume}:/data/new/folder", "-v", f"{volume}/file:/var/run/app/file", "--tmpfs", "/var/run/lock")
    script = "cat /srv/new/folder/file /run/app/file; grep -c . /etc/resolv.conf; grep -c ' /run/lock ' /proc/mounts"
    for root in (rootfs_busybox, f"{rootfs_busybox}:O"):
        told = tarbox.output("run", "--rm", *options, root, "sh", "-c", script)
        assert told == "of the volume\nof the volume\n1\n1\n"


def test_users_behind_absolute_links(tarbox, rootfs_busybox):
    """As in NixOS, whose /etc is links into its store by their whole paths."""
    store = rootfs_busybox / "nix/store/1-etc"
    store.mkdir(parents=True)
    for name in ("passwd", "group"):
        (rootfs_busybox / "etc" / name).rename(store / name)
        (rootfs_busybox / "etc" / name).symlink_to(f"/etc/static/{name}")
    (rootfs_busybox / "etc/static").symlink_to("/nix/store/1-etc")
    assert tarbox.output("run", "--rm", "-u", "guest", rootfs_busybox, "id", "-G").split() == ["1000", "29"]


def test_what_a_container_writes_over_its_own_files_stays_its_own(tarbox, rootfs_busybox, canary):
    """/etc/hosts and its like can be written, and the next container has fresh ones."""
    script = "echo 10.0.0.1 mine >> /etc/hosts && tail -1 /etc/hosts"
    assert tarbox.output("run", "--rm", rootfs_busybox, "sh", "-c", script) == "10.0.0.1 mine\n"
    assert "mine" not in tarbox.output("run", "--rm", rootfs_busybox, "cat", "/etc/hosts")
