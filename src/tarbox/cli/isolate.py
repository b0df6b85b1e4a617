"""`tarbox isolate [OPTIONS] COMMAND`: parts of a container, each alone, for a plain command.

tarbox isolate --uts -- sh -c 'hostname x; hostname'
tarbox isolate --root ./rootfs --pid -- sh
"""

from __future__ import annotations

from ..engine.isolate import IsolateOptions
from ..engine.options import HOST, NONE, MountOption
from ..errors import CommandNotFoundError, UsageError
from ..unistd import os
from .arguments import Arguments, Option, Verb, parse
from .run import OPTIONS as RUN
from .run import environment, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .main import Globals

_KINDS, _FILES, _RIGHTS, _PROCESS = (
    "Namespaces: its own, or with =ns:PATH, =pid:N or =pidfd:N those of others; =host is yours, as without",
    "Files", "Rights", "Process",
)  # fmt: skip
_SWITCHES = ("0", "1", "f", "t", "false", "true")
_NAMESPACES = ("mount", "uts", "ipc", "network", "pid", "cgroup", "user", "time")

_NO_ID = "a plain command has no id, nor anything else that could be looked up"
_LOOPBACK = "its own network has loopback only: 'tarbox run host COMMAND' is on one, --net=ns:PATH joins one"
_NO_IMAGE = "there is no image; --root DIR takes the files of a directory"


def _from_run(*names: str, group: str = "") -> tuple[Option, ...]:
    """These options as `tarbox run` has them."""
    found = [option for name in names for option in RUN if option.names[0] == name]
    return tuple(Option(it.names, it.metavar, it.help, group or it.group, it.read, it.kind == "list") for it in found)


def _known_as(name: str, names: tuple[str, ...], help: str, group: str = "") -> Option:
    """An option of `tarbox run` in other words, and under other names where its own is a namespace here."""
    (option,) = _from_run(name)
    return Option(names, option.metavar, help, group or option.group, option.read, option.kind == "list")


def _space(kind: str) -> Callable[[str], object]:
    """The reader of what stands after the "=" of a namespace's option."""

    def read(text: str) -> object:
        if text.lower() in _SWITCHES:
            from ..engine.values import switch

            return switch(text)
        if kind == "mount":
            raise _no_mount(text)
        from ..engine import namespaces

        if kind == "user":
            return namespaces.userns(text)
        word = text if text == namespaces.PRIVATE else namespaces.read(kind, text)
        if word == NONE and kind == "ipc":
            raise UsageError("'none': isolate leaves /dev/shm as it is", "--ipc alone gives it queues of its own")
        return True if word in (NONE, namespaces.PRIVATE) else word

    return read


def _no_mount(text: str) -> UsageError:
    from ..engine.values import shorten

    if text.partition(":")[0] in ("ns", "pid", "pidfd", "container"):
        hint = "'tarbox enter --mount TARGET' runs a command there, and isolate would change what others see"
        return UsageError(f"{shorten(text)!r}: mounts of others aren't joined", hint)
    return UsageError(f"{shorten(text)!r}: it takes no value here", "a mount is -v SOURCE:TARGET, or --tmpfs TARGET")


def _layers(text: str) -> tuple[str, ...]:
    """Directories joined by colons; a colon in a name is written with a backslash before it."""
    parts = [part.replace("\0", ":") for part in text.replace("\\:", "\0").split(":")]
    if not all(parts):
        raise UsageError(f"{text!r} has an empty name in it", "DIR or DIR:DIR, the topmost first")
    return tuple(parts)


def _capabilities(text: str) -> list[str]:
    """Names joined by commas; "none" is none of them."""
    from ..engine.values import capability

    return [] if text.strip().lower() in ("", "none") else [capability(part) for part in text.split(",")]


