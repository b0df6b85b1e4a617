"""What works in a Debian works where the C library is musl, and where rpm keeps the list of what is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

import other_roots
from inside import ask

pytestmark = pytest.mark.unhurried

KINDS = ("musl", "rpm")
PACKAGES = {"musl": {"busybox-musl", "musl"}, "rpm": {"base", "bash", "busybox", "libs", "rpm"}}
LIST = {"musl": "dpkg -l | sed -n 's/^ii *\\([^ ]*\\).*/\\1/p'", "rpm": "rpm -qa --queryformat '%{NAME}\\n'"}


@pytest.fixture(scope="session")
def archives(test_host):
    return {"musl": other_roots.musl(test_host), "rpm": other_roots.rpm()}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def archive(archives, kind):
    return archives[kind]


@pytest.fixture
def unpacked(archive, tmp_path):
    """The same as a directory."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-C", folder, "-xpf", archive], check=True)
    return folder


def test_the_roots_are_what_they_should_be(tarbox, archives):
    """Else the tests below say nothing: one has no glibc at all, the other no dpkg."""
    maps = tarbox.output("run", "--rm", archives["musl"], "cat", "/proc/self/maps")
    assert "-linux-musl/libc.so" in maps
    assert "libc.so.6" not in maps
    glibc = tarbox("run", "--rm", "-v", "/bin/true:/true", archives["musl"], "/true")
    assert glibc.returncode == 127
    assert "it needs another C library, glibc, than the image has: there is no /lib" in glibc.stderr
    told = tarbox.output("run", "--rm", archives["rpm"], "sh", "-c", "echo $BASH_VERSION; ls /var/lib/dpkg 2>&1; true")
    assert "No such file" in told
    assert told.split()[0] != "ls:"


def test_a_shell_runs_and_its_code_comes_back(tarbox, archive):
    done = tarbox(
        "run", "--rm", archive, "sh", "-c", "echo $((6 * 7)) $HOME $PATH; cat | tr a-z A-Z; exit 7", input="x"
    )
    assert (done.returncode, done.stdout.split()[:2]) == (7, ["42", "/root"])
    assert tarbox("run", "--rm", "-i", archive, "cat", input="through\n").stdout == "through\n"
    assert tarbox("run", "--rm", archive, "nosuch").returncode == 127
    assert tarbox("run", "--rm", archive, "/etc/passwd").returncode == 126


def test_users_are_looked_up(tarbox, archive):
    """By tarbox, and by the image's own C library from the same files."""
    said = ask(
        tarbox, "-u", "app", archive,
        ids="echo $(id -u) $(id -g)", groups="grep Groups /proc/self/status", name="id -un", home="echo $HOME",
    )  # fmt: skip
    assert said == {"ids": "1000 1001", "groups": "Groups:\t1001 1002", "name": "app", "home": "/srv"}
    assert tarbox.output("run", "--rm", "-u", "1000:1002", archive, "id", "-g") == "1002\n"
    done = tarbox("run", "--rm", "-u", "nobody", archive, "id")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "unable to find user nobody" in done.stderr


def test_the_package_database_is_whole(tarbox, archive, kind):
    assert set(tarbox.output("run", "--rm", archive, "sh", "-c", LIST[kind]).split()) == PACKAGES[kind]
    if kind == "rpm":
        verified = tarbox("run", "--rm", archive, "rpm", "--verify", "--all")
        assert (verified.returncode, verified.stdout) == (0, ""), "each file is what its package says"
        assert tarbox.output("run", "--rm", archive, "rpm", "-qf", "/bin/bash").startswith("bash-1-1")
        broken = "echo >> /bin/busybox; rpm -V busybox"
        assert "5" in tarbox("run", "--rm", archive, "sh", "-c", broken).stdout.split()[0]


def test_a_package_is_installed_and_gone_with_the_container(tarbox, archive, kind, tmp_path):
    package = {"musl": other_roots.extra_deb, "rpm": other_roots.extra_rpm}[kind](tmp_path)
    install = {"musl": "dpkg -i", "rpm": "rpm -i --force-debian"}[kind]
    script = f"{install} /{package.name} >&2; extra; {LIST[kind]}"
    done = tarbox("run", "--rm", "-v", f"{package}:/{package.name}:ro", archive, "sh", "-c", script)
    assert set(done.stdout.split()) == PACKAGES[kind] | {"extra"}, done.stderr
    assert tarbox("run", "--rm", archive, "extra").returncode == 127


def test_limits_hold(tarbox, archive):
    done = tarbox("run", "--rm", "-m", "20m", "--memory-swap", "20m", archive, "dd", "if=/dev/zero", "of=/dev/null",
                  "bs=64M", "count=1")  # fmt: skip
    assert done.returncode == 137
    assert "memory limit of 20 MiB" in done.stderr
    said = ask(
        tarbox, "--pids-limit", "9", "--cpuset-cpus", "0", archive,
        many="for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait", processors="nproc",
    )  # fmt: skip
    assert "fork" in said["many"] or "Resource temporarily unavailable" in said["many"]
    assert said["processors"] == "1"


def test_init_and_signals(tarbox, archive):
    script = "echo ready; sleep 1000; echo never"
    for options, trap, code in (((), "trap 'exit 9' TERM; ", 9), (("--init",), "", 143)):
        wait = "while :; do sleep 0.1; done" if trap else script.partition("; ")[2]
        started = tarbox.start("run", "--rm", *options, archive, "sh", "-c", f"{trap}echo ready; {wait}")
        try:
            assert started.stdout.readline() == b"ready\n", started.stderr.read()
            started.send_signal(signal.SIGTERM)
            assert started.wait(20) == code
        finally:
            started.communicate()
    said = ask(tarbox, "--init", archive, first="cat /proc/1/comm", alive="kill -KILL 1; sleep 0.2; echo alive")
    assert said["first"] != "sh"
    assert said["alive"] == "alive"
    assert tarbox("run", "--rm", archive, "sh", "-c", "kill -KILL $$; exit 4").returncode == 4


def test_a_directory_is_written_to(tarbox, unpacked):
    tarbox.output("run", "--rm", unpacked, "sh", "-c", "echo new > /srv/new; chown app:app /srv/new")
    assert (unpacked / "srv/new").stat().st_uid == 1000
    assert tarbox("run", "--rm", "--read-only", unpacked, "touch", "/srv/more").returncode == 1


def test_a_plain_user_runs_it(plain_tarbox, archive):
    """Found where every user may read."""
    copy = plain_tarbox.folder / archive.name
    shutil.copy(archive, copy)
    os.chmod(copy, 0o644)
    assert plain_tarbox.output("run", "--rm", copy, "sh", "-c", "echo $(id -u) $(id -un)") == "0 root\n"
