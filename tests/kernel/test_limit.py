"""`tarbox limit`: plain commands and processes with limits, and groups that last."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

import testhost
from kernel.test_session_terminal import Terminal

NO_TRACE = (0, "", "")


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def groups_of(name):
    """The folders of a group by that name in all trees."""
    return [path for path in testhost.cgroups() if os.path.basename(path) == name]


@pytest.fixture
def group(tarbox):
    """The name of a lasting group, which is removed afterwards, whatever is in it."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    tarbox("limit", "rm", "--force", name)
    assert not groups_of(f"tarbox-limit-{name}")


def listed(tarbox, group):
    """What `limit ls` says of the group; there may be others, of other people."""
    (found,) = (entry for entry in json.loads(tarbox.output("limit", "ls", "--json")) if entry["name"] == group)
    return found


# --- One command ---


def test_a_commands_exit_code_output_and_input_are_its_own(tarbox):
    done = tarbox("limit", "-m", "64m", "--", "sh", "-c", "cat; echo no >&2; exit 7", input="yes\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "yes\n", "no\n")
    assert tarbox("limit", "--", "sh", "-c", "kill -15 $$").returncode == 128 + 15
    assert tarbox("limit", "--pids-limit", "5", "true").returncode == 0, "the two hyphens may be left out"


def test_it_is_no_container(tarbox):
    """The same files, processes, network and user; only the group is another."""
    inside = tarbox.output("limit", "-m", "64m", "--", "sh", "-c", "readlink /proc/self/ns/*; id; pwd; echo $HOME")
    mine = ["sh", "-c", "readlink /proc/self/ns/*; id; pwd; echo $HOME"]
    outside = subprocess.check_output(mine, text=True, cwd=tarbox.folder, env=tarbox.environment())
    assert inside == outside
    found = tarbox.output("limit", "-m", "64m", "--", "cat", "/proc/self/cgroup")
    assert re.search(r"^\d+:.*:/.*tarbox-[0-9a-f]{64}$", found, re.MULTILINE)


def test_too_much_memory_ends_it_and_it_is_said(tarbox):
    done = tarbox(
        "limit", "-m", "5m", "--memory-swap", "5m", "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=20M", "count=1"
    )
    assert done.returncode == 137
    assert done.stderr == (
        "tarbox: the command reached its memory limit of 5 MiB: the kernel killed a process (raise it with -m)\n"
    )


def test_processor_time_is_bounded(tarbox):
    output = tarbox.output(
        "limit", "--cpus", "0.2", "--", "bash", "-c", "timeout 1.5 sh -c 'while :; do :; done'; times"
    )
    minutes, seconds = re.findall(r"(\d+)m([\d.]+)s", output.splitlines()[-1])[0]
    assert 0 < int(minutes) * 60 + float(seconds) < 0.7, "a fifth of a second and a half, and what starting costs"


def test_processes_are_bounded(tarbox):
    script = "for one in 1 2 3 4 5 6 7 8; do sleep 60 >/dev/null 2>&1 & done; echo all"
    done = tarbox("limit", "--pids-limit", "5", "--", "sh", "-c", script)
    assert done.returncode != 0
    assert "all" not in done.stdout


def test_what_it_leaves_running_ends_with_it(tarbox):
    output = tarbox.output("limit", "-m", "64m", "--", "sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!")
    until(lambda: not os.path.exists(f"/proc/{output.strip()}/ns/pid"))


def test_limits_of_each_process_and_the_oom_score_are_set(tarbox):
    script = "ulimit -n; cat /proc/self/oom_score_adj"
    assert (
        tarbox.output("limit", "--ulimit", "nofile=50", "--oom-score-adj", "500", "--", "sh", "-c", script)
        == "50\n500\n"
    )


def test_an_oom_score_that_cant_be_lowered_is_told_and_the_command_runs(tarbox):
    """Without CAP_SYS_RESOURCE; where tarbox has it the score is simply set."""
    done = tarbox("limit", "--oom-score-adj", "-500", "--", "cat", "/proc/self/oom_score_adj")
    assert done.returncode == 0
    if done.stdout != "-500\n":
        assert re.fullmatch(
            r"tarbox: the OOM score can't be lowered to -500 here, so it stays at -?\d+ \(.*\)\n", done.stderr
        )


def test_signals_reach_the_command(tarbox):
    script = "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    process = tarbox.start("limit", "-m", "64m", "--", "sh", "-c", script)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=30) == (b"got it\n", b"")
    assert process.returncode == 9
    process = tarbox.start("limit", "--", "sleep", "60")
    until(lambda: Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip())
    process.terminate()  # perhaps before the command is executed
    process.communicate(timeout=30)
    assert process.returncode == 128 + 15


def test_a_key_of_the_terminal_reaches_the_command_once(tarbox):
    """The command is in the foreground itself; handing ^C on would interrupt it twice."""
    script = "trap 'echo INT' INT; echo ready; sleep 0.4; sleep 0.4; sleep 0.4; exit 3"
    keys, side = os.openpty()
    try:
        process = subprocess.Popen(
            tarbox.command("limit", "-m", "64m", "--", "bash", "-c", script),
            stdin=side, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=tarbox.environment(), cwd=tarbox.folder,
            preexec_fn=lambda: (os.setsid(), __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0)),
        )  # fmt: skip
        assert process.stdout.readline() == b"ready\n"
        os.write(keys, b"\x03")
        output, _ = process.communicate(timeout=30)
    finally:
        os.close(keys)
        os.close(side)
    assert (process.returncode, output) == (3, b"INT\n")


