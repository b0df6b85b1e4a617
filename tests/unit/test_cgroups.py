"""Control groups as plain values: what is found in a machine's tables, and which steps limits become."""

from __future__ import annotations

import itertools

import pytest

from tarbox.errors import ConfigError, UnsupportedError
from tarbox.kernel import cgroups
from tarbox.kernel.cgroups import device_program, devices
from tarbox.kernel.cgroups.everywhere import Everywhere, whole_trees
from tarbox.kernel.cgroups.groups import JoinGroup, MakeGroup, MakeParent, OpenGroup, WriteControl
from tarbox.kernel.cgroups.hybrid import Hybrid, Nothing
from tarbox.kernel.cgroups.v1 import V1
from tarbox.kernel.cgroups.v2 import V2, EnableControllers
from tarbox.kernel.cgroups.v2_controls import weight

SYSTEMD_HYBRID = """\
24 30 0:22 / /sys rw,nosuid - sysfs sysfs rw
33 24 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
34 33 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
35 33 0:30 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
36 33 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:16 - cgroup cgroup rw,cpu,cpuacct
37 33 0:34 / /sys/fs/cgroup/memory rw,nosuid shared:17 - cgroup cgroup rw,memory
38 33 0:35 / /sys/fs/cgroup/pids\\040here rw,nosuid shared:18 - cgroup cgroup rw,pids
39 33 0:34 /docker/1 /srv/memory rw - cgroup cgroup rw,memory
"""
V2_ONLY = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_mounts_are_found_by_controller():
    v1, v2 = cgroups.mounts(SYSTEMD_HYBRID)
    assert v2 == "/sys/fs/cgroup/unified"
    assert v1["cpu"] == v1["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert v1["memory"] == "/sys/fs/cgroup/memory"
    assert v1["pids"] == "/sys/fs/cgroup/pids here"
    assert "name=systemd" not in v1
    assert cgroups.mounts(V2_ONLY) == ({}, "/sys/fs/cgroup")
    assert cgroups.mounts("24 30 0:22 / /sys rw - sysfs sysfs rw\n") == ({}, "")


def test_a_view_of_a_part_of_a_tree_serves_only_where_there_is_no_whole_one():
    part, whole = SYSTEMD_HYBRID.splitlines()[7], SYSTEMD_HYBRID.splitlines()[5]
    assert cgroups.mounts(part)[0] == {"memory": "/srv/memory"}
    assert cgroups.mounts(f"{part}\n{whole}")[0] == {"memory": "/sys/fs/cgroup/memory"}


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (cgroups.Cgroups("v1", {"memory": "/m"}), V1),
        (cgroups.Cgroups("hybrid", {"memory": "/m"}, "/u", ("hugetlb",)), Hybrid),
        (cgroups.Cgroups("hybrid", {"memory": "/m"}, "/u", ()), V1),
        (cgroups.Cgroups("v2", {}, "/c", ("memory",)), V2),
        (cgroups.Cgroups("v2", {}, ""), Nothing),
        (cgroups.Cgroups("hybrid", {}, ""), Nothing),
        (cgroups.Cgroups("none", {}), Nothing),
    ],
)
def test_the_backend_follows_from_the_facts(facts, kind):
    assert type(cgroups.pick(facts)) is kind


def test_delegation_is_the_highest_group_with_all_three_writable(tmp_path):
    inner = tmp_path / "mine" / "scope"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        for name in ("cgroup.procs", "cgroup.subtree_control"):
            (folder / name).touch()
    assert cgroups.delegated(str(tmp_path), "1:name=x:/y\n0::/mine/scope\n") == str(inner.parent)
    (inner.parent / "cgroup.procs").unlink()
    assert cgroups.delegated(str(tmp_path), "0::/mine/scope\n") == str(inner)
    assert cgroups.delegated(str(tmp_path), "0::/elsewhere\n") == ""
    assert cgroups.delegated(str(tmp_path), "") == ""


LIMITS = {
    "memory": {"limit": 20 << 20, "swap": 30 << 20, "reservation": 10 << 20, "swappiness": 10},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
    "pids": {"limit": 20},
    "devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": True, "type": "c", "major": 136, "access": "rwm"},
    ],
}


def calls(steps):
    return [step.call() for step in steps]


