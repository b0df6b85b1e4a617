"""docs/networking.md is true: its commands, typed on two computers, bring the answers that it shows."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time

import pytest

from looked import children
from tarbox.networks.rules import tables
from testhost import CHECKOUT

TEXT = (CHECKOUT / "docs" / "networking.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"(here|there)# (.*)")
END = "__that_is_all__"
SECONDS = 15  # until an answer is the one that is shown: a server has to start first, a log has to be written
ASKING = ("curl ", "tail ", "head ", "nft list ", "ip -br ", "tarbox enter ")  # what may be asked again


def dialogues() -> list[tuple[str, str, str]]:
    """Where, which command, and the answer that is shown."""
    found = []
    for line in "".join(BLOCKS).splitlines():
        prompt = PROMPT.fullmatch(line)
        if prompt:
            found.append((prompt[1], prompt[2], ""))
        else:
            where, command, answer = found.pop()
            found.append((where, command, f"{answer}{line}\n"))
    return found


def pattern(answer: str) -> re.Pattern[str]:
    """What an answer may be: `…` is anything on its line, or any lines; spaces at the end don't count."""
    parts = []
    for line in answer.splitlines():
        whole = re.escape(line).replace("…", ".*")
        parts.append("(.*\n)*" if line == "…" else re.sub(r"(\\ )+", " +", whole) + " *\n")
    return re.compile("".join(parts))


class Shell:
    """A shell that is typed into."""

    def __init__(self, folder, *command, env) -> None:
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.unread = b""

    def said(self, command: str) -> str:
        """What a command answers."""
        self.unread = b""
        self.process.stdin.write(f"{command}\nprintf '%s\\n' {END}\n".encode())
        self.process.stdin.flush()
        end = time.monotonic() + 60
        while f"{END}\n".encode() not in self.unread:
            assert select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0], f"no end: {command}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"the shell ended: {command}"
            self.unread += data
        answer, _, self.unread = self.unread.partition(f"{END}\n".encode())
        return answer.decode()


@pytest.fixture
def shells(tarbox, neighbour, tmp_path):
    """One here and one on the other computer; `tarbox` is this checkout's, with the usual data root, but empty."""
    program = tmp_path / "bin" / "tarbox"
    program.parent.mkdir()
    start = " ".join(tarbox.command()[:-2])  # without --root
    program.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
    program.chmod(0o755)
    env = tarbox.environment(PATH=f"{program.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    folders = {name: tmp_path / name for name in ("here", "there")}
    for folder in folders.values():
        folder.mkdir()
    # A shell that is typed into has job control; it would tell of jobs, too, which the document leaves out.
    hide = "mount --make-rprivate / && mount -t tmpfs -o mode=755 none /var/lib && exec bash"
    made = {
        "here": Shell(folders["here"], "unshare", "--mount", "sh", "-c", hide, env=env),
        "there": Shell(
            folders["there"], "nsenter", f"--net=/proc/{neighbour.process.pid}/ns/net", "bash", env=env
        ),
    }  # fmt: skip
    try:
        yield made
    finally:
        for shell in made.values():
            for pid in children(shell.process.pid):
                os.kill(pid, signal.SIGKILL)
        made["here"].said("wait; tarbox run --network none host true; sleep 0.5")
        for shell in made.values():
            shell.process.communicate(timeout=60)


def test_what_the_document_shows(shells):
    """Every command in turn."""
    for where, command, answer in dialogues():
        wanted, end = pattern(answer), time.monotonic() + SECONDS
        said = shells[where].said(command)
        while not wanted.fullmatch(said):
            assert command.startswith(ASKING), f"{where}# {command}\n{said}"
            assert time.monotonic() < end, f"{where}# {command}\n{said}"
            time.sleep(0.1)
            said = shells[where].said(command)


def test_every_rule_is_told():
    """In the order of the tables, and no other."""
    lines = "".join(table.text for table in tables("tarbox")).splitlines()
    rules = [line.strip() for line in lines if re.match(r"\t\t(?!type |policy |elements |comment )", line)]
    made = [re.sub(r' comment ".*"', "", rule) for rule in rules]
    shown = re.findall(r"^\|[^|]*\| `([^`]+)` \|", TEXT.partition("## What each rule is for")[2], re.MULTILINE)
    assert shown == made


def test_there_is_something_to_type():
    assert len(dialogues()) > 60
    assert {where for where, _, _ in dialogues()} == {"here", "there"}