def _filter(text: str) -> str:
    if text not in ("default", "unconfined") and not os.path.isfile(text):
        from ..engine.values import shorten

        raise UsageError(f"there is no file {shorten(text)}", "default, or a profile in Docker's or the OCI's JSON")
    return text if text in ("default", "unconfined") else os.path.abspath(text)


OPTIONS = (
    Option(
        ("mount",), "", "Mounts: what it mounts, and -v and --tmpfs, is seen by nobody else; never those of others",
        _KINDS, _space("mount"),
    ),
    Option(("uts",), "", "Host name; -h sets it, and needs no --uts", _KINDS, _space("uts")),
    Option(("ipc",), "", "System V IPC and POSIX message queues", _KINDS, _space("ipc")),
    Option(("network", "net"), "", "Network, with nothing but a loopback that is up", _KINDS, _space("network")),
    Option(
        ("pid",),
        "",
        "Process numbers: it is process 1, and all end with it. Together with --mount or a new root it has a /proc that"
        " shows them; alone it still sees the old /proc",
        _KINDS,
        _space("pid"),
    ),
    Option(
        ("cgroup", "cgroupns"), "", "Control groups: its own group looks like the uppermost", _KINDS, _space("cgroup")
    ),
    Option(
        ("user", "userns"),
        "",
        "Ids: everybody keeps their number, as a plain user only you have one; capabilities count only for what belongs"
        " to it. With this a plain user may use the other options. Root may say which: =auto, =START:SIZE, =keep-id",
        _KINDS,
        _space("user"),
    ),
    Option(("map-root-user",), "", "The same, with you as root in it", _KINDS),
    *_from_run("uidmap", "gidmap", group=_KINDS),
    Option(("time",), "", "The clocks for uptime and the monotonic one", _KINDS, _space("time")),
    *_from_run("uptime-offset", group=_KINDS),
    _known_as("hostname", ("hostname", "h"), "This host name, in a UTS namespace of its own", _KINDS),
    _known_as("domainname", ("domainname",), "This NIS domain name, likewise", _KINDS),
    Option(("root",), "DIR[:O]", "Make this directory the root; with :O it stays unchanged", _FILES),
    Option(
        ("overlay",),
        "DIR[:DIR...]",
        "Make these directories, one over the other, the root; what is written is thrown away",
        _FILES,
        _layers,
    ),
    Option(("root-tmpfs",), "SIZE", "Keep what is written to such a root in memory, at most this much", _FILES,
           next(option.read for option in RUN if option.names[0] == "root-tmpfs")),
    Option(("chroot",), "", "Enter the root by chroot, not pivot_root: no wall for who has CAP_SYS_CHROOT", _FILES),
    _known_as(
        "volume",
        ("volume", "v"),
        "Show a directory or file of the host in another place; :O throws away what is written to it",
    ),
    *_from_run("tmpfs"),
    Option(
        ("read-only",), "", "Make the root read-only, or else all files of the machine, but for -v and --tmpfs", _FILES
    ),
    _known_as("user", ("as", "u"), "Run as this user, by name or number, with that one's groups"),
    *_from_run("group-add"),
    Option(("workdir", "w"), "DIR", "Start in this directory", _PROCESS),
    Option(("env", "e"), "NAME=VALUE", "Set a variable; all of yours stay", _PROCESS,
           next(option.read for option in RUN if option.names[0] == "env"), True),
    *_from_run("env-file"),
    Option(("init",), "", "Put a small init before the command: with --pid it reaps and forwards signals", _PROCESS),
    *_from_run("cap-drop"),
    _known_as("cap-add", ("cap-add",), "Keep it although ALL are dropped, e.g. NET_ADMIN; with -u or --user, have it"),
    Option(("caps",), "NAME,...", "Exactly these, e.g. CHOWN,NET_RAW; none for none", _RIGHTS, _capabilities),
    Option(("seccomp",), "FILE|default", "Filter system calls by this profile", _RIGHTS, _filter),
    Option(("no-new-privileges",), "", "Let no set-uid program give more than it has", _RIGHTS),
    _known_as(
        "security-opt", ("security-opt",),
        "The same two in Docker's words, seccomp=FILE and no-new-privileges; and labels: apparmor=PROFILE,"
        " label=PART:VALUE",
    ),
    _known_as("sysctl", ("sysctl",), "A setting of its own network or IPC, e.g. net.ipv4.ip_forward=1", _KINDS),
    *(option for option in RUN if option.group == "Limits"),
)  # fmt: skip

