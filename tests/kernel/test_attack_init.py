"""What an init of ours holds, any root of the container's can open: through /proc/1/fd."""

from __future__ import annotations

import os
import subprocess

import pytest

import roots

OPTIONS = {
    "plain": (),
    "limits": ("-m", "64m", "--pids-limit", "50"),
    "volume": ("-v", "/etc:/data:ro", "--tmpfs", "/scratch"),
    "tracing": ("--cap-add", "SYS_PTRACE"),
    "privileged": ("--privileged",),
    "no-new-privileges": ("--security-opt", "no-new-privileges"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_init_holds_nothing_but_the_standard_streams(tarbox, rootfs_busybox, name):
    """No place below a mount, such as a /proc/sys that can be written; no file of a group's, nothing of the host's."""
    told = tarbox.output("run", "--rm", "--init", *OPTIONS[name], rootfs_busybox, "ls", "/proc/1/fd")
    assert told.split() == ["0", "1", "2"]


def test_an_init_of_a_plain_user_holds_nothing_either(plain_tarbox, plain_folder):
    rootfs = roots.busybox(plain_folder / "image")
    owner = os.stat(plain_folder).st_uid
    subprocess.run(["chown", "-R", f"{owner}:{owner}", rootfs], check=True)
    told = plain_tarbox.output("run", "--rm", "--init", rootfs, "ls", "/proc/1/fd")
    assert told.split() == ["0", "1", "2"]


def test_no_way_leads_to_settings_that_can_be_written(tarbox, rootfs_busybox):
    """They are covered by a mount that is read only; the directory below it would be reached by its descriptor."""
    script = "for fd in /proc/1/fd/* /proc/*/fd/*; do ls -d $fd/kernel/core_pattern 2>/dev/null; done; true"
    assert tarbox.output("run", "--rm", "--init", rootfs_busybox, "sh", "-c", script) == ""
