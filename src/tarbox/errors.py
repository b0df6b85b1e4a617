"""What can go wrong, as one tree.

    TarboxError                 everything that tarbox raises on purpose
    ├── UsageError              the command line or a library argument is wrong
    ├── ConfigError             an OCI document is wrong; names the JSON path
    ├── UnsupportedError        this machine lacks a piece; names it
    ├── ProcessNotFoundError    there is no such process, or it ended meanwhile
    ├── StorageError            the data root or the state folder can't be used
    ├── PortError               a port of the host can't be had
    ├── ImageError              an image can't be used
    │   ├── ImageNotFoundError  there is nothing by that name
    │   ├── ArchiveError        not an archive, cut short, or hostile
    │   └── ArchitectureError   made for another processor
    ├── NetworkError            a network can't be made, used or removed
    │   └── NetworkNotFoundError    there is none by that name
    ├── CommandError            the container's program can't be started
    │   ├── CommandNotFoundError        (exit code 127)
    │   └── CommandNotExecutableError   (exit code 126)
    └── KernelError             a system call failed: the call, its arguments, errno

Every error is one line for people; `hint`, where known, says what to do about it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class TarboxError(Exception):
    """Something failed; `str()` is one line that says what, on what and why.

    message: the line. hint: what the user can do, without a final full stop; empty where nothing is known.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(TarboxError):
    """The command line, or an argument of a library call, can't be meant as it is."""


class ConfigError(TarboxError):
    """An OCI document breaks its specification at `path`, a JSON path such as `$.process.args`."""

    def __init__(self, path: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{path}: {problem}", hint)
        self.path = path


class UnsupportedError(TarboxError):
    """This machine, its kernel or its settings lack something that was asked for."""


class ProcessNotFoundError(TarboxError):
    """There is no process of that number, or it ended while it was looked at."""


class StorageError(TarboxError):
    """The data root or the state folder can't be read or written."""


class PortError(TarboxError):
    """A port of the host is somebody else's, or may not be taken."""


class ImageError(TarboxError):
    """An image can't be used."""


class ImageNotFoundError(ImageError):
    """Nothing goes by that name."""


class ArchiveError(ImageError):
    """A file isn't an archive, ends too early, or tries to do harm."""


class ArchitectureError(ImageError):
    """A program or an image was made for another processor."""


class NetworkError(TarboxError):
    """A network can't be made, used or removed as it is."""


class NetworkNotFoundError(NetworkError):
    """No network goes by that name or id. word: what was asked for. known: the names that there are."""

    def __init__(self, word: str, known: Sequence[str] = ()) -> None:
        shown = word if len(word) <= 60 else f"{word[:57]}..."
        super().__init__(f"there is no network {shown!r}", "see 'tarbox network ls'")
        self.word = word
        self.known = tuple(known)


class CommandError(TarboxError):
    """The container's program can't be started."""


class CommandNotFoundError(CommandError):
    """The program doesn't exist in the container."""


class CommandNotExecutableError(CommandError):
    """The program exists in the container, but can't be executed."""


class KernelError(TarboxError):
    """A system call failed.

    call: its name. arguments: as passed, for people; None when `call` shows them already. errno: the kernel's number.
    shell: the command line that does the same, where there is one.
    """

    def __init__(
        self, call: str, arguments: Sequence[object] | None, errno: int, hint: str = "", shell: str = ""
    ) -> None:
        from posix import strerror  # not from os, which takes a millisecond to import

        shown = call if arguments is None else f"{call}({', '.join(_show(argument) for argument in arguments)})"
        super().__init__(f"{shown}: {strerror(errno)}", hint)
        self.call = call
        self.arguments = None if arguments is None else tuple(arguments)
        self.errno = errno
        self.shell = shell


def _show(argument: object) -> str:
    text = argument.decode("utf-8", "replace") if isinstance(argument, bytes) else str(argument)
    return text if len(text) <= 120 else text[:117] + "..."
