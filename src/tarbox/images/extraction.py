"""The files of an archive, made in a fresh directory: owners, modes, times, links, attributes, devices and holes.

    tar --numeric-owner --xattrs --xattrs-include='*' -xpf ARCHIVE -C DIRECTORY

Everything is made by its last name in an open directory, with calls that neither follow nor overwrite what is there.
That directory is found by `kernel/paths`, with the fresh directory as "/": symlinks that the archive made itself, such
as lib -> usr/lib, lead to where they would lead in the container, and nothing leads out. Nobody else may be able to
enter the fresh directory meanwhile.

man 1 tar, man 2 openat, man 7 xattr, man 7 capabilities ("File capabilities")
"""

from __future__ import annotations

from errno import EACCES, EDQUOT, EEXIST, EINVAL, EIO, EMFILE, ENOENT, ENOMEM, ENOSPC, ENOTEMPTY, ENOTSUP, EPERM, EROFS

from ..errors import ArchiveError, KernelError, StorageError
from ..kernel.paths import make_directories, open_in
from ..unistd import S_IFBLK, S_IFCHR, S_IFIFO, S_ISDIR, os
from .archive import CHARACTER, DIRECTORY, FIFO, FILE, HARD_LINK, LONGEST_NAME, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .archive import Archive, Entry

MOST_ENTRIES = 1 << 23
_MOST_HELD = 128 << 20  # bytes of memory for directories, whose modes and times can only be set at the end
_HELD_EACH = 400  # bytes beside the name

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STORAGE = (ENOSPC, EDQUOT, EROFS, EIO, ENOMEM, EMFILE)
# Beside user.*, what only the kernel's own parts read. Access lists are rights as those of the mode are.
_DEFAULT_RIGHTS = b"system.posix_acl_default"
_KERNELS = (
    b"security.capability", b"security.selinux", b"security.ima", b"system.posix_acl_access", _DEFAULT_RIGHTS,
)  # fmt: skip


def privileged() -> bool:
    """Whether this process may give files to others: root, and not the only id of a user namespace."""
    if os.geteuid() != 0:
        return False
    try:
        with open("/proc/self/uid_map") as ranges:
            return sum(int(line.split()[2]) for line in ranges) > 1
    except OSError:
        return True


