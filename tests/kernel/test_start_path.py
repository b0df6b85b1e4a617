"""The start path's budget on real runs: each time the second one, which finds on disk what the first one computed."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess

import pytest

import boxes
import roots
import startpath
import testhost


def test_a_run_loads_only_what_it_needs(tarbox, rootfs_busybox):
    assert tarbox("run", "--rm", rootfs_busybox, "true").returncode == 0
    done = tarbox("run", "--rm", "--net", "none", rootfs_busybox, "true", python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    startpath.check(startpath.parsed(done.stderr))


def test_a_run_of_an_unpacked_tarball_loads_only_what_it_needs(tarbox, busybox_tar):
    """The second run of a tarball finds it in the store, and needs nothing of what unpacked it."""
    assert tarbox("run", "--rm", busybox_tar, "true").returncode == 0
    done = tarbox("run", "--rm", "--net", "none", busybox_tar, "true", python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    startpath.check(startpath.parsed(done.stderr))


def test_a_connected_run_loads_only_what_it_needs(tarbox, rootfs_busybox):
    """The second one in a row finds the network there, and needs none of what the first makes it of."""
    words = ("run", "--rm", rootfs_busybox, "true")
    assert tarbox(*words).returncode == 0
    boxes.until(lambda: testhost.interfaces() == {"lo"})
    for more in (startpath.MAKING, 0):
        done = tarbox(*words, python=("-X", "importtime"))
        assert done.returncode == 0, done.stderr
        modules = startpath.parsed(done.stderr)
        startpath.check(modules, startpath.CONNECTED + more)
        assert "tarbox.networks.leases" in modules
        for name in ("networks.changes", "networks.ports"):
            assert f"tarbox.{name}" not in modules
        for name in ("networks.rules", "networks.barriers", "kernel.nft_rules", "kernel.nft_tables"):
            assert (f"tarbox.{name}" in modules) == bool(more)
        if more:
            living = tarbox.start("run", "-i", rootfs_busybox, "sh", "-c", "echo ready; read line")
            assert living.stdout.readline() == b"ready\n"
    living.communicate()


def test_a_run_with_published_ports_loads_only_what_it_needs(tarbox, rootfs_busybox):
    words = ("run", "--rm", "-p", "8080:80", rootfs_busybox, "true")
    assert tarbox(*words).returncode == 0
    done = tarbox(*words, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    modules = [name for name in startpath.parsed(done.stderr) if name != "_socket"]
    startpath.check(modules, startpath.CONNECTED + startpath.MAKING + startpath.PUBLISHED)


def test_a_run_on_a_terminal_loads_only_what_it_needs(tarbox, rootfs_busybox):
    """What asks terminals and sets them is all that comes on top."""
    words = ("run", "--rm", "-it", "--net", "none", rootfs_busybox, "true")
    assert tarbox("run", "--rm", rootfs_busybox, "true").returncode == 0
    keys, side = pty.openpty()
    try:
        done = tarbox(*words, python=("-X", "importtime"), stdin=side, stdout=side)
    finally:
        os.close(keys)
        os.close(side)
    assert done.returncode == 0, done.stderr
    startpath.check([name for name in startpath.parsed(done.stderr) if name != "termios"])


@pytest.mark.parametrize("environment", [{}, {"XDG_DATA_HOME": "", "XDG_RUNTIME_DIR": ""}])
def test_a_plain_users_run_loads_only_what_it_needs(plain_tarbox, plain_folder, environment):
    image = roots.busybox(plain_folder / "image")
    subprocess.run(["chown", "-R", f"{plain_tarbox.user}:{plain_tarbox.user}", image], check=True)
    try:
        assert plain_tarbox("run", "--rm", image, "true", env=environment).returncode == 0
        words = ("run", "--rm", "--net", "none", image, "true")
        done = plain_tarbox(*words, python=("-X", "importtime"), env=environment)
        assert done.returncode == 0, done.stderr
    finally:
        if environment:
            shutil.rmtree(f"/tmp/tarbox-{plain_tarbox.user}")
    startpath.check(startpath.parsed(done.stderr), startpath.PLAIN_USERS)
