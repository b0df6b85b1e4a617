"""Labels of security modules: a second opinion, beside users and capabilities, on what a process may touch.

    cat /proc/$PID/attr/current          ps -Z          aa-exec -p PROFILE COMMAND          runcon LABEL COMMAND

AppArmor names a profile ("docker-default (enforce)"), SELinux a context ("system_u:system_r:container_t:s0"). What a
process forbids itself with Landlock has no label: it can't be seen from outside.

A process asks for the label of the next program that it executes, in its own `attr/exec`. Then the kernel sees to it:
the program starts with the label, or execve fails. So all depends on writing to the real file. An image could lead a
path like that to a file of its own (CVE-2019-16884). Here /proc is opened with the host in view, by descriptor, the
type of its file system is checked, and from there the file is reached without leaving that file system.

man 5 proc_pid_attr, man 7 apparmor, man 8 selinux, man 2 openat2
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT, EPERM

from ..errors import KernelError, UnsupportedError
from ..plan.step import PARENT, RUNNER, Row, Step
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError
    from ..plan.step import Slots
    from .processes import Process

APPARMOR, SELINUX = "AppArmor", "SELinux"
_OWN_FILES = ((APPARMOR, "attr/apparmor/current"), ("Smack", "attr/smack/current"))
_PROC_ROOT = 1  # the inode of the top directory of a procfs


def label(process: Process) -> tuple[str, str]:
    """(module, label) of a process; ("", "") where no module labels it. Raises ProcessNotFoundError."""
    for module, name in _OWN_FILES:
        found = _clean(process.text(name))
        if found:
            return module, found
    found = _clean(process.text("attr/current"))
    if not found:
        return "", ""
    return _module(found, os.path.isdir("/sys/fs/selinux"), os.path.isdir("/sys/module/apparmor")), found


def _clean(text: str | None) -> str:
    return (text or "").rstrip("\0\n")


def _module(found: str, selinux: bool, apparmor: bool) -> str:
    """Which module a label is of, by what the machine has and by how it looks."""
    if selinux and found.count(":") >= 2:
        return SELINUX
    return APPARMOR if apparmor else "unknown module"


class LabelMount(Step):
    """Give the top directory of a mount SELinux's label. slot: the mount's. path: where it is, for people."""

    __slots__ = ("label", "path", "slot")

    phase = "filesystem"
    why = "what the program may do there goes by the label"
    man = "setxattr(2)"

    def __init__(self, slot: str, path: str, label: str) -> None:
        super().__init__(RUNNER)
        self.slot = slot
        self.path = path
        self.label = label

    def takes(self) -> tuple[str, ...]:
        return (self.slot,)

    def rows(self, slots: Slots) -> list[Row]:
        text = os.fsencode(self.label)
        # A mount's descriptor can't be written to, but entered; the working directory is chosen later.
        enter = Row("fchdir", (slots.argument(self.slot),))
        return [enter, Row("setxattr", (b".", b"security.selinux", text, len(text) + 1, 0), self.call())]

    def call(self) -> str:
        return f'setxattr("{self.path}", "security.selinux", "{self.label}")'

    def shell(self) -> str:
        return f"chcon {self.label} $ROOT{self.path}"


class OpenProc(Step):
    """Open the host's /proc, and make sure that it is what it seems to be."""

    __slots__ = ()

    phase = "host"
    why = "a label is written there; it has to be the kernel's own /proc, and not one that the image brings"
    man = "proc(5), statfs(2)"

    def __init__(self) -> None:
        super().__init__(PARENT)

    def gives(self) -> tuple[str, ...]:
        return ("proc",)

    def apply(self, slots: Slots) -> None:
        from .paths import PROC, filesystem_of

        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        slots.give("proc", proc)
        if filesystem_of(proc) != PROC or os.fstat(proc).st_ino != _PROC_ROOT:
            hint = "a label can't be set without it: mount -t proc proc /proc"
            raise UnsupportedError("this machine's /proc isn't the kernel's", hint)

    def call(self) -> str:
        return 'open("/proc", O_PATH|O_DIRECTORY), fstatfs() == PROC_SUPER_MAGIC'


