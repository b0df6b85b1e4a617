"""Whether a call could have reached its file without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: it is tried.

    setpriv --bounding-set -dac_override,-dac_read_search test -w FILE

The caller of the call and this thread must be the same user and group: root, or the one user of a namespace. This
thread gives both capabilities up, and its other groups, looks for the file from the caller's root or directory, and
asks the kernel. What the file is a moment later, when the call is made, may differ: it is a guess, and a good one.

man 2 faccessat2, man 7 path_resolution
"""

from __future__ import annotations

from errno import EACCES, ENOENT

from ..errors import KernelError
from ..kernel.capabilities import mask
from ..kernel.paths import open_in
from ..kernel.syscall import buffer, syscall
from ..unistd import os

_HERE = -1  # in the place of an argument: the working directory
_LONGEST = 4096
_AT_FDCWD = 0xFFFFFF9C
_AT_EACCESS, _AT_EMPTY_PATH = 0x200, 0x1000
_VERSION_3 = 0x20080522

# By name: (where the directory's descriptor is, where the path is, what is done).
PATHS: dict[str, tuple[tuple[int, int, str], ...]] = {}
for _names, *_places in (
    ("open", (_HERE, 0, "open 1")),
    ("openat", (0, 1, "open 2")),
    ("creat", (_HERE, 0, "create")),
    ("truncate truncate64", (_HERE, 0, "write")),
    ("execve", (_HERE, 0, "execute")),
    ("execveat", (0, 1, "execute")),
    ("chdir", (_HERE, 0, "execute")),
    ("stat lstat stat64 lstat64 readlink statfs getxattr lgetxattr", (_HERE, 0, "find")),
    ("newfstatat fstatat64 statx readlinkat fchmodat fchownat utimensat", (0, 1, "find")),
    ("access", (_HERE, 0, "ask 1")),
    ("faccessat faccessat2", (0, 1, "ask 2")),
    ("chmod chown lchown", (_HERE, 0, "find")),
    ("mkdir rmdir unlink mknod", (_HERE, 0, "parent")),
    ("mkdirat unlinkat mknodat", (0, 1, "parent")),
    ("symlink", (_HERE, 1, "parent")),
    ("symlinkat", (1, 2, "parent")),
    ("link rename", (_HERE, 0, "parent"), (_HERE, 1, "parent")),
    ("linkat renameat renameat2", (0, 1, "parent"), (2, 3, "parent")),
):
    for _name in str(_names).split():
        PATHS[_name] = tuple(_places)


def give_up_rights() -> None:
    """Take both capabilities and the groups from this thread, and from no other."""
    try:
        syscall("setgroups", 0, None)
    except KernelError:
        pass  # in a user's own namespace they can't be dropped
    header, sets = _VERSION_3.to_bytes(4, "little") + bytes(4), buffer(24)
    syscall("capget", header, sets)
    words = bytearray(sets)
    effective = int.from_bytes(words[:4], "little") & ~mask(["DAC_OVERRIDE", "DAC_READ_SEARCH"])
    words[:4] = effective.to_bytes(4, "little")
    syscall("capset", header, bytes(words))


def needs_rights(name: str, pid: int, arguments: tuple[int, ...]) -> str:
    """What this call can only do with one of the two: "read" (or look for), "write", or "" for nothing.

    Raises OSError and KernelError where its caller has just died.
    """
    for directory, path, action in PATHS.get(name, ()):
        text = _text(pid, arguments[path])
        if not text:
            continue
        if not text.startswith("/"):
            descriptor = arguments[directory] & 0xFFFFFFFF if directory != _HERE else _AT_FDCWD
            top = "cwd" if descriptor == _AT_FDCWD else f"fd/{descriptor}"
            text = os.readlink(f"/proc/{pid}/{top}") + "/" + text
        found = _try(pid, text, *_wanted(action, arguments))
        if found:
            return found
    return ""


def _text(pid: int, address: int) -> str:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        page = memory.read(_LONGEST - address % _LONGEST)
        if 0 not in page:
            page += memory.read(_LONGEST)
    return os.fsdecode(page.partition(b"\0")[0])


def _wanted(action: str, arguments: tuple[int, ...]) -> tuple[int, bool]:
    """The rights to the file (man 2 access), and whether its directory is written to where there is no file."""
    kind, _, index = action.partition(" ")
    if kind == "open":
        flags = arguments[int(index)]
        if flags & os.O_PATH:
            return 0, False
        rights = (os.R_OK, os.W_OK, os.R_OK | os.W_OK, 0)[flags & os.O_ACCMODE]
        return rights | (os.W_OK if flags & os.O_TRUNC else 0), bool(flags & os.O_CREAT)
    if kind == "ask":
        return arguments[int(index)] & 7, False
    rights = {"create": os.W_OK, "write": os.W_OK, "execute": os.X_OK, "find": 0, "parent": -1}[kind]
    return rights, kind == "create"


def _try(pid: int, path: str, rights: int, creates: bool) -> str:
    if rights < 0:
        return _parent(pid, path)
    what = "write" if rights & os.W_OK else "read"
    try:
        _ask(pid, path, rights)
    except KernelError as error:
        if error.errno == EACCES:
            return what
        if error.errno == ENOENT and creates:
            return _parent(pid, path)
    return ""


def _parent(pid: int, path: str) -> str:
    try:
        _ask(pid, path.rstrip("/").rpartition("/")[0] or "/", os.W_OK | os.X_OK)
    except KernelError as error:
        return "write" if error.errno == EACCES else ""
    return ""


def _ask(pid: int, path: str, rights: int) -> None:
    top = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)
    try:
        handle = open_in(top, path)
    finally:
        os.close(top)
    try:
        if rights:
            syscall("faccessat2", handle, b"", rights, _AT_EACCESS | _AT_EMPTY_PATH)
    finally:
        os.close(handle)
