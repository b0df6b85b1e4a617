"""Sets of capabilities by Docker's rules, and the steps that give them away."""

from __future__ import annotations

import pytest

from tarbox.engine import defaults
from tarbox.engine.machine import read_machine
from tarbox.errors import UsageError
from tarbox.kernel import capabilities
from tarbox.kernel.capabilities import ALL, BoundingSet, Capabilities, mask, names
from tarbox.plan.step import RUNNER, Slots

DEFAULT = mask(defaults.CAPABILITIES)


def test_the_names_are_numbered_as_in_the_kernel():
    assert len(capabilities.NAMES) == 41
    places = {"CHOWN": 0, "SETPCAP": 8, "SYS_ADMIN": 21, "MKNOD": 27, "SETFCAP": 31, "AUDIT_READ": 37, "BPF": 39}
    assert {name: capabilities.NAMES.index(name) for name in places} == places


def test_the_default_set_is_dockers():
    assert DEFAULT == 0xA80425FB  # as /proc/self/status of a Docker container shows it
    assert len(defaults.CAPABILITIES) == 14


@pytest.mark.parametrize(
    ("name", "hint"),
    [("SYS_ADMN", "SYS_ADMIN"), ("cap_net_raws", "NET_RAW"), ("", "lists"), ("CAP_", "lists"),
     ("41", "lists"), ("CAP_CAP_CHOWN", "CHOWN"), ("SYS ADMIN", "SYS_ADMIN")],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_a_near_one(name, hint):
    with pytest.raises(UsageError) as caught:
        mask([name])
    assert repr(name) in caught.value.message
    assert hint in caught.value.hint


def test_names_of_a_set():
    assert names(0) == []
    assert names(1 | 1 << 40 | 1 << 41) == ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE", "CAP_41"]
    assert mask(names(DEFAULT)) == DEFAULT


def test_what_this_process_has():
    with open("/proc/self/status") as status:
        sets = dict(line.split(":", 1) for line in status if line.startswith("Cap"))
    assert read_machine().bounding == int(sets["CapBnd"], 16)


def test_the_bounding_set_loses_all_but_what_is_kept():
    rows = BoundingSet(DEFAULT, ALL).rows(Slots())
    assert all(row.name == "prctl" and row.arguments[0] == 24 and row.arguments[2:] == (0, 0, 0) for row in rows)
    assert {row.arguments[1] for row in rows} == {number for number in range(41) if not DEFAULT >> number & 1}
    assert rows[0].arguments[:2] == (24, 2)  # CAP_DAC_READ_SEARCH


def test_capabilities_that_a_newer_kernel_has_are_dropped_too():
    """Root would have them back at the next execve, whatever the permitted set says."""
    rows = BoundingSet(0).rows(Slots())
    assert [row.arguments[1] for row in rows] == list(range(64))
    assert [row.arguments[1] for row in rows if not row.on] == list(range(38))
    assert [row.arguments[1] for row in BoundingSet(0, 1 << 41 | 1).rows(Slots())] == [0, 41]


def test_what_is_not_there_needs_no_dropping():
    assert BoundingSet(0, 0).rows(Slots()) == []


def words(row) -> list[int]:
    data = row.arguments[1]
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, 24, 4)]


def test_the_capability_sets_as_the_kernel_takes_them():
    clear, capset = Capabilities(0xA80425FB | 1 << 40, 1 | 1 << 40).rows(Slots())
    assert clear.arguments[:2] == (47, 4)
    assert capset.name == "capset"
    assert capset.arguments[0] == (0x20080522).to_bytes(4, "little") + bytes(4)
    assert words(capset) == [1, 0xA80425FB, 0, 1 << 8, 1 << 8, 0]


def test_nothing_is_inheritable_unless_it_is_asked_for():
    _, capset = Capabilities(ALL, ALL).rows(Slots())
    assert (words(capset)[2], words(capset)[5]) == (0, 0)


def test_ambient_capabilities_need_to_be_permitted_and_inheritable():
    rows = Capabilities(7, 7, inheritable=3, ambient=1 | 4 | 8).rows(Slots())
    raised = [row for row in rows if row.arguments[:2] == (47, 2)]
    assert [row.arguments[2] for row in raised] == [0]
    assert rows.index(raised[0]) > [row.name for row in rows].index("capset")


@pytest.mark.parametrize(("uid", "expected"), [(0, DEFAULT & 0xFFFFFFFF), (1000, 0)])
def test_a_user_found_at_start_gets_them_only_as_root(uid, expected):
    step = Capabilities(DEFAULT, DEFAULT, root_only=True)
    assert step.uses() == ("uid",)
    slots = Slots()
    slots.found["uid"] = uid
    assert words(step.rows(slots)[1])[:2] == [expected, expected]


def test_the_steps_tell_about_themselves():
    for step in (BoundingSet(DEFAULT), Capabilities(DEFAULT, DEFAULT), Capabilities(0, 0)):
        assert step.by == RUNNER
        assert step.phase == "privileges"
        assert "\n" not in step.call() + step.shell()
    assert Capabilities(1, 1).shell() == "setpriv --inh-caps -all --ambient-caps -all COMMAND"
    assert Capabilities(3, 3, 3, 1).shell().endswith("-all,+chown,+dac_override --ambient-caps -all,+chown COMMAND")
    assert BoundingSet(1).shell() == "setpriv --bounding-set -all,+chown COMMAND"
