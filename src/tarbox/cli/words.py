"""A command line whose options may come before, between and after the other words: `rm web --force db`.

For verbs without a command of their own to run, whose options are nobody else's.
"""

from __future__ import annotations

from .arguments import Arguments, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .arguments import Verb


def anywhere(verb: Verb, words: list[str]) -> Arguments:
    """Read the words after a verb; after `--` none is an option. Raises what `parse` does."""
    found = Arguments()
    while words:
        part = parse(verb, words)
        for key, value in part.values.items():
            before = found.values.get(key)
            found.values[key] = before + value if isinstance(before, list) and isinstance(value, list) else value
        read = len(words) - len(part.rest)
        if read and words[read - 1] == "--":
            found.rest += part.rest
            break
        found.rest += part.rest[:1]
        words = part.rest[1:]
    return found
