"""The folders that tarbox makes: nobody but their owner gets into them, whatever a container puts there."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import PLAIN_USER, Tarbox
from tarbox.engine.roots import Roots

PLANT = """
cp /bin/busybox /planted && chmod 4755 /planted && echo >>/etc/hosts && chmod 4755 /etc/hosts && echo ready
cat
"""


@pytest.fixture
def open_tarbox(test_host, plain_folder):
    """Root's tarbox with a data root below a folder that another user may enter."""
    os.chmod(plain_folder, 0o755)
    command = Tarbox(test_host, plain_folder / "tarbox")
    os.chmod(plain_folder / "tarbox", 0o755)
    yield command
    assert not command.leftovers()


def _reached(paths: list[str]) -> list[str]:
    """What another user reaches of these paths, and how."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(PLAIN_USER, PLAIN_USER, PLAIN_USER)
        os.setresuid(PLAIN_USER, PLAIN_USER, PLAIN_USER)
        for path in paths:
            for name, attempt in (("look at", os.lstat), ("list", os.listdir), ("enter", os.chdir)):
                try:
                    attempt(path)
                except PermissionError:
                    continue
                except OSError as error:
                    name += f" ({error.strerror})"
                os.write(tell, f"{name} {path}\n".encode())
        os._exit(0)
    os.close(tell)
    with open(told) as answers:
        found = answers.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    return found


def _below(*tops: str) -> list[str]:
    return [f"{folder}/{name}" for top in tops for folder, inner, files in os.walk(top) for name in (*inner, *files)]


@pytest.mark.parametrize("kind", ["archive", "directory", "host"])
def test_another_user_gets_into_no_folder(open_tarbox, busybox_tar, rootfs_busybox, kind):
    """A set-uid program that root in a container leaves in its files is nobody's way to root on the host."""
    image = {"archive": busybox_tar, "directory": f"{rootfs_busybox}:O", "host": "host"}[kind]
    script = PLANT if kind != "host" else PLANT.replace("/bin/busybox", "/bin/true")
    state = Roots(str(open_tarbox.root)).state
    # A umask of 0, so that each folder has the mode that it was made with.
    with open_tarbox.start("run", "--rm", "-i", image, "sh", "-c", script, text=True, umask=0) as running:
        try:
            assert running.stdout.readline() == "ready\n", running.stderr.read()
            there = _below(state, str(open_tarbox.root))
            tops = [state, str(open_tarbox.root)]
            reached = _reached([*tops, *there])
            own = [*Path(state).iterdir(), *(open_tarbox.root / "scratch").iterdir(), *open_tarbox.root.iterdir()]
            modes = {str(folder): stat.S_IMODE(folder.stat().st_mode) for folder in own}
        finally:
            running.stdin.close()
        assert running.wait(20) == 0
    assert [path for path in there if path.endswith("/planted")]
    assert set(modes.values()) == {0o700}, "each by itself, not only for what is above it"
    assert {line for line in reached if not line.startswith("look at")} == set()
    assert set(reached) <= {f"look at {top}" for top in tops}, "the names of the folders, where their parents show them"


def test_another_users_set_uid_program_is_the_way_that_is_closed(plain_folder, busybox_tar):
    """The walk above finds what can be reached: in a folder that can be entered but not listed, and in an open one."""
    os.chmod(plain_folder, 0o711)
    os.chown(plain_folder, 0, 0)
    (plain_folder / "hidden").mkdir(mode=0o700)
    (plain_folder / "hosts").touch()
    assert f"look at {plain_folder}/hosts" in _reached(_below(str(plain_folder)))
    assert not [line for line in _reached([f"{plain_folder}/hidden"]) if not line.startswith("look at")]


def test_inside_the_files_can_be_read_by_all_and_run_by_nobody(tarbox, rootfs_busybox):
    script = "cat /etc/hosts /etc/hostname /etc/resolv.conf && grep ' /etc/' /proc/self/mountinfo"
    told = tarbox.output("run", "--rm", "-u", "guest", "--hostname", "box", rootfs_busybox, "sh", "-c", script)
    assert re.search(r"^[\d.]+\tbox$", told, re.MULTILINE)
    mounts = [line.split() for line in told.splitlines() if " /etc/" in line]
    assert [mount[4] for mount in mounts] == ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
    for mount in mounts:
        assert {"nosuid", "nodev", "noexec"} <= set(mount[5].split(",")), mount


def test_inside_the_files_can_still_be_written(tarbox, rootfs_busybox):
    """Root in a container may name more hosts, as with Docker."""
    script = "echo 10.0.0.9 there >>/etc/hosts && grep there /etc/hosts"
    assert tarbox.output("run", "--rm", rootfs_busybox, "sh", "-c", script) == "10.0.0.9 there\n"


def test_a_plain_users_folders_are_closed_too(plain_tarbox, plain_folder, rootfs_busybox):
    """Without XDG_RUNTIME_DIR the state lies in /tmp, where everybody may enter."""
    base = Path(f"/tmp/tarbox-{PLAIN_USER}")
    assert not base.exists()
    environment = plain_tarbox.environment()
    del environment["XDG_RUNTIME_DIR"]
    command = plain_tarbox.command("run", "--rm", "host", "true")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=plain_folder)
        assert done.returncode == 0, done.stderr
        modes = {oct(os.lstat(path).st_mode) for path in [base, *_below(str(base))] if os.path.isdir(path)}
        assert modes == {"0o40700"}
        os.chmod(base, 0o777)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=plain_folder)
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith(f"tarbox: others can write to {base}")
    finally:
        subprocess.run(["rm", "-rf", base], check=True)
