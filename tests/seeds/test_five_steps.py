"""A namespace a step, up to a root of 50 MB in memory with a skeleton copied into it: the scripts beside `tarbox run`.

    bash five_steps/step1.sh
    tarbox run -it -h mycontainer --root-tmpfs 50m ./skeletonfs:O bash

What was changed of the original: README.md here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

import roots
import testhost
from kernel.attacks import tools
from seeds import seen

NAME, MIB = "mycontainer", 1 << 20
FILL = "yes 0123456 | head -c 62914560 > /big; stat -c %s /big"  # there is no /dev/zero in the script's


@pytest.fixture
def folder(tmp_path):
    """The steps beside a skeleton, as the text has it."""
    for step in (seen.HERE / "five_steps").iterdir():
        shutil.copy(step, tmp_path)
    skeleton = roots.busybox(tmp_path / "skeletonfs")
    (skeleton / "oldroot").mkdir()
    seen.probe(skeleton)
    return tmp_path


def by_hand(folder, program="/bin/sh /probe.sh"):
    return ["bash", "step1.sh"], folder, dict(os.environ, PROGRAM=program)


def by_tarbox(tarbox, folder, *program):
    image = f"{folder}/skeletonfs:O"
    words = (
        "run",
        "--rm",
        "-i",
        "-h",
        NAME,
        "--root-tmpfs",
        "50m",
        image,
        *(program or ("sh", "/probe.sh")),
    )
    return tarbox.command(*words), folder, tarbox.environment()


@pytest.fixture
def both(tarbox, folder):
    before = tools.tree(folder / "skeletonfs")
    with seen.running(*by_hand(folder)) as (hand, pid):
        hand["outside"] = seen.of(pid)["NSpid"]
        hand["network"] = subprocess.run(["ip", "-br", "addr"], capture_output=True, text=True, check=True).stdout
    with seen.running(*by_tarbox(tarbox, folder)) as (ours, pid):
        ours["outside"] = seen.of(pid)["NSpid"]
        ours["network"] = subprocess.run(["ip", "-br", "addr"], capture_output=True, text=True, check=True).stdout
    assert tools.tree(folder / "skeletonfs") == before, "the skeleton was copied, not used"
    assert not os.listdir(folder / "newroot"), "what is mounted inside isn't seen outside"
    return hand, ours


def test_they_look_the_same_from_inside(both):
    """Name, files, processes, ids; and both roots are 50 MB."""
    hand, ours = both
    for said in both:
        assert said["hostname"] == NAME
        assert said["id"] == "0 0"
        assert said["pids"].split()[0] == "1"
        assert set(said["names"].split()) <= {"sh", "cat", "busybox", "bash"}
        assert said["root"].split()[1] == str(50 * 1024)
        assert "LOOPBACK,UP" in said["lo"]
        assert seen.own_kinds(said["namespaces"]) >= {"mnt", "net", "pid", "uts"}
        assert len(said["outside"].split()) == len(seen.mine()["NSpid"].split()) + 1
    assert hand["files"] == ours["files"]


def test_a_pair_of_interfaces_leads_out(both, tarbox, folder):
    """The script's third step: one more interface inside, plugged into a bridge that has an address outside.

    In the script's the one inside has none, and is down.
    """
    hand, ours = both
    assert set(hand["interfaces"].split()) == {"lo", "mybr1"}
    assert set(ours["interfaces"].split()) == {"lo", "eth0"}
    assert "192.168.47.11/24" in hand["network"]
    assert "10.211.0.1/16" in ours["network"]
    words = "ip -o address show eth0; ip route; nc -w 5 10.211.0.1 9 || echo refused"
    command, where, env = by_tarbox(tarbox, folder, "sh", "-c", words)
    done = subprocess.run(command, cwd=where, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert re.search(r"inet 10\.211\.0\.\d+/16", done.stdout)
    assert "default via 10.211.0.1 dev eth0" in done.stdout
    assert "refused" in done.stdout + done.stderr, "the host was reached, and nobody listens"


def test_tarbox_goes_further(both):
    """The script leaves the old root in /oldroot, shares IPC, and drops nothing."""
    hand, ours = both
    assert {"/", "/oldroot", "/proc"} <= set(hand["mounts"].split())
    assert any(point.startswith("/oldroot/") for point in hand["mounts"].split())
    assert not [point for point in ours["mounts"].split() if point.startswith("/oldroot")]
    assert "ipc" not in seen.own_kinds(hand["namespaces"])
    assert {"ipc", "cgroup"} <= seen.own_kinds(ours["namespaces"])
    assert seen.fields(hand["status"])["CapEff"] == seen.mine()["CapEff"]
    assert seen.fields(ours["status"])["Seccomp"] == "2"
    assert hand["first"].startswith("bash step3.sh")
    assert ours["first"] == "sh /probe.sh"


def test_neither_root_holds_more_than_fifty_megabytes(tarbox, folder):
    """Sixty don't fit; tarbox keeps only what changed in memory, so that nearly all of it can be had."""
    (folder / "skeletonfs/fill.sh").write_text(FILL)
    sizes = []
    for command, cwd, env in (by_hand(folder, "/bin/sh /fill.sh"), by_tarbox(tarbox, folder, "sh", "/fill.sh")):
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.stdout, done.stderr
        sizes.append(int(done.stdout))
    copied = sum(path.lstat().st_size for path in (folder / "skeletonfs").rglob("*") if path.is_file())
    assert 40 * MIB < sizes[0] <= 50 * MIB - copied
    assert 48 * MIB < sizes[1] <= 50 * MIB


@pytest.mark.parametrize("kind", ["uts", "pid", "net", "mount", "ipc"])
def test_each_namespace_alone(tarbox, kind):
    """`unshare --KIND` beside `tarbox isolate --KIND`: that namespace is another, and no other one.

    The second half is made as soon as this tarbox has the command.
    """
    short = {"mount": "mnt"}.get(kind, kind)
    script = seen.QUESTIONS["namespaces"]
    fork = ["--fork", "--mount-proc"] if kind == "pid" else []
    commands = [["unshare", f"--{kind}", *fork, "sh", "-c", script]]
    if start := seen.isolate(tarbox, kind):
        commands.append(tarbox.command(*start, "sh", "-c", script))
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=tarbox.environment())
        assert seen.own_kinds(done.stdout) - {"mnt"} == {short} - {"mnt"}, command
        assert short in seen.own_kinds(done.stdout)


def test_a_name_of_ones_own(tarbox):
    """The first two steps by themselves: the machine's name stays."""
    before = os.uname().nodename
    script = f"hostname {NAME}; hostname"
    commands = [["unshare", "-u", "sh", "-c", script]]
    if start := seen.isolate(tarbox, "uts"):
        commands.append(tarbox.command(*start, "sh", "-c", script))
    for command in commands:
        assert subprocess.check_output(command, text=True, env=tarbox.environment()) == f"{NAME}\n"
    assert os.uname().nodename == before


def test_the_interfaces_are_gone_with_the_scripts_container(folder):
    """Both ends of the pair: nobody has to remove it."""
    command, cwd, env = by_hand(folder, "/bin/true")
    before = testhost.interfaces()
    subprocess.run(command, cwd=cwd, env=env, check=True)
    for _ in range(300):
        if testhost.interfaces() == before:
            break
        subprocess.run(["sleep", "0.02"], check=True)
    assert testhost.interfaces() == before
