"""Words for a shell.

    printf '%s\\n' 'it'\\''s one word'

Python's own `shlex` loads its regular expressions, which costs more than a container's start.

man 1 sh
"""

from __future__ import annotations

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


def quote(word: str) -> str:
    """The word so that a shell takes it for one, and as it stands."""
    if word and _PLAIN.issuperset(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"
