"""--systemd: when a container is for a whole system, and what its config and its control groups are then."""

from __future__ import annotations

import pytest

from tarbox.engine import systemd_mode
from tarbox.engine.config import config, is_system
from tarbox.engine.machine import Machine
from tarbox.engine.options import MountOption, RunOptions
from tarbox.errors import UnsupportedError, UsageError
from tarbox.kernel import cgroups
from tarbox.kernel.cgroups import delegation
from tarbox.kernel.cgroups.delegation import Delegated, trees
from tarbox.kernel.cgroups.groups import JoinGroup, MakeGroup, MakeParent, OpenGroup
from tarbox.kernel.cgroups.v1 import V1
from tarbox.kernel.cgroups.v2 import V2, EnableControllers
from tarbox.runtime.planner import Beside, plan
from tarbox.spec.validation import validate

ID = "0123456789abcdef" * 4
OURS = ["/run", "/run/lock", "/run/host", "/tmp", "/var/log/journal"]
V2_MACHINE = cgroups.Cgroups("v2", {}, "/sys/fs/cgroup", ("cpu", "memory", "pids"))
V1_TREES = {name: f"/sys/fs/cgroup/{name}" for name in ("memory", "pids", "devices", "freezer")}


def made(*command, image=None, **chosen):
    options = RunOptions("./rootfs", list(command) or ["/sbin/init"])
    for name, value in chosen.items():
        setattr(options, name, value)
    built = config(options, image or {}, ID, Machine(), "/r")
    validate(built)
    return built


def mounted(built):
    return [mount["destination"] for mount in built["mounts"]]


# When.


def test_the_words_that_say_when():
    said = [systemd_mode.mode(text) for text in ("always", "true", "1", "false", "0", "False")]
    assert said == ["always", "true", "true", "false", "false", "false"]
    for text in ("", "yes", "Always", "systemd"):
        with pytest.raises(UsageError):
            systemd_mode.mode(text)


@pytest.mark.parametrize(
    "program", ["/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init", "/usr/lib/systemd/systemd", "systemd"]
)
def test_an_init_is_known_by_its_name(program):
    options = RunOptions()
    assert is_system(options, [program, "--unit=x"])
    options.init = True
    assert not is_system(options, [program])  # it isn't the first process then
    options.init, options.systemd = False, "false"
    assert not is_system(options, [program])


@pytest.mark.parametrize("program", ["sh", "init", "/opt/init", "/init", "systemd-run", "/usr/bin/systemd-analyze", ""])
def test_other_programs_are_none_unless_thats_said(program):
    options = RunOptions()
    assert not is_system(options, [program])
    options.systemd = "always"
    assert is_system(options, [program])
    options.init = True
    with pytest.raises(UsageError, match="--init"):
        is_system(options, [program])


def test_the_images_own_command_counts_as_well():
    built = made(image={"Cmd": ["/sbin/init"]}, command=[])
    assert "container=tarbox" in built["process"]["env"]


# What.


def test_what_lasts_until_the_next_start_is_in_memory():
    built = made()
    places = mounted(built)
    assert places[-5:] == OURS
    by_place = {mount["destination"]: mount for mount in built["mounts"]}
    assert {by_place[place]["type"] for place in OURS} == {"tmpfs"}
    assert "noexec" not in by_place["/run"]["options"] + by_place["/tmp"]["options"]
    assert "mode=1777" in by_place["/tmp"]["options"]
    assert not set(OURS) & set(mounted(made("sh")))


def test_it_is_told_what_runs_it_and_its_id():
    variables = made()["process"]["env"]
    assert {"container=tarbox", f"container_uuid={ID[:32]}"} <= set(variables)
    variables = made(env=["container=other"])["process"]["env"]
    assert [one for one in variables if one.startswith("container=")] == ["container=other"]
    assert not any(one.startswith("container") for one in made("sh")["process"]["env"])


def test_what_is_asked_for_counts_and_lies_on_top():
    wide = MountOption("tmpfs", "tmpfs", "/run", ("size=1g",))
    inner = MountOption("bind", "/srv", "/tmp/inner", ("rbind",))
    places = mounted(made(mounts=[inner, wide]))
    assert places.count("/run") == 1
    assert "/run/host" not in places  # whose folder it is isn't known
    assert places.index("/run") < len(places)
    assert places.index("/tmp") < places.index("/tmp/inner")


# Control groups.


def test_the_trees_are_found_in_the_machines_table():
    table = (
        "34 33 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
        "35 33 0:30 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n"
    )
    assert trees(table) == ("/sys/fs/cgroup/systemd", True)
    assert trees(table.replace("nsdelegate,", "").replace("name=systemd", "name=elogind")) == ("", False)
    assert trees("") == ("", False)


def groups_of(steps, kind):
    return [step for step in steps if isinstance(step, kind)]


