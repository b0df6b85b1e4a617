"""`tarbox VERB ...`: finds the verb, calls it, and turns what went wrong into one line and an exit code.

    0 to 255   the container's own; 128+n when it was ended by signal n
    125        tarbox itself failed, or couldn't make sense of the command line
    126, 127   the container's program can't be executed, isn't there
    130        interrupted before there was a container

Only this package knows exit codes. A verb's module is loaded when the verb is called.
"""

from __future__ import annotations

from ..errors import CommandNotExecutableError, CommandNotFoundError, TarboxError, UsageError
from ..unistd import os
from .arguments import HelpAsked, Option, Verb, parse

FAILED, NOT_EXECUTABLE, NOT_FOUND, INTERRUPTED = 125, 126, 127, 130

# The verbs, in the order of the help. Each is a module here with `main(words, globals) -> int`.
VERBS = {
    "run": "Run a command in a new container",
    "explain": "Tell every step that a run would take, and do none of them",
    "what": "Tell how much of a container any process is",
    "caps": "Show capabilities of processes and files, or set those of files",
    "ns": "List the namespaces of the machine",
    "network": "Make, list, show and remove networks",
    "limit": "Limit plain commands and processes, no container",
    "isolate": "Give a plain command single parts of a container",
    "enter": "Run a command in chosen namespaces of something that runs",
    "debug": "Look at something that runs with the host's tools",
    "version": "Show the versions of tarbox, Python and the kernel",
    "help": "Show the help of a command",
}

TARBOX = Verb(
    "",
    "[OPTIONS] COMMAND ...",
    "A container engine that shows and explains every step.",
    (
        Option(("root",), "DIR", "Keep all data here (default $TARBOX_ROOT, else /var/lib/tarbox)"),
        Option(("debug", "D"), "", "Show where in tarbox an error came from"),
        Option(("version", "v"), "", "Show the version of tarbox"),
    ),
    {
        "H": "there is no server to connect to",
        "host": "there is no server to connect to",
        "c": "there is no server to connect to",
        "context": "there is no server to connect to",
        "config": "",
        "l": "--debug shows more of an error",
        "log-level": "--debug shows more of an error",
        "tls": "there is no server to connect to",
    },
)


class Globals:
    """The options before the verb. root: the data root, or None for the default; debug: whether errors are traced."""

    __slots__ = ("debug", "root")

    def __init__(self) -> None:
        self.root: str | None = os.environ.get("TARBOX_ROOT") or None
        self.debug = False


def main(argv: list[str]) -> int:
    """Carry out a command line (without the program's name) and return the exit code; never raises."""
    settings = Globals()
    try:
        return _main(argv, settings)
    except BrokenPipeError:  # as for a program that SIGPIPE ends: whoever reads has seen enough
        return 128 + 13
    except KeyboardInterrupt:
        return INTERRUPTED
    except TarboxError as error:
        if settings.debug:
            _trace()
        _complain(str(error))
        if isinstance(error, CommandNotFoundError):
            return NOT_FOUND
        return NOT_EXECUTABLE if isinstance(error, CommandNotExecutableError) else FAILED
    except Exception as error:
        if settings.debug:
            _trace()
        more = "" if settings.debug else " (run again with --debug)"
        _complain(f"internal error: {type(error).__name__}: {error}{more}")
        return FAILED


def _complain(message: str) -> None:
    """One line on standard error, whatever is in the message and whether or not anybody can read it."""
    text = " ".join(message.split())
    if not text.isprintable():  # names from archives and command lines don't get to steer a terminal
        text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    try:
        os.write(2, f"tarbox: {text}\n".encode())
    except OSError:
        pass


def _trace() -> None:
    import traceback

    try:
        os.write(2, traceback.format_exc().encode("utf-8", "surrogateescape"))
    except OSError:
        pass


def _main(argv: list[str], settings: Globals) -> int:
    try:
        return _call(argv, settings)
    except HelpAsked as asked:
        from .help import show, verb_help

        show(verb_help(asked.verb))
        return 0


def _call(argv: list[str], settings: Globals) -> int:
    found = parse(TARBOX, argv)
    settings.debug = found.values.get("debug") is True
    root = found.values.get("root")
    if isinstance(root, str):
        if not root:
            raise UsageError("--root needs a directory", "leave it out for the default")
        settings.root = root
    if settings.root:
        settings.root = os.path.abspath(settings.root)
    if found.values.get("version") is True:
        return call("version", ["--short"], settings)
    if not found.rest:
        raise HelpAsked(TARBOX)
    return call(found.rest[0], found.rest[1:], settings)


def call(name: str, words: list[str], settings: Globals) -> int:
    """Call a verb with the words after it; raises UsageError when there is none by that name."""
    if name == "run":
        from .run import main as verb
    elif name == "explain":
        from .explain import main as verb
    elif name == "what":
        from .what import main as verb
    elif name == "caps":
        from .caps import main as verb
    elif name == "ns":
        from .ns import main as verb
    elif name == "network":
        from .network import main as verb
    elif name == "limit":
        from .limit import main as verb
    elif name == "isolate":
        from .isolate import main as verb
    elif name == "enter":
        from .enter import main as verb
    elif name == "debug":
        from .debug import main as verb
    elif name == "version":
        from .version import main as verb
    elif name == "help":
        from .help import main as verb
    else:
        raise unknown_verb(name)
    return verb(words, settings)


def unknown_verb(name: str) -> UsageError:
    """The error for a verb that doesn't exist."""
    from ..engine.nearest import suggest
    from ..engine.values import shorten

    near = suggest(name.lower(), VERBS)
    if near:
        return UsageError(f"there is no command {shorten(name)!r}", f"did you mean 'tarbox {near}'?")
    return UsageError(f"there is no command {shorten(name)!r}", "see 'tarbox --help'")
