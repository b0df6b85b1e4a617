"""AppArmor: a profile by name says which files a program may use, by path, and which other powers of the kernel.

    apparmor_parser -Kr FILE             load the profiles in a file, or put new ones in their place
    aa-status                            which are loaded, and which processes they confine

Profiles are compiled by AppArmor's own program, apparmor_parser, and stay in the kernel until it is shut down. Once
loaded, one can be asked for by any process (security_label.py).

The profile here is for containers. It allows what a container needs: nearly everything that a program does with its
own files. It forbids what reaches the machine, a second time: should a mask or a mount be missing, or a program have a
capability that it shouldn't have, it still can't write to the kernel's settings or mount anything.

man 7 apparmor, man 5 apparmor.d, man 8 apparmor_parser
"""

from __future__ import annotations

from ..errors import TarboxError
from ..plan.step import PARENT, Step
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Slots

DEFAULT = "tarbox-default"
UNCONFINED = "unconfined"
_PARSERS = ("/usr/sbin/apparmor_parser", "/sbin/apparmor_parser")
_LOADED = "/sys/kernel/security/apparmor/policy/profiles"
_ENABLED = "/sys/module/apparmor/parameters/enabled"
_OWN = ("/proc/self/attr/apparmor/current", "/proc/self/attr/current")
_ABI = "/etc/apparmor.d/abi/3.0"
_SECONDS = 30

# No includes, which a machine may not have. A rule that forbids wins over all that allow.
_PROFILE = """\
profile tarbox-default flags=(attach_disconnected,mediate_deleted) {
  # What a program does with its own.
  capability,
  file,
  network,
  unix,
  dbus,
  umount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=tarbox-default,
  ptrace (trace, tracedby, read, readby) peer=tarbox-default,

  # Mounts could lay bare what is hidden.
  deny mount,

  # Of /proc it may write to processes, and to settings that an IPC namespace keeps apart.
  deny /proc/* w,
  deny /proc/{[^0-9s]*,s[^ey]*,sy[^s]*,sys?*}/** w,
  deny /proc/sys/{[^k]*,k[^e]*}{,/**} w,
  deny /proc/sys/kernel/{[^ms]*,m[^s]*,s[^eh]*,se[^m]*,sh[^m]*}{,/**} w,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,

  # Of /sys, to control groups.
  deny /sys/{[^f]*,f[^s]*}/** wklx,
  deny /sys/fs/{[^c]*,c[^g]*,cg[^r]*}/** wklx,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
"""


def own_label() -> str:
    """The profile that confines this process, "unconfined" for none, "" where AppArmor is off."""
    if _read(_ENABLED) != "Y":
        return ""
    return next((found for path in _OWN if (found := _read(path))), "").partition(" (")[0]


def parser() -> str:
    """The path of the program that loads profiles; "" where there is none."""
    return next((path for path in _PARSERS if os.access(path, os.X_OK)), "")


def is_loaded(name: str) -> bool:
    """Whether the kernel has a profile of that name; needs root."""
    try:
        return any(entry.rpartition(".")[0] == name for entry in os.listdir(_LOADED))
    except OSError:
        return False


def text() -> str:
    """The profile for containers, in AppArmor's language."""
    return ("abi <abi/3.0>,\n" if os.path.exists(_ABI) else "") + _PROFILE


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip("\0\n")
    except OSError:
        return ""


class LoadProfile(Step):
    """Load the profile for containers into the kernel, where it stays.

    mark: a file of one's own that is written then, to know that it was this version of the profile.
    """

    __slots__ = ("mark",)

    phase = "host"
    why = "a profile has to be in the kernel before it can be asked for; it stays, for the next containers"
    man = "apparmor_parser(8)"

    def __init__(self, mark: str) -> None:
        super().__init__(PARENT)
        self.mark = mark

    def apply(self, slots: Slots) -> None:
        import subprocess  # once, until the machine is started again

        profile = text()
        failed = ""
        try:
            command = [parser() or _PARSERS[0], "--skip-cache", "--replace", "--quiet"]
            done = subprocess.run(command, input=profile, capture_output=True, text=True, timeout=_SECONDS, env={})
            if done.returncode:
                failed = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            failed = str(error)
        if failed:
            hint = "--security-opt apparmor=unconfined runs a container without"
            raise TarboxError(f"AppArmor's profile for containers can't be loaded: {failed[:300]}", hint)
        with open(self.mark, "w", encoding="ascii") as file:
            file.write(profile)

    def call(self) -> str:
        return f'write("/sys/kernel/security/apparmor/.replace", {{the profile {DEFAULT}, compiled}})'

    def shell(self) -> str:
        return "apparmor_parser -Kr FILE"


def is_marked(mark: str) -> bool:
    """Whether what `mark` tells of is this version of the profile."""
    return _read(mark) == text().strip("\0\n")
