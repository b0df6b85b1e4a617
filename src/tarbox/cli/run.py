"""`tarbox run [OPTIONS] IMAGE [COMMAND]`: the options of a container, by Docker's names."""

from __future__ import annotations

from ..engine.options import MountOption, RunOptions, Ulimit
from ..errors import CommandNotFoundError, UsageError
from ..unistd import os
from .arguments import Arguments, Option, Verb, parse
from .readers import (
    address,
    annotation,
    device,
    device_rule,
    gpus,
    label,
    limit_reader,
    mac_address,
    mount,
    name_reader,
    naming,
    network,
    path,
    profile,
    reader,
    sysctl,
    systemd,
    tmpfs,
    volume,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from .main import Globals

    T = TypeVar("T")


_PROCESS, _FILES, _LIMITS, _RIGHTS, _NETWORK, _NAMESPACES = (
    "Process",
    "Files",
    "Limits",
    "Rights",
    "Network and names",
    "Namespaces",
)

_ANY, _MAP = "private|host|...", "ID:HOST:COUNT"
_SPACES = (
    ("pid", _ANY, "Its processes: its own (default), the host's, or join: ns:PATH, pid:N, pidfd:N", "read", "pid"),
    ("ipc", "private|none|...", "Its queues and shared memory, likewise; none is without /dev/shm", "read", "ipc"),
    ("uts", _ANY, "Its host name, likewise", "read", "uts"),
    ("cgroupns", _ANY, "What it sees as the top of the cgroups, likewise", "read", "cgroup"),
    ("time", "host|private|...", "Its clocks of uptime, likewise, but the host's by default", "read", "time"),
    ("uptime-offset", "TIME", "Let these clocks be ahead, e.g. 30d, or back: -10m; no wall clock is", "uptime_offset"),
    ("userns", "host|auto|...", "Its ids: the host's (default for root), auto, START:SIZE, keep-id, or join", "userns"),
    ("uidmap", _MAP, "Users inside are these on the host", "id_row"),
    ("gidmap", _MAP, "Groups likewise; as the users when left out", "id_row"),
)

ONCE, MANY = "once", "many"
_DEVICE_LIMITS = (
    ("blkio-weight", "WEIGHT", "Its weight when disks are busy, 10 to 1000", "disk_weight", ONCE),
    ("blkio-weight-device", "DISK:WEIGHT", "The same for one disk, e.g. /dev/sda:300", "one_disks_weight", MANY),
    ("device-read-bps", "DISK:RATE", "Bytes a second that it may read, e.g. /dev/sda:1mb", "rate", MANY),
    ("device-write-bps", "DISK:RATE", "Bytes a second that it may write", "rate", MANY),
    ("device-read-iops", "DISK:NUMBER", "Reads a second, e.g. /dev/sda:1000", "operations", MANY),
    ("device-write-iops", "DISK:NUMBER", "Writes a second", "operations", MANY),
    ("hugetlb", "SIZE=LIMIT", "Memory in huge pages of this size, e.g. 2m=64m", "huge_pages", MANY),
    ("net-class", "CLASS", "Mark its packets for tc and iptables, e.g. 0x10001; cgroup v1 only", "net_class", ONCE),
    ("cgroup-conf", "KEY=VALUE", "Any control of a group by the name of its file, of cgroup v1 or v2, e.g."
     " memory.max=64m", "control", MANY),
    ("cgroup-parent", "GROUP", "Make its group in this one, whose limits count as well, e.g. /web", "parent", ONCE),
)  # fmt: skip
_NAMES = (
    (("publish", "p"), "[ADDRESS:]HOST:PORT", "Let a port of the host lead to one of the container, e.g. 8080:80,"
     " 8000-8010:80, 53:53/udp, or 80 for any free port of the host", "port"),
    (("expose",), "PORT", "Say that the container has this port, e.g. 80 or 3000-3005/udp", "exposed"),
    (("add-host",), "NAME:ADDRESS", "Add a line to /etc/hosts; the address host-gateway is the host's", "added_host"),
    (("dns",), "ADDRESS", "Ask this name server instead of the host's", "server"),
    (("dns-search",), "DOMAIN", "Look for short names in this domain; . for in none", "domain"),
    (("dns-option", "dns-opt"), "OPTION", "An option of resolv.conf, e.g. ndots:2", "option"),
)  # fmt: skip

OPTIONS = (
    Option(("interactive", "i"), "", "Hand standard input to the container", _PROCESS),
    Option(("tty", "t"), "", "Give the container a terminal", _PROCESS),
    Option(
        ("env", "e"),
        "NAME[=VALUE]",
        "Set a variable; NAME alone hands on yours",
        _PROCESS,
        reader("variable"),
        True,
    ),
    Option(("env-file",), "FILE", "Set the variables in a file, one NAME=VALUE a line", _PROCESS, None, True),
    Option(("workdir", "w"), "DIR", "Start in this directory of the container", _PROCESS, reader("workdir")),
    Option(("user", "u"), "USER[:GROUP]", "Run as this user, by name or number", _PROCESS, reader("user")),
    Option(("group-add",), "GROUP", "Add a group to the user's", _PROCESS, reader("group"), True),
    Option(("entrypoint",), "PROGRAM", "Replace the image's entrypoint; '' for none", _PROCESS),
    Option(("init",), "", "Put a small init before the command: it reaps and forwards signals", _PROCESS),
    Option(
        ("systemd",),
        "WHEN",
        "Give an init the file systems, the control group and the signals it wants: true (the default, when the command"
        " is an init such as /sbin/init), always or false",
        _PROCESS,
        systemd,
    ),
    Option(
        ("stop-signal",),
        "SIGNAL",
        "The signal that asks the command to end (default TERM; RTMIN+3 for an init, see --systemd)",
        _PROCESS,
        reader("signal"),
    ),
    Option(
        ("sig-proxy",),
        "",
        "Hand signals on to the command, as is the default; with =false ^C and others end this command at once, and the"
        " container with it",
        _PROCESS,
    ),
    Option(
        ("timeout",),
        "TIME",
        "End the container after this time, e.g. 90s or 1h30m",
        _PROCESS,
        reader("duration"),
    ),
    Option(
        ("attach", "a"),
        "STREAM",
        "Which streams are yours, one each time: stdin (with -i), stdout, stderr; all when none is named",
        _PROCESS,
        reader("stream"),
        True,
    ),
    Option(
        ("label", "l"),
        "NAME=VALUE",
        "Say something about the container, for other programs",
        _PROCESS,
        label,
        True,
    ),
    Option(("label-file",), "FILE", "The labels in a file, one NAME=VALUE a line", _PROCESS, None, True),
    Option(("annotation",), "NAME=VALUE", "The same, for who reads the OCI config", _PROCESS, annotation, True),
    Option(("cidfile",), "FILE", "Write the container's id into this new file", _PROCESS, path),
    Option(
        ("profile",),
        "",
        "Tell afterwards how long each step took; --profile=json, or =FILE for JSON in a file",
        _PROCESS,
        profile,
    ),
    Option(("step",), "", "Stop before each step, show it, and ask how to go on", _PROCESS),
    Option(("rm",), "", "Remove the container when it ends; in this version all are", _PROCESS),
    Option(
        ("volume", "v"),
        "SOURCE:TARGET[:ro]",
        "Show a directory or file of the host in the container; :O instead throws away what is written to it",
        _FILES,
        volume,
        True,
    ),
    Option(
        ("mount",),
        "KEY=VALUE,...",
        "The same in detail: type=bind or tmpfs, source, target, readonly, bind-propagation, bind-recursive,"
        " bind-create-src, tmpfs-size, tmpfs-mode",
        _FILES,
        mount,
        True,
    ),
    Option(
        ("tmpfs",),
        "TARGET[:OPTIONS]",
        "An empty file system in memory, e.g. /tmp:size=64m",
        _FILES,
        tmpfs,
        True,
    ),
    Option(("read-only",), "", "Make the root file system read-only", _FILES),
    Option(
        ("root-tmpfs",),
        "SIZE",
        "Keep all changes in memory, at most this much",
        _FILES,
        reader("positive_size"),
    ),
    Option(("rootfs",), "DIR", "Use this directory as root instead of IMAGE; DIR:O leaves it unchanged", _FILES),
    Option(("pull",), "WHEN", "Fetch an address: always, missing (default) or never", _FILES, reader("pull")),
    Option(
        ("platform",),
        "OS/ARCH",
        "The image must be made for this, e.g. linux/arm64",
        _FILES,
        reader("platform"),
    ),
    Option(("quiet", "q"), "", "Don't show how far fetching and unpacking are", _FILES),
    Option(("shm-size",), "SIZE", "The size of /dev/shm (default 64m)", _FILES, reader("size")),
    Option(("memory", "m"), "SIZE", "The most memory it may use, e.g. 512m", _LIMITS, reader("memory")),
    Option(
        ("memory-swap",),
        "SIZE",
        "Memory and swap together; -1 is unlimited (default twice --memory)",
        _LIMITS,
        reader("memory_swap"),
    ),
    Option(
        ("memory-reservation",),
        "SIZE",
        "Memory that it keeps when the machine runs short: a soft limit",
        _LIMITS,
        reader("memory"),
    ),
    Option(
        ("memory-high",),
        "SIZE",
        "From here on it is slowed down and its memory taken back; cgroup v2 only",
        _LIMITS,
        reader("memory"),
    ),
    Option(
        ("memory-swappiness",),
        "NUMBER",
        "How readily its memory is swapped out, 0 to 100; cgroup v1 only",
        _LIMITS,
        limit_reader("swappiness"),
    ),
    Option(
        ("kernel-memory",),
        "SIZE",
        "Without effect: -m counts the kernel's memory too",
        _LIMITS,
        reader("memory"),
    ),
    Option(("oom-kill-disable",), "", "Let it wait at its memory limit, killing nothing; cgroup v1 only", _LIMITS),
    Option(
        ("oom-score-adj",),
        "NUMBER",
        "Who is killed first when the machine runs out of memory: -1000 to 1000",
        _LIMITS,
        limit_reader("oom_score"),
    ),
    Option(("cpus",), "NUMBER", "How many processors' time it may use, e.g. 0.5", _LIMITS, reader("cpus")),
    Option(
        ("cpu-quota",),
        "MICROSECONDS",
        "The processor time that it may use in each period, e.g. 50000",
        _LIMITS,
        limit_reader("cpu_quota"),
    ),
    Option(
        ("cpu-period",),
        "MICROSECONDS",
        "The length of such a period (default 100000)",
        _LIMITS,
        limit_reader("cpu_period"),
    ),
    Option(
        ("cpu-rt-runtime",),
        "MICROSECONDS",
        "The time in each period that its real-time processes may use; cgroup v1 only",
        _LIMITS,
        limit_reader("realtime"),
    ),
    Option(
        ("cpu-rt-period",),
        "MICROSECONDS",
        "The length of such a period; cgroup v1 only",
        _LIMITS,
        limit_reader("realtime"),
    ),
    Option(
        ("cpu-shares", "c"),
        "WEIGHT",
        "Its weight against other containers (usually 1024)",
        _LIMITS,
        reader("cpu_shares"),
    ),
    Option(("cpuset-cpus",), "LIST", "The processors it may use, e.g. 0-2,7", _LIMITS, reader("cpuset")),
    Option(("cpuset-mems",), "LIST", "The memory nodes it may use, e.g. 0", _LIMITS, limit_reader("nodes")),
    Option(
        ("pids-limit",),
        "NUMBER",
        "The most processes it may have; -1 is unlimited",
        _LIMITS,
        reader("pids_limit"),
    ),
    Option(
        ("ulimit",),
        "NAME=SOFT[:HARD]",
        "A limit of each process, e.g. nofile=1024:4096",
        _LIMITS,
        reader("ulimit"),
        True,
    ),
    *(
        Option((name,), values, text, _LIMITS, limit_reader(how), many == MANY)
        for name, values, text, how, many in _DEVICE_LIMITS
    ),
    Option(("cap-add",), "NAME", "Add a capability, e.g. NET_ADMIN, or ALL", _RIGHTS, reader("capability"), True),
    Option(("cap-drop",), "NAME", "Take a capability away, or ALL", _RIGHTS, reader("capability"), True),
    Option(
        ("security-opt",),
        "OPTION",
        "seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, label=PART:VALUE|disable, no-new-privileges,"
        " systempaths=unconfined",
        _RIGHTS,
        reader("security"),
        True,
    ),
    Option(
        ("learn",),
        "FILE",
        "Write a seccomp profile of what the run uses, or add it to one; it tells the capabilities used as well",
        _RIGHTS,
        path,
    ),
    Option(
        ("device",),
        "HOST[:PATH][:rwm]",
        "Give a device, all those of a directory, or one that a CDI file describes: vendor.com/class=NAME",
        _RIGHTS,
        device,
        True,
    ),
    Option(
        ("device-cgroup-rule",),
        "RULE",
        "Allow the use of devices by their numbers, e.g. 'c 189:* rwm'",
        _RIGHTS,
        device_rule,
        True,
    ),
    Option(("gpus",), "all|NUMBER", "Give NVIDIA's GPUs, as a CDI file describes them", _RIGHTS, gpus, True),
    Option(
        ("cdi-spec-dir",),
        "DIR",
        "Look for CDI files here (default /etc/cdi, /var/run/cdi)",
        _RIGHTS,
        path,
        True,
    ),
    Option(
        ("sysctl",),
        "NAME=VALUE",
        "A setting of the container's own network or IPC, e.g. net.ipv4.ip_forward=1",
        _RIGHTS,
        sysctl,
        True,
    ),
    Option(
        ("privileged",), "", "Give all capabilities and devices and take the filters away: not a wall any more", _RIGHTS
    ),
    Option(
        ("network", "net"),
        "NAME|none|host|...",
        "One to be on (default bridge; a plain user: none), only loopback, the host's, or one to join: ns:PATH, pid:N",
        _NETWORK,
        network,
    ),
    Option(("ip",), "ADDRESS", "Its IPv4 address there (default: a free one)", _NETWORK, address(4)),
    Option(("ip6",), "ADDRESS", "Its IPv6 address there", _NETWORK, address(6)),
    Option(("mac-address",), "MAC", "The address of its link, e.g. 02:42:ac:11:00:02", _NETWORK, mac_address),
    *(Option(names, values, text, _NETWORK, name_reader(how), True) for names, values, text, how in _NAMES),
    Option(
        ("publish-all", "P"), "", "Publish all ports that the image or --expose names, each at a free one", _NETWORK
    ),
    Option(
        ("hostname", "h"),
        "NAME",
        "The container's host name (default: from its id)",
        _NETWORK,
        reader("hostname"),
    ),
    Option(("domainname",), "NAME", "The container's NIS domain name", _NETWORK, reader("hostname")),
    *(
        Option((name,), values, text, _NAMESPACES, naming(*how), how[0] == "id_row")
        for name, values, text, *how in _SPACES
    ),
)


def _missing() -> dict[str, str]:
    from .missing import MISSING

    return MISSING


VERB = Verb(
    "run",
    "[OPTIONS] IMAGE [COMMAND [ARG...]]",
    "Run a command in a new container. IMAGE is 'host' (this machine's own programs, nothing of it ever written), a"
    " directory (./rootfs is written to, ./rootfs:O is not), or a tarball of a root file system (./debian.tar, or its"
    " http(s) address). Options after IMAGE belong to the command.",
    OPTIONS,
    _missing,
    (
        ("tarbox run --rm -it host bash", "A shell in a container of this machine's own programs."),
        ("tarbox run --rm -m 100m --cpus 0.5 ./debian.tar make", "A command with limits, in a tarball's files."),
        ("tarbox run --rm -v .:/src:ro -w /src host ls -l", "This directory, read-only, in the container."),
        ("tarbox explain run -m 100m host true", "Every step that such a run takes, without taking it."),
    ),
)


def main(words: list[str], settings: Globals) -> int:
    """Run a container and return its command's exit code."""
    found = parse(VERB, words)
    options = run_options(found)
    try:
        if found.values.get("profile") or found.values.get("step"):
            from ..engine.watching import run as watched

            return watched(options, settings.root, found.values.get("profile"), found.values.get("step") is True)
        from ..engine.run import run

        return run(options, settings.root)
    except CommandNotFoundError as error:
        if options.command and options.command[0].startswith("-") and options.entrypoint is None:
            from ..engine.values import shorten

            error.hint = f"{shorten(options.command[0])} is taken for the command: options go before the image"
        raise


def run_options(found: Arguments) -> RunOptions:
    """What the command line asked for. Reads env files, the caller's variables and nothing else."""
    given = found.values
    options = RunOptions()
    if "rootfs" in given:
        options.rootfs = _text(given, "rootfs")
        if not options.rootfs:
            raise UsageError("--rootfs needs a directory", "e.g. --rootfs ./rootfs")
        options.command = found.rest
    elif not found.rest or not found.rest[0]:
        raise UsageError("no image to run", "e.g. 'tarbox run -it host'; see 'tarbox run --help'")
    else:
        options.image, options.command = found.rest[0], found.rest[1:]
    options.env = environment(given)
    take(options, given)
    for key in ("mount", "volume", "tmpfs"):
        options.mounts += _list(given, key, MountOption)
    _add_devices(options, given)
    options.cdi_dirs = _list(given, "cdi-spec-dir", str)
    options.sysctls = dict(_list(given, "sysctl", tuple))
    options.uidmap, options.gidmap = _list(given, "uidmap", tuple), _list(given, "gidmap", tuple)
    options.uptime_offset = given.get("uptime-offset", {})  # type: ignore[assignment]
    options.namespaces = {row[4]: _text(given, row[0]) for row in _SPACES if len(row) == 5 and row[0] in given}
    options.attach = _list(given, "attach", str)
    _name(options, given)
    options.labels, options.annotations = _labels(given), dict(_list(given, "annotation", tuple))
    if "stdin" in options.attach and not options.interactive:
        raise UsageError("--attach stdin: the container's input isn't open", "add -i")
    _secure(options, _list(given, "security-opt", tuple))
    return options


def take(options: RunOptions, given: dict[str, object]) -> None:
    """Take over the values that need no thought."""
    for key in _SAME_NAME:
        if key in given:
            setattr(options, key.replace("-", "_"), given[key])
    options.ulimits = list({limit.name: limit for limit in _list(given, "ulimit", Ulimit)}.values())


# The options whose value is kept under their own name.
_SAME_NAME = (
    "interactive", "tty", "rm", "workdir", "user", "group-add", "hostname", "domainname", "entrypoint", "read-only",
    "root-tmpfs", "memory", "memory-swap", "cpus", "cpu-shares", "cpuset-cpus", "pids-limit", "cap-add", "cap-drop",
    "privileged", "init", "userns", "shm-size", "stop-signal", "network", "timeout", "cidfile", "pull", "platform",
    "ip", "ip6", "mac-address",
    "memory-reservation", "memory-high", "quiet",
    "memory-swappiness", "kernel-memory", "oom-kill-disable", "oom-score-adj", "cpu-quota", "cpu-period",
    "cpu-rt-runtime", "cpu-rt-period", "cpuset-mems", "blkio-weight", "blkio-weight-device", "device-read-bps",
    "device-write-bps", "device-read-iops", "device-write-iops", "hugetlb", "net-class", "cgroup-conf",
    "cgroup-parent", "learn", "sig-proxy", "systemd", "publish-all",
)  # fmt: skip


def _text(given: dict[str, object], key: str) -> str:
    value = given.get(key, "")
    return value if isinstance(value, str) else ""


def _list(given: dict[str, object], key: str, kind: type[T]) -> list[T]:
    value = given.get(key)
    return [entry for entry in value if isinstance(entry, kind)] if isinstance(value, list) else []


def environment(given: dict[str, object]) -> list[str]:
    """The variables of --env-file and --env, in that order."""
    entries: list[str] = []
    for file in _list(given, "env-file", str):
        from ..engine.env_files import read_env_file

        entries += read_env_file(file, os.environ)
    for entry in _list(given, "env", str):
        # A variable that isn't set here isn't set there: the name alone takes the image's away, as Docker does.
        entries.append(f"{entry}={os.environ[entry]}" if "=" not in entry and entry in os.environ else entry)
    return entries


def _add_devices(options: RunOptions, given: dict[str, object]) -> None:
    if given.keys().isdisjoint(("device", "gpus", "device-cgroup-rule")):
        return
    from ..engine.devices import CdiName, DeviceOption

    for entry in (*_list(given, "device", object), *(name for names in _list(given, "gpus", list) for name in names)):
        if isinstance(entry, DeviceOption | CdiName):
            options.devices.append(entry)
    options.device_rules += _list(given, "device-cgroup-rule", dict)  # type: ignore[arg-type]


def _name(options: RunOptions, given: dict[str, object]) -> None:
    """What leads to the container, and what it knows of others."""
    for ports, key in ((options.ports, "publish"), (options.expose, "expose")):
        for entry in _list(given, key, list):
            ports += entry
    options.dns, options.dns_search = _list(given, "dns", str), _list(given, "dns-search", str)
    options.dns_options, options.add_hosts = _list(given, "dns-option", str), _list(given, "add-host", tuple)


def _labels(given: dict[str, object]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for file in _list(given, "label-file", str):
        from ..engine.labels import read_label_file

        labels |= read_label_file(file)
    return labels | dict(_list(given, "label", tuple))


def _secure(options: RunOptions, chosen: list[tuple[str, str]]) -> None:
    for key, value in chosen:
        if key == "no-new-privileges":
            options.no_new_privileges = value == "true"
        elif key == "systempaths":
            options.unmasked = True
        elif key == "apparmor":
            options.apparmor = value
        elif key == "label":
            options.selinux.append(value)
        elif key == "seccomp" and value == "builtin":
            options.seccomp = "default"
        elif key == "seccomp" and value == "unconfined":
            options.seccomp = value
        elif key == "seccomp":
            if not os.path.isfile(value):
                from ..engine.values import shorten

                raise UsageError(
                    f"--security-opt seccomp={shorten(value)}: there is no such file",
                    "a profile in Docker's or the OCI's JSON, or unconfined",
                )
            options.seccomp = os.path.abspath(value)
