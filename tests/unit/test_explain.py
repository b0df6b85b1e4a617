"""What is told of a plan: all of it, in order, in lines that fit, whatever is in it."""

from __future__ import annotations

import pytest

from planned import Pretend, fork
from tarbox.engine.options import RunOptions
from tarbox.engine.run import explain
from tarbox.plan.explain import render
from tarbox.plan.plan import Plan
from tarbox.plan.step import PARENT

WIDTH = 110

GOLDEN = """\
5 steps make this container.
$ is the same in a shell; where there is none, a shell can't do it. $ID is the container's id, new each time,
$ROOT where its root is put together, $TREES what is mounted but not in place, COMMAND what follows.

== On the host ==

   -- tarbox, outside --

  1  do("group $ID")
     $ mkdir "$ID"
     It has to be done  [true(1)]

== What it will see as files ==

   -- tarbox, outside --

  2  do("open")
     It has to be done  [true(1)]

== A process, and namespaces of its own ==

   -- tarbox, outside --

  3  do("fork")
     It has to be done  [true(1)]

== What it will see as files ==

   -- handed over from tarbox, outside to the container's first process, inside, with the descriptors of tree --

  4  do("attach")
     It has to be done  [true(1)]

== The program ==

   -- the container's first process, inside --

  5  do("execute")
     It has to be done  [true(1)]
"""


class OnHost(Pretend):
    __slots__ = ()
    phase = "host"

    def shell(self):
        return f"mkdir {self.name.split()[-1]}"


class Executing(Pretend):
    __slots__ = ()
    phase = "exec"


def told(*steps, id="5f3a"):
    return render(Plan([*steps]), {id: "ID"})


def test_a_plan_is_told_by_phase_process_and_step():
    steps = [
        OnHost("group 5f3a", PARENT), Pretend("open", PARENT, gives=("tree",)), fork(),
        Pretend("attach", takes=("tree",)), Executing("execute"),
    ]  # fmt: skip
    assert told(*steps) == GOLDEN


def test_many_descriptors_are_counted():
    names = ("a", "b", "c", "d")
    text = told(Pretend("open", PARENT, gives=names), fork(), Pretend("attach", takes=names))
    assert "inside, with 4 open descriptors --" in text


def lines_of(name):
    """The lines for a step with a long call."""
    return told(fork(), Pretend(name)).split("-- handed over")[1].splitlines()[2:-1]


@pytest.mark.parametrize("length", range(1, 130, 7))
def test_lines_break_at_spaces_and_fit(length):
    words = [str(number) * (length % 50 + 1) for number in range(10)] * 3
    lines = lines_of(" ".join(words))
    assert max(map(len, lines)) <= WIDTH
    assert all(line == line.rstrip() for line in lines)
    assert [word.strip('do(")') for line in lines for word in line.split()][1:] == [
        word.strip('do(")') for word in words
    ]


def test_a_word_that_is_too_long_has_a_line_for_itself():
    """Breaking it would make it another name."""
    lines = lines_of(f"a {'b' * 200} c")
    assert lines == ['  2  do("a', "       " + "b" * 200, '       c")']


def test_letters_that_steer_a_terminal_are_spelled():
    assert lines_of("a\x1b[31m\nb\u202e") == ['  2  do("a\\x1b[31m\\x0ab\\x202e")']


@pytest.mark.parametrize("image", ["host", "directory", "memory"])
def test_a_real_plan_is_told_in_lines_that_fit(image, tmp_path):
    """But for words that are longer than a line; and telling it does nothing."""
    (tmp_path / "etc").mkdir()
    options = RunOptions("host" if image == "host" else str(tmp_path), ["true"])
    options.root_tmpfs = 1 << 20 if image == "memory" else 0
    text = explain(options, str(tmp_path / "data"))
    lines = text.splitlines()
    assert not [line for line in lines if line != line.rstrip()]
    wide = [line for line in lines if len(line) > WIDTH]
    assert not [line for line in wide if len(line.lstrip(" $0123456789").split(" ")) > 1]
    for phase in ("A process, and namespaces of its own", "What it will see as files", "A new root", "The program"):
        assert f"== {phase} ==" in lines
    assert sum(line[:3].strip().isdigit() and line[3:5] == "  " for line in lines) == int(text.split()[0])
    assert [path.name for path in tmp_path.iterdir()] == ["etc"]
