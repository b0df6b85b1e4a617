"""What `tarbox run` was asked for, as plain values.

The command line fills one of these (`cli/run.py`); a library call may as well. Every default is Docker's where Docker
has one. The values are already parsed: bytes, seconds and mount entries, not the words that people type (`values.py`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..networks.ports import Port
    from ..spec.runtime import DeviceRule
    from .devices import CdiName, DeviceOption

HOST, NONE = "host", "none"

# What is counted and limited for all of a container's processes together; none of them is set by default.
_LIMITS = (
    "memory", "memory_swap", "memory_reservation", "memory_high", "kernel_memory", "oom_kill_disable", "cpus",
    "cpu_shares", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpuset_cpus", "cpuset_mems",
    "pids_limit", "blkio_weight", "blkio_weight_device", "device_read_bps", "device_write_bps", "device_read_iops",
    "device_write_iops", "hugetlb", "cgroup_conf",
)  # fmt: skip


class MountOption:
    """One `-v`, `--mount` or `--tmpfs`.

    kind: "bind", "tmpfs", or "overlay" for a directory whose changes are thrown away. source: an absolute path on the
    host; "tmpfs" for a tmpfs. target: an absolute path in the container. options: as the OCI config spells them
    (`rbind`, `rro`, `rprivate`, `size=1m`).
    create: whether a source that doesn't exist is made, as a directory (`-v` does that, `--mount` refuses).
    idmap: how ids are mapped, "" for as the container's are; None for not at all (`idmap.py`).
    """

    __slots__ = ("create", "idmap", "kind", "options", "source", "target")

    def __init__(
        self, kind: str, source: str, target: str, options: tuple[str, ...], create: bool = False,
        idmap: str | None = None,
    ) -> None:  # fmt: skip
        self.idmap = idmap
        self.kind = kind
        self.source = source
        self.target = target
        self.options = options
        self.create = create

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MountOption) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.source, self.target))

    def __repr__(self) -> str:
        return f"MountOption({self.kind!r}, {self.source!r}, {self.target!r}, {self.options!r}, {self.create!r})"


class Ulimit:
    """One `--ulimit`: `name` as in `nofile`, and the soft and hard limit; `2**64 - 1` means unlimited."""

    __slots__ = ("hard", "name", "soft")

    def __init__(self, name: str, soft: int, hard: int) -> None:
        self.name = name
        self.soft = soft
        self.hard = hard

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ulimit) and (self.name, self.soft, self.hard) == (other.name, other.soft, other.hard)

    def __hash__(self) -> int:
        return hash((self.name, self.soft, self.hard))

    def __repr__(self) -> str:
        return f"Ulimit({self.name!r}, {self.soft}, {self.hard})"


class RunOptions:
    """Everything that `tarbox run` can be told; an option left alone has Docker's default.

    image: `host`, a directory, a tarball or its URL; "" with `rootfs`. rootfs: a directory; `DIR:O` is not written.
    command: replaces the image's. entrypoint: None for the image's own, "" for none.
    env: in order, `NAME=value` sets and `NAME` alone takes the image's variable away.
    user: `name|uid[:group|gid]`, "" for the image's. group_add: names or numbers.
    memory, memory_swap, shm_size, root_tmpfs: bytes; 0 is unset, memory_swap -1 is unlimited.
    memory_reservation, memory_high, kernel_memory: bytes as well. memory_swappiness: 0 to 100, None is unset.
    oom_score_adj: -1000 to 1000, None is unset.
    cpus: how many, 0 is unset. cpu_shares, pids_limit: 0 is unset. cpuset_cpus, cpuset_mems: a list such as `0-1,3`.
    cpu_period, cpu_quota, cpu_rt_period, cpu_rt_runtime: microseconds, 0 is unset, a quota of -1 is no limit.
    blkio_weight: 10 to 1000, 0 is unset. blkio_weight_device, device_*: (major, minor, weight or amount a second).
    hugetlb: (size as the kernel writes it, bytes). cgroup_conf: (name of a control, its value).
    namespaces: whose they are, by OCI name: "private", "host", "none" (of ipc), or the path of one to be joined.
    uptime_offset: nanoseconds that are added to a clock, by its name, "monotonic" or "boottime".
    userns: as `userns.read` gives it, "" for the default. uidmap, gidmap: rows of (first inside, on the host, size).
    net_class: None is unset. cgroup_parent: the path of a group, "" for none.
    seccomp: "" for what goes with the rest, else "default", "unconfined" or the absolute path of a profile.
    apparmor: "" for tarbox's own profile where AppArmor is on, else "unconfined" or a profile's name. selinux: parts of
    a context, `type:container_t`, or "disable"; none sets no label.
    stop_signal: a number, 0 is unset. timeout: seconds, 0 is none. network: "none", "host", a path to
    join, or the name of one that it is connected to; "" for the default. ip, ip6, mac_address: "" for a free one.
    ports: what is published. publish_all: the exposed ones too. expose: as if they were to be published anywhere.
    dns, dns_search, dns_options: the container's own, in the place of the host's. dns_search "." alone is none.
    add_hosts: (name, address), "host-gateway" for the host's addresses as the container sees them.
    systemd: "true" for what an init wants when the command is one, "always" or "false".
    devices: by path or by CDI name (`devices.py`). device_rules: as the OCI has them. cdi_dirs: none for the usual.
    attach: which of stdin, stdout and stderr are the caller's; none for all. cidfile: the absolute path of a new file.
    pull: "missing", "always" or "never". platform: an architecture in the OCI's words, "" for any that runs here.
    """

    __slots__ = (
        "add_hosts",
        "annotations",
        "apparmor",
        "attach",
        "blkio_weight",
        "blkio_weight_device",
        "cap_add",
        "cap_drop",
        "cdi_dirs",
        "cgroup_conf",
        "cgroup_parent",
        "cidfile",
        "command",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpus",
        "cpuset_cpus",
        "cpuset_mems",
        "device_read_bps",
        "device_read_iops",
        "device_rules",
        "device_write_bps",
        "device_write_iops",
        "devices",
        "dns",
        "dns_options",
        "dns_search",
        "domainname",
        "entrypoint",
        "env",
        "expose",
        "gidmap",
        "group_add",
        "hostname",
        "hugetlb",
        "image",
        "init",
        "interactive",
        "ip",
        "ip6",
        "kernel_memory",
        "labels",
        "learn",
        "mac_address",
        "memory",
        "memory_high",
        "memory_reservation",
        "memory_swap",
        "memory_swappiness",
        "mounts",
        "namespaces",
        "net_class",
        "network",
        "no_new_privileges",
        "oom_kill_disable",
        "oom_score_adj",
        "pids_limit",
        "platform",
        "ports",
        "privileged",
        "publish_all",
        "pull",
        "quiet",
        "read_only",
        "rm",
        "root_tmpfs",
        "rootfs",
        "seccomp",
        "selinux",
        "shm_size",
        "sig_proxy",
        "stop_signal",
        "sysctls",
        "systemd",
        "timeout",
        "tty",
        "uidmap",
        "ulimits",
        "unmasked",
        "uptime_offset",
        "user",
        "userns",
        "workdir",
    )

    def __init__(self, image: str = "", command: list[str] | None = None) -> None:
        self.image = image
        self.command: list[str] = command or []
        self.rootfs = ""
        self.entrypoint: str | None = None
        self.env: list[str] = []
        self.workdir = ""
        self.user = ""
        self.group_add: list[str] = []
        self.hostname = ""
        self.domainname = ""
        self.interactive = False
        self.tty = False
        self.rm = False
        self.sig_proxy = True  # signals are handed on to the container
        self.init = False
        self.read_only = False
        self.root_tmpfs = 0
        self.mounts: list[MountOption] = []
        self.shm_size = 0
        self.memory = 0
        self.memory_swap = 0
        self.memory_reservation = 0
        self.memory_high = 0
        self.memory_swappiness: int | None = None
        self.kernel_memory = 0
        self.oom_kill_disable = False
        self.oom_score_adj: int | None = None
        self.cpus = 0.0
        self.cpu_shares = 0
        self.cpu_period = 0
        self.cpu_quota = 0
        self.cpu_rt_period = 0
        self.cpu_rt_runtime = 0
        self.cpuset_cpus = ""
        self.cpuset_mems = ""
        self.pids_limit = 0
        self.blkio_weight = 0
        self.blkio_weight_device: list[tuple[int, int, int]] = []
        self.device_read_bps: list[tuple[int, int, int]] = []
        self.device_write_bps: list[tuple[int, int, int]] = []
        self.device_read_iops: list[tuple[int, int, int]] = []
        self.device_write_iops: list[tuple[int, int, int]] = []
        self.hugetlb: list[tuple[str, int]] = []
        self.net_class: int | None = None
        self.cgroup_conf: list[tuple[str, str]] = []
        self.cgroup_parent = ""
        self.ulimits: list[Ulimit] = []
        self.cap_add: list[str] = []
        self.cap_drop: list[str] = []
        self.privileged = False
        self.no_new_privileges = False
        self.seccomp = ""
        self.learn = ""
        self.apparmor = ""
        self.selinux: list[str] = []
        self.unmasked = False  # --security-opt systempaths=unconfined: all of /proc and /sys as the kernel shows it
        self.network = ""
        self.ip = ""
        self.ip6 = ""
        self.mac_address = ""
        self.ports: list[Port] = []
        self.publish_all = False
        self.expose: list[Port] = []
        self.dns: list[str] = []
        self.dns_search: list[str] = []
        self.dns_options: list[str] = []
        self.add_hosts: list[tuple[str, str]] = []
        self.namespaces: dict[str, str] = {}
        self.userns = ""
        self.uidmap: list[tuple[int, int, int]] = []
        self.gidmap: list[tuple[int, int, int]] = []
        self.uptime_offset: dict[str, int] = {}
        self.stop_signal = 0
        self.systemd = "true"
        self.timeout = 0.0
        self.devices: list[DeviceOption | CdiName] = []
        self.device_rules: list[DeviceRule] = []
        self.cdi_dirs: list[str] = []
        self.sysctls: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.annotations: dict[str, str] = {}
        self.attach: list[str] = []
        self.cidfile = ""
        self.pull = "missing"
        self.platform = ""
        self.quiet = False

    def limited(self) -> bool:
        """Whether any limit on all of its processes together was asked for."""
        if self.memory_swappiness is not None or self.net_class is not None:  # where 0 means something
            return True
        return any(getattr(self, name) for name in _LIMITS)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"RunOptions({shown})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunOptions) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]