VERB = Verb(
    "isolate",
    "[OPTIONS] [--] COMMAND [ARG...]",
    "Run a plain command, no image, with single parts of a container: those that are asked for and nothing else. Its"
    " files, environment, user, capabilities, terminal and descriptors stay yours unless an option says otherwise.",
    OPTIONS,
    {
        "rootfs": "it is --root DIR",
        "privileged": "nothing is taken away unless you ask for it",
        "rm": "nothing is kept",
        "i": "your input is the command's", "interactive": "your input is the command's",
        "t": "your terminal is the command's", "tty": "your terminal is the command's",
        "a": "your streams are the command's", "attach": "your streams are the command's",
        "d": "end the command line with &", "detach": "end the command line with &",
        "map-current-user": "it is what --user does",
        "fork": "--pid forks by itself", "mount-proc": "it is --mount --pid",
        "device": "devices are files: -v /dev/null:/dev/x, and --root decides which there are",
        "device-cgroup-rule": "it allows what is forbidden otherwise, and here no device is",
        "gpus": "its devices are yours already; into a new root goes -v /dev/dri:/dev/dri",
        "cdi-spec-dir": "'tarbox run --device' reads such files",
        "entrypoint": "name the program itself",
        "systemd": "it is the files of a root that an init wants: 'tarbox run --systemd always ./rootfs'",
        "shm-size": "a new /dev/shm is --tmpfs /dev/shm:size=64m",
        "learn": "'tarbox run --learn FILE host COMMAND' does it",
        "stop-signal": "what you send to tarbox reaches the command as it is",
        "sig-proxy": "what you send to tarbox reaches the command as it is",
        "timeout": "timeout TIME tarbox isolate … ends it in time",
        "label": _NO_ID, "l": _NO_ID, "label-file": _NO_ID, "annotation": _NO_ID, "cidfile": _NO_ID, "name": _NO_ID,
        "profile": "'tarbox run --profile' times the steps of a container",
        "step": "'tarbox run --step' stops in a container; 'tarbox explain isolate' tells the steps of this",
        **dict.fromkeys(("publish", "p", "publish-all", "P", "expose", "ip", "ip6", "mac-address"), _LOOPBACK),
        **dict.fromkeys(("add-host", "dns", "dns-search", "dns-option", "dns-opt"), "-v FILE:/etc/hosts does it"),
        "pull": _NO_IMAGE, "platform": _NO_IMAGE, "q": _NO_IMAGE, "quiet": _NO_IMAGE,
    },
    (
        ("tarbox isolate --uts -- sh -c 'hostname x; hostname'", "Another host name, for this command only."),
        ("tarbox isolate --net -- ip addr", "A network with nothing but loopback; the same files and rights."),
        ("tarbox isolate --net=pid:4711 --pid --mount -- ss -tlp", "The network of a process; process numbers anew."),
        ("tarbox isolate --mount --pid -- ps aux", "Only its own processes."),
        ("tarbox isolate --root ./rootfs:O --pid -- sh", "A root that forgets what is written."),
        ("tarbox isolate --read-only --tmpfs /tmp -- make check", "The machine's files, none of which it can change."),
        ("tarbox isolate --user --net -- make test", "Without network, as a plain user."),
    ),
)  # fmt: skip


