"""Names that are exchanged, as fast as it goes, while containers start from the files that they are in."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from kernel.attacks import tools

pytestmark = pytest.mark.unhurried

TURNS = 10_000


@contextlib.contextmanager
def swapping(tmp_path, pairs):
    """Exchange these pairs of paths until the end of the block, and 10,000 times at least."""
    program = tools.install(tmp_path / "swap", tools.compiled(Path("probe.c")))
    with _racing([program, "swap", str(TURNS), "600", *(str(path) for pair in pairs for path in pair)], TURNS) as racer:
        yield racer


@contextlib.contextmanager
def _racing(command, turns):
    racer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield racer
    finally:
        told, errors = racer.communicate()
    assert (racer.returncode, errors) == (0, "")
    assert int(told.split()[1]) >= turns


def _pairs(rootfs, canary, scene):
    """What is exchanged: (a path, what the host's folder hides behind)."""
    if scene == "etc":
        (rootfs / "swap").symlink_to(canary.folder)
        for name in ("hosts", "hostname", "resolv.conf", "passwd", "group"):
            if not (canary.folder / name).exists():
                (canary.folder / name).write_text("root:x:0:0::/:\n")
        return [(rootfs / "etc", rootfs / "swap")]
    if scene == "files":
        pairs = []
        for name in ("hosts", "resolv.conf", "passwd"):
            (rootfs / "etc" / name).touch()
            (rootfs / "etc" / f"{name}.swap").symlink_to("../../../../../../../.." + str(canary.folder / "file"))
            pairs.append((rootfs / "etc" / name, rootfs / "etc" / f"{name}.swap"))
        return pairs
    if scene == "target":
        (rootfs / "data/sub").mkdir(parents=True)
        (rootfs / "data/swap").symlink_to("../../../../../../../../.." + str(canary.folder))
        (rootfs / "work").mkdir()
        (rootfs / "work.swap").symlink_to("/proc/self/fd/4")
        return [(rootfs / "data/sub", rootfs / "data/swap"), (rootfs / "work", rootfs / "work.swap")]
    if scene == "proc":
        fake = rootfs / "proc.swap"
        (fake / "sys").mkdir(parents=True)
        (fake / "self").symlink_to(canary.folder)
        for name in ("keys", "interrupts", "timer_list"):
            (fake / name).touch()
        return [(rootfs / "proc", fake)]
    (rootfs / "swap").symlink_to(canary.folder)
    return [(rootfs / scene, rootfs / "swap")]


def _race(tarbox, rootfs, tmp_path, scene, starts):
    tools.probe(rootfs)
    canary = tools.Canary(tmp_path / "canary")
    pairs = _pairs(rootfs, canary, scene)
    canary.before = tools.tree(canary.folder)
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "mine").touch()
    script = "probe covers /proc /proc.swap; echo x > /data/sub/new; chmod 777 /dev/null; echo ran"
    options = ("-v", f"{volume}:/data/sub", "--tmpfs", "/tmpfs", "-w", "/work", "-u", "root")
    runs = refused = 0
    with swapping(tmp_path, pairs):
        for _ in range(starts):
            done = tarbox("run", "--rm", *options, rootfs, "/bin/busybox", "sh", "-c", script)
            canary.check()
            assert "bare" not in done.stdout
            if "ran\n" in done.stdout:
                runs += 1
            else:
                refused += 1
                assert done.returncode in (125, 126, 127), done
                assert len(done.stderr.splitlines()) == 1, done.stderr
                assert done.stderr.startswith("tarbox: ")
    canary.check()
    for path in (path for pair in pairs for path in pair if path.is_symlink()):
        path.unlink()
    return runs, refused


SCENES = {"etc": 35, "files": 35, "target": 35, "proc": 35, "dev": 35, "sys": 35}


@pytest.mark.parametrize("scene", SCENES)
def test_names_that_are_exchanged_while_containers_start(tarbox, rootfs_busybox, tmp_path, scene):
    """Each start is refused in one clear line, or what runs is whole: masked, and with nothing of the host's."""
    runs, refused = _race(tarbox, rootfs_busybox, tmp_path, scene, SCENES[scene])
    assert runs + refused == SCENES[scene]


