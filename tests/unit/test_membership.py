"""Control groups as their files tell of them: trees of version 1 and 2 made of plain files."""

from __future__ import annotations

import pytest

from tarbox.kernel.cgroups.membership import frozen, groups, limits, usage
from tarbox.kernel.mountinfo import parse


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def second(tmp_path):
    """A tree of version 2 with a container in a slice."""
    top = tmp_path / "v2"
    write(top, cpuset__cpus__effective="0-3\n")
    write(top / "a.slice", memory__max="1073741824\n", memory__current="500\n", pids__max="max\n", cpu__weight="100\n",
          cpu__max="200000 100000\n", cpuset__cpus="\n")  # fmt: skip
    write(top / "a.slice/box", memory__max="max\n", memory__current="400\n", pids__max="20\n", pids__current="3\n",
          cpu__max="50000 100000\n", cpu__weight="50\n", cpuset__cpus="0-1\n", memory__high="max\n",
          memory__swap__max="0\n", memory__swap__current="0\n", io__weight="default 100\n",
          io__max="8:0 rbps=1048576 wbps=max riops=max wiops=max\n", cpu__stat="usage_usec 1500000\nuser_usec 1\n",
          cgroup__freeze="1\n")  # fmt: skip
    (top / "a.slice/box/hugetlb.2MB.max").write_text("2097152\n")
    (top / "a.slice/box/hugetlb.2MB.current").write_text("0\n")
    return top


@pytest.fixture
def first(tmp_path):
    """Trees of version 1, cpu and cpuacct together."""
    top = tmp_path / "v1"
    none = "9223372036854771712\n"
    write(top / "memory/box", memory__limit_in_bytes="5242880\n", memory__usage_in_bytes="4096\n",
          memory__memsw__limit_in_bytes=none, memory__memsw__usage_in_bytes="4096\n")  # fmt: skip
    write(top / "cpu/box", cpu__cfs_quota_us="25000\n", cpu__cfs_period_us="50000\n", cpu__shares="1024\n",
          cpuacct__usage="7000\n")  # fmt: skip
    write(top / "cpuset", cpuset__cpus="0-1\n", cpuset__mems="0\n")
    write(top / "cpuset/box", cpuset__cpus="1\n", cpuset__mems="0\n")
    write(top / "pids/box", pids__max="max\n", pids__current="2\n")
    write(top / "devices/box", devices__list="c 1:3 rwm\nc 1:5 rwm\n")
    write(top / "blkio/box", blkio__throttle__read_bps_device="8:0 1000\n", blkio__weight="500\n")
    write(top / "freezer/box", freezer__state="THAWED\n")
    return top


def table_of_first(top):
    names = ("memory", "cpu,cpuacct", "cpuset", "pids", "devices", "blkio", "freezer")
    lines = [
        f"{n} 1 0:{n} / {top}/{name.split(',')[0]} rw - cgroup cgroup rw,{name}" for n, name in enumerate(names, 2)
    ]
    membership = "".join(f"{n}:{name}:/box\n" for n, name in enumerate(names, 2))
    return membership, parse("\n".join(lines))


def shown(found):
    return {limit.resource: (limit.limit, limit.use, limit.group) for limit in limits(found)}


def test_limits_of_version_2(second):
    """The lowest on the way up counts, and "max" and the usual weight are none."""
    found = groups("0::/a.slice/box\n", parse(f"9 1 0:9 / {second} rw - cgroup2 cgroup2 rw"))
    assert shown(found) == {
        "memory": (1073741824, 500, "/a.slice"),
        "swap": (0, 0, "/a.slice/box"),
        "cpu": (0.5, None, "/a.slice/box"),
        "cpu-weight": (50, None, "/a.slice/box"),
        "cpus": ("0-1", None, "/a.slice/box"),
        "pids": (20, 3, "/a.slice/box"),
        "io": ("8:0 rbps=1048576 wbps=max riops=max wiops=max", None, "/a.slice/box"),
        "huge-pages-2MB": (2097152, 0, "/a.slice/box"),
    }
    assert usage(found) == {"cpu": 1500000000, "memory": 400, "pids": 3}
    assert frozen(found)


def test_limits_of_version_1(first):
    """A tree for each controller or for two together; what is as in a new group is no limit."""
    found = groups(*table_of_first(first))
    assert {group.version for group in found} == {1}
    assert shown(found) == {
        "memory": (5242880, 4096, "/box"),
        "cpu": (0.5, None, "/box"),
        "cpus": ("1", None, "/box"),
        "devices": (2, None, "/box"),
        "io": ("8:0 1000 read_bps", None, "/box"),
    }
    assert usage(found) == {"memory": 4096, "pids": 2, "cpu": 7000}
    assert not frozen(found)


def test_both_versions_at_once(first, second):
    membership, mounts = table_of_first(first)
    found = groups(f"0::/\n{membership}", mounts + parse(f"9 1 0:9 / {second} rw - cgroup2 cgroup2 rw"))
    assert [group.version for group in found] == [1] * 7 + [2]
    assert shown(found)["memory"] == (5242880, 4096, "/box")


def test_a_part_of_the_tree_that_is_mounted(second):
    """As inside of a container: what lies outside of it isn't seen, and isn't guessed."""
    part = parse(f"9 1 0:9 /a.slice/box {second}/a.slice/box rw - cgroup2 cgroup2 rw")
    (inside,) = groups("0::/a.slice/box\n", part)
    assert inside.folder == inside.top
    (outside,) = groups("0::/../other\n", part)
    (elsewhere,) = groups("0::/a.slice/boxer\n", part)
    assert outside.folder == elsewhere.folder == ""
    assert limits([outside, elsewhere]) == []


def test_odd_names_and_removed_groups(second):
    """A colon in a name, a named tree, a group that is gone, text that is no membership."""
    found = groups("0::/a:b (deleted)\n1:name=systemd:/x:y\nnonsense\n", parse(""))
    assert [(group.path, group.deleted, group.controllers) for group in found] == [
        ("/x:y", False, ("name=systemd",)),
        ("/a:b", True, ()),
    ]
    assert limits(found) == []
