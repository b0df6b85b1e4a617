"""`tarbox limit`: limits for plain commands and processes, without a container.

tarbox limit -m 50m --cpus 0.5 -- make
tarbox limit create build -m 50m; tarbox limit add build 4711; tarbox limit rm build
"""

from __future__ import annotations

from ..engine.options import RunOptions
from ..errors import CommandNotFoundError, UsageError
from .arguments import Arguments, Option, Verb, parse
from .run import OPTIONS as RUN
from .run import take
from .words import anywhere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Globals

_OF_EACH = ("ulimit", "oom-score-adj")
_LIMITS = tuple(option for option in RUN if option.group == "Limits")
_OF_GROUP = tuple(option for option in _LIMITS if option.names[0] not in (*_OF_EACH, "cgroup-parent"))

VERB = Verb(
    "limit",
    "[OPTIONS] [--] COMMAND [ARG...]",
    "Run a plain command, no container, in a control group of its own with these limits. The group and what is left in"
    " it end with the command. For groups that last there are 'tarbox limit create NAME', 'set NAME' to change one,"
    " 'exec NAME COMMAND' to run a command in it, 'add NAME PID...' to move processes there, 'ls' to list them all,"
    " 'show NAME' to tell of one, 'rm NAME' to remove it; each has a --help.",
    _LIMITS,
    examples=(
        ("tarbox limit -m 500m --cpus 0.5 -- make", "A build that leaves the machine usable."),
        ("tarbox limit create build -m 500m pids.max=100", "A group that lasts, with limits by option or by control."),
        ("tarbox limit exec build -- make", "The same build in that group, together with others."),
        ("tarbox limit add build 4711", "A process that runs already, and all its threads."),
        ("tarbox limit rm build", "Remove the group when nothing is in it any more."),
    ),
)
_KEYS = "KEY is a control's file, of cgroup v1 or v2 (memory.max or memory.limit_in_bytes), whatever this machine has."
_CREATE = Verb("limit create", "NAME [OPTIONS] [KEY=VALUE...]", f"Make a control group that lasts. {_KEYS}", _OF_GROUP)
_SET = Verb(
    "limit set",
    "NAME [OPTIONS] [KEY=VALUE...]",
    f"Change limits of a lasting group; -m 0, --cpus 0 and --pids-limit -1 lift them. {_KEYS}",
    _OF_GROUP,
)
_EXEC = Verb(
    "limit exec",
    "NAME [OPTIONS] [--] COMMAND [ARG...]",
    "Run a command in a lasting group.",
    tuple(option for option in _LIMITS if option.names[0] in _OF_EACH),
)
_ADD = Verb(
    "limit add",
    "NAME PID...",
    "Move living processes into a lasting group, with their threads. What they start from then on is in it too; memory"
    " that they have already stays counted where it was.",
)
_LS = Verb(
    "limit ls",
    "[--json]",
    "List the lasting groups: what they use, of how much, and how many processes are in them.",
    (Option(("json",), "", "As JSON, for programs"), Option(("quiet", "q"), "", "Only the names")),
)
_SHOW = Verb(
    "limit show",
    "NAME [--json]",
    "Tell what a lasting group uses and may use, where it is, and which processes are in it.",
    (Option(("json",), "", "As JSON, for programs"),),
)
_RM = Verb(
    "limit rm",
    "[OPTIONS] NAME...",
    "Remove lasting groups that nothing is in any more.",
    (
        Option(("force", "f"), "", "Kill the processes that are in it"),
        Option(("release",), "", "Let them go on outside, in the group that this command is in"),
    ),
)
_SUBVERBS = {
    "create": _CREATE, "set": _SET, "exec": _EXEC, "add": _ADD, "ls": _LS, "list": _LS, "show": _SHOW, "rm": _RM,
    "remove": _RM,
}  # fmt: skip


