"""An image and some options become an OCI runtime config.

    docker run OPTIONS IMAGE COMMAND      and its config.json, which Docker hands to runc

Nothing here asks the kernel for anything: what has to be known of the machine comes in as `Machine`, so that a config
can be made, shown and tested without root.

Two things stay out of the config, because only the container's own files or a profile can tell them; they go to the
planner beside it: `user_of()` (names are looked up in the container's /etc/passwd) and `seccomp_of()`.

https://github.com/opencontainers/runtime-spec/blob/main/config.md and config-linux.md
"""

from __future__ import annotations

from ..errors import UnsupportedError, UsageError
from ..spec.runtime import CAPABILITIES, VERSION
from ..spec.users import number
from . import defaults
from .options import HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import Config, ImageConfig, Linux, Mount, Namespace, Process, Resources
    from .machine import Machine
    from .options import RunOptions

# What lxcfs and the like put over the kernel's own figures; anything else there could fool who reads or writes /proc.
_PROC_TARGETS = tuple(
    f"/proc/{name}" for name in ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")
)


def config(options: RunOptions, image: ImageConfig, id: str, machine: Machine, root: str) -> Config:
    """The OCI runtime config of a container.

    image: the image's own settings (`Env`, `Cmd`, `Entrypoint`, `WorkingDir`, `User`); {} where it has none.
    id: names the cgroup, and its first 12 letters the host unless --hostname does. root: the root directory's path.
    `process.user` is there only for `uid:gid` in numbers, as anything else has to be looked up. Raises UsageError for
    options that can't go together and UnsupportedError for what this machine can't give.
    """
    check(options, machine)
    host_name = HOST in (options.network, options.namespaces.get("uts"))
    hostname = options.hostname or (machine.hostname if host_name else id[:12])
    made: Config = {
        "ociVersion": VERSION,
        "process": _process(options, image, hostname, machine),
        "root": {"path": root, "readonly": options.read_only},
        "hostname": hostname,
        "mounts": _mounts(options, machine),
        "linux": _linux(options, id, machine),
    }
    if options.domainname:
        made["domainname"] = options.domainname
    if options.labels or options.annotations:
        # Containers aren't kept, so that there is no other place for a label yet.
        made["annotations"] = {**options.labels, **options.annotations}
    if is_system(options, made["process"]["args"]):
        from .systemd_mode import add as add_system

        add_system(made, options, id)
    if machine.maps:
        from .userns import add as add_maps

        add_maps(made, machine)
    if options.namespaces or options.uptime_offset or machine.maps or options.network.startswith("/"):
        from .namespaces import choose

        choose(made, options, machine)
    if any(mount.idmap is not None for mount in options.mounts):
        from .idmap import add as add_mapping

        mapped = {mount.target: mount.idmap for mount in options.mounts}
        for mount in made["mounts"]:
            if (words := mapped.get(mount["destination"])) is not None:
                add_mapping(mount, words, made["linux"], machine.uid != 0)
    if options.sysctls:
        from .sysctls import add as add_settings

        add_settings(made, options.sysctls)
    if options.apparmor or options.selinux or machine.apparmor:
        from .security_labels import add as add_labels

        add_labels(made, options, machine)
    if machine.edits or options.device_rules:
        from .device_config import add as add_devices
        from .device_edits import Edits

        machine.edits = machine.edits or Edits()
        add_devices(made, machine.edits, options.device_rules, machine.uid != 0, options.privileged)
    return made


def user_of(options: RunOptions, image: ImageConfig) -> str:
    """Whom the program runs as, as it was written (`name|uid[:group|gid]`); "" is root."""
    return options.user or image.get("User") or ""


def seccomp_of(options: RunOptions) -> str:
    """The filter of system calls: "default", "unconfined" or the path of a profile; --privileged has none by itself."""
    return options.seccomp or ("unconfined" if options.privileged else "default")


