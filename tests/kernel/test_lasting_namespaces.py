"""`tarbox ns create` and `rm`: namespaces with a name that last without a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

import testhost
from kernel.attacks import tools
from looked import running

KINDS = {"mount": "mnt", "uts": "uts", "ipc": "ipc", "net": "net", "cgroup": "cgroup", "user": "user", "time": "time"}


def kept(tarbox):
    """The files of lasting namespaces as they are mounted, by name and kind."""
    base = re.escape(str(tarbox.root).strip("/").replace("-", "%2d").replace("/", "-"))
    pattern = re.compile(rf"/run/tarbox/{base}/namespaces/([^/]+)/([^/]+)")
    found = [(point, pattern.fullmatch(point)) for point in testhost.mounts().values()]
    return {(match[1], match[2]): point for point, match in found if match}


@pytest.fixture
def lab(tarbox):
    """A name, whose namespaces are removed afterwards."""
    yield "lab1"
    tarbox("ns", "rm", "--force", "lab1")
    assert not kept(tarbox)


def test_they_last_and_are_listed_and_removed(tarbox, lab):
    """No process is left, and nothing at all afterwards."""
    assert tarbox.output("ns", "create", "--net", "-h", "box", lab) == ""
    files = kept(tarbox)
    assert set(files) == {(lab, "net"), (lab, "uts")}
    rows = json.loads(tarbox.output("ns", "ls", "--json"))["namespaces"]
    mine = {(row["kind"], row["processes"], row["inode"]) for row in rows if row["name"] == lab}
    assert mine == {
        ("network", 0, os.stat(files[lab, "net"]).st_ino), ("uts", 0, os.stat(files[lab, "uts"]).st_ino),
    }  # fmt: skip
    assert len(re.findall(rf" lasting: {lab}, kept at ", tarbox.output("ns", "ls"))) == 2
    enter = ["nsenter", f"--net={files[lab, 'net']}", f"--uts={files[lab, 'uts']}"]
    assert subprocess.check_output([*enter, "hostname"], text=True) == "box\n"
    (lo,) = json.loads(subprocess.check_output([*enter, "ip", "-json", "addr"]))
    assert lo["addr_info"][0]["local"] == "127.0.0.1"
    assert tarbox.output("ns", "rm", lab) == ""
    assert not kept(tarbox)
    assert not os.path.exists(os.path.dirname(os.path.dirname(files[lab, "net"])))
    assert os.uname().nodename != "box"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(tarbox, lab, kind):
    tarbox.output("ns", "create", lab, f"--{kind}")
    ((key, file),) = kept(tarbox).items()
    assert key == (lab, KINDS[kind])
    link = "time_for_children" if kind == "time" else KINDS[kind]
    assert os.stat(file).st_ino != os.stat(f"/proc/self/ns/{link}").st_ino
    option = "mount" if kind == "mount" else KINDS[kind]
    script = f"readlink /proc/self/ns/{KINDS[kind]}"
    seen = subprocess.check_output(["nsenter", f"--{option}={file}", "sh", "-c", script], text=True)
    assert seen.strip() == f"{KINDS[kind]}:[{os.stat(file).st_ino}]"
    if kind == "user":
        ids = subprocess.check_output(["nsenter", f"--user={file}", "cat", "/proc/self/uid_map"], text=True)
        assert ids.split() == ["0", "0", "4294967295"]


def test_a_kept_mount_namespace_keeps_nothing_else(tarbox, lab):
    """It begins as a copy of the machine's mounts, but for those that keep namespaces."""
    tarbox.output("ns", "create", "--net", lab)
    tarbox.output("ns", "create", "--mount", "lab2")
    try:
        file = kept(tarbox)["lab2", "mnt"]
        seen = subprocess.check_output(["nsenter", f"--mount={file}", "cat", "/proc/self/mountinfo"], text=True)
        assert "nsfs" not in seen
        assert " /proc " in seen
    finally:
        tarbox.output("ns", "rm", "lab2")


def test_one_that_is_in_use_is_kept_unless_forced(tarbox, lab):
    """Whoever is in it is named; forced, they go on."""
    tarbox.output("ns", "create", "--net", lab)
    file = kept(tarbox)[lab, "net"]
    with running("nsenter", f"--net={file}", "cat") as pid:
        done = tarbox("ns", "rm", lab)
        assert f"a process is in the namespaces 'lab1': {pid} (cat)" in tools.complained(done)
        assert (lab, "net") in kept(tarbox)
        tarbox.output("ns", "rm", "--force", lab)
        assert not kept(tarbox)
        assert Path(f"/proc/{pid}").exists()


def test_names(tarbox, lab):
    """One is taken only once, whoever asks at the same time; hostile ones are refused."""
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(tarbox("ns", "create", "--uts", lab).returncode))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 125, 125, 125, 125, 125]
    assert "by the name 'lab1' already" in tools.complained(tarbox("ns", "create", "--net", lab))
    for bad in ("..", ".", "a/b", "../x", "-x", "a b", "", "x" * 101, "1234", "a\nb", "ä"):
        assert tarbox("ns", "create", "--net", "--", bad).returncode == 125
        assert tarbox("ns", "rm", "--", bad).returncode == 125
    assert len(kept(tarbox)) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create",), "needs a name"),
        (("create", "lab9"), "which namespaces shall 'lab9' have?"),
        (("create", "--net", "a", "b"), "'b' is a second name"),
        (("create", "--pid", "lab9"), "ends with its first process"),
        (("create", "-h", "no name", "lab9"), "is not a host name"),
        (("rm",), "needs a name"),
        (("rm", "lab9"), "there are no namespaces by the name 'lab9'"),
        (("remov",), "did you mean 'tarbox ns remove'?"),
    ],
)
def test_a_slip_is_told(tarbox, words, said):
    assert said in tools.complained(tarbox("ns", *words))
    assert not kept(tarbox)


def test_a_failure_leaves_nothing(tarbox, lab):
    """Here because the command may not make all of them."""
    limited = ["setpriv", "--bounding-set", "-sys_admin", "--", *tarbox.command("ns", "create", "--uts", "--net", lab)]
    done = subprocess.run(limited, env=tarbox.environment(), capture_output=True, text=True)
    assert "Operation not permitted" in tools.complained(done)
    assert not kept(tarbox)
    assert not testhost.state_files()
    assert tarbox.output("ns", "create", "--uts", "--net", lab) == ""


def test_a_killed_command_is_finished_by_the_next(tarbox, lab):
    """Whenever it is killed, the name is either whole or free afterwards."""
    words = ("ns", "create", "--net", "--uts", "--ipc", "--user", lab)
    for step in range(12):
        process = tarbox.start(*words)
        try:
            process.wait(0.05 + 0.012 * step)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        tarbox("ns", "rm", "nosuch")
        assert {kind for _, kind in kept(tarbox)} in (set(), {"net", "uts", "ipc", "user"})
        if kept(tarbox):
            tarbox.output("ns", "rm", lab)
        assert not testhost.state_files()


def test_a_plain_user_is_told_why_not(plain_tarbox):
    assert "only root may mount" in tools.complained(plain_tarbox("ns", "create", "--net", "lab1"))
