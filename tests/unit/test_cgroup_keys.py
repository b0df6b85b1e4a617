"""Limits as plain values: which file of which version each becomes, and what the other version's names turn into."""

from __future__ import annotations

import pytest

from tarbox.errors import ConfigError, UnsupportedError
from tarbox.kernel.cgroups import keys
from tarbox.kernel.cgroups.groups import MakeGroup, WriteControl
from tarbox.kernel.cgroups.hybrid import Hybrid, Nothing
from tarbox.kernel.cgroups.v1 import CONTROLLERS, V1
from tarbox.kernel.cgroups.v2 import V2, EnableControllers
from tarbox.kernel.cgroups.weights import WriteWeight

FIRST = V1({name: f"/c/{name}" for name in CONTROLLERS})
SECOND = V2("/c", ("cpuset", "cpu", "io", "memory", "pids", "hugetlb", "rdma", "misc"))


def written(backend, resources):
    """What is written: "file value", in order."""
    return [
        f"{step.path.rpartition('/')[2]} {step.value}" if isinstance(step, WriteControl) else f"weight {step.value}"
        for step in backend.steps("b", resources)
        if isinstance(step, WriteControl | WriteWeight)
    ]


DISK = {"major": 8, "minor": 0}
# OCI resources → what version 1 writes, what version 2 writes
TABLE = [
    ({"memory": {"reservation": 9}}, ["memory.soft_limit_in_bytes 9"], ["memory.low 9"]),
    ({"memory": {"swappiness": 0}}, ["memory.swappiness 0"], []),
    ({"memory": {"kernelTCP": 9}}, ["memory.kmem.tcp.limit_in_bytes 9"], []),
    ({"memory": {"kernel": 9, "useHierarchy": True, "checkBeforeUpdate": True}}, [], []),
    ({"memory": {"limit": 9, "disableOOMKiller": True}}, ["memory.limit_in_bytes 9", "memory.oom_control 1"],
     ["memory.max 9"]),
    ({"cpu": {"quota": 5000}}, ["cpu.cfs_quota_us 5000"], ["cpu.max 5000 100000"]),
    ({"cpu": {"quota": -1, "period": 5000}}, ["cpu.cfs_period_us 5000", "cpu.cfs_quota_us -1"], ["cpu.max max 5000"]),
    ({"cpu": {"burst": 7, "idle": 0}}, ["cpu.cfs_burst_us 7", "cpu.idle 0"], ["cpu.idle 0", "cpu.max.burst 7"]),
    ({"cpu": {"idle": 1, "shares": 5}}, ["cpu.shares 5", "cpu.idle 1"], ["cpu.idle 1"]),
    ({"cpu": {"realtimeRuntime": 1, "realtimePeriod": 2}}, ["cpu.rt_period_us 2", "cpu.rt_runtime_us 1"], []),
    ({"cpu": {"cpus": "0", "mems": "0"}}, ["cpuset.cpus 0", "cpuset.mems 0"], ["cpuset.cpus 0", "cpuset.mems 0"]),
    ({"blockIO": {"weight": 500, "weightDevice": [{**DISK, "weight": 10}]}}, ["weight 500", "weight 8:0 10"],
     ["weight 500", "weight 8:0 10"]),
    ({"blockIO": {"leafWeight": 500, "weightDevice": [{**DISK, "leafWeight": 10}]}},
     ["blkio.leaf_weight 500", "blkio.leaf_weight_device 8:0 10"], []),
    ({"blockIO": {"throttleReadBpsDevice": [{**DISK, "rate": 1}], "throttleWriteBpsDevice": [{**DISK, "rate": 2}],
                  "throttleReadIOPSDevice": [{**DISK, "rate": 3}], "throttleWriteIOPSDevice": [{**DISK, "rate": 0}]}},
     ["blkio.throttle.read_bps_device 8:0 1", "blkio.throttle.write_bps_device 8:0 2",
      "blkio.throttle.read_iops_device 8:0 3", "blkio.throttle.write_iops_device 8:0 0"],
     ["io.max 8:0 rbps=1", "io.max 8:0 wbps=2", "io.max 8:0 riops=3", "io.max 8:0 wiops=max"]),
    ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
     ["hugetlb.2MB.limit_in_bytes 0", "hugetlb.2MB.rsvd.limit_in_bytes 0"],
     ["hugetlb.2MB.max 0", "hugetlb.2MB.rsvd.max 0"]),
    ({"rdma": {"mlx": {"hcaHandles": 2, "hcaObjects": 3}, "none": {}}}, ["rdma.max mlx hca_handle=2 hca_object=3"],
     ["rdma.max mlx hca_handle=2 hca_object=3"]),
    ({"pids": {"limit": -1}}, ["pids.max max"], ["pids.max max"]),
]  # fmt: skip


@pytest.mark.parametrize(("resources", "first", "second"), TABLE, ids=str)
def test_each_limit_goes_into_its_files(resources, first, second):
    assert written(FIRST, resources) == first
    assert written(SECOND, resources) == second


