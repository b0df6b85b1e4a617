"""Credentials: the user, the group and the supplementary groups that a process acts as.

    setpriv --reuid UID --regid GID --groups GID,… COMMAND       id

The groups go first, the user last: whoever isn't root any more can't change the others. A change from user 0 to another
one empties the permitted capabilities, unless PR_SET_KEEPCAPS was set.

man 7 credentials, man 2 setresuid, man 2 setgroups, man 2 PR_SET_KEEPCAPS
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..plan.step import PARENT, RUNNER, Row, Step
from ..spec import users
from .mount_points import tree_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Slots
    from .paths import Tree

_PR_SET_KEEPCAPS = 8
LARGEST_FILE = 4 << 20  # bytes of /etc/passwd and /etc/group: some 80,000 users


class LookUpUser(Step):
    """Find a user's ids, groups and home in the container's own /etc/passwd and /etc/group.

    spec: as for `--user`. extra_groups: as for `--group-add`. root_only: whether 0 is the only id that the container's
    user namespace has. Finds "uid", "gid", "groups" and "home".
    """

    __slots__ = ("extra_groups", "root_only", "spec")

    phase = "filesystem"
    why = "Names of users are the image's own; the kernel knows numbers only."
    man = "passwd(5)"

    def __init__(self, spec: str, extra_groups: tuple[str, ...] = (), root_only: bool = False) -> None:
        super().__init__(PARENT)
        self.spec = spec
        self.extra_groups = extra_groups
        self.root_only = root_only

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def finds(self) -> tuple[str, ...]:
        return ("uid", "gid", "groups", "home")

    def apply(self, slots: Slots) -> None:
        tree = tree_of(slots)
        user = users.find(self.spec, _read(tree, "/etc/passwd"), _read(tree, "/etc/group"), self.extra_groups)
        if self.root_only and (user.uid or user.gid):
            raise UnsupportedError(
                f"--user {self.spec}: a container of a plain user has one id, 0, which is that user outside",
                "leave --user out, or run tarbox as root",
            )
        slots.found["uid"] = user.uid
        slots.found["gid"] = user.gid
        slots.found["groups"] = user.groups
        slots.found["home"] = user.home

    def call(self) -> str:
        return f"look up {self.spec or '0'} in etc/passwd and etc/group"

    def shell(self) -> str:
        from ..plan.shell import quote

        who = self.spec.partition(":")[0] or "0"
        field = ":[^:]*:" if who.isdecimal() else ":"
        pattern = quote(f"^[^:]*{field}{who}:" if who.isdecimal() else f"^{who}{field}")
        return f'grep {pattern} "$ROOT"/etc/passwd; grep {quote(who)} "$ROOT"/etc/group'


def _read(tree: Tree, path: str) -> str:
    # What isn't UTF-8 stays apart from what is, and comes out again as the bytes that it was.
    return (tree.read(path, LARGEST_FILE) or b"").decode("utf-8", "surrogateescape")


class Credentials(Step):
    """Become the container's user.

    user, group, groups: numbers in the container's user namespace; each that is None is the one found by
    `LookUpUser`. keep: whether the permitted capabilities outlive the change from user 0 to another, for a
    `Capabilities` step after this one. setgroups: False in a user namespace that denies the call.
    """

    __slots__ = ("group", "groups", "keep", "setgroups", "user")

    phase = "privileges"
    why = "The program acts as this user from here on, and can't go back."
    man = "setresuid(2)"

    def __init__(
        self,
        user: int | None,
        group: int | None,
        groups: tuple[int, ...] | None = None,
        keep: bool = False,
        setgroups: bool = True,
        by: str = RUNNER,
    ) -> None:
        super().__init__(by)
        self.user = user
        self.group = group
        self.groups = groups
        self.keep = keep
        self.setgroups = setgroups

    def uses(self) -> tuple[str, ...]:
        wanted = (("uid", self.user is None), ("gid", self.group is None))
        found = tuple(name for name, missing in wanted if missing)
        return (*found, "groups") if self.setgroups and self.groups is None else found

    def rows(self, slots: Slots) -> list[Row]:
        uid = slots.found["uid"] if self.user is None else self.user
        gid = slots.found["gid"] if self.group is None else self.group
        assert isinstance(uid, int)
        assert isinstance(gid, int)
        rows = []
        if self.setgroups:
            groups = slots.found["groups"] if self.groups is None else self.groups
            assert isinstance(groups, tuple)
            packed = b"".join(number.to_bytes(4, "little") for number in groups)
            listed = ", ".join(map(str, groups))
            rows.append(Row("setgroups", (len(groups), packed), f"setgroups({len(groups)}, [{listed}])"))
        rows.append(Row("setresgid", (gid, gid, gid)))
        if self.keep:
            rows.append(Row("prctl", (_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl(PR_SET_KEEPCAPS, 1)"))
        rows.append(Row("setresuid", (uid, uid, uid)))
        if self.keep:
            rows.append(Row("prctl", (_PR_SET_KEEPCAPS, 0, 0, 0, 0), "prctl(PR_SET_KEEPCAPS, 0)"))
        return rows

    def call(self) -> str:
        user = "UID" if self.user is None else str(self.user)
        group = "GID" if self.group is None else str(self.group)
        groups = "GROUPS" if self.groups is None else str(list(self.groups))
        count = "…" if self.groups is None else len(self.groups)
        first = f"setgroups({count}, {groups}); " if self.setgroups else ""
        return f"{first}setresgid({group}, {group}, {group}); setresuid({user}, {user}, {user})"

    def shell(self) -> str:
        user = "UID" if self.user is None else str(self.user)
        group = "GID" if self.group is None else str(self.group)
        if not self.setgroups:
            return f"setpriv --reuid {user} --regid {group} --keep-groups COMMAND"
        groups = "GIDS" if self.groups is None else ",".join(map(str, self.groups))
        return f"setpriv --reuid {user} --regid {group} " + (
            f"--groups {groups} COMMAND" if groups else "--clear-groups COMMAND"
        )
