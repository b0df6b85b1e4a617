"""Words for a shell.

    printf '%s\\n' 'it'\\''s one word'

Python's own `shlex` loads its regular expressions, which costs more than a container's start.

man 1 sh
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")
_ESCAPES = {"\\": "\\\\", "%": "%%", "\n": "\\n", "\t": "\\t"}


def quote(word: str) -> str:
    """The word so that a shell takes it for one, and as it stands."""
    if word and _PLAIN.issuperset(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def staged(slot: str) -> str:
    """Where a tree is mounted that isn't in its place yet: a file name for each slot, below $TREES."""
    return '"$TREES"/' + quote(slot.replace("=", "==").replace("-", "=-").replace("/", "-"))


def written(text: str) -> str:
    """The command that writes a text of some lines, itself on one line."""
    return f"printf {'-- ' if text.startswith('-') else ''}" + quote(
        "".join(_ESCAPES.get(letter, letter) for letter in text)
    )


def one_by_one(command: str) -> str:
    """The parts of a command that are put together by ";" or "&&", each on a line of its own."""
    made, part, quotes = "", "", ""
    for word in command.split(" "):
        quotes = _open_quotes(word + " ", quotes)
        if not quotes and word == "&&":
            part = part[:-1] + "\n"
        elif not quotes and word.endswith(";") and not word.endswith("\\;"):
            part += word[:-1] + "\n"
        else:
            part += word + " "
        if part.endswith("\n"):
            made, part = made + part, ""
    return made + part[:-1]


def with_variables(command: str, names: Mapping[str, str]) -> str:
    """The command with shell variables in the place of values that are another each time.

    names: the variable's name for each value, which is made of plain letters. Quotes around a value end before the
    variable and begin again after it.
    """
    for value, name in sorted(names.items(), key=lambda pair: -len(pair[0])):
        first, *pieces = command.split(value)
        made, quotes = first, _open_quotes(first, "")
        for piece in pieces:
            made += {"'": f"'\"${name}\"'", '"': f"${{{name}}}", "": f'"${name}"'}[quotes] + piece
            quotes = _open_quotes(piece, quotes)
        command = made
    return command


def _open_quotes(text: str, quotes: str) -> str:
    """Which quotes are open at the end of a piece of a command that began within `quotes`: one of the two, or none."""
    escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\" and quotes != "'":
            escaped = True
        elif letter in "'\"" and quotes in ("", letter):
            quotes = "" if quotes else letter
    return quotes
