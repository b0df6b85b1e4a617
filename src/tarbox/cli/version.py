"""`tarbox version`: what somebody who reports a problem is asked for."""

from __future__ import annotations

import sys

from ..engine.values import shorten
from ..errors import UsageError
from ..unistd import os
from .arguments import Option, Verb, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Globals

TARBOX = "0.1.0"

VERB = Verb(
    "version",
    "[--short]",
    "Show the versions of tarbox, Python and the kernel.",
    (Option(("short",), "", "Show the version of tarbox alone"),),
)


def main(words: list[str], settings: Globals) -> int:
    """Print the versions."""
    from .help import show

    found = parse(VERB, words)
    if found.rest:
        raise UsageError(
            f"version takes no arguments, and {shorten(found.rest[0])!r} is one", "see 'tarbox version --help'"
        )
    if found.values.get("short"):
        show(f"tarbox {TARBOX}\n")
        return 0
    system = os.uname()
    python = ".".join(map(str, sys.version_info[:3]))
    show(
        f"tarbox   {TARBOX}\n"
        f"Python   {python} ({sys.executable})\n"
        f"Kernel   {system.sysname} {system.release} {system.machine}\n"
    )
    return 0
