"""`tarbox ns`: the namespaces of the machine and whose they are, and some that last without a process."""

from __future__ import annotations

from ..engine.values import shorten
from ..errors import UsageError
from .arguments import Option, Verb, parse
from .layout import as_json, columns, printable
from .words import anywhere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runtime.namespace_list import Place, Row
    from .main import Globals

VERB = Verb(
    "ns",
    "ls|create|rm ...",
    "List the namespaces of the machine, or make some that have a name and last without a process: 'tarbox ns create"
    " --net NAME' makes them, 'tarbox enter NAME COMMAND' runs a command in them, 'tarbox ns rm NAME' removes them, and"
    " 'tarbox ns ls' shows all there are. Each has a --help.",
    examples=(
        ("tarbox ns ls", "All of them."),
        ("tarbox ns ls --type net", "Those for networks, also the ones that 'ip netns' keeps."),
        ("tarbox ns create --net --uts lab1", "A network and a host name that last."),
        ("tarbox enter lab1 -- ip addr", "A command in them."),
        ("tarbox ns rm lab1", "Removed."),
    ),
)


def _kind(text: str) -> str:
    """A kind by its OCI name, or by the shorter one in /proc."""
    from ..kernel.processes import KINDS, LINKS

    word = text.lower()
    if word in LINKS or word in KINDS:
        return KINDS.get(word, word)
    raise UsageError(f"there is no kind of namespace {shorten(text)!r}", f"one of {', '.join(LINKS)}")


def _hostname(text: str) -> str:
    from ..engine.values import hostname

    return hostname(text)


LS = Verb(
    "ns ls",
    "[--json] [--type KIND]",
    "List the namespaces of the machine: what kind each is, its number, how many processes are in it and which is the"
    " first, which container, service or program it belongs to, its name if it has one, and where a mount keeps it."
    " Root sees all; other users see those of their own processes.",
    (
        Option(
            ("type", "t"), "KIND", "Only this kind: cgroup, ipc, mount, network, pid, time, user, uts", "", _kind, True
        ),
        Option(("json",), "", "Show them as JSON; docs/json.md has the keys"),
    ),
    examples=VERB.examples[:2],
)
_KINDS = ("mount", "uts", "ipc", "network", "pid", "cgroup", "user", "time")
CREATE = Verb(
    "ns create",
    "[OPTIONS] NAME",
    "Make namespaces of these kinds that stay, without a process in them, until 'tarbox ns rm NAME' or a reboot. A new"
    " network has a loopback that is up; in a user namespace everybody keeps their number.",
    (
        Option(("network", "net"), "", "Network"),
        Option(("uts",), "", "Host name"),
        Option(("hostname", "h"), "NAME", "The same, with this host name", "", _hostname),
        Option(("ipc",), "", "System V IPC and POSIX message queues"),
        Option(("mount",), "", "Mounts: a copy of the machine's"),
        Option(("cgroup",), "", "Control groups: the caller's group looks like the uppermost"),
        Option(("user",), "", "Ids and capabilities; it owns the others that are made with it"),
        Option(("time",), "", "The clocks for uptime and the monotonic one"),
        Option(("pid",), "", "Refused: a PID namespace ends with its first process"),
    ),
    examples=VERB.examples[2:],
)
RM = Verb(
    "ns rm",
    "[OPTIONS] NAME...",
    "Remove lasting namespaces that no process is in any more.",
    (Option(("force", "f"), "", "Also while processes are in them, which go on: the namespaces end with the last"),),
)


def main(words: list[str], settings: Globals) -> int:
    """Call the command that the first word names."""
    from ..engine.nearest import suggest

    rest = parse(VERB, words).rest
    if not rest:
        raise UsageError("ns needs a command", "e.g. 'tarbox ns ls'")
    if rest[0] not in COMMANDS:
        near = suggest(rest[0].lower(), COMMANDS)
        hint = f"did you mean 'tarbox ns {near}'?" if near else f"there is: {', '.join(COMMANDS)}"
        raise UsageError(f"ns has no command {shorten(rest[0])!r}", hint)
    return COMMANDS[rest[0]](rest[1:], settings)


def create(words: list[str], settings: Globals) -> int:
    """Make lasting namespaces."""
    read = anywhere(CREATE, words)
    found, names = read.values, read.rest
    if len(names) != 1:
        what = "needs a name" if not names else f"makes one at a time, and {shorten(names[1])!r} is a second name"
        raise UsageError(f"ns create {what}", "e.g. 'tarbox ns create --net lab1'")
    from ..engine import lasting_namespaces as lasting

    hostname = found.get("hostname")
    kinds = {kind for kind in _KINDS if found.get(kind) is True} | ({"uts"} if hostname else set())
    lasting.create(
        lasting.name(names[0]), tuple(kind for kind in _KINDS if kind in kinds), str(hostname or ""), settings.root
    )
    return 0


def rm(words: list[str], settings: Globals) -> int:
    """Remove lasting namespaces."""
    read = anywhere(RM, words)
    found, names = read.values, read.rest
    if not names:
        raise UsageError("ns rm needs a name", "'tarbox ns ls' shows them")
    from ..engine import lasting_namespaces as lasting

    for name in names:
        lasting.remove(name, found.get("force") is True, settings.root)
    return 0


def ls(words: list[str], settings: Globals) -> int:
    """Print the namespaces."""
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


COMMANDS: dict[str, Callable[[list[str], Globals], int]] = {
    "ls": ls, "list": ls, "create": create, "rm": rm, "remove": rm,
}  # fmt: skip


def _cells(row: Row) -> list[str]:
    command = printable(row["command"] or "-", 40)
    return [row["kind"], str(row["inode"]), str(row["processes"]), str(row["pid"] or "-"), command, _belongs(row)]


def _where(place: Place) -> str:
    return f" in the mounts of {place['seen_by']}" if place["seen_by"] else ""


def _belongs(row: Row) -> str:
    told = [f"lasting: {printable(row['name'])}"] if row["name"] else []
    told += [f"kept at {printable(place['path'])}{_where(place)}" for place in row["places"]]
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
