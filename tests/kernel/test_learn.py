"""--learn: the profile that a run writes is enough for the same run, and for no other."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time

import pytest

import roots
import testhost

pytestmark = pytest.mark.unhurried

PROGRAM = """
import os, signal, socket, subprocess, sys, threading, time

def serve(listening):
    connection, _ = listening.accept()
    connection.sendall(b"x")
    connection.close()

listening = socket.create_server(("127.0.0.1", 80))
threads = [threading.Thread(target=serve, args=(listening,)) for _ in range(4)]
for thread in threads:
    thread.start()
got = b"".join(socket.create_connection(("127.0.0.1", 80)).recv(1) for _ in threads)
for thread in threads:
    thread.join()
said = subprocess.run(["/bin/echo", "sub"], capture_output=True, check=True).stdout
ticks = 0
def tick(*_):
    global ticks
    ticks += 1
signal.signal(signal.SIGALRM, tick)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
while ticks < 100:
    with open("/etc/passwd") as file:
        file.read()
signal.setitimer(signal.ITIMER_REAL, 0)
if len(sys.argv) > 1:
    os.mkdir("/tmp/d")
print(got.decode(), said.decode().strip())
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def learn(tarbox, *words, name="p.json", code=0, **options):
    """Learn from a run; the profile, and what was said."""
    done = tarbox("run", "--learn", name, *words, **options)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads((tarbox.folder / name).read_text()), done


def learned(tarbox, *words, name="p.json", **options):
    """Run with what was learned, and with nothing else."""
    capabilities = json.loads((tarbox.folder / name).read_text())["x-tarbox"]["capabilities"]
    added = [word for capability in capabilities for word in ("--cap-add", capability)]
    return tarbox("run", "--security-opt", f"seccomp={name}", "--cap-drop", "ALL", *added, *words, **options)


def calls(profile):
    return {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_a_program_gets_what_it_used_and_nothing_else(tarbox, image):
    profile, done = learn(tarbox, image, "true")
    assert {"execve", "exit_group"} <= calls(profile)
    assert not {"mkdir", "socket", "fork", "clone"} & calls(profile)
    assert profile["x-tarbox"] == {
        "runs": 1, "capabilities": [], "capabilitiesSeenBy": profile["x-tarbox"]["capabilitiesSeenBy"], "refused": [],
    }  # fmt: skip
    assert "tarbox run --security-opt seccomp=p.json --cap-drop ALL" in done.stderr
    assert learned(tarbox, image, "true").returncode == 0
    other = learned(tarbox, image, "mkdir", "/tmp/d")
    assert other.returncode == 1
    assert "Operation not permitted" in other.stderr


def test_a_script_with_pipes_and_files(tarbox, image):
    script = "ls / | grep -c bin; mkdir /tmp/d && cd /tmp/d && (echo a; echo b) | sort -r > f; cat f; rm f; sleep 0.1"
    _, done = learn(tarbox, image, "sh", "-c", script)
    again = learned(tarbox, image, "sh", "-c", script)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "b\na\n" in done.stdout


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["alone", "init"])
def test_threads_sockets_signals_and_children(tarbox, tmp_path, init):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = (*init, "-v", f"{tmp_path}/program.py:/program.py:ro", "host", "python3", "/program.py")
    profile, done = learn(tarbox, *words)
    assert done.stdout == "xxxx sub\n"
    again = learned(tarbox, *words)
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert "PermissionError" in learned(tarbox, *words, "more").stderr
    # Rules for arguments stay rules for arguments.
    rules = [rule for rule in profile["syscalls"] if "clone" in rule["names"] and "args" in rule]
    assert [rule["excludes"] for rule in rules] == [{"caps": ["CAP_SYS_ADMIN"]}]
    vsock = "import socket; socket.socket(40, socket.SOCK_STREAM)"
    assert "PermissionError" in learned(tarbox, "host", "python3", "-c", vsock).stderr


