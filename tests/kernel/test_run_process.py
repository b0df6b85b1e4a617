"""The options that say what runs, as whom, where and under which names: each has its effect inside."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

import roots
from inside import ask

pytestmark = pytest.mark.unhurried


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def test_variables_come_from_options_files_and_the_caller(tarbox, image, tmp_path):
    """In the order given; a name alone hands the caller's on, or nothing."""
    (tmp_path / "env").write_text("# a comment\nFROM_FILE=a b=c\nBOTH=file\nHANDED\nNOT_SET\n\nEMPTY=\n")
    options = ("-e", "BOTH=option", "-e", "HANDED_TOO", "-e", "MISSING", "-e", "HOME=/elsewhere", "-e", "UMLAUT=ü\n2")
    done = tarbox(
        "run", "--rm", "--env-file", tmp_path / "env", *options, image, "cat", "/proc/self/environ",
        env={"HANDED": "yes", "HANDED_TOO": "too", "SECRET": "not for containers"},
    )  # fmt: skip
    found = dict(entry.split("=", 1) for entry in done.stdout.rstrip("\0").split("\0"))
    assert {name: found.get(name) for name in ("FROM_FILE", "BOTH", "HANDED", "HANDED_TOO", "EMPTY", "UMLAUT")} == {
        "FROM_FILE": "a b=c",
        "BOTH": "option",
        "HANDED": "yes",
        "HANDED_TOO": "too",
        "EMPTY": "",
        "UMLAUT": "ü\n2",
    }
    assert found["HOME"] == "/elsewhere"
    assert not {"MISSING", "NOT_SET", "SECRET", "TERM", "LANG"} & set(found)


def test_the_path_that_is_set_is_the_one_that_is_searched(tarbox, image):
    """As execvp would with the container's own variables."""
    assert tarbox.output("run", "-e", "PATH=/bin", image, "true") == ""
    done = tarbox("run", "-e", "PATH=/nowhere", image, "true")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "tarbox: there is no program true in the container (PATH in the container is /nowhere)\n"


@pytest.mark.parametrize(
    ("options", "uid", "gid", "groups", "home"),
    [
        ((), 0, 0, {0}, "/root"),
        (("-u", "guest"), 1000, 1000, {29, 1000}, "/home"),
        (("-u", "1000"), 1000, 1000, {29, 1000}, "/home"),
        (("-u", "guest:audio"), 1000, 29, {29}, "/home"),
        (("-u", "1234:5678"), 1234, 5678, {5678}, "/"),
        (("-u", "1234"), 1234, 0, {0}, "/"),
        (("-u", "guest", "--group-add", "77", "--group-add", "root"), 1000, 1000, {0, 29, 77, 1000}, "/home"),
    ],
)
def test_the_user_is_the_images_own(tarbox, image, options, uid, gid, groups, home):
    """Names and numbers, the groups of /etc/group, and the home of /etc/passwd; no capability is left to users."""
    said = ask(
        tarbox,
        *options,
        image,
        id="id -u; id -g",
        groups="id -G",
        home="echo $HOME",
        effective="grep CapEff /proc/self/status",
        kept="touch /denied",
    )
    assert said["id"].split() == [str(uid), str(gid)]
    assert {int(number) for number in said["groups"].split()} == groups
    assert said["home"] == home
    assert (int(said["effective"].split()[1], 16) == 0) == (uid != 0)
    assert ("Permission denied" in said["kept"]) == (uid != 0)


def test_names_entrypoint_and_directory(tarbox, image):
    """-h, --domainname, -w (made where it's missing), --entrypoint."""
    said = ask(
        tarbox, "-h", "box", "--domainname", "example.org", "-w", "/made/for/this", image,
        name="hostname; cat /etc/hostname; echo $HOSTNAME",
        domain="cat /proc/sys/kernel/domainname",
        hosts="grep box /etc/hosts",
        cwd="pwd; stat -c %a:%u .",
    )  # fmt: skip
    assert said["name"].split() == ["box"] * 3
    assert said["domain"] == "example.org"
    assert re.fullmatch(r"[\d.]+\tbox.example.org box", said["hosts"])
    assert said["cwd"].split() == ["/made/for/this", "755:0"]
    assert tarbox.output("run", "--entrypoint", "/bin/echo", image, "one", "-n") == "one -n\n"
    assert tarbox.output("run", "--entrypoint", "", image, "echo", "two") == "two\n"


def test_an_image_without_a_command_gets_a_shell(tarbox, image):
    """Which reads its commands from the caller with -i."""
    assert tarbox.output("run", "-i", image, input="echo $((6*7))\n") == "42\n"
    assert tarbox.output("run", image, input="echo unheard\n") == ""


