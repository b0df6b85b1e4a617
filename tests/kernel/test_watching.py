"""`tarbox run --profile` and `tarbox run --step`: a run that is timed, or stopped between its steps."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

import roots

pytestmark = pytest.mark.unhurried


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def plan_of(tarbox, *words):
    return int(tarbox.output("explain", "run", *words).split()[0])


# --- Times -----------------------------------------------------------------------------------------------------------


def test_each_step_has_its_time(tarbox, image):
    """In order, with sums, after the program's own output; the container's streams and code are as ever."""
    words = ("-m", "64m", image, "sh", "-c", "echo out; sleep 0.3; exit 7")
    done = tarbox("run", "--profile", *words)
    assert (done.returncode, done.stdout) == (7, "out\n")
    rows = re.findall(r"^ *(\d+\.\d{3}) +(\d+\.\d)  +(\d+) (\S.*)$", done.stderr, re.MULTILINE)
    assert [int(number) for _, _, number, _ in rows] == list(range(1, plan_of(tarbox, *words) + 1))
    assert sum(float(share) for _, share, _, _ in rows) == pytest.approx(100, abs=5)
    assert {"outside", "inside"} <= set(re.findall(r"outside|inside", done.stderr))
    program = float(re.search(r"(\d+\.\d+) +the program", done.stderr)[1])
    assert program >= 290  # ms
    parts = re.findall(r"^ *(\d+\.\d{3})  {7}(\S.*)$", done.stderr, re.MULTILINE)
    assert [name for _, name in parts][-1] == "together"
    assert sum(float(time) for time, _ in parts[:-1]) == pytest.approx(float(parts[-1][0]), abs=0.1)


def test_a_slow_step_is_told_apart(tarbox, image, tmp_path):
    """The one that unpacks a large archive, done by the parent; and the ones inside are stamped when they are done."""
    archive = roots.packed(roots.busybox(tmp_path / "files"), tmp_path / "files.tar")
    tarbox.output("run", f"--profile={tmp_path}/profile", archive, "true")
    found = json.loads((tmp_path / "profile").read_text())
    steps = found["steps"]
    assert max(steps, key=lambda step: step["seconds"])["step"] == "Unpack"
    assert all(step["seconds"] >= 0 for step in steps)
    inside = [step["seconds"] for step in steps if step["by"] == "runner"]
    assert len(inside) > 20
    assert sum(inside) > 0.0003
    assert sum(time > 0 for time in inside) > len(inside) * 0.9
    assert sum(step["seconds"] for step in steps) == pytest.approx(found["seconds"]["steps"], rel=0.01)
    assert sum(phase["seconds"] for phase in found["phases"]) == pytest.approx(found["seconds"]["steps"], rel=0.01)


def test_a_profile_as_json_goes_where_it_is_wanted(tarbox, image, tmp_path):
    done = tarbox("run", "--profile=json", image, "sh", "-c", "exit 3")
    assert (done.stdout, done.returncode) == ("", 3)
    found = json.loads(done.stderr)
    assert found["exit_code"] == 3
    assert {"python", "plan", "steps", "program", "clean_up"} == set(found["seconds"])
    refused = tarbox("run", f"--profile={tmp_path}/nowhere/profile", image, "echo", "ran")
    assert (refused.returncode, refused.stdout) == (125, "")
    assert refused.stderr.startswith(f"tarbox: --profile={tmp_path}/nowhere/profile: ")
    assert tarbox("run", "--profile=false", image, "true").stderr == ""


def test_a_plain_user_and_a_filter_of_ones_own(plain_tarbox, plain_folder, tarbox, image, tmp_path):
    """A filter may deny the marks, even kill for them: after it there are none, and the rest has one time together."""
    files = roots.busybox(plain_folder / "image")
    subprocess.run(["chown", "-R", f"{plain_tarbox.user}:{plain_tarbox.user}", files], check=True)
    assert "together" in plain_tarbox("run", "--profile", f"{files}:O", "true").stderr
    rules = {"names": ["recvfrom", "sendto"], "action": "SCMP_ACT_KILL_PROCESS"}
    (tmp_path / "filter").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rules]}))
    option = ("--security-opt", f"seccomp={tmp_path}/filter")
    done = tarbox("run", "--profile=json", *option, image, "echo", "ran")
    assert done.stdout == "ran\n"
    assert json.loads(done.stderr)["steps"][-1]["step"] == "LoadSeccomp"
    assert tarbox("run", "--step", *option, image, "echo", "ran", input="\n" * 100).stdout == "ran\n"


@pytest.mark.parametrize("mode", ["--profile", "--step"])
@pytest.mark.parametrize(
    "words",
    [("--sysctl", "net.ipv4.nope=1", "IMAGE", "true"), ("IMAGE", "nowhere"), ("-w", "/etc/passwd", "IMAGE", "true")],
)
def test_what_fails_is_told_as_ever(tarbox, image, words, mode):
    """The marks between the steps don't shift the blame."""
    words = [image if word == "IMAGE" else word for word in words]
    plain = tarbox("run", *words)
    done = tarbox("run", mode, *words, input="c\n")
    assert done.returncode == plain.returncode != 0
    assert done.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


