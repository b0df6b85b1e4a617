"""Terminals: the container's own pseudo-terminal, and the modes and the size of the caller's.

    script -qc COMMAND /dev/null        another program that puts a pseudo-terminal between a command and the user
    stty raw -echo; stty rows 24 cols 80

A container never gets the caller's terminal: whoever holds that can read its keys, change its modes and, with TIOCSTI,
type commands into the shell that it came from. It gets a pair of its own from its own devpts instance. The container's
end is /dev/pts/0 and /dev/console there; the other end, the master, goes to the process outside that copies.

man 7 pty, man 4 ptmx, man 2 ioctl_tty, man 3 termios
"""

from __future__ import annotations

import os
from fcntl import F_DUPFD_CLOEXEC, fcntl, ioctl
from stat import S_ISCHR, S_ISFIFO

from ..errors import ImageError, KernelError
from ..plan.step import CHILD, PARENT, Step
from .paths import make_file, open_in
from .syscall import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..plan.step import Slots

TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
IUTF8 = 0o40000  # an input mode: the line editor erases whole UTF-8 characters
NULL_DEVICE = os.makedev(1, 3)

_OPEN_TREE_CLONE = 1
_AT_EMPTY_PATH = 0x1000
_MOVE_MOUNT_EMPTY_PATHS = 0x4 | 0x40  # both ends are given by descriptor alone


def window_size(terminal: int) -> bytes | None:
    """The size of a terminal as a `struct winsize` (rows, columns, two more, 16 bits each); None if it isn't one."""
    try:
        return ioctl(terminal, TIOCGWINSZ, bytes(8))
    except OSError:
        return None


def set_window_size(terminal: int, size: bytes) -> None:
    """Give a terminal that size; its foreground programs get SIGWINCH when it changed. A terminal that is gone is
    left alone."""
    try:
        ioctl(terminal, TIOCSWINSZ, size)
    except OSError:
        pass


