"""A container of root's in a user namespace of its own: what its plan has more, and what it has otherwise.

    MakeMap, MakeFilesAs      before anything is made for it: the map, and whose the made things are
    …                         files of the image and mapped volumes are shown with the map, none is copied
    WriteMaps, BecomeRoot     around the spawn: the first process is born as nobody, and waits to become root inside

man 7 user_namespaces, man 2 mount_setattr
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..kernel.devices import MakeDevices
from ..kernel.idmap import IDS, MakeFilesAs, MakeFilesAsBefore, MakeMap, MakeOwned, OpenMappedOverlay, OpenMappedTree
from ..kernel.mount_points import MakeFilesystem
from ..kernel.overlay import MakeScratch, OpenOverlay
from ..kernel.root_maps import BecomeRoot, CheckUser, JoinAsRoot, RaiseLimits, WriteMaps
from ..spec.mappings import check, outside_of, rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..kernel.mounts import OpenTree
    from ..plan.step import Step
    from ..spec.mappings import Rows
    from ..spec.runtime import Config, Linux, Mount
    from .mount_options import MountOptions


class Ids:
    """The maps of a container's user namespace. Raises ConfigError for what the kernel would refuse.

    joined: whether the namespace is there already. others: maps that only single mounts have, by their slots; they are
    found as mounts are planned.
    """

    __slots__ = ("groups", "joined", "others", "users")

    def __init__(self, linux: Linux, joined: bool = False) -> None:
        self.joined = joined
        self.users = rows(linux.get("uidMappings") or [])  # type: ignore[arg-type]
        self.groups = rows(linux.get("gidMappings") or [])  # type: ignore[arg-type]
        check(self.users, "$.linux.uidMappings")
        check(self.groups, "$.linux.gidMappings")
        self.others: dict[str, tuple[Rows, Rows]] = {}

    def before(self) -> list[Step]:
        """What comes before anything is made for the container."""
        maps: list[Step] = [MakeMap(slot, *both) for slot, both in self.others.items()]
        own = MakeMap(IDS, self.users, self.groups)
        return [*maps, own, MakeFilesAs(*self._root())]

    def last(self) -> list[Step]:
        """What comes when all is made."""
        return [MakeFilesAsBefore()]

    def after(self, config: Config) -> list[Step]:
        """What this process does when the container's first one waits."""
        process = config["process"]
        limits = tuple((it["type"].removeprefix("RLIMIT_").lower(), it["hard"]) for it in process.get("rlimits") or ())
        score = process.get("oomScoreAdj")
        raise_limits = RaiseLimits(limits, score)
        if self.joined:
            return [raise_limits]
        return [WriteMaps(self.users, self.groups), *([raise_limits] if limits or score is not None else [])]

    def inside(self) -> list[Step]:
        """How the first process becomes root of the namespace."""
        return [JoinAsRoot() if self.joined else BecomeRoot()]

    def checked(self) -> list[Step]:
        """After the user was looked up."""
        return [CheckUser(self.users, self.groups)]

    def _root(self) -> tuple[int, int]:
        return outside_of(self.users, 0) or 0, outside_of(self.groups, 0) or 0

    def translate(self, steps: list[Step], image: Sequence[Step]) -> list[Step]:
        """The steps that make a container's files, with the ids that these are to have on the host.

        image: those of them that give a root of their own.
        """
        made: list[Step] = []
        for step in steps:
            if type(step) is OpenOverlay:
                made.append(OpenMappedOverlay(step) if step in image else step)
            elif type(step) is MakeFilesystem:
                step.options = tuple(filter(None, [self._option(option, step.kind) for option in step.options]))
                made.append(MakeOwned(step, *self._root()) if step.kind == "devpts" else step)
            elif type(step) is MakeDevices:
                made.append(MakeDevices(tuple((*node[:5], *self._both(node[5], node[6])) for node in step.nodes)))
            elif _is_root(step) and step not in image:
                made.append(OpenMappedTree(step))  # type: ignore[arg-type]
            else:
                made.append(step)
        return made

    def _option(self, option: str, kind: str) -> str:
        """An option of a file system, as somebody outside has to give it; "" where it can't be."""
        name, _, value = option.partition("=")
        if name not in ("uid", "gid") or not value.isdecimal():
            return option
        outside = outside_of(self.users if name == "uid" else self.groups, int(value))
        if kind == "devpts" and (outside is None or outside >> 31):
            return ""  # without a group "tty", as for a plain user; older kernels read no larger numbers here
        if outside is not None:
            return f"{name}={outside}"
        raise UnsupportedError(f"{option}: the container's user namespace has no such id", "choose a larger range")

    def _both(self, user: int, group: int) -> tuple[int, int]:
        """The owners of a node: those that aren't in the map are root."""
        outside, root = (outside_of(self.users, user), outside_of(self.groups, group)), self._root()
        return root[0] if outside[0] is None else outside[0], root[1] if outside[1] is None else outside[1]

    def laid(self, target: str, options: MountOptions) -> OpenOverlay:
        """An overlay over a directory of the host's, whose files are shown as the container's."""
        known = dict(option.partition("=")[::2] for option in options.own)
        lower, upper, work = (known.pop(name) for name in ("lowerdir", "upperdir", "workdir"))
        rest = tuple(f"{name}={value}" if value else name for name, value in known.items())
        return OpenMappedOverlay(OpenOverlay(target, (_unescaped(lower),), upper, work, rest))

    def bound(self, tree: OpenTree, mount: Mount, options: MountOptions) -> OpenTree:
        """A mount of the host's that is mapped: as the container is, or in its own way."""
        where = f"$.mounts of {mount['destination']}"
        users, groups = rows(mount.get("uidMappings") or []), rows(mount.get("gidMappings") or [])  # type: ignore[arg-type]
        if not users and not groups:
            users, groups = self.users, self.groups
        check(users, f"{where}.uidMappings", root=False)
        check(groups, f"{where}.gidMappings", root=False)
        slot = IDS
        if (users, groups) != (self.users, self.groups):
            slot = next((name for name, both in self.others.items() if both == (users, groups)), "")
            if not slot:
                slot = f"ids {len(self.others) + 1}"
                self.others[slot] = users, groups
        return OpenMappedTree(tree, slot, options.mapped == "ridmap")


def _unescaped(path: str) -> str:
    """A directory as it stood in a list that has colons between its entries."""
    return path.replace("\\:", ":").replace("\\\\", "\\")


def _is_root(step: Step) -> bool:
    return step.gives() == ("tree",) and type(step).__name__ == "OpenTree"


def scratch(steps: list[Step]) -> tuple[list[Step], list[Step]]:
    """The steps on the host before files are made as others', and those after it: what the container writes to."""
    last = [step for step in steps if isinstance(step, MakeScratch) or step.phase == "filesystem"]
    return [step for step in steps if step not in last], last


def refuse(joined: Mapping[str, str], namespaces: tuple[str, ...]) -> None:
    """Raise for namespaces that can't be had together with a user namespace."""
    if "pid" in joined and "user" in namespaces:
        raise UnsupportedError(
            "a joined PID namespace and a new user namespace can't go together: only root of the former's user "
            "namespace may mount its /proc",
            "leave --userns out, or --pid",
        )
    if "user" in joined and "pid" in namespaces:
        raise UnsupportedError(
            "a joined user namespace and a new PID namespace can't go together: the latter would be the host's, and "
            "its /proc couldn't be mounted in the former",
            "join both: --pid pid:N, or --pid host",
        )