def test_version_1_makes_one_group_for_controllers_that_are_mounted_together():
    backend = V1({"cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "memory": "/c/memory"})
    assert backend.groups("box") == ("/c/memory/box", "/c/cpu,cpuacct/box")
    made = [step.path for step in backend.steps("box", {"cpu": {"shares": 2}}) if isinstance(step, MakeGroup)]
    assert made == ["/c/memory/box", "/c/cpu,cpuacct/box"]


def test_version_1_makes_groups_only_where_something_is_limited_or_must_be_known():
    names = ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "blkio", "hugetlb", "freezer")
    backend = V1({name: f"/c/{name}" for name in names})

    def made(resources):
        return [step.path.split("/")[2] for step in backend.steps("box", resources) if isinstance(step, MakeGroup)]

    assert made({}) == ["memory", "pids", "devices", "freezer"]
    assert made({"cpu": {"quota": 5}}) == ["memory", "cpu", "cpuacct", "pids", "devices", "freezer"]
    assert made({"cpu": {"cpus": "0"}}) == ["memory", "cpuset", "pids", "devices", "freezer"]
    assert made({"blockIO": {"weight": 500}}) == ["memory", "pids", "devices", "blkio", "freezer"]


def test_limits_of_version_1_in_the_order_that_the_kernel_needs():
    names = ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer")
    steps = V1({name: f"/c/{name}" for name in names}).steps("box", LIMITS)
    assert calls(steps)[:7] == [f'mkdir("/c/{name}/box", 0755)' for name in names]
    assert calls(steps)[7:] == [
        'write("/c/cpuset/box/cpuset.cpus", "0")',
        'write("/c/cpuset/box/cpuset.mems", read("/c/cpuset/cpuset.mems"))',
        'write("/c/memory/box/memory.limit_in_bytes", "20971520")',
        'write("/c/memory/box/memory.memsw.limit_in_bytes", "31457280")',
        'write("/c/memory/box/memory.soft_limit_in_bytes", "10485760")',
        'write("/c/memory/box/memory.swappiness", "10")',
        'write("/c/cpu/box/cpu.shares", "512")',
        'write("/c/cpu/box/cpu.cfs_period_us", "100000")',
        'write("/c/cpu/box/cpu.cfs_quota_us", "50000")',
        'write("/c/pids/box/pids.max", "20")',
        'write("/c/devices/box/devices.deny", "a"); write("/c/devices/box/devices.allow", "c 1:3 rwm"); '
        'write("/c/devices/box/devices.allow", "c 136:* rwm")',
        "; ".join(f'write("/c/{name}/box/tasks", "0")' for name in names),
    ]
    assert [name for step in steps for _, name in step.record()] == [f"/c/{name}/box" for name in names]


def test_limits_of_version_2():
    steps = V2("/c", ("cpuset", "cpu", "io", "memory", "pids")).steps("box", LIMITS)
    assert isinstance(steps[0], EnableControllers)
    assert (steps[0].needed, steps[0].wanted) == (("memory", "cpu", "cpuset", "pids"), ("io",))
    assert steps[1] == MakeGroup("/c/box")
    writes = [(step.path, step.value) for step in steps if isinstance(step, WriteControl)]
    assert writes == [
        ("/c/box/memory.max", "20971520"),
        ("/c/box/memory.swap.max", "10485760"),
        ("/c/box/memory.low", "10485760"),
        ("/c/box/cpu.weight", "59"),
        ("/c/box/cpu.max", "50000 100000"),
        ("/c/box/cpuset.cpus", "0"),
        ("/c/box/pids.max", "20"),
    ]
    assert isinstance(steps[-2], device_program.AllowDevices)
    assert steps[-1] == JoinGroup(("/c/box/cgroup.procs",))


def test_a_process_that_is_born_into_its_group_needs_no_joining():
    steps = V2("/c", ()).steps("box", {}, into=True)
    assert steps == [MakeGroup("/c/box"), OpenGroup("/c/box")]
    assert steps[-1].gives() == ("cgroup",)


def test_device_rules_are_left_out_where_no_program_may_be_attached():
    steps = V2("/c", (), programs=False).steps("box", {"devices": LIMITS["devices"]})
    assert steps == [MakeGroup("/c/box"), JoinGroup(("/c/box/cgroup.procs",))]


@pytest.mark.parametrize(
    ("memory", "written"),
    [
        ({"limit": -1}, ["memory.max max", "memory.swap.max max"]),
        ({"limit": 1000, "swap": -1}, ["memory.max 1000", "memory.swap.max max"]),
        ({"limit": 1000, "swap": 1000}, ["memory.max 1000", "memory.swap.max 0"]),
        ({"limit": 1000, "swap": 0}, ["memory.max 1000"]),
        ({}, []),
    ],
)
def test_swap_of_version_2_is_counted_by_itself(memory, written):
    steps = V2("/c", ("memory",)).steps("b", {"memory": memory})
    assert [f"{step.path[5:]} {step.value}" for step in steps if isinstance(step, WriteControl)] == written


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": {"swap": 1000}},
        {"memory": {"limit": 1000, "swap": 999}},
        {"memory": {"limit": "20m"}},
        {"pids": {"limit": True}},
        {"unified": {"../../cgroup.procs": "1"}},
        {"unified": {"cgroup.procs": "1"}},
        {"unified": {"memory": "1"}},
        {"devices": [{"allow": True, "type": "x"}]},
        {"devices": [{"allow": True, "access": "rwx"}]},
        {"devices": [{"allow": True, "major": "1"}]},
        {"devices": [{"type": "c"}]},
    ],
)
def test_bad_limits_are_refused(resources):
    with pytest.raises(ConfigError, match=r"^\$\.linux\.resources"):
        V2("/c", ()).steps("box", resources)


