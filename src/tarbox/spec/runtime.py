"""The OCI runtime configuration, as far as tarbox reads it: the names of its parts, and the words of its lists.

A config stays the plain dict that JSON gives, so that keys which nobody here knows survive. These types only exist for
the type checker.

https://github.com/opencontainers/runtime-spec/blob/main/config.md and config-linux.md
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NotRequired, TypedDict

    class User(TypedDict):
        uid: int
        gid: int
        umask: NotRequired[int]
        additionalGids: NotRequired[list[int]]

    class Capabilities(TypedDict, total=False):
        bounding: list[str]
        effective: list[str]
        permitted: list[str]
        inheritable: list[str]
        ambient: list[str]

    class Rlimit(TypedDict):
        type: str
        soft: int
        hard: int

    class ConsoleSize(TypedDict):
        height: int
        width: int

    class Process(TypedDict):
        args: list[str]
        cwd: str
        env: NotRequired[list[str]]
        terminal: NotRequired[bool]
        consoleSize: NotRequired[ConsoleSize]
        user: NotRequired[User]
        capabilities: NotRequired[Capabilities]
        rlimits: NotRequired[list[Rlimit]]
        noNewPrivileges: NotRequired[bool]
        oomScoreAdj: NotRequired[int]
        apparmorProfile: NotRequired[str]
        selinuxLabel: NotRequired[str]

    class Root(TypedDict):
        path: str
        readonly: NotRequired[bool]

    class Mount(TypedDict):
        destination: str
        type: NotRequired[str]
        source: NotRequired[str]
        options: NotRequired[list[str]]
        uidMappings: NotRequired[list[Mapping]]
        gidMappings: NotRequired[list[Mapping]]

    class Namespace(TypedDict):
        type: str
        path: NotRequired[str]

    class Mapping(TypedDict):
        containerID: int
        hostID: int
        size: int

    class Device(TypedDict):
        type: str
        path: str
        major: NotRequired[int]
        minor: NotRequired[int]
        fileMode: NotRequired[int]
        uid: NotRequired[int]
        gid: NotRequired[int]

    class DeviceRule(TypedDict):
        allow: bool
        type: NotRequired[str]
        major: NotRequired[int]
        minor: NotRequired[int]
        access: NotRequired[str]

    class Memory(TypedDict, total=False):
        limit: int
        reservation: int
        swap: int
        kernel: int
        kernelTCP: int
        swappiness: int
        disableOOMKiller: bool
        useHierarchy: bool
        checkBeforeUpdate: bool

    class Cpu(TypedDict, total=False):
        shares: int
        quota: int
        burst: int
        period: int
        realtimeRuntime: int
        realtimePeriod: int
        cpus: str
        mems: str
        idle: int

    class Pids(TypedDict):
        limit: int

    class WeightDevice(TypedDict):
        major: int
        minor: int
        weight: NotRequired[int]
        leafWeight: NotRequired[int]

    class ThrottleDevice(TypedDict):
        major: int
        minor: int
        rate: int

    class BlockIO(TypedDict, total=False):
        weight: int
        leafWeight: int
        weightDevice: list[WeightDevice]
        throttleReadBpsDevice: list[ThrottleDevice]
        throttleWriteBpsDevice: list[ThrottleDevice]
        throttleReadIOPSDevice: list[ThrottleDevice]
        throttleWriteIOPSDevice: list[ThrottleDevice]

    class HugepageLimit(TypedDict):
        pageSize: str
        limit: int

    class InterfacePriority(TypedDict):
        name: str
        priority: int

    class Network(TypedDict, total=False):
        classID: int
        priorities: list[InterfacePriority]

    class Rdma(TypedDict, total=False):
        hcaHandles: int
        hcaObjects: int

    class Resources(TypedDict, total=False):
        devices: list[DeviceRule]
        memory: Memory
        cpu: Cpu
        pids: Pids
        blockIO: BlockIO
        hugepageLimits: list[HugepageLimit]
        network: Network
        rdma: dict[str, Rdma]
        unified: dict[str, str]

    class TimeOffset(TypedDict, total=False):
        secs: int
        nanosecs: int

    class Linux(TypedDict, total=False):
        namespaces: list[Namespace]
        uidMappings: list[Mapping]
        gidMappings: list[Mapping]
        timeOffsets: dict[str, TimeOffset]
        devices: list[Device]
        cgroupsPath: str
        resources: Resources
        rootfsPropagation: str
        sysctl: dict[str, str]
        seccomp: dict[str, Any]
        maskedPaths: list[str]
        readonlyPaths: list[str]
        mountLabel: str

    class Config(TypedDict):
        ociVersion: str
        process: NotRequired[Process]
        root: NotRequired[Root]
        hostname: NotRequired[str]
        domainname: NotRequired[str]
        mounts: NotRequired[list[Mount]]
        linux: NotRequired[Linux]
        annotations: NotRequired[dict[str, str]]

    class ImageConfig(TypedDict, total=False):
        """The `config` object of an OCI image configuration, as far as a run uses it."""

        Env: list[str] | None
        Cmd: list[str] | None
        Entrypoint: list[str] | None
        WorkingDir: str
        User: str
        StopSignal: str
        ExposedPorts: dict[str, Any] | None


VERSION = "1.2.0"

# The kernel's capabilities; the place in this list is the number. man 7 capabilities
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

# The kernel's resource limits by the name that follows RLIMIT_, in lower case. man 2 setrlimit
RLIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
    "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip
UNLIMITED = 2**64 - 1

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
