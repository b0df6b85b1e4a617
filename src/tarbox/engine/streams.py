"""Standard streams of a foreground container: what it may hold itself, and how everything else is copied.

    COMMAND <&- | cat                a container's output that arrives through a pipe and another process
    cat FILE | COMMAND               its input likewise

An open descriptor is more than a stream of bytes. A terminal can be typed into, a directory is a way out of the
container, and a file that was opened for reading can be opened again for writing through /proc/self/fd. So only what is
no more than a stream crosses: pipes, sockets and /dev/null, at no cost. For the rest the container gets a pipe.

Copying is read and write in chunks of 64 KiB. splice(2) took as long in tries, and it would put pages of the host's
files into a pipe that the container reads.

The caller's descriptors are shared with its shell and its other programs, so that their O_NONBLOCK flag must not be
touched. A terminal is opened once more instead, with the flag of its own; a file never makes anybody wait; and a named
FIFO gets no more at a time than it takes without waiting.

man 7 pipe, man 2 poll, man 3 stdin
"""

from __future__ import annotations

from errno import EIO, EPIPE
from fcntl import F_GETFL, F_SETPIPE_SZ, fcntl
from select import POLLIN, POLLOUT

from ..kernel.terminal import NULL_DEVICE
from ..unistd import S_ISCHR, S_ISFIFO, S_ISREG, S_ISSOCK, os

CHUNK = 1 << 16
PIPE_SIZE = 1 << 18  # fast enough; all pipes of one plain user may hold 64 MiB together
_PIPE_BUF = 4096  # a pipe that poll(2) calls writable takes as many bytes without waiting
_TERMINAL_BUF = 64  # likewise, about, for a terminal that can't be opened once more


def may_cross(descriptor: int) -> bool:
    """Whether a container may hold the descriptor itself: an unnamed pipe, a socket or /dev/null."""
    status = os.fstat(descriptor)
    if S_ISFIFO(status.st_mode):
        try:  # a named FIFO has owners, modes and another end that can be opened
            return os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:[")
        except OSError:
            return False
    return S_ISSOCK(status.st_mode) or (S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE)


def are_one(first: int, second: int) -> bool:
    """Whether two descriptors lead to the same place in the same way, as after `>FILE 2>&1`.

    One pipe for both then keeps the order of what is written to them.
    """
    mine, other = os.fstat(first), os.fstat(second)
    if (mine.st_dev, mine.st_ino) != (other.st_dev, other.st_ino) or fcntl(first, F_GETFL) != fcntl(second, F_GETFL):
        return False
    if not S_ISREG(mine.st_mode):
        return True
    return os.lseek(first, 0, os.SEEK_CUR) == os.lseek(second, 0, os.SEEK_CUR)


def make_pipe() -> tuple[int, int]:
    """A pipe for the container: (end to read, end to write), both closed on exec, larger than usual if allowed."""
    ends = os.pipe()
    try:
        fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # the user holds too many already
        pass
    return ends


def reopen_terminal(descriptor: int, flags: int) -> int | None:
    """Open the terminal behind a descriptor once more, so that it never waits; None if it isn't one or can't be."""
    if not os.isatty(descriptor):
        return None
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # somebody else's terminal, after su
        return None


class Copy:
    """One direction of one stream: what can be read at `source` is written to `sink`, one chunk at a time.

    source, sink: descriptors, -1 once that side has ended. what: the stream, for messages. owned: the descriptors to
    close in the end. pending: what was read and isn't written yet. limit: the most bytes of one write. error: one line
    about why it ended early.
    """

    __slots__ = ("error", "limit", "owned", "pending", "sink", "source", "what")

    def __init__(self, what: str, source: int, sink: int, owned: tuple[int, ...] = ()) -> None:
        self.what = what
        self.source = source
        self.sink = sink
        self.owned = list(owned)
        self.pending = memoryview(b"")
        self.limit = CHUNK
        self.error = ""

    @classmethod
    def of_input(cls, caller: int, sink: int, owned: tuple[int, ...]) -> Copy:
        """From a descriptor of the caller to one that never waits, into the container."""
        again = reopen_terminal(caller, os.O_RDONLY)
        if again is None:
            return cls("standard input", caller, sink, owned)
        return cls("standard input", again, sink, (*owned, again))

    @classmethod
    def of_output(cls, what: str, source: int, caller: int, owned: tuple[int, ...]) -> Copy:
        """From a descriptor that never waits, out of the container, to one of the caller."""
        again = reopen_terminal(caller, os.O_WRONLY)
        if again is not None:
            return cls(what, source, again, (*owned, again))
        copy = cls(what, source, caller, owned)
        if not S_ISREG(os.fstat(caller).st_mode):
            copy.limit = _TERMINAL_BUF if os.isatty(caller) else _PIPE_BUF
        return copy

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.sink < 0

    def interest(self) -> tuple[tuple[int, int], ...]:
        """What to wait for, as pairs for poll(2). The end of the sink is always of interest: nobody reads any more."""
        if self.pending:
            return ((self.sink, POLLOUT),)
        return ((self.sink, 0), (self.source, POLLIN)) if self.sink >= 0 else ()

    def read(self) -> None:
        """Read one chunk, and write what can be written at once.

        Raises OSError with EIO for a terminal that isn't open at the other end.
        """
        try:
            data = os.read(self.source, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == EIO:
                raise
            self.error = f"{self.what} can't be read: {error.strerror}"
            data = b""
        if not data:
            self.end()
            return
        self.pending = memoryview(data)
        if self.limit == CHUNK:
            self.write()

    def write(self) -> None:
        """Write what is pending, as far as that goes without waiting."""
        while self.pending:
            try:
                written = os.write(self.sink, self.pending[: self.limit])
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != EPIPE:
                    self.error = f"{self.what} can't be written: {error.strerror}"
                self.close()
                return
            self.pending = self.pending[written:]
            if self.limit < CHUNK:
                break  # more only when poll(2) says again that there is room
        if self.source < 0 and not self.pending:
            self.close()

    def end(self) -> None:
        """Read no more; the sink is closed as soon as everything is written."""
        self.source = -1
        if not self.pending:
            self.close()

    def close(self) -> None:
        """Give up both sides and close what was ours: the container sees the end of its input, or SIGPIPE."""
        self.source = self.sink = -1
        self.pending = memoryview(b"")
        while self.owned:
            os.close(self.owned.pop())
