"""A group in each tree of version 1, for a container that may mount them. Loaded only then.

    mount -t cgroup -o cpu none /mnt; ls /mnt/release_agent        what must not be there inside

A control group namespace begins, in each tree, at the group in which its first process is. In a tree where the
container has no group of its own that is the machine's root group: who may mount the tree finds the groups of everybody
in it, and `release_agent`, a program that the kernel starts outside of all containers. So a container that keeps
CAP_SYS_ADMIN gets a group in every tree, also in those that limit nothing; and so does one without the default filter,
whose programs can make themselves a user namespace in which they may mount.

man 7 cgroup_namespaces; https://docs.kernel.org/admin-guide/cgroup-v1/cgroups.html
"""

from __future__ import annotations

from ...unistd import os
from .groups import JoinGroup, MakeGroup, MakeParent, read
from .resources import below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...plan.step import Step
    from . import Backend
    from .resources import Events, Resources


class Everywhere:
    """A backend with groups beside those of `backend`: in each of `trees` where that makes none.

    trees: folder of a tree → the file of its groups that a process joins by. parent: as for `backend`.
    """

    __slots__ = ("backend", "parent", "trees")

    def __init__(self, backend: Backend, trees: dict[str, str], parent: str = "") -> None:
        self.backend = backend
        self.trees = trees
        self.parent = parent

    def steps(self, name: str, resources: Resources, into: bool = False) -> list[Step]:
        """The backend's steps, and those that make and join the other groups."""
        steps = self.backend.steps(name, resources, into)
        made = [path for step in steps for kind, path in step.record() if kind == "cgroup"]
        joins = []
        for tree, file in self.trees.items():
            if any(path.startswith(tree + "/") for path in made):
                continue
            *upper, path = below(tree, self.parent, name)
            steps += [*(MakeParent(group) for group in upper), MakeGroup(path)]
            joins.append(f"{path}/{file}")
        return [*steps, JoinGroup(tuple(joins))] if joins else steps

    def groups(self, name: str) -> tuple[str, ...]:
        """The paths of all groups that the container may have, the backend's first."""
        others = (below(tree, self.parent, name)[-1] for tree in self.trees)
        return tuple(dict.fromkeys((*self.backend.groups(name), *others)))

    def warnings(self, resources: Resources) -> list[str]:
        """The backend's."""
        return self.backend.warnings(resources)

    def events(self, name: str) -> Events:
        """What happened in the backend's groups."""
        return self.backend.events(name)

    def freeze(self, name: str) -> None:
        """Stop all processes of the container where they are."""
        self.backend.freeze(name)

    def thaw(self, name: str) -> None:
        """Let them go on."""
        self.backend.thaw(name)


def everywhere(backend: Backend, v2: str, parent: str = "") -> Backend:
    """The backend, with a group in every tree that is mounted here. v2: version 2's folder beside them, or ""."""
    trees = dict.fromkeys(whole_trees((read("/proc/self/mountinfo") or "").splitlines()), "tasks")
    trees = {tree: file for tree, file in trees.items() if os.access(tree, os.W_OK)}
    if v2:
        trees[v2] = "cgroup.procs"
    return Everywhere(backend, trees, parent)


def whole_trees(mountinfo: Sequence[str]) -> list[str]:
    """A folder for each tree of version 1, also of those without a controller, from the lines of mountinfo."""
    found: dict[str, str] = {}  # by the device's number, as a tree may be mounted in many places
    for line in mountinfo:
        place, _, rest = line.partition(" - ")
        fields = place.split(" ")
        if rest.startswith("cgroup ") and fields[3] == "/":
            path = fields[4]
            if "\\" in path:
                path = path.encode("latin-1", "replace").decode("unicode_escape")  # \040 is a space
            found.setdefault(fields[2], path)
    return list(found.values())