class OpenAttribute(Step):
    """Open the file in which a process asks for a label, beneath the host's /proc.

    module: "AppArmor" or "SELinux". name: "exec" for the label of the next program, "current" for its own from now on.
    """

    __slots__ = ("module", "name")

    phase = "privileges"
    why = "it is reached from the host's own /proc, over no mount and no link that leads out of it"
    man = "openat2(2), proc_pid_attr(5)"

    def __init__(self, module: str, name: str) -> None:
        super().__init__(RUNNER)
        self.module = module
        self.name = name

    def takes(self) -> tuple[str, ...]:
        return ("proc",)

    def gives(self) -> tuple[str, ...]:
        return ("label",)

    def rows(self, slots: Slots) -> list[Row]:
        from .paths import opening_own

        proc, kept = slots.argument("proc"), slots.register("label").number
        names = [f"self/attr/{self.name}"]
        if self.module == APPARMOR:  # Linux 5.8: a file of its own, since other modules may be on as well
            names.insert(0, f"self/attr/apparmor/{self.name}")
        rows = [opening_own(proc, name, kept, os.O_WRONLY) for name in names]
        if len(rows) == 2:
            rows[0].skip, rows[0].on = 1, ((ENOENT, 0),)
        return rows

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        return KernelError("openat2", (f"/proc/self/attr/{self.name}",), errno, f"is {self.module} on?")

    def call(self) -> str:
        own = "apparmor/" if self.module == APPARMOR else ""
        beneath = "RESOLVE_BENEATH|RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS"
        return f'openat2(PROC, "self/attr/{own}{self.name}", {{O_WRONLY, {beneath}}})'


class SetLabel(Step):
    """Have the program labelled: the kernel does it when it is executed, or doesn't execute it.

    module: "AppArmor" or "SELinux". label: the name of a profile, or a context. now: label this process at once; its
    init, which executes nothing, is in the container as well.
    """

    __slots__ = ("label", "module", "now")

    phase = "privileges"
    man = "proc_pid_attr(5), apparmor(7), selinux(8)"

    def __init__(self, module: str, label: str, now: bool = False) -> None:
        super().__init__(RUNNER)
        self.module = module
        self.label = label
        self.now = now

    @property
    def why(self) -> str:  # type: ignore[override]
        what = "profile" if self.module == APPARMOR else "context"
        return f"{self.module}'s {what} says what the program may touch, also when it is root"

    def takes(self) -> tuple[str, ...]:
        return ("label",)

    def rows(self, slots: Slots) -> list[Row]:
        text = self._text()
        return [Row("write", (slots.argument("label"), text, len(text)), self.call())]

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        if self.module == APPARMOR:
            off = "--security-opt apparmor=unconfined"
            said = {
                ENOENT: (f"there is no AppArmor profile {self.label}", "apparmor_parser -r FILE loads one"),
                EINVAL: (f"AppArmor doesn't take {self.label} as a profile, or is off", f"{off} leaves it out"),
            }
        else:
            off = "--security-opt label=disable"
            said = {EINVAL: (f"SELinux's policy has no context {self.label}", "seinfo lists its parts")}
        for number in (EACCES, EPERM):
            said[number] = (f"{self.module} doesn't allow tarbox to change to {self.label}", f"{off} leaves it out")
        if errno in said:
            return UnsupportedError(*said[errno])
        return KernelError("write", (f"/proc/self/attr/{self._name()}", self._text()), errno)

    def _name(self) -> str:
        return "current" if self.now else "exec"

    def _text(self) -> bytes:
        if self.module != APPARMOR:
            return os.fsencode(self.label)
        return os.fsencode(f"{'changeprofile' if self.now else 'exec'} {self.label}")

    def call(self) -> str:
        own = "apparmor/" if self.module == APPARMOR else ""
        return f'write("/proc/self/attr/{own}{self._name()}", "{os.fsdecode(self._text())}")'

    def shell(self) -> str:
        return f"aa-exec -p {self.label} COMMAND" if self.module == APPARMOR else f"runcon {self.label} COMMAND"
