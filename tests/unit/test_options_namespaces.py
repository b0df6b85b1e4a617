"""The words for namespaces, clocks and ranges of ids, and what they make of a config."""

from __future__ import annotations

import os
from errno import EPERM, EUSERS

import pytest

from tarbox.engine import namespaces, time_offsets, userns
from tarbox.engine.config import config
from tarbox.engine.machine import Machine
from tarbox.engine.options import MountOption, RunOptions
from tarbox.errors import ConfigError, KernelError, UnsupportedError, UsageError
from tarbox.kernel import cgroups, joined_namespaces
from tarbox.plan.journal import drop
from tarbox.runtime.planner import Beside, plan
from tarbox.spec import mappings
from tarbox.spec.validation import validate

ID = "0123456789abcdef" * 4
DAY = 86400 * 10**9


def refused(read, *words) -> str:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def made(machine=None, **chosen):
    options = RunOptions("./rootfs", ["sh"])
    for name, value in chosen.items():
        setattr(options, name, value)
    result = config(options, {}, ID, machine or Machine("machine"), "/srv/rootfs")
    validate(result)
    return result


@pytest.mark.parametrize(
    ("kind", "text", "meant"),
    [
        ("pid", "private", "private"),
        ("pid", "host", "host"),
        ("ipc", "none", "none"),
        ("ipc", "shareable", "private"),
        ("pid", "pid:12", "/proc/12/ns/pid"),
        ("network", "pid:7", "/proc/7/ns/net"),
        ("uts", "pidfd:5", "/proc/self/fd/5"),
        ("cgroup", "ns:/run/x", "/run/x"),
        ("time", "ns:/run/../x", "/x"),
        ("user", "pid:1", "/proc/1/ns/user"),
    ],
)
def test_words_of_namespaces(kind, text, meant):
    assert namespaces.read(kind, text) == meant


def test_a_relative_path_is_seen_from_here():
    assert namespaces.read("network", "ns:blue") == f"{os.getcwd()}/blue"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hots", "did you mean host?"),
        ("4711", "pid:4711 is process 4711"),
        ("/run/x", "ns:/run/x is the namespace there"),
        ("pod:a", "there are no pods here (--pid container:ID joins one)"),
        ("none", "is no pid namespace"),
        ("pid:", "pid wants a number"),
        ("pid:x", "pid wants a number"),
        ("pid:-1", "pid wants a number"),
        ("pidfd:99999999999", "pidfd wants a number"),
        ("ns:", "ns wants a path"),
        ("", "is no pid namespace"),
    ],
)
def test_other_words_say_what_is_wrong(text, said):
    assert said in refused(namespaces.read, "pid", text)


def test_a_config_lists_what_is_new_and_what_is_joined():
    """The host's aren't listed; who shares them keeps his host name, and his /dev/shm where that is the host's."""
    linux = made(
        namespaces={"pid": "host", "ipc": "host", "uts": "/proc/1/ns/uts", "time": "private"}, network="/run/blue"
    )
    listed = {entry["type"]: entry.get("path") for entry in linux["linux"]["namespaces"]}
    assert listed == {"mount": None, "cgroup": None, "uts": "/proc/1/ns/uts", "network": "/run/blue", "time": None}
    assert "hostname" not in linux
    assert linux["linux"]["sysctl"] == {}
    assert not any(entry.startswith("HOSTNAME=") for entry in linux["process"]["env"])
    (shm,) = [mount for mount in linux["mounts"] if mount["destination"] == "/dev/shm"]
    assert (shm["type"], shm["source"]) == ("bind", "/dev/shm")
    assert [mount for mount in made(namespaces={"ipc": "none"})["mounts"] if mount["destination"] == "/dev/shm"] == []
    named = made(namespaces={"uts": "host"})
    assert "HOSTNAME=machine" in named["process"]["env"]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"namespaces": {"uts": "host"}, "hostname": "x"}, "-h x can't go with --uts host"),
        ({"namespaces": {"uts": "/x"}, "domainname": "x"}, "--domainname x can't go with --uts of others"),
        ({"namespaces": {"ipc": "host"}, "shm_size": 1 << 20}, "--shm-size can't go with --ipc host"),
        ({"namespaces": {"time": "host"}, "uptime_offset": {"boottime": 1}}, "--uptime-offset can't go with"),
        ({"namespaces": {"ipc": "host"}, "sysctls": {"kernel.msgmax": "1"}}, "--sysctl kernel.msgmax can't go with"),
        (
            {"network": "/run/blue", "sysctls": {"net.ipv4.ip_forward": "1"}},
            "--sysctl net.ipv4.ip_forward can't go with",
        ),
    ],
)
def test_what_cant_go_together_is_refused(chosen, said):
    with pytest.raises(UsageError, match=said):
        made(**chosen)