def test_a_terminal(tarbox, image):
    script = "tty; stty size; ls -l /"
    for run in (("--learn", "p.json"), ("--security-opt", "seccomp=p.json", "--cap-drop", "ALL")):
        command = tarbox.command("run", "-it", *run, image, "sh", "-c", script)
        shown = subprocess.run(
            ["script", "-qec", " ".join(f"'{word}'" for word in command), "/dev/null"],
            env=tarbox.environment(), cwd=tarbox.folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stdout
        assert b"/dev/pts/0" in shown.stdout


def test_what_is_refused_is_told_and_not_allowed(tarbox, image):
    profile, done = learn(tarbox, image, "sh", "-c", "unshare -m true; hostname x; true")
    assert {(entry["call"], entry["needs"]) for entry in profile["x-tarbox"]["refused"]} == {
        ("unshare", "CAP_SYS_ADMIN"), ("sethostname", "CAP_SYS_ADMIN"),
    }  # fmt: skip
    assert "refused: sethostname (needs CAP_SYS_ADMIN), unshare (needs CAP_SYS_ADMIN)" in done.stderr
    assert not {"unshare", "sethostname"} & calls(profile)


def test_the_verdicts_are_those_of_the_filter(tarbox, image):
    """While learning as well: the run is no wider than without."""
    script = "unshare -m true; mount -t tmpfs x /mnt; mkdir /tmp/d; chown 5 /tmp/d; ls -dn /tmp/d | cut -c1-20; true"
    plain = tarbox("run", image, "sh", "-c", script)
    _, done = learn(tarbox, image, "sh", "-c", script)
    assert done.stdout == plain.stdout
    assert done.stderr.startswith(plain.stderr)
    assert "not permitted" in plain.stderr


def test_the_capabilities_that_were_used(tarbox, image):
    script = "touch /tmp/f && chown 5:5 /tmp/f && chroot / true"
    profile, done = learn(tarbox, image, "sh", "-c", script)
    if profile["x-tarbox"]["capabilitiesSeenBy"] == "kernel":
        assert profile["x-tarbox"]["capabilities"] == ["CAP_CHOWN", "CAP_SYS_CHROOT"]
    assert "CAP_MKNOD" not in profile["x-tarbox"]["capabilities"]
    assert {"CAP_CHOWN", "CAP_SYS_CHROOT"} <= set(profile["x-tarbox"]["capabilities"])
    assert "--cap-add CHOWN" in done.stderr
    assert learned(tarbox, image, "sh", "-c", script).returncode == 0


def test_what_lacked_a_capability_is_told(tarbox, image):
    words = (
        "--cap-drop",
        "ALL",
        image,
        "sh",
        "-c",
        "touch /tmp/f; chown 5:5 /tmp/f; mknod /tmp/n c 1 3; chroot / true",
    )
    profile, done = learn(tarbox, *words, code=1)
    assert profile["x-tarbox"]["capabilities"] == []
    for told in ("chown (needs CAP_CHOWN)", "chroot (needs CAP_SYS_CHROOT)"):
        assert told in done.stderr.replace("lchown", "chown").replace("fchownat", "chown")


def test_an_older_kernel_is_asked_by_its_calls(tarbox, image, tmp_path):
    """Without the tracepoint nothing that may have been needed is left out."""
    script = "touch /tmp/f && chown 5:5 /tmp/f"
    done = patched(
        tarbox, "t.Counters = lambda *_: open('/nowhere')", "run", "--learn", "p.json", image, "sh", "-c", script
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((tarbox.folder / "p.json").read_text())["x-tarbox"]
    assert kept["capabilitiesSeenBy"] == "calls"
    assert "CAP_CHOWN" in kept["capabilities"]
    assert not {"CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_NET_RAW"} & set(kept["capabilities"])
    assert learned(tarbox, image, "sh", "-c", script).returncode == 0


@pytest.mark.parametrize("first", [(), ("--security-opt", "no-new-privileges")], ids=["first", "last"])
def test_the_order_of_the_filter_doesn_t_matter(tarbox, image, first):
    """With no-new-privileges it is loaded last, without it has to allow what tarbox calls after it."""
    learn(tarbox, *first, image, "true")
    assert learned(tarbox, image, "true").returncode == 0
    assert learned(tarbox, "--security-opt", "no-new-privileges", image, "true").returncode == 0
    assert learned(tarbox, "-u", "5:5", image, "true").returncode == 0


def test_without_a_filter_everything_that_was_used_is_allowed(tarbox, image):
    unconfined = ("--security-opt", "seccomp=unconfined")
    profile, _ = learn(tarbox, *unconfined, "--cap-add", "SYS_ADMIN", image, "unshare", "-m", "true")
    assert "unshare" in calls(profile)
    words = ("--security-opt", "seccomp=p.json", "--cap-drop", "ALL", "--cap-add", "SYS_ADMIN")
    assert tarbox("run", *words, image, "unshare", "-m", "true").returncode == 0


def test_several_runs_make_one_profile(tarbox, image):
    learn(tarbox, image, "true")
    profile, done = learn(tarbox, image, "mkdir", "/tmp/d")
    assert profile["x-tarbox"]["runs"] == 2
    assert "in 2 runs" in done.stderr
    assert learned(tarbox, image, "mkdir", "/tmp/d").returncode == 0
    assert learned(tarbox, image, "true").returncode == 0


def test_two_runs_at_once_lose_nothing(tarbox, image):
    running = [
        tarbox.start("run", "--learn", "p.json", image, "sh", "-c", f"sleep 1; {command}")
        for command in ("mkdir /tmp/d", "ln -s a /tmp/l", "uname", "sync")
    ]
    for process in running:
        assert process.wait(60) == 0
        process.communicate()
    profile = json.loads((tarbox.folder / "p.json").read_text())
    assert {"mkdir", "symlink", "sync"} <= calls(profile)
    assert profile["x-tarbox"]["runs"] == 4


def test_nothing_else_is_written_over(tarbox, image):
    for text in ("precious", '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}', "[]"):
        (tarbox.folder / "p.json").write_text(text)
        done = tarbox("run", "--learn", "p.json", image, "echo", "ran")
        assert (done.returncode, done.stdout) == (125, "")
        assert "something else is there" in done.stderr
        assert (tarbox.folder / "p.json").read_text() == text


def test_a_place_that_can_t_be_written_is_told_before_the_run(tarbox, plain_tarbox, image, tmp_path):
    for runs, path in ((tarbox, "nowhere/p.json"), (tarbox, "/tmp"), (plain_tarbox, "/p.json")):
        done = runs("run", "--learn", path, "host", "echo", "ran")
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith(f"tarbox: --learn {path if path[0] == '/' else ''}")


def test_a_program_that_doesn_t_start_leaves_no_profile(tarbox, image):
    assert tarbox("run", "--learn", "p.json", image, "nothere").returncode == 127
    assert not (tarbox.folder / "p.json").exists()


def test_the_exit_code_is_the_programs(tarbox, image):
    learn(tarbox, image, "sh", "-c", "exit 7", code=7)
    learn(tarbox, "--init", image, "sh", "-c", "kill -9 $$", code=137)


def test_the_file_is_the_callers(plain_tarbox, plain_folder):
    learn(plain_tarbox, "host", "true")
    status = (plain_folder / "p.json").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o644, plain_tarbox.user)
    assert os.listdir(plain_folder).count("p.json") == 1
    assert not [name for name in os.listdir(plain_folder) if name.startswith(".p.json")]


def test_a_plain_users_profile(plain_tarbox, plain_folder):
    profile, _ = learn(plain_tarbox, "host", "sh", "-c", "touch /tmp/f; chmod 600 /tmp/f; echo x > /tmp/f; ls /")
    assert profile["x-tarbox"]["capabilities"] == []
    assert learned(plain_tarbox, "host", "sh", "-c", "touch /tmp/f; chmod 600 /tmp/f; ls /").returncode == 0
    assert "not permitted" in learned(plain_tarbox, "host", "mkdir", "/tmp/d").stderr
    script = "touch /tmp/f; chmod 0 /tmp/f; echo x > /tmp/f"
    profile, _ = learn(plain_tarbox, "host", "sh", "-c", script)
    assert profile["x-tarbox"]["capabilities"] == ["CAP_DAC_OVERRIDE"]
    assert learned(plain_tarbox, "host", "sh", "-c", script).returncode == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="i386 is x86-64's")