# --- Step by step ----------------------------------------------------------------------------------------------------


def test_each_step_is_asked_for(tarbox, image):
    """With its call, command, reason and page; the program runs when all have been taken."""
    words = ("-h", "box", "-m", "64m", image, "echo", "ran")
    count = plan_of(tarbox, *words)
    done = tarbox("run", "--step", *words, input="\n" * count)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    shown = re.findall(r"step (\d+) of (\d+):$", done.stderr, re.MULTILINE)
    assert shown == [(str(number), str(count)) for number in range(1, count + 1)]
    for text in ("sethostname", "$ hostname box", "The container answers to its own name", "[sethostname(2)"):
        assert text in done.stderr


def test_to_the_end_help_and_plan(tarbox, image):
    done = tarbox("run", "--step", image, "echo", "ran", input="\n?\nnonsense\np\nc\n")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "c          go on to the end" in done.stderr
    assert "'nonsense' means nothing here" in done.stderr
    lines = re.findall(r"^(ok|->|  ) +(\d+)  ", done.stderr, re.MULTILINE)
    assert [mark for mark, number in lines][:3] == ["ok", "->", "  "]


@pytest.mark.parametrize("before", [0, 5, 12, 34, 50, 60])
@pytest.mark.parametrize("end", ["q\n", ""], ids=["q", "end of input"])
def test_leaving_takes_everything_away(tarbox, image, before, end):
    done = tarbox("run", "--step", "-m", "64m", image, "echo", "ran", input="\n" * before + end)
    assert done.returncode == 125
    assert done.stdout == ""
    assert f"tarbox: left before step {before + 1} of " in done.stderr
    assert not tarbox.leftovers()


def test_the_program_waits_for_the_step_before_it(tarbox, image, tmp_path):
    """And a step that was shown hasn't been taken: the host name is set one Enter later."""
    words = ("-h", "box", image, "true")
    text = tarbox.output("explain", "run", *words)
    number = int(re.search(r"^ *(\d+)  sethostname", text, re.MULTILINE)[1])
    shell = tmp_path / "shell"
    shell.write_text(
        "#!/bin/sh\nhostname >> $OUT; pwd >> $OUT; ls -d etc/passwd >> $OUT; readlink /proc/$TARBOX_PID/exe >> $OUT\n"
    )
    shell.chmod(0o755)
    answers = "\n" * (number - 1) + "s\n\ns\nc\n"
    out = tmp_path / "out"
    done = tarbox("run", "--step", *words, input=answers, env={"SHELL": str(shell), "OUT": str(out)})
    assert done.returncode == 0, done.stderr
    names = out.read_text().splitlines()
    assert names[0] == os.uname().nodename
    assert "box" in names[1:]
    assert "memfd:runner" in out.read_text()


