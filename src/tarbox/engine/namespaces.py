"""`--pid`, `--ipc`, `--uts`, `--cgroupns`, `--net` and `--time`: whose namespaces a container has.

    private              its own, new ones
    host                 the caller's
    ns:PATH              the one that a file leads to: /run/netns/blue, /proc/4711/ns/ipc
    container:ID         that of a running container, by the beginning of its id
    pid:N                that of process N
    pidfd:N              that of the process, or the namespace, that descriptor N of the caller's leads to

Loaded only when one of them is given. In the OCI config a namespace that is joined has a path, and one of the host's
isn't listed.

man 7 namespaces, https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#namespaces
"""

from __future__ import annotations

from ..errors import ProcessNotFoundError, UnsupportedError, UsageError
from ..kernel.processes import LINKS
from ..unistd import os
from .options import HOST, NONE
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import Config, Mount
    from .machine import Machine
    from .options import RunOptions

PRIVATE = "private"
# What each is called on the command line.
OPTIONS = {
    "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroupns", "network": "network", "time": "time",
    "user": "userns",
}  # fmt: skip
_WORDS = {"ipc": (NONE, PRIVATE, "shareable", HOST), "network": (NONE, HOST)}
_SYS_PTRACE, _SYS_ADMIN = 19, 21  # man 7 capabilities
_JOINS = ("ns:", "pid:", "pidfd:")


def read(kind: str, text: str) -> str:
    """One of these options: "private", "host", "none" (of ipc), or the path of a namespace to be joined.

    kind: the namespace's OCI name.
    """
    words = _WORDS.get(kind, (PRIVATE, HOST))
    if text in words:
        return PRIVATE if text == "shareable" else text  # any namespace can be joined
    how, colon, rest = text.partition(":")
    if colon and how == "ns" and rest:
        return os.path.abspath(rest)
    if colon and how in ("pid", "pidfd") and rest.isascii() and rest.isdecimal() and len(rest) < 11:
        return f"/proc/{int(rest)}/ns/{LINKS[kind]}" if how == "pid" else f"/proc/self/fd/{int(rest)}"
    if colon and how == "container" and rest:
        from .targets import first_process

        return f"/proc/{first_process(rest)}/ns/{LINKS[kind]}"
    if colon and how in ("pod", "service"):
        raise UsageError(f"{shorten(text)!r}: there are no {how}s here", f"--{OPTIONS[kind]} container:ID joins one")
    one_of = ", ".join((*words, "container:ID", "ns:PATH", "pid:N", "pidfd:N"))
    if text.isascii() and text.isdecimal() and text:
        raise UsageError(f"{shorten(text)!r} doesn't say what it is", f"pid:{text} is process {text}; {one_of}")
    if text.startswith("/"):
        raise UsageError(f"{shorten(text)!r} doesn't say what it is", f"ns:{shorten(text)} is the namespace there")
    if text + ":" in _JOINS or (colon and f"{how}:" in _JOINS):
        raise UsageError(f"{shorten(text)!r}: {how} wants a {'path' if how == 'ns' else 'number'}", one_of)
    from .nearest import suggest

    near = suggest(text, words)
    raise UsageError(f"{shorten(text)!r} is no {LINKS[kind]} namespace", f"did you mean {near}?" if near else one_of)


def uptime_offset(text: str) -> dict[str, int]:
    """One --uptime-offset: nanoseconds by clock."""
    from .time_offsets import read as read_offset

    return read_offset(text)


def userns(text: str) -> str:
    """One --userns."""
    from .userns import read as read_ids

    return read_ids(text)


def id_row(text: str) -> tuple[int, int, int]:
    """One --uidmap or --gidmap."""
    from .userns import row

    return row(text)


def chosen(options: RunOptions) -> dict[str, str]:
    """What was asked for, by OCI name, without what is so anyway."""
    wanted = {kind: word for kind, word in options.namespaces.items() if word != PRIVATE or kind == "time"}
    if options.network == HOST or options.network.startswith("/"):
        wanted["network"] = options.network
    if options.uptime_offset and wanted.setdefault("time", PRIVATE) != PRIVATE:
        raise UsageError(
            "--uptime-offset can't go with a time namespace that others have too",
            "leave --time out, or --uptime-offset",
        )
    return wanted


