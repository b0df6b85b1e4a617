"""`tarbox explain run ...`, `isolate`, `limit`, `enter` or `debug`: the steps that it would take, told one by one.

tarbox explain run -m 50m host sh
tarbox explain isolate --net -- ip addr

Nothing is done, and no root is needed but for looking at what `enter` and `debug` are to enter.
"""

from __future__ import annotations

from ..engine.values import shorten
from ..errors import UsageError
from .arguments import Option, Verb, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Globals

_VERBS = ("run", "isolate", "limit", "enter", "debug")
VERB = Verb(
    "explain",
    "[--script] run|isolate|limit|enter|debug [OPTIONS] ...",
    "Tell every step that a run would take, in order: its system call, the shell command that does the same, why it is"
    " there and where its manual is. Nothing is done. What follows is the command line of 'tarbox run', or of isolate,"
    " limit, enter or debug.",
    (
        Option(
            ("script",),
            "",
            "Write a shell script instead, which makes the same container with unshare, mount, pivot_root …; of run"
            " alone",
        ),
    ),
    examples=(
        ("tarbox explain run -m 50m host sh", "How a container with a memory limit is made."),
        ("tarbox explain --script run -m 50m host sh > box.sh; sh box.sh", "The same container without tarbox."),
        ("tarbox explain isolate --net -- ip addr", "How a command gets a network of its own."),
        ("tarbox explain enter --all 4711 -- ps", "How a command goes to a process, step by step."),
    ),
)


def main(words: list[str], settings: Globals) -> int:
    """Print the steps of the command line that follows."""
    found = parse(VERB, words)
    verb = found.rest[0] if found.rest else ""
    if verb not in _VERBS:
        given = f", not of {shorten(verb)!r}" if found.rest else ""
        raise UsageError(f"explain tells of {', '.join(_VERBS)}{given}", "e.g. 'tarbox explain run -it host sh'")
    command = ""
    if found.values.get("script"):
        if verb != "run":
            raise UsageError(
                f"--script writes a container, not what {verb} does: a script is shells within shells, and what a plain"
                " command keeps of its caller (descriptors, variables, the terminal) it wouldn't keep",
                f"'tarbox explain {verb}' shows each step's own command",
            )
        from ..plan.shell import quote

        command = " ".join(["tarbox", *map(quote, found.rest)])
    from .help import show

    text = _told(verb, found.rest[1:], settings, command)
    show(text if text.endswith("\n") else text + "\n")
    return 0


def _told(verb: str, words: list[str], settings: Globals, command: str) -> str:
    if verb == "run":
        from ..engine.run import explain
        from .run import VERB as RUN
        from .run import run_options

        return explain(run_options(parse(RUN, words)), settings.root, command)
    if verb == "isolate":
        from ..engine.isolate import explain as explain_parts
        from .isolate import VERB as ISOLATE
        from .isolate import isolate_options

        return explain_parts(isolate_options(parse(ISOLATE, words)), settings.root)
    if verb == "limit":
        return _limit(words)
    told: list[str] = []
    if verb == "enter":
        from .enter import main as enter

        enter(words, settings, told)
    else:
        from .debug import main as debug

        debug(words, settings, told)
    return "".join(told)


def _limit(words: list[str]) -> str:
    from ..engine.limits import explain
    from .limit import command_and_limits, is_lasting

    if is_lasting(words):
        raise UsageError(
            f"explain tells of a command with limits, not of 'limit {words[0]}'",
            "a group that lasts is made by the same steps: tarbox explain limit -m 50m -- true",
        )
    return explain(*command_and_limits(words))