class Extraction:
    """One archive on its way into the empty directory `tree`.

    tree: a descriptor. name: the archive, for messages. limit: bytes of data that may be written. owners: whether
    owners, devices and the security attributes are set (see `privileged`); otherwise all files belong to the user.
    """

    __slots__ = (
        "_directories", "_held", "_ours", "_parent", "_parent_path", "_skipped", "entries", "left_out", "limit", "name",
        "owners", "tree", "written",
    )  # fmt: skip

    def __init__(self, tree: int, name: str, limit: int, owners: bool) -> None:
        self.tree = tree
        self.name = name
        self.limit = limit
        self.owners = owners
        self.entries = 0
        self.written = 0
        self.left_out: dict[str, int] = {}  # what was not restored, and how often
        self._directories: dict[int, tuple[bytes, int, int, int, int, bytes]] = {}  # by inode
        self._held = 0
        self._skipped: set[bytes] = set()
        self._parent = os.dup(tree)
        self._parent_path: bytes | None = b""
        here = os.fstat(tree)
        self._ours = (here.st_uid, here.st_gid)  # what new files get without chown

    def extract(self, entries: Iterable[Entry], archive: Archive) -> None:
        """Make every entry; raises ArchiveError naming the one that can't be, StorageError when the disk can't."""
        try:
            for entry in entries:
                self.entries += 1
                if self.entries > MOST_ENTRIES:
                    raise self._refuse(entry, "it is one file too many")
                try:
                    self._add(entry, archive)
                except (OSError, KernelError) as error:
                    raise self._failed(entry, error) from None
            self._finish_directories()
        finally:
            os.close(self._parent)

    def warnings(self) -> list[str]:
        """What was not restored, one line each."""
        return [f"{self.name}: not restored: {what} ({count} times)" for what, count in self.left_out.items()]

    # Names

    def _parts(self, entry: Entry, name: bytes) -> list[bytes]:
        """The components of a name, none of them empty, "." or ".."; raises ArchiveError when it leads out."""
        if len(name) > LONGEST_NAME or b"\0" in name:
            raise self._refuse(entry, "its name is too long" if b"\0" not in name else "its name holds a zero byte")
        parts = [part for part in name.split(b"/") if part and part != b"."]
        if b".." in parts:
            inside: list[bytes] = []
            for part in parts:
                if part != b"..":
                    inside.append(part)
                elif inside:
                    inside.pop()
                else:
                    raise self._refuse(entry, "it leads out of the image")
            parts = inside
        if parts and max(map(len, parts)) > 255:
            raise self._refuse(entry, "a part of its name is longer than 255 bytes")
        return parts

    def _enter(self, path: bytes) -> int:
        """The directory `path`, made when missing; it stays open until another is asked for."""
        if path == self._parent_path:
            return self._parent
        opened = self._open(path, True)
        self._keep(path, opened)
        return opened

    def _open(self, path: bytes, make: bool) -> int:
        text = os.fsdecode(path)
        try:
            return open_in(self.tree, text or ".", os.O_PATH | os.O_DIRECTORY)
        except KernelError as error:
            if error.errno != ENOENT or not make:
                raise
            return make_directories(self.tree, text)

    def _keep(self, path: bytes, opened: int) -> None:
        os.close(self._parent)
        self._parent, self._parent_path = opened, path

    # Entries

    def _add(self, entry: Entry, archive: Archive) -> None:
        parts = self._parts(entry, entry.name)
        if not parts:
            if entry.kind != DIRECTORY:
                raise self._refuse(entry, f"the image's root can't be a {entry.kind}")
            self._set_xattrs(entry, self.tree)
            self._hold(os.fstat(self.tree).st_ino, b"", entry)
            return
        leaf = parts.pop()
        parent = b"/".join(parts)
        directory = self._enter(parent)
        kind = entry.kind
        if kind == FILE:
            self._add_file(entry, archive, directory, leaf)
        elif kind == DIRECTORY:
            self._add_directory(entry, directory, leaf, parent)
        elif kind == SYMLINK:
            if not entry.link or b"\0" in entry.link or len(entry.link) >= LONGEST_NAME:
                raise self._refuse(entry, "its target is empty, too long, or holds a zero byte")
            self._make(entry, directory, leaf, lambda: os.symlink(entry.link, leaf, dir_fd=directory))
            self._set_by_name(entry, directory, leaf)
        elif kind == HARD_LINK:
            self._add_link(entry, directory, leaf)
        else:
            self._add_special(entry, directory, leaf, parent)

    def _make(self, entry: Entry, directory: int, leaf: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(entry, directory, leaf)
            make()

    def _clear(self, entry: Entry, directory: int, leaf: bytes) -> None:
        """Take away what an earlier entry made by this name; a directory only if it's empty."""
        self._parent_path = None  # paths may lead elsewhere from now on
        found = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
        if not S_ISDIR(found.st_mode):
            os.unlink(leaf, dir_fd=directory)
            return
        try:
            os.rmdir(leaf, dir_fd=directory)
        except OSError as error:
            if error.errno in (ENOTEMPTY, EEXIST):
                raise self._refuse(entry, f"a {entry.kind} can't replace a directory that has contents") from None
            raise
        self._directories.pop(found.st_ino, None)

    def _add_file(self, entry: Entry, archive: Archive, directory: int, leaf: bytes) -> None:
        parts = entry.sparse
        self.written += entry.size if parts is None else sum(length for _offset, length in parts)
        if self.written > self.limit:
            raise ArchiveError(
                f"{self.name} unpacks to more than {self.limit >> 20} MiB", "that is all the room there is for it"
            )
        try:
            file = os.open(leaf, _NEW, 0o600, dir_fd=directory)
        except FileExistsError:
            self._clear(entry, directory, leaf)
            file = os.open(leaf, _NEW, 0o600, dir_fd=directory)
        try:
            if parts is None:
                for piece in archive.pieces(entry.size):
                    _write(file, piece)
            else:
                for offset, length in parts:
                    os.lseek(file, offset, os.SEEK_SET)
                    for piece in archive.pieces(length):
                        _write(file, piece)
                os.ftruncate(file, entry.size)
            # The owner first: changing it takes away set-user-ID bits and file capabilities.
            if self.owners and (entry.uid, entry.gid) != self._ours:
                os.chown(file, entry.uid, entry.gid)
            if entry.xattrs:
                self._set_xattrs(entry, file)
            os.chmod(file, entry.mode)
            os.utime(file, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(file)

    def _add_directory(self, entry: Entry, directory: int, leaf: bytes, parent: bytes) -> None:
        try:
            os.mkdir(leaf, 0o700, dir_fd=directory)
        except FileExistsError:
            if not S_ISDIR(os.stat(leaf, dir_fd=directory, follow_symlinks=False).st_mode):
                self._clear(entry, directory, leaf)
                os.mkdir(leaf, 0o700, dir_fd=directory)
        opened = os.open(leaf, _ENTER, dir_fd=directory)
        path = parent + b"/" + leaf if parent else leaf
        self._keep(path, opened)
        # Set at the end: what is made in the directory meanwhile would inherit them.
        rights = entry.xattrs.pop(_DEFAULT_RIGHTS, b"") if self.owners else b""
        if entry.xattrs:
            self._set_xattrs(entry, opened)
        self._hold(os.fstat(opened).st_ino, path, entry, rights)

    def _hold(self, inode: int, path: bytes, entry: Entry, rights: bytes = b"") -> None:
        if inode not in self._directories:
            self._held += len(path) + _HELD_EACH
            if self._held > _MOST_HELD:
                raise self._refuse(entry, "it is one directory too many")
        self._directories[inode] = (path, entry.mode, entry.uid, entry.gid, entry.mtime, rights)

    def _add_link(self, entry: Entry, directory: int, leaf: bytes) -> None:
        parts = self._parts(entry, entry.link)
        if not parts:
            raise self._refuse(entry, "it is a hard link to the image's root")
        wanted = b"/".join(parts)
        target = parts.pop()
        try:
            opened = self._open(b"/".join(parts), False)
        except KernelError as error:
            if error.errno != ENOENT:
                raise
            raise self._refuse(entry, self._missing(entry)) from None
        try:
            self._link(entry, opened, target, directory, leaf)
        except FileNotFoundError:
            if wanted not in self._skipped:  # a device that was left out
                raise self._refuse(entry, self._missing(entry)) from None
        finally:
            os.close(opened)

    def _missing(self, entry: Entry) -> str:
        return f"it is a hard link to {ascii(entry.link)[2:82]}, which isn't in the archive before it"

    def _link(self, entry: Entry, source: int, target: bytes, directory: int, leaf: bytes) -> None:
        def link() -> None:
            os.link(target, leaf, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

        found = os.stat(target, dir_fd=source, follow_symlinks=False)
        if S_ISDIR(found.st_mode):
            raise self._refuse(entry, "it is a hard link to a directory")
        try:
            link()
        except FileExistsError:
            present = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
            if (present.st_dev, present.st_ino) != (found.st_dev, found.st_ino):
                self._clear(entry, directory, leaf)
                link()

    def _add_special(self, entry: Entry, directory: int, leaf: bytes, parent: bytes) -> None:
        kind, device = S_IFIFO, 0
        if entry.kind != FIFO:
            kind, device = S_IFCHR if entry.kind == CHARACTER else S_IFBLK, os.makedev(*entry.device)
        try:
            if kind != S_IFIFO and not self.owners:
                raise PermissionError(EPERM, "")
            self._make(entry, directory, leaf, lambda: os.mknod(leaf, kind | 0o600, device, dir_fd=directory))
        except PermissionError:
            if kind == S_IFIFO:
                raise
            self._leave_out("device nodes, which need root")
            if len(self._skipped) < 4096:
                self._skipped.add(parent + b"/" + leaf if parent else leaf)
            return
        self._set_by_name(entry, directory, leaf)

    # What a file has beside its contents

    def _set_by_name(self, entry: Entry, directory: int, leaf: bytes) -> None:
        """Owner, attributes, mode and time of what was just made and is no file or directory, so is never opened."""
        if self.owners and (entry.uid, entry.gid) != self._ours:
            os.chown(leaf, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        if entry.xattrs:
            self._set_xattrs(entry, os.fsencode(f"/proc/self/fd/{directory}/") + leaf)
        if entry.kind != SYMLINK:
            os.chmod(leaf, entry.mode, dir_fd=directory)
        os.utime(leaf, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def _set_xattrs(self, entry: Entry, target: int | bytes) -> None:
        for name, value in entry.xattrs.items():
            family = name.split(b".", 1)[0]
            if b"\0" in name or not name:
                raise self._refuse(entry, "an extended attribute's name is empty or holds a zero byte")
            # overlay's own attributes would make the image speak to the kernel in tarbox's name
            honest = family == b"user" and not name.startswith(b"user.overlay.")
            if not honest and not (self.owners and name in _KERNELS):
                self._leave_out(f"extended attributes {_shown_family(name)}")
                continue
            self._set_xattr(target, name, value)

    def _set_xattr(self, target: int | bytes, name: bytes, value: bytes) -> None:
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (ENOTSUP, EPERM, EACCES, EINVAL):
                raise
            self._leave_out(f"extended attributes {_shown_family(name)} ({os.strerror(error.errno)})")

    def _leave_out(self, what: str) -> None:
        if what in self.left_out or len(self.left_out) < 20:
            self.left_out[what] = self.left_out.get(what, 0) + 1

    def _finish_directories(self) -> None:
        """Give directories their owner, mode and time, the ones within first: making files has changed the times."""
        for inode, (path, mode, uid, gid, mtime, rights) in reversed(self._directories.items()):
            shown = ascii(path)[2:-1] or "/"
            try:
                opened = open_in(self.tree, os.fsdecode(path) or ".", _ENTER)
            except KernelError as error:
                raise ArchiveError(f"{self.name}: {shown} is no directory any more: {error}") from None
            try:
                if os.fstat(opened).st_ino != inode:
                    raise ArchiveError(f"{self.name}: {shown} became another directory while unpacking")
                if self.owners and (uid, gid) != self._ours:
                    os.chown(opened, uid, gid)
                os.chmod(opened, mode if self.owners else mode | 0o700)
                if rights:
                    self._set_xattr(opened, _DEFAULT_RIGHTS, rights)
                os.utime(opened, ns=(mtime, mtime))
            except OSError as error:
                raise StorageError(f"can't set the owner, mode and time of {shown}: {error.strerror}") from None
            finally:
                os.close(opened)

    # Errors

    def _refuse(self, entry: Entry, why: str) -> ArchiveError:
        return ArchiveError(f"{self.name}: the entry {entry.shown} is refused: {why}")

    def _failed(self, entry: Entry, error: OSError | KernelError) -> ArchiveError | StorageError:
        number = error.errno or EIO
        reason = os.strerror(number)
        if number in _STORAGE:
            return StorageError(f"can't unpack {entry.shown} of {self.name}: {reason}", "is there room on the disk?")
        if number == EINVAL and self.owners:
            reason += f"; owner {entry.uid}, group {entry.gid}"
        return self._refuse(entry, reason)


def _shown_family(name: bytes) -> str:
    known = name.startswith((b"trusted.overlay.", b"user.overlay."))
    family = name.rsplit(b".", 1)[0] if known else name.split(b".", 1)[0]
    return ascii(family)[2:42].rstrip("'") + ".*"


def _write(file: int, piece: memoryview) -> None:
    while True:
        count = os.write(file, piece)
        if count == len(piece):
            return
        piece = piece[count:]
