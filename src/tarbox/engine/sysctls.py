"""`--sysctl`: settings of the kernel that a container has to itself. Loaded only when one is given.

    sysctl -w net.ipv4.ip_forward=1          inside the container's namespaces

Most of /proc/sys is the whole machine's. Only what a namespace of the container's own keeps apart may be set: all of
net with its own network, and a few of kernel and fs with its own IPC.

man 8 sysctl, man 5 proc_sys, man 7 ipc_namespaces
"""

from __future__ import annotations

from ..errors import UsageError
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..spec.runtime import Config

_OF_IPC = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
)  # fmt: skip
_OF_UTS = {"kernel.hostname": "-h NAME", "kernel.domainname": "--domainname NAME"}
_EXAMPLE = "NAME=VALUE, e.g. net.ipv4.ip_forward=1"
_ALLOWED = "net.*, fs.mqueue.* and " + ", ".join(_OF_IPC)
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


def sysctl(text: str) -> tuple[str, str]:
    """One --sysctl as (name, value); refuses, by its name, what isn't any namespace's."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{shorten(text)!r} has no value", _EXAMPLE)
    name, value = name.strip(), value.strip()
    _check_name(name)
    if not value or not value.replace("\t", " ").isprintable():
        raise UsageError(f"{shorten(name)}={shorten(value)} can't be: the value is one line of text", _EXAMPLE)
    if name in _OF_UTS:
        raise UsageError(f"{name} isn't set like this", f"it is {_OF_UTS[name]}")
    if namespace(name):
        return name, value
    if name.startswith(("kernel.", "fs.", "vm.", "dev.", "user.", "debug.", "abi.")):
        from .nearest import suggest

        near = suggest(name, _OF_IPC)
        hint = f"did you mean {near}?" if near else "a container can set " + _ALLOWED
        raise UsageError(f"{shorten(name)} is the whole machine's, not a container's", hint)
    raise UsageError(f"there is no setting {shorten(name)!r} that a container has to itself", _ALLOWED)


def namespace(name: str) -> str:
    """Which namespace keeps the setting apart, "network" or "ipc"; "" for none."""
    if name.startswith("net."):
        return "network"
    return "ipc" if name in _OF_IPC or name.startswith("fs.mqueue.") else ""


def _check_name(name: str) -> None:
    if not _is_name(name):
        dotted = name.strip("/").removeprefix("proc/sys/").replace("/", ".")
        hint = f"dots go between the parts: {dotted}" if "/" in name and _is_name(dotted) else _EXAMPLE
        raise UsageError(f"{shorten(name)!r} is not the name of a setting", hint)


def _is_name(text: str) -> bool:
    parts = text.split(".")
    return len(parts) > 1 and len(text) <= 255 and all(part and not part.strip(_LETTERS) for part in parts)


def add(made: Config, settings: Mapping[str, str]) -> None:
    """Put them into a config, over its own; raises UsageError where the namespace isn't the container's own."""
    own = {entry["type"] for entry in made["linux"]["namespaces"] if not entry.get("path")}
    for name, value in settings.items():
        wanted = namespace(name)
        if wanted not in own:
            option = "--network host" if wanted == "network" else f"another's {wanted} namespace"
            raise UsageError(
                f"--sysctl {name} can't go with {option}: it would be set there too",
                f"leave one of them out, or, if that is wanted: sysctl -w {name}={value} on the host",
            )
        made["linux"]["sysctl"][name] = value