def test_a_stopped_command_stops_tarbox_too_and_both_go_on(tarbox):
    # In a process group that isn't orphaned: else nobody could let it go on, and the kernel doesn't stop it.
    words = ("limit", "--", "sh", "-c", "echo $$; kill -TSTP $$; echo on; exit 4")
    process = tarbox.start(*words, process_group=0)
    child = int(process.stdout.readline())

    def state(pid):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    until(lambda: state(child) == "T" and state(process.pid) == "T")
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=30) == (b"on\n", b"")
    assert process.returncode == 4


def test_the_jobs_of_a_shell_stop_and_go_on(tarbox):
    """^Z, fg and ^C, as for any command."""
    terminal = Terminal("dash", "-i")
    try:
        terminal.expect("ready> ")
        # It starts no program: a shell that is about to, with vfork, can't be stopped until that runs.
        script = "trap 'echo go''ing on' CONT; echo st''arted; while :; do read line; done"
        command = shlex.join(tarbox.command("limit", "-m", "64m", "--", "sh", "-c", script))
        terminal.type(f"{command}\n")
        terminal.expect("started")
        terminal.type("\x1a")
        terminal.expect("ready> ")
        terminal.type("jobs\n")
        terminal.expect("Stopped")
        terminal.expect("ready> ")
        terminal.type("fg\n")
        terminal.expect("going on")
        terminal.type("\x03")
        terminal.expect("ready> ")
        terminal.type("echo code $?\n")
        terminal.expect("code 130")
        terminal.type("exit\n")
        terminal.wait()
    finally:
        terminal.close()


