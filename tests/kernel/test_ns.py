"""All namespaces of the machine: at least those that lsns lists, with whom they belong to."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import testhost
from looked import container, lsns, running

SHORT = {"mount": "mnt", "network": "net"}


def ls(tarbox, *words):
    """The rows of `tarbox ns ls`, by (kind, number)."""
    listed = json.loads(tarbox.output("ns", "ls", "--json", *words))
    return {(SHORT.get(row["kind"], row["kind"]), row["inode"]): row for row in listed["namespaces"]}


def listed_by_lsns():
    """The rows of lsns: (processes, first process) by (kind, number)."""
    rows = lsns("-o", "TYPE,NS,NPROCS,PID")
    return {(kind, int(inode)): (int(count), int(pid)) for kind, inode, count, pid in rows}


def test_all_that_lsns_lists(tarbox, rootfs_busybox):
    """Kind, number, processes, the first of them; those of the container and of unshare are told of by name."""
    with (
        container(tarbox, f"{rootfs_busybox}:O") as inside,
        running("unshare", "--net", "--user", "--map-root-user", "cat") as other,
    ):
        before = listed_by_lsns()
        rows = ls(tarbox)
        after = listed_by_lsns()
        id = re.search(r"tarbox-([0-9a-f]+)", Path(f"/proc/{inside}/cgroup").read_text())[1]
        text = tarbox.output("ns", "ls")
        net = os.stat(f"/proc/{other}/ns/net").st_ino
        numbers = {kind: os.stat(f"/proc/{inside}/ns/{kind}").st_ino for kind in ("pid", "mnt", "uts", "ipc", "net")}
    steady = before.keys() & after.keys()  # others on the machine come and go
    assert {("net", net), *numbers.items()} <= steady
    assert steady <= rows.keys()
    for key in (("net", net), *numbers.items()):
        assert (rows[key]["processes"], rows[key]["pid"]) == before[key]
    for key in numbers.items():
        assert (rows[key]["owner"]["engine"], rows[key]["owner"]["id"]) == ("tarbox", id)
        assert rows[key]["command"] == "cat"
        assert rows[key]["of_machine"] is False
        assert re.search(rf"^\w+ +{key[1]} +1 +{inside} +cat +tarbox {id[:32]}$", text, re.MULTILINE)
    machine = [row for row in rows.values() if row["of_machine"]]
    assert sorted(row["kind"] for row in machine) == [
        "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
    ]  # fmt: skip
    assert re.search(r"^uts +4026531838 +\d+ +\d+ +\S.* +the machine$", text, re.MULTILINE)


def test_relations_are_lsns(tarbox):
    """Which user namespace owns it, and which is its parent."""
    with running("unshare", "--user", "--map-root-user", "--pid", "--fork", "cat", depth=1) as pid:
        rows = ls(tarbox)
        said = lsns("-o", "TYPE,NS,PNS,ONS", "-p", str(pid))
        user = os.stat(f"/proc/{pid}/ns/user").st_ino
    for kind, inode, parent, owner in said:
        row = rows[(kind, int(inode))]
        assert (row["parent"] or 0, row["owned_by"] or 0) == (int(parent), int(owner))
    assert rows[("user", user)]["parent"] == 4026531837


def test_a_network_without_processes(tarbox):
    """As `ip netns` keeps them: with its name, and 0 processes."""
    name = f"kept{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inode = os.stat(f"/run/netns/{name}").st_ino
        row = ls(tarbox, "--type", "net")[("net", inode)]
        text = tarbox.output("ns", "ls", "-t", "network")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
        subprocess.run(["umount", "/run/netns"], check=False, capture_output=True)
        os.rmdir("/run/netns")
    assert (row["processes"], row["pid"], row["places"]) == (0, None, [{"path": f"/run/netns/{name}", "seen_by": None}])
    assert f"kept at /run/netns/{name}" in text
    assert {line.split()[0] for line in text.splitlines()[1:] if not line.startswith("Not ")} == {"network"}


def test_any_kind_that_a_mount_keeps(tarbox, tmp_path):
    """A host name without processes, kept by a bind mount anywhere, here in somebody else's mount namespace."""
    place = tmp_path / "kept"
    place.write_text("")
    with running("unshare", "--mount", "sh", "-c", f"unshare --uts={place} true && exec cat") as pid:
        kept = re.findall(r" uts:\[(\d+)\] (\S+) ", Path(f"/proc/{pid}/mountinfo").read_text())
        row = ls(tarbox)[("uts", int(kept[0][0]))]
        assert str(place) not in testhost.mounts().values()
        text = tarbox.output("ns", "ls")
    assert (row["processes"], row["places"]) == (0, [{"path": str(place), "seen_by": pid}])
    assert f"kept at {place} in the mounts of {pid}" in text


def test_above_and_between(tarbox):
    """A user namespace that no process is in any more, but that holds one with a process."""
    script = 'unshare --user --map-root-user sh -c "exec 3>&-; readlink /proc/self/ns/user; exec unshare --user cat"'
    process = subprocess.Popen(["sh", "-c", f"exec {script}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        middle = int(re.search(rb"\[(\d+)\]", process.stdout.readline())[1])
        while Path(f"/proc/{process.pid}/comm").read_text() != "cat\n":
            pass
        row = ls(tarbox)[("user", middle)]
        text = tarbox.output("ns", "ls", "--type", "user")
    finally:
        process.communicate()
    assert (row["processes"], row["pid"]) == (0, None)
    assert re.search(rf"^user +{middle} +0 +- +- +held by a namespace below, or a descriptor$", text, re.MULTILINE)


def test_one_that_waits_for_children(tarbox):
    """A process made clocks for children that it doesn't have yet."""
    code = "import ctypes, sys; ctypes.CDLL(None).unshare(0x80); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        inode = os.stat(f"/proc/{process.pid}/ns/time_for_children").st_ino
        row = ls(tarbox, "--type", "time")[("time", inode)]
    finally:
        process.communicate()
    assert inode != os.stat("/proc/self/ns/time").st_ino
    assert (row["processes"], row["of_machine"]) == (0, False)


def test_a_plain_user_sees_his_own(plain_tarbox, plain_folder):
    """And how much isn't shown."""
    become = ("setpriv", f"--reuid={plain_tarbox.user}", f"--regid={plain_tarbox.user}", "--clear-groups")
    with running(*become, "unshare", "--user", "--map-root-user", "--uts", "cat") as pid:
        said = lsns("-o", "TYPE,NS", become=become)
        rows = ls(plain_tarbox)
        after = lsns("-o", "TYPE,NS", become=become)  # the user may have others that come and go
        text = plain_tarbox.output("ns", "ls")
        inode = os.stat(f"/proc/{pid}/ns/uts").st_ino
    assert {(kind, int(number)) for kind, number in said if [kind, number] in after} <= rows.keys()
    assert rows[("uts", inode)]["pid"] == pid
    assert re.search(r"^Not looked into, as you may not see their namespaces: \d+ processes\.$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "ns needs a command"),
        (("lss",), "did you mean 'tarbox ns ls'?"),
        (("ls", "x"), "takes no arguments"),
        (("ls", "--type", "mnts"), "there is no kind of namespace 'mnts'"),
    ],
)
def test_a_slip_is_told(tarbox, words, said):
    done = tarbox("ns", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    assert said in done.stderr
