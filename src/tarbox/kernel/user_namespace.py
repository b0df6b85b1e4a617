"""User namespaces: root inside, an ordinary user outside.

    unshare --user --map-root-user COMMAND        cat /proc/self/uid_map

The map says which ids inside are which ids outside. A process in a new user namespace has all capabilities there, over
what that namespace owns and over nothing else; that is what lets a plain user make the other namespaces. Without help
from a privileged program the kernel maps one id only, the caller's own; root may map any ranges.

man 7 user_namespaces
"""

from __future__ import annotations

from errno import EACCES, EPERM

from ..errors import KernelError, UnsupportedError
from ..plan.step import PARENT, Row, Slots, Step
from ..spec.mappings import outside_of, shown
from ..spec.runtime import RLIMITS
from ..unistd import os
from .namespaces import flags
from .rlimits import present
from .syscall import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.mappings import Rows

_JOINED = "user namespace"
_PR_SET_PDEATHSIG = 1
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_HINT = "does this machine let plain users make user namespaces? see /proc/sys/user/max_user_namespaces"


class EnterUserNamespace(Step):
    """Move this process into user and mount namespaces of its own, as root of them.

    users, groups: rows of (first id inside, first id outside, how many). It is for good: the process stays there.
    """

    __slots__ = ("groups", "users")

    phase = "namespaces"
    why = "id 0 inside is the caller's own id outside: it may mount there, and is nobody special on the host"
    man = "user_namespaces(7)"

    def __init__(self, users: tuple[tuple[int, int, int], ...], groups: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__(PARENT)
        self.users = users
        self.groups = groups

    def apply(self, slots: Slots) -> None:
        syscall("unshare", flags(("user", "mount")), hint=_HINT)
        _write("/proc/self/setgroups", b"deny")  # the kernel's condition for a gid map without privilege
        _write("/proc/self/uid_map", _rows(self.users))
        _write("/proc/self/gid_map", _rows(self.groups))

    def call(self) -> str:
        maps = f'write("/proc/self/uid_map", "{_rows(self.users).decode()}"), write("/proc/self/gid_map", …)'
        return f"unshare(CLONE_NEWUSER|CLONE_NEWNS), {maps}"

    def shell(self) -> str:
        return "unshare --user --map-root-user --mount sh"


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
        users, groups = (_rows(rows).decode().replace("\n", "; ") for rows in (self.users, self.groups))
        return f'write("/proc/$PID/uid_map", "{users}"), write("/proc/$PID/gid_map", "{groups}")'

    def shell(self) -> str:
        return f"printf '{_rows(self.users).decode()}\\n' > /proc/$PID/uid_map; … > /proc/$PID/gid_map"


def write_maps(pid: int, users: Rows, groups: Rows) -> None:
    """Give the user namespace of a process its maps, which it has none of yet; takes root in the one around it."""
    hint = "root of the namespace around it may, with CAP_SETUID and CAP_SETGID"
    _write(f"/proc/{pid}/uid_map", _rows(users), hint)
    _write(f"/proc/{pid}/gid_map", _rows(groups), hint)


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
                _write(f"/proc/{pid}/oom_score_adj", str(self.score).encode())
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


def _rows(rows: tuple[tuple[int, int, int], ...]) -> bytes:
    return "\n".join(" ".join(map(str, row)) for row in rows).encode()


def _write(path: str, text: bytes, hint: str = _HINT) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelError("write", (path, text), error.errno or 0, hint) from None
