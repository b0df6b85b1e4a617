"""A whole system in a container: what an init finds, how it is ended, and systemd itself as far as `running`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest

import roots

pytestmark = pytest.mark.unhurried

SHOW = """#!/bin/sh
tr '\\0' '\\n' < /proc/self/environ
cat /run/host/container-manager /run/host/container-uuid
grep -E ' (/run|/run/lock|/run/host|/tmp|/var/log/journal|/sys/fs/cgroup[^ ]*) ' /proc/self/mounts
mkdir /sys/fs/cgroup/service 2>/dev/null && echo made a group
touch /run/host/new 2>/dev/null && echo changed what it is told
printf '#!/bin/sh\\necho ran' > /run/program; chmod +x /run/program; /run/program
"""
# Where it manages one, it is the only tree that an init sees.
HAS_GROUP = os.path.exists("/sys/fs/cgroup/unified/cgroup.procs") or os.path.exists("/sys/fs/cgroup/cgroup.procs")


@pytest.fixture
def image(rootfs_busybox):
    """A root filesystem whose /sbin/init shows what it finds."""
    init = rootfs_busybox / "sbin/init"
    init.unlink()
    init.write_text(SHOW)
    init.chmod(0o755)
    return rootfs_busybox


@pytest.mark.skipif(not HAS_GROUP, reason="no control groups of version 2")
@pytest.mark.parametrize("limits", [(), ("-m", "100m", "--pids-limit", "50")])
def test_an_init_finds_what_the_container_interface_promises(tarbox, image, limits):
    found = tarbox.output("run", "--rm", *limits, image, "/sbin/init").splitlines()
    variables = dict(line.split("=", 1) for line in found if re.match("[a-zA-Z_]+=", line))
    assert variables["container"] == "tarbox"
    assert re.fullmatch("[0-9a-f]{32}", variables["container_uuid"])
    assert variables["container_uuid"].startswith(variables["HOSTNAME"])
    assert "tarbox" in found
    assert variables["container_uuid"] in [line.replace("-", "") for line in found]
    mounts = {
        line.split()[1]: (line.split()[2], line.split()[3].split(",")) for line in found if len(line.split()) == 6
    }
    assert {place: kind for place, (kind, _) in mounts.items()} == {
        "/run": "tmpfs", "/run/lock": "tmpfs", "/run/host": "tmpfs", "/tmp": "tmpfs", "/var/log/journal": "tmpfs",
        "/sys/fs/cgroup": "cgroup2",
    }  # fmt: skip
    assert (mounts["/sys/fs/cgroup"][1][0], mounts["/run/host"][1][0]) == ("rw", "ro")
    assert "made a group" in found
    assert "changed what it is told" not in found
    assert found[-1] == "ran"


@pytest.mark.parametrize("words", [("--systemd=false", "/sbin/init"), ("/bin/init",), ("--init", "/sbin/init")])
def test_what_is_no_init_or_shall_be_none_finds_nothing_of_that(tarbox, image, words):
    (image / "bin/init").symlink_to("/sbin/init")
    (image / "run").mkdir()
    done = tarbox("run", "--rm", *words[:-1], f"{image}:O", words[-1])
    assert done.returncode == 0
    for sign in ("container", "/run", "/tmp ", "made a group"):
        assert sign not in done.stdout


def test_any_command_is_one_if_thats_said(tarbox, image):
    if not HAS_GROUP:
        pytest.skip("no control groups of version 2")
    done = tarbox("run", "--rm", "--systemd=always", f"{image}:O", "sh", "-c", "echo $container; cat /run/host/*")
    assert done.stdout.splitlines()[:2] == ["tarbox", "tarbox"]
    done = tarbox("run", "--rm", "--systemd=always", "--init", f"{image}:O", "true")
    assert (done.returncode, "leave --init out" in done.stderr) == (125, True)
    done = tarbox("run", "--rm", "--systemd=yes", f"{image}:O", "true")
    assert (done.returncode, "always or false" in done.stderr) == (125, True)


def test_the_callers_own_mounts_and_variables_count(tarbox, image, tmp_path):
    options = ("--tmpfs", "/run:size=1m", "-v", f"{tmp_path}:/tmp", "-e", "container=other")
    done = tarbox("run", "--rm", *options, image, "/sbin/init")
    assert "container=other" in done.stdout.splitlines()
    assert "size=1024k" in next(line for line in done.stdout.splitlines() if " /run " in line)
    assert "tmpfs /tmp " not in done.stdout
    assert not (tmp_path / "host").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGRTMIN + 3])
def test_it_is_ended_by_the_signal_that_it_takes_for_that(tarbox, image, number):
    script = "trap 'echo halt; exit 0' 37; trap 'echo wrong' TERM INT; echo ready; while :; do sleep 0.05; done"
    (image / "sbin/init").write_text(f"#!/bin/sh\n{script}\n")
    running = tarbox.start("run", "--rm", image, "/sbin/init", stdin=subprocess.DEVNULL)
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(number)
    output, _ = running.communicate(timeout=30)
    assert (running.returncode, output) == (0, b"halt\n")


def test_the_signal_may_be_another(tarbox, image):
    script = "trap 'echo mine; exit 0' USR1; echo ready; while :; do sleep 0.05; done"
    (image / "sbin/init").write_text(f"#!/bin/sh\n{script}\n")
    running = tarbox.start("run", "--rm", "--stop-signal", "USR1", image, "/sbin/init", stdin=subprocess.DEVNULL)
    assert running.stdout.readline() == b"ready\n"
    running.terminate()
    output, _ = running.communicate(timeout=30)
    assert (running.returncode, output) == (0, b"mine\n")


@pytest.mark.skipif(not os.path.exists("/sys/fs/cgroup/pids"), reason="no control groups of version 1")
def test_where_only_version_1_is_its_limits_stay_out_of_reach(tarbox, image):
    """The tree for systemd alone can be written to."""
    if not os.path.exists("/sys/fs/cgroup/systemd"):
        pytest.skip("no tree of systemd's")
    script = (
        "for group in systemd pids; do mkdir /sys/fs/cgroup/$group/new && echo $group; done;"
        "echo max > /sys/fs/cgroup/pids/pids.max && echo limits"
    )
    hidden = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
    command = tarbox.command("run", "--rm", "--systemd", "always", f"{image}:O", "sh", "-c", script)
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", hidden, "sh", *command],
        env=tarbox.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["systemd"], done.stderr


def test_a_plain_user_is_told_where_he_can_have_no_group(plain_tarbox):
    done = plain_tarbox("run", "--rm", "--systemd", "always", "host", "sh", "-c", "echo $container")
    if done.returncode == 0:
        assert done.stdout == "tarbox\n"
    else:
        assert (done.returncode, "systemd-run --user" in done.stderr) == (125, True)


@pytest.mark.long
def test_debian_boots_and_is_shut_down(tarbox, test_host):
    if not HAS_GROUP:
        pytest.skip("no control groups of version 2")
    archive = roots.debian(test_host, "minbase", "systemd", "systemd-sysv", "dbus")
    running = tarbox.start("run", "--rm", archive, "/sbin/init", stdin=subprocess.DEVNULL)
    try:
        inside = ("nsenter", "-a", "-t", _first_process(running.pid))
        waited = subprocess.run(
            [*inside, "sh", "-c", "until systemctl is-system-running --wait; do sleep 0.2; done"],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert waited.stdout.splitlines()[-1] == "running"
        virtual = subprocess.run([*inside, "systemd-detect-virt"], capture_output=True, text=True, timeout=60)
        assert virtual.stdout == "container-other\n"
        ids = "tr '\\0' '\\n' </proc/1/environ | sed -n s/container_uuid=//p; cat /etc/machine-id"
        told = subprocess.run([*inside, "sh", "-c", ids], capture_output=True, text=True, timeout=60).stdout.split()
        assert told[0] == told[1]
        running.terminate()
        assert running.wait(120) == 0
    finally:
        running.kill()
        running.communicate()


def _first_process(command: int) -> str:
    """The id of the only child of a command, as soon as it is an init."""
    end = time.monotonic() + 240  # the image may have to be unpacked
    while time.monotonic() < end:
        with open(f"/proc/{command}/task/{command}/children") as file:
            for child in file.read().split():
                try:
                    if os.readlink(f"/proc/{child}/exe").endswith("/systemd"):
                        return child
                except OSError:
                    pass
        time.sleep(0.1)
    raise AssertionError("there is no init")
