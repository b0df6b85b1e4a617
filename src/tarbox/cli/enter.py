"""`tarbox enter --net … TARGET -- COMMAND`: a command of the host's in chosen namespaces of something that runs.

tarbox enter --net 4711 -- ip addr
"""

from __future__ import annotations

from ..errors import CommandNotFoundError, UsageError
from .arguments import Arguments, Option, Verb, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Globals

KINDS = ("mount", "uts", "ipc", "network", "pid", "cgroup", "user", "time")
TARGET = (
    " TARGET is the number of a process, pidfd:N for that of an open descriptor, or the id of a running container, or"
    " the beginning of it"
)
WORKDIR = Option(("workdir", "w"), "DIR", "Start in this directory")
VERB = Verb(
    "enter",
    "[OPTIONS] TARGET [--] [COMMAND [ARG...]]",
    "Run a command in chosen namespaces of something that runs, and keep the rest of the host: its files, control"
    " groups and rights stay yours, so that the host's own programs can be used in there. Without COMMAND it is your"
    " shell."
    + TARGET
    + "; or a name from 'tarbox ns create', or the path of a namespace. Of a name or a path all is entered when no kind"
    " is chosen. No descriptors but the three standard ones are handed on.",
    (
        Option(("network", "net"), "", "Its network"),
        Option(("pid",), "", "Its process numbers; /proc stays the host's unless --mount brings the target's"),
        Option(("mount",), "", "Its mounts and its root: COMMAND is then one of its programs, with all your rights"),
        Option(("uts",), "", "Its host name"),
        Option(("ipc",), "", "Its System V IPC and message queues"),
        Option(("cgroup", "cgroupns"), "", "Its view of the control groups; limits don't go with it"),
        Option(("user", "userns"), "", "Its ids, as root there if it has one; plain users need it for the others"),
        Option(("time",), "", "Its clocks"),
        Option(("all", "a"), "", "All of these that it doesn't share with you"),
        WORKDIR,
    ),
    examples=(
        ("tarbox enter --net 4711 -- ip addr", "The host's ip in the network of a process."),
        ("tarbox enter --all 3d1f -- ps", "The ps of a container, inside, but without its limits and filters."),
        ("tarbox enter lab1 -- ping -c 1 127.0.0.1", "In lasting namespaces."),
        ("tarbox enter /run/netns/blue -- ss -tl", "In a network of 'ip netns'."),
    ),
)  # fmt: skip


def main(words: list[str], settings: Globals, told: list[str] | None = None) -> int:
    """Run a command in namespaces of a target and return its exit code. told: takes the steps, and none is done."""
    target, command, given = split(VERB, words)
    kinds = {kind for kind in KINDS if given.values.get(kind) is True}
    everything = given.values.get("all") is True
    if everything and kinds:
        raise UsageError("--all is all of them", "leave the others out")
    from ..engine.enter import enter

    try:
        return enter(target, kinds, everything, command, str(given.values.get("workdir") or ""), settings.root, told)
    except CommandNotFoundError as error:
        if "mount" in kinds or everything:
            error.hint = "with --mount it is looked for in the target's files; without, in the host's"
        raise


def split(verb: Verb, words: list[str]) -> tuple[str, list[str], Arguments]:
    """The target, the command after it, and the options, which may come before the target and after it."""
    given = parse(verb, words)
    if not given.rest:
        raise UsageError(f"{verb.name} needs a target", f"e.g. 'tarbox {verb.examples[0][0].split(' ', 1)[1]}'")
    target, after = given.rest[0], parse(verb, given.rest[1:])
    given.values |= after.values
    directory = given.values.get("workdir")
    if directory is not None and not str(directory).startswith("/"):
        raise UsageError(f"-w {directory} is not an absolute path", "it is a directory as seen from there")
    return target, after.rest, given
