"""`--device`, `--device-cgroup-rule` and `--gpus`: what people write, as values. Loaded only when one of them is given.

    --device /dev/fuse                       mknod $ROOT/dev/fuse c 10 229; echo 'c 10:229 rwm' > devices.allow
    --device /dev/sdb:/dev/disk:r            the same under another name, for reading only
    --device vendor.com/class=name           what a file of the Container Device Interface says of that name
    --gpus all                               --device nvidia.com/gpu=all

Nothing of the machine is looked at here: whether there is such a device is asked when the container is planned.

man 4 null, man 2 mknod; https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from __future__ import annotations

from ..errors import UsageError
from ..spec.cdi import is_kind, is_name
from ..unistd import os
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import DeviceRule

_ACCESS = "rwm"
_GPU = "nvidia.com/gpu"
_MOST = (4095, (1 << 20) - 1)  # what the kernel's number of a device has room for
_CAPABILITIES = ("gpu", "compute", "utility", "graphics", "video", "display", "ngx", "compat32", "all")
_DEVICE = "a path of the host such as /dev/fuse, or vendor.com/class=name"
_RULE = "e.g. 'c 1:3 rwm': a, b or c, MAJOR:MINOR with * for any, and some of r, w, m"
_GPUS = "all, a number, or '\"device=0,1\"' with both kinds of quotes"


class DeviceOption:
    """One `--device` by path. source: a node of the host, or a directory of them. target: its path in the container.

    access: some of "rwm": reading, writing, and making such a node.
    """

    __slots__ = ("access", "source", "target")

    def __init__(self, source: str, target: str = "", access: str = _ACCESS) -> None:
        self.source = source
        self.target = target or source
        self.access = access

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceOption) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"DeviceOption({self.source!r}, {self.target!r}, {self.access!r})"


class CdiName:
    """One device by its name in the Container Device Interface. kind: "vendor.com/class". name: "all" is all of it.

    option: how it was asked for, for messages.
    """

    __slots__ = ("kind", "name", "option")

    def __init__(self, kind: str, name: str, option: str = "") -> None:
        self.kind = kind
        self.name = name
        self.option = option or f"--device {kind}={name}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CdiName) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"CdiName({self.kind!r}, {self.name!r}, {self.option!r})"


def device(text: str) -> DeviceOption | CdiName:
    """One --device: `HOST[:CONTAINER][:rwm]`, or a name of the Container Device Interface."""
    if "\0" in text:
        raise UsageError(f"{shorten(text)!r} has a zero byte in it")
    if not text.startswith("/"):
        return _cdi_name(text)
    source, *more = text.split(":")
    target, access = source, _ACCESS
    if len(more) > 2 or "" in more:
        raise UsageError(f"{shorten(text)!r} is not a device", "HOST, HOST:CONTAINER or HOST:CONTAINER:rwm")
    if len(more) == 2:
        target, access = more
    elif more and _is_access(more[0]):
        access = more[0]
    elif more:
        target = more[0]
    if not target.startswith("/") or not _is_access(access):
        wrong = target if not target.startswith("/") else access
        raise UsageError(
            f"{shorten(text)!r}: {shorten(wrong)!r} is no absolute path and no access",
            "the access is some of r, w and m, each once, e.g. /dev/sdb:r or /dev/sdb:/dev/disk:rw",
        )
    return DeviceOption(_clean(source), _clean(target), access)


def _is_access(text: str) -> bool:
    return bool(text) and not text.strip(_ACCESS) and len(set(text)) == len(text)


def _clean(path: str) -> str:
    return "/" + os.path.normpath(path).lstrip("/")


def _cdi_name(text: str) -> CdiName:
    kind, equals, name = text.partition("=")
    vendor, slash, _ = kind.partition("/")
    if not equals and slash and "." in vendor.strip("."):
        raise UsageError(f"{shorten(text)!r} has no name", f"a device of a CDI file is {shorten(kind)}=NAME")
    if not equals:
        hint = f"did you mean /dev/{shorten(text)}?" if text and "/" not in text else _DEVICE
        raise UsageError(f"{shorten(text)!r} is not an absolute path", hint)
    if not is_kind(kind):
        raise UsageError(f"{shorten(text)!r}: {shorten(kind)!r} is not the kind of a CDI device", _DEVICE)
    if not is_name(name):
        raise UsageError(
            f"{shorten(text)!r}: {shorten(name)!r} is not the name of a CDI device",
            "letters and digits, with - _ . : between them",
        )
    return CdiName(kind, name)


def cgroup_rule(text: str) -> DeviceRule:
    """One --device-cgroup-rule as the OCI has them: `c 1:3 rmw`, with `*` for any number."""
    kind, _, rest = text.partition(" ")
    numbers, _, access = rest.partition(" ")
    if kind not in ("a", "b", "c"):
        raise UsageError(f"{shorten(text)!r} is not a device rule: it begins with a, b or c", _RULE)
    if not access or access.strip(_ACCESS) or len(access) > len(_ACCESS):
        raise UsageError(f"{shorten(text)!r} is not a device rule: it ends with some of r, w and m", _RULE)
    rule: DeviceRule = {"allow": True, "type": kind}
    parts = numbers.split(":")
    if len(parts) != 2:
        raise UsageError(f"{shorten(text)!r} is not a device rule: {shorten(numbers)!r} is not MAJOR:MINOR", _RULE)
    for key, part, most in zip(("major", "minor"), parts, _MOST, strict=True):
        if part == "*":
            continue
        if not (part.isascii() and part.isdecimal()) or len(part) > 10 or int(part) > most:
            raise UsageError(f"{shorten(text)!r}: {shorten(part)!r} is not a {key} number", f"0 to {most}, or *")
        rule[key] = int(part)  # type: ignore[literal-required]
    rule["access"] = "".join(dict.fromkeys(access))
    return rule


def gpus(text: str) -> list[CdiName]:
    """One --gpus: `all`, how many, or `"device=0,1"`; the names of NVIDIA's devices in the CDI."""
    from .mount_options import _fields

    option = f"--gpus {shorten(text)}"
    values: dict[str, str] = {}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        if key in values or (key == "count" and "device" in values):
            quoted = "; a list takes quotes within quotes: '\"device=0,1\"'" if "device" in values else ""
            raise UsageError(f"{shorten(text)!r} says twice which GPUs", _GPUS + quoted)
        values[key] = value
    _check_gpus(values, text)
    if "device" in values:
        if values.get("driver") == "cdi":
            return [CdiName(*_cdi_pair(part), option) for part in values["device"].split(",")]
        for part in values["device"].split(","):
            if not is_name(part):
                raise UsageError(f"{shorten(text)!r}: {shorten(part)!r} is not the name of a GPU", _GPUS)
        return [CdiName(_GPU, part, option) for part in values["device"].split(",")]
    count = values.get("count", "1")
    if count in ("all", "-1"):
        return [CdiName(_GPU, "all", option)]
    if not (count.isascii() and count.isdecimal()) or len(count) > 4:
        raise UsageError(f"{shorten(text)!r}: {shorten(count)!r} is not a number of GPUs", _GPUS)
    return [CdiName(_GPU, str(number), option) for number in range(int(count))]


def _cdi_pair(text: str) -> tuple[str, str]:
    found = _cdi_name(text)
    return found.kind, found.name


def _check_gpus(values: dict[str, str], text: str) -> None:
    for key, value in values.items():
        if key == "driver" and value not in ("nvidia", "cdi"):
            raise UsageError(f"{shorten(text)!r}: there is no driver {shorten(value)!r}", "nvidia, or leave it out")
        if key == "driver" and value == "cdi" and "device" not in values:
            raise UsageError(f"{shorten(text)!r}: the driver cdi needs a device", "device=vendor.com/class=name")
        if key == "capabilities":
            # The files of the CDI bring all that a device can; Docker's own driver chose among them.
            for name in value.split(","):
                if name not in _CAPABILITIES:
                    raise UsageError(
                        f"{shorten(text)!r}: there is no capability {shorten(name)!r}",
                        "some of " + ", ".join(_CAPABILITIES),
                    )
        elif key == "options":
            raise UsageError(f"{shorten(text)!r}: the files of the CDI take no options", "leave them out")
        elif key not in ("driver", "count", "device"):
            raise UsageError(f"{shorten(text)!r}: {shorten(key)!r} isn't known", "count, device or capabilities")
