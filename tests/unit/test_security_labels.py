"""Labels of security modules: what the config says of them, and which steps and rows that becomes."""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, ENOENT

import pytest

from tarbox.engine import security_labels
from tarbox.engine.config import config
from tarbox.engine.machine import Machine
from tarbox.engine.options import RunOptions
from tarbox.errors import UnsupportedError
from tarbox.kernel import apparmor
from tarbox.kernel.overlay import OpenOverlay
from tarbox.kernel.security_label import APPARMOR, SELINUX, OpenAttribute, SetLabel
from tarbox.plan.step import RUNNER, Register, Slots
from tarbox.runtime.planner import Beside, plan
from tarbox.spec.validation import validate

ID = "0123456789abcdef" * 4


def made(confined="unconfined", uid=0, **chosen):
    options = RunOptions("./rootfs", ["sh"])
    for name, value in chosen.items():
        setattr(options, name, value)
    built = config(options, {}, ID, Machine(uid=uid, gid=uid, apparmor=confined), "/r")
    validate(built)
    return built


def profile(*arguments, **chosen):
    return made(*arguments, **chosen)["process"].get("apparmorProfile")


# Which profile.


def test_where_apparmor_is_on_roots_containers_get_a_profile():
    assert profile() == "tarbox-default"
    assert profile(apparmor="mine") == "mine"


def test_privileged_or_unconfined_containers_get_none():
    assert profile(privileged=True) is None
    assert profile(apparmor="unconfined") is None
    assert profile(privileged=True, apparmor="mine") == "mine"


def test_who_may_load_none_or_leave_his_own_gets_none_unasked():
    assert profile(uid=1000) is None
    assert profile("docker-default") is None
    assert profile(uid=1000, apparmor="mine") == "mine"


def test_where_apparmor_is_off_a_profile_is_refused_and_unconfined_is_fine():
    assert profile("") is None
    assert profile("", apparmor="unconfined") is None
    with pytest.raises(UnsupportedError, match="apparmor=mine: AppArmor is off on this machine"):
        profile("", apparmor="mine")


def test_where_selinux_is_off_a_label_is_refused_and_disable_is_fine(monkeypatch, tmp_path):
    monkeypatch.setattr(security_labels, "_SELINUX", str(tmp_path / "none"))
    assert "selinuxLabel" not in made(selinux=["disable"])["process"]
    assert "selinuxLabel" not in made(selinux=["type:t", "disable"])["process"]
    with pytest.raises(UnsupportedError, match="label=type:t: SELinux is off on this machine"):
        made(selinux=["type:t"])


# SELinux's contexts.


@pytest.fixture
def selinux(monkeypatch, tmp_path):
    """A machine on which it is on, with a policy of its own."""
    (tmp_path / "enforce").write_text("1")
    contexts = tmp_path / "mine/contexts"
    contexts.mkdir(parents=True)
    (tmp_path / "config").write_text("# SELINUXTYPE=wrong\nSELINUX=enforcing\nSELINUXTYPE=mine\n")
    (contexts / "lxc_contexts").write_text('process = "u:r:box_t:s0"\nfile = "u:object_r:box_file_t:s0"\n')
    monkeypatch.setattr(security_labels, "_SELINUX", str(tmp_path / "enforce"))
    monkeypatch.setattr(security_labels._usual, "__defaults__", (str(tmp_path),))


def test_nothing_is_labelled_unasked(selinux):
    assert made()["process"].keys().isdisjoint({"selinuxLabel"})


def test_a_part_of_a_label_is_put_into_the_policys_own(selinux):
    both = made(selinux=["level:s0:c3,c4"])
    assert both["process"]["selinuxLabel"] == "u:r:box_t:s0:c3,c4"
    assert both["linux"]["mountLabel"] == "u:object_r:box_file_t:s0:c3,c4"
    both = made(selinux=["type:a_t", "user:b", "role:c", "filetype:d_t", "level:s1"])
    assert both["process"]["selinuxLabel"] == "b:c:a_t:s1"
    assert both["linux"]["mountLabel"] == "b:object_r:d_t:s1"


