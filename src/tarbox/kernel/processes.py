"""A process as /proc shows it: small files of text, and links that lead to what it has.

    cat /proc/$PID/status; tr '\\0' ' ' </proc/$PID/cmdline; ls -l /proc/$PID/ns /proc/$PID/root

Everything is read through one descriptor of the process's folder, so that all answers are about the same process:
when it ends, its files are gone, even if its number is given to another. Names that a process gives itself may hold
any byte; they come as text with surrogate escapes and are for whoever prints them to make harmless.

man 5 proc, man 7 namespaces
"""

from __future__ import annotations

from ..errors import ProcessNotFoundError
from ..spec.runtime import NAMESPACES
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Limits = dict[str, tuple[str, str]]  # (soft, hard) by the name in RLIMITS, each a number or "unlimited"

# The kinds of namespaces by their OCI names, and what /proc calls them.
LINKS = {kind: {"mount": "mnt", "network": "net"}.get(kind, kind) for kind in sorted(NAMESPACES)}
KINDS = {link: kind for kind, link in LINKS.items()}

STATES = {
    "R": "running", "S": "sleeping", "D": "waiting for the kernel", "T": "stopped", "t": "stopped by a tracer",
    "Z": "zombie", "X": "dead", "I": "idle", "P": "parked",
}  # fmt: skip

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_LARGEST = 16 << 20  # bytes: a process can have a hundred thousand mounts
_COMMAND = 4096  # bytes of a command line, which can be as long as its process likes

# The words of /proc/PID/limits, in the order of the kernel's numbers.
_LIMIT_LINES = {
    "Max cpu time": "cpu", "Max file size": "fsize", "Max data size": "data", "Max stack size": "stack",
    "Max core file size": "core", "Max resident set": "rss", "Max processes": "nproc", "Max open files": "nofile",
    "Max locked memory": "memlock", "Max address space": "as", "Max file locks": "locks",
    "Max pending signals": "sigpending", "Max msgqueue size": "msgqueue", "Max nice priority": "nice",
    "Max realtime priority": "rtprio", "Max realtime timeout": "rttime",
}  # fmt: skip


class Process:
    """One process, held by a descriptor of its folder; use it in a `with` statement.

    pid: its number, or that of one of its threads. Raises ProcessNotFoundError when there is none.
    denied: the names of what this user may not see of it, as they are found out.
    """

    __slots__ = ("_folder", "denied", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.denied: set[str] = set()
        try:
            self._folder = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, OverflowError):
            raise ProcessNotFoundError(f"there is no process {pid}", _hidden()) from None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._folder)

    def text(self, name: str, limit: int = _LARGEST) -> str | None:
        """What the file `name` says, at most `limit` bytes; None where there is none, or this user may not read it.

        Raises ProcessNotFoundError when the process has ended.
        """
        try:
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
            try:
                parts = []
                while limit > 0 and (part := os.read(file, min(limit, 1 << 16))):
                    parts.append(part)
                    limit -= len(part)
                return b"".join(parts).decode("utf-8", "surrogateescape")
            finally:
                os.close(file)
        except OSError as error:
            self._excuse(error, name)
            return None

    def link(self, name: str) -> str | None:
        """Where the link `name` leads, as text; None and ProcessNotFoundError as for `text`."""
        try:
            return os.readlink(name, dir_fd=self._folder)
        except OSError as error:
            self._excuse(error, name)
            return None

    def open(self, name: str) -> int | None:
        """A descriptor (`O_PATH`) of what the link `name` leads to; None and ProcessNotFoundError as for `text`."""
        try:
            return os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError as error:
            self._excuse(error, name)
            return None

    def _excuse(self, error: OSError, name: str) -> None:
        if isinstance(error, PermissionError):
            self.denied.add(name)
        else:
            self.insist()

    def insist(self) -> None:
        """Raise ProcessNotFoundError if the process has ended."""
        try:
            os.stat("stat", dir_fd=self._folder)
        except OSError:
            raise ProcessNotFoundError(f"process {self.pid} ended while it was looked at") from None

    def status(self) -> dict[str, str]:
        """The lines of its status file by name; raises ProcessNotFoundError."""
        return parse_status(self.text("status") or "")

    def is_kernel_thread(self) -> bool:
        """Whether it is a thread of the kernel's own, which runs no program."""
        fields = (self.text("stat") or "").rpartition(")")[2].split()
        return len(fields) > 6 and bool(int(fields[6]) & _KERNEL_THREAD)

    def namespaces(self) -> dict[str, int | None]:
        """The inode of its namespace of each kind; None where it can't be seen."""
        return {kind: inode_of(self.link(f"ns/{link}")) for kind, link in LINKS.items()}

    def command(self) -> str:
        """Its command line, a space between words, or its name in brackets where it has none, as ps shows it."""
        words = (self.text("cmdline", _COMMAND) or "").rstrip("\0").replace("\0", " ")
        return words if words.strip() else f"[{self.name()}]"

    def name(self) -> str:
        """Its short name, which is the program's file name unless it changed it."""
        return (self.text("comm") or "").rstrip("\n")

    def limits(self) -> Limits:
        """Its resource limits."""
        return parse_limits(self.text("limits") or "")


def _hidden() -> str:
    """A hint where /proc keeps other users' processes from this one."""
    if os.geteuid() == 0:
        return ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            hides = any(" /proc " in line and "hidepid=" in line for line in table)
    except OSError:
        return ""
    return "or it is another user's: this machine hides those from you (hidepid)" if hides else ""


def inode_of(link: str | None) -> int | None:
    """The number in a link such as `mnt:[4026531832]`; None for anything else."""
    number = (link or "").partition(":[")[2].rstrip("]")
    return int(number) if number.isascii() and number.isdecimal() else None


def parse_status(text: str) -> dict[str, str]:
    """The lines "Name:\\tvalue" of a status file, by name."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name, value.strip())
    return found


def parse_limits(text: str) -> Limits:
    """The (soft, hard) limits in the text of a limits file, by the names in RLIMITS."""
    found: Limits = {}
    for line in text.splitlines():
        name, values = line[:25].rstrip(), line[25:].split()
        if name in _LIMIT_LINES and len(values) >= 2:
            found[_LIMIT_LINES[name]] = values[0], values[1]
    return found


def parse_map(text: str | None) -> list[tuple[int, int, int]]:
    """The rows (first id inside, first id outside, how many) of an id map."""
    rows = [[int(word) for word in line.split()] for line in (text or "").splitlines()]
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]


def numbers() -> list[int]:
    """The numbers of all processes that this user can see, the lowest first."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isascii() and name.isdecimal())


def named(name: str) -> list[int]:
    """The numbers of the processes whose short name this is; the kernel keeps 15 bytes of it."""
    found = []
    for pid in numbers():
        try:
            with Process(pid) as process:
                if process.name() == os.fsdecode(os.fsencode(name)[:15]):
                    found.append(pid)
        except ProcessNotFoundError:
            continue
    return found


def ancestors(pid: int) -> Iterator[int]:
    """The number of a process's parent, of that one's parent, and so on up to process 1; ends where one has ended."""
    for _ in range(1000):  # numbers may be given anew while we climb: no endless circle
        try:
            with Process(pid) as process:
                pid = int(process.status().get("PPid", "0"))
        except (ProcessNotFoundError, ValueError):
            return
        if pid <= 0:
            return
        yield pid
