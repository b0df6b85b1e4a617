"""Terminals: the container's own pseudo-terminal, and the modes and the size of the caller's.

    script -qc COMMAND /dev/null        another program that puts a pseudo-terminal between a command and the user
    stty raw -echo; stty rows 24 cols 80

A container never gets the caller's terminal: whoever holds that can read its keys, change its modes and, with TIOCSTI,
type commands into the shell that it came from. It gets a pair of its own from its own devpts instance. The container's
end is /dev/pts/0 and /dev/console there; the other end, the master, goes to the process outside that copies.

man 7 pty, man 4 ptmx, man 2 ioctl_tty, man 3 termios
"""

from __future__ import annotations

from errno import ENODEV
from fcntl import F_DUPFD_CLOEXEC, fcntl, ioctl

from ..errors import ImageError, KernelError
from ..plan.step import PARENT, RUNNER, Register, Row, Step
from ..unistd import S_ISCHR, S_ISFIFO, os
from .mount_points import tree_of
from .mounts import AT_EMPTY_PATH, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE, attaching
from .paths import Beyond, Tree

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
    """Open a pseudo-terminal in the container's own devpts: the master into "console", the slave into "terminal".

    It gets the size of the caller's terminal, the first of its standard output, input and error that is one.
    """

    __slots__ = ()

    phase = "filesystem"
    why = "The container gets a terminal of its own; the caller's never crosses, so no keys can be pushed into it."
    man = "pts(4), ioctl_tty(2)"

    def __init__(self) -> None:
        super().__init__(PARENT)

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def gives(self) -> tuple[str, ...]:
        return ("console", "terminal", "place /dev/console")

    def apply(self, slots: Slots) -> None:
        tree = tree_of(slots)
        try:
            master = _open(tree, "/dev/pts/ptmx")
        except KernelError as error:
            text = f"the container's /dev/pts/ptmx can't be opened: {os.strerror(error.errno)}"
            hint = "-t needs a devpts at /dev/pts: mount nothing at /dev, or leave -t out"
            raise ImageError(text, hint) from None
        slots.give("console", master)
        try:
            ioctl(master, TIOCSPTLCK, bytes(4))
            slots.give("terminal", _open_slave(tree, master))
        except OSError as error:
            hint = "a terminal needs a devpts instance at /dev/pts"
            raise KernelError("ioctl", ("/dev/pts/ptmx", "TIOCSPTLCK"), error.errno or 0, hint) from None
        place = tree.find("/dev/console", os.O_PATH, 0o755, 0o600)[1]
        assert not isinstance(place, Beyond)
        slots.give("place /dev/console", place)
        for mine in (1, 0, 2):
            size = window_size(mine)
            if size is not None:
                set_window_size(master, size)
                _share_character_set(mine, master)
                return

    def call(self) -> str:
        return (
            'openat2(ROOT, "dev/pts/ptmx", {O_RDWR|O_NOCTTY|O_CLOEXEC, RESOLVE_IN_ROOT}); '
            "ioctl(console, TIOCSPTLCK, 0); ioctl(console, TIOCGPTPEER, O_RDWR|O_NOCTTY|O_CLOEXEC); "
            "ioctl(1, TIOCGWINSZ, &size); ioctl(console, TIOCSWINSZ, &size)"
        )


def _open(tree: Tree, path: str) -> int:
    """A terminal or a device of the container's, to be read and written; raises KernelError."""
    place = tree.find(path, os.O_RDWR | os.O_NOCTTY)[1]
    if isinstance(place, Beyond):
        raise KernelError("openat2", ("root", path), ENODEV)
    return place


def _open_slave(tree: Tree, master: int) -> int:
    """The other end of a pseudo-terminal: from the kernel directly, so that no path can lead elsewhere."""
    flags = os.O_RDWR | os.O_NOCTTY
    try:
        return ioctl(master, TIOCGPTPEER, flags | os.O_CLOEXEC)
    except OSError:  # before Linux 4.13, or filtered by an outer container
        index = int.from_bytes(ioctl(master, TIOCGPTN, bytes(4)), "little")
        return _open(tree, f"/dev/pts/{index}")


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


class BindConsole(Step):
    """Put the container's terminal at /dev/console too."""

    __slots__ = ()

    phase = "filesystem"
    why = "Programs that look for the system's console, an init say, find the container's terminal there."
    man = "open_tree(2)"

    def takes(self) -> tuple[str, ...]:
        return ("terminal", "place /dev/console")

    def rows(self, slots: Slots) -> list[Row]:
        clone = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH
        return [
            Row("open_tree", (slots.take("terminal"), b"", clone), store=2),
            attaching(Register(2), slots.take("place /dev/console")),
        ]

    def call(self) -> str:
        return (
            'open_tree(terminal, "", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH); '
            'move_mount(tree, "", "/dev/console", "", MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH)'
        )


