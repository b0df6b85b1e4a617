"""All namespaces of the machine: those that processes are in, those above them, and those that a mount keeps.

    lsns; findmnt --types nsfs; ip netns

A namespace has no list of its own in the kernel. It lives as long as a process is in it, a namespace below it lives,
a descriptor is open, or its file is bind-mounted somewhere, which keeps it without any process. So they are gathered:
from /proc/PID/ns of every process, from mounts of the kind `nsfs`, and from each by asking for its parent and for the
user namespace that owns it.

man 7 namespaces, man 2 NS_GET_USERNS, man 8 lsns
"""

from __future__ import annotations

import errno

from ..errors import KernelError, ProcessNotFoundError
from ..unistd import os
from . import mountinfo, processes
from .paths import filesystem_of, reopen

TYPE_CHECKING = False
if TYPE_CHECKING:
    Key = tuple[str, int]  # kind, inode

# The namespaces that the kernel starts with have numbers of their own.
FIRST = {
    "cgroup": 4026531835, "ipc": 4026531839, "pid": 4026531836, "time": 4026531834, "user": 4026531837,
    "uts": 4026531838,
}  # fmt: skip

_SINCE_6_18 = {"mount": 4026531832, "network": 4026531833}

DYNAMIC = 0xF0000000  # numbers from here on are of namespaces that were made later

_NS_GET_USERNS, _NS_GET_PARENT = 0xB701, 0xB702
_NSFS = 0x6E736673  # the file system type, as statfs(2) tells it


def first_ones() -> dict[str, int]:
    """The numbers of the kernel's first namespaces, of the kinds of which they are known for this kernel."""
    words = [word for word in os.uname().release.replace("-", ".").split(".")[:2] if word.isdecimal()]
    return FIRST | (_SINCE_6_18 if list(map(int, words)) >= [6, 18] else {})


class Namespace:
    """One namespace.

    kind: its OCI name. inode: its number, which tells it from all others of the machine. pids: the processes in it, the
    lowest number first. places: where its file is mounted, each with the process in whose mounts
    that is, 0 for this process's own. owner: the inode of the user namespace that owns it, and
    parent: of the one above it, for the kinds that nest; None where that can't be known.
    """

    __slots__ = ("inode", "kind", "owner", "parent", "pids", "places")

    def __init__(self, kind: str, inode: int) -> None:
        self.kind = kind
        self.inode = inode
        self.pids: list[int] = []
        self.places: list[tuple[str, int]] = []
        self.owner: int | None = None
        self.parent: int | None = None


class Survey:
    """What one look around found: `namespaces` by kind and inode; `unseen`, how many processes weren't."""

    __slots__ = ("namespaces", "unseen")

    def __init__(self) -> None:
        self.namespaces: dict[Key, Namespace] = {}
        self.unseen = 0

    def at(self, kind: str, inode: int) -> Namespace:
        """The namespace, noted if it is new."""
        key = kind, inode
        if key not in self.namespaces:
            self.namespaces[key] = Namespace(kind, inode)
        return self.namespaces[key]


def look_around(deep: bool = False) -> Survey:
    """Look at the namespaces of all processes that this user can see.

    deep: also at mounts that keep namespaces, at owners and at parents.
    """
    survey = Survey()
    for pid in processes.numbers():
        seen = hidden = False
        for kind, link in processes.LINKS.items():
            try:
                inode = processes.inode_of(os.readlink(f"/proc/{pid}/ns/{link}"))
            except OSError as error:  # ended meanwhile or a zombie, unless it says otherwise
                hidden = hidden or error.errno in (errno.EACCES, errno.EPERM)
                continue
            if inode is not None:
                seen = True
                survey.at(kind, inode).pids.append(pid)
                if deep and kind in ("pid", "time"):
                    _note_for_children(survey, pid, kind)
        survey.unseen += hidden and not seen
    if deep:
        for pid, (place, kind, inode) in _mounted(survey):
            places = survey.at(kind, inode).places
            if place not in [known for known, _ in places]:  # most mount namespaces are copies
                places.append((place, pid))
        _climb(survey)
    return survey


def _note_for_children(survey: Survey, pid: int, kind: str) -> None:
    """A process can have made a namespace for children that it hasn't born yet."""
    try:
        inode = processes.inode_of(os.readlink(f"/proc/{pid}/ns/{kind}_for_children"))
    except OSError:
        return
    if inode is not None:
        survey.at(kind, inode)


def _mounted(survey: Survey) -> list[tuple[int, tuple[str, str, int]]]:
    """What `kept` finds in the mounts of this process (0), and of one process of every other mount namespace."""
    found = []
    lowest = [one.pids[0] for one in survey.namespaces.values() if one.kind == "mount" and one.pids]
    for pid in (0, 1, *lowest):
        try:
            with processes.Process(pid or os.getpid()) as process:
                table = process.text("mountinfo") or ""
        except ProcessNotFoundError:
            continue
        if "nsfs" in table:
            found += [(pid, entry) for entry in kept(mountinfo.parse(table))]
    return found


def kept(mounts: list[mountinfo.MountLine]) -> list[tuple[str, str, int]]:
    """(place, kind, inode) of each namespace that is kept by a mount of a table."""
    found = []
    for mount in mounts:
        link = mount.top.partition(":")[0]
        inode = processes.inode_of(mount.top)
        if mount.fstype == "nsfs" and link in processes.KINDS and inode is not None:
            found.append((mount.point, processes.KINDS[link], inode))
    return found


def _climb(survey: Survey) -> None:
    """Ask every namespace for its owner and its parent, and note those that no process is in."""
    for namespace in list(survey.namespaces.values()):
        paths = [f"/proc/{pid}/ns/{processes.LINKS[namespace.kind]}" for pid in namespace.pids[:1]]
        paths += [place for place, pid in namespace.places if not pid]  # other paths lead elsewhere from here
        for path in paths:
            handle = _opened(path, namespace.inode)
            if handle is not None:
                _relate(survey, namespace, handle)
                os.close(handle)
                break


def _opened(path: str, inode: int) -> int | None:
    """A descriptor of the namespace of that number at a path; None when it isn't there any more.

    It is looked at before it is opened: of what came in its place, a device say, opening might do harm.
    """
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if filesystem_of(place) == _NSFS and os.fstat(place).st_ino == inode:
            return reopen(place, os.O_RDONLY)
    except KernelError:
        pass
    finally:
        os.close(place)
    return None


def _relate(survey: Survey, namespace: Namespace, handle: int) -> None:
    """Fill in owner and parent of a namespace by its descriptor, and theirs, up to the first ones."""
    from fcntl import ioctl

    asked = [(_NS_GET_USERNS, "user")] + (
        [(_NS_GET_PARENT, namespace.kind)] if namespace.kind in ("pid", "user") else []
    )
    for request, kind in asked:
        try:
            above = ioctl(handle, request)
        except OSError:  # EPERM: above what this process can see; for a first one there is none
            continue
        try:
            inode = os.fstat(above).st_ino
            new = (kind, inode) not in survey.namespaces
            other = survey.at(kind, inode)
            if request == _NS_GET_USERNS:
                namespace.owner = inode
            else:
                namespace.parent = inode
            if new or (other.owner is None and other.parent is None and not other.pids):
                _relate(survey, other, above)
        finally:
            os.close(above)
