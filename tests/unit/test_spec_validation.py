"""What breaks the OCI runtime specification is named by its JSON path; what doesn't is let through untouched."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tarbox.errors import ConfigError
from tarbox.spec.runtime import CAPABILITIES, RLIMITS
from tarbox.spec.validation import validate

CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 1, "gid": 1, "additionalGids": [5, 6], "umask": 0o22},
        "args": ["sh"],
        "env": ["PATH=/bin", "EMPTY="],
        "cwd": "/root",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "future": 1},
        "rlimits": [
            {"type": "RLIMIT_CORE", "hard": 2**64 - 1, "soft": 0},
            {"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1},
        ],
        "noNewPrivileges": True,
        "oomScoreAdj": -5,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "source": "/srv", "options": ["rbind", "ro"], "uidMappings": None},
    ],
    "hooks": {"prestart": [{"path": "/x"}]},
    "annotations": {"a.b": "c"},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/a"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 32000}],
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0},
            {"path": "/dev/pipe", "type": "p"},
        ],
        "cgroupsPath": "a:b:c",
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": -1, "access": "m"}],
            "memory": {"limit": -1, "swap": 5, "disableOOMKiller": False},
            "cpu": {"shares": 1024, "quota": 1, "period": 2, "cpus": "0-1"},
            "pids": {"limit": -1},
            "unified": {"memory.high": "5"},
        },
        "rootfsPropagation": "slave",
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 2**64 - 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "",
    },
    "vm": {"unknown": [1, None]},
}


def test_a_config_that_keeps_to_the_specification_is_let_through_untouched() -> None:
    config = deepcopy(CONFIG)
    validate(config)
    assert config == CONFIG


def test_the_least_config() -> None:
    validate({"ociVersion": "1.2.0", "root": {"path": "rootfs"}})


def test_null_counts_as_not_there() -> None:
    validate(
        {"ociVersion": "1.2.0", "root": {"path": "r"}, "process": None, "mounts": None, "linux": {"devices": None}}
    )


GONE = object()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("ociVersion", GONE, "$.ociVersion: is missing"),
        ("ociVersion", 1, "$.ociVersion: must be a string, not a number"),
        ("ociVersion", "1.0", "$.ociVersion: must be a version such as 1.2.0, not '1.0'"),
        ("ociVersion", "2.0.0", "$.ociVersion: is 2.0.0, and tarbox knows the versions 1.x"),
        ("root", GONE, "$.root: is missing"),
        ("root path", "", "$.root.path: must not be empty"),
        ("root readonly", 1, "$.root.readonly: must be true or false, not a number"),
        ("hostname", ["a"], "$.hostname: must be a string, not a list"),
        ("hostname", "a\0", "$.hostname: must not have a zero byte in it"),
        ("process", [], "$.process: must be an object, not a list"),
        ("process args", GONE, "$.process.args: is missing"),
        ("process args", [], "$.process.args: must not be empty"),
        ("process args", "sh", "$.process.args: must be a list, not a string"),
        ("process args 0", None, "$.process.args[0]: must be a string, not null"),
        ("process cwd", GONE, "$.process.cwd: is missing"),
        ("process cwd", "root", "$.process.cwd: must be an absolute path"),
        ("process env 1", "NOVALUE", "$.process.env[1]: must be of the form NAME=value"),
        ("process env 0", "=x", "$.process.env[0]: must be of the form NAME=value"),
        ("process terminal", "yes", "$.process.terminal: must be true or false, not a string"),
        ("process user uid", GONE, "$.process.user.uid: is missing"),
        ("process user uid", -1, "$.process.user.uid: must be from 0 to 4294967295, not -1"),
        ("process user gid", True, "$.process.user.gid: must be a whole number, not a boolean"),
        (
            "process user additionalGids 1",
            1.5,
            "$.process.user.additionalGids[1]: must be a whole number, not a number",
        ),
        ("process rlimits 0 type", "RLIMIT_LUCK", "$.process.rlimits[0].type: must be one of "),
        ("process rlimits 1 type", "RLIMIT_CORE", "$.process.rlimits[1].type: is there twice: RLIMIT_CORE"),
        ("process rlimits 1 soft", 2, "$.process.rlimits[1].soft: must not be above the hard limit"),
        ("process oomScoreAdj", 1001, "$.process.oomScoreAdj: must be from -1000 to 1000, not 1001"),
        ("mounts 1 destination", "data", "$.mounts[1].destination: must be an absolute path"),
        ("mounts 1 destination", GONE, "$.mounts[1].destination: is missing"),
        ("mounts 1 options 1", 5, "$.mounts[1].options[1]: must be a string, not a number"),
        ("linux namespaces 0 type", "network", "$.linux.namespaces[1].type: is there twice: network"),
        ("linux namespaces 0 type", "net", "$.linux.namespaces[0].type: must be one of "),
        ("linux namespaces 1 path", "a", "$.linux.namespaces[1].path: must be an absolute path"),
        ("linux uidMappings 0 size", GONE, "$.linux.uidMappings[0].size: is missing"),
        ("linux devices 0 minor", GONE, "$.linux.devices[0].minor: is missing"),
        ("linux devices 0 type", "x", "$.linux.devices[0].type: must be one of c, b, u, p"),
        ("linux resources devices 0 allow", GONE, "$.linux.resources.devices[0].allow: is missing"),
        ("linux resources devices 1 access", "x", "$.linux.resources.devices[1].access: must be made of r, w and m"),
        ("linux resources memory limit", "5m", "$.linux.resources.memory.limit: must be a whole number, not a string"),
        ("linux resources pids limit", GONE, "$.linux.resources.pids.limit: is missing"),
        ("linux rootfsPropagation", "x", "$.linux.rootfsPropagation: must be one of "),
        (
            "linux sysctl net.ipv4.ip_forward",
            1,
            '$.linux.sysctl["net.ipv4.ip_forward"]: must be a string, not a number',
        ),
        ("linux maskedPaths 0", "kcore", "$.linux.maskedPaths[0]: must be an absolute path"),
        ("linux seccomp defaultAction", "ALLOW", "$.linux.seccomp.defaultAction: must be one of "),
        ("linux seccomp syscalls 0 names", [], "$.linux.seccomp.syscalls[0].names: must not be empty"),
        ("linux seccomp syscalls 0 args 0 index", 6, "$.linux.seccomp.syscalls[0].args[0].index: must be from 0 to 5"),
        ("annotations", {"": "x"}, '$.annotations[""]: must not be empty'),
    ],
)
def test_what_breaks_it_is_named_by_its_path(place: str, value: object, message: str) -> None:
    config = deepcopy(CONFIG)
    *outer, last = place.split()
    holder: Any = config
    for name in outer:
        holder = holder[int(name) if name.isdigit() else name]
    key: Any = int(last) if last.isdigit() else last
    if value is GONE:
        del holder[key]
    else:
        holder[key] = value
    with pytest.raises(ConfigError) as raised:
        validate(config)
    assert str(raised.value).startswith(message)
    assert raised.value.path == message.partition(": ")[0]


def test_a_config_that_is_no_object() -> None:
    with pytest.raises(ConfigError, match="must be an object"):
        validate([])  # type: ignore[arg-type]


def test_the_kernels_names_have_the_kernels_numbers() -> None:
    import resource

    assert CAPABILITIES.index("CAP_SYS_ADMIN") == 21
    assert CAPABILITIES.index("CAP_CHECKPOINT_RESTORE") == 40
    known = {name: getattr(resource, f"RLIMIT_{name.upper()}", None) for name in RLIMITS}
    assert {name: number for name, number in RLIMITS.items() if known[name] not in (None, number)} == {}
