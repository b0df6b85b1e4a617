"""The Container Device Interface: files by which a device's vendor says what a container needs to use it.

    /etc/cdi/vendor.json          {"cdiVersion": "0.6.0", "kind": "vendor.com/device", "devices": [ … ]}

A name such as vendor.com/device=first stands for one entry of `devices`; its `containerEdits` say what is added to the
OCI config: variables, device nodes, mounts, groups. Those beside `devices` are added with any of them. A file is
checked whole before anything of it is used, keys that nobody knows included, as the specification asks; the answer
names the JSON path.

https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from __future__ import annotations

from ..errors import ConfigError
from .validation import (
    _ID,
    _SIGNED,
    _absolute,
    _boolean,
    _filled,
    _integer,
    _list,
    _object,
    _one_of,
    _text,
    _texts_by_name,
    _variable,
    _Wrong,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NotRequired, TypedDict

    from .validation import Check

    class DeviceNode(TypedDict):
        path: str
        hostPath: NotRequired[str]
        type: NotRequired[str]
        major: NotRequired[int]
        minor: NotRequired[int]
        fileMode: NotRequired[int]
        permissions: NotRequired[str]
        uid: NotRequired[int]
        gid: NotRequired[int]

    class CdiMount(TypedDict):
        hostPath: str
        containerPath: str
        type: NotRequired[str]
        options: NotRequired[list[str]]

    class ContainerEdits(TypedDict, total=False):
        env: list[str]
        deviceNodes: list[DeviceNode]
        mounts: list[CdiMount]
        hooks: list[dict[str, Any]]
        additionalGids: list[int]
        intelRdt: dict[str, Any]
        netDevices: list[dict[str, str]]

    class Device(TypedDict):
        name: str
        containerEdits: NotRequired[ContainerEdits]

    class Spec(TypedDict):
        cdiVersion: str
        kind: str
        devices: list[Device]
        containerEdits: NotRequired[ContainerEdits]


VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
_INNER = "-_."
_LONGEST_VENDOR, _LONGEST_CLASS = 253, 63


def read(data: bytes, file: str) -> Spec:
    """The specification in a file's bytes; raises ConfigError, whose path begins with the `file`."""
    import json

    try:
        spec: Spec = json.loads(data)
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(file, f"isn't JSON: {said}", "the rest of the file isn't looked at") from None
    try:
        _SPEC(spec)
    except _Wrong as wrong:
        raise ConfigError(f"{file}: $" + "".join(reversed(wrong.places)), wrong.problem) from None
    return spec


def is_kind(text: str) -> bool:
    """Whether it is of the form `vendor.com/class`."""
    vendor, _, name = text.partition("/")
    return (
        _framed(vendor, _INNER)
        and vendor[0].isalpha()
        and ".." not in vendor
        and len(vendor) <= _LONGEST_VENDOR
        and _framed(name, _INNER)
        and len(name) <= _LONGEST_CLASS
    )


def is_name(text: str) -> bool:
    """Whether a device can have that name."""
    return _framed(text, _INNER + ":")


def _framed(text: str, inner: str) -> bool:
    """Whether it begins and ends with an ASCII letter or digit, and has nothing but those and `inner` between them."""
    plain = text
    for letter in inner:
        plain = plain.replace(letter, "")
    return text.isascii() and plain.isalnum() and text[0].isalnum() and text[-1].isalnum()


def edits_of(spec: Spec, device: Device | None = None) -> ContainerEdits:
    """What one device adds, or, without one, what each of them does."""
    return (spec if device is None else device).get("containerEdits") or {}


def _edited(edits: object, key: str) -> bool:
    return isinstance(edits, dict) and bool(edits.get(key))


def _least_version(spec: Spec) -> str:
    """The oldest version that has all that the file uses."""
    edits = [edits_of(spec), *(edits_of(spec, device) for device in spec["devices"])]
    rdt = [each.get("intelRdt") or {} for each in edits]
    if any(each.get("netDevices") for each in edits):
        return "1.1.0"
    if any(each.get("schemata") is not None or each.get("enableMonitoring") for each in rdt):
        return "1.1.0"
    if any(rdt) or any(_edited(each, "additionalGids") or _edited(each, "additionalGIDs") for each in edits):
        return "0.7.0"
    if any(_edited(part, "annotations") for part in (spec, *spec["devices"])) or "." in spec["kind"].partition("/")[2]:
        return "0.6.0"
    nodes = [node for each in edits for node in each.get("deviceNodes") or ()]
    if any(node.get("hostPath") for node in nodes) or any(device["name"][0].isdigit() for device in spec["devices"]):
        return "0.5.0"
    if any(mount.get("type") for each in edits for mount in each.get("mounts") or ()):
        return "0.4.0"
    return VERSIONS[0]