def test_leaving_while_the_process_inside_waits(tarbox, image):
    """Before the last step outside there is a process already, which stops at its own first step."""
    words = (image, "true")
    text = tarbox.output("explain", "run", *words)
    number = int(re.search(r'^ *(\d+)  send\(RTM_NEWLINK "\$END" veth', text, re.MULTILINE)[1])
    done = tarbox("run", "--step", *words, input="\n" * (number - 1) + "q\n")
    assert done.returncode == 125
    assert f"left before step {number} of" in done.stderr.splitlines()[-1]
    assert f"step {number + 1} of" not in done.stderr


def test_a_shell_looks_at_the_containers_root_with_the_hosts_programs(tarbox, image, tmp_path):
    """No program of the image runs, which here would be all there is."""
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/bash\ncat etc/hostname proc/sys/kernel/hostname; ip -o link; findmnt -no SOURCE /\n")
    shell.chmod(0o755)
    words = ("-h", "box", image, "true")
    count = plan_of(tarbox, *words)
    done = tarbox("run", "--step", *words, input="\n" * (count - 1) + "s\nq\n", env={"SHELL": str(shell)})
    assert "box\nbox\n" in done.stderr
    assert re.search(r"1: lo: <LOOPBACK,UP", done.stderr)


def test_input_that_is_taken(tarbox, image):
    """With -i there has to be a terminal to ask at."""
    done = tarbox("run", "--step", "-i", image, "cat", input="x", start_new_session=True)
    assert done.returncode == 125
    assert "nobody to ask" in done.stderr
    assert done.stdout == ""
    both = tarbox("run", "--step", "--profile", image, "true")
    assert (both.returncode, both.stdout) == (125, "")
    assert "don't go together" in both.stderr


def talk(tarbox, words, turns, patience=30.0):
    """Run at a terminal; each turn waits for a text and types, or sends ^C by the terminal. The output and the code."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(tarbox.folder)
        os.execvpe(tarbox.command(*words)[0], tarbox.command(*words), tarbox.environment())
    said = b""
    turns = list(turns)
    end = time.monotonic() + patience
    try:
        while time.monotonic() < end:
            if turns and said.endswith(turns[0][0]):
                os.write(master, turns.pop(0)[1])
                said += b"\n<typed>"
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                said += os.read(master, 65536)
            except OSError:
                break
    finally:
        os.close(master)
        _, status = os.waitpid(pid, 0)
    return said.decode("utf-8", "replace"), os.waitstatus_to_exitcode(status)


PROMPT = b"?: help] "


@pytest.mark.parametrize("steps", [3, 40])
def test_an_interrupt_takes_everything_away(tarbox, image, steps):
    """^C at the question: before there is a process, and when the runner waits."""
    said, code = talk(
        tarbox, ("run", "--step", image, "echo", "r" + "an"), [(PROMPT, b"\n")] * steps + [(PROMPT, b"\x03")]
    )
    assert code == 130, said
    assert f"step {steps + 1} of" in said
    assert f"step {steps + 2} of" not in said
    assert not tarbox.leftovers()


def test_a_terminal_for_both(tarbox, image):
    """-it: the questions first, then the container has the terminal."""
    said, code = talk(tarbox, ("run", "--step", "-it", "-h", "box", image, "sh", "-c", "read line; echo got $line"), [
        (PROMPT, b"\n"), (PROMPT, b"c\n"), (b"c\r\n", b"word\n"),
    ])  # fmt: skip
    assert "got word" in said, said
    assert code == 0


def test_a_signal_ends_a_run_that_waits(tarbox, image):
    process = tarbox.start("run", "--step", image, "true")
    process.stdin.write(b"\n" * 40)
    process.stdin.flush()
    while not process.stderr.readline().startswith(b"the first process, inside, step 41"):
        pass
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    assert not tarbox.leftovers()