def make_raw(terminal: int) -> list[Any] | None:
    """Let every key through as it is typed, as cfmakeraw(3) has it; returns the modes before, or None."""
    import termios as t  # only where a terminal is: most containers start without one

    try:
        modes: list[Any] = t.tcgetattr(terminal)
        raw = list(modes)
        raw[0] &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
        raw[1] &= ~t.OPOST
        raw[2] = raw[2] & ~(t.CSIZE | t.PARENB) | t.CS8
        raw[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
        raw[6] = list(modes[6])
        raw[6][t.VMIN], raw[6][t.VTIME] = 1, 0
        t.tcsetattr(terminal, t.TCSANOW, raw)  # not after draining: ^S would hold it up forever
    except t.error:
        return None
    return modes


def set_modes(terminal: int, modes: list[Any]) -> None:
    """Give a terminal back the modes that `make_raw` returned. A terminal that is gone is left alone."""
    import termios

    try:
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
    except termios.error:
        pass


def in_foreground(terminal: int) -> bool:
    """Whether this process may read from the terminal now; false for a job in the background."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # not our controlling terminal: there is no job control on it
        return True


class OpenConsole(Step):
    """Open a pseudo-terminal in the container's own devpts: the master into "console", the slave into "terminal"."""

    __slots__ = ()

    phase = "filesystem"
    why = "The container gets a terminal of its own; the caller's never crosses, so no keys can be pushed into it."
    man = "pts(4)"

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def gives(self) -> tuple[str, ...]:
        return ("console", "terminal")

    def apply(self, slots: Slots) -> None:
        root = slots.take("root")
        try:
            master = open_in(root, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        except KernelError as error:
            text = f"the container's /dev/pts/ptmx can't be opened: {os.strerror(error.errno)}"
            hint = "-t needs a devpts at /dev/pts: mount nothing at /dev, or leave -t out"
            raise ImageError(text, hint) from None
        slots.give("console", master)
        try:
            ioctl(master, TIOCSPTLCK, bytes(4))
            slots.give("terminal", _open_slave(root, master))
        except OSError as error:
            hint = "a terminal needs a devpts instance at /dev/pts"
            raise KernelError("ioctl", ("/dev/pts/ptmx", "TIOCSPTLCK"), error.errno or 0, hint) from None

    def call(self) -> str:
        return (
            'openat2(root, "dev/pts/ptmx", {O_RDWR|O_NOCTTY|O_CLOEXEC, RESOLVE_IN_ROOT}); '
            "ioctl(console, TIOCSPTLCK, 0); ioctl(console, TIOCGPTPEER, O_RDWR|O_NOCTTY|O_CLOEXEC)"
        )


def _open_slave(root: int, master: int) -> int:
    """The other end of a pseudo-terminal: from the kernel directly, so that no path can lead elsewhere."""
    flags = os.O_RDWR | os.O_NOCTTY
    try:
        return ioctl(master, TIOCGPTPEER, flags | os.O_CLOEXEC)
    except OSError:  # before Linux 4.13, or filtered by an outer container
        index = int.from_bytes(ioctl(master, TIOCGPTN, bytes(4)), "little")
        return open_in(root, f"dev/pts/{index}", flags)


class BindConsole(Step):
    """Put the container's terminal at /dev/console too."""

    __slots__ = ()

    phase = "filesystem"
    why = "Programs that look for the system's console, an init say, find the container's terminal there."
    man = "open_tree(2)"

    def takes(self) -> tuple[str, ...]:
        return ("root", "terminal")

    def apply(self, slots: Slots) -> None:
        target = make_file(slots.take("root"), "dev/console", 0o600)
        try:
            flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
            tree = syscall("open_tree", slots.take("terminal"), b"", flags)
            try:
                syscall("move_mount", tree, b"", target, b"", _MOVE_MOUNT_EMPTY_PATHS)
            finally:
                os.close(tree)
        finally:
            os.close(target)

    def call(self) -> str:
        return (
            'open_tree(terminal, "", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH); '
            'move_mount(tree, "", "/dev/console", "", MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH)'
        )


class ReceiveConsole(Step):
    """Take the master over from the container's first process, and give it the size of the caller's terminal.

    The caller's is the first of its standard output, input and error that is one; without any, nothing changes.
    """

    __slots__ = ()

    phase = "filesystem"
    why = "The command outside copies between the container's terminal and the caller's; both have the same size."
    man = "ioctl_tty(2)"

    def __init__(self, by: str = PARENT) -> None:
        super().__init__(by)

    def takes(self) -> tuple[str, ...]:
        return ("console",)

    def apply(self, slots: Slots) -> None:
        console = slots.take("console")
        for mine in (1, 0, 2):
            size = window_size(mine)
            if size is not None:
                set_window_size(console, size)
                _share_character_set(mine, console)
                return

    def call(self) -> str:
        return "ioctl(1, TIOCGWINSZ, &size); ioctl(console, TIOCSWINSZ, &size)"


def _share_character_set(mine: int, console: int) -> None:
    """Tell the container's line editor whether the caller's terminal speaks UTF-8, so that one backspace erases one
    character; every other mode starts as in a new terminal."""
    import termios

    try:
        if termios.tcgetattr(mine)[0] & IUTF8:
            modes = termios.tcgetattr(console)
            modes[0] |= IUTF8
            termios.tcsetattr(console, termios.TCSANOW, modes)
    except termios.error:
        pass


class UseStreams(Step):
    """Start a session, and put the container's standard input, output and error in place.

    interactive: whether it has the caller's input; it is /dev/null otherwise. terminal: whether the three are its
    own terminal (the slot "terminal"), which becomes the controlling terminal of the new session, instead of the
    descriptors in the slots "stdin", "stdout" and "stderr".
    """

    __slots__ = ("interactive", "terminal")

    phase = "privileges"
    why = "A session of its own keeps the caller's terminal out of reach; only 0, 1 and 2 lead out of the container."
    man = "setsid(2)"

    def __init__(self, interactive: bool, terminal: bool, by: str = CHILD) -> None:
        super().__init__(by)
        self.interactive = interactive
        self.terminal = terminal

    def takes(self) -> tuple[str, ...]:
        if self.terminal:
            return ("terminal",)
        return ("root", "stdin", "stdout", "stderr") if self.interactive else ("root", "stdout", "stderr")

    def apply(self, slots: Slots) -> None:
        uid = slots.found.get("uid")
        owner = uid if isinstance(uid, int) else 0
        if os.getsid(0) != os.getpid():
            os.setsid()
        _put_in_place(self._open_terminal(slots, owner) if self.terminal else self._open_pipes(slots, owner))

    def _open_terminal(self, slots: Slots, owner: int) -> list[int]:
        terminal = slots.take("terminal")
        ioctl(terminal, TIOCSCTTY, 0)
        _own(terminal, owner, 0o620)
        return [terminal, terminal, terminal]

    def _open_pipes(self, slots: Slots, owner: int) -> list[int]:
        root = slots.take("root")
        streams = [slots.take("stdin") if self.interactive else _open_null(root)]
        streams += [slots.take("stdout"), slots.take("stderr")]
        for number, stream in enumerate(streams):
            if _is_null(stream):
                streams[number] = _open_null(root)
            elif owner and S_ISFIFO(os.fstat(stream).st_mode):
                _own(stream, owner)  # else a program with that id can't open /dev/stdout
        return streams

    def call(self) -> str:
        calls = ["setsid()"]
        if self.terminal:
            calls += ["ioctl(terminal, TIOCSCTTY, 0)", "fchown(terminal, uid, -1)", "fchmod(terminal, 0620)"]
            calls += [f"dup2(terminal, {number})" for number in range(3)]
        else:
            names = ("stdin" if self.interactive else '"/dev/null"', "stdout", "stderr")
            calls += [f"dup2({name}, {number})" for number, name in enumerate(names)]
        return "; ".join(calls)

    def shell(self) -> str:
        return "" if self.interactive or self.terminal else "exec </dev/null"


def _is_null(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE


def _open_null(root: int) -> int:
    """The container's own /dev/null. With the host's, its root user could change the mode of the host's device."""
    try:
        descriptor = open_in(root, "dev/null", os.O_RDWR | os.O_NOCTTY)
    except KernelError as error:
        text = f"the container's /dev/null can't be opened: {os.strerror(error.errno)}"
        hint = "what is mounted at /dev has to have the device nodes: mount nothing there, or all of it: -v /dev:/dev"
        raise ImageError(text, hint) from None
    if not _is_null(descriptor):
        os.close(descriptor)
        raise KernelError("openat2", ("root", "dev/null"), 19, "the container's /dev/null isn't the null device")
    return descriptor


def _own(descriptor: int, uid: int, mode: int = -1) -> None:
    """Give a stream to the container's user. Where that isn't allowed (a user namespace that lacks the id, somebody
    else's pipe) it stays as it is: the open descriptor works all the same."""
    try:
        os.fchown(descriptor, uid, -1)
        if mode >= 0:
            os.fchmod(descriptor, mode)
    except OSError:
        pass


def _put_in_place(sources: list[int]) -> None:
    """Make the three descriptors 0, 1 and 2, to be inherited, whatever numbers they have now."""
    for number, source in enumerate(sources):
        if source < 3 and source != number:
            sources[number] = fcntl(source, F_DUPFD_CLOEXEC, 3)
    for number, source in enumerate(sources):
        if source == number:
            os.set_inheritable(number, True)
        else:
            os.dup2(source, number)
