"""How much of a container is it? Asked of processes of all kinds, and compared with what other programs say of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

import looked
import testhost
from looked import container, own_namespaces, running, what

pytestmark = pytest.mark.unhurried

LINKS = {"mount": "mnt", "network": "net"}


def compare(found, pid):
    """Numbers of namespaces are those of lsns, capabilities and ids those of /proc."""
    rows = {kind: int(inode) for kind, inode in looked.lsns("-o", "TYPE,NS", "-p", str(pid))}
    assert {LINKS.get(kind, kind): space["inode"] for kind, space in found["namespaces"].items()} == rows
    own = {LINKS.get(kind, kind) for kind, space in found["namespaces"].items() if space["own"]}
    assert own == own_namespaces(pid)
    status = dict(re.findall(r"^(\w+):\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    sets = {"effective": "Eff", "permitted": "Prm", "inheritable": "Inh", "bounding": "Bnd", "ambient": "Amb"}
    for name, short in sets.items():
        assert found["capabilities"][name]["mask"] == status[f"Cap{short}"]
        assert len(found["capabilities"][name]["names"]) == int(status[f"Cap{short}"], 16).bit_count()
    assert found["uid"]["effective"] == int(status["Uid"].split()[1])
    assert found["seccomp"]["filters"] == int(status["Seccomp_filters"])
    assert found["no_new_privs"] == (status["NoNewPrivs"] == "1")
    return found


def test_a_container_of_tarbox(tarbox, rootfs_busybox):
    """Six namespaces, its limits with their use, its id, its root, the rights; in JSON and in words."""
    limits = ("-m", "20m", "--pids-limit", "30", "--cpus", "0.5", "--cpuset-cpus", "0", "--ulimit", "core=77")
    with container(tarbox, *limits, f"{rootfs_busybox}:O") as pid:
        found = compare(what(tarbox, pid), pid)
        text = tarbox.output("what", str(pid))
        (group,) = {line.split(":")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().split() if "tarbox" in line}
    assert found["command"] == "cat"
    assert found["pids"] == [pid, 1]
    assert (found["owner"]["engine"], f"/tarbox-{found['owner']['id']}") == ("tarbox", group)
    assert {kind for kind, space in found["namespaces"].items() if not space["own"]} == {"time", "user"}
    assert all(space["processes"] == 1 for space in found["namespaces"].values() if space["own"])
    assert (found["root"]["how"], found["root"]["fstype"], found["root"]["read_only"]) == ("pivoted", "overlay", False)
    assert found["root"]["layers"] == 2
    limit = {entry["resource"]: entry for entry in found["cgroups"]["limits"]}
    assert (limit["memory"]["limit"], limit["pids"]["limit"]) == (20 << 20, 30)
    assert (limit["cpu"]["limit"], limit["pids"]["use"], limit["memory"]["group"]) == (0.5, 1, group)
    assert 0 < limit["memory"]["use"] < 20 << 20
    if len(os.sched_getaffinity(0)) > 1:
        assert limit["cpus"]["limit"] == "0"
    assert found["cgroups"]["use"]["pids"] == 1
    assert found["capabilities"]["effective"]["summary"].startswith("Docker's default: cap_chown ")
    assert found["seccomp"]["mode"] == "filter"
    assert found["rlimits"]["differ"]["core"]["soft"] == "77"
    assert f"tarbox {group.removeprefix('/tarbox-')}" in re.sub(r"\s+", " ", text)
    last = text.splitlines()[-1]
    assert last == found["verdict"]
    assert re.fullmatch(
        r"a container of its own: 6 of 8 namespaces, another root, limits on memory, processors and pids,"
        r" 14 of 41 capabilities, filtered",
        last,
    )
    assert "20 MiB at most" in text
    assert re.search(r"^  time +the machine's +4026531834 ", text, re.MULTILINE)
    assert text.isascii()


def test_a_read_only_container_of_a_user(tarbox):
    """--read-only, no capabilities, no new privileges, the host's network, another user."""
    options = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-u", "1234:99")
    with container(tarbox, *options, "--net", "host", "host") as pid:
        found = compare(what(tarbox, pid), pid)
    assert found["root"]["read_only"]
    assert found["no_new_privs"]
    assert (found["uid"]["effective"], found["gid"]["real"]) == (1234, 99)
    assert found["capabilities"]["permitted"]["summary"] == found["capabilities"]["bounding"]["summary"] == "none"
    assert found["namespaces"]["network"]["shared_with_caller"]
    assert found["verdict"].endswith(", no capabilities, filtered, no new privileges")


