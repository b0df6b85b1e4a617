"""Python's `os` without the millisecond that it takes to import: what the start of a container needs of it.

    python -I -S -X importtime -c 'import os'

Nearly all of `os` is the built-in module `posix`, which the interpreter has loaded before our first line runs. What
`os` adds is written in Python and brings abstract base classes along, which are most of its price. So modules here say

    from ..unistd import S_ISDIR, os

and get, as `os`, everything of `posix` and the few functions below, under the names and with the results that `os`
gives them, and what they need of `stat`. Whatever else is asked of it, and paths that aren't text, go to the real one,
which is imported then. A program that has loaded `os` before it uses tarbox gets that one and nothing of this. For type
checkers it always is.

https://docs.python.org/3/library/os.html, man 7 path_resolution, man 0p unistd.h, man 0p sys_stat.h
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os as os
    import posix
    from collections.abc import Callable, Mapping
    from typing import Any

    _path_normpath: Callable[[str], str]
else:
    try:
        import posix
        from posix import _path_normpath

        os = sys.modules.get("os")
    except ImportError:  # another Python than CPython, or one that moved its private parts
        import os

_CODEC = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_TEXT = {str}
_MOST_LINKS = 40  # as many as the kernel follows
_MODULE = type(sys)
_environment: list[Mapping[str, str]] = []


def _real() -> Any:
    return __import__("os")


def _beyond(name: str) -> Any:
    """What `os` has and this doesn't. The environment may be changed by whoever has the real one."""
    if name == "environ" and "os" not in sys.modules:
        if not _environment:
            found = {fsdecode(key): fsdecode(value) for key, value in posix.environ.items()}
            _environment.append(type(vars(_MODULE))(found))  # only to be read: a change would reach nobody
        return _environment[0]
    return getattr(_real(), name)


def _beyond_path(name: str) -> Any:
    return getattr(_real().path, name)


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function where all arguments are text, `os.path`'s own where one is bytes, a Path or an option."""

    def either(*paths: Any, **options: Any) -> Any:
        if not options and _TEXT.issuperset(map(type, paths)):
            return function(*paths)
        return getattr(_real().path, function.__name__)(*paths, **options)

    return either


# --- stat ------------------------------------------------------------------------------------------------------------

S_IFIFO, S_IFCHR, S_IFDIR, S_IFBLK, S_IFREG, S_IFLNK, S_IFSOCK = [kind << 12 for kind in (1, 2, 4, 6, 8, 10, 12)]
S_ISVTX, S_IRWXG, S_IRWXO, S_IWGRP, S_IWOTH = 0o1000, 0o070, 0o007, 0o020, 0o002


def _is(kind: int) -> Callable[[int], bool]:
    return lambda mode: mode & 0o170000 == kind


S_ISFIFO, S_ISCHR, S_ISDIR, S_ISBLK = _is(S_IFIFO), _is(S_IFCHR), _is(S_IFDIR), _is(S_IFBLK)
S_ISREG, S_ISLNK, S_ISSOCK = _is(S_IFREG), _is(S_IFLNK), _is(S_IFSOCK)


def S_IMODE(mode: int) -> int:  # noqa: N802
    """The permissions of a file's mode."""
    return mode & 0o7777


# --- os --------------------------------------------------------------------------------------------------------------


def fsencode(path: Any) -> bytes:
    """A path as the kernel takes it."""
    path = posix.fspath(path)
    return path.encode(*_CODEC) if isinstance(path, str) else path


def fsdecode(path: Any) -> str:
    """A path as text, whatever its bytes."""
    path = posix.fspath(path)
    return path.decode(*_CODEC) if isinstance(path, bytes) else path


def makedirs(name: Any, mode: int = 0o777, exist_ok: bool = False) -> None:
    """Make a directory and those above it that are missing; `mode` is the last one's."""
    above, last = split(name)
    if not last:
        above, last = split(above)
    if above and last and not exists(above):
        try:
            makedirs(above, exist_ok=exist_ok)
        except FileExistsError:  # made by somebody else meanwhile
            pass
        if last in (".", b"."):
            return
    try:
        posix.mkdir(name, mode)
    except OSError:  # EEXIST, or what the kernel found to say before that
        if not exist_ok or not isdir(name):
            raise