def choose(made: Config, options: RunOptions, machine: Machine) -> None:
    """Put the choice into a config in which all namespaces are new ones.

    Raises UsageError for options that can't go with a namespace of somebody else's, and UnsupportedError for what a
    plain user may not do.
    """
    wanted = chosen(options)
    if machine.uid:
        _check_plain(wanted)
    linux = made["linux"]
    for kind, word in wanted.items():
        if word == NONE:
            continue
        entries = [entry for entry in linux["namespaces"] if entry["type"] != kind]
        if word == PRIVATE:
            entries.append({"type": kind})
        elif word != HOST:
            entries.append({"type": kind, "path": word})
        linux["namespaces"] = entries
    if options.uptime_offset:
        from .time_offsets import add

        add(made, options.uptime_offset)
    if "uts" in wanted:
        _keep_names(made, options, wanted["uts"])
    if wanted.get("network", HOST) != HOST:
        for name in [name for name in linux["sysctl"] if name.startswith("net.")]:
            del linux["sysctl"][name]  # they are settings of those who have it already
    made["mounts"] = [shown for mount in made["mounts"] if (shown := _shown(mount, wanted, options, machine))]


def _check_plain(wanted: dict[str, str]) -> None:
    for kind, word in wanted.items():
        if word not in (HOST, NONE, PRIVATE):
            raise UnsupportedError(
                f"--{OPTIONS[kind]}: a plain user can't join a namespace: the kernel wants root of whoever owns it",
                "run tarbox as root; host is a plain user's to give",
            )


def refuse_tracers(path: str) -> None:
    """Refuse a PID namespace in which somebody may trace who has no other way to the machine.

    Who is made there has all of root's rights until its /proc is mounted, and a tracer would take them over. In a user
    namespace of their own they trace nobody who isn't in it. Raises UnsupportedError, and what opening it raises.
    """
    from ..kernel.joined_namespaces import open_namespace
    from ..kernel.namespace_files import look_around
    from ..kernel.processes import Process

    handle = open_namespace("pid", path)
    try:
        number = os.fstat(handle).st_ino
    finally:
        os.close(handle)
    if number == os.stat("/proc/self/ns/pid").st_ino:
        return
    space, ours = look_around().namespaces.get(("pid", number)), os.stat("/proc/self/ns/user").st_ino
    for pid in space.pids if space else ():
        try:
            with Process(pid) as process:
                rights, user = int(process.status().get("CapBnd", "0"), 16), process.namespaces()["user"]
        except ProcessNotFoundError:
            continue
        if rights >> _SYS_PTRACE & 1 and not rights >> _SYS_ADMIN & 1 and user == ours:
            raise UnsupportedError(
                f"--pid: process {pid} is in there and has CAP_SYS_PTRACE, so it could take over what is made there, "
                "with root's rights",
                "start that one without SYS_PTRACE, or with --userns auto; the one that joins may have it",
            )


def _keep_names(made: Config, options: RunOptions, word: str) -> None:
    """A host name is set in a new UTS namespace only."""
    for option, value in (("-h", options.hostname), ("--domainname", options.domainname)):
        if value:
            whose = "this machine" if word == HOST else "everybody who has that namespace"
            raise UsageError(
                f"{option} {shorten(value)} can't go with --uts {'host' if word == HOST else 'of others'}",
                f"it would rename {whose}: leave one of them out",
            )
    made.pop("hostname", None)
    if word != HOST:  # what the name there is, nobody knows who isn't in it
        made["process"]["env"] = [entry for entry in made["process"]["env"] if not entry.startswith("HOSTNAME=")]


def _shown(mount: Mount, wanted: dict[str, str], options: RunOptions, machine: Machine) -> Mount | None:
    """A mount of the config as it has to be; None for none."""
    target, ipc = mount["destination"], wanted.get("ipc", PRIVATE)
    if target == "/dev/shm" and mount.get("source") == "shm":
        if ipc == NONE:
            return None
        if ipc == HOST:
            if options.shm_size:
                raise UsageError(
                    "--shm-size can't go with --ipc host", "/dev/shm is the host's then, as large as it is"
                )
            return _bound(target, ("nosuid", "noexec", "nodev"))
    if not machine.uid and not machine.maps:
        return mount
    # In a user namespace these may be mounted for the namespaces that belong to it, and those of the host's be shown.
    if target == "/dev/mqueue" and ipc not in (PRIVATE, NONE):
        return None  # not every host has it mounted, and queues work without
    if (
        (target == "/proc" and wanted.get("pid") == HOST)
        or (target == "/sys" and "network" in wanted and mount.get("type") == "sysfs")
        or (target == "/sys/fs/cgroup" and wanted.get("cgroup") == HOST and machine.uid)
    ):
        return _bound(target, tuple(word for word in mount["options"] if word in _ATTRIBUTES))
    return mount


_ATTRIBUTES = ("ro", "nosuid", "noexec", "nodev")


def _bound(target: str, attributes: tuple[str, ...]) -> Mount:
    words = ["rro" if word == "ro" else word for word in attributes]
    return {"destination": target, "type": "bind", "source": target, "options": ["rbind", *words, "rprivate"]}
