"""The word that somebody probably meant. Loaded only when a word was wrong."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def suggest(word: str, known: Iterable[str]) -> str:
    """The known word that is nearest to `word`, or "" where none is near: about one slip in three letters."""
    if len(word) > 40:
        return ""
    best, least = "", (1 + max(1, len(word.strip("-")) // 3), 0, False)
    for candidate in known:
        slips = _slips(word, candidate)
        begun = candidate.startswith(word)
        # A word that was only begun is near too: --host for --hostname.
        if begun and len(word.strip("-")) > 2:
            slips = min(slips, 1)
        if (rank := (slips, abs(len(candidate) - len(word)), not begun)) < least:
            best, least = candidate, rank
    return best


def _slips(one: str, other: str) -> int:
    """How many letters were dropped, added, changed or swapped with their neighbour to make `other` of `one`."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