def test_programs_of_32_bits(tarbox, image, tmp_path):
    (tmp_path / "program.S").write_text(
        ".globl _start\n_start: mov $39,%eax; mov $path,%ebx; mov $0755,%ecx; int $0x80\n"
        'neg %eax; mov %eax,%ebx; mov $1,%eax; int $0x80\npath: .asciz "/tmp/d"\n'
    )
    made = tmp_path / "program"
    subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-o", made, tmp_path / "program.S"], check=True)
    words = ("-v", f"{made}:/program:ro", image, "/program")
    profile, _ = learn(tarbox, *words)
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert learned(tarbox, *words).returncode == 0
    learn(tarbox, image, "true", name="other.json")
    assert learned(tarbox, *words, name="other.json").returncode == 128 + signal.SIGSYS


BUSY = "while :; do ls / >/dev/null; done"


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["alone", "init"])
def test_a_killed_command_leaves_nothing_that_waits(tarbox, image, init):
    """Neither a process (the fixtures look) nor a profile."""
    process = tarbox.start("run", *init, "--learn", "p.json", image, "sh", "-c", f"echo up; {BUSY}")
    assert process.stdout.readline() == b"up\n"
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while BUSY.encode() in subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout:
        assert time.monotonic() < end, "the container outlived the command"
        time.sleep(0.1)
    assert not (tarbox.folder / "p.json").exists()
    tarbox.output("run", image, "true")  # finishes the clean-up


