"""Labels of security modules: a second opinion, beside users and capabilities, on what a process may touch.

    cat /proc/$PID/attr/current          ps -Z

AppArmor names a profile ("docker-default (enforce)"), SELinux a context ("system_u:system_r:container_t:s0"). What a
process forbids itself with Landlock has no label: it can't be seen from outside.

man 5 proc_pid_attr, man 7 apparmor, man 8 selinux
"""

from __future__ import annotations

from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .processes import Process

_OWN_FILES = (("AppArmor", "attr/apparmor/current"), ("Smack", "attr/smack/current"))


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
        return "SELinux"
    return "AppArmor" if apparmor else "unknown module"
