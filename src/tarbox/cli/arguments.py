"""The command line, read by Docker's rules from a table of options; the same table prints the help.

    tarbox run -itm 64m -eNAME=value --cpus=0.5 IMAGE COMMAND --not-ours

Short options bundle (`-itd`), and a value may follow at once (`-m64m`), after `=` or as the next word. A flag may be
given a value only after `=` (`--rm=false`). `--` ends the options; where a verb has a command to run, so does the first
word that isn't one. Python's own argparse does less of this and costs as much time as starting a container.
"""

from __future__ import annotations

from ..errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FLAG, VALUE, LIST = "flag", "value", "list"


class Option:
    """One option of a verb.

    names: without hyphens, the long one first: `("volume", "v")`; one letter is a short name. metavar: how its value
    is called in the help; "" makes it a flag, for which `read` is told what follows after "=". many: whether it can be
    given more than once, each value counting.
    read: turns the word into the value, raising UsageError. group: the heading it stands under in the help.
    """

    __slots__ = ("group", "help", "kind", "metavar", "names", "read")

    def __init__(
        self,
        names: tuple[str, ...],
        metavar: str,
        help: str,
        group: str = "",
        read: Callable[[str], object] | None = None,
        many: bool = False,
    ) -> None:
        self.names = names
        self.kind = (LIST if many else VALUE) if metavar else FLAG
        self.metavar = metavar
        self.help = help
        self.group = group
        self.read = read

    def dashed(self, name: str = "") -> str:
        """The option as it is typed: `--volume`, `-v`."""
        name = name or self.names[0]
        return f"-{name}" if len(name) == 1 else f"--{name}"


class Verb:
    """What a verb takes.

    name: as typed after `tarbox`. usage: its arguments in one line. summary: one sentence. missing: the names of
    options that Docker has and this version doesn't, each with what to say, or what gives them when somebody uses one.
    examples: (command line, what it does) pairs.
    """

    __slots__ = ("_missing", "examples", "name", "options", "summary", "usage")

    def __init__(
        self,
        name: str,
        usage: str,
        summary: str,
        options: tuple[Option, ...] = (),
        missing: dict[str, str] | Callable[[], dict[str, str]] | None = None,
        examples: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.name = name
        self.usage = usage
        self.summary = summary
        self.options = options
        self._missing = missing
        self.examples = examples

    @property
    def missing(self) -> dict[str, str]:
        """The options that aren't there."""
        return self._missing() if callable(self._missing) else self._missing or {}

    def command(self) -> str:
        return f"tarbox {self.name}".rstrip()


class Arguments:
    """What a command line said: `values` by each option's first name (only those given), and the `rest` after them."""

    __slots__ = ("rest", "values")

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.rest: list[str] = []


HELP = Option(("help",), "", "Show this help")

_DASHES = "\u2010\u2013\u2014\u2212"  # what text processors make of hyphens


def parse(verb: Verb, words: list[str]) -> Arguments:
    """Read the words after a verb; raises UsageError that names the option, or HelpAsked for --help."""
    known = {name: option for option in (*verb.options, HELP) for name in option.names}
    known.setdefault("h", HELP)  # unless it means something here, as the host name does for run
    found = Arguments()
    at, end = 0, len(words)
    while at < end:
        word = words[at]
        at += 1
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            option = known.get(name)
            if option is None or len(name) == 1:
                raise _unknown(verb, word, name, known)
            if not equals:
                if option.kind == FLAG:
                    value = "true"
                elif at < end:
                    value = words[at]
                    at += 1
                else:
                    raise _valueless(verb, option, name)
            _keep(verb, found, option, name, value)
        elif word.startswith("-") and len(word) > 1:
            at = _bundle(verb, found, known, words, at)
        elif word and word[0] in _DASHES:
            raise UsageError(f"{word[:40]!r} begins with a long dash", f"type hyphens: --{word.lstrip(_DASHES)[:40]}")
        else:
            at -= 1
            break
    found.rest = words[at:]
    return found


def _bundle(verb: Verb, found: Arguments, known: dict[str, Option], words: list[str], at: int) -> int:
    """Read one word of short options, e.g. `-itm64m`; returns the place of the next word."""
    word = words[at - 1]
    for place, letter in enumerate(word[1:], 1):
        option = known.get(letter)
        if option is None:
            raise _unknown(verb, word, letter, known)
        value = word[place + 1 :]
        if option.kind == FLAG:
            if value.startswith("="):
                _keep(verb, found, option, letter, value[1:])
                return at
            _keep(verb, found, option, letter, "true")
            continue
        if value:
            value = value.removeprefix("=")
        elif at < len(words):
            value = words[at]
            at += 1
        else:
            raise _valueless(verb, option, letter)
        _keep(verb, found, option, letter, value)
        return at
    return at


class HelpAsked(Exception):
    """--help was among the options of `verb`; nothing went wrong."""

    def __init__(self, verb: Verb) -> None:
        super().__init__()
        self.verb = verb


def _keep(verb: Verb, found: Arguments, option: Option, name: str, word: str) -> None:
    if option is HELP:
        raise HelpAsked(verb)
    value: object = word
    try:
        if option.kind == FLAG and word == "true":
            value = True
        elif option.kind == FLAG and not option.read:
            from ..engine.values import switch

            value = switch(word)
        elif option.read:
            value = option.read(word)
    except UsageError as error:
        raise UsageError(f"{option.dashed(name)}: {error.message}", error.hint) from None
    key = option.names[0]
    if option.kind == LIST:
        values = found.values.setdefault(key, [])
        assert isinstance(values, list)
        values.append(value)
    else:
        found.values[key] = value


def _valueless(verb: Verb, option: Option, name: str) -> UsageError:
    return UsageError(f"{option.dashed(name)} needs a value: {option.metavar}", f"see '{verb.command()} --help'")


def _unknown(verb: Verb, word: str, name: str, known: dict[str, Option]) -> UsageError:
    from ..engine.nearest import suggest
    from ..engine.values import shorten

    typed = f"--{name}" if word.startswith("--") else f"-{name}"
    shown = shorten(typed)
    see = f"see '{verb.command()} --help'"
    if word.startswith("--") and len(name) == 1:
        return UsageError(
            f"unknown option {shown}", f"a single letter has a single hyphen: -{name}" if name in known else see
        )
    whole = word[1:].partition("=")[0]
    if not word.startswith("--") and len(whole) > 1 and (whole in known or whole in verb.missing):
        return UsageError(f"unknown option -{whole}", f"long options have two hyphens: --{whole}")
    if name in verb.missing:
        return UsageError(f"this version of tarbox has no {shown}", verb.missing[name] or see)
    if name == "-":
        return UsageError(f"unknown option - in {shorten(word)}", "is a space missing before it?")
    if not word.startswith("--") and len(whole) > 1:
        shown += f" in {shorten(word)}"
    longs = [long for long in (*known, *verb.missing) if len(long) > 1]
    near = suggest(name, longs) if len(name) > 1 else ""
    if near in verb.missing:
        near = ""
    return UsageError(f"unknown option {shown}", f"did you mean --{near}? {see}" if near else see)