@pytest.mark.long
@pytest.mark.parametrize("scene", SCENES)
def test_names_that_are_exchanged_for_long(tarbox, rootfs_busybox, tmp_path, scene):
    runs, refused = _race(tarbox, rootfs_busybox, tmp_path, scene, 750)
    assert runs
    assert runs + refused == 750


def test_a_volume_in_which_another_container_exchanges_names(tarbox, rootfs_busybox, tmp_path):
    """The racer is in a container itself, and both have the folder in which the second one's mount target lies."""
    tools.probe(rootfs_busybox)
    canary = tools.Canary(tmp_path / "canary")
    shared = tmp_path / "shared"
    (shared / "inner").mkdir(parents=True)
    (shared / "link").symlink_to("../../../../../.." + str(canary.folder))
    volume = ("-v", f"{shared}:/shared")
    racer = tarbox.start(
        "run", "--rm", "-i", *volume, rootfs_busybox,
        "probe", "swap", str(TURNS), "600", "/shared/inner", "/shared/link",
        text=True,
    )  # fmt: skip
    try:
        for _ in range(30):
            done = tarbox("run", "--rm", *volume, "--tmpfs", "/shared/inner/new", rootfs_busybox, "echo", "ran")
            canary.check()
            assert done.stdout == "ran\n" or tools.complained(done)
    finally:
        told, errors = racer.communicate()
    assert (racer.returncode, errors) == (0, "")
    assert int(told.split()[1]) >= TURNS


def _dev(tmp_path, canary):
    """A /dev of one's own as a volume, and what is exchanged in it while containers start."""
    dev = tmp_path / "dev"
    (dev / "pts").mkdir(parents=True)
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(dev / name, 0o020666, os.makedev(1, minor))
    os.mknod(dev / "tty", 0o020666, os.makedev(5, 0))
    (dev / "console").touch()
    pairs = []
    for name, target in (("null", "file"), ("console", "file"), ("pts", "inner")):
        (dev / f"{name}.swap").symlink_to("../../../../../../../../.." + str(canary.folder / target))
        pairs.append((dev / name, dev / f"{name}.swap"))
    return dev, pairs


@pytest.mark.parametrize("options", [(), ("-t",)], ids=["", "terminal"])
def test_a_dev_whose_names_are_exchanged(tarbox, rootfs_busybox, tmp_path, options):
    """What masks others is the null device, and the terminal is mounted on nothing of the host's."""
    tools.probe(rootfs_busybox)
    canary = tools.Canary(tmp_path / "canary")
    dev, pairs = _dev(tmp_path, canary)
    script = "probe covers /proc; stat -c %t:%T /proc/keys /proc/interrupts; chmod 777 /dev/console; echo ran"
    with swapping(tmp_path, pairs):
        for _ in range(40):
            done = tarbox("run", "--rm", *options, "-v", f"{dev}:/dev", rootfs_busybox, "sh", "-c", script)
            canary.check()
            assert "bare" not in done.stdout
            if "ran" in done.stdout:
                assert done.stdout.split()[2:4] == ["1:3", "1:3"], done.stdout
            else:
                assert done.returncode in (125, 126, 127)
                assert done.stderr.startswith("tarbox: ")
                assert len(done.stderr.splitlines()) == 1
    canary.check()


def test_a_dev_of_ones_own_is_used(tarbox, rootfs_busybox, tmp_path):
    """The honest use of the same."""
    dev, _ = _dev(tmp_path, tools.Canary(tmp_path / "canary"))
    told = tarbox.output(
        "run", "--rm", "-v", f"{dev}:/dev", rootfs_busybox, "stat", "-c", "%t:%T", "/dev/null", "/proc/keys"
    )
    assert told == "1:3\n1:3\n"


SETTING = "net.ipv4.ip_forward"


