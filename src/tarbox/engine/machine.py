"""What a config needs to know of this machine and of the process that asks.

    nproc; hostname; grep CapEff /proc/self/status; ls /sys/devices/system/cpu/cpu*/thermal_throttle

man 5 proc, man 7 capabilities, man 2 sched_getaffinity
"""

from __future__ import annotations

from ..unistd import S_IMODE, S_ISBLK, S_ISCHR, S_ISDIR, os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.mappings import Rows
    from ..spec.runtime import Device
    from .device_edits import Edits

_APPARMOR = "/sys/module/apparmor"
_THERMAL = "/sys/devices/system/cpu/cpu%d/thermal_throttle"


class Machine:
    """The facts, as plain values, so that a config can be made for a machine that isn't this one.

    hostname: the host's. cpus: the numbers of the processors that may be used. capabilities: a bit for each that a
    container can be given. bounding: a bit for each that this process, and what it executes, can ever have. uid, gid:
    of the caller; with a uid other than 0 the container gets a user namespace.
    thermal_paths: files of /sys that tell of the host's temperature.
    devices: the nodes of the host's /dev, for --privileged. edits: what the devices that were asked for add.
    apparmor: the profile that confines this process, "unconfined" for none, "" where AppArmor is off.
    maps: of users and of groups, for a user namespace of root's; None for none. joined: its path, "" for a new one.
    """

    __slots__ = (
        "apparmor", "bounding", "capabilities", "cpus", "devices", "edits", "gid", "hostname", "joined", "maps",
        "thermal_paths", "uid",
    )  # fmt: skip

    def __init__(
        self,
        hostname: str = "",
        cpus: tuple[int, ...] = (0,),
        capabilities: int = 2**41 - 1,
        uid: int = 0,
        gid: int = 0,
        thermal_paths: tuple[str, ...] = (),
        devices: tuple[Device, ...] = (),
        bounding: int = 2**64 - 1,
        edits: Edits | None = None,
        apparmor: str = "",
        maps: tuple[Rows, Rows] | None = None,
    ) -> None:
        self.apparmor = apparmor
        self.maps = maps
        self.joined = ""
        self.bounding = bounding
        self.hostname = hostname
        self.cpus = cpus
        self.capabilities = capabilities
        self.uid = uid
        self.gid = gid
        self.thermal_paths = thermal_paths
        self.devices = devices
        self.edits = edits


def read_machine(devices: bool = False) -> Machine:
    """The facts of this machine; `devices` asks for the list of the host's devices too, which takes longer."""
    uid = os.geteuid()
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    thermal: tuple[str, ...] = ()  # one look tells for most machines that there is none
    if os.path.exists(_THERMAL % cpus[0]):
        thermal = tuple(_THERMAL % cpu for cpu in range(os.cpu_count() or 1) if os.path.exists(_THERMAL % cpu))
    effective, bounding = _capabilities(uid)
    return Machine(
        hostname=os.uname().nodename,
        cpus=cpus,
        capabilities=effective,
        bounding=bounding,
        uid=uid,
        gid=os.getegid(),
        thermal_paths=thermal,
        devices=host_devices() if devices and uid == 0 else (),
        apparmor=_apparmor(),
    )


def _apparmor() -> str:
    if not os.path.exists(_APPARMOR):  # on or off, without loading what knows more of it
        return ""
    from ..kernel.apparmor import own_label

    return own_label()


def _capabilities(uid: int) -> tuple[int, int]:
    """What can be given to a container, and what is in the bounding set."""
    if uid != 0:  # a user namespace of one's own comes with all of them
        last = int(_read("/proc/sys/kernel/cap_last_cap") or b"40")
        return (1 << last + 1) - 1, 2**64 - 1
    found = {b"CapEff": 0, b"CapBnd": 2**64 - 1}
    for line in _read("/proc/self/status").splitlines():
        name, _, value = line.partition(b":")
        if name in found:
            found[name] = int(value, 16)
    return found[b"CapEff"], found[b"CapBnd"]


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def host_devices(directory: str = "/dev") -> tuple[Device, ...]:
    """The character and block devices below `directory`, without terminals and what a container has of its own."""
    found: list[Device] = []
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return ()
    for entry in entries:
        if entry.name in ("pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".udev"):
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if S_ISDIR(status.st_mode):
            found += host_devices(entry.path)
        elif S_ISCHR(status.st_mode) or S_ISBLK(status.st_mode):
            found.append(
                {
                    "type": "c" if S_ISCHR(status.st_mode) else "b",
                    "path": entry.path,
                    "major": os.major(status.st_rdev),
                    "minor": os.minor(status.st_rdev),
                    "fileMode": S_IMODE(status.st_mode),
                    "uid": status.st_uid,
                    "gid": status.st_gid,
                }
            )
    return tuple(found)