def test_a_container_of_a_plain_users(plain_tarbox, tarbox):
    """Its id from its files, as it has no control group; its map of ids; the same by its user and by root."""
    with container(plain_tarbox, "host") as pid:
        for command in (plain_tarbox, tarbox):
            found = what(command, pid)
            assert found["owner"]["engine"] == "tarbox"
            assert re.fullmatch("[0-9a-f]{64}", found["owner"]["id"])
            assert found["namespaces"]["user"]["own"]
            assert found["uid_map"] == [[0, plain_tarbox.user, 1]]
            assert (found["uid"]["effective"], found["uid"]["inside"]) == (plain_tarbox.user, 0)
            assert found["root"]["how"] == "pivoted"
            assert "capabilities (in its own user namespace only)" in found["verdict"]
            assert f"{plain_tarbox.user}; 0 inside; id map 0 is {plain_tarbox.user}" in command.output("what", str(pid))
        compare(found, pid)


def test_a_plain_user_sees_what_everybody_may(plain_tarbox, tarbox, rootfs_busybox):
    """Of root's container: limits, rights, mounts, its number inside; and is told what isn't shown."""
    with container(tarbox, "-m", "20m", f"{rootfs_busybox}:O") as pid:
        found = what(plain_tarbox, pid)
        text = plain_tarbox.output("what", str(pid))
    assert found["unseen"] == ["namespaces", "root"]
    assert found["namespaces"]["mount"] == {
        "inode": None, "own": True, "shared_with_init": False, "shared_with_caller": None, "processes": None,
        "names": [], "for_children": None,
    }  # fmt: skip
    assert found["namespaces"]["pid"]["own"]
    assert found["namespaces"]["uts"]["own"] is None
    assert found["pids"][1:] == [1]
    assert found["owner"]["engine"] == "tarbox"
    assert found["root"]["fstype"] == "overlay"
    assert found["capabilities"]["effective"]["summary"].startswith("Docker's default")
    assert {entry["resource"] for entry in found["cgroups"]["limits"]} >= {"memory"}
    assert "Not shown, as you may not see it: namespaces, root" in text
    with running("unshare", "--user", "--map-root-user", "cat") as pid:
        spaces = what(plain_tarbox, pid)["namespaces"]
    assert (spaces["user"]["own"], spaces["user"]["inode"], spaces["pid"]["own"]) == (True, None, False)


def test_unshared_namespaces(tarbox):
    """Those that unshare made and no others; who made them; who else is in one."""
    with running("unshare", "--uts", "--ipc", "--pid", "--fork", "--user", "--map-root-user", "cat", depth=1) as pid:
        found = compare(what(tarbox, pid), pid)
        above = int(re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])
        parent = what(tarbox, above)
        text = tarbox.output("what", str(above))
    spaces = found["namespaces"]
    assert {"uts", "ipc", "pid", "user"} <= {kind for kind, space in spaces.items() if space["own"]}
    assert (spaces["uts"]["processes"], spaces["uts"]["names"]) == (2, ["unshare"])
    assert spaces["pid"]["processes"] == 1
    assert (found["started_by"]["pid"], found["owner"]["engine"]) == (above, "unshare")
    assert parent["namespaces"]["pid"]["for_children"] == spaces["pid"]["inode"]
    assert f"its children will be in another pid namespace: {spaces['pid']['inode']}" in text
    assert found["root"]["how"] in ("copy", "machine")


def test_a_sandbox_of_bubblewrap(tarbox, rootfs_busybox):
    """Another root, and the sandbox by its name."""
    command = ("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", str(rootfs_busybox), "/", "--proc", "/proc")
    with running(*command, "/bin/cat", depth=2) as pid:
        found = compare(what(tarbox, pid), pid)
        text = tarbox.output("what", str(pid))
    assert {kind for kind, space in found["namespaces"].items() if not space["own"]} <= {"time", "user"}
    assert (found["root"]["how"], found["root"]["read_only"]) == ("pivoted", True)
    assert found["owner"]["engine"] == "bubblewrap"
    assert found["no_new_privs"]
    assert "bubblewrap (as its ancestor tells)" in text
    assert found["verdict"].startswith("a container of its own: ")


