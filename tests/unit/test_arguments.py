"""The parser: Docker's rules, and errors that a newcomer can act on."""

from __future__ import annotations

import pytest

from tarbox.cli.arguments import Arguments, HelpAsked, Option, Verb, parse
from tarbox.engine import values
from tarbox.errors import UsageError

VERB = Verb(
    "run",
    "[OPTIONS] IMAGE",
    "A verb to try the parser on.",
    (
        Option(("interactive", "i"), "", "a flag"),
        Option(("tty", "t"), "", "a flag"),
        Option(("rm",), "", "a flag"),
        Option(("env", "e"), "NAME", "a list", many=True),
        Option(("memory", "m"), "SIZE", "a value", read=values.size),
        Option(("hostname", "h"), "NAME", "a value"),
        Option(("network", "net"), "NAME", "a value with two long names"),
    ),
    {"p": "nothing is published", "name": "", "detach": ""},
)


def read(line: str) -> Arguments:
    return parse(VERB, line.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-it host", {"interactive": True, "tty": True}),
        ("-itm5m host", {"interactive": True, "tty": True, "memory": 5 << 20}),
        ("-itm 5m host", {"interactive": True, "tty": True, "memory": 5 << 20}),
        ("-m=5m host", {"memory": 5 << 20}),
        ("-m5m host", {"memory": 5 << 20}),
        ("--memory=5m host", {"memory": 5 << 20}),
        ("--memory 5m host", {"memory": 5 << 20}),
        ("--rm=false host", {"rm": False}),
        ("--rm=1 host", {"rm": True}),
        ("-i=false host", {"interactive": False}),
        ("-eA=1 -e B=2 --env=C=3 --env D host", {"env": ["A=1", "B=2", "C=3", "D"]}),
        ("-m 1m -m 2m host", {"memory": 2 << 20}),
        ("--net a host", {"network": "a"}),
        ("-h x host", {"hostname": "x"}),
        ("-e -i host", {"env": ["-i"]}),
        ("--hostname= host", {"hostname": ""}),
        ("--rm -- host", {"rm": True}),
    ],
)
def test_options_are_read_by_dockers_rules(line: str, expected: dict[str, object]) -> None:
    found = read(line)
    assert found.values == expected
    assert found.rest == ["host"]


def test_what_follows_the_image_is_the_commands() -> None:
    found = read("-i host ls -l --rm -- x")
    assert found.values == {"interactive": True}
    assert found.rest == ["host", "ls", "-l", "--rm", "--", "x"]


def test_a_flag_takes_no_following_word() -> None:
    assert read("--rm false").rest == ["false"]


def test_a_lone_hyphen_is_a_word() -> None:
    assert read("- x").rest == ["-", "x"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--hostnam x", "unknown option --hostnam (did you mean --hostname? see 'tarbox run --help')"),
        ("--memroy 5m", "unknown option --memroy (did you mean --memory? see 'tarbox run --help')"),
        ("--interactiv", "unknown option --interactiv (did you mean --interactive? see 'tarbox run --help')"),
        ("--quite-other", "unknown option --quite-other (see 'tarbox run --help')"),
        ("-x host", "unknown option -x (see 'tarbox run --help')"),
        ("-itx host", "unknown option -x in -itx (see 'tarbox run --help')"),
        ("-it--rm host", "unknown option - in -it--rm (is a space missing before it?)"),
        ("\u2014rm host", "'\u2014rm' begins with a long dash (type hyphens: --rm)"),
        ("-rm host", "unknown option -rm (long options have two hyphens: --rm)"),
        ("-name a host", "unknown option -name (long options have two hyphens: --name)"),
        ("--i host", "unknown option --i (a single letter has a single hyphen: -i)"),
        ("-p 80:80 host", "this version of tarbox has no -p (nothing is published)"),
        ("-p80:80 host", "this version of tarbox has no -p (nothing is published)"),
        ("--name a host", "this version of tarbox has no --name (see 'tarbox run --help')"),
        ("-m", "-m needs a value: SIZE (see 'tarbox run --help')"),
        ("--env", "--env needs a value: NAME (see 'tarbox run --help')"),
        ("--rm=maybe host", "--rm: 'maybe' is neither true nor false"),
        ("-m 5x host", "-m: '5x' is not a size (a number with b, k, m or g, e.g. 512m or 1.5g)"),
        ("--memory=five host", "--memory: 'five' is not a size (a number with b, k, m or g, e.g. 512m or 1.5g)"),
    ],
)
def test_an_error_names_the_option_and_what_to_do(line: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(line)
    assert str(raised.value) == message


def test_a_very_long_option_is_shown_short() -> None:
    with pytest.raises(UsageError) as raised:
        read("--" + "x" * 100_000)
    assert len(str(raised.value)) < 160


@pytest.mark.parametrize("line", ["--help", "-it --help host", "-m 5m --help"])
def test_help_is_asked_for(line: str) -> None:
    with pytest.raises(HelpAsked) as raised:
        read(line)
    assert raised.value.verb is VERB


def test_h_is_help_where_it_is_nothing_else() -> None:
    verb = Verb("version", "", "A verb without -h.")
    with pytest.raises(HelpAsked):
        parse(verb, ["-h"])
    with pytest.raises(UsageError, match="-h needs a value: NAME"):
        read("-h")


def test_help_after_the_image_is_the_commands() -> None:
    assert read("host --help").rest == ["host", "--help"]


def test_an_empty_word_ends_the_options() -> None:
    """What it would be the name of says that it's missing; it isn't an option that was mistyped."""
    assert parse(VERB, ["-i", "", "--rm"]).rest == ["", "--rm"]
