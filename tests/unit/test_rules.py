"""The house rules that a program can check: steps, names, sizes, and what the text may speak of."""

from __future__ import annotations

import ast
import importlib
import re

import source
import testhost
from tarbox.plan.step import PHASES, Step

# --- Every step can tell about itself --------------------------------------------------------------------------------


def all_modules():
    return {name: importlib.import_module(name) for name in source.modules() if not name.endswith("__main__")}


def all_steps() -> list[type[Step]]:
    all_modules()
    found, ahead = [], [Step]
    while ahead:
        kinds = [kind for kind in ahead.pop().__subclasses__() if kind.__module__.startswith("tarbox.")]
        found += kinds
        ahead += kinds
    return found


def test_every_step_explains_itself():
    """One line of why, its man page, its system calls, a phase of a container's life."""
    steps = all_steps()
    assert len(steps) >= 10
    wrong = []
    for kind in steps:
        name = f"{kind.__module__}.{kind.__name__}"
        if isinstance(kind.man, str) and not re.match(r"^[a-z_0-9A-Z]+\([1-9][a-z]*\)", kind.man):
            wrong.append(f"{name}.man is {kind.man!r}, not like mount(2)")
        if isinstance(kind.why, str) and (not 10 <= len(kind.why) <= 140 or "\n" in kind.why):
            wrong.append(f"{name}.why is {kind.why!r}, not one line")
        # Either may depend on the step's values instead, as a property.
        if not isinstance(kind.why, str | property) or not isinstance(kind.man, str | property):
            wrong.append(f"{name}.why or .man isn't text")
        if kind.call is Step.call:
            wrong.append(f"{name} has no call()")
        if kind.phase not in PHASES and not isinstance(kind.phase, property):
            wrong.append(f"{name}.phase is {kind.phase!r}")
        # The executor forks for the one that spawns, and the runner's last act is the program itself.
        done_elsewhere = kind.spawns or kind.__name__ == "Execute"
        if kind.apply is Step.apply and kind.rows is Step.rows and not done_elsewhere:
            wrong.append(f"{name} does nothing: neither apply() nor rows()")
        if "__slots__" not in vars(kind) or kind.__dictoffset__:
            wrong.append(f"{name} has no __slots__ of its own, or a base without")
        if not kind.__doc__:
            wrong.append(f"{name} has no docstring")
    assert not wrong


# --- Names, sizes, words ---------------------------------------------------------------------------------------------


def test_every_module_says_what_it_is():
    """A docstring for each module that holds code, and for each public function and class."""
    silent = []
    for name, path in source.modules().items():
        tree = ast.parse(path.read_text())
        if tree.body and not ast.get_docstring(tree):
            silent.append(name)
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{name}.{node.name}")
    assert not silent


def test_no_module_is_a_drawer_for_odds_and_ends():
    vague = re.compile(r"(^|_)(utils?|helpers?|managers?|base|common|misc)(_|$)")
    assert not [name for name in source.modules() if any(vague.search(part) for part in name.split("."))]


def test_no_file_is_longer_than_600_lines():
    long = {str(path): count for path in source.tracked(".py", ".sh")
            if (count := len(path.read_text().splitlines())) > 600}  # fmt: skip
    assert not long


def test_the_start_of_a_container_needs_no_typing():
    """`typing` costs 10 ms: it is for checkers, behind a constant that is false when the program runs."""
    guard = re.compile(r"^(import typing|from typing )", re.MULTILINE)
    assert not [name for name, path in source.modules().items() if guard.search(path.read_text())]


# Spelled so that this file doesn't contain what it looks for.
FOREIGN = [
    re.compile("/wo" + r"rk/"),
    re.compile(r"\.\./sha" + "red"),
    re.compile(r"\bissue" + r" #?\d"),
    re.compile(r"(?<![\w.\-+/])(F|[FNPSU]" + r"(?=\d\d?\b))\d{1,3}(?![\w.\-+(])"),
]
CODES = re.compile(r"# noqa: [A-Z0-9, ]+|^(select|ignore|extend-select) = .*")


def foreign(line: str) -> bool:
    return any(pattern.search(CODES.sub("", line)) for pattern in FOREIGN)


def test_the_repository_speaks_of_tarbox_alone():
    """No row numbers of lists that readers don't have, no folders of whoever wrote a line."""
    found = []
    for path in source.tracked():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(testhost.CHECKOUT)}:{at}: {line.strip()}" for at, line in enumerate(lines, 1)
                  if foreign(line)]  # fmt: skip
    assert not found


def test_the_search_for_foreign_words_finds_them():
    for line in ("see " + "F" + "142", "(S" + "15)", "cd /wo" + "rk/main"):
        assert foreign(line), line
    for line in ("x = 0xF0  # noqa: N802", "SHA256 of the U+00E9 file, signal S_ISUID"):
        assert not foreign(line), line
