"""`--env-file`: variables from a file, by Docker's rules. Loaded only when one is given.

A line is `NAME=value` (the value as it stands, quotes and spaces included), `NAME` alone hands on the caller's
variable, `#` begins a comment line, empty lines don't count.
"""

from __future__ import annotations

from ..errors import UsageError
from ..unistd import os
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 1 << 20


def read_env_file(path: str, environ: Mapping[str, str]) -> list[str]:
    """The `NAME=value` entries of a file; environ: the caller's variables. Raises UsageError with the line's number."""
    entries: list[str] = []
    for number, line in lines(path, "--env-file"):
        name, equals, _ = line.partition("=")
        if not equals:
            name = name.rstrip()
        problem = ""
        if not name:
            problem = "there is no name before the ="
        elif any(letter.isspace() for letter in name):
            problem = f"the name {shorten(name)!r} has a space in it"
        elif "\0" in line:
            problem = "there is a zero byte in it"
        if problem:
            raise UsageError(f"--env-file {shorten(path)}, line {number}: {problem}", "NAME=value, or NAME alone")
        if equals:
            entries.append(line)
        elif name in environ:
            entries.append(f"{name}={environ[name]}")
    return entries


def lines(path: str, option: str) -> list[tuple[int, str]]:
    """The lines of a file that say something, each with its number; option: for the message of a UsageError."""
    try:
        # Not blocking, as the name may be a FIFO's that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            data = b""
            while block := os.read(descriptor, 65536):
                data += block
                if len(data) > _LARGEST:
                    raise UsageError(f"{option} {shorten(path)} has more than 1 MiB", "is it the right file?")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UsageError(f"{option} {shorten(path)}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{option} {shorten(path)} is not UTF-8 text") from None
    found = [(number, line.removesuffix("\r").lstrip()) for number, line in enumerate(text.split("\n"), 1)]
    return [(number, line) for number, line in found if line and not line.startswith("#")]
