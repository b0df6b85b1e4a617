"""A container in fifteen lines of shell beside `tarbox run`: the same from inside, and where tarbox goes further.

    sh fifteen_lines.sh fish.tar fish
    tarbox run -it --net none -h container-fun-times -m 1000000000 --cpu-shares 512 ./fish.tar fish

What was changed of the original: README.md here.
"""

from __future__ import annotations

import os
import subprocess

import pytest

import roots
from kernel.attacks import tools
from seeds import seen

NAME = "container-fun-times"
LIMITS = ("-m", "1000000000", "--cpu-shares", "512")
pytestmark = pytest.mark.skipif(not seen.version_1(), reason="the script's control groups are version 1's")


@pytest.fixture
def archive(rootfs_busybox, tmp_path):
    """A root filesystem with the probe, the hostile program and a folder for it, as a tarball."""
    seen.probe(rootfs_busybox)
    tools.probe(rootfs_busybox)
    return roots.packed(rootfs_busybox, tmp_path / "fish.tar")


def script(archive, program):
    return ["sh", str(seen.HERE / "fifteen_lines.sh"), str(archive), program]


def by_hand(archive, folder, program="/bin/sh /probe.sh"):
    folder.mkdir()
    return seen.running(script(archive, program), folder, dict(os.environ))


def by_tarbox(tarbox, archive, *program):
    words = ("run", "--rm", "-i", "--net", "none", "-h", NAME, *LIMITS, archive)
    words = tarbox.command(*words, *(program or ("/bin/sh", "/probe.sh")))
    return seen.running(words, tarbox.folder, tarbox.environment())


@pytest.fixture
def both(tarbox, archive, tmp_path):
    """The answers of both, and what their groups say while they run."""
    found = []
    for made in (by_hand(archive, tmp_path / "by-hand"), by_tarbox(tarbox, archive)):
        with made as (said, pid):
            files = {"memory": "memory.limit_in_bytes", "cpu": "cpu.shares"}
            limits = {name: seen.control(pid, name, file) for name, file in files.items()}
            found.append((said, limits, seen.of(pid)))
    return found


def test_they_look_the_same_from_inside(both):
    """Name, files, processes, ids, network, and the limits of the group."""
    (hand, hand_limits, hand_outside), (ours, our_limits, our_outside) = both
    for said in (hand, ours):
        assert said["hostname"] == NAME
        assert said["id"] == "0 0"
        assert said["interfaces"].split() == ["lo"]
        assert said["pids"].split()[0] == "1"
        assert set(said["names"].split()) <= {"sh", "cat", "busybox"}, "processes of others are seen"
        assert seen.own_kinds(said["namespaces"]) >= {"ipc", "mnt", "net", "pid", "uts"}
    assert hand["files"] == ours["files"]
    assert hand_limits == our_limits == {"memory": str(1_000_000_000 // 4096 * 4096), "cpu": "512"}
    for outside in (hand_outside, our_outside):  # a process like any other, with a number outside and one inside
        assert len(outside["NSpid"].split()) == len(seen.mine()["NSpid"].split()) + 1


def test_tarbox_goes_further(both):
    """What fifteen lines don't do: rights, filter, hidden files, a group that doesn't show, a /dev."""
    (hand, _, _), (ours, _, _) = both
    by_hand, by_tarbox = seen.fields(hand["status"]), seen.fields(ours["status"])
    mine = seen.mine()
    assert by_hand["CapEff"] == mine["CapEff"]
    assert int(by_tarbox["CapEff"], 16) == 0xA80425FB
    assert (by_hand["Seccomp"], by_tarbox["Seccomp"]) == (mine["Seccomp"], "2")
    assert "cgroup" not in seen.own_kinds(hand["namespaces"])
    assert "cgroup" in seen.own_kinds(ours["namespaces"])
    assert "/cgroup_" in hand["cgroup"]
    assert {line.split(":")[2] for line in ours["cgroup"].splitlines()} == {"/"}
    assert hand["mounts"].split() == ["/proc"]
    assert {"/", "/proc", "/dev", "/sys", "/proc/keys"} <= set(ours["mounts"].split())
    assert "LOOPBACK,UP" not in hand["lo"]
    assert "LOOPBACK,UP" in ours["lo"]
    assert ours["first"] == "/bin/sh /probe.sh"


def test_the_way_out_of_a_chroot_is_open_there_and_closed_here(tarbox, archive, tmp_path):
    """The script's root is changed, but the old one is still around it; tarbox lets go of it."""
    (tmp_path / "by-hand").mkdir()
    command = script(archive, "/bin/probe climb")
    hand = subprocess.run(command, cwd=tmp_path / "by-hand", capture_output=True, text=True, check=True).stdout.split()
    ours = tarbox.output("run", "--rm", archive, "probe", "climb").split()
    assert hand[:4] == ours[:4] == ["chroot", "done", "chroot-up", "done"]
    assert set(os.listdir("/")) <= set(hand), "it is the machine's root, seen from the script's container"
    assert "probe.sh" not in hand
    assert "probe.sh" in ours


def test_the_group_can_be_had_alone(tarbox, archive, tmp_path):
    """`tarbox limit` in the place of cgcreate, cgset and cgexec, around the rest of the script as it is."""
    lines = (seen.HERE / "fifteen_lines.sh").read_text()
    rest = "set -e\n" + lines[lines.index("cp ") : lines.index("cgroup_id=")] + lines[lines.index("    unshare") :]
    (tmp_path / "rest.sh").write_text(rest)
    (tmp_path / "limit").mkdir()
    words = tarbox.command("limit", *LIMITS, "--", "sh", tmp_path / "rest.sh", archive, "/bin/sh /probe.sh")
    with seen.running(words, tmp_path / "limit", tarbox.environment()) as (said, pid):
        assert said["hostname"] == NAME
        assert seen.control(pid, "memory", "memory.limit_in_bytes") == "999997440"
        assert seen.control(pid, "cpu", "cpu.shares") == "512"


def test_the_group_lasts_as_cgcreates_does(tarbox, archive):
    """By the names of the script's own controls: create, exec, rm."""
    name = f"fun-{os.getpid()}"
    tarbox.output("limit", "create", name, "cpu.shares=512", "memory.limit_in_bytes=1000000000")
    try:
        files = "/sys/fs/cgroup/memory$(grep :memory: /proc/self/cgroup | cut -d: -f3)/memory.limit_in_bytes"
        told = tarbox.output("limit", "exec", name, "--", "sh", "-c", f"cat {files}")
        assert told == "999997440\n"
    finally:
        tarbox.output("limit", "rm", name)


@pytest.mark.long
def test_with_the_fish_shell(tarbox, debian_fish_tar, tmp_path):
    """The very program of the text, in a whole Debian."""
    asked = "hostname; math 6 x 7; id -u; ls /; ps -e -o comm="
    (tmp_path / "by-hand").mkdir()
    hand = subprocess.run(
        script(debian_fish_tar, f"/usr/bin/fish -c '{asked}'"),
        cwd=tmp_path / "by-hand", capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    ours = tarbox.output("run", "--rm", "-h", NAME, *LIMITS, debian_fish_tar, "fish", "-c", asked, timeout=240).split()
    assert hand[:3] == ours[:3] == [NAME, "42", "0"]
    assert [word for word in hand if word != "sh"] == ours
