"""Is it an OCI runtime config? Checked from a table, before anything is done; the answer names the JSON path.

    $.mounts[2].destination: must be an absolute path

A check is a function of one value: it raises `_Wrong`, and the objects and lists around it add where they were. So a
config that is right costs no path. Keys that the table doesn't have are let through untouched, as the specification
asks; null counts as not there.

https://github.com/opencontainers/runtime-spec/blob/main/config.md and config-linux.md
"""

from __future__ import annotations

from ..errors import ConfigError
from .runtime import NAMESPACES, RLIMITS, UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[object], None]


def validate(config: Mapping[str, object]) -> None:
    """Raise ConfigError with the JSON path of the first thing that breaks the specification."""
    try:
        _CONFIG(config)
    except _Wrong as wrong:
        raise ConfigError("$" + "".join(reversed(wrong.places)), wrong.problem) from None


class _Wrong(Exception):
    """What is wrong, and where, from the inside out."""

    def __init__(self, problem: str, *places: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.places = list(places)


def _text(value: object) -> None:
    if type(value) is not str:
        raise _Wrong(f"must be a string, not {_name(value)}")
    if "\0" in value:
        raise _Wrong("must not have a zero byte in it")


def _filled(value: object) -> None:
    _text(value)
    if not value:
        raise _Wrong("must not be empty")


def _absolute(value: object) -> None:
    _text(value)
    assert isinstance(value, str)
    if not value.startswith("/"):
        raise _Wrong("must be an absolute path")


def _boolean(value: object) -> None:
    if type(value) is not bool:
        raise _Wrong(f"must be true or false, not {_name(value)}")


def _name(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _integer(least: int, most: int) -> Check:
    def check(value: object) -> None:
        if type(value) is not int:
            raise _Wrong(f"must be a whole number, not {_name(value)}")
        if not least <= value <= most:
            raise _Wrong(f"must be from {least} to {most}, not {value}")

    return check


def _one_of(*words: str) -> Check:
    def check(value: object) -> None:
        if type(value) is not str or value not in words:
            raise _Wrong("must be one of " + ", ".join(words))

    return check


def _list(entry: Check, least: int = 0, unique: str = "") -> Check:
    """A list of at least `least` entries; `unique` names the key in which no two may agree."""

    def check(value: object) -> None:
        if type(value) is not list:
            raise _Wrong(f"must be a list, not {_name(value)}")
        if len(value) < least:
            raise _Wrong("must not be empty")
        for place, part in enumerate(value):
            try:
                entry(part)
            except _Wrong as wrong:
                wrong.places.append(f"[{place}]")
                raise
        if unique and len(value) > 1:
            seen = set()
            for place, part in enumerate(value):
                if part[unique] in seen:
                    raise _Wrong(f"is there twice: {part[unique]}", f".{unique}", f"[{place}]")
                seen.add(part[unique])

    return check


def _object(keys: dict[str, Check], required: tuple[str, ...] = (), also: Check | None = None) -> Check:
    """An object; `also` checks what its keys have to do with each other."""

    def check(value: object) -> None:
        if not isinstance(value, dict):
            raise _Wrong(f"must be an object, not {_name(value)}")
        for key in required:
            if value.get(key) is None:
                raise _Wrong("is missing", f".{key}")
        for key, part in value.items():
            known = keys.get(key)
            if known is not None and part is not None:
                try:
                    known(part)
                except _Wrong as wrong:
                    wrong.places.append(f".{key}")
                    raise
        if also is not None:
            also(value)

    return check


def _texts_by_name(value: object) -> None:
    if not isinstance(value, dict):
        raise _Wrong(f"must be an object, not {_name(value)}")
    for key, part in value.items():
        try:
            _filled(key)
            _text(part)
        except _Wrong as wrong:
            wrong.places.append(f'["{key}"]')
            raise


def _version(value: object) -> None:
    _text(value)
    numbers = str(value).partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise _Wrong(f"must be a version such as 1.2.0, not {value!r}")
    if numbers[0] != "1":
        raise _Wrong(f"is {value}, and tarbox knows the versions 1.x")


def _variable(value: object) -> None:
    _text(value)
    if str(value).find("=") < 1:
        raise _Wrong("must be of the form NAME=value")


def _access(value: object) -> None:
    _text(value)
    if not value or str(value).strip("rwm"):
        raise _Wrong("must be made of r, w and m")


def _rlimit(value: object) -> None:
    assert isinstance(value, dict)
    if value["soft"] > value["hard"]:
        raise _Wrong("must not be above the hard limit", ".soft")


def _device(value: object) -> None:
    assert isinstance(value, dict)
    if value["type"] != "p":
        for key in ("major", "minor"):
            if value.get(key) is None:
                raise _Wrong("is missing", f".{key}")


def _page_size(value: object) -> None:
    _text(value)
    digits = str(value).removesuffix("B").removesuffix("K").removesuffix("M").removesuffix("G")
    if not (digits.isascii() and digits.isdecimal() and str(value)[len(digits) :] in ("KB", "MB", "GB")):
        raise _Wrong(f"must be a size such as 2MB, not {value!r}")


def _objects_by_name(entry: Check) -> Check:
    def check(value: object) -> None:
        if not isinstance(value, dict):
            raise _Wrong(f"must be an object, not {_name(value)}")
        for key, part in value.items():
            try:
                _filled(key)
                entry(part)
            except _Wrong as wrong:
                wrong.places.append(f'["{key}"]')
                raise

    return check


_ID = _integer(0, 2**32 - 1)
_WEIGHT = _integer(0, 1000)
_COUNT = _integer(0, UNLIMITED)
_SIGNED = _integer(-(2**63), 2**63 - 1)
_DISK = {"major": _SIGNED, "minor": _SIGNED}
_TEXTS = _list(_text)
_PATHS = _list(_absolute)
_MAPPINGS = _list(_object({"containerID": _ID, "hostID": _ID, "size": _ID}, ("containerID", "hostID", "size")))
_ACTION = _one_of(
    "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY",
)  # fmt: skip
_COMPARISON = _one_of(
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"
)

_PROCESS = _object(
    {
        "terminal": _boolean,
        "consoleSize": _object({"height": _COUNT, "width": _COUNT}, ("height", "width")),
        "user": _object({"uid": _ID, "gid": _ID, "umask": _ID, "additionalGids": _list(_ID)}, ("uid", "gid")),
        "args": _list(_text, 1),
        "env": _list(_variable),
        "cwd": _absolute,
        "capabilities": _object(
            dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), _TEXTS),
        ),
        "rlimits": _list(
            _object(
                {
                    "type": _one_of(*(f"RLIMIT_{name.upper()}" for name in RLIMITS)),
                    "soft": _COUNT,
                    "hard": _COUNT,
                },
                ("type", "soft", "hard"),
                _rlimit,
            ),
            unique="type",
        ),
        "noNewPrivileges": _boolean,
        "apparmorProfile": _text,
        "selinuxLabel": _text,
        "oomScoreAdj": _integer(-1000, 1000),
    },
    ("args", "cwd"),
)