# --- os.path ---------------------------------------------------------------------------------------------------------


@_of_text
def isabs(path: str) -> bool:
    """Whether it begins at the root."""
    return path.startswith("/")


@_of_text
def join(path: str, *more: str) -> str:
    """One path of several, each seen from the one before."""
    for part in more:
        if part.startswith("/") or not path:
            path = part
        else:
            path += part if path.endswith("/") else "/" + part
    return path


@_of_text
def split(path: str) -> tuple[str, str]:
    """What is before the last slash, and what is behind it."""
    at = path.rfind("/") + 1
    above = path[:at]
    return above.rstrip("/") or above, path[at:]


@_of_text
def dirname(path: str) -> str:
    """What is before the last slash."""
    above = path[: path.rfind("/") + 1]
    return above.rstrip("/") or above


@_of_text
def basename(path: str) -> str:
    """What is behind the last slash."""
    return path[path.rfind("/") + 1 :]


@_of_text
def normpath(path: str) -> str:
    """The path without `.`, `..` and double slashes, as if nothing were a symbolic link."""
    return _path_normpath(path) or "."


@_of_text
def abspath(path: str) -> str:
    """The same, from the root."""
    return normpath(path if path.startswith("/") else f"{posix.getcwd()}/{path}")  # type: ignore[no-any-return]


@_of_text
def realpath(path: str) -> str:
    """The path from the root without symbolic links, as far as there is something."""
    done = "/" if path.startswith("/") else posix.getcwd()
    rest = path.split("/")[::-1]
    links = 0
    while rest:
        name = rest.pop()
        if name == "..":
            done = dirname(done)
        elif name and name != ".":
            above, done = done, join(done, name)
            try:
                target = posix.readlink(done)
            except OSError:
                continue
            links += 1
            if links > _MOST_LINKS:
                return _real().path.realpath(path)  # type: ignore[no-any-return]
            done = "/" if target.startswith("/") else above
            rest += target.split("/")[::-1]
    return done


@_of_text
def expanduser(path: str) -> str:
    """The path with the caller's home directory for `~`."""
    if (path == "~" or path.startswith("~/")) and "HOME" in (environment := _beyond("environ")):
        return environment["HOME"].rstrip("/") + path[1:] or "/"
    return _real().path.expanduser(path)  # type: ignore[no-any-return]


def exists(path: Any) -> bool:
    """Whether there is something, behind a symbolic link too."""
    try:
        posix.stat(path)
    except (OSError, ValueError):
        return False
    return True


def lexists(path: Any) -> bool:
    """Whether there is something, be it a symbolic link to nothing."""
    try:
        posix.lstat(path)
    except (OSError, ValueError):
        return False
    return True


def isdir(path: Any) -> bool:
    """Whether there is a directory, behind a symbolic link too."""
    try:
        return S_ISDIR(posix.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def isfile(path: Any) -> bool:
    """Whether there is a regular file, behind a symbolic link too."""
    try:
        return S_ISREG(posix.stat(path).st_mode)
    except (OSError, ValueError):
        return False


if not TYPE_CHECKING and os is None:
    os = _MODULE("os")
    vars(os).update(
        vars(posix), path=_MODULE("posixpath"), fsencode=fsencode, fsdecode=fsdecode, makedirs=makedirs,
        SEEK_SET=0, SEEK_CUR=1, SEEK_END=2, __getattr__=_beyond,
    )  # fmt: skip
    del os.environ  # there in bytes
    vars(os.path).update(
        isabs=isabs, join=join, split=split, dirname=dirname, basename=basename, normpath=normpath, abspath=abspath,
        realpath=realpath, expanduser=expanduser, exists=exists, lexists=lexists, isdir=isdir, isfile=isfile,
        __getattr__=_beyond_path,
    )  # fmt: skip