def _whole(value: object) -> None:
    spec: Any = value
    version, least = spec["cdiVersion"].removeprefix("v"), _least_version(spec)
    if VERSIONS.index(version) < VERSIONS.index(least):
        raise _Wrong(f"is {version}, and something in the file came with {least}", ".cdiVersion")


def _version(value: object) -> None:
    _text(value)
    if str(value).removeprefix("v") not in VERSIONS:
        raise _Wrong(f"is {value!r}, and tarbox knows {VERSIONS[0]} to {VERSIONS[-1]}")


def _kind(value: object) -> None:
    _text(value)
    if not is_kind(str(value)):
        raise _Wrong(f"must be of the form vendor.com/class, not {value!r}")


def _device_name(value: object) -> None:
    _text(value)
    if not is_name(str(value)):
        raise _Wrong(f"must be letters and digits, with - _ . : between them, not {value!r}")


def _permissions(value: object) -> None:
    _text(value)
    if value != "none" and str(value).strip("rwm"):
        raise _Wrong("must be made of r, w and m, or be none")


def _class_of_service(value: object) -> None:
    _text(value)
    text = str(value)
    if text != "/" and (len(text) >= 4096 or text in (".", "..") or "/" in text or "\n" in text):
        raise _Wrong("must be a file's name")


def _closed(keys: dict[str, Check], required: tuple[str, ...] = (), also: Check | None = None) -> Check:
    """An object with these keys and no others."""

    def check(value: object) -> None:
        assert isinstance(value, dict)
        for key in value:
            if key not in keys:
                raise _Wrong("isn't a key of the specification", f".{key}")
        if also is not None:
            also(value)

    return _object(keys, required, check)


_TEXTS = _list(_text)
_NODE = _closed(
    {
        "path": _absolute,
        "hostPath": _absolute,
        "type": _one_of("", "b", "c", "u", "p"),
        "major": _SIGNED,
        "minor": _SIGNED,
        "fileMode": _ID,
        "permissions": _permissions,
        "uid": _ID,
        "gid": _ID,
    },
    ("path",),
)
_MOUNT = _closed(
    {"hostPath": _filled, "containerPath": _absolute, "type": _text, "options": _TEXTS}, ("hostPath", "containerPath")
)
_HOOK = _closed(
    {
        "hookName": _one_of(
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
        ),
        "path": _absolute,
        "args": _TEXTS,
        "env": _list(_variable),
        "timeout": _integer(1, 2**31 - 1),
    },
    ("hookName", "path"),
)  # fmt: skip
_RDT = _closed(
    {
        "closID": _class_of_service,
        "l3CacheSchema": _text,
        "memBwSchema": _text,
        "schemata": _TEXTS,
        "enableMonitoring": _boolean,
        "enableCMT": _boolean,  # these two until 1.1.0
        "enableMBM": _boolean,
    }
)
_NET = _closed({"hostInterfaceName": _filled, "name": _filled}, ("hostInterfaceName", "name"))
_EDITS = _closed(
    {
        "env": _list(_variable),
        "deviceNodes": _list(_NODE),
        "mounts": _list(_MOUNT),
        "hooks": _list(_HOOK),
        "additionalGids": _list(_ID),
        "additionalGIDs": _list(_ID),  # the specification has both spellings
        "intelRdt": _RDT,
        "netDevices": _list(_NET, unique="name"),
    }
)
_DEVICE = _closed({"name": _device_name, "annotations": _texts_by_name, "containerEdits": _EDITS}, ("name",))
_SPEC = _closed(
    {
        "cdiVersion": _version,
        "kind": _kind,
        "annotations": _texts_by_name,
        "devices": _list(_DEVICE, 1, unique="name"),
        "containerEdits": _EDITS,
    },
    ("cdiVersion", "kind", "devices"),
    _whole,
)

__all__ = ["VERSIONS", "edits_of", "is_kind", "is_name", "read"]