_MOUNT = _object(
    {
        "destination": _absolute,
        "type": _text,
        "source": _text,
        "options": _TEXTS,
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
    },
    ("destination",),
)

_RESOURCES = _object(
    {
        "devices": _list(
            _object(
                {
                    "allow": _boolean,
                    "type": _one_of("a", "b", "c"),
                    "major": _SIGNED,
                    "minor": _SIGNED,
                    "access": _access,
                },
                ("allow",),
            )
        ),
        "memory": _object(
            {
                **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _SIGNED),
                "swappiness": _integer(0, 100),
                **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), _boolean),
            }
        ),
        "cpu": _object(
            {
                **dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), _COUNT),
                **dict.fromkeys(("quota", "realtimeRuntime", "idle"), _SIGNED),
                **dict.fromkeys(("cpus", "mems"), _text),
            }
        ),
        "pids": _object({"limit": _SIGNED}, ("limit",)),
        "blockIO": _object(
            {
                **dict.fromkeys(("weight", "leafWeight"), _WEIGHT),
                "weightDevice": _list(_object({**_DISK, "weight": _WEIGHT, "leafWeight": _WEIGHT}, tuple(_DISK))),
                **dict.fromkeys(
                    (
                        "throttleReadBpsDevice",
                        "throttleWriteBpsDevice",
                        "throttleReadIOPSDevice",
                        "throttleWriteIOPSDevice",
                    ),
                    _list(_object({**_DISK, "rate": _COUNT}, (*_DISK, "rate"))),
                ),
            }
        ),
        "hugepageLimits": _list(_object({"pageSize": _page_size, "limit": _COUNT}, ("pageSize", "limit"))),
        "network": _object(
            {
                "classID": _ID,
                "priorities": _list(_object({"name": _filled, "priority": _ID}, ("name", "priority"))),
            }
        ),
        "rdma": _objects_by_name(_object({"hcaHandles": _ID, "hcaObjects": _ID})),
        "unified": _texts_by_name,
    }
)

_SECCOMP = _object(
    {
        "defaultAction": _ACTION,
        "defaultErrnoRet": _ID,
        "architectures": _TEXTS,
        "flags": _TEXTS,
        "syscalls": _list(
            _object(
                {
                    "names": _list(_filled, 1),
                    "action": _ACTION,
                    "errnoRet": _ID,
                    "args": _list(
                        _object(
                            {"index": _integer(0, 5), "value": _COUNT, "valueTwo": _COUNT, "op": _COMPARISON},
                            ("index", "value", "op"),
                        )
                    ),
                },
                ("names", "action"),
            )
        ),
    },
    ("defaultAction",),
)

_LINUX = _object(
    {
        "namespaces": _list(_object({"type": _one_of(*NAMESPACES), "path": _absolute}, ("type",)), unique="type"),
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
        "timeOffsets": _object(
            dict.fromkeys(("monotonic", "boottime"), _object({"secs": _SIGNED, "nanosecs": _integer(0, 999_999_999)}))
        ),
        "devices": _list(
            _object(
                {
                    "type": _one_of("c", "b", "u", "p"),
                    "path": _absolute,
                    "major": _SIGNED,
                    "minor": _SIGNED,
                    "fileMode": _ID,
                    "uid": _ID,
                    "gid": _ID,
                },
                ("type", "path"),
                _device,
            )
        ),
        "cgroupsPath": _text,
        "resources": _RESOURCES,
        "rootfsPropagation": _one_of("shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate"),
        "sysctl": _texts_by_name,
        "seccomp": _SECCOMP,
        "maskedPaths": _PATHS,
        "readonlyPaths": _PATHS,
        "mountLabel": _text,
    }
)

_CONFIG = _object(
    {
        "ociVersion": _version,
        "process": _PROCESS,
        "root": _object({"path": _filled, "readonly": _boolean}, ("path",)),
        "hostname": _text,
        "domainname": _text,
        "mounts": _list(_MOUNT),
        "linux": _LINUX,
        "annotations": _texts_by_name,
    },
    ("ociVersion", "root"),
)
