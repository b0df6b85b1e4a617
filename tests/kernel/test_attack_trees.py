"""Control groups mounted inside: no tree shows the machine's own groups, nor `release_agent`, whatever was added.

That file of version 1 names a program that the kernel starts outside of every container.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernel.attacks import tools
from tarbox.kernel.cgroups import everywhere

pytestmark = pytest.mark.unhurried

NEW = ("none,name=fresh", "rdma", "misc", "perf_event", "hugetlb", "net_cls", "cpu,memory")
ADDED = {
    "default": (),
    "admin": ("--cap-add", "SYS_ADMIN"),
    "all": ("--cap-add", "ALL"),
    "privileged": ("--privileged",),
    "limited": ("--cap-add", "SYS_ADMIN", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50"),
    "below": ("--privileged", "--cgroup-parent", "/tarbox-test-trees"),
    "unfiltered": ("--security-opt", "seccomp=unconfined"),
    "unfiltered admin": ("--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN"),
    "init": ("--init", "--cap-add", "SYS_ADMIN"),
}


@pytest.fixture
def image(rootfs_busybox):
    tools.install(rootfs_busybox / "bin/trees", tools.compiled(Path("trees.c")))
    return f"{rootfs_busybox}:O"


def present():
    """What names the trees of this machine: their controllers, or their own name."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return [line.split(":")[1] or "v2" for line in lines]


def agents():
    """The release agents of the machine, by tree."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    files = [Path(tree, "release_agent") for tree in everywhere.whole_trees(lines)]
    return {str(file): file.read_text() for file in files if file.exists()}


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("user", [(), ("user",)], ids=["as it is", "in a user namespace"])
def test_no_tree_shows_the_machines_groups(tarbox, image, name, user):
    before = agents()
    told = tarbox.output("run", "--rm", *ADDED[name], image, "trees", *user, *present(), *NEW)
    assert agents() == before
    said = dict(line.split(" ", 1) for line in told.splitlines())
    assert not {"root", "changed"} & set(said.values()), said
    if name == "default":
        assert set(said.values()) == {"EPERM"}
    elif not user and name != "unfiltered":
        assert all(said[tree].startswith("own") for tree in present()), said


def test_ones_own_groups_can_be_mounted_and_used(tarbox, image):
    """The honest use: a container that runs containers, or systemd."""
    told = tarbox.output("run", "--rm", "--privileged", image, "trees", *present())
    made = [line for line in told.splitlines() if line.endswith("own, a group made")]
    assert any(line.startswith(("pids ", "v2 ")) for line in made), told


def test_no_right_no_group_too_many(tarbox, image):
    """An ordinary container has groups only where something is counted or limited, as each costs time."""
    plan = tarbox.output("explain", "run", image, "true")
    rich = tarbox.output("explain", "run", "--cap-add", "SYS_ADMIN", image, "true")
    if len(present()) > 2:
        assert plan.count("mkdir(") < rich.count("mkdir(")


def test_the_groups_of_others_are_not_written_to(tarbox, image):
    """Root inside, which root's files outside belong to: the files of other groups aren't in view to be written."""
    name = f"tarbox-test-{os.getpid()}"
    tree = next((tree for tree in everywhere.whole_trees(Path("/proc/self/mountinfo").read_text().splitlines())), "")
    other = Path(tree or "/sys/fs/cgroup", name)
    other.mkdir()
    try:
        script = "mkdir -p /mnt; for o in $0; do mount -t cgroup -o $o x /mnt 2>/dev/null && ls /mnt; done"
        for options in (("--cap-add", "SYS_ADMIN"), ("--privileged",)):
            done = tarbox("run", "--rm", *options, image, "sh", "-c", script, " ".join(present()))
            assert "cgroup.procs" in done.stdout or len(present()) == 1
            assert name not in done.stdout
    finally:
        other.rmdir()