@pytest.mark.parametrize("name", ["..", "a/b", "a\nb", ".", "x" * 256])
def test_a_name_never_leads_out_of_the_tree(name):
    for backend in (V1({"pids": "/c/pids"}), V2("/c", ())):
        with pytest.raises(ConfigError, match="isn't the name of a group"):
            backend.steps(name, {})
    with pytest.raises(ConfigError, match="isn't the name of a group"):
        V1({"pids": "/c/pids"}, parent="../up").steps("box", {})


def test_a_parent_is_made_first_and_recorded_as_such():
    steps = V1({"pids": "/c/pids"}, parent="/web/front/").steps("box", {})
    assert steps[:3] == [MakeParent("/c/pids/web"), MakeParent("/c/pids/web/front"), MakeGroup("/c/pids/web/front/box")]
    assert [step.record() for step in steps[:3]] == [
        (("cgroup-parent", "/c/pids/web"),),
        (("cgroup-parent", "/c/pids/web/front"),),
        (("cgroup", "/c/pids/web/front/box"),),
    ]


def test_controllers_are_enabled_on_the_whole_way_down():
    steps = V2("/c", ("pids",), parent="web").steps("box", {"pids": {"limit": -1}})
    assert steps[:5] == [
        EnableControllers("/c", ("pids",)),
        MakeParent("/c/web"),
        EnableControllers("/c/web", ("pids",)),
        MakeGroup("/c/web/box"),
        WriteControl("/c/web/box/pids.max", "max"),
    ]


def test_hybrid_uses_version_2_only_for_what_only_that_has():
    backend = Hybrid({"memory": "/c/memory"}, "/c/unified", ("hugetlb",), True, "")
    assert all("/unified" not in call for call in calls(backend.steps("box", {"memory": {"limit": 5000}})))
    steps = backend.steps("box", {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "memory": {"limit": 5000}})
    assert WriteControl("/c/unified/box/hugetlb.2MB.max", "0") in steps
    assert WriteControl("/c/memory/box/memory.limit_in_bytes", "5000") in steps
    assert [step.files for step in steps if isinstance(step, JoinGroup)] == [
        ("/c/unified/box/cgroup.procs",),
        ("/c/memory/box/tasks",),
    ]


def test_device_rules_are_never_dropped_in_silence():
    resources = {"devices": LIMITS["devices"]}
    hybrid = Hybrid({"memory": "/c/memory"}, "/c/unified", ("hugetlb",), True, "")
    assert [type(step).__name__ for step in hybrid.steps("box", resources)].count("AllowDevices") == 1
    assert hybrid.warnings(resources) == []
    for backend in (V1({"memory": "/c"}), Hybrid({"memory": "/c"}, "/u", ("hugetlb",), False, "")):
        assert "linux.resources.devices is ignored" in backend.warnings(resources)[0]


