"""What a process sees: which namespaces are its own, who shares them, and where its root is.

    lsns --task $PID; readlink /proc/$PID/root; findmnt --task $PID /

"Its own" means: not the machine's, that is not process 1's. Where this user may not ask, what everybody may read
tells some of it: the numbers that a process has, its id map, and the table of its mounts.

man 7 namespaces, man 2 pivot_root, man 2 chroot
"""

from __future__ import annotations

from ..errors import ProcessNotFoundError
from ..kernel import mountinfo, namespace_files, processes
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from ..kernel.processes import Process

    class Namespace(TypedDict):
        inode: int | None
        own: bool | None
        shared_with_init: bool | None
        shared_with_caller: bool | None
        processes: int | None
        names: list[str]
        for_children: int | None

    class Root(TypedDict):
        how: str | None  # machine, copy, pivoted, chrooted, init
        path: str | None
        fstype: str | None
        source: str | None
        read_only: bool | None
        layers: int | None
        mounts: int | None

    class Starter(TypedDict):
        pid: int
        name: str
        command: str


_NAMES = 4  # as many programs are named that share a namespace
_LOOKED_AT = 50  # so many processes are asked for their names


class Surroundings:
    """What a process is compared with.

    init: the machine's namespaces, as far as they can be known. caller: those of this process. inside: whether this
    process is in a pid namespace of a container's, where process 1 isn't the machine's. mounts: the table of process 1;
    own_mounts: this process's; map: its id map. survey: who is in which namespace.
    """

    __slots__ = ("caller", "init", "inside", "map", "mounts", "own_mounts", "survey")

    def __init__(self, survey: namespace_files.Survey | None = None) -> None:
        self.survey = survey or namespace_files.look_around()
        with processes.Process(os.getpid()) as this:
            self.caller = this.namespaces()
            self.map = this.text("uid_map")
            self.own_mounts = mountinfo.parse(this.text("mountinfo") or "")
        try:
            with processes.Process(1) as first:
                init = first.namespaces()
                self.mounts = mountinfo.parse(first.text("mountinfo") or "")
        except ProcessNotFoundError:  # hidden from this user
            init = dict.fromkeys(self.caller)
            self.mounts = self.own_mounts
        self.inside = self.caller["pid"] not in (None, namespace_files.FIRST["pid"])
        first_ones = namespace_files.first_ones()
        if self.inside:
            init = {kind: first_ones.get(kind) for kind in init}
        elif None in init.values():
            init = self._beside(init)
        self.init = init

    def is_own(self, kind: str, inode: int) -> bool | None:
        """Whether a namespace isn't the machine's; None where that can't be told."""
        machine = self.init[kind]
        if inode < namespace_files.DYNAMIC:
            return False
        return None if machine is None else inode != machine

    def _beside(self, init: dict[str, int | None]) -> dict[str, int | None]:
        """The same with what is known though process 1 may not be asked.

        The kernel's own threads are where it began, and the first namespaces of most kinds have known numbers. A
        process with all of these and the machine's mounts has its network as well, unless somebody took pains.
        """
        kernels: dict[str, int | None] = {}
        try:
            with processes.Process(2) as second:
                if second.is_kernel_thread():
                    kernels = second.namespaces()
        except ProcessNotFoundError:
            pass
        first_ones = namespace_files.first_ones()
        usual = all(self.caller[kind] == inode for kind, inode in namespace_files.FIRST.items())
        usual = usual and bool({mount.id for mount in self.mounts} & {mount.id for mount in self.own_mounts})
        return {
            kind: inode or kernels.get(kind) or first_ones.get(kind) or (self.caller[kind] if usual else None)
            for kind, inode in init.items()
        }


def namespaces(process: Process, around: Surroundings) -> dict[str, Namespace]:
    """The namespace of each kind that a process is in; raises ProcessNotFoundError."""
    found: dict[str, Namespace] = {}
    known = process.namespaces()
    guesses = _guesses(process, around)
    for kind, inode in known.items():
        caller = around.caller[kind]
        entry: Namespace = {
            "inode": inode, "own": guesses.get(kind), "shared_with_init": None, "shared_with_caller": None,
            "processes": None, "names": [], "for_children": None,
        }  # fmt: skip
        if inode is not None:
            entry["own"] = around.is_own(kind, inode)
            entry["shared_with_caller"] = None if caller is None else inode == caller
            sharing = around.survey.namespaces.get((kind, inode))
            pids = set(sharing.pids if sharing else ()) | {process.pid}
            entry["processes"] = len(pids)
            entry["names"] = _names(sorted(pids - {process.pid}))
            if kind in ("pid", "time"):
                later = processes.inode_of(process.link(f"ns/{kind}_for_children"))
                entry["for_children"] = later if later != inode else None
        elif process.pid == 1 and not around.inside:  # what it has is the machine's, whether that can be seen or not
            entry["own"] = False
        if entry["own"] is not None:
            entry["shared_with_init"] = not entry["own"]
        found[kind] = entry
    return found


