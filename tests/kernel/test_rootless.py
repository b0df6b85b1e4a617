"""The same command for a plain user: no privilege, no set-uid helper, one id. Root inside is that user outside."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

import roots
import testhost
from inside import ask


@pytest.fixture
def image(plain_folder):
    """A directory that belongs to the user."""
    root = roots.busybox(plain_folder / "image")
    owner = os.stat(plain_folder).st_uid
    subprocess.run(["chown", "-R", f"{owner}:{owner}", root], check=True)
    return root


def test_root_inside_is_the_caller_outside(plain_tarbox, image):
    """Written-through files belong to the caller; privileges are those of a user namespace and reach nothing else."""
    user = plain_tarbox.user
    said = ask(
        plain_tarbox, image,
        id="id -u; id -g",
        maps="cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups",
        write="echo mine >/written; mkdir /made; chown 0:0 /written",
        chown="chown 1 /written",
        namespaces="for n in cgroup ipc mnt net pid user uts; do readlink /proc/1/ns/$n; done",
        hostname="hostname",
        lo="ping -c 1 -W 2 127.0.0.1 | grep received",
        masked="stat -c %t:%T /proc/keys /proc/timer_list",
        sysctl="echo 1 >/proc/sys/kernel/panic",
        devices="echo x >/dev/null; head -c 2 /dev/zero | wc -c; stat -c %a /dev/null; chmod 600 /dev/null",
        filter="grep ^Seccomp: /proc/1/status",
        shm="df -k /dev/shm | tail -1",
    )  # fmt: skip
    assert said["id"].split() == ["0", "0"]
    assert said["maps"].split() == ["0", str(user), "1", "0", str(user), "1", "deny"]
    assert said["write"] == ""
    assert os.stat(image / "written").st_uid == os.stat(image / "made").st_gid == user
    assert "Invalid argument" in said["chown"]
    for line in said["namespaces"].split():
        kind, number = re.match(r"(\w+):\[(\d+)\]", line).groups()
        assert os.readlink(f"/proc/self/ns/{kind}") != f"{kind}:[{number}]"
    assert re.fullmatch("[0-9a-f]{12}", said["hostname"])
    assert "1 packets received" in said["lo"]
    assert set(said["masked"].split()) == {"1:3"}
    assert "Read-only file system" in said["sysctl"]
    assert said["devices"].startswith("2\n666\nchmod:")
    assert said["filter"].split()[1] == "2"
    assert "65536" in said["shm"]


def test_the_usual_options_work(plain_tarbox, image, plain_folder):
    """-v, -w, -e, -h, --tmpfs, --read-only, --cap-drop, --init, -t, --ulimit, a throw-away root, one in memory."""
    said = ask(
        plain_tarbox, "-v", "./shared:/shared", "-v", f"{image}/etc:/ro:ro", "-w", "/place/here", "-e", "A=b",
        "-h", "box", "--tmpfs", "/t:size=1m", "--cap-drop", "ALL", "--ulimit", "nofile=64", f"{image}:O",
        shared="echo x >/shared/file", ro="touch /ro/x", cwd="pwd", env="echo $A; hostname", tmpfs="df -k /t | tail -1",
        caps="grep CapEff /proc/self/status", files="ulimit -n",
        discarded="touch /gone && rm -r /etc/group && echo done",
    )  # fmt: skip
    assert os.stat(plain_folder / "shared/file").st_uid == plain_tarbox.user
    assert "Read-only file system" in said["ro"]
    assert said["cwd"] == "/place/here"
    assert said["env"].split() == ["b", "box"]
    assert " 1024 " in said["tmpfs"]
    assert int(said["caps"].split()[1], 16) == 0
    assert said["files"] == "64"
    assert said["discarded"] == "done"
    assert not (image / "gone").exists()
    assert (image / "etc/group").exists()
    done = plain_tarbox("run", "--read-only", "--init", "-t", "--root-tmpfs", "1m", image, "sh", "-c", "tty; touch /x")
    assert "/dev/pts/0" in done.stdout
    assert "Read-only file system" in done.stdout
    done = plain_tarbox("run", "--root-tmpfs", "1m", image, "dd", "if=/dev/zero", "of=/x", "bs=1M", "count=2")
    assert "No space left on device" in done.stderr
    assert not (image / "x").exists()


@pytest.mark.parametrize(("propagation", "arrives"), [("rprivate", "0"), ("rslave", "1"), ("rshared", "1")])
def test_mounts_of_the_host_arrive_where_they_are_wanted(plain_tarbox, image, plain_folder, propagation, arrives):
    """As for root; nothing that is mounted inside gets out."""
    source = plain_folder / "source"
    (source / "late").mkdir(parents=True)
    testhost.mount("source", str(source), "tmpfs", 0)
    try:
        testhost.mount("none", str(source), None, 1 << 20)  # MS_SHARED
        (source / "late").mkdir()
        (source / "out").mkdir()
        script = "echo on; read go; grep -c ' /s/late ' /proc/self/mountinfo;"
        script += " mount -t tmpfs x /s/out && echo mounted; read go"
        options = ("-i", "--privileged", "-v", f"{source}:/s:{propagation}", f"{image}:O")
        started = plain_tarbox.start("run", *options, "sh", "-c", script)
        assert started.stdout.readline() == b"on\n"
        testhost.mount("late", str(source / "late"), "tmpfs", 0)
        started.stdin.write(b"\n")
        started.stdin.flush()
        assert [started.stdout.readline().decode().strip() for _ in range(2)] == [arrives, "mounted"]
        assert f"{source}/out" not in testhost.mounts().values()
        started.communicate(b"\n", timeout=20)
        assert started.returncode == 0
    finally:
        subprocess.run(["umount", "-R", source], check=True)


def test_the_machines_programs_and_network(plain_tarbox):
    """`host`, and --net host; what the user may not read outside isn't readable inside."""
    said = ask(
        plain_tarbox, "host",
        id="id -u", shadow="cat /etc/shadow",
        write="touch /tmp/new /srv/new && echo done", python="python3 -c 'print(42)'",
        homes="ls -A /root /home",
    )  # fmt: skip
    assert (said["id"], said["write"], said["python"]) == ("0", "done", "42")
    assert "Permission denied" in said["shadow"] or "No such file" in said["shadow"]
    assert set(said["homes"].split()) == {"/root:", "/home:"}
    said = ask(
        plain_tarbox, "--net", "host", "host", net="readlink /proc/self/ns/net", names="cut -d: -f1 /proc/net/dev"
    )
    assert said["net"] == os.readlink("/proc/self/ns/net")
    assert said["names"].split()[-1] == "lo"