def test_what_has_no_effect_is_said():
    assert V1({}).warnings({"unified": {"tea.high": "1"}, "pids": {"limit": 1}}) == [
        "tea.high can't be set, so this limit is ignored: there is no tea controller here",
        "linux.resources.pids is ignored: the pids controller isn't mounted, or can't be written to",
    ]
    assert V1({"pids": "/c"}).warnings({"pids": {"limit": 1}}) == []
    assert V2("/c", ("memory",)).warnings({"memory": {"limit": 1, "disableOOMKiller": True, "kernel": 5}}) == [
        "linux.resources.memory.kernel is ignored: kernels have no such limit any more; the memory limit counts the "
        "kernel's memory as well",
        "linux.resources.memory.disableOOMKiller is ignored: cgroup v2 can't keep the kernel from killing",
    ]
    hybrid = Hybrid({"memory": "/c/memory"}, "/c/unified", ("pids",), True, "")
    assert hybrid.warnings({"pids": {"limit": 1}, "unified": {"pids.max": "1"}}) == []
    (line,) = Nothing().warnings({"memory": {"limit": 1}, "devices": LIMITS["devices"]})
    assert "ignored: memory (" in line
    assert "Delegate=yes" in line
    assert Nothing().warnings({"devices": LIMITS["devices"]}) == []


def test_a_delegated_group_without_a_controller_ignores_its_limits_and_says_so():
    backend = V2("/c/mine", ("memory", "pids"), programs=False)
    resources = {"memory": {"limit": 9}, "cpu": {"cpus": "0", "shares": 512}}
    assert backend.warnings(resources) == [
        "cpu.weight can't be set, so this limit is ignored: /c/mine has no cpu controller",
        "cpuset.cpus can't be set, so this limit is ignored: /c/mine has no cpuset controller",
    ]
    assert [step.path for step in backend.steps("box", resources) if isinstance(step, WriteControl)] == [
        "/c/mine/box/memory.max"
    ]


def test_without_groups_there_is_nothing_to_do_and_no_pausing():
    backend = Nothing()
    assert backend.steps("box", LIMITS) == []
    assert backend.groups("box") == ()
    assert (backend.events("box").oom_kills, backend.events("box").memory_peak) == (0, None)
    for verb in (backend.freeze, backend.thaw):
        with pytest.raises(UnsupportedError):
            verb("box")


def test_weights_are_those_of_other_runtimes():
    # Both ends, the default, and the value that runc's release notes give as their example.
    assert [weight(shares) for shares in (0, 2, 3, 1024, 2000, 262144, 999999)] == [1, 1, 2, 100, 170, 10000, 10000]
    assert sorted(weight(shares) for shares in range(2, 5000)) == [weight(shares) for shares in range(2, 5000)]


def test_device_lines_start_at_the_last_rule_for_everything():
    rules = (
        (True, "c", 9, 9, "r"),
        (False, "a", None, None, "mwr"),
        (True, "a", 8, None, "r"),
        (False, "b", 8, None, "rw"),
    )
    assert devices.lines(rules) == (
        ("deny", "a"),
        ("allow", "b 8:* r"),
        ("allow", "c 8:* r"),
        ("deny", "b 8:* rw"),
    )


@pytest.mark.parametrize("default", [True, False])
def test_version_1_refuses_a_rule_that_it_would_silently_ignore(default):
    everything = (default, "a", None, None, "rwm")
    for exception in ("a", 1, None, "rw"), ("c", 1, None, "rwm"), ("c", None, None, "w"):
        back = (default, "c", 1, 3, "w")
        with pytest.raises(UnsupportedError, match="can't take back 'c 1:3 w' from the device rule"):
            devices.lines((everything, (not default, *exception), back))
    for exception in ("c", 1, 3, "rwm"), ("c", 1, 4, "rwm"), ("b", 1, None, "rwm"), ("c", 1, None, "rm"):
        assert len(devices.lines((everything, (not default, *exception), back))) == 3


def may(rules, kind, major, minor, access):
    """What the rules mean: for each kind of access by itself, the last that speaks of it."""
    for one in access:
        for allow, rule_kind, rule_major, rule_minor, rule_access in reversed(rules):
            if (
                rule_kind in ("a", kind)
                and rule_major in (None, major)
                and rule_minor in (None, minor)
                and one in rule_access
            ):
                if not allow:
                    return False
                break
    return True


