"""A plan as a shell script that makes the same container, with the tools of a plain Debian.

    tarbox explain --script run IMAGE COMMAND > box.sh; sh box.sh

The script has the processes of the plan, each a shell of its own, and in each the steps in their order:

    outside ── groups, folders ── unshare ──────────────── waits ─────────────── takes away what it made
                                     └─ process ── unshare ── mounts … rights ── sh ── becomes the program
                  helper ───────────────────────────────────── pivot_root, umount ─┘

A shell knows no mount that is attached nowhere. What the parent opens is therefore mounted inside, in a folder that
only the container's mount namespace has, and is moved to its place; and places are looked for when what lies above is
there. All tools come from the host's files: they are executed before the root changes. The last shell, which has given
up its rights by then and needs no tool any more, tells a helper outside through a fifo, and the helper changes the root
under its feet. So no program of the image runs before the container's own.

How a step is written is its `shell()`, or what the caller has instead:

    ... COMMAND        a program that executes another one: it is put before the program
    ... sh             a shell in which everything that follows happens
    nsenter ...        done from outside when all is ready, as is what the parent does once there is a process
    # ...              a shell can't; why

man 1 sh, man 1 unshare, man 1 nsenter, man 8 pivot_root
"""

from __future__ import annotations

from .shell import with_variables
from .step import PARENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .plan import Plan
    from .step import Step

_WIDTH = 110
_SHELL, _WRAPPER, _OUTSIDE = " sh", " COMMAND", "nsenter "
_TREE = "tree"
# Which package a program is in, and what may stand before its name in a command.
_TOOLS = {
    "unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux", "setsid": "util-linux",
    "prlimit": "util-linux", "pivot_root": "util-linux", "mount": "mount", "umount": "mount", "ip": "iproute2",
    "hostname": "hostname", "domainname": "hostname", "bash": "bash", "mkfifo": "coreutils", "env": "coreutils",
    "tar": "tar", "curl": "curl", "nft": "nftables", "sysctl": "procps",
}  # fmt: skip