def is_system(options: RunOptions, arguments: list[str]) -> bool:
    """Whether the container runs an init that gets what it wants (`systemd_mode.py`)."""
    if options.systemd == "false" or (options.systemd == "true" and not arguments[0].endswith(("/init", "systemd"))):
        return False
    from .systemd_mode import wanted

    return wanted(options, arguments)


def check(options: RunOptions, machine: Machine) -> None:
    """Raise UsageError for options that can't go together, or that ask for more than the machine has."""
    if options.limited():
        from .resources import check as check_limits

        check_limits(options, machine)


def _process(options: RunOptions, image: ImageConfig, hostname: str, machine: Machine) -> Process:
    capabilities = _capabilities(options, machine)
    process: Process = {
        "terminal": options.tty,
        "args": _args(options, image),
        "env": _env(options, image, hostname),
        "cwd": options.workdir or image.get("WorkingDir") or "/",
        # No set is shared with another, so that changing one of them changes only that; inheritable stays empty.
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities[:],
            "permitted": capabilities[:],
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft, "hard": limit.hard}
            for limit in options.ulimits
        ],
        "noNewPrivileges": options.no_new_privileges,
    }
    if options.oom_score_adj is not None:
        process["oomScoreAdj"] = options.oom_score_adj
    name, _, group = user_of(options, image).partition(":")
    if name and group:
        uid, gid = number(name), number(group, "group")
        if uid is not None and gid is not None:
            process["user"] = {"uid": uid, "gid": gid}
    return process


def _args(options: RunOptions, image: ImageConfig) -> list[str]:
    # --entrypoint, even an empty one, drops the image's command too, which was written for the image's entrypoint.
    if options.entrypoint is not None:
        arguments = ([options.entrypoint] if options.entrypoint else []) + options.command
    else:
        arguments = (image.get("Entrypoint") or []) + (options.command or image.get("Cmd") or [])
    return arguments or [defaults.SHELL]


def _env(options: RunOptions, image: ImageConfig, hostname: str) -> list[str]:
    # HOME isn't here: it is in the container's /etc/passwd, and set there unless somebody sets it below.
    variables = {"PATH": defaults.PATH, "HOSTNAME": hostname}
    if options.tty:
        variables["TERM"] = "xterm"
    for entry in (*(image.get("Env") or ()), *options.env):
        name, equals, value = entry.partition("=")
        if equals:
            variables[name] = value
        else:
            variables.pop(name, None)
    return [f"{name}={value}" for name, value in variables.items()]


def _capabilities(options: RunOptions, machine: Machine) -> list[str]:
    available = {name for number, name in enumerate(CAPABILITIES) if machine.capabilities >> number & 1}
    if options.privileged or "ALL" in options.cap_add:
        chosen = set(available)
    elif "ALL" in options.cap_drop:
        chosen = set()
    else:
        chosen = available.intersection(defaults.CAPABILITIES)
    if not options.privileged:
        chosen -= set(options.cap_drop)
        for name in options.cap_add:
            if name == "ALL":
                continue
            if name not in available:
                raise UnsupportedError(
                    f"--cap-add {name}: tarbox doesn't have that capability here, so it can't give it to a container",
                    "grep CapEff /proc/self/status shows what it has",
                )
            chosen.add(name)
    return [name for name in CAPABILITIES if name in chosen]