def test_a_program_may_be_named_by_a_path_from_the_working_directory(tarbox, image):
    """As the kernel takes it."""
    assert tarbox.output("run", "-w", "/bin", image, "./echo", "here") == "here\n"
    assert tarbox.output("run", "-w", "/usr", image, "../bin/echo", "there") == "there\n"


def test_init_is_process_1_reaps_and_hands_signals_on(tarbox, image):
    """Without it orphans stay as zombies when the command doesn't wait for them."""
    orphan = "(sleep 0.1 & exec sleep 0) ; "
    zombies = "sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"
    # busybox's shell reaps too, so a program that doesn't is started by it: sleep.
    plain = 'sh -c "(sleep 0.1 &)"; exec sh -c "sleep 0.4; echo $$"'
    done = tarbox.output("run", "--init", image, "sh", "-c", f"echo $$; cat /proc/1/comm; {orphan}{zombies}; {plain}")
    pid, comm, left, _ = done.split()
    assert (pid, left) == ("2", "0")
    assert comm != "sh"
    started = tarbox.start(
        "run", "--init", image, "sh", "-c", "trap 'exit 9' TERM; echo on; while :; do sleep 0.1; done"
    )
    assert started.stdout.readline() == b"on\n"
    started.send_signal(signal.SIGTERM)
    assert started.wait(10) == 9
    for stream in (started.stdin, started.stdout, started.stderr):
        stream.close()
    assert tarbox("run", "--init", image, "sh", "-c", "kill -KILL $$").returncode == 137


def test_zombies_are_reaped_by_init_alone(tarbox, image):
    """A process 1 that never waits collects them; the small init doesn't let it."""
    # `sleep` as the command never waits: what is orphaned stays a zombie below it.
    script = "(sleep 0.05 &) ; exec sleep 0.8"
    for options, expected in (((), 1), (("--init",), 0)):
        command = ("run", *options, "-v", "/proc:/host:ro", image, "sh", "-c", f"({_COUNT}) & {script}")
        assert int(tarbox.output(*command)) == expected, options


_COUNT = "sleep 0.4; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"


def test_a_timeout_ends_a_container_that_goes_on(tarbox, image):
    """In time, with the code of a kill and a line that says why; one that ends before isn't touched."""
    begin = time.monotonic()
    done = tarbox("run", "--timeout", "0.5s", image, "sh", "-c", "trap '' TERM INT; while :; do sleep 0.1; done")
    assert 0.5 <= time.monotonic() - begin < 3
    assert done.returncode == 137
    assert re.fullmatch(
        r"tarbox: the container still ran after the 0\.5 s of its --timeout and was killed\n", done.stderr
    )
    assert tarbox("run", "--timeout", "1h", image, "sh", "-c", "exit 3").returncode == 3


@pytest.mark.parametrize("name", ["TERM", "SIGUSR1", "15", "RTMIN+3"])
def test_a_stop_signal_is_accepted(tarbox, image, name):
    """By any of its spellings."""
    assert tarbox("run", "--stop-signal", name, image, "true").returncode == 0


def test_a_terminal_is_the_containers_own(tarbox, image):
    """-t: a pty of its own devpts, TERM, /dev/console, and lines as terminals write them."""
    script = "tty; echo $TERM; ls -1 /dev/pts; stat -c %t:%T /dev/console; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all"
    done = tarbox("run", "-t", image, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["/dev/pts/0", "xterm", "0", "ptmx", "88:0", "all"]


def test_the_hosts_network_on_demand(tarbox, image):
    """--net host: its interfaces and its name; a port that listens on the host's loopback is reached."""
    said = ask(tarbox, "--net", "host", image, net="readlink /proc/self/ns/net", name="hostname", uts="echo $HOSTNAME")
    assert said["net"] == os.readlink("/proc/self/ns/net")
    assert said["name"] == said["uts"] == os.uname().nodename
    said = ask(tarbox, "--net", "none", image, net="readlink /proc/self/ns/net", ifs="ls /sys/class/net")
    assert said["net"] != os.readlink("/proc/self/ns/net")
    assert said["ifs"] == "lo"


@pytest.mark.parametrize("place", ["/etc/passwd", "/etc/passwd/deeper", "/etc/passwd/..", "/bin/../etc/passwd"])
def test_a_working_directory_that_is_a_file(tarbox, image, place):
    done = tarbox("run", "-w", place, image, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("tarbox: /")
    assert "etc/passwd in the container is a file, not a directory" in done.stderr


def test_an_image_without_a_name(tarbox):
    done = tarbox("run", "", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("tarbox: no image to run (")