def _fake_proc(folder):
    """A folder with the files that are written to in /proc, if they were written to by name."""
    for name in ("sys/net/ipv4/ip_forward", "sys/kernel/core_pattern", "self/attr/exec", "self/attr/current", "keys"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("fake\n")
    return folder


def _start(tarbox, rootfs, fake, before):
    """A container with a setting; it has it, or doesn't start, and the fake is as it was."""
    script = "probe covers /proc && cat /proc/sys/net/ipv4/ip_forward"
    done = tarbox("run", "--rm", "--sysctl", f"{SETTING}=1", rootfs, "/bin/busybox", "sh", "-c", script)
    assert tools.tree(fake) == before
    assert "bare" not in done.stdout
    if done.returncode == 0:
        assert done.stdout in ("proc /proc\n1\n", "1\n")  # where /proc is a link, its target is the procfs
        return True
    assert done.returncode in (1, 125, 126, 127), done
    assert "1" not in done.stdout.split()
    return False


@pytest.mark.parametrize("kind", ["link", "folder", "link to self"])
def test_a_setting_is_never_written_to_a_fake_proc(tarbox, rootfs_busybox, kind):
    tools.probe(rootfs_busybox)
    fake = _fake_proc(rootfs_busybox / "fake")
    (rootfs_busybox / "proc").rmdir()
    if kind == "folder":
        fake = _fake_proc(rootfs_busybox / "proc")
    else:
        (rootfs_busybox / "proc").symlink_to("fake" if kind == "link" else "/fake/self/../../fake")
    before = tools.tree(fake)
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    _start(tarbox, f"{rootfs_busybox}:O", fake, before)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


def test_a_setting_while_proc_is_exchanged(tarbox, rootfs_busybox, tmp_path):
    tools.probe(rootfs_busybox)
    fake = _fake_proc(tmp_path / "fake")
    before = tools.tree(fake)
    (rootfs_busybox / "proc.swap").symlink_to("../../../../../../../.." + str(fake))
    with swapping(tmp_path, [(rootfs_busybox / "proc", rootfs_busybox / "proc.swap")]):
        started = [_start(tarbox, rootfs_busybox, fake, before) for _ in range(40)]
    assert len(started) == 40


def _under_a_shared_mount(tarbox, rootfs, tmp_path, starts, turns):
    """Somebody lays a fake over the image's /proc again and again, on a mount that is shared."""
    tools.probe(rootfs)
    program = tools.install(tmp_path / "mounts", tools.compiled(Path("probe.c")))
    fake = _fake_proc(tmp_path / "fake")
    before = tools.tree(fake)
    subprocess.run(["mount", "--bind", rootfs, rootfs], check=True)
    try:
        subprocess.run(["mount", "--make-shared", rootfs], check=True)
        command = [program, "mounts", str(turns), "600", str(fake), str(rootfs / "proc")]
        with _racing(command, turns):
            return [_start(tarbox, rootfs, fake, before) for _ in range(starts)]
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", rootfs], check=True)


def test_a_setting_while_proc_is_mounted_over(tarbox, rootfs_busybox, tmp_path):
    assert any(_under_a_shared_mount(tarbox, rootfs_busybox, tmp_path, 25, 500))


@pytest.mark.long
def test_a_setting_while_proc_is_mounted_over_for_long(tarbox, rootfs_busybox, tmp_path):
    assert any(_under_a_shared_mount(tarbox, rootfs_busybox, tmp_path, 400, TURNS))


def test_many_containers_start_at_once_from_the_same_files(tarbox, rootfs_busybox):
    """Honest company: what one of them just made for itself is no reason for another to fail."""
    (rootfs_busybox / "etc/hostname").unlink()
    started = [
        tarbox.start("run", "--rm", "-w", "/a/b/c", rootfs_busybox, "sh", "-c", "pwd; test -s /etc/hosts", text=True)
        for _ in range(12)
    ]
    for running in started:
        told = running.communicate()
        assert (running.returncode, *told) == (0, "/a/b/c\n", "")
    assert os.path.isfile(rootfs_busybox / "etc/hostname")
