"""The start path's budget on real runs: each time the second one, which finds on disk what the first one computed."""

from __future__ import annotations

import startpath


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