def test_two_containers_have_different_categories(selinux):
    labels = {made(selinux=["type:a_t"])["process"]["selinuxLabel"] for _ in range(5)}
    assert len(labels) == 5
    for label in labels:
        low, high = label.removeprefix("u:r:a_t:s0:").split(",")
        assert 0 <= int(low[1:]) < int(high[1:]) < 1024


def test_categories_differ_from_each_other_whatever_chance_says():
    for first in (0, 1023):
        for second in (0, 1022, 1023, 2**32 - 1):
            random = first.to_bytes(4, "little") + second.to_bytes(4, "little")
            low, high = security_labels._categories(random).split(",")
            assert 0 <= int(low[1:]) < int(high[1:]) < 1024


def test_a_policy_without_levels_gets_none():
    assert security_labels.contexts({"type": "a"}, ("u:r:t", "u:o:f")) == ("u:r:a", "u:o:f")


# The steps.


def planned(init=False, no_new=False, mount_label="", **labels):
    class NoGroups:
        def steps(self, name, resources, into=False):
            return []

    built = made(no_new_privileges=no_new, apparmor="unconfined")
    built["process"] |= labels
    if mount_label:
        built["linux"]["mountLabel"] = mount_label
    beside = Beside(NoGroups(), {})
    beside.steps.append(OpenOverlay("tree", ("/l",), "/u", "/w", ("volatile",)))
    beside.user, beside.init, beside.given = "", init, ("stdout", "stderr")
    beside.filter = ("default", b"\x06\0\0\0\0\0\xff\x7f", 0)
    return plan(built, beside).steps


def names(steps):
    return [type(step).__name__ for step in steps if step.by == RUNNER]


@pytest.mark.parametrize("no_new", [False, True])
def test_the_label_is_asked_for_before_privileges_go_and_a_filter_comes(no_new):
    steps = planned(apparmorProfile="mine", no_new=no_new)
    assert SetLabel(APPARMOR, "mine") in steps
    found = names(steps)
    asked = found.index("SetLabel")
    assert found.index("PivotRoot") < found.index("OpenAttribute") < asked
    for later in ("LoadSeccomp", "BoundingSet", "Capabilities", *(["NoNewPrivileges"] if no_new else [])):
        assert asked < found.index(later)
    outside = [type(step).__name__ for step in steps]
    assert outside.index("OpenProc") < outside.index("Spawn")


def test_an_init_is_labelled_itself_after_all_that_needs_privileges():
    steps = planned(init=True, apparmorProfile="mine")
    assert SetLabel(APPARMOR, "mine", True) in steps
    found = names(steps)
    assert found.index("OpenAttribute") < found.index("LoadSeccomp") < found.index("Capabilities")
    assert found.index("Capabilities") < found.index("SetLabel") < found.index("CloseDescriptors")


def test_without_a_label_nothing_is_done():
    for labels in ({}, {"apparmorProfile": "unconfined"}, {"apparmorProfile": "", "selinuxLabel": ""}):
        assert not {"OpenProc", "OpenAttribute", "SetLabel"} & {type(step).__name__ for step in planned(**labels)}


def test_what_the_container_has_of_its_own_is_labelled_and_what_the_kernel_labels_isnt():
    steps = planned(mount_label="u:o:t:s0:c1,c2", selinuxLabel="u:r:t:s0:c1,c2")
    assert SetLabel(SELINUX, "u:r:t:s0:c1,c2") in steps
    labelled = {getattr(step, "kind", "overlay") for step in steps if "context=" in str(getattr(step, "options", ""))}
    assert labelled == {"overlay", "tmpfs", "devpts"}
    queues = [step for step in steps if getattr(step, "slot", "") == "/dev/mqueue"]
    assert [type(step).__name__ for step in queues] == ["MountFilesystem", "LabelMount"]
    overlay = next(step for step in steps if isinstance(step, OpenOverlay))
    assert overlay.options == ("volatile", "context=u:o:t:s0:c1,c2")
    assert not any("context=" in repr(step) for step in planned())


