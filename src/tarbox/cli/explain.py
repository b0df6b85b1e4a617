"""`tarbox explain run ...`: the steps that a run would take, told one by one. Nothing is done; no root is needed."""

from __future__ import annotations

from ..engine.values import shorten
from ..errors import UsageError
from .arguments import Option, Verb, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Globals

VERB = Verb(
    "explain",
    "[--script] run [OPTIONS] IMAGE [COMMAND [ARG...]]",
    "Tell every step that a run would take, in order: its system call, the shell command that does the same, why it is"
    " there and where its manual is. Nothing is done. The options are those of 'tarbox run'.",
    (
        Option(
            ("script",),
            "",
            "Write a shell script instead, which makes the same container with unshare, mount, pivot_root …",
        ),
    ),
    examples=(
        ("tarbox explain run -m 50m host sh", "How a container with a memory limit is made."),
        ("tarbox explain --script run -m 50m host sh > box.sh; sh box.sh", "The same container without tarbox."),
    ),
)


def main(words: list[str], settings: Globals) -> int:
    """Print the steps of the command line that follows."""
    found = parse(VERB, words)
    if not found.rest or found.rest[0] != "run":
        given = f", not of {shorten(found.rest[0])!r}" if found.rest else ""
        raise UsageError(f"explain tells of 'run'{given}", "e.g. 'tarbox explain run -it host sh'")
    from ..engine.run import explain
    from .help import show
    from .run import VERB as RUN
    from .run import run_options

    command = ""
    if found.values.get("script"):
        from ..plan.shell import quote

        command = " ".join(["tarbox", *map(quote, found.rest)])
    text = explain(run_options(parse(RUN, found.rest[1:])), settings.root, command)
    show(text if text.endswith("\n") else text + "\n")
    return 0