def test_limits_are_told_in_one_line_and_left_out(plain_tarbox, image):
    """Where no cgroup is the user's; the container runs all the same."""
    done = plain_tarbox("run", "-m", "20m", "--cpus", "0.5", "--pids-limit", "10", image, "echo", "runs")
    assert (done.returncode, done.stdout) == (0, "runs\n")
    if done.stderr:  # with a delegated cgroup of version 2 there is nothing to tell
        assert re.fullmatch(
            r"tarbox: no cgroup may be made here, so these limits are ignored: memory, cpu, pids .*\n", done.stderr
        )
    assert plain_tarbox("run", image, "true").stderr == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-u", "1000"), "--user 1000: a container of a plain user has one id, 0"),
        (("-u", "guest"), "--user guest: a container of a plain user has one id, 0"),
        (("--group-add", "audio"), "--group-add audio: a container of a plain user has one group"),
    ],
)
def test_other_ids_are_refused(plain_tarbox, image, options, said):
    """There is one, and it is 0."""
    done = plain_tarbox("run", *options, image, "true")
    assert done.returncode == 125
    assert done.stderr.startswith(f"tarbox: {said}")
    assert done.stderr.count("\n") == 1
    assert plain_tarbox("run", "-u", "0", image, "true").returncode == 0


def test_no_program_of_the_hosts_is_called(plain_tarbox, image, tmp_path):
    """Neither newuidmap nor anything else: nothing is executed but tarbox's runner and the container's program."""
    log = plain_tarbox.folder / "log"
    inner = plain_tarbox.command("run", image, "true")
    at = inner.index("--") + 1
    traced = [*inner[:at], "strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", str(log), *inner[at:]]
    done = subprocess.run(
        traced, env=plain_tarbox.environment(), cwd=plain_tarbox.folder, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    started = re.findall(r'execve(?:at)?\((?:\d+, )?"([^"]*)"', log.read_text())
    tried = [name for name in started[1:] if not name.endswith("/true")]
    assert tried == [""], started  # the runner, and then the places where the program may be, one of which is it


def test_nothing_is_left(plain_tarbox, image):
    """In the data root and in the state folder, after containers that ended, failed and were killed."""
    plain_tarbox("run", f"{image}:O", "sh", "-c", "mkdir -p /a/b; chmod 0 /a/b /a")
    plain_tarbox("run", f"{image}:O", "nope")
    plain_tarbox("run", "host", "sh", "-c", "exit 3")
    plain_tarbox("run", "--timeout", "0.2s", f"{image}:O", "sleep", "9")
    files = [path for folder in (plain_tarbox.root, plain_tarbox.run_folder) for path in Path(folder).rglob("*")]
    assert {path.name for path in files if path.is_file()} <= {
        path.name for path in (plain_tarbox.root / "cache").iterdir()
    }
    assert not list((plain_tarbox.root / "scratch").iterdir())
    (state,) = (plain_tarbox.run_folder / "tarbox").iterdir()
    assert [path.name for path in state.iterdir()] == ["journals"]


def test_a_machine_without_user_namespaces_says_so(plain_tarbox, image):
    """One line that names the setting."""
    # In a user namespace whose own limit of them is 0; the machine's stays as it is.
    holder = subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE)
    while os.readlink(f"/proc/{holder.pid}/ns/user") == os.readlink("/proc/self/ns/user"):
        time.sleep(0.01)
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{holder.pid}/{kind}").write_text("0 0 65536")
    limited = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        [
            *f"nsenter --user --target={holder.pid} sh -c".split(), limited, "sh",
            *plain_tarbox.command("run", image, "true"),
        ],
        env=plain_tarbox.environment(), cwd=plain_tarbox.folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    holder.communicate()
    assert done.returncode == 125
    assert re.fullmatch(r"tarbox: .*user_namespaces.*\n", done.stderr), done.stderr


def test_files_of_a_foreign_group_are_explained(plain_tarbox, image):
    """Overlay can't copy what belongs to an id that the container doesn't have."""
    os.chown(image / "etc", plain_tarbox.user, 1)
    done = plain_tarbox("run", f"{image}:O", "true")
    assert done.returncode == 125
    assert re.fullmatch(r"tarbox: .*/etc/hosts.*\(.* belongs to a user or group that .*\)\n", done.stderr), done.stderr