def test_the_file_is_reached_from_the_hosts_proc_and_never_leaves_it():
    slots = Slots()
    slots.give("proc", 9)
    rows = OpenAttribute(APPARMOR, "exec").rows(slots)
    assert [row.arguments[:2] for row in rows] == [(9, b"self/attr/apparmor/exec"), (9, b"self/attr/exec")]
    assert (rows[0].skip, rows[0].on, rows[1].on) == (1, ((ENOENT, 0),), ())  # whatever else fails ends the start
    for row in rows:
        flags, _, resolve = (int.from_bytes(row.arguments[2][at : at + 8], "little") for at in (0, 8, 16))
        assert flags == os.O_WRONLY | os.O_CLOEXEC
        assert resolve == 0x01 | 0x02 | 0x08  # RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH
    (row,) = SetLabel(APPARMOR, "a b").rows(slots)
    assert (row.name, row.arguments, row.on) == ("write", (Register(8), b"exec a b", 8), ())
    (row,) = OpenAttribute(SELINUX, "exec").rows(slots)
    assert row.arguments[:2] == (9, b"self/attr/exec")
    assert SetLabel(SELINUX, "u:r:t:s0").rows(slots)[0].arguments[1] == b"u:r:t:s0"
    assert SetLabel(APPARMOR, "x", True).rows(slots)[0].arguments[1] == b"changeprofile x"


@pytest.mark.parametrize("module", [APPARMOR, SELINUX])
@pytest.mark.parametrize("errno", [ENOENT, EINVAL, EACCES, 5])
def test_a_refused_label_is_told_by_its_name(module, errno):
    told = str(SetLabel(module, "mine").explain(0, errno, Slots()))
    assert "mine" in told


# The profile of our own.


def test_the_profile_needs_nothing_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(apparmor, "_ABI", str(tmp_path / "none"))
    assert "include" not in apparmor.text()
    assert apparmor.text().startswith("profile tarbox-default ")
    assert apparmor.text().count("{") == apparmor.text().count("}")


@pytest.fixture
def loading(monkeypatch, tmp_path):
    """A state folder, and a machine with AppArmor on; what it has loaded is in a folder too."""
    (tmp_path / "state").mkdir()
    (tmp_path / "profiles").mkdir()
    monkeypatch.setattr(apparmor, "_LOADED", str(tmp_path / "profiles"))
    monkeypatch.setattr(apparmor, "_PARSERS", ("/bin/true",))
    warnings: list[str] = []

    def load(**chosen):
        built = made(**chosen)
        options = RunOptions()
        options.apparmor = chosen.get("apparmor", "")
        found = security_labels.load_default(built, options, str(tmp_path / "state"), warnings, True)
        return built["process"].get("apparmorProfile"), found, warnings

    return load


def test_the_profile_is_loaded_once_and_again_when_it_has_changed(loading, tmp_path):
    name, (step,), _ = loading()
    assert (name, type(step)) == ("tarbox-default", apparmor.LoadProfile)
    step.apply(Slots())
    (tmp_path / "profiles/tarbox-default.7").mkdir()
    assert loading() == ("tarbox-default", [], [])
    (tmp_path / "state/apparmor").write_text("another version")
    assert len(loading()[1]) == 1
    step.apply(Slots())
    (tmp_path / "profiles/tarbox-default.7").rmdir()  # somebody took it out of the kernel
    assert len(loading()[1]) == 1


def test_somebody_elses_profile_is_his_to_load(loading):
    assert loading(apparmor="mine") == ("mine", [], [])


def test_without_a_parser_containers_run_without_and_that_is_said_once(loading, monkeypatch):
    monkeypatch.setattr(apparmor, "_PARSERS", ("/no/parser",))
    name, found, warnings = loading()
    assert (name, found) == (None, [])
    assert ["apparmor_parser" in line for line in warnings] == [True]
    loading()
    assert len(warnings) == 1
    with pytest.raises(UnsupportedError, match="install apparmor"):
        loading(apparmor="tarbox-default")


def test_a_profile_that_cant_be_loaded_ends_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(apparmor, "_PARSERS", ("/bin/false",))
    with pytest.raises(Exception, match="can't be loaded: it ended with 1"):
        apparmor.LoadProfile(str(tmp_path / "mark")).apply(Slots())
    assert not (tmp_path / "mark").exists()
