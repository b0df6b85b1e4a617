"""Names that are exchanged, as fast as it goes, while containers start from the files that they are in."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from kernel.attacks import tools

TURNS = 10_000


@contextlib.contextmanager
def swapping(tmp_path, pairs):
    """Exchange these pairs of paths until the end of the block, and 10,000 times at least."""
    program = tools.install(tmp_path / "swap", tools.compiled(tools.Path("probe.c")))
    command = [program, "swap", str(TURNS), "600", *(str(path) for pair in pairs for path in pair)]
    racer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield racer
    finally:
        told, errors = racer.communicate()
    assert (racer.returncode, errors) == (0, "")
    assert int(told.split()[1]) >= TURNS


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