def test_what_only_version_1_has_is_told_on_version_2():
    resources = {
        "memory": {"swappiness": 0, "kernelTCP": 9, "disableOOMKiller": True, "useHierarchy": False},
        "cpu": {"realtimeRuntime": 1, "realtimePeriod": 2},
        "blockIO": {"leafWeight": 500},
    }
    lines = SECOND.warnings(resources)
    for name in ("swappiness", "kernelTCP", "disableOOMKiller", "useHierarchy", "realtimeRuntime", "leafWeight"):
        assert [line for line in lines if name in line], name
    assert SECOND.warnings({"memory": {"disableOOMKiller": False, "useHierarchy": True}}) == []


def test_a_group_that_nothing_of_is_killed_should_have_a_limit():
    assert FIRST.warnings({"memory": {"disableOOMKiller": True, "limit": 9}}) == []
    (line,) = FIRST.warnings({"memory": {"disableOOMKiller": True}})
    assert "the machine can run out" in line


NETWORK = {"network": {"classID": 65537, "priorities": [{"name": "eth0", "priority": 5}]}}


def test_packets_are_marked_on_version_1():
    assert written(FIRST, NETWORK) == ["net_cls.classid 65537", "net_prio.ifpriomap eth0 5"]
    made = [step.path for step in FIRST.steps("b", NETWORK) if isinstance(step, MakeGroup)]
    assert {"/c/net_cls/b", "/c/net_prio/b"} <= set(made)


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (SECOND, "nftables"),
        (V1({"memory": "/c/memory"}), "mount -t cgroup -o net_cls net_cls"),
        (Hybrid({"memory": "/c/memory"}, "/u", ("hugetlb",), True, ""), "mount -t cgroup -o net_cls net_cls"),
        (Nothing(), "no cgroup may be made"),
    ],
)
def test_marks_on_packets_are_never_left_out(backend, why):
    """Rules of firewalls rely on them."""
    with pytest.raises(UnsupportedError, match="can't be marked") as caught:
        backend.steps("b", NETWORK)
    assert why in str(caught.value)


# name and value → what version 1 writes, what version 2 writes
NAMES = [
    ({"memory.max": "50M"}, ["memory.limit_in_bytes 52428800"], ["memory.max 50M"]),
    ({"memory.max": "max"}, ["memory.limit_in_bytes -1", "memory.memsw.limit_in_bytes -1"], ["memory.max max"]),
    ({"memory.limit_in_bytes": "50m"}, ["memory.limit_in_bytes 52428800"], ["memory.max 52428800"]),
    ({"memory.low": "1k"}, ["memory.soft_limit_in_bytes 1024"], ["memory.low 1k"]),
    ({"memory.soft_limit_in_bytes": "1kb"}, ["memory.soft_limit_in_bytes 1kb"], ["memory.low 1024"]),
    ({"memory.swap.max": "1k", "memory.max": "2k"}, ["memory.limit_in_bytes 2048", "memory.memsw.limit_in_bytes 3072"],
     ["memory.max 2k", "memory.swap.max 1k"]),
    ({"memory.memsw.limit_in_bytes": "3k", "memory.limit_in_bytes": "2k"},
     ["memory.limit_in_bytes 2048", "memory.memsw.limit_in_bytes 3072"], ["memory.max 2048", "memory.swap.max 1024"]),
    ({"memory.swap.max": "max"}, ["memory.memsw.limit_in_bytes -1"], ["memory.swap.max max"]),
    ({"memory.swappiness": "5"}, ["memory.swappiness 5"], []),
    ({"cpu.max": "5000 10000"}, ["cpu.cfs_period_us 10000", "cpu.cfs_quota_us 5000"], ["cpu.max 5000 10000"]),
    ({"cpu.max": "max"}, ["cpu.cfs_quota_us -1"], ["cpu.max max"]),
    ({"cpu.cfs_quota_us": "5000"}, ["cpu.cfs_quota_us 5000"], ["cpu.max 5000 100000"]),
    ({"cpu.weight": "100"}, ["cpu.shares 1024"], ["cpu.weight 100"]),
    ({"cpu.shares": "1024"}, ["cpu.shares 1024"], ["cpu.weight 100"]),
    ({"cpu.max.burst": "7"}, ["cpu.cfs_burst_us 7"], ["cpu.max.burst 7"]),
    ({"cpuset.cpus": "0"}, ["cpuset.cpus 0"], ["cpuset.cpus 0"]),
    ({"pids.max": "5"}, ["pids.max 5"], ["pids.max 5"]),
    ({"io.weight": "default 10000"}, ["weight 1000"], ["io.weight default 10000"]),
    ({"io.weight": "8:0 1"}, ["weight 8:0 10"], ["io.weight 8:0 1"]),
    ({"blkio.bfq.weight": "1000"}, ["blkio.bfq.weight 1000"], ["weight 1000"]),
    ({"io.max": "8:0 rbps=5 wiops=max"},
     ["blkio.throttle.read_bps_device 8:0 5", "blkio.throttle.write_iops_device 8:0 0"],
     ["io.max 8:0 rbps=5 wiops=max"]),
    ({"blkio.throttle.write_bps_device": "8:0 5"}, ["blkio.throttle.write_bps_device 8:0 5"], ["io.max 8:0 wbps=5"]),
    ({"hugetlb.2MB.max": "4M"}, ["hugetlb.2MB.limit_in_bytes 4194304", "hugetlb.2MB.rsvd.limit_in_bytes 4194304"],
     ["hugetlb.2MB.max 4M"]),
    ({"memory.oom.group": "1"}, None, ["memory.oom.group 1"]),
    ({"memory.high": "1m"}, None, ["memory.high 1m"]),
    ({"memory.min": "1m"}, None, ["memory.min 1m"]),
    ({"net_cls.classid": "0x1000b"}, ["net_cls.classid 0x1000b"], None),
    ({"misc.max": "res_a 5"}, ["misc.max res_a 5"], ["misc.max res_a 5"]),
]  # fmt: skip


