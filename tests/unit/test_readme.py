"""What the documents show is true: commands parse with the program's own tables, named files exist."""

from __future__ import annotations

import re
import shlex

import pytest

from tarbox.cli.arguments import parse
from tarbox.cli.help import verb_named
from tarbox.cli.main import TARBOX, VERBS
from tarbox.cli.run import run_options
from testhost import CHECKOUT

DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


def shown_commands() -> list[str]:
    """The lines of the documents' shell blocks, and the examples in the help."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
            found += block.splitlines()
    found += [example for verb in VERBS for example, _ in verb_named(verb).examples]
    return found


def tarbox_words(line: str) -> list[list[str]]:
    """The words after each `tarbox` in a line of shell."""
    parts = re.split(r"\s(?:&&|\||;)\s", line)
    words = [shlex.split(part, comments=True) for part in parts]
    return [each[1:] for each in words if each and each[0].rpartition("/")[2] == "tarbox"]


CALLS = [words for line in shown_commands() for words in tarbox_words(line)]


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_shown_commands_are_understood(words, tmp_path, monkeypatch):
    """The parser takes them, with an image and a command where there must be one."""
    monkeypatch.chdir(tmp_path)
    for profile in re.findall(r"seccomp=(\S+\.json)", " ".join(words)):
        (tmp_path / profile).touch()
    found = parse(TARBOX, words)
    assert found.rest, "no command"
    verb, *rest = found.rest
    arguments = parse(verb_named(verb), rest)
    if verb == "explain":
        verb, *rest = arguments.rest
        arguments = parse(verb_named(verb), rest)
    if verb == "run":
        options = run_options(arguments)
        assert options.image or options.rootfs
        assert options.command


def test_there_is_something_to_check():
    assert len(CALLS) >= 10
    assert ["run", "--rm", "host", "echo", "hello from a container"] in CALLS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document):
    """A path in code type is a file of this repository, as seen from its top or from the package."""
    text = document.read_text()
    named = set(re.findall(r"`([\w.-]+(?:/[\w.-]+)*\.(?:py|md|S|json|toml))`", text))
    named |= set(re.findall(r"`((?:kernel|plan|spec|engine|cli|runtime|images|tests|docs|benchmarks)/[\w./-]*)`", text))
    missing = {
        name for name in named
        if not any((top / name).exists() for top in (CHECKOUT, CHECKOUT / "src/tarbox", document.parent))
        and not any((CHECKOUT / "src/tarbox").rglob(name))
    }  # fmt: skip
    assert not missing


def test_every_document_is_reached_from_the_readme():
    text = DOCUMENTS[0].read_text()
    assert not [path.name for path in DOCUMENTS[1:] if path.name not in text]


def test_the_readme_has_no_figures_of_speed():
    """They differ from machine to machine; programs print them."""
    assert not re.findall(r"\b\d+(?:\.\d+)? ?(?:ms|µs|milliseconds|times faster|%)", DOCUMENTS[0].read_text())