def execute(code, kind, major, minor, access):
    """Runs a program of the few instructions that device programs are made of."""
    bits = {"m": 1, "r": 2, "w": 4}
    context = {0: sum(bits[one] for one in access) << 16 | {"b": 1, "c": 2}[kind], 4: major, 8: minor}
    registers = [0] * 6
    position = 0
    while True:
        operation, pair = code[8 * position], code[8 * position + 1]
        jump = int.from_bytes(code[8 * position + 2 : 8 * position + 4], "little")
        constant = int.from_bytes(code[8 * position + 4 : 8 * position + 8], "little")
        target, source = pair & 15, pair >> 4
        position += 1
        match operation:
            case 0x61:
                assert source == 1
                registers[target] = context[jump]
            case 0xBF:
                registers[target] = registers[source]
            case 0xB7:
                registers[target] = constant
            case 0x57:
                registers[target] &= constant
            case 0x77:
                registers[target] >>= constant
            case 0x55:
                position += jump if registers[target] != constant else 0
            case 0x45:
                position += jump if registers[target] & constant else 0
            case 0x05:
                position += jump
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"instruction {operation:#x}")


RULES = [
    (),
    ((False, "a", None, None, "rwm"),),
    (
        (False, "a", None, None, "rwm"),
        (True, "c", 1, 3, "rwm"),
        (True, "c", None, None, "m"),
        (True, "b", 8, None, "r"),
    ),
    ((True, "a", None, None, "rwm"), (False, "c", 1, 5, "w"), (False, "b", 8, 1, "rwm")),
    ((False, "c", 1, None, "rw"), (True, "c", 1, 3, "r"), (True, "a", None, 1, "w")),
    ((True, "c", 1, 3, "r"), (False, "a", None, None, "rw"), (True, "c", 1, 3, "w")),
]


@pytest.mark.parametrize("rules", RULES)
def test_the_device_program_means_the_same_as_the_rules(rules):
    code = device_program.program(rules)
    accesses = ["r", "w", "m", "rw", "rm", "wm", "rwm"]
    for kind, major, minor, access in itertools.product("bc", (1, 8, 9), (1, 3, 5), accesses):
        assert execute(code, kind, major, minor, access) == may(rules, kind, major, minor, access)


# --- A group in every tree ---


def test_every_tree_is_found_once():
    """Those without a controller, too; a view of a part of one isn't a tree."""
    lines = [
        "24 30 0:22 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup none rw,cpu,cpuacct",
        "25 30 0:22 / /srv/cpu rw shared:4 - cgroup none rw,cpu,cpuacct",
        "26 30 0:23 /part /srv/part rw - cgroup none rw,memory",
        "27 30 0:24 / /srv/a\\040b rw - cgroup none rw,name=systemd",
        "28 30 0:25 / /sys/fs/cgroup/unified rw - cgroup2 none rw",
        "29 30 0:26 / /sys rw - sysfs none rw",
    ]
    assert whole_trees(lines) == ["/sys/fs/cgroup/cpu,cpuacct", "/srv/a b"]


def test_what_the_backend_leaves_out_gets_a_group():
    """Joined like the others, removed like the others, below the same parent; no second one where there is one."""
    trees = {"/cg/memory": "tasks", "/cg/cpu": "tasks", "/cg/systemd": "tasks", "/cg/unified": "cgroup.procs"}
    backend = Everywhere(V1({"memory": "/cg/memory", "cpu": "/cg/cpu"}, "up"), trees, "up")
    steps = backend.steps("box", {})
    records = [record for step in steps for record in step.record()]
    assert [path for kind, path in records if kind == "cgroup"] == [
        "/cg/memory/up/box", "/cg/cpu/up/box", "/cg/systemd/up/box", "/cg/unified/up/box",
    ]  # fmt: skip
    assert ("cgroup-parent", "/cg/systemd/up") in records
    joins = [file for step in steps if isinstance(step, JoinGroup) for file in step.files]
    assert joins[-1] == "/cg/unified/up/box/cgroup.procs"
    assert len(joins) == len(set(joins)) == 4
    assert set(backend.groups("box")) == {path for kind, path in records if kind == "cgroup"}