def main(words: list[str], settings: Globals) -> int:
    """Run a command with parts of a container and return its exit code."""
    options = isolate_options(parse(VERB, words))
    from ..engine.isolate import run

    try:
        return run(options, settings.root)
    except CommandNotFoundError as error:
        word = options.shared.command[0]
        if word in ("none", "host", "private") or word.partition(":")[0] in ("ns", "pid", "pidfd"):
            error.hint = f"the value of a namespace's option follows =, e.g. --net={_short(word)[1:-1]}"
        raise


def isolate_options(found: Arguments) -> IsolateOptions:
    """What the command line asked for; raises UsageError where it is nothing."""
    given = found.values
    if not found.rest:
        raise UsageError("no command to isolate", "e.g. 'tarbox isolate --net -- ip addr'; see 'tarbox isolate --help'")
    if all(value is False or (name in _NAMESPACES and value == HOST) for name, value in given.items()):
        raise UsageError(
            f"nothing to isolate {_short(found.rest[0])} from",
            "e.g. --net, --pid or --root DIR; see 'tarbox isolate --help'",
        )
    options = IsolateOptions()
    for kind in _NAMESPACES:
        _take_space(options, kind, given.pop(kind, False))
    options.map_root = given.get("map-root-user") is True
    options.chroot = given.get("chroot") is True
    options.root = str(given.get("root") or "")
    if "root" in given and options.root in ("", ":O"):
        raise UsageError("--root needs a directory", "e.g. --root ./rootfs")
    options.overlay = tuple(_strings(given.get("overlay")))
    shared = options.shared
    take(shared, given)
    shared.command, shared.user = found.rest, str(given.get("as") or "")
    shared.env = environment(given)
    shared.uidmap, shared.gidmap = _rows(given, "uidmap"), _rows(given, "gidmap")
    offsets = given.get("uptime-offset")
    shared.uptime_offset = offsets if isinstance(offsets, dict) else {}
    for key in ("volume", "tmpfs"):
        shared.mounts += [entry for entry in _listed(given, key) if isinstance(entry, MountOption)]
    for entry in shared.mounts:
        entry.create = False
    shared.sysctls = dict(_pairs(given, "sysctl"))
    if "caps" in given:
        if shared.cap_add or shared.cap_drop:
            raise UsageError("--caps says it all: it can't go with --cap-add and --cap-drop", "leave one of them out")
        options.caps = _strings(given["caps"])
    _secure(options, given)
    return options


def _take_space(options: IsolateOptions, kind: str, value: object) -> None:
    if value is True:
        options.namespaces.add(kind)
    elif isinstance(value, str) and (kind != "user" or value == HOST):
        options.others[kind] = value
    elif isinstance(value, str):
        options.shared.userns = value


def _rows(given: dict[str, object], key: str) -> list[tuple[int, int, int]]:
    return [entry for entry in _listed(given, key) if isinstance(entry, tuple)]


def _secure(options: IsolateOptions, given: dict[str, object]) -> None:
    shared = options.shared
    shared.no_new_privileges = given.get("no-new-privileges") is True
    for key, value in _pairs(given, "security-opt"):
        if key == "no-new-privileges":
            shared.no_new_privileges = value == "true"
        elif key == "seccomp":
            shared.seccomp = _filter("default" if value == "builtin" else value)
        elif key == "apparmor":
            shared.apparmor = value
        elif key == "label":
            shared.selinux.append(value)
        elif key == "systempaths":
            raise UsageError("--security-opt systempaths: isolate hides nothing of /proc", "leave it out")
    if "seccomp" in given:
        shared.seccomp = str(given["seccomp"])


def _listed(given: dict[str, object], key: str) -> list[object]:
    value = given.get(key)
    return value if isinstance(value, list) else []


def _strings(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list | tuple) else []


def _pairs(given: dict[str, object], key: str) -> Iterable[tuple[str, str]]:
    return [entry for entry in _listed(given, key) if isinstance(entry, tuple)]


def _short(text: str) -> str:
    from ..engine.values import shorten

    return repr(shorten(text))
