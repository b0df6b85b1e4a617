"""--device, --device-cgroup-rule and --gpus: the words, and what of the machine they lead to."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tarbox.engine.config import config
from tarbox.engine.device_config import add
from tarbox.engine.device_edits import Edits, look_up
from tarbox.engine.devices import CdiName, DeviceOption, cgroup_rule, device, gpus
from tarbox.engine.machine import Machine
from tarbox.engine.options import MountOption, RunOptions
from tarbox.errors import ImageNotFoundError, TarboxError, UsageError
from tarbox.spec.validation import validate

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/fuse", DeviceOption("/dev/fuse", "/dev/fuse", "rwm")),
        ("/dev/fuse:r", DeviceOption("/dev/fuse", "/dev/fuse", "r")),
        ("/dev/fuse:mw", DeviceOption("/dev/fuse", "/dev/fuse", "mw")),
        ("/dev/fuse:/dev/x", DeviceOption("/dev/fuse", "/dev/x", "rwm")),
        ("/dev/fuse:/dev/x:rw", DeviceOption("/dev/fuse", "/dev/x", "rw")),
        ("/dev//snd/:/dev/../dev/s/", DeviceOption("/dev/snd", "/dev/s", "rwm")),
        ("vendor.com/class=name", CdiName("vendor.com/class", "name", "--device vendor.com/class=name")),
        ("v/c.d=0:1", CdiName("v/c.d", "0:1", "--device v/c.d=0:1")),
    ],
)
def test_devices(text: str, expected: object) -> None:
    assert device(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not an absolute path"),
        ("fuse", "did you mean /dev/fuse?"),
        ("./fuse", "not an absolute path"),
        ("/dev/fuse:", "HOST:CONTAINER"),
        ("/dev/fuse:/a:r:w", "HOST:CONTAINER"),
        ("/dev/fuse:rx", "'rx'"),
        ("/dev/fuse:rr", "each once"),
        ("/dev/fuse:/a:", "HOST:CONTAINER"),
        ("/dev/fuse:/a:ro", "'ro'"),
        ("/dev/fuse:a:rw", "'a'"),
        ("/dev/a\0b", "zero byte"),
        ("nvidia.com/gpu", "nvidia.com/gpu=NAME"),
        ("nvidia.com/=1", "not the kind of a CDI device"),
        ("9.com/gpu=1", "not the kind"),
        ("nvidia.com/gpu/x=1", "not the kind"),
        ("nvidia.com/gpu=", "not the name of a CDI device"),
        ("nvidia.com/gpu=../x", "not the name"),
    ],
)
def test_what_is_no_device_is_refused(text: str, part: str) -> None:
    with pytest.raises(UsageError) as raised:
        device(text)
    assert part in str(raised.value)


def test_rules_of_the_devices_cgroup() -> None:
    assert cgroup_rule("c 1:3 rmw") == {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rmw"}
    assert cgroup_rule("b 8:* r") == {"allow": True, "type": "b", "major": 8, "access": "r"}
    assert cgroup_rule("a *:* rwm") == {"allow": True, "type": "a", "access": "rwm"}


@pytest.mark.parametrize(
    "text",
    ["", "c", "c 1:3", "c 1:3 ", "c 1:3 x", "c 1:3 rwmr", "d 1:3 r", "c 1 r", "c 1:2:3 r", "c -1:3 r", "c 1:x r",
     "c 4096:0 r", "c 1:1048576 r", "c  1:3 r", "c 1:3 r\n", "c \u0661:3 r"],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        cgroup_rule(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", ["all"]),
        ("-1", ["all"]),
        ("2", ["0", "1"]),
        ("0", []),
        ("count=1", ["0"]),
        ("device=1", ["1"]),
        ('"device=0,1"', ["0", "1"]),
        ("device=GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a", ["GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a"]),
        ('all,"capabilities=compute,utility"', ["all"]),
        ("driver=nvidia", ["0"]),
    ],
)
def test_gpus_are_devices_of_the_cdi(text: str, names: list[str]) -> None:
    assert [(entry.kind, entry.name) for entry in gpus(text)] == [("nvidia.com/gpu", name) for name in names]


def test_gpus_of_another_vendor() -> None:
    assert gpus("driver=cdi,device=amd.com/gpu=0") == [
        CdiName("amd.com/gpu", "0", "--gpus driver=cdi,device=amd.com/gpu=0")
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not a number of GPUs"),
        ("many", "not a number of GPUs"),
        ("-2", "not a number of GPUs"),
        ("device=0,1", "quotes within quotes"),
        ("all,1", "says twice"),
        ("driver=amd", "no driver"),
        ("driver=cdi", "needs a device"),
        ("capabilities=flying", "no capability 'flying'"),
        ("speed=1", "'speed'"),
        ("options=x", "no options"),
        ("device=/dev/x", "not the name of a GPU"),
    ],
)
def test_what_is_no_gpu_is_refused(text: str, part: str) -> None:
    with pytest.raises(UsageError) as raised:
        gpus(text)
    assert part in str(raised.value)


# --- Looked up on this machine --------------------------------------------------------------------------------------


def test_a_device_has_the_hosts_numbers_mode_and_owner(tmp_path: Path) -> None:
    """Through links of the host, too."""
    (tmp_path / "link").symlink_to("/dev/null")
    (node,) = look_up([DeviceOption(str(tmp_path / "link"), "/dev/x", "r")]).nodes
    facts = os.stat("/dev/null")
    assert (node.source, node.access) == ("/dev/null", "r")
    assert node.device == {
        "type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": stat.S_IMODE(facts.st_mode),
        "uid": facts.st_uid, "gid": facts.st_gid,
    }  # fmt: skip


def test_a_directory_gives_all_devices_below_it() -> None:
    found = {node.device["path"]: node.source for node in look_up([DeviceOption("/dev", "/dev/all")]).nodes}
    assert found["/dev/all/null"] == "/dev/null"
    assert "/dev/all/stdin" not in found  # a link
    assert all(stat.S_ISCHR(mode) or stat.S_ISBLK(mode) for mode in (os.lstat(path).st_mode for path in found.values()))


@pytest.mark.parametrize(
    ("source", "kind", "part"),
    [
        ("{}/none", ImageNotFoundError, "ls {} shows what is there"),
        ("{}/fyle", ImageNotFoundError, "did you mean {}/file?"),
        ("{}/no/where", ImageNotFoundError, "there is no {}/no either"),
        ("{}/file", UsageError, "is not a device"),
        ("{}/fifo", UsageError, "is not a device"),
        ("{}", UsageError, "a directory without devices"),
        ("/", UsageError, "search all of the machine"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, source: str, kind: type[TarboxError], part: str) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(kind) as raised:
        look_up([DeviceOption(source.format(tmp_path))])
    assert part.format(tmp_path) in str(raised.value)


# --- In the config --------------------------------------------------------------------------------------------------


def made_with(edits: Edits, uid: int = 0, **chosen: object) -> dict[str, Any]:
    options = RunOptions("./rootfs", ["sh"])
    for name, value in chosen.items():
        setattr(options, name, value)
    made: Any = config(options, {}, ID, Machine("here", uid=uid, gid=uid, edits=edits), "/srv")
    validate(made)
    return made  # type: ignore[no-any-return]


def null(target: str = "/dev/x", access: str = "rwm") -> Edits:
    return look_up([DeviceOption("/dev/null", target, access)])


def test_roots_container_gets_a_node_and_a_rule() -> None:
    linux = made_with(null(access="rw"), device_rules=[cgroup_rule("c 10:* rwm")])["linux"]
    assert [device["path"] for device in linux["devices"]] == ["/dev/x"]
    assert linux["resources"]["devices"][-2:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "c", "major": 10, "access": "rwm"},
    ]


def test_a_plain_users_container_gets_the_hosts_node_mounted() -> None:
    edits = null(access="r")
    made = made_with(edits, uid=1000, device_rules=[cgroup_rule("c 1:3 r")])
    assert made["linux"]["devices"] == []
    at = [mount["destination"] for mount in made["mounts"]].index("/dev/x")
    assert made["mounts"][at] == {
        "destination": "/dev/x", "type": "bind", "source": "/dev/null", "options": ["bind", "rprivate"],
    }  # fmt: skip
    assert at > [mount["destination"] for mount in made["mounts"]].index("/dev")
    assert [warning.split(":")[0] for warning in edits.warnings] == [
        "--device /dev/null", "--device-cgroup-rule has no effect"
    ]  # fmt: skip


def test_in_a_user_namespace_of_roots_the_node_is_mounted_and_the_rule_holds() -> None:
    made: Any = config(RunOptions("./rootfs"), {}, ID, Machine("here"), "/srv")
    made["linux"]["namespaces"].append({"type": "user"})
    edits = null(access="r")
    add(made, edits, [], plain=False, privileged=False)
    assert made["linux"]["devices"] == edits.warnings == []
    assert ("/dev/null", "/dev/x") in [(mount["source"], mount["destination"]) for mount in made["mounts"]]
    assert made["linux"]["resources"]["devices"][-1]["access"] == "r"


def test_a_privileged_container_needs_no_rule() -> None:
    edits = null()
    linux = made_with(edits, privileged=True, device_rules=[cgroup_rule("c 10:* rwm")])["linux"]
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert [device["path"] for device in linux["devices"]] == ["/dev/x"]
    assert "no effect" in edits.warnings[0]


def test_the_last_device_at_a_path_counts() -> None:
    edits = look_up([DeviceOption("/dev/null", "/dev/x"), DeviceOption("/dev/zero", "/dev/x")])
    assert [device["minor"] for device in made_with(edits)["linux"]["devices"]] == [5]


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("/", "is a directory"),
        ("/dev", "there is a mount at /dev/"),
        ("/dev/pts", "is taken"),
        ("/dev/shm/x", "hidden by the mount at /dev/shm"),
        ("/sys/x", "hidden by the mount at /sys"),
        ("/data/x", "hidden by the mount at /data"),
        ("/deep", "there is a mount at /deep/inner"),
    ],
)
def test_a_device_that_would_not_be_seen_is_refused(target: str, part: str, uid: int) -> None:
    mounts = [
        MountOption("bind", "/srv", "/data", ("rbind",)), MountOption("tmpfs", "tmpfs", "/deep/inner", ()),
    ]  # fmt: skip
    with pytest.raises(UsageError) as raised:
        made_with(null(target), uid, mounts=mounts)
    assert part in str(raised.value)
    assert str(raised.value).startswith("--device /dev/null: ")


@pytest.mark.parametrize("uid", [0, 1000])
def test_with_the_hosts_dev_the_node_is_there_already(uid: int) -> None:
    """`-v /dev:/dev --device X`: the rule is what's wanted; nothing is made in the host's directory."""
    mounts = [MountOption("bind", "/dev", "/dev", ("rbind",))]
    made = made_with(null("/dev/null"), uid, mounts=mounts)
    assert made["linux"]["devices"] == []
    assert "/dev/null" not in [mount["destination"] for mount in made["mounts"]]
    assert uid or made["linux"]["resources"]["devices"][-1]["minor"] == 3
    with pytest.raises(UsageError, match="in the host's directory"):
        made_with(null("/dev/x"), uid, mounts=mounts)


def test_devices_of_a_directory_that_have_no_place_are_passed_over() -> None:
    """`--device /dev` is for what can be had."""
    paths = {device["path"] for device in made_with(look_up([DeviceOption("/dev")]))["linux"]["devices"]}
    assert "/dev/null" in paths
    assert not {path for path in paths if path.startswith(("/dev/pts/", "/dev/shm/"))}