def test_a_killed_commands_group_goes_with_the_next_command(tarbox):
    process = tarbox.start("limit", "-m", "64m", "--", "sh", "-c", "sleep 600 >&- 2>&- & echo $$ $!; wait")
    shell, child = map(int, process.stdout.readline().split())
    (name,) = {
        line.rpartition("/")[2] for line in Path(f"/proc/{child}/cgroup").read_text().split() if "tarbox-" in line
    }
    process.kill()
    process.communicate()
    until(lambda: not os.path.exists(f"/proc/{shell}/ns/pid"))  # the command dies with us
    assert groups_of(name)
    assert tarbox("limit", "ls").returncode == 0
    assert not groups_of(name)
    until(lambda: not os.path.exists(f"/proc/{child}/ns/pid"))  # what it had started is gone with the group


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["limit"], 125, "no command to limit"),
        (["limit", "-m", "5"], 125, "for megabytes write 5m"),
        (["limit", "-m", "20m"], 125, "no command to limit"),
        (["limit", "not-there"], 127, "there is no program not-there (PATH is"),
        (["limit", "/etc/passwd"], 126, "/etc/passwd isn't executable"),
        (["limit", "/not/there"], 127, "there is no /not/there"),
        (["limit", "creat", "x"], 127, "did you mean 'tarbox limit create'?"),
        (["limit", "--memroy", "5m", "true"], 125, "did you mean --memory?"),
        (["limit", "--cgroup-conf", "../x=1", "true"], 125, "isn't a control of a controller"),
        (["limit", "--cpus", "1", "--cpu-quota", "5000", "true"], 125, "cannot both be set"),
        (["limit", "create"], 125, "needs the name of a group"),
        (["limit", "create", "a/b"], 125, "not the name of a group"),
        (["limit", "create", "x", "memory.max"], 125, "KEY=VALUE"),
        (["limit", "create", "x", "memory.max=lots"], 125, "memory.max"),
        (["limit", "exec", "x"], 125, "no command to run"),
        (["limit", "exec", "x", "true"], 125, "there is no group 'x'"),
        (["limit", "rm", "x"], 125, "there is no group 'x'"),
        (["limit", "add", "x"], 125, "no process to move"),
        (["limit", "add", "x", "1a"], 125, "not the number of a process"),
        (["limit", "show", "x"], 125, "there is no group 'x'"),
        (["limit", "ls", "x"], 125, "one word too many"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_slip_is_one_line_with_advice(tarbox, words, code, message):
    done = tarbox(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tarbox: ")


def test_a_plain_user_who_may_make_no_groups_is_told_in_one_line(plain_tarbox):
    for words in (["-m", "20m", "true"], ["create", "x"], ["ls"]):
        done = plain_tarbox("limit", *words)
        if "cgroup v2 and a delegated group" in done.stderr:
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
        else:
            pytest.skip("this user may make groups")


# --- Groups that last ---


def test_a_group_lasts_is_used_changed_and_removed(tarbox, group):
    assert tarbox("limit", "create", group, "-m", "64m", "pids.max=20", "cpu.max=50000 100000").returncode == 0
    assert groups_of(f"tarbox-limit-{group}")
    found = listed(tarbox, group)
    assert (found["name"], found["memory_limit"], found["pids_limit"], found["cpus"]) == (group, 64 << 20, 20, 0.5)
    assert found["processes"] == []

    done = tarbox("limit", "exec", group, "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
    assert done.returncode == 137
    assert "reached its memory limit of 64 MiB" in done.stderr
    done = tarbox("limit", "exec", group, "sh", "-c", "exit 5")
    assert (done.returncode, done.stderr) == (5, ""), "an earlier lack of memory isn't told again"

    # The limits bind each other: up in one order, down in the other.
    assert (
        tarbox("limit", "set", group, "memory.memsw.limit_in_bytes=400m", "memory.limit_in_bytes=300m").returncode == 0
    )
    assert tarbox("limit", "set", group, "-m", "32m", "--pids-limit", "7").returncode == 0
    found = listed(tarbox, group)
    assert (found["memory_limit"], found["pids_limit"], found["cpus"]) == (32 << 20, 7, 0.5)
    assert tarbox("limit", "set", group, "memory.max=max").returncode == 0
    done = tarbox("limit", "set", group, "memory.swap.max=0")
    assert done.returncode == 0 or done.stderr.startswith("tarbox: memory.swap.max needs memory.max beside it")
    assert tarbox("limit", "set", group, "-m", "0", "--pids-limit", "-1", "--cpus", "0").returncode == 0
    found = listed(tarbox, group)
    assert (found["memory_limit"], found["pids_limit"], found["cpus"]) == (None, None, None)

    done = tarbox("limit", "create", group)
    assert (done.returncode, "already" in done.stderr) == (125, True)
    assert f"did you mean {group}?" in tarbox("limit", "show", group + "x").stderr
    done = tarbox("limit", "rm", group)
    assert (done.returncode, done.stdout, done.stderr) == NO_TRACE
    assert group not in tarbox.output("limit", "ls", "-q").split()


def test_a_group_that_cant_be_made_leaves_nothing(tarbox, group):
    done = tarbox("limit", "create", group, "pids.max=20", "pids.tea=1")
    assert done.returncode == 125
    assert "pids.tea" in done.stderr
    assert not groups_of(f"tarbox-limit-{group}")


def test_a_living_process_is_moved_with_its_threads(tarbox, group):
    tarbox.output("limit", "create", group, "--pids-limit", "50")
    program = (
        "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); time.sleep(600)"
    )
    process = subprocess.Popen([os.sys.executable, "-c", program])
    try:
        until(lambda: len(os.listdir(f"/proc/{process.pid}/task")) == 2)
        tarbox.output("limit", "add", group, str(process.pid))
        for thread in os.listdir(f"/proc/{process.pid}/task"):
            text = Path(f"/proc/{process.pid}/task/{thread}/cgroup").read_text()
            assert text.count(f"/tarbox-limit-{group}\n") == len(groups_of(f"tarbox-limit-{group}"))
        shown = tarbox.output("limit", "show", group)
        assert f"{process.pid} python" in shown
        assert re.search(r"^pids +2 of 50$", shown, re.MULTILINE)

        done = tarbox("limit", "rm", group)
        assert done.returncode == 125
        assert f"holds a process: {process.pid} (--force kills them, --release" in done.stderr
        tarbox.output("limit", "rm", "--release", group)
        assert process.poll() is None
        assert "tarbox-limit" not in Path(f"/proc/{process.pid}/cgroup").read_text()
    finally:
        process.kill()
        process.wait()


def test_force_kills_what_is_in_a_group(tarbox, group):
    tarbox.output("limit", "create", group)
    process = tarbox.start("limit", "exec", group, "--", "sleep", "600")
    until(lambda: listed(tarbox, group)["processes"])
    assert re.search(rf"^{group} +1 ", tarbox.output("limit", "ls"), re.MULTILINE)
    tarbox.output("limit", "rm", "-f", group)
    assert process.wait(timeout=30) == 137
    process.communicate()


def test_a_process_that_isnt_there_is_told(tarbox, group):
    tarbox.output("limit", "create", group)
    ended = subprocess.Popen(["true"])
    ended.wait()
    done = tarbox("limit", "add", group, str(ended.pid))
    assert (done.returncode, done.stderr) == (125, f"tarbox: there is no process {ended.pid} ('ps -e' lists them)\n")
    done = tarbox("limit", "add", group, "2")  # a thread of the kernel's, or nobody
    assert done.returncode == 125