def _guesses(process: Process, around: Surroundings) -> dict[str, bool]:
    """Whether namespaces are the process's own, from what everybody may read."""
    found = {}
    numbers = process.status().get("NSpid", "").split()
    if numbers:
        found["pid"] = (
            len(numbers) > 1 or around.inside
        )  # one number for each namespace, from the one that this /proc shows
    ids = process.text("uid_map")
    if ids and around.map and ids.split() != around.map.split():
        found["user"] = True
    mounts = {mount.id for mount in mountinfo.parse(process.text("mountinfo") or "")}
    if mounts and not around.inside:  # mounts have numbers that no two on the machine share
        found["mount"] = not mounts & {mount.id for mount in around.mounts}
    return found


def _names(pids: list[int]) -> list[str]:
    """The names of a few of these processes, each once."""
    found: list[str] = []
    for pid in pids[:_LOOKED_AT]:
        try:
            with processes.Process(pid) as process:
                name = process.name()
        except ProcessNotFoundError:
            continue
        if name and name not in found:
            found.append(name)
        if len(found) == _NAMES:
            break
    return found


def root(process: Process, own_mounts: bool | None, around: Surroundings) -> Root:
    """Where the root of a process is. own_mounts: whether its mount namespace is its own."""
    table = mountinfo.parse(process.text("mountinfo") or "")
    where = process.link("root")
    mount = _mount_of_root(process, [*table, *around.own_mounts, *around.mounts]) or mountinfo.at(table, "/")
    machine = mountinfo.at(around.mounts, "/")
    how = None
    if where is not None and where != "/":
        how = "chrooted"
    elif mount and machine and mount.id == machine.id:
        how = "machine"
    elif own_mounts is False:
        how = "machine" if where == "/" else None
    elif mount and machine:
        same = (mount.device, mount.top) == (machine.device, machine.top)
        how = "copy" if same else "pivoted"
    if around.inside and how in ("machine", "copy"):
        how = "init"
    return {
        "how": how,
        "path": where,
        "fstype": mount.fstype if mount else None,
        "source": _source(mount) if mount else None,
        "read_only": mount.read_only() if mount else None,
        "layers": _layers(mount) if mount and mount.fstype == "overlay" else None,
        "mounts": len(table) or None,
    }


def _mount_of_root(process: Process, mounts: list[mountinfo.MountLine]) -> mountinfo.MountLine | None:
    """The mount that the root lies in: not asked of the file system, which might be one that never answers."""
    handle = process.open("root")
    if handle is None:
        return None
    try:
        with open(f"/proc/self/fdinfo/{handle}", encoding="ascii") as facts:
            number = processes.parse_status(facts.read()).get("mnt_id", "")
    finally:
        os.close(handle)
    return mountinfo.by_id(mounts, int(number)) if number.isdecimal() else None


def _source(mount: mountinfo.MountLine) -> str:
    return mount.source if mount.top == "/" else f"{mount.source}[{mount.top}]"


def _layers(mount: mountinfo.MountLine) -> int:
    """How many layers an overlay file system has, the writable one included."""
    count = 0
    for setting in mount.settings:
        key, _, value = setting.partition("=")
        if key == "lowerdir":
            count += 1 + value.replace("\\:", "").replace("::", ":").count(":")
        elif key in ("lowerdir+", "datadir+", "upperdir"):
            count += 1
    return count


def starter(process: Process, spaces: dict[str, Namespace]) -> Starter | None:
    """The nearest ancestor that isn't in the same namespaces: it, or the process in between, made them.

    None for a process without namespaces of its own, and where all ancestors that are left are process 1.
    """
    own = {kind: space["inode"] for kind, space in spaces.items() if space["own"] and space["inode"] is not None}
    if not own:
        return None
    for pid in processes.ancestors(process.pid):
        if pid == 1:
            break
        try:
            with processes.Process(pid) as above:
                theirs = above.namespaces()
                if any(theirs[kind] not in (None, inode) for kind, inode in own.items()):
                    return {"pid": pid, "name": above.name(), "command": above.command()}
        except ProcessNotFoundError:
            break
    return None