def test_on_version_2_the_kernel_keeps_it_from_its_limits():
    inner = V2("/sys/fs/cgroup", ("memory",))
    backend = Delegated(inner, "cgroup2", "/sys/fs/cgroup", ("memory",), True, "")
    assert backend.steps("box", {}, True) == inner.steps("box", {}, True)
    assert backend.groups("box") == ("/sys/fs/cgroup/box",)


@pytest.mark.parametrize("into", [True, False])
def test_where_the_kernel_doesnt_it_gets_a_group_below_the_one_with_the_limits(into):
    inner = V2("/sys/fs/cgroup", ("memory",))
    backend = Delegated(inner, "cgroup2", "/sys/fs/cgroup", ("memory", "hugetlb"), False, "")
    steps = backend.steps("box", {"memory": {"limit": 1 << 20}}, into)
    below = "/sys/fs/cgroup/box/payload"
    assert steps[-3:] == [
        EnableControllers("/sys/fs/cgroup/box", (), ("memory",)),
        MakeGroup(below),
        OpenGroup(below) if into else JoinGroup((f"{below}/cgroup.procs",)),
    ]
    assert len(groups_of(steps, OpenGroup) + groups_of(steps, JoinGroup)) == 1


def test_where_the_limits_are_version_1s_it_gets_a_group_of_version_2():
    inner = V1(V1_TREES, "web")
    backend = Delegated(inner, "cgroup2", "/sys/fs/cgroup/unified", (), False, "web")
    steps = backend.steps("box", {})
    assert steps[: len(inner.steps("box", {}))] == inner.steps("box", {})
    path = "/sys/fs/cgroup/unified/web/box"
    assert steps[-3:] == [
        MakeParent("/sys/fs/cgroup/unified/web"), MakeGroup(path), JoinGroup((f"{path}/cgroup.procs",)),
    ]  # fmt: skip
    assert path in backend.groups("box")


def prepared(facts, monkeypatch, table="", **chosen):
    """The config, what stands beside it and the warnings."""
    monkeypatch.setattr(delegation, "read", lambda path: table)
    monkeypatch.setattr("os.access", lambda path, mode: True)
    built = made(**chosen)
    beside = Beside(cgroups.pick(facts), facts.v1)
    beside.given = ("stdout", "stderr")
    options = RunOptions()
    options.systemd = chosen.get("systemd", "true")
    warnings: list[str] = []
    systemd_mode.prepare(built, options, beside, facts, ID, warnings)
    return built, beside, warnings


def cgroup_mounts(built, beside):
    return {
        step.target: (step.kind, "ro" in step.attributes, step.options)
        for step in plan(built, beside).steps
        if getattr(step, "target", "").startswith("/sys/fs/cgroup") and hasattr(step, "kind")
    }


def test_its_own_group_is_writable_on_version_2(monkeypatch):
    built, beside, warnings = prepared(V2_MACHINE, monkeypatch)
    assert cgroup_mounts(built, beside) == {"/sys/fs/cgroup": ("cgroup2", False, ())}
    assert warnings == []
    written = next(step for step in plan(built, beside).steps if isinstance(step, systemd_mode.WriteFiles))
    assert written.files["container-manager"] == "tarbox"
    assert written.files["container-uuid"].replace("-", "") == ID[:32]


def test_on_both_versions_it_sees_version_2_alone(monkeypatch):
    facts = cgroups.Cgroups("hybrid", V1_TREES, "/sys/fs/cgroup/unified", ())
    built, beside, _ = prepared(facts, monkeypatch)
    assert cgroup_mounts(built, beside) == {"/sys/fs/cgroup": ("cgroup2", False, ())}


def test_on_version_1_it_may_write_to_systemds_tree_alone(monkeypatch):
    table = "35 33 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
    built, beside, _ = prepared(cgroups.Cgroups("v1", V1_TREES), monkeypatch, table)
    found = cgroup_mounts(built, beside)
    assert found.pop("/sys/fs/cgroup/systemd") == ("cgroup", False, ("none", "name=systemd"))
    found.pop("/sys/fs/cgroup")
    assert {place: (kind, ro) for place, (kind, ro, _) in found.items()} == {
        f"/sys/fs/cgroup/{name}": ("cgroup", True) for name in V1_TREES
    }


def test_where_it_can_have_no_group_thats_said_or_refused(monkeypatch):
    facts = cgroups.Cgroups("none", {})
    built, beside, warnings = prepared(facts, monkeypatch)
    assert (len(warnings), beside.delegated) == (1, "")
    assert "ro" in next(mount for mount in built["mounts"] if mount["destination"] == "/sys/fs/cgroup")["options"]
    with pytest.raises(UnsupportedError, match="control group"):
        prepared(facts, monkeypatch, systemd="always")
