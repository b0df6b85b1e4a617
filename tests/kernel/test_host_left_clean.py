"""The tests' own check: what a test leaves is found and fails it, and a machine that was left alone is called clean."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

import testhost

# Each leaves one thing behind. Mounts and interfaces die with the namespaces of the run of tests that made them.
LITTER = {
    "nothing": "",
    "mount": "testhost.mount('left', str(tmp_path), 'tmpfs', 0)",
    "interface": "subprocess.run(['ip', 'link', 'add', 'left0', 'type', 'veth'], check=True)",
    "bridge": "subprocess.run(['ip', 'link', 'add', 'tb-0123456789ab', 'type', 'bridge'], check=True)",
    "process": "subprocess.run(['sh', '-c', 'env -i setsid unshare -mpf sleep 30 >/dev/null 2>&1 &'], check=True)",
}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("nothing", None),
        ("mount", r"left behind: mount on \S+"),
        ("interface", "left behind: network interface"),
        ("bridge", r"left behind: network interface tb-\w+"),
        ("process", r"left behind: process (\d+): (unshare|sleep)"),
    ],
)
def test_what_a_test_leaves_fails_it(kind, told, tmp_path):
    """Even a process behind a shell, in new namespaces, with an empty environment; and a bridge after the module."""
    (tmp_path / "kernel").mkdir()
    test = tmp_path / "kernel" / "test_litter.py"
    mark = "pytestmark = pytest.mark.unhurried\n" if kind == "bridge" else ""
    body = f"def test_litter(tmp_path):\n    {LITTER[kind] or 'pass'}\n"
    test.write_text(f"import testhost, subprocess, pytest\n{mark}{body}")
    tests = testhost.CHECKOUT / "tests"
    options = ["-q", "-p", "conftest", "-c", testhost.CHECKOUT / "pyproject.toml", "--rootdir", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--basetemp={tmp_path}/base", test],
        env=os.environ | {"PYTHONPATH": str(tests)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    for pid in re.findall(r"process (\d+)", done.stdout):
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    if told is None:
        assert done.returncode == 0, done.stdout
    else:
        assert done.returncode == 1, done.stdout
        assert re.search(told, done.stdout), done.stdout
    assert "1 passed" in done.stdout


def test_a_left_cgroup_is_found(test_host):
    """In whichever hierarchy it was made."""
    before = testhost.MachineSnapshot(test_host)
    top = "/sys/fs/cgroup/pids" if os.path.isdir("/sys/fs/cgroup/pids") else "/sys/fs/cgroup"
    cgroup = f"{top}/tarbox-left-{os.getpid()}"
    os.mkdir(cgroup)
    try:
        assert f"cgroup {cgroup}" in testhost.left_on_machine(before, patience=0)
    finally:
        os.rmdir(cgroup)
    assert f"cgroup {cgroup}" not in testhost.left_on_machine(before, patience=0)


def test_the_machine_is_out_of_reach(test_host):
    """The tests have a loopback that is up, an empty /run, private mounts, and nothing of the machine's."""
    assert testhost.interfaces() == {"lo"}
    assert os.stat("/proc/self/ns/net").st_ino != os.fstat(test_host.net).st_ino
    assert os.stat("/proc/self/ns/mnt").st_ino != os.fstat(test_host.mnt).st_ino
    with open("/proc/self/mountinfo") as lines:
        assert not [line for line in lines if " shared:" in line]
    assert set(os.listdir("/run")) <= {"tests", "tarbox", "mount"}  # mount(8) keeps its own notes there
    with open("/proc/self/net/fib_trie") as routes:
        assert "127.0.0.1" in routes.read(), "loopback is down"
