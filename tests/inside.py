"""Questions that are answered from inside a container: many of them in one start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tarbox


def ask(tarbox: Tarbox, *arguments: str | Path, **questions: str) -> dict[str, str]:
    """Run one container with these arguments (options and image), and return each shell command's output by its name.

    Both streams of every command count, since a refusal is an answer too.
    """
    script = "".join(f"echo '<{name}>'; ( {command} ) 2>&1\n" for name, command in questions.items())
    done = tarbox("run", "--rm", *arguments, "sh", "-c", f"{script}exit 0")
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}{done.stdout}"
    assert not done.stderr, done.stderr
    return answers(done.stdout, questions)


def answers(output: str, questions: dict[str, str]) -> dict[str, str]:
    """The output taken apart at the names of the questions."""
    found: dict[str, str] = {}
    rest = output
    for name in reversed(questions):
        rest, mark, found[name] = rest.rpartition(f"<{name}>\n")
        assert mark, f"{name} was never asked: {output}"
    return {name: found[name].strip() for name in questions}


def numbers(text: str) -> list[int]:
    """All words of an answer that are numbers."""
    return [int(word) for word in text.split() if word.lstrip("-").isdecimal()]