def _mounts(options: RunOptions, machine: Machine) -> list[Mount]:
    targets = [mount.target for mount in options.mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"two mounts at {target}", "give each target once")
        check_target(target)
    memory_dev = [mount for mount in options.mounts if mount.target == "/dev" and mount.kind == "tmpfs"]
    own_dev = "/dev" in targets and not memory_dev  # whoever brings a /dev of the host brings all of it
    mounts = []
    for mount in defaults.mounts(options.shm_size or defaults.SHM_SIZE):
        if memory_dev and mount["destination"] == "/dev":
            mount["options"] = _options_of_dev(mount["options"], memory_dev[0].options)
        elif mount["destination"] in targets or (own_dev and mount["destination"].startswith("/dev/")):
            continue
        mounts.append(mount)
    if options.privileged:
        for mount in mounts:
            if mount["destination"] in ("/sys", "/sys/fs/cgroup"):
                mount["options"].remove("ro")
    if machine.uid:
        _without_root(options, mounts)
    # What lies deeper is mounted later, whatever the order of the options; within a depth their order counts.
    mounts += [
        {"destination": entry.target, "type": entry.kind, "source": entry.source, "options": list(entry.options)}
        for entry in sorted(options.mounts, key=lambda entry: entry.target.count("/"))
        if entry not in memory_dev
    ]
    return mounts


def check_target(target: str) -> None:
    """Raise UsageError when nothing may be mounted there."""
    if target == "/proc" or (target.startswith("/proc/") and target not in _PROC_TARGETS):
        raise UsageError(f"nothing can be mounted at {target}", "the container's limits rely on its own /proc")


def _options_of_dev(ours: list[str], theirs: tuple[str, ...]) -> list[str]:
    """The options of a tmpfs at /dev that somebody asks for: it is ours, but for what is said of it."""
    if "ro" in theirs:
        raise UsageError("a tmpfs at /dev can't be read-only", "the device nodes are made in it: leave ro out")
    named = {option.partition("=")[0]: option for option in (*ours, *theirs) if option != "nodev"}
    return list(named.values())


def _without_root(options: RunOptions, mounts: list[Mount]) -> None:
    for mount in mounts:
        if mount["destination"] == "/dev/pts":
            mount["options"].remove("gid=5")  # the one id that is mapped is 0
        elif mount["destination"] == "/sys" and options.network == HOST:
            # A new sysfs shows a network namespace, and the host's isn't the user's to show.
            mount["type"], mount["source"] = "bind", "/sys"
            mount["options"] = ["rbind", "nosuid", "noexec", "nodev", "rro", "rprivate"]


def _linux(options: RunOptions, id: str, machine: Machine) -> Linux:
    own_network = options.network != HOST
    masked = not (options.unmasked or options.privileged)
    namespaces: list[Namespace] = [
        {"type": "mount"},
        {"type": "uts"},
        {"type": "ipc"},
        {"type": "pid"},
        {"type": "cgroup"},
    ]
    if own_network:
        namespaces.insert(1, {"type": "network"})
    linux: Linux = {
        "namespaces": namespaces,
        "cgroupsPath": f"/tarbox-{id}",
        "resources": _resources(options),
        "devices": list(machine.devices) if options.privileged else [],
        "sysctl": {},
        "maskedPaths": [*defaults.MASKED_PATHS, *machine.thermal_paths] if masked else [],
        "readonlyPaths": list(defaults.READONLY_PATHS) if masked else [],
    }
    if own_network:
        linux["sysctl"]["net.ipv4.ip_unprivileged_port_start"] = "0"
        if not machine.uid:  # no user namespace has all these groups mapped
            linux["sysctl"]["net.ipv4.ping_group_range"] = "0 2147483647"
    if machine.uid:
        namespaces.insert(0, {"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": machine.uid, "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": machine.gid, "size": 1}]
    propagations = {option for mount in options.mounts for option in mount.options}
    if propagations & {"shared", "rshared"}:
        linux["rootfsPropagation"] = "shared"
    elif propagations & {"slave", "rslave"}:
        linux["rootfsPropagation"] = "rslave"
    return linux


def _resources(options: RunOptions) -> Resources:
    """What the container may use: the harmless devices, and of everything else as much as there is, unless limited."""
    devices: Resources = {
        "devices": [{"allow": True, "access": "rwm"}] if options.privileged else defaults.device_rules()
    }
    if not options.limited():
        return devices
    from .resources import limits

    return {**devices, **limits(options)}
