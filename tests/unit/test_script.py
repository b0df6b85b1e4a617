"""A plan as a script: the order of a shell, quotes, and what each kind of spelling becomes."""

from __future__ import annotations

import subprocess

import pytest

from planned import Fork, Pretend
from tarbox.engine.options import RunOptions
from tarbox.engine.run import explain
from tarbox.plan.plan import Plan
from tarbox.plan.script import About, in_order, render
from tarbox.plan.shell import one_by_one, quote, with_variables, written
from tarbox.plan.step import PARENT


class Spelled(Pretend):
    """A step that a shell can do."""

    __slots__ = ("phase_", "text")

    def __init__(self, name, text, phase="filesystem", by="runner", **more):
        super().__init__(name, by, **more)
        self.text = text
        self.phase_ = phase

    @property
    def phase(self):
        return self.phase_

    def shell(self):
        return self.text


class Spawning(Fork):
    __slots__ = ()

    def shell(self):
        return "env sh"


def plan():
    return Plan(
        [
            Spelled("group", "echo group", "host", PARENT),
            Spelled("make a", "echo make-a", by=PARENT, gives=("a",)),
            Spelled("tree", "echo tree", by=PARENT, gives=("tree",)),
            Spelled("find a", "echo find-a", by=PARENT, takes=("tree",), gives=("place a",)),
            Spelled("make b", "echo make-b", by=PARENT, gives=("b",)),
            Spelled("find b", "echo find-b", by=PARENT, takes=("tree",), gives=("place b",)),
            Spawning("fork", PARENT),
            Spelled("name", "echo name", "namespaces"),
            Spelled("attach tree", "echo attach-tree", takes=("tree",)),
            Spelled("attach a", "echo attach-a", takes=("a", "place a")),
            Spelled("attach b", "echo attach-b", takes=("b", "place b")),
            Spelled("pivot", "nsenter pivot", "root"),
            Spelled("ids", "setpriv --reuid 5 COMMAND", "privileges"),
            Spelled("new", "setpriv --no-new-privs COMMAND", "privileges"),
            Spelled("session", "", "privileges"),
            Spelled("program", "exec true", "exec"),
        ]
    )


def text_of(script):
    about = About("tarbox run", 0, {}, {})
    return render(script, about, lambda step: step.shell())


def test_what_the_parent_makes_is_attached_before_more_is_looked_for():
    steps = plan().steps
    assert [steps[index].name for index in in_order(plan())] == [
        "group", "fork", "name", "make a", "tree", "attach tree", "find a", "make b", "attach a", "find b", "attach b",
        "pivot", "ids", "new", "session", "program",
    ]  # fmt: skip


def test_each_kind_of_spelling_has_its_place():
    text = text_of(plan())
    assert 'set -- "$@" setpriv --reuid 5\n' in text
    assert 'set -- "$@" --no-new-privs\n' in text  # the same program goes on
    assert text.index("nsenter pivot") > text.index("exec true")  # by the helper
    assert "It has to be done. [true(1)]\n# A shell can't do that." in text
    assert 'env sh "$WORK/process"' in text
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0


def test_a_text_that_looks_like_the_end_of_a_part_doesnt_end_it():
    steps = [*plan().steps[:-1], Spelled("program", "exec echo 'a\nEND_OF_PROGRAM\nEND_OF_PROGRAM_\nb'", "exec")]
    text = text_of(Plan(steps))
    assert "<<'END_OF_PROGRAM__'" in text
    assert text.count("\nEND_OF_PROGRAM__\n") == 1


WORDS = [
    "",
    "a b",
    "it's",
    '"',
    "$HOME `id`",
    "\\",
    "a\nb",
    "*",
    "~",
    "-n",
    "#",
    "é",
    "a=b",
    "\t",
    "ID",
    "xIDx",
    "'ID'",
    '"ID',
]


@pytest.mark.parametrize("word", WORDS)
def test_words_survive_a_shell(word):
    """Quoted, with a variable put in for a part of them, and as a text that is written."""
    for command in (f"printf %s {quote(word)}", written(word)):
        done = subprocess.run(["sh", "-c", with_variables(command, {"ID": "ID"})], capture_output=True, text=True,
                              env={"ID": "it is"})  # fmt: skip
        assert done.stdout == word.replace("ID", "it is")


def test_a_longer_value_is_found_before_one_that_it_begins_with():
    assert with_variables("a abc 'abc d' \"abc\"", {"ab": "SHORT", "abc": "LONG"}) == (
        'a "$LONG" \'\'"$LONG"\' d\' "${LONG}"'
    )


def test_parts_of_a_command_are_put_on_lines_of_their_own():
    assert one_by_one("a 'b; c && d'; e && f  g; h") == "a 'b; c && d'\ne\nf  g\nh"
    assert one_by_one("echo 'a;' \\; b") == "echo 'a;' \\; b"


@pytest.mark.parametrize("image", ["host", "directory"])
def test_a_real_script_has_no_mistake_a_shell_would_see(image, tmp_path):
    """And no value of this one plan where each run has another."""
    options = RunOptions("host" if image == "host" else str(tmp_path), ["echo", "it's"])
    options.memory, options.workdir = 1 << 26, "/it's/here"
    text = explain(options, str(tmp_path / "data"), "tarbox run …")
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0
    assert text.startswith("#!/bin/sh\n")
    assert "exec echo 'it'\\''s'\n" in text
    assert 'tarbox-"$ID"' in text
    assert 'hostname "$NAME"' in text
