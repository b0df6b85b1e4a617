"""`tarbox enter` and `debug`: what their words mean, and the order in which namespaces are entered."""

from __future__ import annotations

import pytest

from tarbox.cli import debug, enter
from tarbox.engine import lasting_namespaces
from tarbox.errors import UsageError
from tarbox.kernel.program import Execute
from tarbox.kernel.setns import BIRTH, ROOT, BeBorn, slot_of
from tarbox.plan.step import RUNNER, Slots, Step
from tarbox.runtime import launch
from tarbox.runtime.entry import Entry, plan
from tarbox.runtime.namespace_list import lasting_name

PROGRAM = Execute("/bin/true", ("true",))
ALWAYS = ["DieWithParent", "DefaultSignals", "DeathSignal", "CloseDescriptors", "Execute"]


def steps(entry: Entry) -> list[str]:
    """The steps of the runner by name, those that each entry has left out; a `Join` with its kind."""
    given = [*map(slot_of, entry.kinds), ROOT, BIRTH]
    made = plan(entry, PROGRAM, given=given).steps
    named = [f"Join {getattr(step, 'kind', '')}".strip() if type(step).__name__ == "Join" else type(step).__name__
             for step in made if step.by == RUNNER]  # fmt: skip
    return [name for name in named if name not in ALWAYS]


def test_only_what_was_chosen():
    assert steps(Entry(["network"])) == ["Join network"]
    assert steps(Entry(["network", "uts"])) == ["Join uts", "Join network"]
    assert steps(Entry([])) == []


def test_nobody_inside_sees_a_process_before_it_has_the_targets_root():
    """The PID namespace comes after the mounts and the root, and after all descriptors are closed."""
    entry = Entry(["mount", "pid", "network", "user", "time", "ipc", "uts", "cgroup"])
    entry.root, entry.ids = True, (0, 0)
    assert steps(entry) == [
        "Join cgroup", "Join ipc", "Join uts", "Join network", "Join time", "Join mount", "EnterRoot", "Join pid",
        "BeBorn", "Join user", "Credentials",
    ]  # fmt: skip
    entry.plain = True  # his rights come from the user namespace
    assert steps(entry)[0] == "Join user"
    assert steps(entry)[-2:] == ["BeBorn", "Credentials"]


def test_a_view_for_debugging():
    """A mount namespace first, while that is still allowed; its /proc by the child, whose processes it shows."""
    entry = Entry(["pid", "network", "user"])
    entry.view = True
    assert steps(entry) == [
        "Unshare", "PrivateMounts", "Join network", "Join pid", "BeBorn", "MountProc", "Join user",
    ]  # fmt: skip


def test_what_is_open_is_closed_before_the_child_is_born():
    """All but the report's descriptor, the one that tells its number, and what it still has to join."""
    slots = Slots()
    slots.descriptors.update({BIRTH: 7, slot_of("user"): 5, ROOT: 6})
    table: list[list[tuple[str, tuple[object, ...]]]] = []

    def image(rows, errors):
        table.append([(row.name, row.arguments) for row in rows])
        return b""

    original = launch.runner.image
    launch.runner.image = image  # type: ignore[assignment]
    try:
        made = launch.table([BeBorn((slot_of("user"),)), PROGRAM], slots, 9)
        made.close()
    finally:
        launch.runner.image = original  # type: ignore[assignment]
    closed = [arguments for name, arguments in table[0] if name == "close_range"]
    assert closed == [(3, 4, 0), (6, 6, 0), (8, 8, 0), (10, 0xFFFFFFFF, 0)]
    assert [name for name, _ in table[0]][4:9] == ["clone", "pidfd_open", "fcntl", "exit_group", "close"]


def test_steps_close_nothing_unless_they_say_so():
    assert Step().closes_but() is None
    assert Step.waits is False


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--net 5 -- ip addr", ("5", ["ip", "addr"])),
        ("--net 5 ip -br addr", ("5", ["ip", "-br", "addr"])),
        ("5 --net -- ip addr", ("5", ["ip", "addr"])),
        ("5 --net", ("5", [])),
        ("-a lab1", ("lab1", [])),
    ],
)
def test_options_stand_before_the_target_or_after_it(line, expected):
    target, command, given = enter.split(enter.VERB, line.split())
    assert (target, command) == expected
    assert "all" in given.values or given.values["network"] is True


@pytest.mark.parametrize(("verb", "example"), [(enter.VERB, "tarbox enter --net"), (debug.VERB, "tarbox debug 3d1f")])
def test_a_target_is_needed(verb, example):
    with pytest.raises(UsageError, match=example):
        enter.split(verb, [])


def test_names_of_lasting_namespaces():
    for good in ("lab1", "a", "A_b-c.d", "x" * 100, "1a"):
        assert lasting_namespaces.name(good) == good
    for bad in ("", ".", "..", "a/b", "-a", "a b", "x" * 101, "12", "a:b", "a\n", "ä"):
        with pytest.raises(UsageError):
            lasting_namespaces.name(bad)


def test_a_place_tells_the_name():
    assert lasting_name("/run/tarbox/var-lib-tarbox/namespaces/lab1/net") == "lab1"
    for other in ("/run/netns/lab1", "/run/tarbox/x/journals/lab1/net", "/srv/run/tarbox/x/namespaces/lab1/net"):
        assert lasting_name(other) == ""