class About:
    """What a script says of itself, and what it is given.

    command: what was asked for, as typed. user: the id of the user for whom the plan was made. names: the variable for
    each value that is another each time. variables: the first value of each, as a shell writes it, in their order.
    functions: shell functions that the steps use. undo: for each kind of record, the command that takes it away; {} is
    its name. lacking: what a shell can't do, a line each.
    """

    __slots__ = ("command", "functions", "lacking", "names", "undo", "user", "variables")

    def __init__(self, command: str, user: int, names: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self.command = command
        self.user = user
        self.names = names
        self.variables = variables
        self.functions = ""
        self.undo: Mapping[str, Callable[[str], str]] = {}
        self.lacking: list[str] = []


def render(plan: Plan, about: About, spell: Callable[[Step], str]) -> str:
    """The script. spell: how a step is written, "" where a shell can't; its text may have several lines."""
    script = _Script(plan, about, spell)
    return script.text()


def in_order(plan: Plan) -> list[int]:
    """The indices of a plan's steps in the order of a shell, which attaches what it makes at once.

    A parent's step after the process is there, or one that makes or looks for files of the container, is put where the
    runner has attached all that came before it.
    """
    steps = plan.steps
    first = next(
        (index for index, step in enumerate(steps) if step.by == PARENT and step.phase == "filesystem"), plan.spawn
    )
    queue = [index for index in range(first, plan.spawn) if steps[index].phase not in ("host", "image")]
    early = [index for index in range(plan.spawn) if index not in queue]
    spine = list(range(plan.spawn + 1, len(steps)))
    mine = {name for index in queue for name in steps[index].gives()}
    there: set[str] = {name for step in steps for name in step.gives()} - mine
    made = [*early, plan.spawn]

    def go_on(limit: Callable[[Step], bool]) -> None:
        while spine and set(steps[spine[0]].takes()) <= there and not limit(steps[spine[0]]):
            there.update(steps[spine[0]].gives())
            made.append(spine.pop(0))

    go_on(lambda step: step.phase != "namespaces")
    for index in queue:
        step = steps[index]
        if _TREE in step.takes():
            go_on(lambda step: step.phase not in ("namespaces", "filesystem"))
        made.append(index)
        there.update(step.gives())
    return made + spine


class _Script:
    """The making of one script."""

    def __init__(self, plan: Plan, about: About, spell: Callable[[Step], str]) -> None:
        self.plan = plan
        self.about = about
        self.spell = spell
        self.wrapped = ""  # the program of the wrapper before, when the next one of the same may join it
        self.outside: list[str] = []  # what the helper does when all is ready
        self.last: list[str] = []  # the last step, which is the program

    def text(self) -> str:
        """All of it."""
        body = self._steps(iter(in_order(self.plan)), parent=True)
        return "\n".join([*self._head("\n".join(body)), *body]) + "\n"

    def _head(self, body: str) -> list[str]:
        about = self.about
        tools = [name for name in _TOOLS if f" {name} " in body.replace("\n", " ").replace("(", " ")]
        lines = ["#!/bin/sh", *_comment(f"The container of: {about.command}"), "#"]
        lines += _comment(
            "Written by 'tarbox explain --script' for this machine and its state now: files, control groups, user."
            f" It needs {', '.join(dict.fromkeys(_TOOLS[name] for name in tools))}. Its exit code is the command's;"
            " 125 means that the container couldn't be made. ^C ends it, and all that it made goes with it."
        )
        if about.lacking:
            lines += ["#", *_comment("What tarbox does and a shell can't, or can't as well:")]
            lines += [line for text in about.lacking for line in _comment(text, "# - ", "#   ")]
        lines += ["", "set -eu", "PATH=${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin"]
        lines += [
            f"[ \"$(id -u)\" = {about.user} ] || {{ echo 'this script is for the user {about.user}' >&2; exit 125; }}",
            f"for tool in {' '.join(tools)}; do",
            '    command -v "$tool" >/dev/null || { echo "this script needs $tool" >&2; exit 125; }',
            "done",
            "",
        ]
        lines += [f"{name}={value}" for name, value in about.variables.items()]
        lines += [
            'WORK=$(mktemp -d "${TMPDIR:-/tmp}/tarbox-script-XXXXXX")  # of this script alone',
            "ROOT=$WORK/root    # where the container's root is put together",
            "TREES=$WORK/trees  # what is mounted already, but not in its place",
            f"export PATH {' '.join(about.variables)} WORK ROOT TREES",
            "container='' helper=''",
            "",
        ]
        lines += self._clean_up()
        lines += [
            "trap clean_up EXIT",
            "trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM",
            'mkdir "$ROOT" "$TREES"',
            'mkfifo "$WORK/up" "$WORK/down"  # the handover: what is inside tells the helper, and is told',
            "exec 3<&0",
        ]
        if about.functions:
            lines += ["", *_file("functions", about.functions.strip("\n").split("\n")), '. "$WORK/functions"']
        return lines

    def _clean_up(self) -> list[str]:
        """The function that takes everything away: what the journal of tarbox names, last things first."""
        lines = [
            *_comment("Takes away what is left on the host: the journal of 'tarbox run', backwards."),
            "clean_up() {",
            "    code=$?",
            "    trap '' HUP INT TERM",
            "    trap - EXIT",
            "    set +e",
            '    for process in $container $helper; do kill -KILL "$process" 2>/dev/null; done',
            "    wait",
        ]
        for kind, name in reversed(self.plan.records()):
            if kind in self.about.undo and (undo := self.about.undo[kind](name)):
                lines.append(f"    {self._named(undo)}")
        lines += ['    rm -rf --one-file-system "$WORK"', '    exit "$code"', "}"]
        return lines

    def _named(self, text: str) -> str:
        return with_variables(text, self.about.names)

    def _steps(self, ahead: Iterator[int], parent: bool, started: bool = False) -> list[str]:
        """The lines of one shell, from its first step on; those of the shells inside are within them.

        started: the steps that wrap the program have begun.
        """
        lines: list[str] = []
        for index in ahead:
            step = self.plan.steps[index]
            text = self._named(self.spell(step))
            lines += ["", *self._why(index, step)]
            if index == len(self.plan.steps) - 1:
                return lines[: -1 - len(self._why(index, step))] + self._program(index, step)
            if not text:
                lines += _comment("A shell can't do that.")
            elif text.startswith(_OUTSIDE) or (step.by == PARENT and index > self.plan.spawn):
                self.outside += [*self._why(index, step), *text.split("\n")]
                lines += _comment("This is done from outside, when all is ready: see the helper.")
            elif text.endswith(_SHELL) and step.spawns:
                return lines + self._spawned(text, ahead)
            elif text.endswith(_SHELL) and step.by == PARENT:
                return lines + self._entered(text, ahead)
            elif text.endswith(_SHELL):
                inner = self._steps(ahead, parent=False)
                before, command = _split(text)
                return [
                    *lines,
                    *before,
                    *_file("container", [*_ALL_OR_NOTHING, *inner]),
                    f'exec {command} "$WORK/container"',
                ]
            elif text.endswith(_WRAPPER):
                if not started:
                    started = True
                    at = len(lines) - len(self._why(index, step))
                    lines[at:at] = _BEGIN_WRAPPING
                lines += self._wrapper(text)
            else:
                lines += text.split("\n")
        return lines

    def _why(self, index: int, step: Step) -> list[str]:
        why = (step.why[:1].upper() + step.why[1:]).rstrip(".")
        return _comment(f"{index + 1}. {why}. [{step.man}]")

    def _wrapper(self, text: str) -> list[str]:
        *before, command = text.removesuffix(_WRAPPER).split("\n")
        program, _, options = command.partition(" ")
        if program == self.wrapped and program == "setpriv":  # one process does all that, as it must keep its rights
            command = options
        self.wrapped = program
        return [*before, f'set -- "$@" {command}']

    def _spawned(self, text: str, ahead: Iterator[int]) -> list[str]:
        """The container's first process, the helper, and the wait for their end."""
        inner = self._steps(ahead, parent=False)
        before, command = _split(text)
        helper = [
            "set -eu",
            *_comment("The container's namespace of mounts, and its root, are held before it gives up its rights:"
                      " afterwards nobody may open them without CAP_SYS_PTRACE."),
            'exec 4< "$WORK/up"',
            "read -r process <&4",
            'exec 5> "$WORK/down" 6< "/proc/$process/ns/mnt" 7< "/proc/$process/root$ROOT"',
            "echo held >&5",
            "read -r _ <&4",
            *self.outside,
            "echo changed >&5",
        ]  # fmt: skip
        return [
            *before,
            *_file("process", [*_ALL_OR_NOTHING, *inner]),
            f'setpriv --pdeathsig KILL {command} "$WORK/process" <&3 3<&- &',
            "container=$!",
            "",
            *_comment("The helper."),
            *_file("helper", helper),
            'setpriv --pdeathsig KILL sh "$WORK/helper" 3<&- &',
            "helper=$!",
            "",
            "code=0",
            'wait "$container" || code=$?',
            "container=''",
            'exit "$code"',
        ]

    def _entered(self, text: str, ahead: Iterator[int]) -> list[str]:
        """A namespace that the parent itself moves into; the shell outside waits."""
        inner = self._steps(ahead, parent=True)
        before, command = _split(text)
        return [
            *before,
            *_file("inside", ["set -eu", "container='' helper=''", '. "$WORK/functions"', "exec 3<&0", *inner]),
            f'setpriv --pdeathsig KILL {command} "$WORK/inside" <&3 3<&- &',
            "container=$!",
            "code=0",
            'wait "$container" || code=$?',
            "container=''",
            'exit "$code"',
        ]

    def _program(self, index: int, step: Step) -> list[str]:
        """The last shell and what it becomes. Its environment is the program's; our variables are its arguments."""
        places = {name: str(place) for place, name in enumerate(self.about.variables, 1)}
        text = with_variables(self.spell(step), {value: places[name] for value, name in self.about.names.items()})
        given = "".join(f' "${name}"' for name in places)
        inner = [
            "set -eu",
            "exec 7<&-",
            "echo ready >&8",
            "read -r _ <&9 || exit 125  # the root is the container's now",
            "exec 8>&- 9<&-",
            "",
            *self._why(index, step),
            *text.split("\n"),
        ]
        return [
            "",
            *_comment("The last shell: all that follows needs no program of the host. Its file is"
                      " a descriptor, since its user may not walk there."),
            *_file("program", inner),
            'exec 8> "$WORK/up"',
            "read -r process _ < /proc/self/stat  # its number outside, since this /proc still is the host's",
            'echo "$process" >&8',
            'exec 9< "$WORK/down" 7< "$WORK/program"',
            "read -r _ <&9",
            "trap - EXIT",
            f'exec "$@" env -i HOME="${{home-}}" sh /dev/fd/7{given}',
        ]  # fmt: skip


_ALL_OR_NOTHING = ["set -eu", '. "$WORK/functions"', "trap '[ $? = 0 ] || exit 125' EXIT"]
_BEGIN_WRAPPING = [
    "# From here on programs are lined up, of which each does its part and executes the next.",
    "set --",
    "",
]


def _split(text: str) -> tuple[list[str], str]:
    """The lines before the last one, and that one."""
    *before, last = text.split("\n")
    return before, last


def _file(name: str, lines: Sequence[str]) -> list[str]:
    """The lines that write a file of the script's own. The mark at its end is none of its lines."""
    mark = f"END_OF_{name.upper()}"
    while mark in "\n".join(lines).split("\n"):
        mark += "_"
    return [f"cat > \"$WORK/{name}\" <<'{mark}'", *lines, mark]


def _comment(text: str, first: str = "# ", later: str = "# ") -> list[str]:
    """A text as comments, in lines that fit."""
    printable = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
    lines, line = [], first
    for number, word in enumerate(printable.split(" ")):
        if number and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line.rstrip())
            line = later + word
        else:
            line += f" {word}" if number else word
    return [*lines, line.rstrip()]