def test_a_plain_user_joins_nothing():
    for kind in ("pid", "network"):
        chosen = {"network": "/run/x"} if kind == "network" else {"namespaces": {kind: "/run/x"}}
        with pytest.raises(UnsupportedError, match="a plain user can't join a namespace"):
            made(Machine("machine", uid=1000, gid=1000), **chosen)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30d", 30 * DAY),
        ("1h30m", 5400 * 10**9),
        ("-10m", -600 * 10**9),
        ("90", 90 * 10**9),
        ("+1w", 7 * DAY),
        ("1.5s", 1500000000),
        ("0", 0),
        ("250ms", 250000000),
    ],
)
def test_offsets(text, meant):
    assert time_offsets.read(text) == {"monotonic": meant, "boottime": meant}


def test_an_offset_a_clock():
    assert time_offsets.read("boottime=1d,monotonic=-1s") == {"boottime": DAY, "monotonic": -(10**9)}
    linux = made(uptime_offset={"boottime": -1})["linux"]
    assert linux["timeOffsets"] == {"boottime": {"secs": -1, "nanosecs": 999999999}}
    assert {"type": "time"} in linux["namespaces"]


@pytest.mark.parametrize(
    "text", ["", "-", "x", "1x", "1d2", "--1d", "realtime=1d", "boottime=1d,boottime=2d", "boottime=", "9" * 30, "1e3"]
)
def test_other_offsets_are_refused(text):
    refused(time_offsets.read, text)


def test_offsets_want_a_new_time_namespace():
    """A config from elsewhere that has them without one, or with somebody else's."""
    for entries in ([], [{"type": "time", "path": "/proc/1/ns/time"}]):
        wanted = made()
        wanted["linux"]["timeOffsets"] = {"boottime": {"secs": 1}}
        wanted["linux"]["namespaces"] += entries
        with pytest.raises(ConfigError, match=r"\$\.linux\.timeOffsets"):
            plan(wanted, Beside(cgroups.pick(cgroups.Cgroups("none", {})), {}))


def test_offsets_and_mount_namespaces_of_a_config_are_checked():
    wanted = made()
    wanted["linux"]["timeOffsets"] = {"boottime": {"nanosecs": 10**9}}
    with pytest.raises(ConfigError, match=r"\$\.linux\.timeOffsets\.boottime\.nanosecs"):
        validate(wanted)
    wanted = made()
    wanted["linux"]["namespaces"] = [{"type": "mount", "path": "/proc/1/ns/mnt"}]
    with pytest.raises(UnsupportedError, match="another one's mount namespace"):
        plan(wanted, Beside(cgroups.pick(cgroups.Cgroups("none", {})), {}))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("host", "host"),
        ("auto", "auto 65536"),
        ("private", "auto 65536"),
        ("auto:size=10", "auto 10"),
        ("100000:65536", "range 100000 65536"),
        ("keep-id", "keep -1 -1 65536"),
        ("keep-id:uid=5", "keep 5 5 65536"),
        ("keep-id:uid=5,gid=6,size=9", "keep 5 6 9"),
        ("pid:5", "join /proc/5/ns/user"),
        ("pidfd:5", "join /proc/self/fd/5"),
    ],
)
def test_words_of_user_namespaces(text, meant):
    assert userns.read(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "auto:",
        "auto:size=",
        "auto:size=0",
        "auto:uid=5",
        "1:0",
        "1:",
        ":1",
        "5",
        "1:2:3",
        "keep-id:name=x",
        "nomap",
        "keep-id:uid=-1",
        "ns:",
        "pod:x",
        "99999999999:1",
        "\u0661:5",
    ],
)
def test_other_words_of_user_namespaces_are_refused(text):
    refused(userns.read, text)


def test_rows():
    assert userns.row("0:100000:65536") == (0, 100000, 65536)
    assert userns.row("5:7") == (5, 7, 1)
    for text in ("", "5", "1:2:3:4", "a:1:1", "0:-1:1", "0::1", "0:99999999999:1"):
        refused(userns.row, text)


