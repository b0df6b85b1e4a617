"""The machine under the tests: a host of their own to work in, and the check that it is left as it was found.

    unshare --mount --net --propagation private        is what `TestHost.enter` does to the process that runs the tests

Every process that the tests start carries a mark that survives fork, exec, a cleaned environment and new namespaces: an
odd soft limit on pending signals (`ulimit -i`). What still carries it when a test is over was left by that test.

man 7 namespaces, man 5 proc, man 2 getrlimit
"""

from __future__ import annotations

import ctypes
import fcntl
import glob
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
MAIN = CHECKOUT / "src" / "tarbox" / "__main__.py"

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 1 << 12, 1 << 14, 1 << 18, 2, 4
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}{arguments}: {os.strerror(errno)}")


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """Mount something, in whatever mount namespace this process is; raises OSError."""
    _call(
        "mount",
        source.encode(),
        target.encode(),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )


class TestHost:
    """Mount and network namespaces for the tests alone: an empty /run, a loopback that is up, nothing else new."""

    __test__ = False

    def __init__(self) -> None:
        # A process that stays outside, as long as this one lives: through it the machine's own mounts can be read.
        self._until_we_end = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.witness = str(self._until_we_end.pid)
        self.net = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.mnt = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.python = self.plain_python = sys.executable
        self.main = self.plain_main = MAIN

    def enter(self) -> None:
        """Move this process, which must have one thread, into the test host; raises OSError without CAP_SYS_ADMIN."""
        _call("unshare", CLONE_NEWNS | CLONE_NEWNET)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        mount("tests", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        self._open_to_plain_users()

    def _open_to_plain_users(self) -> None:
        """Show the checkout and the interpreter where every user may read them; their folders may be root's alone."""
        self.plain_main = Path(_shown_to_all(CHECKOUT, "/run/tests/checkout")) / MAIN.relative_to(CHECKOUT)
        real, prefix = Path(sys.executable).resolve(), Path(sys.base_prefix).resolve()
        if _reachable_by_all(real):
            venv = Path(_shown_to_all(Path(sys.prefix), "/run/tests/venv"))
            self.plain_python = str(venv / Path(sys.executable).relative_to(sys.prefix))
        else:  # in root's home, say: shown without the virtual environment, whose link to it leads there
            self.plain_python = str(Path(_shown_to_all(prefix, "/run/tests/python")) / real.relative_to(prefix))

    def leave(self) -> None:
        """End the witness; the namespaces end with this process."""
        self._until_we_end.communicate()

    def outside(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command on the real machine, with its network: only to fetch what tests are made of."""
        entered = ["nsenter", f"--net=/proc/self/fd/{self.net}", f"--mount=/proc/self/fd/{self.mnt}", "--", *command]
        return subprocess.run(entered, pass_fds=(self.net, self.mnt), check=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def _reachable_by_all(path: Path) -> bool:
    return all(part.stat().st_mode & 0o005 == 0o005 for part in (path, *path.parents))


def _shown_to_all(path: Path, shown: str) -> str:
    if _reachable_by_all(path):
        return str(path)
    os.makedirs(shown)
    mount(str(path), shown, None, MS_BIND)
    return shown


def mark() -> int:
    """Mark this process and all that it will start; returns the number that tells them from everybody else's."""
    _, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)  # type: ignore[attr-defined]
    most = 1_000_000 if hard == resource.RLIM_INFINITY else hard
    number = most - 1 - os.getpid() % max(1, most // 2)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (number, hard))  # type: ignore[attr-defined]
    return number


def marked(number: int) -> dict[int, str]:
    """The running processes that carry the mark, this one aside: command lines by process id."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            limits = Path("/proc", entry, "limits").read_text()
            soft = re.search(r"^Max pending signals +(\S+)", limits, re.MULTILINE)
            if soft and soft[1] == str(number) and not _is_dead(entry):
                name = Path("/proc", entry, "comm").read_text().strip()
                command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                named = name.startswith("tarbox-")  # by itself: the command line is that of the command it comes from
                found[int(entry)] = name if named else command.strip()[:100] or name
        except OSError:
            continue  # it ended while we looked
    return found


def _is_dead(pid: str) -> bool:
    """Whether only its exit status is left, which is its parent's to collect."""
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")


def mounts(of: str = "self") -> dict[str, str]:
    """The mounts that a process sees: mount points by mount id."""
    lines = Path("/proc", of, "mountinfo").read_text().splitlines()
    return {line.split()[0]: line.split()[4] for line in lines}


def interfaces(of: str = "self") -> set[str]:
    """The network interfaces that a process has in its namespace."""
    lines = Path("/proc", of, "net", "dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines}


def tables() -> set[str]:
    """The tables of nftables in this network namespace: "inet NAME" and the like."""
    families = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
    found: set[str] = set()
    try:
        netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    except OSError:  # a kernel without
        return found
    with netfilter:
        netfilter.send(struct.pack("=IHHII4x", 20, 10 << 8 | 1, 0x301, 1, 0))
        while True:
            answer = netfilter.recv(65536)
            while answer:
                size, kind = struct.unpack_from("=IH", answer)
                if kind in (2, 3):  # an error, or the end
                    return found
                length = struct.unpack_from("=H", answer, 20)[0]
                found.add(f"{families.get(answer[16])} {answer[24 : 20 + length - 1].decode()}")
                answer = answer[size + 3 & ~3 :]


def cgroups() -> set[str]:
    """The cgroups that tarbox made, whoever told it to."""
    found = set()
    top = "/sys/fs/cgroup"
    for folder, names, _ in os.walk(top):
        if folder.count("/") - top.count("/") >= 4:
            names.clear()
        found |= {os.path.join(folder, name) for name in names if "tarbox" in name}
    return found


def state_files() -> set[str]:
    """What tarbox keeps under /run while it works.

    That isn't the empty folder of journals, nor the note of which subnet the default network has until a boot.
    """
    found = set()
    for folder, folders, files in os.walk("/run/tarbox"):
        depth = folder.count("/") - 2  # the folder of one data root is at 1
        noted = depth == 2 and folder.endswith("/networks")
        found |= {os.path.join(folder, name) for name in files if not (noted and name == "bridge")}
        usual = ("journals", "networks") if depth == 1 else ()
        found |= {os.path.join(folder, name) for name in folders if depth > 0 and name not in usual}
    return found


def left_in_test_host(before: Snapshot, number: int, patience: float = 3.0, *, but_bridges: bool = False) -> list[str]:
    """What one test left, in words; waits `patience` seconds for what is still on its way out.

    but_bridges: pass over what there is of bridges, which tarbox takes away some moments after the last container.
    """
    end = time.monotonic() + patience
    while True:
        left = before.news(Snapshot(number))
        if but_bridges:
            left = [line for line in left if not _BRIDGES.search(line)]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


# The process that waits, known by its name; the bridge; what is noted of it meanwhile.
_BRIDGES = re.compile(
    r"^process \d+: tarbox-bridge$|^network interface (tarbox0|tb-\w{12})$|/journals/bridge-|/networks\b"
)


class Snapshot:
    """What is to be seen in the test host at one moment."""

    def __init__(self, number: int) -> None:
        self.processes = marked(number)
        self.mounts = mounts()
        self.interfaces = interfaces()
        self.tables = tables()
        self.state = state_files()

    def news(self, later: Snapshot) -> list[str]:
        """What `later` has that this one hasn't, a line each."""
        return [
            *(f"process {pid}: {name}" for pid, name in later.processes.items() if pid not in self.processes),
            *(f"mount on {point}" for key, point in later.mounts.items() if key not in self.mounts),
            *(f"network interface {name}" for name in sorted(later.interfaces - self.interfaces)),
            *(f"table {name} of nftables" for name in sorted(later.tables - self.tables)),
            *sorted(later.state - self.state),
        ]


# What tarbox makes where no test lets it: the default data root's, and the state of users without a runtime folder.
OURS = ("/var/lib/tarbox/*", "/tmp/tarbox-[0-9]*")


class MachineSnapshot:
    """What is to be seen of the machine outside of the test host."""

    def __init__(self, host: TestHost) -> None:
        self.host = host
        self.mounts = mounts(host.witness)
        self.interfaces = interfaces(host.witness)
        self.cgroups = cgroups()
        self.files = {path for pattern in OURS for path in glob.glob(pattern)}

    def news(self, later: MachineSnapshot) -> list[str]:
        """What `later` has that this one hasn't, a line each."""
        return [
            *(f"mount on {point}, outside" for key, point in later.mounts.items() if key not in self.mounts),
            *(f"network interface {name}, outside" for name in sorted(later.interfaces - self.interfaces)),
            *(f"cgroup {path}" for path in sorted(later.cgroups - self.cgroups) if not _used_by_others(path)),
            *sorted(later.files - self.files),
        ]


def _used_by_others(cgroup: str) -> bool:
    """Whether processes live in it: ours are looked for by their mark, so these are somebody else's container."""
    try:
        return bool(Path(cgroup, "cgroup.procs").read_text().strip())
    except OSError:
        return True  # gone meanwhile


def left_on_machine(before: MachineSnapshot, patience: float = 3.0) -> list[str]:
    """What the whole run of tests left on the machine itself, in words."""
    end = time.monotonic() + patience
    while True:
        left = before.news(MachineSnapshot(before.host))
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)
