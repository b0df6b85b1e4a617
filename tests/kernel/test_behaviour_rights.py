"""What root inside may and may not do to routes, other users' processes, the old root, and its image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import roots
from inside import ask
from kernel.attacks import tools

pytestmark = pytest.mark.unhurried


@pytest.fixture(scope="module", autouse=True)
def host_files(tmp_path_factory):
    """Nothing of the host's is changed by all of it."""
    with tools.unchanged(tmp_path_factory.mktemp("host") / "canary") as canary:
        yield canary


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    rootfs = roots.busybox(tmp_path_factory.mktemp("image") / "root")
    tools.behave(rootfs)
    tools.probe(rootfs)
    (rootfs / "marker").touch()
    return rootfs


# --- Routes


ROUTES_FILE = Path("/proc/net/route")
ROUTES = {
    "add": "ip route add 10.9.0.0/16 dev lo && echo done",
    "address": "ip addr add 10.9.0.1/24 dev lo && echo done",
    "link": "ip link add name other type dummy && echo done",
    "down": "ifconfig lo down && echo done",
    "setting": "echo 1 > /proc/sys/net/ipv4/ip_forward && echo done",
}


@pytest.mark.parametrize("options", [(), ("--net", "host"), ("-u", "guest"), ("--cap-add", "SYS_ADMIN")], ids=" ".join)
def test_without_net_admin_no_route_is_changed(tarbox, image, options):
    before = ROUTES_FILE.read_text()
    said = ask(tarbox, "--net", "none", *options, f"{image}:O", **ROUTES)
    assert not [name for name, answer in said.items() if "done" in answer], said
    for name in ("add", "address", "link"):
        assert "Operation not permitted" in said[name]
    assert ROUTES_FILE.read_text() == before


def test_with_net_admin_they_are_the_containers_to_change(tarbox, image):
    """Its own network's, while the host's stay as they are."""
    before = ROUTES_FILE.read_text()
    said = ask(tarbox, "--net", "none", "--cap-add", "NET_ADMIN", f"{image}:O", **ROUTES, routes="ip route")
    assert [said[name] for name in ("add", "address", "down")] == ["done"] * 3
    assert "done" not in said["setting"], "what is read-only stays so: --sysctl is for that"
    assert ROUTES_FILE.read_text() == before


# --- Memory of other processes


def spied(tarbox, image, *options):
    told = tarbox.output("run", "--rm", *options, f"{image}:O", "behave", "spy", "1000")
    return dict(line.split() for line in told.splitlines())


def test_without_sys_ptrace_another_users_memory_is_closed(tarbox, image):
    """By all three ways; one's own processes can be debugged, as in Docker."""
    said = spied(tarbox, image)
    assert [said[f"other-{way}"] for way in ("readv", "mem", "ptrace")] == ["EPERM", "EACCES", "EPERM"]
    assert [said[f"own-{way}"] for way in ("readv", "mem", "ptrace")] == ["done"] * 3


@pytest.mark.parametrize("options", [("--cap-add", "SYS_PTRACE"), ("--privileged",)], ids=" ".join)
def test_with_sys_ptrace_it_is_open(tarbox, image, options):
    assert set(spied(tarbox, image, *options).values()) == {"done"}


def test_sys_ptrace_reaches_no_process_outside(tarbox, image):
    """There is none by any number: the pid namespace says so, not the capability."""
    script = f"ls -d /proc/{os.getpid()}; kill -0 {os.getpid()}; kill -0 -1"
    said = ask(tarbox, "--cap-add", "SYS_PTRACE", f"{image}:O", pids="cd /proc; echo [0-9]*", outside=script)
    assert max(map(int, said["pids"].split())) < 100
    assert os.getpid() > 100
    assert "No such process" in said["outside"]


# --- The old root


