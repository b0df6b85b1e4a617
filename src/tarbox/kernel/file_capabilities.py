"""Capabilities of a file: what a program gets when it is executed, whoever executes it, in place of set-uid root.

    setcap cap_net_raw+ep FILE; getcap FILE; setcap -r FILE        getfattr -n security.capability -e hex FILE

They are an extended attribute of 12 bytes (version 1, from before 2008), 20 (version 2) or 24 (version 3, which
counts only where the user 0 is the given one of the machine, as in a user namespace). All numbers in it are
little-endian, on every processor. One bit says of all permitted ones together that they are effective at once.

man 7 capabilities, man 8 setcap, man 2 setxattr
"""

from __future__ import annotations

import errno

from ..errors import KernelError, TarboxError, UsageError
from ..unistd import S_ISREG, os
from . import mountinfo
from .capability_text import Sets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ATTRIBUTE = "security.capability"

_VERSION, _EFFECTIVE = 0xFF000000, 0x000001
_WORDS = {1: 1, 2: 2, 3: 2}  # pairs of 32 bits by version
_SIZES = {1: 12, 2: 20, 3: 24}
_KERNELS_OWN = ("proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "devpts", "mqueue")
_NO_CAPABILITIES = (errno.ENODATA, errno.ENOTSUP)


class FileCapabilities:
    """What the attribute says: the sets, its version (1 to 3), and for version 3 which user must be 0, `rootid`."""

    __slots__ = ("rootid", "sets", "version")

    def __init__(self, sets: Sets, version: int = 2, rootid: int | None = None) -> None:
        self.sets = sets
        self.version = version
        self.rootid = rootid


def decode(data: bytes) -> FileCapabilities:
    """Read the bytes of the attribute; raises ValueError for what the kernel wouldn't take either."""
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
    version = (words[0] & _VERSION) >> 24 if words else 0
    if version not in _SIZES or len(data) != _SIZES[version]:
        raise ValueError(f"{len(data)} bytes of version {version}")
    permitted = inheritable = 0
    for pair in range(_WORDS[version]):
        permitted |= words[1 + 2 * pair] << 32 * pair
        inheritable |= words[2 + 2 * pair] << 32 * pair
    effective = permitted | inheritable if words[0] & _EFFECTIVE else 0
    return FileCapabilities(Sets(permitted, inheritable, effective), version, words[5] if version == 3 else None)


def encode(sets: Sets, rootid: int | None = None) -> bytes:
    """The bytes of the attribute, of version 2, or 3 with a `rootid`; raises UsageError where it can't say that.

    The effective set must be empty or hold all that the others hold: there is one bit for it.
    """
    others = sets.permitted | sets.inheritable
    if sets.effective & ~others:
        raise UsageError("capabilities that are effective must be permitted as well", "e.g. cap_net_raw=ep")
    if sets.effective not in (0, others):
        raise UsageError("a file's capabilities are all effective or none is", "give each of them e, or none")
    words = [(3 if rootid is not None else 2) << 24 | (_EFFECTIVE if sets.effective else 0)]
    for shift in (0, 32):
        words += [sets.permitted >> shift & 0xFFFFFFFF, sets.inheritable >> shift & 0xFFFFFFFF]
    if rootid is not None:
        if not 0 <= rootid < 2**32 - 1:
            raise UsageError(f"{rootid} is not a user's number")
        words.append(rootid)
    return b"".join(word.to_bytes(4, "little") for word in words)


def read(path: str, follow: bool = True) -> FileCapabilities | None:
    """The capabilities of a file; None where it has none. follow: whether a symbolic link stands for its target.

    Raises KernelError, and TarboxError for an attribute that makes no sense.
    """
    try:
        data = os.getxattr(path, ATTRIBUTE, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_CAPABILITIES:
            return None
        raise KernelError("getxattr", (path, ATTRIBUTE), error.errno or 0) from None
    try:
        return decode(data)
    except ValueError as error:
        raise TarboxError(f"{path} has a {ATTRIBUTE} that makes no sense: {error}") from None


def write(path: str, data: bytes) -> None:
    """Give a regular file the attribute; raises KernelError, and UsageError for anything else than a regular file."""
    handle = _regular(path)
    try:
        os.setxattr(f"/proc/self/fd/{handle}", ATTRIBUTE, data)
    except OSError as error:
        raise KernelError("setxattr", (path, ATTRIBUTE), error.errno or 0, _hint(error.errno)) from None
    finally:
        os.close(handle)


def remove(path: str) -> bool:
    """Take the attribute away; whether there was one. Raises as `write` does."""
    handle = _regular(path)
    try:
        os.removexattr(f"/proc/self/fd/{handle}", ATTRIBUTE)
        return True
    except OSError as error:
        if error.errno in _NO_CAPABILITIES:
            return False
        raise KernelError("removexattr", (path, ATTRIBUTE), error.errno or 0, _hint(error.errno)) from None
    finally:
        os.close(handle)


def _regular(path: str) -> int:
    """A descriptor of the file, so that what was checked is what is changed."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", (path,), error.errno or 0) from None
    if not S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UsageError(f"{path} isn't a regular file, and only such have capabilities")
    return handle


def _hint(number: int | None) -> str:
    if number == errno.EPERM:
        return "this needs root, or CAP_SETFCAP over the file's owner"
    return "its file system keeps no capabilities" if number == errno.ENOTSUP else ""


def search(folder: str, unreadable: list[str]) -> Iterator[tuple[str, FileCapabilities]]:
    """All files below a folder that have capabilities, by path; other file systems mounted there are looked at too.

    unreadable: gets the folders that couldn't be read, and files whose attribute makes no sense. Symbolic links aren't
    followed, and the kernel's own file systems, such as /proc, aren't searched.
    """
    kernels = _kernel_devices()
    ahead = [folder]
    while ahead:
        here = ahead.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            unreadable.append(here)
            continue
        below = []
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.stat(follow_symlinks=False).st_dev not in kernels:
                        below.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    found = read(entry.path, follow=False)
                    if found:
                        yield entry.path, found
            except (OSError, TarboxError):
                unreadable.append(entry.path)
        ahead += reversed(below)


def _kernel_devices() -> set[int]:
    """The devices of file systems that hold no programs, and are large or odd to walk."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            mounts = mountinfo.parse(table.read())
    except OSError:
        return set()
    pairs = [mount.device.partition(":") for mount in mounts if mount.fstype in _KERNELS_OWN]
    return {os.makedev(int(major), int(minor)) for major, _, minor in pairs}
