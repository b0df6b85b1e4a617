"""Two backends for special machines: version 1 beside version 2, and none at all.

    grep cgroup /proc/self/mountinfo

A controller is in one tree at a time. systemd's "hybrid" layout has nearly all of them in trees of version 1, and what
those lack in a tree of version 2 beside them.

man 7 cgroups
"""

from __future__ import annotations

from ...errors import UnsupportedError
from .resources import Events, below
from .v1 import KINDS, V1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...plan.step import Step
    from .resources import Resources
    from .v2 import V2


class Hybrid(V1):
    """The backend for both versions at once: version 1, and version 2 for what only that has.

    A container gets a group in version 2 only when its limits ask for one: each group costs time at its start.
    root, controllers, programs: version 2's, as in `V2`.
    """

    __slots__ = ("controllers", "programs", "root")

    def __init__(
        self,
        mounts: dict[str, str],
        root: str,
        controllers: tuple[str, ...],
        programs: bool,
        parent: str,
        every: bool = False,
    ) -> None:
        super().__init__(mounts, parent, every)
        self.root = root
        self.controllers = controllers
        self.programs = programs

    def groups(self, name: str) -> tuple[str, ...]:
        """The paths of all groups that the container `name` may have, those of version 1 first."""
        return (*super().groups(name), below(self.root, self.parent, name)[-1])

    def steps(self, name: str, resources: Resources, into: bool = False) -> list[Step]:
        """The steps that make the groups `name`, limit them as OCI `linux.resources` say, and join them.

        into: whether the process will be made by `clone3(CLONE_INTO_CGROUP)`. Raises ConfigError.
        """
        rest, left = self._divided(resources)
        second = self._second().steps(name, rest, into) if rest or self.every else []
        return second + super().steps(name, left, into)

    def warnings(self, resources: Resources) -> list[str]:
        """What of `resources` has no effect here, a line each."""
        rest, left = self._divided(resources)
        return super().warnings(left) + (self._second().warnings(rest) if rest else [])

    def events(self, name: str) -> Events:
        """What happened in the groups `name`; zeros and None when they are gone."""
        return super().events(name) if "memory" in self.mounts else self._second().events(name)

    def _second(self) -> V2:
        from .v2 import V2

        return V2(self.root, self.controllers, self.programs, self.parent)

    def _divided(self, resources: Resources) -> tuple[Resources, Resources]:
        """What of `resources` falls to version 2, and what is left to version 1."""
        rest: Resources = {}
        for kind, controller in KINDS:
            second = "io" if controller == "blkio" else controller
            there = self.programs if controller == "devices" else second in self.controllers
            if resources.get(kind) and controller not in self.mounts and there:
                rest[kind] = resources[kind]
        left = {kind: part for kind, part in resources.items() if kind not in rest}
        if resources.get("unified"):
            from .keys import family

            named = resources["unified"]
            left["unified"] = {key: value for key, value in named.items() if family(key) in self.mounts}
            if second_named := {key: value for key, value in named.items() if family(key) not in self.mounts}:
                rest["unified"] = second_named
        return rest, left


class Nothing:
    """The backend where no group may be made: containers run without limits, and the user is told."""

    __slots__ = ()

    def groups(self, name: str) -> tuple[str, ...]:
        """There are none."""
        return ()

    def steps(self, name: str, resources: Resources, into: bool = False) -> list[Step]:
        """There are none; raises UnsupportedError for a mark on packets, which others rely on."""
        if resources.get("network"):
            raise UnsupportedError("the container's packets can't be marked: no cgroup may be made here")
        return []

    def warnings(self, resources: Resources) -> list[str]:
        """What of `resources` has no effect here, in one line."""
        kinds = ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "rdma", "unified")
        asked = [kind for kind in kinds if resources.get(kind)]
        if not asked:
            return []
        return [
            f"no cgroup may be made here, so these limits are ignored: {', '.join(asked)} (a plain user needs "
            "cgroup v2 and delegation: systemd-run --user --scope -p Delegate=yes tarbox …)"
        ]

    def events(self, name: str) -> Events:
        """Nothing is known."""
        return Events(0, None)

    def freeze(self, name: str) -> None:
        """Raises UnsupportedError."""
        raise UnsupportedError("the container has no cgroup, so it can't be paused")

    def thaw(self, name: str) -> None:
        """Raises UnsupportedError."""
        raise UnsupportedError("the container has no cgroup, so it can't be paused")