@pytest.mark.parametrize(
    "options", [(), ("--privileged",), ("--cap-add", "ALL"), ("--init",), ("--read-only", "--tmpfs", "/climb")],
    ids=" ".join,
)  # fmt: skip
def test_the_classic_way_out_of_a_chroot_leads_back(tarbox, image, options):
    """A folder held open, a chroot into one below, up and up: it ends in the container's own root."""
    lines = tarbox.output("run", "--rm", *options, f"{image}:O", "probe", "climb").splitlines()
    assert lines[:2] == ["chroot done", "chroot-up done"]
    assert "marker" in lines
    outside = set(os.listdir("/")) - set(os.listdir(image)) - {"climb"}
    assert not outside & set(lines)


def test_the_same_from_a_tarball_and_the_hosts_programs(tarbox, image, tmp_path):
    archive = roots.packed(image, tmp_path / "image.tar")
    assert "marker" in tarbox.output("run", "--rm", archive, "probe", "climb").split()
    volume = ("-v", f"{image}/bin/probe:/probe:ro")
    lines = tarbox.output("run", "--rm", *volume, "host", "/probe", "climb").split()
    assert lines[:4] == ["chroot", "done", "chroot-up", "done"]
    assert "probe" in lines


# --- Files of one image


def _pair(tarbox, *image):
    """Two containers at once, each writing, deleting and looking, then looking once more when both have."""
    script = (
        "echo $0 > /written-by-$0; echo $0 > /etc/passwd; rm /marker; mkdir /tmp/$0; echo ready; read go;"
        "echo $(ls / | grep written-by) $(cat /etc/passwd) $(ls /tmp) $(test -e /marker && echo marker); read end"
    )
    pair = [
        tarbox.start("run", "--rm", "-i", *image, "sh", "-c", script, name, text=True, bufsize=1)
        for name in ("one", "two")
    ]
    try:
        for process in pair:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in pair:
            process.stdin.write("go\n")
        return [process.stdout.readline().split() for process in pair]
    finally:
        for process in pair:
            process.communicate(timeout=30)


@pytest.mark.parametrize("kind", ["directory", "tarball", "in memory"])
def test_what_two_containers_of_one_image_write_never_meets(tarbox, image, tmp_path, kind):
    before = tools.tree(image)
    root = f"{image}:O" if kind != "tarball" else roots.packed(image, tmp_path / "image.tar")
    more = ("--root-tmpfs", "16m") if kind == "in memory" else ()
    assert _pair(tarbox, *more, root) == [["written-by-one", "one", "one"], ["written-by-two", "two", "two"]]
    assert tools.tree(image) == before
    third = tarbox.output("run", "--rm", root, "sh", "-c", "ls / /tmp; head -1 /etc/passwd").split()
    assert "marker" in third
    assert not [word for word in third if "one" in word.split("-") or "two" in word.split("-")]


def test_what_two_containers_of_the_host_write_never_meets(tarbox):
    script = "echo $0 > /usr/local/bin/new; echo $0 > /etc/new; sleep 0.5; cat /usr/local/bin/new /etc/new"
    pair = [tarbox.start("run", "--rm", "host", "sh", "-c", script, name, text=True) for name in ("one", "two")]
    assert [process.communicate(timeout=30)[0].split() for process in pair] == [["one"] * 2, ["two"] * 2]
    assert not os.path.exists("/usr/local/bin/new")
    assert not os.path.exists("/etc/new")


def test_a_directory_that_is_written_to_is_shared(tarbox, image, tmp_path):
    """The honest other way: without :O both write to the same files, at once."""
    rootfs = tools.copy(image, tmp_path / "shared")
    writer = tarbox.start("run", "--rm", "-i", rootfs, "sh", "-c", "echo here > /note; echo ready; read x", text=True)
    assert writer.stdout.readline() == "ready\n"
    assert tarbox.output("run", "--rm", rootfs, "cat", "/note") == "here\n"
    writer.communicate(timeout=30)
    assert (rootfs / "note").read_text() == "here\n"