def patched(tarbox, statement, *words):
    """Run a tarbox in which a statement was carried out before: `l` is engine.learning, `t` the counters."""
    source = testhost.CHECKOUT / "src"
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r})\n"
        "import tarbox.engine.learning as l, tarbox.kernel.capability_trace as t\n"
        f"{statement}\nfrom tarbox.cli.main import main\ncode = main(sys.argv[1:])\n"
        "sys.stdout.flush(); import os; os._exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, "--root", str(tarbox.root), *map(str, words)],
        env=tarbox.environment(), cwd=tarbox.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "l.Learning._decide = None",
        "l.notify.serve = lambda listener, *_: None",
        "l.notify.serve = lambda *_: exec('raise OSError(5, \"no\")')",
    ],
    ids=["no verdict", "gone", "no answer"],
)
def test_a_container_without_answers_ends(tarbox, image, statement):
    started = time.monotonic()
    done = patched(tarbox, statement, "run", "--learn", "p.json", image, "sh", "-c", BUSY)
    assert done.returncode not in (0, 124)
    assert time.monotonic() - started < 40
    assert not (tarbox.folder / "p.json").exists()


def test_a_program_that_notices_nothing_is_ended_as_well(tarbox, image):
    """Once nobody answers, every call fails; some programs go on all the same."""
    statement = (
        "judge = l.Learning._judge\n"
        "def broken(self, key, data, architecture, name):\n"
        "    assert name != 'getppid'\n"
        "    return judge(self, key, data, architecture, name)\n"
        "l.Learning._judge = broken"
    )
    program = "import os\nwhile True: os.getppid()"
    done = patched(tarbox, statement, "run", "--learn", "p.json", "host", "python3", "-c", program)
    assert done.returncode == 125
    assert "so the container was killed" in done.stderr
    assert not (tarbox.folder / "p.json").exists()


def test_processes_may_die_while_they_wait(tarbox, image, tmp_path):
    (tmp_path / "program.py").write_text(
        "import os, random, signal\n"
        "for _ in range(60):\n"
        "    children = []\n"
        "    for _ in range(3):\n"
        "        if not (pid := os.fork()):\n"
        "            while True:\n"
        "                os.getppid(); os.close(os.open('/', 0))\n"
        "        children.append(pid)\n"
        "    for pid in children:\n"
        "        os.kill(pid, signal.SIGKILL)\n"
        "        os.waitpid(pid, 0)\n"
        "print('done')\n"
    )
    words = ("-v", f"{tmp_path}/program.py:/program.py:ro", "host", "python3", "/program.py")
    _, done = learn(tarbox, *words)
    assert done.stdout == "done\n"
    assert learned(tarbox, *words).stdout == "done\n"


def test_a_frozen_or_timed_out_container_is_learned_from(tarbox, image):
    profile, _ = learn(tarbox, "--timeout", "2s", image, "sleep", "600", code=137)
    assert {"nanosleep", "clock_nanosleep"} & calls(profile)


def test_it_is_told_but_not_made(tarbox, image):
    told = tarbox.output("explain", "run", "--learn", "p.json", image, "true")
    assert "NEW_LISTENER" in told
    assert not (tarbox.folder / "p.json").exists()
    shutil.rmtree(tarbox.root, ignore_errors=True)
