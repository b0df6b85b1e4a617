"""The working directory and the open descriptors: nothing of the host's is left in a container's program."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kernel.attacks import tools

pytestmark = pytest.mark.unhurried

LINKS = ("/proc/self/cwd", "/proc/self/root", "/proc/1/root", "/proc/1/cwd", "/proc/thread-self/root", "/proc/self/ns")


def _refused_or_inside(tarbox, rootfs, place, *options):
    """The attack fails: either the start is refused, or the working directory lies inside, where its path says."""
    done = tarbox("run", "--rm", *options, "-w", place, rootfs, "sh", "-c", "pwd -P; ls -a")
    if done.returncode:
        tools.complained(done)
        return
    where, *entries = done.stdout.splitlines()
    assert "python" not in done.stdout
    assert (rootfs / where.lstrip("/")).is_dir() or where.startswith("/proc")
    assert ".." in entries


@pytest.mark.parametrize("number", [*range(3, 17), 20, 33, 64])
def test_a_working_directory_that_is_a_descriptor(tarbox, rootfs_busybox, number):
    for process in ("self", "1", "thread-self"):
        done = tarbox("run", "--rm", "-w", f"/proc/{process}/fd/{number}", rootfs_busybox, "pwd")
        assert "links of /proc aren't followed" in tools.complained(done) or "No such file" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("below", ["", "/", "/etc"])
def test_a_working_directory_that_is_any_descriptor(tarbox, rootfs_busybox, below):
    for number in range(3, 1025):
        tools.complained(tarbox("run", "--rm", "-w", f"/proc/self/fd/{number}{below}", rootfs_busybox, "pwd"))


@pytest.mark.parametrize("last", [16, pytest.param(1024, marks=pytest.mark.long)])
@pytest.mark.parametrize(("below", "where"), [("/..", "/proc/1/fd"), ("/../../..", "/proc"), ("/../../../../..", "/")])
def test_a_working_directory_above_a_descriptor(tarbox, rootfs_busybox, below, where, last):
    """The descriptor isn't followed: it is the container's /proc that the path leads to, as it is written."""
    for number in range(3, last + 1):
        place = f"/proc/self/fd/{number}{below}"
        assert tarbox.output("run", "--rm", "-w", place, rootfs_busybox, "pwd", "-P") == f"{where}\n"


@pytest.mark.parametrize("link", LINKS)
def test_a_working_directory_that_is_a_link_of_the_kernel(tarbox, rootfs_busybox, link):
    _refused_or_inside(tarbox, rootfs_busybox, link)
    _refused_or_inside(tarbox, rootfs_busybox, f"{link}/../../..")


@pytest.mark.parametrize(
    "target",
    [
        "/proc/self/fd/3",
        "/proc/self/fd/4/..",
        "../../../../proc/1/fd/5",
        "/proc/self/root/..",
        "/proc/self/cwd/../../..",
    ],
)
def test_a_working_directory_that_a_link_of_the_image_leads_away(tarbox, rootfs_busybox, target):
    (rootfs_busybox / "work").symlink_to(target)
    _refused_or_inside(tarbox, rootfs_busybox, "/work")
    _refused_or_inside(tarbox, rootfs_busybox, "/place/new")


def test_a_working_directory_above_the_root(tarbox, rootfs_busybox, tmp_path):
    """As many ".." as there are lead to the container's root and no further, and nothing is made outside."""
    before = sorted(os.listdir(tmp_path))
    (rootfs_busybox / "up").symlink_to("../../../../../../..")
    (rootfs_busybox / "host").symlink_to(tmp_path)
    assert tarbox.output("run", "--rm", "-w", "/../../..", rootfs_busybox, "pwd") == "/\n"
    assert tarbox.output("run", "--rm", "-w", "/up/new", rootfs_busybox, "pwd") == "/new\n"
    assert tarbox.output("run", "--rm", "-w", "/host/made", rootfs_busybox, "pwd", "-P") == f"{tmp_path}/made\n"
    assert sorted(os.listdir(tmp_path)) == sorted({*before, "tarbox"})