def test_a_container_of_runcs(tarbox, rootfs_busybox, tmp_path):
    """Known by its control group and runc's state, with its limits."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["cat"], "rlimits": []}
    config["root"] = {"path": str(rootfs_busybox), "readonly": True}
    config["linux"]["resources"]["pids"] = {"limit": 40}
    (bundle / "config.json").write_text(json.dumps(config))
    name = f"what-{os.getpid()}"
    process = subprocess.Popen(
        ["runc", "run", "--bundle", str(bundle), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        pid = looked.settled(process, 1)
        found = compare(what(tarbox, pid), pid)
    finally:
        process.communicate(timeout=30)
        os.rmdir("/run/runc")
    assert found["owner"] == {"kind": "container", "engine": "runc", "id": name, "told_by": "control group"}
    assert (found["root"]["how"], found["root"]["read_only"]) == ("pivoted", True)
    limit = {entry["resource"]: entry["limit"] for entry in found["cgroups"]["limits"]}
    assert limit["pids"] == 40
    assert found["capabilities"]["bounding"]["names"] == ["cap_kill", "cap_net_bind_service", "cap_audit_write"]
    assert found["verdict"].startswith("a container of its own: ")


def test_a_changed_root(tarbox, rootfs_busybox):
    """chroot: another root, the same namespaces."""
    with running("chroot", rootfs_busybox, "/bin/cat") as pid:
        found = compare(what(tarbox, pid), pid)
        text = tarbox.output("what", str(pid))
    assert (found["root"]["how"], found["root"]["path"]) == ("chrooted", str(rootfs_busybox))
    assert all(space["shared_with_caller"] for space in found["namespaces"].values())
    assert found["root"]["fstype"]
    assert f"the directory {rootfs_busybox} (chroot)" in re.sub(r"\s+", " ", text)
    assert "another root by chroot" in found["verdict"]


def test_all_keys_are_documented(tarbox):
    """What a program may rely on is written down, key by key, and what is written down is there."""
    text = (testhost.CHECKOUT / "docs/json.md").read_text().partition("## tarbox caps")[0]
    found = what(tarbox, "self")
    inner = {key: list(found[key]) for key in ("root", "cgroups", "seccomp", "uid", "gid", "rlimits")}
    inner["namespaces"] = list(found["namespaces"]["pid"])
    inner["capabilities"] = list(found["capabilities"]["bounding"])
    for key in found:
        for name in [key] * (key != "cgroups") + inner.get(key, []):
            assert f"`{name}`" in text or f"`{key}.{name}`" in text, (key, name)
    assert set(re.findall(r"^\| `([a-z_]+)", text, re.MULTILINE)) <= found.keys()


def test_itself_and_its_caller(tarbox):
    """`self` is the command; the tests' own process is the caller of it, with the tests' namespaces."""
    found = what(tarbox, "self")
    assert "what --json self" in found["command"]
    assert found["parent"] == os.getpid()
    caller = compare(what(tarbox, os.getpid()), os.getpid())
    assert all(space["shared_with_caller"] for space in caller["namespaces"].values())


def test_a_zombie(tarbox):
    """It says so, and invents no namespaces."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        found = what(tarbox, child)
        text = tarbox.output("what", str(child))
    finally:
        os.waitpid(child, 0)
    assert found["zombie"]
    assert found["verdict"].startswith(f"a zombie: it has ended, and its parent, process {os.getpid()},")
    assert all(space["inode"] is None for kind, space in found["namespaces"].items() if kind not in ("user", "pid"))
    assert "Namespaces" not in text


def test_a_thread_of_the_kernel(tarbox):
    found = what(tarbox, 2)
    assert found["kernel_thread"]
    assert (found["command"], found["verdict"][:26]) == ("[kthreadd]", "a thread of the kernel's: ")


def test_the_first_process_is_the_machine(tarbox, plain_tarbox):
    """For root and for a plain user, whether or not its namespaces can be seen."""
    for command in (tarbox, plain_tarbox):
        assert not any(space["own"] for space in what(command, 1)["namespaces"].values())
        assert command("what", "1").returncode == 0


def test_another_thread(tarbox):
    """A number that is a thread's and no process's."""
    script = (
        "import threading, sys; t = threading.Thread(target=sys.stdin.read); t.start(); print(t.native_id, flush=True)"
    )
    process = subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        found = what(tarbox, int(process.stdout.readline()))
    finally:
        process.communicate()
    assert found["thread_of"] == process.pid