def main(words: list[str], settings: Globals) -> int:
    """Run a command with limits, or do something with a lasting group."""
    if is_lasting(words):
        return _lasting(_SUBVERBS[words[0]], words[1:], settings.root)
    command, options = command_and_limits(words)
    from ..engine.limits import run

    try:
        return run(command, options, settings.root)
    except CommandNotFoundError as error:
        if words[0] == command[0]:  # perhaps it wasn't meant to be a command
            from ..engine.nearest import suggest

            near = suggest(words[0], _SUBVERBS)
            error.hint = f"did you mean 'tarbox limit {near}'?" if near else error.hint
        raise


def command_and_limits(words: list[str]) -> tuple[list[str], RunOptions]:
    """The command of a `limit` without a name, and its limits."""
    found = parse(VERB, words)
    if not found.rest:
        raise UsageError("no command to limit", "e.g. 'tarbox limit -m 50m -- make'; see 'tarbox limit --help'")
    return found.rest, _options(found)


def is_lasting(words: list[str]) -> bool:
    """Whether these words are about a group that lasts."""
    return bool(words) and words[0] in _SUBVERBS


def _lasting(verb: Verb, words: list[str], root: str | None) -> int:
    from ..engine import lasting_groups

    if verb is _EXEC:
        return _execute(words, root)
    found = anywhere(verb, words)
    if verb is _LS:
        return _list(found, root)
    if not found.rest:
        raise UsageError(f"'{verb.command()}' needs the name of a group", f"see '{verb.command()} --help'")
    if verb is _RM:
        if found.values.get("force") and found.values.get("release"):
            raise UsageError(
                "--force and --release cannot both be set", "one kills the processes, the other keeps them"
            )
        for group in found.rest:
            kill, release = found.values.get("force") is True, found.values.get("release") is True
            lasting_groups.remove(lasting_groups.name(group), kill, release, root)
        return 0
    group = lasting_groups.name(found.rest[0])
    if verb is _SHOW:
        from .limit_list import show

        _only(verb, found.rest, 1)
        return show(group, found.values.get("json") is True)
    if verb is _ADD:
        numbers = [_number(word) for word in found.rest[1:]]
        if not numbers:
            raise UsageError("no process to move", f"e.g. 'tarbox limit add {group} 4711'")
        lasting_groups.add(group, numbers, root)
        return 0
    options = _options(found)
    from ..engine.limit_values import control

    options.cgroup_conf += [control(word) for word in found.rest[1:]]
    if verb is _CREATE:
        lasting_groups.create(group, options, root)
    else:
        zeros = (("memory", "memory"), ("cpus", "cpus"), ("pids-limit", "pids"))
        lifted = [what for key, what in zeros if found.values.get(key) == 0]
        lasting_groups.change(group, options, lifted, root)
    return 0


def _execute(words: list[str], root: str | None) -> int:
    from ..engine import lasting_groups

    first = parse(_EXEC, words)  # options may come before the name and after it
    rest = parse(_EXEC, first.rest[1:])
    if not rest.rest:
        what = "command" if first.rest else "group and no command"
        raise UsageError(f"no {what} to run", "e.g. 'tarbox limit exec build -- make'")
    rest.values = {**first.values, **rest.values}
    return lasting_groups.execute(lasting_groups.name(first.rest[0]), rest.rest, _options(rest), root)


def _options(found: Arguments) -> RunOptions:
    options = RunOptions()
    take(options, found.values)
    return options


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and 0 < len(word) < 10 and int(word)):
        from ..engine.values import shorten

        raise UsageError(f"{shorten(word)!r} is not the number of a process", "'pgrep NAME' tells it")
    return int(word)


def _only(verb: Verb, words: list[str], most: int) -> None:
    if len(words) > most:
        from ..engine.values import shorten

        raise UsageError(f"{shorten(words[most])!r} is one word too many", f"see '{verb.command()} --help'")


def _list(found: Arguments, root: str | None) -> int:
    from .limit_list import names_only, table

    _only(_LS, found.rest, 0)
    if found.values.get("quiet") is True:
        return names_only(root)
    return table(found.values.get("json") is True, root)
