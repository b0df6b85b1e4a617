"""`--systemd`: a whole system in a container, with systemd or another init as its first process.

    systemd-nspawn --boot -D ./rootfs        does what is special about it
    podman run --systemd=always IMAGE        has the option

systemd wants a few things of whoever runs it in a container, which it has written down as its Container Interface: file
systems in memory for what lasts until the next start, a group that it manages itself, and to be told that it is in a
container, with which id. In the place of SIGTERM, which means something else to it, it is ended by SIGRTMIN+3.

https://systemd.io/CONTAINER_INTERFACE, man 1 systemd (SIGNALS), man 1 podman-run
"""

from __future__ import annotations

from ..errors import KernelError, UnsupportedError, UsageError
from ..kernel.mounts import set_attributes
from ..plan.step import PARENT, Step
from ..unistd import os
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.cgroups import Cgroups
    from ..plan.step import Slots
    from ..runtime.planner import Beside
    from ..spec.runtime import Config, Mount
    from .options import RunOptions

ALWAYS, IF_INIT, NEVER = "always", "true", "false"
NAME = "tarbox"  # what systemd-detect-virt finds
HALT = 37  # SIGRTMIN+3, as the C library counts: systemd shuts down, and ends
_INITS = ("/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init")
_FOLDER = "/run/host"
_CGROUPS = "/sys/fs/cgroup"

# (where, its mode, what may not be done there). Units run programs from /run and /tmp.
_MEMORY = (
    ("/run", "755", ("nosuid", "nodev")),
    ("/run/lock", "1777", ("nosuid", "nodev", "noexec")),
    (_FOLDER, "755", ("nosuid", "nodev", "noexec")),
    ("/tmp", "1777", ("nosuid", "nodev")),
    ("/var/log/journal", "755", ("nosuid", "nodev", "noexec")),
)


def mode(text: str) -> str:
    """The value of --systemd: true (when the command is an init), always or false."""
    if text == ALWAYS:
        return text
    from .values import switch

    try:
        return IF_INIT if switch(text) else NEVER
    except UsageError:
        hint = "true (when the command is an init), always or false"
        raise UsageError(f"{shorten(text)!r} doesn't say when", hint) from None


def is_init(program: str) -> bool:
    """Whether a program, as it is named on the command line, is an init."""
    return program in _INITS or program.rpartition("/")[2] == "systemd"


def wanted(options: RunOptions, arguments: list[str]) -> bool:
    """Whether a container with these arguments of its program gets what systemd wants."""
    if options.systemd == ALWAYS and options.init:
        raise UsageError("--systemd=always and --init can't go together", "the command is the init: leave --init out")
    return options.systemd == ALWAYS or (options.systemd == IF_INIT and not options.init and is_init(arguments[0]))


def add(made: Config, options: RunOptions, id: str) -> None:
    """Put into a config what systemd wants of its container. id: the container's, which its machine id is made from."""
    environment = made["process"]["env"]
    known = {variable.partition("=")[0] for variable in environment}
    own = {"container": NAME, "container_uuid": id[:32]}
    environment += [f"{name}={value}" for name, value in own.items() if name not in known]
    mounts = made["mounts"]
    taken = {mount.target for mount in options.mounts}
    ours: list[Mount] = [
        {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": [*attributes, f"mode={mode}"]}
        for place, mode, attributes in _MEMORY
        if place not in taken and not (place == _FOLDER and "/run" in taken)
    ]
    first = next((at for at, mount in enumerate(mounts) if mount["destination"] in taken), len(mounts))
    mounts[first:first] = ours  # before what was asked for, which may lie on it


def prepare(made: Config, options: RunOptions, beside: Beside, facts: Cgroups, id: str, warnings: list[str]) -> None:
    """Have a container manage a control group of its own, and write what it is told in files."""
    from ..kernel.cgroups.delegation import VERSION_2, delegate

    if any(mount["destination"] == _FOLDER for mount in made["mounts"]):
        uuid = f"{id[:8]}-{id[8:12]}-{id[12:16]}-{id[16:20]}-{id[20:32]}"
        beside.steps.append(WriteFiles(_FOLDER, {"container-manager": NAME, "container-uuid": uuid}))
    backend = delegate(beside.cgroups, facts, options.cgroup_parent)
    if backend:
        beside.cgroups, beside.delegated = backend, backend.kind
        for mount in made["mounts"]:  # the trees of version 1 in which its limits are stay read only
            if mount["destination"] == _CGROUPS and mount.get("type") == "cgroup" and backend.kind == VERSION_2:
                mount["options"] = [option for option in mount["options"] if option != "ro"]
        return
    said = "this machine lets no container manage a control group, which systemd needs"
    if options.systemd == ALWAYS:
        raise UnsupportedError(said, "as a plain user: systemd-run --user --scope -p Delegate=yes tarbox …")
    warnings.append(f"{said}; other inits may do without (--systemd=false makes this an ordinary container)")


class WriteFiles(Step):
    """Write small files into a file system in memory that isn't attached yet, and make it read only then.

    slot: the file system's. files: their texts by name.
    """

    __slots__ = ("files", "slot")

    phase = "filesystem"
    late = True
    why = "programs inside read there what runs the container, and can't change it"
    man = "mount_setattr(2)"

    def __init__(self, slot: str, files: dict[str, str]) -> None:
        super().__init__(PARENT)
        self.slot = slot
        self.files = files

    def takes(self) -> tuple[str, ...]:
        return (self.slot,)

    def apply(self, slots: Slots) -> None:
        memory = slots.take(self.slot)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            for name, text in self.files.items():
                descriptor = os.open(name, flags, 0o444, dir_fd=memory)
                os.write(descriptor, f"{text}\n".encode())
                os.close(descriptor)
        except OSError as error:
            raise KernelError("write", (f"{self.slot}/{name}",), error.errno or 0) from None
        set_attributes(memory, ("ro",))

    def call(self) -> str:
        written = ", ".join(f'write("{self.slot}/{name}", "{text}")' for name, text in self.files.items())
        return f"{written}, mount_setattr(MOUNT_ATTR_RDONLY)"

    def shell(self) -> str:
        lines = [f"echo {text} > $ROOT{self.slot}/{name}" for name, text in self.files.items()]
        return "; ".join([*lines, f"mount -o remount,ro $ROOT{self.slot}"])