def test_names_can_not_steer_the_terminal(tarbox):
    """A process that calls itself by an escape sequence, in a control group of such a name."""
    name = b"a\x1b[2J\xff\n"
    script = b'printf %s "$0" >/proc/self/comm; echo; read x'
    process = subprocess.Popen([b"sh", b"-c", script, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        done = subprocess.run(
            tarbox.command("what", str(process.pid)), env=tarbox.environment(), check=True, capture_output=True
        )
        found = what(tarbox, process.pid)
    finally:
        process.communicate()
    assert b"\x1b" not in done.stdout
    assert b"a\\x1b[2J\\xff\\n" in done.stdout
    assert (found["name"], found["command"][-10:]) == ("a\x1b[2J\\xff", "a\x1b[2J\\xff\n")


def test_a_process_that_ends_meanwhile(tarbox):
    """While processes come and go, `what` gives an answer or says that it ended, and nothing else."""
    codes = set()
    for pause in (0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16):
        child = subprocess.Popen(["sleep", str(pause)])
        looking = tarbox.start("what", str(child.pid))
        child.wait()
        out, error = looking.communicate(timeout=30)
        codes.add(looking.returncode)
        assert looking.returncode in (0, 125)
        if looking.returncode:
            text = f"tarbox: (there is no process {child.pid}|process {child.pid} ended while it was looked at)\n"
            assert re.fullmatch(text, error.decode())
            assert not out
    assert 125 in codes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "what process?"),
        (("4194305",), "there is no process 4194305"),
        (("0",), "there is no process 0"),
        (("nosuch",), "'nosuch' is not the number of a process"),
        (("1" * 5000,), "there is no process 1111"),
        (("1", "2"), "takes one process"),
    ],
)
def test_what_is_no_process_is_told(tarbox, words, said):
    """In one short line, with exit code 125."""
    done = tarbox("what", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    assert said in done.stderr
    assert len(done.stderr) < 200


def test_a_process_by_its_name(tarbox):
    """It has to be a number, and the line tells it."""
    script = "printf wonderful >/proc/self/comm; echo; read x"
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        done = tarbox("what", "wonderful")
    finally:
        process.communicate()
    assert done.returncode == 125
    assert f"'wonderful' is not the number of a process (the one named so is {process.pid})" in done.stderr


def test_a_frozen_container(tarbox, rootfs_busybox):
    """That it is stopped shows."""
    freezer = Path("/sys/fs/cgroup/freezer")
    if not freezer.is_dir():
        pytest.skip("no freezer of version 1 here")
    with container(tarbox, rootfs_busybox) as pid:
        (group,) = re.findall(r"^\d+:freezer:(.*)$", Path(f"/proc/{pid}/cgroup").read_text(), re.MULTILINE)
        state = freezer / group.lstrip("/") / "freezer.state"
        state.write_text("FROZEN")
        try:
            end = time.monotonic() + 5
            while state.read_text().strip() != "FROZEN" and time.monotonic() < end:
                time.sleep(0.01)
            assert what(tarbox, pid)["cgroups"]["frozen"]
            assert "all of it is frozen" in tarbox.output("what", str(pid))
        finally:
            state.write_text("THAWED")


def test_a_stopped_process_can_be_looked_at(tarbox):
    """It needs no help of the process itself."""
    with running("cat") as pid:
        os.kill(pid, signal.SIGSTOP)
        end = time.monotonic() + 5
        while (found := what(tarbox, pid))["state"] != "stopped" and time.monotonic() < end:
            pass
        os.kill(pid, signal.SIGCONT)
    assert found["state"] == "stopped"


def test_from_inside_of_a_container(tarbox):
    """There it says that one is in one."""
    python = tarbox.host.python
    code = f"cd /; exec {python} -I -S {tarbox.host.main} what self"
    checkout = tarbox.host.main.parents[2]
    options = ("-v", f"{checkout}:{checkout}:ro", "--net", "host")
    text = tarbox.output("run", *options, "host", "sh", "-c", code)
    assert "You are in a container yourself" in text
    assert "that of process 1 here" in text
    assert "  uts      own, and yours " in text
    assert "the container that you are in: " in text.splitlines()[-1]
