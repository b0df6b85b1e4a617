"""Paths inside a root that somebody else controls, walked so that they can't lead out.

    a container's /etc/passwd may be a symlink to ../../../etc/shadow: open it with the container's root as "/"

The kernel does it in one call (`openat2` with `RESOLVE_IN_ROOT`); where a path has to be made on the way, or the
kernel lacks the call, every component is opened by itself (`O_PATH|O_NOFOLLOW`) and symlinks are followed by hand, from
descriptors alone. Descriptors in, descriptors out: nothing here, and nobody who uses it, joins such a path to a root.

man 2 openat2, man 7 path_resolution, man 2 statfs
"""

from __future__ import annotations

from errno import EAGAIN, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOSYS, ENOTDIR, EPERM

from ..errors import KernelError, TarboxError
from ..plan.step import Register, Row
from ..unistd import S_ISDIR, S_ISLNK, S_ISREG, os
from .syscall import buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
PROC = 0x9FA0  # the file system type of procfs, as statfs(2) tells it
_LINKS = 40  # as many symlinks as the kernel follows in one path
_PIECE = 1 << 16  # bytes that are read at once; for many more, memory would have to be mapped each time

_kernel_walks = True  # until openat2 turns out to be missing


def open_in(root: int, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open `path` as if the directory `root` were "/"; raises KernelError.

    root: a descriptor of a directory. flags: as for open(2); `O_CLOEXEC` is always added. mode: for `O_CREAT`.
    Symlinks are followed inside the root, magic links of /proc are refused.
    """
    global _kernel_walks
    if "\0" in path:  # the kernel would open what is named before it
        raise KernelError("openat2", (path.replace("\0", "\\0"), "RESOLVE_IN_ROOT"), EINVAL)
    flags |= os.O_CLOEXEC
    if _kernel_walks:
        how = how_to_open(flags, mode if flags & os.O_CREAT else 0)
        for attempt in range(64):  # a rename somewhere on the machine can make a ".." uncertain: EAGAIN
            try:
                return syscall("openat2", root, os.fsencode(path) or b".", how, len(how))
            except KernelError as error:
                if error.errno == ENOSYS or (error.errno == EPERM and attempt == 0 and not _has_openat2()):
                    _kernel_walks = False
                    break
                if error.errno != EAGAIN:
                    raise KernelError("openat2", (path, "RESOLVE_IN_ROOT"), error.errno) from None
    return _Walk(root, path).open(flags, mode)


def how_to_open(flags: int, mode: int = 0, resolve: int = _RESOLVE) -> bytes:
    """The `struct open_how` of openat2(2), 24 bytes."""
    return flags.to_bytes(8, "little") + mode.to_bytes(8, "little") + resolve.to_bytes(8, "little")


def opening(top: int | Register, path: str, register: int, flags: int = 0, on: tuple[tuple[int, int], ...] = ()) -> Row:
    """The row by which the runner opens `path` below `top`, the top of a file system of the kernel's, as O_PATH.

    register: where the descriptor is kept. on: as for `Row`.
    """
    how = how_to_open(flags | os.O_PATH | os.O_CLOEXEC)
    return Row("openat2", (top, os.fsencode(path) or b".", how, len(how)), store=register, on=on)


def opening_own(top: int | Register, path: str, register: int, flags: int) -> Row:
    """The row by which the runner opens `path` on the very file system whose top directory is `top`, or fails.

    Nothing that is mounted over a part of the path is entered, and no link leads elsewhere.
    """
    how = how_to_open(flags | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)
    return Row("openat2", (top, os.fsencode(path), how, len(how)), store=register)


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """Make the directory `path` in `root`, with those above it, and return an `O_PATH` descriptor of it.

    mode: of what is made. What exists stays as it is; raises KernelError when a part exists and isn't a directory.
    """
    try:
        return open_in(root, path, os.O_PATH | os.O_DIRECTORY)
    except KernelError as error:
        if error.errno != ENOENT:
            raise
    return _Walk(root, path, directory_mode=mode).open(os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """Make the file `path` in `root` unless something is there, and return an `O_PATH` descriptor of it."""
    try:
        return open_in(root, path)
    except KernelError as error:
        if error.errno != ENOENT:
            raise
    return _Walk(root, path, directory_mode=0o755, file_mode=mode).open(os.O_PATH | os.O_CLOEXEC)


def descend(parent: int, name: str) -> int:
    """Open the directory `name` in the directory `parent` for reading; raises KernelError.

    EXDEV where something is mounted on it, ENOTDIR for anything but a directory, a symlink to one included.
    """
    return syscall("openat2", parent, os.fsencode(name), _DESCENDING, len(_DESCENDING))


def read_in(root: int, path: str, limit: int) -> bytes | None:
    """The contents of the regular file `path` in `root`; None when there is none.

    limit: the most bytes that it may have; raises TarboxError beyond. A FIFO, a device or a directory is an error too,
    and is never opened, let alone waited for. So are files of /proc, as some of them wait to be told something.
    """
    try:
        handle = open_in(root, path)
    except KernelError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return None
        raise
    return _read(handle, path, limit)


def _irregular(path: str) -> TarboxError:
    return TarboxError(f"{path} in the container isn't a regular file", "use an image in which it is one")


def _read(handle: int, path: str, limit: int) -> bytes:
    """The contents of the regular file `handle`, which is closed."""
    try:
        if not S_ISREG(os.fstat(handle).st_mode) or filesystem_of(handle) == PROC:
            raise _irregular(path)
        file = reopen(handle, os.O_RDONLY)
    finally:
        os.close(handle)
    try:
        parts = []
        while limit >= 0 and (part := os.read(file, min(limit + 1, _PIECE))):
            limit -= len(part)
            parts.append(part)
        if limit < 0:
            raise TarboxError(f"{path} in the container is too large to be read", "use an image with a smaller one")
        return b"".join(parts)
    finally:
        os.close(file)


def filesystem_of(handle: int) -> int:
    """The type of the file system that the descriptor leads to, as statfs(2) tells it: PROC, for one."""
    facts = buffer(120)
    syscall("fstatfs", handle, facts)
    return int.from_bytes(bytes(facts)[:8], "little")


def reopen(handle: int, flags: int) -> int:
    """Open what the `O_PATH` descriptor `handle` points at, without walking a path; needs our own /proc."""
    try:
        return os.open(f"/proc/self/fd/{handle}", flags | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", (f"/proc/self/fd/{handle}",), error.errno or 0) from None


def _has_openat2() -> bool:
    try:
        handle = syscall("openat2", -100, b"/", (os.O_PATH).to_bytes(8, "little") + bytes(16), 24)
    except KernelError:
        return False
    os.close(handle)
    return True


_DESCENDING = how_to_open(os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, 0, RESOLVE_NO_XDEV)


class Beyond:
    """A place in a file system that is made only inside the container: `rest` below the top that the slot will hold."""

    __slots__ = ("rest", "slot")

    def __init__(self, slot: str, rest: str) -> None:
        self.slot = slot
        self.rest = rest


class Tree:
    """A container's files while they are put together: a root, and what will lie over places of it.

    Nothing is attached yet, so the kernel can't lead from one part to the next; this does. root: a descriptor of the
    top directory. mounted: by mount point, after all symlinks, the descriptor of the top of what will be there, or the
    name of the slot for what is made only inside the container (/proc).
    """

    __slots__ = ("mounted", "root")

    def __init__(self, root: int) -> None:
        self.root = root
        self.mounted: dict[str, int | str] = {}

    def mount(self, point: str, top: int | str) -> None:
        """From here on `top` lies over the place `point`, a path as `find` returns it."""
        for hidden in [path for path in self.mounted if path.startswith(point + "/")]:
            del self.mounted[hidden]
        self.mounted[point] = top

    def find(
        self, path: str, flags: int = os.O_PATH, directory_mode: int | None = None, file_mode: int | None = None
    ) -> tuple[str, int | Beyond]:
        """The path after all symlinks, and a descriptor of what is there; raises KernelError.

        flags: as for open(2), without O_CREAT. directory_mode, file_mode: of what is made where something is missing;
        None where that is an error.
        """
        if "\0" in path:
            raise KernelError("openat2", (path.replace("\0", "\\0"), "RESOLVE_IN_ROOT"), EINVAL)
        names = [name for name in path.split("/") if name not in ("", ".")]
        plain = "/" + "/".join(names)
        if _kernel_walks and ".." not in names and not (path.endswith("/") and flags != os.O_PATH | os.O_DIRECTORY):
            point = longest(self.mounted, plain)
            top = self.mounted.get(point, self.root)
            rest = plain[len(point) :].lstrip("/")
            if isinstance(top, str):
                return plain, Beyond(top, rest)
            if rest or point == "/":
                how = how_to_open(flags | os.O_CLOEXEC, 0, _RESOLVE | RESOLVE_NO_SYMLINKS)
                name = os.fsencode(rest) or b"."
                for missing in (directory_mode is not None and file_mode is None and "/" not in rest, False):
                    try:
                        return plain, syscall("openat2", top, name, how, len(how))
                    except KernelError as error:
                        if error.errno not in (ELOOP, ENOENT, ENOTDIR, EAGAIN, ENOSYS, EPERM):
                            raise KernelError("openat2", (path, "RESOLVE_IN_ROOT"), error.errno) from None
                        if not missing or error.errno != ENOENT or directory_mode is None:
                            break
                    try:  # the usual one, in the root or at the top of what was made for the container
                        os.mkdir(rest, directory_mode, dir_fd=top)
                    except OSError:  # the walk below finds out what it is
                        break
        walk = _Walk(self.root, path, directory_mode, file_mode, self.mounted)
        found = walk.open(flags | os.O_CLOEXEC)
        return walk.place(), walk.beyond or found

    def read(self, path: str, limit: int) -> bytes | None:
        """As `read_in`; files that are made only inside the container aren't read."""
        try:
            handle = self.find(path)[1]
        except KernelError as error:
            if error.errno in (ENOENT, ENOTDIR):
                return None
            raise
        if isinstance(handle, Beyond):
            raise _irregular(path)
        return _read(handle, path, limit)


def longest(mounted: Mapping[str, int | str], path: str) -> str:
    """The mount point nearest to `path`, at it or above it."""
    while path not in mounted and path != "/":
        path = path.rpartition("/")[0] or "/"
    return path


class _Walk:
    """One path, component by component, from descriptors; `..` goes back along the descriptors that we came by.

    mounted: what lies over which place, as in a `Tree`.
    """

    __slots__ = ("beyond", "directory_mode", "file_mode", "last", "links", "mounted", "names", "path", "rest", "stack")

    def __init__(
        self,
        root: int,
        path: str,
        directory_mode: int | None = None,
        file_mode: int | None = None,
        mounted: Mapping[str, int | str] | None = None,
    ) -> None:
        self.path = path
        self.stack = [os.dup(root)]
        self.names: list[str] = []  # of the directories in the stack, but for the first
        self.last = ""  # the last component, when it is no directory
        self.rest = path.split("/")[::-1]
        self.links = 0
        self.directory_mode = directory_mode
        self.file_mode = file_mode
        self.mounted = mounted or {}
        self.beyond: Beyond | None = None

    def place(self) -> str:
        """Where it ended, after all symlinks."""
        return "/" + "/".join([*self.names, self.last] if self.last else self.names)

    def open(self, flags: int, mode: int = 0) -> int:
        """Walk, then open the last component with `flags`."""
        try:
            while self.rest:
                name = self.rest.pop()
                if name == "..":
                    if len(self.stack) > 1:
                        os.close(self.stack.pop())
                        self.names.pop()
                elif name not in ("", "."):
                    opened = self._component(name, flags, mode)
                    if opened is not None:
                        return opened
            return os.open(".", flags & ~(os.O_CREAT | os.O_EXCL), dir_fd=self.stack[-1])
        except OSError as error:
            raise KernelError("open", (self.path,), error.errno or 0) from None
        finally:
            for handle in self.stack:
                os.close(handle)

    def _component(self, name: str, flags: int, mode: int) -> int | None:
        """Step into `name`; the final descriptor when it is the last one and no directory to go into."""
        here = self.stack[-1]
        last = not any(part not in ("", ".") for part in self.rest)
        slashed = last and bool(self.rest)  # "name/" and "name/." can only be a directory
        over = "/" + "/".join([*self.names, name])
        if over in self.mounted:
            return self._cross(over, name, flags, last, slashed)
        try:
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        except FileNotFoundError:
            if slashed and (flags & os.O_CREAT or self.file_mode is not None):
                raise OSError(EISDIR, os.strerror(EISDIR)) from None
            if last and flags & os.O_CREAT:
                return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=here)
            if not self._make(name, here, last):
                raise
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        kind = os.fstat(found).st_mode
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        if S_ISLNK(kind) and not (last and not slashed and (flags & os.O_NOFOLLOW or exclusive)):
            self._follow(found)
            return None
        if S_ISDIR(kind):
            self.stack.append(found)
            self.names.append(name)
            return None
        self.last = name
        try:
            if not last or slashed or flags & os.O_DIRECTORY:
                raise OSError(ENOTDIR, os.strerror(ENOTDIR))
            if exclusive:
                raise OSError(EEXIST, os.strerror(EEXIST))
            if flags & os.O_PATH:
                return os.dup(found)
            return os.open(name, (flags | os.O_NOFOLLOW) & ~os.O_CREAT, dir_fd=here)
        finally:
            os.close(found)

    def _cross(self, over: str, name: str, flags: int, last: bool, slashed: bool) -> int | None:
        """Go on in what lies over the place `over`; the final descriptor when that is a file, or out of reach."""
        top = self.mounted[over]
        if isinstance(top, str):
            rest: list[str] = []  # no link of an image's is in there, so that ".." is what it looks like
            for done, part in enumerate(ahead := self.rest[::-1], 1):
                if part == ".." and not rest:
                    self.rest = ahead[done:][::-1]
                    return None
                if part == "..":
                    rest.pop()
                elif part not in ("", "."):
                    rest.append(part)
            wanted = "/".join([over, *rest])
            point = longest(self.mounted, wanted)
            if point != over:  # what nobody can reach yet has something on it that can be
                self.names = point.strip("/").split("/")[:-1]
                self.rest = wanted[len(point) :].split("/")[::-1]
                return self._cross(point, point.rpartition("/")[2], flags, not any(self.rest), slashed)
            self.names.append(name)
            self.beyond = Beyond(top, "/".join(rest))
            self.last = self.beyond.rest
            return -1
        if S_ISDIR(os.fstat(top).st_mode):
            self.stack.append(os.dup(top))
            self.names.append(name)
            return None
        if not last or slashed or flags & os.O_DIRECTORY:
            raise OSError(ENOTDIR, os.strerror(ENOTDIR))
        self.last = name
        return os.dup(top) if flags & os.O_PATH else reopen(top, flags)

    def _follow(self, link: int) -> None:
        """Put the target of a symlink in the place of its name."""
        try:
            self.links += 1
            if self.links > _LINKS:
                raise OSError(ELOOP, os.strerror(ELOOP))
            target = os.readlink("", dir_fd=link)
            if (target.startswith("/") or ":[" in target) and filesystem_of(link) == PROC:
                raise OSError(ELOOP, os.strerror(ELOOP))  # a magic link: its text isn't where it leads
        finally:
            os.close(link)
        if target.startswith("/"):
            self.names.clear()
            while len(self.stack) > 1:
                os.close(self.stack.pop())
        self.rest += target.split("/")[::-1]

    def _make(self, name: str, here: int, last: bool) -> bool:
        """Make what is missing; False when nothing is to be made."""
        if last and self.file_mode is not None:
            try:
                made = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, self.file_mode, dir_fd=here)
                os.close(made)
            except FileExistsError:  # somebody was faster, here as below
                pass
        elif self.directory_mode is not None:
            try:
                os.mkdir(name, self.directory_mode, dir_fd=here)
            except FileExistsError:  # what it is shows when it's opened
                pass
        else:
            return False
        return True
