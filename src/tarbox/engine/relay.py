"""The relay: it brings to a container what the kernel's translation of addresses can't.

    socat TCP6-LISTEN:8080,fork TCP4:172.17.0.2:80 &

Nearly all that comes for a published port is sent on by the kernel, and no process sees it. What is left are clients on
this machine that use ::1, which no rule can lead elsewhere, and those that use IPv6 when the container has none. They
arrive at the sockets by which the ports were reserved.

As long as nobody does, there is no relay: the command that waits for the container looks at one descriptor more. The
first client makes it fork one process, which serves all of them, and ends with the container or with the command. It
talks to programs that nobody trusts, so it gives up everything that it doesn't need for that: it is nobody, may do
nothing, start nothing and write nothing, and has no descriptors but those of the ports. If it ends before its time, the
next client gets a new one.

man 7 epoll, man 2 fork, man 2 PR_SET_PDEATHSIG
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as in kernel/signals.py
import time
from select import EPOLLIN, epoll

from ..errors import KernelError
from ..kernel import rlimits, signals
from ..kernel.syscall import syscall
from ..networks.ports import SCTP
from ..unistd import os
from .relay_loop import Loop, Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..networks.reservation import Reserved

NAME = b"tarbox-relay"
MOST_CONNECTIONS = 4096
_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 38
_OTHER_DESCRIPTORS = 1200  # clients that send datagrams, and a few more
_MEMORY = 256 << 20  # bytes, beyond what the process has when it begins
_PAUSE_SECONDS = 1.0  # before another relay goes on in the place of one that ended


class Relay:
    """The sockets of published ports, and who serves them.

    reserved: the ports; they stay the caller's, and have to be open until `close`. addresses: the container's. All of
    it is for a loop around poll(2): when `fileno()` is readable, call `attend()`.
    """

    __slots__ = ("_addresses", "_again", "_gate", "_pid", "_pidfd", "_reserved", "_watched")

    def __init__(self, reserved: Reserved, addresses: Sequence[str]) -> None:
        self._reserved = reserved
        self._addresses = tuple(addresses)
        self._pid = 0
        self._pidfd = -1
        self._again = False
        self._gate = epoll()
        every = zip(reserved.ports, reserved.sockets, strict=True)
        # SCTP is more than one stream of bytes: only the kernel can translate it.
        self._watched = [(port, number) for port, number in every if port.protocol != SCTP]
        for _, number in self._watched:
            self._gate.register(number, EPOLLIN)

    def fileno(self) -> int:
        """What to wait for: a client, or the end of the process that serves them; -1 for nothing any more."""
        if self._pidfd >= 0:
            return self._pidfd
        return -1 if self._gate.closed else self._gate.fileno()

    def attend(self) -> str:
        """Start the process, or see to it that another one can be; returns a line for the user when that failed."""
        if self._pid:
            self._end()
            self._again = True
            for _, number in self._watched:  # some may have been held back
                self._gate.modify(number, EPOLLIN)
            return ""
        parent = os.getpid()
        try:
            self._pid = os.fork()
            if self._pid == 0:
                try:
                    self._serve(parent)
                finally:
                    os._exit(1)
            self._pidfd = syscall("pidfd_open", self._pid, 0)
        except (OSError, KernelError) as error:
            self.close()
            return f"clients that use IPv6 can't be led to the container: {error}"
        return ""

    def close(self) -> None:
        """End the process and wait until it has; a second call does nothing."""
        self._end()
        self._gate.close()

    def _end(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._pid:
            os.kill(self._pid, 9)  # nobody else waits for it, so the number is still its own
            os.waitpid(self._pid, 0)
            self._pid = 0

    # In the process that serves.

    def _serve(self, parent: int) -> None:
        most = self._confine(parent)
        if self._again:
            time.sleep(_PAUSE_SECONDS)
        services = [Service(port, number, self._addresses) for port, number in self._watched]
        Loop(self._gate, services, most).run()

    def _confine(self, parent: int) -> int:
        """Give up what isn't needed; returns how many connections there may be."""
        os.setsid()  # no key of the terminal reaches it
        syscall("prctl", _PR_SET_NAME, NAME, 0, 0, 0)
        self._close_others()
        for number in (1, 2, 15):
            if _signal.getsignal(number) is not _signal.SIG_IGN:
                _signal.signal(number, _signal.SIG_DFL)
        signals.set_mask(bytes(8))
        most = self._limit()
        _become_nobody()
        rlimits.set_limit("nproc", 0, 0)
        syscall("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        syscall("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
        syscall("prctl", _PR_SET_PDEATHSIG, 9, 0, 0, 0)  # last: a change of ids takes it back
        if os.getppid() != parent:
            os._exit(1)
        return most

    def _close_others(self) -> None:
        nowhere = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        at = 3
        for number in sorted((self._gate.fileno(), *(number for _, number in self._watched))):
            if at < number:
                syscall("close_range", at, number - 1, 0)
            at = number + 1
        syscall("close_range", at, 0xFFFFFFFF, 0)

    def _limit(self) -> int:
        top = max([number for _, number in self._watched], default=0)
        hard = rlimits.present("nofile")[1]
        files = min(hard, top + _OTHER_DESCRIPTORS + 2 * MOST_CONNECTIONS)
        rlimits.set_limit("nofile", files, files)
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            sizes = [int(line.split()[1]) << 10 for line in file if line.startswith("VmSize:")]
        memory = min(sizes[0] + _MEMORY, rlimits.present("as")[1])
        rlimits.set_limit("as", memory, memory)
        for name in ("core", "fsize", "msgqueue", "memlock"):
            rlimits.set_limit(name, 0, 0)
        return max(16, (files - top - _OTHER_DESCRIPTORS) // 2)


def _become_nobody() -> None:
    """Another user where that can be, and in any case one who may do nothing that not everybody may."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        except OSError:  # a user namespace without that user
            pass
    syscall("capset", (0x20080522).to_bytes(4, "little") + bytes(4), bytes(24))