class ChooseStreams(Step):
    """Open what will be the container's standard input, output and error, into "stream 0" to "stream 2".

    interactive: whether it has the caller's input; it is /dev/null otherwise. terminal: whether the three are its
    own terminal (the slot "terminal") instead of the descriptors in the slots "stdin", "stdout" and "stderr". They are
    given to the container's user, where one is found ("uid").
    """

    __slots__ = ("interactive", "terminal")

    phase = "filesystem"
    why = "Only three streams lead out of the container; its /dev/null is its own, and its user may reopen what is its."
    man = "null(4), fchown(2)"

    def __init__(self, interactive: bool, terminal: bool) -> None:
        super().__init__(PARENT)
        self.interactive = interactive
        self.terminal = terminal

    def takes(self) -> tuple[str, ...]:
        if self.terminal:
            return ("terminal",)
        return ("tree", "stdin", "stdout", "stderr") if self.interactive else ("tree", "stdout", "stderr")

    def gives(self) -> tuple[str, ...]:
        return () if self.terminal else ("stream 0", "stream 1", "stream 2")

    def apply(self, slots: Slots) -> None:
        uid = slots.found.get("uid")
        owner = uid if isinstance(uid, int) else 0
        if "owners" in slots.found:
            from .idmap import owner as outside

            owner = outside(slots, owner, 0)[0]
        if self.terminal:
            _own(slots.take("terminal"), owner, 0o620)
            return
        names = ("stdin" if self.interactive else "", "stdout", "stderr")
        for number, name in enumerate(names):
            stream = slots.take(name) if name else -1
            if not name or _is_null(stream):
                slots.give(f"stream {number}", _open_null(tree_of(slots)))
                continue
            if owner and S_ISFIFO(os.fstat(stream).st_mode):
                _own(stream, owner)  # else a program with that id can't open /dev/stdout
            # Above the three that they become, so that none is overwritten before it is in place.
            slots.give(f"stream {number}", fcntl(stream, F_DUPFD_CLOEXEC, 3))

    def call(self) -> str:
        if self.terminal:
            return "fchown(terminal, uid, -1); fchmod(terminal, 0620)"
        return 'openat2(ROOT, "dev/null", {O_RDWR|O_NOCTTY|O_CLOEXEC, RESOLVE_IN_ROOT})'


class UseStreams(Step):
    """Start a session, and put the container's standard input, output and error in place.

    terminal: whether the three are its own terminal (the slot "terminal"), which becomes the controlling terminal of
    the new session, instead of what `ChooseStreams` chose.
    """

    __slots__ = ("terminal",)

    phase = "privileges"
    why = "A session of its own keeps the caller's terminal out of reach; only 0, 1 and 2 lead out of the container."
    man = "setsid(2)"

    def __init__(self, terminal: bool) -> None:
        super().__init__(RUNNER)
        self.terminal = terminal

    def takes(self) -> tuple[str, ...]:
        return ("terminal",) if self.terminal else ("stream 0", "stream 1", "stream 2")

    def rows(self, slots: Slots) -> list[Row]:
        rows = [Row("setsid", ())]
        if self.terminal:
            terminal = slots.take("terminal")
            rows.append(Row("ioctl", (terminal, TIOCSCTTY, 0)))
        return [*rows, *(Row("dup3", (stream, number, 0)) for number, stream in enumerate(self._streams(slots)))]

    def _streams(self, slots: Slots) -> list[int]:
        return [slots.take("terminal" if self.terminal else f"stream {number}") for number in range(3)]

    def call(self) -> str:
        calls = ["setsid()"]
        if self.terminal:
            calls.append("ioctl(terminal, TIOCSCTTY, 0)")
        calls += [f"dup3({'terminal' if self.terminal else f'stream {number}'}, {number}, 0)" for number in range(3)]
        return "; ".join(calls)

    def shell(self) -> str:
        return "" if self.terminal else "setsid COMMAND"


def _is_null(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE


def _open_null(tree: Tree) -> int:
    """The container's own /dev/null. With the host's, its root user could change the mode of the host's device."""
    try:
        descriptor = _open(tree, "/dev/null")
    except KernelError as error:
        text = f"the container's /dev/null can't be opened: {os.strerror(error.errno)}"
        hint = "what is mounted at /dev has to have the device nodes: mount nothing there, or all of it: -v /dev:/dev"
        raise ImageError(text, hint) from None
    if not _is_null(descriptor):
        os.close(descriptor)
        raise KernelError("openat2", ("root", "dev/null"), ENODEV, "the container's /dev/null isn't the null device")
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
