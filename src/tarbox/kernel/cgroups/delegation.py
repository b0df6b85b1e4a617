"""A group that a container manages itself: it makes groups below its own, as systemd does for each service.

    mkdir /sys/fs/cgroup/box; echo $$ > /sys/fs/cgroup/box/cgroup.procs
    unshare -C sh -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup; mkdir /sys/fs/cgroup/service'

The container's cgroup file system is then writable, and its top is its own group, in which its limits are. The kernel
keeps it from writing to those where version 2 is mounted with `nsdelegate`. Elsewhere the limits stay in the group and
the container gets another one below.

Where the limits are version 1's, the container manages a group of version 2, which is all that systemd wants; on a
machine without version 2, one in the tree that systemd has for itself.

man 7 cgroups (delegation); https://systemd.io/CGROUP_DELEGATION
"""

from __future__ import annotations

from .groups import JoinGroup, MakeGroup, MakeParent, OpenGroup, read
from .resources import below
from .v2 import COUNTING, EnableControllers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...plan.step import Step
    from . import Backend, Cgroups
    from .resources import Events, Resources

VERSION_2, NAMED = "cgroup2", "systemd"
_INNER = "payload"


def trees(mountinfo: str) -> tuple[str, bool]:
    """From /proc/self/mountinfo: the folder of version 1's tree without controllers that systemd uses, "" for none;
    and whether groups of version 2 are kept from changing the limits at the top of their own namespace."""
    named, safe = "", False
    for line in mountinfo.splitlines():
        place, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        if kind == "cgroup2":
            safe = safe or "nsdelegate" in options.rpartition(" ")[2].split(",")
        elif kind == "cgroup" and "name=systemd" in options.rpartition(" ")[2].split(","):
            named = named or place.split(" ")[4]
    return named, safe


class Delegated:
    """A backend around another one, whose container manages a group in the tree `root`, by its own.

    kind: "cgroup2", or "systemd" for version 1's tree of that name. controllers: those of the tree. safe: whether the
    kernel keeps the container from its own limits. parent: as for the other one.
    """

    __slots__ = ("controllers", "inner", "kind", "parent", "root", "safe")

    def __init__(
        self, inner: Backend, kind: str, root: str, controllers: tuple[str, ...], safe: bool, parent: str
    ) -> None:
        self.inner = inner
        self.kind = kind
        self.root = root
        self.controllers = controllers
        self.safe = safe
        self.parent = parent

    def groups(self, name: str) -> tuple[str, ...]:
        """The paths of the groups that the container `name` may have."""
        return tuple(dict.fromkeys((*self.inner.groups(name), self._path(name))))

    def steps(self, name: str, resources: Resources, into: bool = False) -> list[Step]:
        """The steps that make the groups `name`, limit them, and join them; see the other backend."""
        steps = self.inner.steps(name, resources, into)
        path = self._path(name)
        if not any(isinstance(step, MakeGroup) and step.path == path for step in steps):
            above: list[Step] = [MakeParent(group) for group in below(self.root, self.parent)]
            file = "tasks" if self.kind == NAMED else "cgroup.procs"
            return [*steps, *above, MakeGroup(path), JoinGroup((f"{path}/{file}",))]
        return steps if self.safe else self._below(steps, path)

    def _below(self, steps: list[Step], path: str) -> list[Step]:
        """The process joins a group below the one with the limits."""
        inner = f"{path}/{_INNER}"
        passed_on = tuple(name for name in COUNTING if name in self.controllers)
        made: list[Step] = [*([EnableControllers(path, (), passed_on)] if passed_on else []), MakeGroup(inner)]
        changed: list[Step] = []
        for step in steps:
            if isinstance(step, OpenGroup) and step.path == path:
                changed += [*made, OpenGroup(inner)]
            elif isinstance(step, JoinGroup) and f"{path}/cgroup.procs" in step.files:
                files = tuple(f"{inner}/cgroup.procs" if file.startswith(f"{path}/") else file for file in step.files)
                changed += [*made, JoinGroup(files)]
            else:
                changed.append(step)
        return changed

    def warnings(self, resources: Resources) -> list[str]:
        """What of `resources` has no effect here, a line each."""
        return self.inner.warnings(resources)

    def events(self, name: str) -> Events:
        """What happened in the groups."""
        return self.inner.events(name)

    def freeze(self, name: str) -> None:
        """Stop all of its processes where they are."""
        self.inner.freeze(name)

    def thaw(self, name: str) -> None:
        """Let them go on."""
        self.inner.thaw(name)

    def _path(self, name: str) -> str:
        return below(self.root, self.parent, name)[-1]


def delegate(inner: Backend, facts: Cgroups, parent: str) -> Delegated | None:
    """The backend of a container that manages a group by itself; None where it can't have one.

    inner: the backend that its limits need. facts: what this machine has. parent: as for `pick`.
    """
    named, safe = trees(read("/proc/self/mountinfo") or "")
    if facts.v2:
        return Delegated(inner, VERSION_2, facts.v2, facts.controllers, safe, parent)
    from ...unistd import os

    if named and facts.v1 and os.access(named, os.W_OK):
        return Delegated(inner, NAMED, named, (), True, parent)
    return None
