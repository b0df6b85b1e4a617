"""A user namespace for root's containers: any ids, mapped from outside while the first process in it waits.

    unshare --user --map-users=0:100000:65536 --setuid 0 COMMAND        cat /proc/PID/uid_map

Loaded only where one is made: a plain user's needs none of it (`user_namespace.py`).

man 7 user_namespaces
"""

from __future__ import annotations

from errno import EACCES, EPERM

from ..errors import KernelError, UnsupportedError
from ..plan.step import PARENT, Row, Slots, Step
from ..spec.mappings import outside_of, shown
from ..spec.runtime import RLIMITS
from .namespaces import flags
from .rlimits import present
from .syscall import syscall
from .user_namespace import text_of, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.mappings import Rows

_JOINED = "user namespace"
_PR_SET_PDEATHSIG = 1
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


class WriteMaps(Step):
    """Say which ids the new process's user namespace has; until then it waits (`BecomeRoot`).

    users, groups: rows of (first id inside, first id outside, how many).
    """

    __slots__ = ("groups", "users")

    phase = "namespaces"
    why = "id 0 inside is an id outside that owns nothing there: root of the container is nobody on the host"
    man = "user_namespaces(7)"

    def __init__(self, users: Rows, groups: Rows) -> None:
        super().__init__(PARENT)
        self.users = users
        self.groups = groups

    def uses(self) -> tuple[str, ...]:
        return ("pid",)

    def apply(self, slots: Slots) -> None:
        write_maps(int(str(slots.found["pid"])), self.users, self.groups)

    def call(self) -> str:
        users, groups = (text_of(rows).decode().replace("\n", "; ") for rows in (self.users, self.groups))
        return f'write("/proc/$PID/uid_map", "{users}"), write("/proc/$PID/gid_map", "{groups}")'

    def shell(self) -> str:
        return f"printf '{text_of(self.users).decode()}\\n' > /proc/$PID/uid_map; … > /proc/$PID/gid_map"


def write_maps(pid: int, users: Rows, groups: Rows) -> None:
    """Give the user namespace of a process its maps, which it has none of yet; takes root in the one around it."""
    hint = "root of the namespace around it may, with CAP_SETUID and CAP_SETGID"
    write(f"/proc/{pid}/uid_map", text_of(users), hint)
    write(f"/proc/{pid}/gid_map", text_of(groups), hint)


class RaiseLimits(Step):
    """Raise the new process's hard limits, and its place for when memory runs out, from outside.

    limits: rows of (name, hard limit). score: as for --oom-score-adj, or None.
    """

    __slots__ = ("limits", "score")

    phase = "namespaces"
    why = "this takes a capability on the host, which the process doesn't have in its user namespace"
    man = "prlimit(2), proc_pid_oom_score_adj(5)"

    def __init__(self, limits: tuple[tuple[str, int], ...], score: int | None) -> None:
        super().__init__(PARENT)
        self.limits = limits
        self.score = score

    def uses(self) -> tuple[str, ...]:
        return ("pid",)

    def apply(self, slots: Slots) -> None:
        pid = int(str(slots.found["pid"]))
        for name, hard in self.limits:
            soft, ceiling = present(name)
            if hard > ceiling:
                packed = soft.to_bytes(8, "little") + hard.to_bytes(8, "little")
                try:
                    syscall("prlimit64", pid, RLIMITS[name], packed, None)
                except KernelError as error:
                    if error.errno != EPERM:  # of which the limit's own step warns
                        raise
        if self.score is not None:
            try:
                write(f"/proc/{pid}/oom_score_adj", str(self.score).encode())
            except KernelError as error:
                if error.errno not in (EACCES, EPERM):
                    raise
                slots.warn(
                    f"the OOM score can't be lowered to {self.score} here, so it stays (lowering it needs "
                    "CAP_SYS_RESOURCE)"
                )

    def call(self) -> str:
        calls = [f"prlimit64(PID, RLIMIT_{name.upper()}, {{…, {hard}}})" for name, hard in self.limits]
        score = [f'write("/proc/$PID/oom_score_adj", "{self.score}")'] if self.score is not None else []
        return ", ".join([*calls, *score])


class BecomeRoot(Step):
    """Wait for the maps (`WriteMaps`), and become the id 0 that they give."""

    __slots__ = ()

    waits = True
    phase = "namespaces"
    why = "the process was born in its user namespace as nobody; now that ids are mapped it becomes root there"
    man = "setresuid(2), user_namespaces(7)"

    def rows(self, slots: Slots) -> list[Row]:
        return [
            Row("setgroups", (0, b"")),
            Row("setresgid", (0, 0, 0)),
            Row("setresuid", (0, 0, 0)),
            Row("prctl", (_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)),
            Row("prctl", (_PR_SET_PDEATHSIG, 9, 0, 0, 0)),  # forgotten when ids change
        ]

    def call(self) -> str:
        return "recvfrom(parent), setgroups(0, NULL), setresgid(0, 0, 0), setresuid(0, 0, 0)"

    def shell(self) -> str:
        return "read mapped; exec setpriv --reuid 0 --regid 0 --clear-groups sh"


class JoinAsRoot(BecomeRoot):
    """Join a user namespace (the slot "user namespace"), and become the id 0 that it has."""

    __slots__ = ()

    why = "from here on the process has rights over what belongs to that namespace, and over nothing of the host's"
    man = "setns(2), user_namespaces(7)"

    def takes(self) -> tuple[str, ...]:
        return (_JOINED,)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("setns", (slots.take(_JOINED), flags(("user",)))), *super().rows(slots)]

    def call(self) -> str:
        return f"recvfrom(parent), setns(user, CLONE_NEWUSER), {super().call().partition(', ')[2]}"

    def shell(self) -> str:
        return "nsenter --user=FILE --setuid 0 --setgid 0 sh"


class CheckUser(Step):
    """Make sure that the user and the groups that were found have ids in the container's user namespace."""

    __slots__ = ("groups", "users")

    phase = "filesystem"
    why = "an id that isn't mapped can't be anybody's inside"
    man = "user_namespaces(7)"

    def __init__(self, users: Rows, groups: Rows) -> None:
        super().__init__(PARENT)
        self.users = users
        self.groups = groups

    def uses(self) -> tuple[str, ...]:
        return ("uid", "gid", "groups")

    def apply(self, slots: Slots) -> None:
        groups = slots.found["groups"]
        assert isinstance(groups, tuple)
        wanted = [("user", slots.found["uid"], self.users)]
        wanted += [("group", group, self.groups) for group in (slots.found["gid"], *groups)]
        for what, id, rows in wanted:
            if outside_of(rows, int(str(id))) is None:
                raise UnsupportedError(
                    f"the container's user namespace has no {what} {id}: it has {shown(rows)}",
                    "choose another with -u, or a larger range: --userns auto:size=N, or --uidmap and --gidmap",
                )

    def call(self) -> str:
        return "look the ids up in the container's map"
