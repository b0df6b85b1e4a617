"""Which capabilities a system call needs, as far as the call itself shows.

    man 7 capabilities lists them the other way round

The kernel doesn't tell everybody which capabilities were used (`kernel/capability_trace.py`), and it tells root too
much: what an overlay file system does for itself while a program writes counts as well. So this is asked in any case:
a call and its arguments, and who makes it. It errs on the side of keeping: what a call *may* have needed is kept, and
so is a capability of which no call tells anything. What a call *must* have needed and the caller hadn't is told as
refused.
"""

from __future__ import annotations

from ..kernel.capabilities import SYS_ADMIN, mask
from .learned_access import PATHS, needs_rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Needed = Callable[["Caller", tuple[int, ...]], bool]

_SURE, _PERHAPS = True, False
_MINUS_ONE = 0xFFFFFFFF
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW…; without CLONE_NEWUSER, which needs none
_NEW_USER = 0x10000000


class Caller:
    """Who makes a call, as /proc shows it while the call waits. pid: as seen from here."""

    __slots__ = ("effective", "gids", "pid", "uids")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        lines = {}
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                name, _, value = line.partition(":")
                lines[name] = value.split()
        self.uids = [int(word) for word in lines["Uid"]]
        self.gids = [*map(int, lines["Gid"]), *map(int, lines["Groups"])]
        self.effective = int(lines["CapEff"][0], 16)


def _always(caller: Caller, arguments: tuple[int, ...]) -> bool:
    return True


def _others(ids: str, count: int, first: int = 0) -> Needed:
    """Whether one of some arguments is an id that isn't the caller's."""

    def needed(caller: Caller, arguments: tuple[int, ...]) -> bool:
        given = {argument & _MINUS_ONE for argument in arguments[first : first + count]} - {_MINUS_ONE}
        return not given <= set(getattr(caller, ids))

    return needed


def _owner(first: int) -> Needed:
    """Whether a file gets an owner or a group."""

    def needed(caller: Caller, arguments: tuple[int, ...]) -> bool:
        return {arguments[first] & _MINUS_ONE, arguments[first + 1] & _MINUS_ONE} != {_MINUS_ONE}

    return needed


def _is(index: int, *values: int, among: int = _MINUS_ONE) -> Needed:
    """Whether an argument, or these bits of it, has one of these values."""
    return lambda caller, arguments: arguments[index] & among in values


def _raw_socket(caller: Caller, arguments: tuple[int, ...]) -> bool:
    return arguments[0] == 17 or (arguments[0] in (2, 10) and arguments[1] & 0xF == 3)


