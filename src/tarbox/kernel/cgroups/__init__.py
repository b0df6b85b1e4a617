"""Control groups count and limit what a set of processes uses: memory, CPU time, processes, devices.

    grep cgroup /proc/self/mountinfo; cat /proc/self/cgroup

There are two versions, and machines that have both. `detect` reads once what this machine has, `pick` chooses the
backend for it, and a backend knows the steps that make, limit and join a container's groups there.

man 7 cgroups
"""

from __future__ import annotations

from ...unistd import os
from .groups import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ...plan.step import Step
    from .resources import Events, Resources

    class Backend(Protocol):
        """What a container needs of control groups, whatever the machine has. `name` is the flat name of its groups."""

        def steps(self, name: str, resources: Resources, into: bool = False) -> list[Step]:
            """The steps that make the groups, limit them as OCI `linux.resources` say, and join them."""

        def groups(self, name: str) -> tuple[str, ...]:
            """The paths of its groups."""

        def warnings(self, resources: Resources) -> list[str]:
            """What of `resources` has no effect here, a line each."""

        def events(self, name: str) -> Events:
            """What happened in the groups."""

        def freeze(self, name: str) -> None:
            """Stop all of its processes where they are."""

        def thaw(self, name: str) -> None:
            """Let them go on."""


class Cgroups:
    """What this machine has, as plain values.

    layout: "v1", "hybrid", "v2" or "none". v1: controller → folder of its tree, where we may make groups. v2: the group
    of version 2 below which we may make groups, or "". controllers: those that it has. programs: whether we may attach
    device programs to groups.
    """

    __slots__ = ("controllers", "layout", "programs", "v1", "v2")

    def __init__(
        self, layout: str, v1: dict[str, str], v2: str = "", controllers: tuple[str, ...] = (), programs: bool = True
    ) -> None:
        self.layout = layout
        self.v1 = v1
        self.v2 = v2
        self.controllers = controllers
        self.programs = programs


def detect() -> Cgroups:
    """Find out which control groups this machine has, and where we may make some."""
    v1, v2 = mounts(read("/proc/self/mountinfo") or "")
    layout = ("hybrid" if v2 else "v1") if v1 else ("v2" if v2 else "none")
    checked = {mount: os.access(mount, os.W_OK) for mount in set(v1.values())}
    usable = {name: mount for name, mount in v1.items() if checked[mount]}
    if not v2:
        return Cgroups(layout, usable)
    if os.geteuid() != 0 or not os.access(v2, os.W_OK):
        v2 = delegated(v2, read("/proc/self/cgroup") or "")
    controllers = tuple((read(v2 + "/cgroup.controllers") or "").split()) if v2 else ()
    # Root in a user namespace of its own isn't root for BPF.
    programs = os.geteuid() == 0 and (read("/proc/self/uid_map") or "").split() == ["0", "0", "4294967295"]
    return Cgroups(layout, usable, v2, controllers, programs)


def mounts(mountinfo: str) -> tuple[dict[str, str], str]:
    """The folders of version 1's trees by controller, and version 2's folder or "", from /proc/self/mountinfo."""
    found: dict[str, tuple[bool, str]] = {}  # by controller; "" is version 2
    for line in mountinfo.splitlines():
        if " - cgroup" not in line:
            continue
        place, _, rest = line.partition(" - ")
        fields, (kind, _, options) = place.split(" "), rest.split(" ", 2)
        path = fields[4]
        if "\\" in path:
            path = path.encode("latin-1", "replace").decode("unicode_escape")  # \040 is a space
        whole = fields[3] == "/"  # and not the view of a part of the tree, which somebody mounted elsewhere
        for name in [""] if kind == "cgroup2" else options.split(","):
            if name not in ("rw", "ro") and "=" not in name and (name not in found or (whole and not found[name][0])):
                found[name] = whole, path
    return {name: path for name, (_, path) in found.items() if name}, found.get("", (False, ""))[1]


def delegated(mount: str, membership: str) -> str:
    """The highest group of version 2 around this process that this user may manage, or "".

    mount: version 2's folder. membership: what /proc/self/cgroup says. Only groups around this process count: a
    process can be moved only by somebody who may write to a group that holds both its old and its new place.
    """
    own = next((line[3:] for line in membership.splitlines() if line.startswith("0::/")), "")
    found = ""
    path = mount + own.rstrip("/")
    while own and path.startswith(mount):
        files = (path, path + "/cgroup.procs", path + "/cgroup.subtree_control")
        if not all(os.access(file, os.W_OK) for file in files):
            break
        found = path
        path = path.rpartition("/")[0]
    return found


def pick(facts: Cgroups, parent: str = "", resources: Resources | None = None, every: bool = False) -> Backend:
    """The backend for a machine. parent: the group in which containers' groups are made, "" for the tree's root.

    resources: what will be limited, where that is known: on a machine with both versions, what version 1 can do alone
    is left to it. every: whether groups are made in all of version 1's hierarchies, for limits that come later.
    """
    if facts.v1 and facts.v2 and facts.controllers and not _plain(facts.v1, resources):
        from .hybrid import Hybrid

        return Hybrid(facts.v1, facts.v2, facts.controllers, facts.programs, parent, every)
    if facts.v1:
        from .v1 import V1

        return V1(facts.v1, parent, every)
    if facts.v2 and facts.layout == "v2":
        from .v2 import V2

        return V2(facts.v2, facts.controllers, facts.programs, parent)
    from .hybrid import Nothing

    return Nothing()


def _plain(v1: dict[str, str], resources: Resources | None) -> bool:
    """Whether version 1 has all that is asked for, and that is nothing unusual."""
    if resources is None or not resources.keys() <= {"memory", "cpu", "pids", "devices"}:
        return False
    return all(controller in v1 for controller in ("memory", "cpu", "cpuset", "pids", "devices"))
