"""The Container Device Interface: what a file may say, which file counts, and what it adds to a config."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tarbox.engine.cdi import Files
from tarbox.engine.config import config
from tarbox.engine.device_edits import Edits, look_up
from tarbox.engine.devices import CdiName
from tarbox.engine.machine import Machine
from tarbox.engine.options import MountOption, RunOptions
from tarbox.errors import ConfigError, ImageNotFoundError, TarboxError, UnsupportedError, UsageError
from tarbox.spec.cdi import VERSIONS, read
from tarbox.spec.validation import validate

# The specification's own example.
EXAMPLE: dict[str, Any] = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.com/device",
    "devices": [
        {
            "name": "myDevice",
            "containerEdits": {
                "deviceNodes": [{"hostPath": "/vendorroot/dev/card1", "path": "/dev/card1"}, {"path": "/dev/card2"}]
            },
        }
    ],
    "containerEdits": {
        "env": ["FOO=CDI_SPEC", "BAR=BARVALUE1"],
        "deviceNodes": [{"path": "/dev/vendorctl", "uid": 1000, "gid": 1000}],
        "mounts": [
            {"hostPath": "/bin/vendorBin", "containerPath": "/bin/vendorBin"},
            {"hostPath": "/usr/lib/libVendor.so.0", "containerPath": "/usr/lib/libVendor.so.0"},
        ],
        "hooks": [
            {"hookName": "createContainer", "path": "/bin/vendor-hook"},
            {"hookName": "startContainer", "path": "/usr/bin/ldconfig"},
        ],
    },
}
# And the least that it allows.
MINIMAL: dict[str, Any] = {
    "cdiVersion": "0.3.0",
    "kind": "vendor.com/device",
    "devices": [{"name": "myDevice", "containerEdits": {"deviceNodes": [{"path": "/dev/card1"}]}}],
}


def spec_of(edits: dict[str, Any] | None = None, name: str = "one", **more: Any) -> dict[str, Any]:
    """A file with one device."""
    device = {"name": name, **({} if edits is None else {"containerEdits": edits})}
    return {"cdiVersion": "1.1.0", "kind": "vendor.com/class", "devices": [device], **more}


def parsed(spec: object) -> object:
    return read(json.dumps(spec).encode(), "/etc/cdi/v.json")


@pytest.mark.parametrize(
    "spec",
    [
        EXAMPLE,
        MINIMAL,
        spec_of(),
        {**MINIMAL, "cdiVersion": "v0.3.0"},
        spec_of({"intelRdt": {"closID": "/", "schemata": ["L3:0=f"], "enableMonitoring": True}}),
        spec_of({"netDevices": [{"hostInterfaceName": "eth1", "name": "net0"}], "additionalGIDs": [5]}),
        spec_of({"hooks": [{"hookName": "prestart", "path": "/x", "args": ["x", ""], "env": ["A="], "timeout": 1}]}),
        spec_of(annotations={"a": "b"}),
        spec_of({"deviceNodes": [{"path": "/dev/x", "type": "", "fileMode": 8630, "permissions": "none"}]}),
        *({**MINIMAL, "cdiVersion": version} for version in VERSIONS),
    ],
)
def test_what_the_specification_allows_is_read(spec: dict[str, Any]) -> None:
    assert parsed(spec) == spec


@pytest.mark.parametrize(
    ("spec", "path", "part"),
    [
        ({}, "$.cdiVersion", "is missing"),
        ([], "$", "must be an object"),
        ({**MINIMAL, "cdiVersion": "2.0.0"}, "$.cdiVersion", "knows 0.1.0 to 1.1.0"),
        ({**MINIMAL, "cdiVersion": 1}, "$.cdiVersion", "must be a string"),
        ({**MINIMAL, "kind": "foo"}, "$.kind", "vendor.com/class"),
        ({**MINIMAL, "kind": "vendor.com/foo/"}, "$.kind", "vendor.com/class"),
        ({**MINIMAL, "kind": "vendor.com/foo/bar"}, "$.kind", "vendor.com/class"),
        ({**MINIMAL, "kind": f"vendor.com/{'a' * 64}"}, "$.kind", "vendor.com/class"),
        ({**MINIMAL, "devices": []}, "$.devices", "must not be empty"),
        ({**MINIMAL, "colour": 1}, "$.colour", "isn't a key of the specification"),
        ({**MINIMAL, "devices": [{}]}, "$.devices[0].name", "is missing"),
        ({**MINIMAL, "devices": [{"name": "-"}]}, "$.devices[0].name", "letters and digits"),
        ({**MINIMAL, "devices": [{"name": "a"}, {"name": "a"}]}, "$.devices[1].name", "is there twice"),
        ({**MINIMAL, "devices": [{"name": "a", "containerEdits": []}]}, "$.devices[0].containerEdits", "an object"),
        (spec_of({"env": ["=x"]}), "$.devices[0].containerEdits.env[0]", "NAME=value"),
        (spec_of({"deviceNodes": [{}]}), "$.devices[0].containerEdits.deviceNodes[0].path", "is missing"),
        (spec_of({"deviceNodes": [{"path": "x"}]}), "$.devices[0].containerEdits.deviceNodes[0].path", "absolute"),
        (spec_of({"deviceNodes": [{"path": "/x", "type": "d"}]}),
         "$.devices[0].containerEdits.deviceNodes[0].type", "one of"),
        (spec_of({"deviceNodes": [{"path": "/x", "permissions": "rwx"}]}),
         "$.devices[0].containerEdits.deviceNodes[0].permissions", "r, w and m"),
        (spec_of({"deviceNodes": [{"path": "/x", "uid": -1}]}),
         "$.devices[0].containerEdits.deviceNodes[0].uid", "from 0"),
        (spec_of({"deviceNodes": [{"path": "/x", "Major": 1}]}),
         "$.devices[0].containerEdits.deviceNodes[0].Major", "isn't a key"),
        (spec_of({"mounts": [{"hostPath": "/x"}]}), "$.devices[0].containerEdits.mounts[0].containerPath", "missing"),
        (spec_of({"mounts": [{"hostPath": "/x", "containerPath": "y"}]}),
         "$.devices[0].containerEdits.mounts[0].containerPath", "absolute"),
        (spec_of({"mounts": [{"hostPath": "/x", "containerPath": "/y", "options": "ro"}]}),
         "$.devices[0].containerEdits.mounts[0].options", "a list"),
        (spec_of({"hooks": [{"hookName": "whenever", "path": "/x"}]}),
         "$.devices[0].containerEdits.hooks[0].hookName", "one of"),
        (spec_of({"hooks": [{"hookName": "prestart", "path": "x"}]}),
         "$.devices[0].containerEdits.hooks[0].path", "absolute"),
        (spec_of({"hooks": [{"hookName": "prestart", "path": "/x", "timeout": 0}]}),
         "$.devices[0].containerEdits.hooks[0].timeout", "from 1"),
        (spec_of({"additionalGids": ["audio"]}), "$.devices[0].containerEdits.additionalGids[0]", "whole number"),
        (spec_of({"intelRdt": {"closID": "../x"}}), "$.devices[0].containerEdits.intelRdt.closID", "a file's name"),
        (spec_of({"netDevices": [{"name": "x"}]}),
         "$.devices[0].containerEdits.netDevices[0].hostInterfaceName", "is missing"),
        (spec_of(containerEdits={"env": "A=1"}), "$.containerEdits.env", "a list"),
        (spec_of(annotations={"a": 1}), '$.annotations["a"]', "a string"),
    ],
)  # fmt: skip
def test_an_error_names_the_file_and_the_path_in_it(spec: object, path: str, part: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parsed(spec)
    assert str(raised.value).startswith(f"/etc/cdi/v.json: {path}: ")
    assert part in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "kind: vendor.com/class", "[" * 100000, '{"a": "\xff"}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="isn't JSON"):
        read(text.encode("latin-1"), "/etc/cdi/v.json")


@pytest.mark.parametrize(
    ("least", "spec"),
    [
        ("0.4.0", spec_of({"mounts": [{"hostPath": "/x", "containerPath": "/y", "type": "tmpfs"}]})),
        ("0.5.0", spec_of({"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y"}]})),
        ("0.5.0", spec_of(name="0")),
        ("0.6.0", spec_of(annotations={"a": "b"})),
        ("0.6.0", spec_of(kind="vendor.com/a.b")),
        ("0.7.0", spec_of({"additionalGids": [1]})),
        ("0.7.0", spec_of({"intelRdt": {"closID": "x"}})),
        ("1.1.0", spec_of({"intelRdt": {"schemata": []}})),
        ("1.1.0", spec_of(containerEdits={"netDevices": [{"hostInterfaceName": "a", "name": "b"}]})),
    ],
)
def test_what_is_newer_than_the_files_version_is_refused(least: str, spec: dict[str, Any]) -> None:
    parsed({**spec, "cdiVersion": least})
    before = VERSIONS[VERSIONS.index(least) - 1]
    with pytest.raises(ConfigError, match=rf"\$\.cdiVersion: is {before}, and something in the file came with {least}"):
        parsed({**spec, "cdiVersion": before})


# --- Which file counts ----------------------------------------------------------------------------------------------


def write(folder: Path, name: str, spec: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(spec if isinstance(spec, str) else json.dumps(spec))
    return path


def one(name: str = "one", kind: str = "vendor.com/class") -> CdiName:
    return CdiName(kind, name)


def variables(wanted: list[CdiName], *folders: Path) -> list[str]:
    return look_up(wanted, [str(folder) for folder in folders]).env


def test_the_second_folder_goes_before_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a", "v.json", spec_of({"env": ["X=a"]}))
    write(tmp_path / "b", "v.json", spec_of({"env": ["X=b"]}))
    assert variables([one()], tmp_path / "a", tmp_path / "b") == ["X=b"]
    assert variables([one()], tmp_path / "b", tmp_path / "a") == ["X=a"]


def test_two_files_of_one_folder_may_not_describe_the_same_device(tmp_path: Path) -> None:
    write(tmp_path, "a.json", spec_of({"env": ["X=a"]}))
    write(tmp_path, "b.json", spec_of({"env": ["X=b"]}))
    with pytest.raises(UsageError, match=r"both .*/a\.json and .*/b\.json describe it"):
        variables([one()], tmp_path)


def test_what_a_file_says_of_all_its_devices_is_added_once(tmp_path: Path) -> None:
    spec = spec_of({"env": ["D=one"]}, containerEdits={"env": ["S=1"]})
    spec["devices"].append({"name": "two", "containerEdits": {"env": ["D=two"]}})
    write(tmp_path, "v.json", spec)
    assert variables([one(), one("two")], tmp_path) == ["S=1", "D=one", "D=two"]


def test_all_is_a_device_of_that_name_or_every_one(tmp_path: Path) -> None:
    spec = spec_of({"env": ["D=one"]})
    spec["devices"].append({"name": "two", "containerEdits": {"env": ["D=two"]}})
    path = write(tmp_path, "v.json", spec)
    assert variables([one("all")], tmp_path) == ["D=one", "D=two"]
    spec["devices"].append({"name": "all", "containerEdits": {"env": ["D=all"]}})
    path.write_text(json.dumps(spec))
    assert variables([one("all")], tmp_path) == ["D=all"]


def test_a_broken_file_harms_only_those_who_need_it(tmp_path: Path) -> None:
    write(tmp_path, "bad.json", "{")
    os.mkfifo(tmp_path / "fifo.json")
    write(tmp_path, "note.txt", "{")
    write(tmp_path, "v.json", spec_of({"env": ["X=1"]}))
    assert variables([one()], tmp_path) == ["X=1"]
    assert len(Files([str(tmp_path)]).broken) == 2
    with pytest.raises(ConfigError) as raised:
        variables([one(kind="other.com/class")], tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}/bad.json: isn't JSON")
    assert "for --device other.com/class=one" in str(raised.value)


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (one("on"), "did you mean vendor.com/class=one?"),
        (one("none-such"), "it has one"),
        (one(kind="vendor.com/clas"), "did you mean vendor.com/class=one?"),
        (one(kind="other.org/thing"), "they describe vendor.com/class"),
        (CdiName("nvidia.com/gpu", "all", "--gpus all"), "nvidia-ctk cdi generate --format=json"),
    ],
)
def test_a_device_that_nobody_describes_is_refused(tmp_path: Path, asked: CdiName, part: str) -> None:
    write(tmp_path, "v.json", spec_of({"env": ["X=1"]}))
    with pytest.raises(TarboxError) as raised:
        variables([asked], tmp_path)
    assert part in str(raised.value)
    assert str(raised.value).startswith(asked.option)


def test_yaml_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "v.yaml", "kind: vendor.com/class")
    with pytest.raises(UnsupportedError) as raised:
        variables([one()], tmp_path)
    assert f"{tmp_path}/v.yaml is YAML" in str(raised.value)
    assert f"yq -o json {tmp_path}/v.yaml > {tmp_path}/v.json" in str(raised.value)


def test_a_folder_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--cdi-spec-dir .*/none: there is no such directory"):
        variables([one()], tmp_path / "none")


# --- What it adds ---------------------------------------------------------------------------------------------------


def made_with(tmp_path: Path, edits: dict[str, Any], uid: int = 0, **chosen: Any) -> tuple[dict[str, Any], Edits]:
    write(tmp_path / "cdi", "v.json", spec_of(edits))
    options = RunOptions("./rootfs", ["sh"])
    for name, value in chosen.items():
        setattr(options, name, value)
    found = look_up([one()], [str(tmp_path / "cdi")])
    made: Any = config(options, {}, "0123456789abcdef" * 4, Machine("here", uid=uid, gid=uid, edits=found), "/srv")
    validate(made)
    return made, found


def test_variables_are_set_over_all_others(tmp_path: Path) -> None:
    made, _ = made_with(tmp_path, {"env": ["A=cdi", "B=first", "B=second"]}, env=["A=mine", "C=mine"])
    assert made["process"]["env"][-3:] == ["C=mine", "A=cdi", "B=second"]


def test_a_node_is_filled_in_from_the_hosts(tmp_path: Path) -> None:
    nodes = [{"path": "/dev/a", "hostPath": "/dev/null"}, {"path": "/dev/zero", "permissions": "r", "type": "c"}]
    made, _ = made_with(tmp_path, {"deviceNodes": nodes})
    mode = os.stat("/dev/null").st_mode & 0o7777
    assert made["linux"]["devices"] == [
        {"type": "c", "path": "/dev/a", "fileMode": mode, "major": 1, "minor": 3},
        {"type": "c", "path": "/dev/zero", "fileMode": mode, "major": 1, "minor": 5},
    ]
    assert made["linux"]["resources"]["devices"][-2:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"},
    ]


def test_a_node_that_is_wholly_described_needs_none_on_the_host(tmp_path: Path) -> None:
    whole = {"path": "/dev/v", "type": "b", "major": 240, "minor": 7, "fileMode": 8624, "uid": 5, "gid": 6,
             "permissions": "none"}  # fmt: skip
    fifo = {"path": "/dev/fifo", "type": "p"}
    made, _ = made_with(tmp_path, {"deviceNodes": [whole, fifo]})
    assert made["linux"]["devices"] == [
        {"type": "b", "path": "/dev/v", "major": 240, "minor": 7, "fileMode": 0o660, "uid": 5, "gid": 6},
        {"type": "p", "path": "/dev/fifo"},
    ]
    assert 240 not in [rule.get("major") for rule in made["linux"]["resources"]["devices"]]


def test_a_node_belongs_to_whom_the_program_runs_as(tmp_path: Path) -> None:
    """Unless the file says whose it is."""
    nodes = [{"path": "/dev/a", "hostPath": "/dev/null"}, {"path": "/dev/b", "hostPath": "/dev/null", "uid": 0}]
    made, _ = made_with(tmp_path, {"deviceNodes": nodes}, user="1000:1001")
    assert [(node.get("uid"), node.get("gid")) for node in made["linux"]["devices"]] == [(1000, 1001), (0, 1001)]


@pytest.mark.parametrize(
    ("node", "kind", "part"),
    [
        ({"path": "/dev/none-such"}, ImageNotFoundError, "deviceNodes[0]: /dev/none-such: No such file"),
        ({"path": "/dev/x", "hostPath": "/etc/passwd"}, UsageError, "/etc/passwd is not a device"),
        ({"path": "/dev/null", "type": "b"}, UsageError, "deviceNodes[0].type: is b, and /dev/null is c"),
    ],
)
def test_a_node_that_cannot_be_is_refused(
    tmp_path: Path, node: dict[str, Any], kind: type[TarboxError], part: str
) -> None:
    with pytest.raises(kind) as raised:
        made_with(tmp_path, {"deviceNodes": [node]})
    assert part in str(raised.value)
    assert f"{tmp_path}/cdi/v.json: $.devices[0].containerEdits" in str(raised.value)


def test_mounts_lie_where_their_depth_puts_them(tmp_path: Path) -> None:
    """They replace what would be at the same place; without a type they are bind mounts."""
    mounts = [
        {"hostPath": "/etc", "containerPath": "/data/inner/", "options": ["ro", "nosuid", "rbind"]},
        {"hostPath": "/usr", "containerPath": "/tools"},
        {"hostPath": "tmpfs", "containerPath": "/scratch", "type": "tmpfs", "options": ["size=1m"]},
        {"hostPath": "/srv", "containerPath": "/dev/shm"},
    ]
    mine = [MountOption("bind", "/var", "/data", ("rbind",)), MountOption("bind", "/opt", "/tools", ("rbind",))]
    made, _ = made_with(tmp_path, {"mounts": mounts}, mounts=mine)
    found = {mount["destination"]: mount for mount in made["mounts"]}
    assert len(found) == len(made["mounts"])
    assert found["/data/inner"] == {
        "destination": "/data/inner", "type": "bind", "source": "/etc", "options": ["ro", "nosuid", "rbind"],
    }  # fmt: skip
    assert (found["/tools"]["source"], found["/tools"]["options"]) == ("/usr", ["rbind"])
    assert (found["/scratch"]["type"], found["/scratch"]["source"]) == ("tmpfs", "tmpfs")
    assert (found["/dev/shm"]["type"], found["/dev/shm"]["source"]) == ("bind", "/srv")
    order = list(found)
    assert order.index("/data") < order.index("/data/inner")
    assert order.index("/dev") < order.index("/dev/shm")


@pytest.mark.parametrize(
    ("mount", "part"),
    [
        ({"hostPath": "/none/such", "containerPath": "/x"}, "mounts[0].hostPath: /none/such doesn't exist"),
        ({"hostPath": "etc", "containerPath": "/x"}, "must be an absolute path"),
        ({"hostPath": "/etc", "containerPath": "/"}, "at / itself"),
        ({"hostPath": "/etc", "containerPath": "/proc/sys"}, "nothing can be mounted at /proc/sys"),
    ],
)
def test_a_mount_that_cannot_be_is_refused(tmp_path: Path, mount: dict[str, Any], part: str) -> None:
    with pytest.raises(TarboxError) as raised:
        made_with(tmp_path, {"mounts": [mount]})
    assert part in str(raised.value)


def test_groups_are_added_and_nought_is_not(tmp_path: Path) -> None:
    made, found = made_with(tmp_path, {"additionalGids": [0, 44, 44, 107]}, user="1:1")
    assert found.gids == [44, 107]
    assert made["process"]["user"]["additionalGids"] == [44, 107]


@pytest.mark.parametrize(
    "edits",
    [
        {"hooks": [{"hookName": "createContainer", "path": "/usr/bin/true"}]},
        {"netDevices": [{"hostInterfaceName": "a", "name": "b"}]},
        {"intelRdt": {"closID": "x"}},
    ],
)
def test_what_cannot_be_done_yet_is_refused_by_its_path(tmp_path: Path, edits: dict[str, Any]) -> None:
    """A device without it would be half a device."""
    with pytest.raises(UnsupportedError) as raised:
        made_with(tmp_path, edits)
    assert f"v.json: $.devices[0].containerEdits.{next(iter(edits))}: " in str(raised.value)


def test_a_hook_is_refused_by_its_name_with_what_to_do(tmp_path: Path) -> None:
    hooks = [
        {
            "hookName": "createContainer",
            "path": "/usr/bin/nvidia-cdi-hook",
            "args": ["nvidia-cdi-hook", "create-symlinks"],
        },
        {"hookName": "createRuntime", "path": "/bin/other"},
    ]
    with pytest.raises(UnsupportedError) as raised:
        made_with(tmp_path, {"hooks": hooks})
    assert (
        "while the container is made, /usr/bin/nvidia-cdi-hook (createContainer) and /bin/other (createRuntime)"
        in str(raised.value)
    )
    assert (
        "take it out of a copy of the file, see --cdi-spec-dir, and have the container's command do"
        in raised.value.hint
    )


def test_a_plain_users_container_is_told_what_it_lacks(tmp_path: Path) -> None:
    nodes = [{"path": "/dev/a", "hostPath": "/dev/null", "uid": 12}]
    made, found = made_with(tmp_path, {"deviceNodes": nodes, "additionalGids": [44]}, uid=1000)
    assert ("/dev/null", "/dev/a") in [(mount["source"], mount["destination"]) for mount in made["mounts"]]
    assert ["uid stay the host's" in found.warnings[0], "groups 44" in found.warnings[1]] == [True, True]
    with pytest.raises(ImageNotFoundError, match="doesn't exist on the host"):
        made_with(tmp_path, {"deviceNodes": [{"path": "/dev/v", "type": "c", "major": 240, "minor": 7}]}, uid=1000)
