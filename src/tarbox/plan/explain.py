"""Telling a plan: every step by phase, with its system call, its spelling in a shell, why it is done, and what to read.

tarbox explain run IMAGE COMMAND; tarbox explain isolate --net COMMAND
"""

from __future__ import annotations

from .shell import with_variables
from .step import PARENT, RUNNER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import Handover, Plan
    from .step import Step

_PHASES = {
    "image": "The image is unpacked",
    "host": "On the host",
    "namespaces": "A process, and namespaces of its own",
    "filesystem": "What it will see as files",
    "root": "A new root",
    "privileges": "What it may no longer do",
    "exec": "The program",
}


class Words:
    """How a kind of plan is spoken of. made: what all its steps do. known: what stands for what, in lines. runner: who
    takes the last ones. phases: the headings that are others.
    """

    __slots__ = ("known", "made", "phases", "runner")

    def __init__(self, made: str, known: tuple[str, ...], runner: str, phases: Mapping[str, str]) -> None:
        self.made = made
        self.known = known
        self.runner = runner
        self.phases = phases


_SHELL = "$ is the same in a shell; where there is none, a shell can't do it."
CONTAINER = Words(
    "make this container",
    (
        f"{_SHELL} $ID is the container's id, new each time,",
        "$ROOT where its root is put together, $TREES what is mounted but not in place, COMMAND what follows.",
    ),
    "the container's first process, inside",
    {},
)
# A command that stays the caller's, with parts of a container or in those of others.
PLAIN = Words(
    "start this command",
    (
        f"{_SHELL} $ID is a name of its own, new each time,",
        "$ROOT where a new root is put together, $TREES what is mounted but not in place, COMMAND what follows,",
        "$PID a process that was named or has just been made.",
    ),
    "the process that becomes the command",
    {"namespaces": "A process, and its namespaces", "exec": "The command", "privileges": "What it may do"},
)
_WIDTH = 110
_NAMED = 3  # descriptors that cross with a handover are named up to so many


def render(plan: Plan, names: Mapping[str, str], words: Words = CONTAINER) -> str:
    """The whole plan as text. Nothing is done for it.

    names: the variable by which the text calls each value that is new each time: the container's id is $ID. words: how
    it is spoken of.
    """
    who_is = {PARENT: "tarbox, outside", RUNNER: words.runner}
    lines = [f"{len(plan.steps)} steps {words.made}.", *words.known]
    phase = who = ""
    for index, step in enumerate(plan.steps):
        handover = plan.handover(index)
        if step.phase != phase:
            phase = step.phase
            lines += ["", f"== {words.phases.get(phase, _PHASES[phase])} =="]
            who = ""
        if handover:
            lines += ["", f"   -- {_handover(handover, who_is)} --"]
        elif step.by != who:
            lines += ["", f"   -- {who_is[step.by]} --"]
        who = step.by
        lines += ["", *told(index + 1, step, names)]
    return "\n".join(lines) + "\n"


def _handover(handover: Handover, who_is: Mapping[str, str]) -> str:
    slots = handover.slots
    crossing = f", with the descriptors of {', '.join(slots)}" if slots else ""
    if len(slots) > _NAMED:
        crossing = f", with {len(slots)} open descriptors"
    return f"handed over from {who_is[handover.sender]} to {who_is[handover.receiver]}{crossing}"


def in_short(step: Step, names: Mapping[str, str], most: int) -> str:
    """Its system call in one line of at most so many letters."""
    call = _named(step.call(), names)
    call = "".join(letter if letter.isprintable() else "?" for letter in call)
    return call if len(call) <= most else call[: most - 1] + "…"


def _named(call: str, names: Mapping[str, str]) -> str:
    for value, name in names.items():
        call = call.replace(value, f"${name}")
    return call


def told(number: int, step: Step, names: Mapping[str, str]) -> list[str]:
    """One step in lines: its number and system call, its command, why it is there, and where its manual is."""
    lines = _folded(f"{number:3}  ", _named(step.call(), names), "       ")
    if shell := step.shell():
        lines += _folded("     $ ", with_variables(shell, names), "         ")
    why = (step.why[:1].upper() + step.why[1:]).rstrip(".")
    lines += _folded("     ", f"{why}  [{step.man}]", "     ")
    return lines


def _folded(first: str, text: str, later: str) -> list[str]:
    """The text in lines of at most the width, broken at spaces; `first` and `later` stand before them."""
    printable = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
    lines, line = [], first
    for number, word in enumerate(printable.split(" ")):
        if number and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line.rstrip())
            line = later + word
        else:
            line += f" {word}" if number else word
    return [*lines, line.rstrip()]
