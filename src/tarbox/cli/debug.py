"""`tarbox debug TARGET`: look at something that runs from inside its namespaces, with the host's tools.

tarbox debug 3d1f -- strace -p 1
"""

from __future__ import annotations

from .arguments import Verb
from .enter import TARGET, WORKDIR, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Globals

VERB = Verb(
    "debug",
    "TARGET [--] [COMMAND [ARG...]]",
    "Run a command of the host's, or your shell, in the namespaces of a process or container, to find out what ails it:"
    " its processes, network, host name, IPC and ids, so that ps, strace, ss and gdb see what it sees. The files"
    " are the host's, with the target's own below /proc/1/root (below /proc/PID/root where it has no processes of"
    " its own). It isn't in the target's control group, so that it uses none of its memory, and isn't bound by its"
    " filter and lack of capabilities: what you change there is changed." + TARGET + ".",
    (WORKDIR,),
    examples=(
        ("tarbox debug 3d1f -- ps aux", "The processes of a container that has no ps."),
        ("tarbox debug 3d1f -- strace -p 1", "What its first process is doing."),
        ("tarbox debug 3d1f -- ls -l /proc/1/root/etc", "Its files."),
    ),
)  # fmt: skip


def main(words: list[str], settings: Globals, told: list[str] | None = None) -> int:
    """Run a command beside a target and return its exit code. told: takes the steps, and none is done."""
    target, command, given = split(VERB, words)
    from ..engine.enter import debug

    return debug(target, command, str(given.values.get("workdir") or ""), settings.root, told)
