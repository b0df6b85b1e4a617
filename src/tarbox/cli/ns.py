"""`tarbox ns ls`: the namespaces of the machine, and whose they are."""

from __future__ import annotations

from ..errors import UsageError
from .arguments import Option, Verb, parse
from .layout import as_json, columns, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runtime.namespace_list import Place, Row
    from .main import Globals

VERB = Verb(
    "ns",
    "ls [--json] [--type KIND]",
    "List the namespaces of the machine: what kind each is, its number, how many processes are in it and which is the"
    " first, which container, service or program it belongs to, and where a mount keeps it. Root sees all;"
    " other users see those of their own processes.",
    examples=(
        ("tarbox ns ls", "All of them."),
        ("tarbox ns ls --type net", "Those for networks, also the ones that 'ip netns' keeps."),
    ),
)


def _kind(text: str) -> str:
    """A kind by its OCI name, or by the shorter one in /proc."""
    from ..engine.values import shorten
    from ..kernel.processes import KINDS, LINKS

    word = text.lower()
    if word in LINKS or word in KINDS:
        return KINDS.get(word, word)
    raise UsageError(f"there is no kind of namespace {shorten(text)!r}", f"one of {', '.join(LINKS)}")


LS = Verb(
    "ns ls",
    "[--json] [--type KIND]",
    VERB.summary,
    (
        Option(
            ("type", "t"), "KIND", "Only this kind: cgroup, ipc, mount, network, pid, time, user, uts", "", _kind, True
        ),
        Option(("json",), "", "Show them as JSON; docs/json.md has the keys"),
    ),
    examples=VERB.examples,
)


def main(words: list[str], settings: Globals) -> int:
    """Call the command that the first word names."""
    from ..engine.nearest import suggest
    from ..engine.values import shorten

    rest = parse(VERB, words).rest
    if not rest:
        raise UsageError("ns needs a command", "e.g. 'tarbox ns ls'")
    if rest[0] not in COMMANDS:
        near = suggest(rest[0].lower(), COMMANDS)
        hint = f"did you mean 'tarbox ns {near}'?" if near else f"there is: {', '.join(COMMANDS)}"
        raise UsageError(f"ns has no command {shorten(rest[0])!r}", hint)
    return COMMANDS[rest[0]](rest[1:])


def ls(words: list[str]) -> int:
    """Print the namespaces."""
    from ..engine.values import shorten
    from .help import show

    found = parse(LS, words)
    if found.rest:
        raise UsageError(
            f"ns ls takes no arguments, and {shorten(found.rest[0])!r} is one", "see 'tarbox ns ls --help'"
        )
    kinds = found.values.get("type")

    from ..runtime.namespace_list import listing

    listed = listing(set(kinds) if isinstance(kinds, list) else None)
    if found.values.get("json"):
        show(as_json(listed))
        return 0
    head = ["KIND", "NUMBER", "PROCESSES", "PID", "COMMAND", "BELONGS TO"]
    lines = columns([head, *map(_cells, listed["namespaces"])], right=(2, 3))
    unseen = listed["unseen_processes"]
    if unseen:
        lines.append(f"Not looked into, as you may not see their namespaces: {unseen} processes.")
    show("\n".join(lines) + "\n")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {"ls": ls}


def _cells(row: Row) -> list[str]:
    command = printable(row["command"] or "-", 40)
    return [row["kind"], str(row["inode"]), str(row["processes"]), str(row["pid"] or "-"), command, _belongs(row)]


def _where(place: Place) -> str:
    return f" in the mounts of {place['seen_by']}" if place["seen_by"] else ""


def _belongs(row: Row) -> str:
    told = [f"kept at {printable(place['path'])}{_where(place)}" for place in row["places"]]
    owner = row["owner"]
    if row["of_machine"]:
        told.insert(0, "the machine")
    elif owner:
        told.insert(0, printable(f"{owner['engine']} {owner['id'][:32]}".rstrip()))
    elif row["unit"] and row["pid"]:
        told.insert(0, printable(row["unit"]))
    elif row["made_by"]:
        told.insert(0, f"made by {printable(row['made_by'], 30)}")
    elif not row["processes"] and not row["places"]:
        told.append("held by a namespace below, or a descriptor")
    return ", ".join(told)
