"""Sets of capabilities as text: named briefly for people, and in the form that setcap reads.

    setcap cap_net_raw+ep FILE        capsh --decode=00000000a80425fb

The text is a row of clauses, "names operator flags". Names are separated by commas, `all` or none are all. Flags are
the sets: e(ffective), i(nheritable), p(ermitted). `=` gives the named ones exactly these flags, `+` adds, `-` takes
away.

man 3 cap_from_text, man 7 capabilities
"""

from __future__ import annotations

from ..errors import UsageError
from .capabilities import ALL, mask, names

DOCKER = 0xA80425FB  # the fourteen that Docker leaves a container, and tarbox too
_FEW = 3  # as many names of missing ones are listed


class Sets:
    """Three sets of capabilities, each a number: `permitted`, `inheritable`, `effective`."""

    __slots__ = ("effective", "inheritable", "permitted")

    def __init__(self, permitted: int = 0, inheritable: int = 0, effective: int = 0) -> None:
        self.permitted = permitted
        self.inheritable = inheritable
        self.effective = effective


def last() -> int:
    """The set of all capabilities that this kernel has."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
            return int((1 << int(file.read()) + 1) - 1)
    except (OSError, ValueError):
        return ALL


def summary(capabilities: int, every: int) -> str:
    """A set in a few words. every: the set of those that the kernel has."""
    listed = " ".join(short(capabilities))
    if not capabilities:
        return "none"
    if capabilities & every == every:
        return "all"
    missing = every & ~capabilities
    if missing.bit_count() <= _FEW:
        return f"all but {' '.join(short(missing))}"
    if capabilities == DOCKER:
        return f"Docker's default: {listed}"
    return listed


def short(capabilities: int) -> list[str]:
    """The names in a set as setcap spells them: `cap_chown`."""
    return [name.lower() for name in names(capabilities)]


def parse(text: str, every: int) -> Sets:
    """The sets that a text describes; raises UsageError. every: the set that `all` means."""
    state = {"e": 0, "i": 0, "p": 0}
    for clause in text.split():
        _apply(clause, state, every)
    return Sets(state["p"], state["i"], state["e"])


def _apply(clause: str, state: dict[str, int], every: int) -> None:
    first = min((clause.find(sign) for sign in "=+-" if sign in clause), default=-1)
    if first < 0:
        raise UsageError(f"{clause!r} doesn't say which sets", f"e.g. {clause}=ep, for effective and permitted")
    listed, rest = clause[:first], clause[first:]
    if not listed and rest[0] != "=":
        raise UsageError(f"{clause!r} names no capability", f"for all of them: all{clause}")
    chosen = every if listed.lower() in ("", "all") else mask(listed.split(","))
    while rest:
        sign, end = rest[0], 1
        while end < len(rest) and rest[end] not in "=+-":
            end += 1
        letters, rest = rest[1:end], rest[end:]
        wrong = letters.strip("eip")
        if wrong:
            raise UsageError(f"{clause!r} has the set {wrong[0]!r}", "sets are e(ffective), i(nheritable), p(ermitted)")
        if not letters and sign != "=":
            raise UsageError(f"{clause!r} doesn't say which sets", "e, i or p after the sign")
        for letter in state:
            if sign == "=":
                state[letter] &= ~chosen
            if letter in letters:
                state[letter] = state[letter] & ~chosen if sign == "-" else state[letter] | chosen


def form(sets: Sets, every: int) -> str:
    """The text of the three sets, `parse` of which is the same sets; "=" when all are empty."""
    groups: dict[str, int] = {}
    for number in range((sets.permitted | sets.inheritable | sets.effective).bit_length()):
        bit = 1 << number
        flags = "".join(
            letter
            for letter, held in (("e", sets.effective), ("i", sets.inheritable), ("p", sets.permitted))
            if held & bit
        )
        if flags:
            groups[flags] = groups.get(flags, 0) | bit
    clauses = [f"{'all' if held == every else ','.join(short(held))}={flags}" for flags, held in groups.items()]
    return " ".join(clauses) or "="