@pytest.mark.parametrize(("unified", "first", "second"), NAMES, ids=str)
def test_either_versions_names_are_understood(unified, first, second):
    given = dict(unified)
    for backend, expected in ((FIRST, first), (SECOND, second)):
        if expected is None:
            with pytest.raises(UnsupportedError):
                written(backend, {"unified": unified})
        else:
            assert written(backend, {"unified": unified}) == expected
    assert unified == given, "what the caller gave stays as it is"


def test_names_go_with_other_limits_and_count_more():
    resources = {"memory": {"limit": 5}, "unified": {"memory.max": "9"}}
    assert written(FIRST, resources) == ["memory.limit_in_bytes 9"]
    assert written(SECOND, resources) == ["memory.max 5", "memory.max 9"]
    assert resources["memory"] == {"limit": 5}


def test_a_name_makes_its_group_on_version_1():
    made = [step.path for step in FIRST.steps("b", {"unified": {"cpu.shares": "9"}}) if isinstance(step, MakeGroup)]
    assert "/c/cpu/b" in made
    assert "/c/blkio/b" not in made


def test_names_are_divided_on_a_machine_with_both():
    backend = Hybrid({"memory": "/c/memory", "blkio": "/c/blkio"}, "/u", ("hugetlb",), True, "")
    unified = {"memory.max": "5", "io.max": "8:0 rbps=5", "hugetlb.2MB.max": "0"}
    paths = [step.path for step in backend.steps("b", {"unified": unified}) if isinstance(step, WriteControl)]
    assert paths == [
        "/u/b/hugetlb.2MB.max", "/c/memory/b/memory.limit_in_bytes", "/c/blkio/b/blkio.throttle.read_bps_device",
    ]  # fmt: skip
    assert backend.warnings({"unified": unified}) == []
    assert "tea" in backend.warnings({"unified": {"tea.max": "1"}})[0]


@pytest.mark.parametrize("key", ["memory/x.max", "../memory.max", "memory..max", "memory.max.", ".max", "memory", "",
                                 "cgroup.procs", "cgroup.kill", "freezer.state", "tasks", "mem ory.max"])  # fmt: skip
def test_a_hostile_name_is_refused(key):
    for backend in (FIRST, SECOND):
        with pytest.raises(ConfigError, match=r"^\$\.linux\.resources\.unified"):
            backend.steps("b", {"unified": {key: "1"}})


@pytest.mark.parametrize(
    "unified",
    [
        {"memory.max": "lots"}, {"memory.max": "1_000"}, {"memory.max": "-5"}, {"memory.max": "1\n2"},
        {"cpu.max": "many"}, {"cpu.weight": ""}, {"io.max": "8 rbps=1"}, {"io.max": "8:0 speed=1"},
        {"memory.swap.max": "5"}, {"io.weight": "x"},
    ],
)  # fmt: skip
def test_a_value_that_cant_be_translated_is_refused(unified):
    with pytest.raises(ConfigError, match=next(iter(unified)).replace(".", r"\.")):
        FIRST.steps("b", {"unified": unified})


def test_every_weight_of_version_2_has_shares_that_stand_for_it():
    from tarbox.kernel.cgroups.v2_controls import weight

    for wanted in (1, 2, 37, 99, 100, 101, 2500, 9999, 10000):
        made = keys.for_v1({"unified": {"cpu.weight": str(wanted)}})
        assert weight(made["cpu"]["shares"]) == wanted


def test_lasting_groups_are_in_every_hierarchy():
    backend = V1({name: f"/c/{name}" for name in ("memory", "cpu", "cpuset", "blkio")}, every=True)
    made = [step.path for step in backend.steps("b", {}) if isinstance(step, MakeGroup)]
    assert made == ["/c/memory/b", "/c/cpu/b", "/c/cpuset/b", "/c/blkio/b"]
    both = Hybrid({"memory": "/c/memory"}, "/u", ("hugetlb",), True, "", every=True)
    assert "/u/b" in [step.path for step in both.steps("b", {}) if isinstance(step, MakeGroup)]


def test_only_needed_controllers_are_insisted_on():
    (enable,) = (
        step for step in SECOND.steps("b", {"unified": {"misc.max": "x 1"}}) if isinstance(step, EnableControllers)
    )
    assert enable.needed == ("misc",)
