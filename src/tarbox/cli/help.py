"""`tarbox help [COMMAND]`, and the pages that `--help` shows: laid out from the same tables that the parser reads."""

from __future__ import annotations

from ..errors import TarboxError, UsageError
from ..unistd import os
from .arguments import HELP, Option, Verb, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .main import Globals

_VERB = Verb("help", "[COMMAND]", "Show the help of tarbox, or of one of its commands.")


def main(words: list[str], settings: Globals) -> int:
    """Print the help of the verb that is named, or of tarbox."""
    found = parse(_VERB, words)
    if len(found.rest) > 1:
        raise UsageError("help takes one command", "e.g. 'tarbox help run'")
    show(verb_help(verb_named(found.rest[0] if found.rest else "")))
    return 0


def verb_named(name: str) -> Verb:
    """The table of a verb; "" is tarbox itself. Raises UsageError when there is none by that name."""
    from . import main as tarbox

    if not name:
        return tarbox.TARBOX
    if name == "run":
        from . import run

        return run.VERB
    if name == "explain":
        from . import explain

        return explain.VERB
    if name == "what":
        from . import what

        return what.VERB
    if name == "caps":
        from . import caps

        return caps.VERB
    if name == "ns":
        from . import ns

        return ns.VERB
    if name == "network":
        from . import network_options

        return network_options.VERB
    if name == "limit":
        from . import limit

        return limit.VERB
    if name == "isolate":
        from . import isolate

        return isolate.VERB
    if name == "enter":
        from . import enter

        return enter.VERB
    if name == "debug":
        from . import debug

        return debug.VERB
    if name == "version":
        from . import version

        return version.VERB
    if name == "help":
        return _VERB
    raise tarbox.unknown_verb(name)


def show(text: str) -> None:
    """Write to standard output; raises BrokenPipeError, or a TarboxError where it can't be written."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TarboxError(f"can't write to standard output: {error.strerror}") from None


def verb_help(verb: Verb, width: int = 0) -> str:
    """The help of a verb for a terminal of `width` columns; 0 is the one at standard output."""
    width = width or _columns()
    lines = [f"Usage: {verb.command()} {verb.usage}".rstrip(), "", *_fold(verb.summary, width)]
    if not verb.name:
        from .main import VERBS

        lines += ["", "Commands:", *_table(VERBS.items(), 12, width)]
    groups: dict[str, list[Option]] = {}
    for option in (*verb.options, HELP):
        groups.setdefault(option.group, []).append(option)
    column = min(32, max(16, width // 3))
    for title, options in groups.items():
        rows = [(_spelling(option), option.help) for option in options]
        lines += ["", f"{title or 'Options'}:", *_table(rows, column, width)]
    if verb.examples:
        lines += ["", "Examples:"]
        for command, what in verb.examples:
            lines += [f"  {command}", *_fold(what, width, 6)]
    if not verb.name:
        lines += ["", "'tarbox COMMAND --help' shows the options of a command."]
    return "\n".join(lines) + "\n"


def _spelling(option: Option) -> str:
    shorts = [option.dashed(name) for name in option.names if len(name) == 1]
    longs = [option.dashed(name) for name in option.names if len(name) > 1]
    lead = ", ".join(shorts + longs) if shorts else "    " + ", ".join(longs)
    return f"{lead} {option.metavar}".rstrip()


def _table(rows: Iterable[tuple[str, str]], column: int, width: int) -> list[str]:
    """Two columns, the right one `column` wide from the left; what is too wide on the left gets its own line."""
    lines: list[str] = []
    for left, right in rows:
        folded = _fold(right, width, column + 2)
        if len(left) + 2 > column:
            lines += [f"  {left}", *folded]
        else:
            lines += [f"  {left}".ljust(column + 2) + folded[0].lstrip(), *folded[1:]]
    return lines


def _fold(text: str, width: int, indent: int = 0) -> list[str]:
    """The text in lines of at most `width` columns, each indented; a word that is longer stays whole."""
    margin, line = " " * indent, ""
    lines: list[str] = []
    room = max(20, width - indent)
    for word in text.split():
        if line and len(line) + 1 + len(word) > room:
            lines.append(margin + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, margin + line]


def _columns() -> int:
    """How wide help is laid out: the terminal's width, at most 100; 80 where there is no terminal."""
    try:
        width = os.get_terminal_size(1).columns
    except OSError:
        width = 0
    return min(width, 100) if width >= 40 else 80
