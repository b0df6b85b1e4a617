"""Namespaces with control groups of version 2, and mapped layers on an older kernel than most machines have."""

from __future__ import annotations

import pytest

from vm.machine import PROJECT

pytestmark = [pytest.mark.vm, pytest.mark.long]

IMAGE = "/tmp/image"
MAKE = "import sys, pathlib; sys.path.insert(0, 'tests'); import roots; roots.busybox(pathlib.Path(sys.argv[1]))"


@pytest.fixture
def image(inside):
    status, output = inside.python("-c", MAKE, IMAGE)
    assert status == 0, output
    yield IMAGE
    assert inside("rm", "-rf", IMAGE) == (0, "")


def nothing_is_left(inside):
    assert inside("find", "/sys/fs/cgroup", "-name", "tarbox-*") == (0, "")
    assert inside("sh", "-c", "ls -A /run/tarbox/ids /var/lib/tarbox/scratch") [1].split() == [
        "/run/tarbox/ids:", "/var/lib/tarbox/scratch:",
    ]  # fmt: skip


def test_a_user_namespace_with_mapped_layers(inside, image):
    """Its root owns the image, a mapped volume is root's on both sides, its group is the top, and nothing is left."""
    script = (
        "id -u; stat -c %u /etc/passwd /etc/hosts /v; cat /sys/fs/cgroup/pids.max; touch /new /v/new; stat -c %u /new;"
        " cat /proc/self/cgroup; ulimit -Hn; mknod /n c 1 3"
    )
    words = ("--userns", "auto", "--pids-limit", "50", "--ulimit", "nofile=900000", "--oom-score-adj", "-5")
    inside("mkdir", "/tmp/v")
    output = inside.tarbox("run", *words, "-v", "/tmp/v:/v:idmap", f"{image}:O", "sh", "-c", script)[1]
    assert output.split()[:9] == ["0", "0", "0", "0", "50", "0", "0::/", "900000", "mknod:"], output
    assert inside("stat", "-c", "%u", "/tmp/v/new") == (0, "0\n")
    nothing_is_left(inside)


def test_what_cant_be_mapped_says_so(inside):
    """The root here is an overlay of a file system that comes from outside."""
    status, output = inside.tarbox("run", "--userns", "auto", "host", "true")
    assert status == 125
    assert "can't show its files with other owners" in output


def test_nothing_outlives_a_container_among_the_hosts_processes(inside, image):
    """At its end, and when the command was killed; no group of version 1 is there to help."""
    run = f"{PROJECT}/src/tarbox/__main__.py run --pid host {image}:O sh -c"
    status, output = inside.tarbox(
        "run", "--pid", "host", f"{image}:O", "sh", "-c", "setsid sleep 4711 & sleep 4711 & exit 7"
    )
    assert (status, output) == (7, "")
    assert inside("pgrep", "-f", "sleep 4711")[0] == 1
    killed = f"""
    python3 -I -S {run} 'setsid sleep 4711 & echo on >/dev/shm/on; sleep 4711' &
    while ! pgrep -x sleep >/dev/null; do sleep 0.2; done
    kill -9 $!; wait $!
    for try in 1 2 3 4 5 6 7 8 9 10; do pgrep -x sleep >/dev/null || exit 0; sleep 1; done
    exit 1
    """
    status, output = inside("sh", "-c", killed)
    assert status == 0, output
    assert inside.tarbox("run", f"{image}:O", "true") == (0, "")
    nothing_is_left(inside)