SUBUID = "alice:100000:65536\ncontainers:300000:1000\nroot:500000:65536\ncontainers:302000:500\nbroken:x:1\n"


def test_whose_ranges_count():
    """Lines of "containers", else those of root; what users and groups have both; a high range where there are none."""
    assert userns.spaces((SUBUID, SUBUID)) == [(300000, 1000), (302000, 500)]
    assert userns.spaces((SUBUID, "containers:300500:2000\n")) == [(300500, 500), (302000, 500)]
    assert userns.spaces(("root:5:10\n", "root:5:10\n")) == [(5, 10)]
    assert userns.spaces(("alice:1:9\n", "")) == [(userns.FIRST, userns.LAST + 1 - userns.FIRST)]
    assert userns.spaces((SUBUID, "containers:1:5\n")) == []


def test_ranges_that_are_free(tmp_path, monkeypatch):
    """The first gap; what is held stays held, what nobody holds any more is free again."""
    monkeypatch.setattr(userns, "_FILES", (str(tmp_path / "uid"), str(tmp_path / "gid")))
    for name in ("uid", "gid"):
        (tmp_path / name).write_text("containers:1000000:1000\n")
    folder = str(tmp_path / "ids")
    taken = [userns.take(400, folder, True) for _ in range(2)]
    assert [start for start, _, _ in taken] == [1000000, 1000400]
    with pytest.raises(UnsupportedError, match="there are no 400 ids left for a container"):
        userns.take(400, folder, True)
    assert userns.take(200, folder, False) == (1000000, -1, "")
    assert len(os.listdir(folder)) == 2
    os.close(taken[0][1])
    assert userns.take(300, folder, True)[0] == 1000000
    assert not drop(taken[1][2])
    os.close(taken[1][1])
    assert drop(taken[1][2])
    assert drop(taken[1][2]), "twice is fine"


def test_maps_that_keep_an_id():
    assert userns._around(500000, 100, 10) == ((0, 500000, 10), (10, 10, 1), (11, 500011, 89))
    assert userns._around(500000, 100, 99) == ((0, 500000, 99), (99, 99, 1))
    assert userns._around(500000, 100, 5000) == ((0, 500000, 100), (5000, 5000, 1))


def test_ids_outside():
    rows = ((0, 100, 10), (20, 500, 5))
    assert [mappings.outside_of(rows, id) for id in (0, 9, 10, 20, 24, 25)] == [100, 109, None, 500, 504, None]


def test_a_map_of_a_mount_is_the_containers_or_its_own():
    """-v SOURCE:TARGET:idmap, and with rows; without a user namespace there is nothing to map."""
    mounts = [
        MountOption("bind", "/a", "/a", ("rbind",), idmap=""),
        MountOption("bind", "/b", "/b", ("rbind", "ridmap"), idmap="uids=1-2-3"),
    ]
    machine = Machine("machine", maps=(((0, 1000, 10),), ((0, 2000, 10),)))
    found = {mount["destination"]: mount for mount in made(machine, mounts=mounts)["mounts"]}
    assert found["/a"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 10}]
    assert "idmap" in found["/a"]["options"]
    assert found["/b"]["uidMappings"] == [{"containerID": 1, "hostID": 2, "size": 3}]
    assert "idmap" not in found["/b"]["options"]
    with pytest.raises(UnsupportedError, match="nothing to map"):
        made(mounts=mounts)


def test_a_small_range_of_groups_has_a_small_range_for_ping():
    assert (
        made(Machine("machine", maps=(((0, 1000, 10),), ((0, 2000, 10),))))["linux"]["sysctl"][
            "net.ipv4.ping_group_range"
        ]
        == "0 9"
    )


def test_going_back_is_tried_again_while_a_child_still_has_our_memory(monkeypatch):
    """And not for ever; the error is the kernel's own."""
    tries = []

    def setns(call, *_):
        tries.append(call)
        if len(tries) < 4:
            raise KernelError(call, (), EUSERS)

    monkeypatch.setattr(joined_namespaces, "syscall", setns)
    joined_namespaces.return_to("time", 9)
    assert tries == ["setns"] * 4

    def refuse(call, *_):
        raise KernelError(call, (), EPERM)

    monkeypatch.setattr(joined_namespaces, "syscall", refuse)
    with pytest.raises(KernelError) as caught:
        joined_namespaces.return_to("network", 9)
    assert caught.value.errno == EPERM