def _low_port(caller: Caller, arguments: tuple[int, ...]) -> bool:
    try:
        with open(f"/proc/{caller.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(arguments[1])
            address = memory.read(4)
    except PermissionError:
        return True
    return address[:2] in (b"\2\0", b"\12\0") and 0 < int.from_bytes(address[2:], "big") < 1024


def _namespaces(caller: Caller, arguments: tuple[int, ...]) -> bool:
    return bool(arguments[0] & _NEW_NAMESPACES) and not arguments[0] & _NEW_USER


# Calls by name: (capability, whether it surely fails without, when).
_RULES: dict[str, tuple[tuple[str, bool, Needed], ...]] = {}
for _names, _capability, _sure, _needed in (
    ("chown lchown chown32 lchown32 fchown fchown32", "CHOWN", _PERHAPS, _owner(1)),
    ("fchownat", "CHOWN", _PERHAPS, _owner(2)),
    ("chown lchown chown32 lchown32 fchown fchown32", "CHOWN", _SURE, _others("uids", 1, 1)),
    ("fchownat", "CHOWN", _SURE, _others("uids", 1, 2)),
    ("setuid setuid32", "SETUID", _SURE, _others("uids", 1)),
    ("setuid setuid32", "SETUID", _PERHAPS, _always),  # with it, all three ids are set
    ("setreuid setreuid32", "SETUID", _SURE, _others("uids", 2)),
    ("setresuid setresuid32", "SETUID", _SURE, _others("uids", 3)),
    ("setfsuid setfsuid32", "SETUID", _PERHAPS, _others("uids", 1)),
    ("setgid setgid32", "SETGID", _SURE, _others("gids", 1)),
    ("setgid setgid32", "SETGID", _PERHAPS, _always),
    ("setregid setregid32", "SETGID", _SURE, _others("gids", 2)),
    ("setresgid setresgid32", "SETGID", _SURE, _others("gids", 3)),
    ("setfsgid setfsgid32", "SETGID", _PERHAPS, _others("gids", 1)),
    ("setgroups setgroups32", "SETGID", _SURE, _always),
    ("kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal", "KILL", _PERHAPS, _always),
    ("chmod fchmod fchmodat fchmodat2 utime utimes futimesat utimensat utimensat_time64", "FOWNER", _PERHAPS, _always),
    ("setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr", "FOWNER", _PERHAPS, _always),
    ("unlink unlinkat rmdir rename renameat renameat2 linkat link", "FOWNER", _PERHAPS, _always),
    ("chmod fchmod fchmodat fchmodat2", "FSETID", _PERHAPS, _always),
    ("setxattr lsetxattr fsetxattr", "SETFCAP", _PERHAPS, _always),
    ("chroot", "SYS_CHROOT", _SURE, _always),
    ("mknod", "MKNOD", _SURE, _is(1, 0o020000, 0o060000, among=0o170000)),
    ("mknodat", "MKNOD", _SURE, _is(2, 0o020000, 0o060000, among=0o170000)),
    ("socket", "NET_RAW", _SURE, _raw_socket),
    ("socketcall", "NET_RAW", _PERHAPS, _is(0, 1)),
    ("socket", "AUDIT_WRITE", _PERHAPS, lambda _, arguments: arguments[0] == 16 and arguments[2] == 9),
    ("bind", "NET_BIND_SERVICE", _PERHAPS, _low_port),
    ("socketcall", "NET_BIND_SERVICE", _PERHAPS, _is(0, 2)),
    ("prctl", "SETPCAP", _SURE, _is(0, 24, 28)),
    ("capset", "SETPCAP", _PERHAPS, _always),
    ("setpriority nice sched_setscheduler sched_setparam sched_setattr ioprio_set", "SYS_NICE", _PERHAPS, _always),
    ("sched_setaffinity mbind migrate_pages move_pages", "SYS_NICE", _PERHAPS, _always),
    ("setrlimit prlimit64", "SYS_RESOURCE", _PERHAPS, _always),
    ("mlock mlock2 mlockall shmctl mmap", "IPC_LOCK", _PERHAPS, _always),
    ("clone unshare", "SYS_ADMIN", _SURE, _namespaces),
    ("mount umount umount2 setns sethostname setdomainname pivot_root fsopen fsmount", "SYS_ADMIN", _SURE, _always),
    ("adjtimex clock_adjtime", "SYS_TIME", _PERHAPS, _always),
    ("settimeofday clock_settime clock_settime64 stime", "SYS_TIME", _SURE, _always),
    ("ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd", "SYS_PTRACE", _PERHAPS, _always),
    ("reboot", "SYS_BOOT", _SURE, _always),
    ("init_module finit_module delete_module", "SYS_MODULE", _SURE, _always),
    ("acct", "SYS_PACCT", _SURE, _always),
    ("iopl ioperm", "SYS_RAWIO", _PERHAPS, _always),
    ("vhangup", "SYS_TTY_CONFIG", _SURE, _always),
    ("open_by_handle_at", "DAC_READ_SEARCH", _SURE, _always),
    ("syslog", "SYSLOG", _PERHAPS, _always),
    ("bpf", "BPF", _PERHAPS, _always),
    ("perf_event_open", "PERFMON", _PERHAPS, _always),
):  # fmt: skip
    for _name in _names.split():
        _RULES[_name] = (*_RULES.get(_name, ()), (_capability, _sure, _needed))

_BIT = {capability: mask([capability]) for rules in _RULES.values() for capability, _, _ in rules}
_OVERRIDE, _SEARCH = mask(["DAC_OVERRIDE"]), mask(["DAC_READ_SEARCH"])
_OF_FILES = _OVERRIDE | _SEARCH
TOLD = _OF_FILES | mask(_BIT)  # the capabilities of which calls tell something
# With one id of each kind there are no others' files and processes, and no other ids to become.
_OF_OTHERS = mask(["CHOWN", "FOWNER", "FSETID", "KILL", "SETUID", "SETGID"])


class CapabilityCalls:
    """What a run's calls show of the capabilities that it used.

    granted: the container's. one_id: its user namespace has one user and one group. own_network: it has its own, where
    tarbox lets everybody use all ports. confined: no process of its can mount or serve page faults, so that files and
    memory may be looked at; else one might have to answer for that while it waits for an answer itself.
    used: those that may have been used, so far. refused: by name of the call, the capability that it lacked.
    """

    __slots__ = ("_confined", "_files", "_one_id", "_rules", "refused", "used")

    def __init__(self, granted: int, one_id: bool, own_network: bool, confined: bool = True) -> None:
        self._one_id = one_id
        self._confined = confined and not granted & SYS_ADMIN
        self._rules = {name: [*rules] for name, rules in _RULES.items()}
        if own_network:
            for name in ("bind", "socketcall"):
                self._rules[name] = [rule for rule in self._rules[name] if rule[0] != "NET_BIND_SERVICE"]
        elif not self._confined:
            self._rules["bind"] = [("NET_BIND_SERVICE", _PERHAPS, _always)]
        self._files = granted & _OF_FILES
        self.used = granted & ~TOLD
        self.refused: dict[str, str] = {}

    def tells(self, name: str) -> bool:
        """Whether a call of this name can show anything more."""
        return bool(self._rules.get(name)) or bool(self._files and name in PATHS)

    def look_at(self, name: str, pid: int, arguments: tuple[int, ...]) -> None:
        """See what a call that waits shows. Raises OSError and the like where its caller has just died."""
        caller = Caller(pid)
        rules = self._rules.get(name, [])
        for rule in [*rules]:
            capability, sure, needed = rule
            if not needed(caller, arguments):
                continue
            held = caller.effective & _BIT[capability]
            if held and not (self._one_id and held & _OF_OTHERS):
                self.used |= held
            elif sure and not held:
                self.refused[name] = capability
            if held or sure:
                rules.remove(rule)
        held = caller.effective & self._files
        if held and name in PATHS:
            # Who acts as somebody else may see files otherwise than this process does: then each may have needed them.
            guess = self._confined and not caller.uids[3] and not caller.gids[3]
            try:
                wanted = needs_rights(name, pid, arguments) if guess else "write"
            except PermissionError:  # a process that may not be looked at
                guess, wanted = False, "write"
            if wanted:
                self.used |= held & _SEARCH if wanted == "read" and held & _SEARCH else held & _OVERRIDE
                if not guess:
                    self.used |= held
                self._files &= ~self.used
