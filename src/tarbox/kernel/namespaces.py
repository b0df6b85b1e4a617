"""Namespaces: what a process sees of the system, and so what it can use of it.

    unshare --pid --fork --mount --uts --ipc --net --cgroup COMMAND        lsns        ls -l /proc/self/ns

A process is in one namespace of each kind and its children with it, until one of them makes a new one: with `clone` for
a child, with `unshare` for itself. A new PID namespace holds only processes born after it, so it comes with the child.

man 7 namespaces, man 2 clone, man 2 unshare
"""

from __future__ import annotations

from errno import EAGAIN, ENOSPC, EPERM

from ..errors import KernelError
from ..plan.step import PARENT, RUNNER, Row, Slots, Step
from ..unistd import os
from . import runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

FLAGS = {
    "time": 0x00000080, "mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000,
    "user": 0x10000000, "pid": 0x20000000, "network": 0x40000000,
}  # fmt: skip
_SHELL = {
    "time": "--time", "mount": "--mount", "cgroup": "--cgroup", "uts": "--uts", "ipc": "--ipc", "user": "--user",
    "pid": "--pid --fork", "network": "--net",
}  # fmt: skip
SHOWN = {name: "CLONE_NEW" + {"mount": "NS", "network": "NET"}.get(name, name.upper()) for name in FLAGS}


def flags(names: tuple[str, ...]) -> int:
    """The kernel's flags for namespaces by their OCI names."""
    value = 0
    for name in names:
        value |= FLAGS[name]
    return value


def _shown(names: tuple[str, ...]) -> str:
    return "|".join(SHOWN[name] for name in names) or "0"


class Spawn(Step):
    """Make the container's first process, in new namespaces of the kinds that have to be there from its birth.

    namespaces: their OCI names. cgroup: whether it is born inside the group in the slot "cgroup" (cgroup v2). entered:
    the kinds of which it is born in a namespace that is there already, see `joined_namespaces.py`.
    """

    __slots__ = ("cgroup", "entered", "namespaces")

    phase = "namespaces"
    why = "a container is an ordinary process; in a new PID namespace the first one is number 1, as init is"
    man = "clone(2), pid_namespaces(7)"
    spawns = True

    def __init__(self, namespaces: tuple[str, ...], cgroup: bool = False, entered: tuple[str, ...] = ()) -> None:
        super().__init__(PARENT)
        self.namespaces = namespaces
        self.cgroup = cgroup
        self.entered = entered

    def takes(self) -> tuple[str, ...]:
        entered = tuple(f"{kind} namespace" for kind in self.entered)
        return ("cgroup", *entered) if self.cgroup else entered

    def gives(self) -> tuple[str, ...]:
        return ("pidfd",)

    def finds(self) -> tuple[str, ...]:
        return ("pid",)

    def call(self) -> str:
        into = ", CLONE_INTO_CGROUP" if self.cgroup else ""
        flags = "|".join([*(SHOWN[name] for name in self.namespaces), "CLONE_PIDFD|CLONE_VM|CLONE_VFORK"])
        made = f"clone3({flags}{into}, SIGCHLD), execveat(RUNNER)"
        joined = [f"setns({kind}, {SHOWN[kind]})" for kind in self.entered]
        return ", ".join([*joined, made, *(f"setns(own {kind})" for kind in reversed(self.entered))])

    def shell(self) -> str:
        files = " ".join(f"{_SHELL[kind].split()[0]}=FILE" for kind in self.entered)
        joined = ["nsenter", files] if files else []
        made = ["unshare", *(_SHELL[name] for name in self.namespaces)] if self.namespaces else []
        return " ".join([*joined, *made, "sh"])

    def spawn(
        self, slots: Slots, program: int, arguments: list[bytes], environment: list[bytes], keep: list[int]
    ) -> int:
        """Start the runner `program` in them (see `runner.spawn`); returns the new process id."""
        group = slots.take("cgroup") if self.cgroup else -1
        back: list[tuple[str, int]] = []
        try:
            if self.entered:
                from .joined_namespaces import step_in

                step_in(self.entered, slots, back)
            pid, pidfd = runner.spawn(program, arguments, environment, flags(self.namespaces), keep, group)
        except KernelError as error:
            if error.call != "clone3":
                raise
            raise KernelError("clone3", (_shown(self.namespaces),), error.errno, self._reason(error.errno)) from None
        finally:
            if back:
                from .joined_namespaces import step_back

                step_back(back)
        slots.found["pid"] = pid
        slots.give("pidfd", pidfd)
        return pid

    def _reason(self, errno: int) -> str:
        if errno == EAGAIN:
            return "this user, or this machine, has as many processes as it may have"
        if "user" in self.namespaces:
            return "does this machine let plain users make user namespaces? see /proc/sys/user/max_user_namespaces"
        return "root needs CAP_SYS_ADMIN for this: is tarbox running in a container itself?" if errno == EPERM else ""


class Unshare(Step):
    """Leave the caller's namespaces of these kinds for new ones."""

    __slots__ = ("namespaces",)

    phase = "namespaces"
    why = "from here on the process has mounts, a host name, queues and network interfaces of its own"
    man = "unshare(2), namespaces(7)"

    def __init__(self, namespaces: tuple[str, ...], by: str = RUNNER) -> None:
        super().__init__(by)
        self.namespaces = namespaces

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("unshare", (flags(self.namespaces),))]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        limits = "as many of these exist as the machine allows: see /proc/sys/user/max_*_namespaces"
        return KernelError(self.call(), None, errno, limits if errno == ENOSPC else "")

    def call(self) -> str:
        return f"unshare({_shown(self.namespaces)})"

    def shell(self) -> str:
        return " ".join(["unshare", *(_SHELL[name] for name in self.namespaces), "sh"])


class DieWithParent(Step):
    """Have the kernel kill the container when the command that made it dies."""

    __slots__ = ()

    phase = "namespaces"
    why = "a command that is killed must not leave half a container behind"
    man = "prctl(2)"

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("prctl", (1, 9, 0, 0, 0))]

    def call(self) -> str:
        return "prctl(PR_SET_PDEATHSIG, SIGKILL)"

    def shell(self) -> str:
        return "setpriv --pdeathsig KILL COMMAND"


class FileMask(Step):
    """Set the file mode creation mask: 0 while directories and nodes are made, the program's own at the end.

    In the parent it finds "umask", the caller's, which is to be put back.
    """

    __slots__ = ("mask",)

    phase = "namespaces"
    why = "the caller's umask must not decide which modes the container's files get"
    man = "umask(2)"

    def __init__(self, mask: int, by: str = RUNNER) -> None:
        super().__init__(by)
        self.mask = mask

    def apply(self, slots: Slots) -> None:
        slots.found["umask"] = os.umask(self.mask)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("umask", (self.mask,))]

    def call(self) -> str:
        return f"umask({self.mask:04o})"

    def shell(self) -> str:
        return f"umask {self.mask:04o}"
