"""Ids, signals, keyring and no_new_privs: the rows that the runner carries out, and names of signals."""

from __future__ import annotations

import signal as public

import pytest

from tarbox.errors import UsageError
from tarbox.kernel import signals
from tarbox.kernel.credentials import Credentials, LookUpUser
from tarbox.kernel.keyring import NewKeyring
from tarbox.kernel.no_new_privs import NoNewPrivileges
from tarbox.plan.step import RUNNER, Slots

FOUND = Slots()
FOUND.found.update(uid=1000, gid=1001, groups=(1001, 4))


def shown(step) -> list[str]:
    return [repr(row) for row in step.rows(FOUND)]


def test_groups_go_first_and_the_user_last():
    step = Credentials(5, 6, (6, 7))
    assert shown(step) == ["setgroups(2, [6, 7])", "setresgid(6, 6, 6)", "setresuid(5, 5, 5)"]
    assert step.rows(FOUND)[0].arguments == (2, b"\6\0\0\0\7\0\0\0")
    assert step.uses() == ()


def test_a_user_found_at_start():
    step = Credentials(None, None, None)
    assert step.uses() == ("uid", "gid", "groups")
    assert shown(step) == ["setgroups(2, [1001, 4])", "setresgid(1001, 1001, 1001)", "setresuid(1000, 1000, 1000)"]


def test_no_groups_at_all():
    assert Credentials(0, 0, ()).rows(FOUND)[0].arguments == (0, b"")
    assert Credentials(0, 0, ()).shell() == "setpriv --reuid 0 --regid 0 --clear-groups COMMAND"


def test_a_namespace_that_denies_setgroups():
    step = Credentials(None, None, None, setgroups=False)
    assert step.uses() == ("uid", "gid")
    assert [row.name for row in step.rows(FOUND)] == ["setresgid", "setresuid"]
    assert "setgroups" not in step.call()


def test_capabilities_kept_over_the_change_of_user():
    assert shown(Credentials(5, 5, (), keep=True))[2:] == [
        "prctl(PR_SET_KEEPCAPS, 1)", "setresuid(5, 5, 5)", "prctl(PR_SET_KEEPCAPS, 0)",
    ]  # fmt: skip


def test_steps_tell_about_themselves():
    steps = [
        Credentials(None, None),
        Credentials(1, 2, (3,)),
        NewKeyring(),
        NoNewPrivileges(),
        signals.DefaultSignals(),
    ]
    for step in (*steps, LookUpUser("app:adm")):
        assert step.call()
        assert "\n" not in step.call() + step.shell()
        assert step.phase in ("privileges", "filesystem")
    assert all(step.by == RUNNER for step in steps)
    assert LookUpUser("app:adm").shell() == 'grep \'^app:\' "$ROOT"/etc/passwd; grep app "$ROOT"/etc/group'


def test_keyring_and_no_new_privs():
    (keyring,) = NewKeyring().rows(FOUND)
    assert keyring.on
    assert (keyring.name, keyring.arguments) == ("keyctl", (1, 0))
    (row,) = NoNewPrivileges().rows(FOUND)
    assert not row.on
    assert row.arguments == (38, 1, 0, 0, 0)


def test_signals_are_named_as_in_the_kernel():
    for member in public.Signals:
        if member.name not in ("SIGRTMIN", "SIGRTMAX"):
            assert signals.parse(member.name) == signals.parse(member.name[3:].lower()) == member
            assert public.Signals(signals.parse(signals.name(member))) is member
    assert (signals.RTMIN, signals.RTMAX) == (public.SIGRTMIN, public.SIGRTMAX)


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigterm", 15), ("15", 15), ("9", 9), ("64", 64), ("RTMIN", 34), ("RTMIN+3", 37),
     ("SIGRTMIN+30", 64), ("RTMAX", 64), ("rtmax-14", 50), ("IOT", 6), ("POLL", 29), ("CLD", 17), ("01", 1)],
)  # fmt: skip
def test_signal_names(text, number):
    assert signals.parse(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "+9", "TERMS", "SIG", "SIGSIGTERM", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31", "RTMIN+",
     "RTMIN+1_0", "RTMIN+-3", "RTMIN3", "\uff19", "9" * 5000, "TERM ", "15.0"],
)  # fmt: skip
def test_what_is_no_signal(text):
    with pytest.raises(UsageError, match="there is no signal"):
        signals.parse(text)


def test_names_of_numbers():
    assert [signals.name(number) for number in (1, 15, 31, 34, 37, 64)] == [
        "SIGHUP", "SIGTERM", "SIGSYS", "SIGRTMIN", "SIGRTMIN+3", "SIGRTMIN+30",
    ]  # fmt: skip
    assert signals.name(32) == "32"


def test_rows_that_give_signals_back():
    rows = signals.DefaultSignals((1, 13)).rows(FOUND)
    assert [row.arguments for row in rows] == [
        (1, bytes(32), 0, 8), (13, bytes(32), 0, 8), (2, bytes(8), 0, 8),
    ]  # fmt: skip
    assert signals.DefaultSignals((13,)).call() == "; ".join(repr(row) for row in rows[1:])


def test_python_itself_ignores_two_signals():
    assert {public.SIGPIPE, public.SIGXFSZ} <= set(signals.ignored())