def test_a_working_directory_that_is_missing_is_made(tarbox, rootfs_busybox):
    script = "pwd; stat -c '%a %u' ."
    told = tarbox.output("run", "--rm", "-w", "/a/b/c", rootfs_busybox, "sh", "-c", script)
    assert told == "/a/b/c\n755 0\n"
    assert (rootfs_busybox / "a/b/c").is_dir()


def test_honest_links_lead_to_working_directories(tarbox, rootfs_busybox):
    """An absolute /var/run, a link beside, a chain of them, and one to what isn't there yet."""
    (rootfs_busybox / "run").mkdir()
    (rootfs_busybox / "var/run").symlink_to("/run")
    (rootfs_busybox / "app").symlink_to("var/run")
    (rootfs_busybox / "current").symlink_to("/srv/releases/2")
    for place, real in (("/var/run", "/run"), ("/app", "/run"), ("/app/x", "/run/x"), ("/current", "/srv/releases/2")):
        assert tarbox.output("run", "--rm", "-w", place, rootfs_busybox, "sh", "-c", "pwd -P") == f"{real}\n"


def _inside(tarbox, rootfs, *options, **how):
    """(names of the program's open descriptors as seen inside, the same from outside, its cwd, its root)."""
    script = "echo /proc/$$/fd/*; read x"
    running = tarbox.start("run", "--rm", "-i", *options, rootfs, "sh", "-c", script, text=True, **how)
    try:
        inside = [int(Path(name).name) for name in running.stdout.readline().split()]
        (pid,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = child  # behind an init
        outside = {int(name): os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        return inside, outside, os.readlink(f"/proc/{pid}/cwd"), os.stat(f"/proc/{pid}/root")
    finally:
        told = running.communicate("\n")
        assert (running.returncode, told) == (0, ("", ""))


@pytest.mark.parametrize(
    "options", [(), ("--init",), ("-u", "guest"), ("--net", "host"), ("--privileged",), ("-m", "64m")]
)
def test_only_three_descriptors_are_open(tarbox, rootfs_busybox, options):
    """Seen from inside and from outside; what the caller had open too, and without leave, isn't handed on."""
    first, second = socket.socketpair()
    kept = os.open("/", os.O_RDONLY)
    with first, second:
        os.set_inheritable(kept, True)
        inside, outside, cwd, root = _inside(
            tarbox, rootfs_busybox, "-w", "/tmp", *options, pass_fds=(kept, first.fileno()), cwd="/etc"
        )
    os.close(kept)
    assert sorted(outside) == [0, 1, 2]
    assert set(inside) - {3} == {0, 1, 2}  # 3 is the folder that the shell reads the names from
    assert all(name.startswith(("pipe:", "/dev/null")) for name in outside.values())
    assert cwd.endswith("/tmp")
    assert (root.st_dev, root.st_ino) == (rootfs_busybox.stat().st_dev, rootfs_busybox.stat().st_ino)


def test_a_folder_as_standard_input_is_no_way_out(tarbox, rootfs_busybox):
    """The descriptor of a directory would be one: `cd /proc/self/fd/0`."""
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        script = "cd /proc/self/fd/0 2>&1 && ls"
        done = tarbox("run", "--rm", "-i", rootfs_busybox, "sh", "-c", script, stdin=folder)
    finally:
        os.close(folder)
    assert done.returncode != 0
    assert "can't cd" in done.stdout or "directory" in done.stderr


def test_a_file_as_standard_output_can_be_written_and_not_opened_again(tarbox, rootfs_busybox, tmp_path):
    """An honest redirection works; the container can't read back what was there before."""
    with open(tmp_path / "file", "w+") as file:
        file.write("secret of the host\n")
        file.flush()
        script = "echo told; cat /proc/self/fd/1 </dev/null & sleep 0.2; kill $! 2>/dev/null; true"
        done = tarbox("run", "--rm", rootfs_busybox, "timeout", "1", "sh", "-c", script, stdout=file)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "secret of the host\ntold\n"
