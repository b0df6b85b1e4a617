"""A directory with everything below it, taken away.

    rm -rf --one-file-system DIRECTORY

Directories are entered by descriptor, so a symlink is removed and never followed, and a mount is refused and never
emptied. Far down, where descriptors would run out, they are left through "..", which must lead back to where we came
from: no tree is too deep.

man 2 unlinkat, man 2 openat2, man 5 proc_pid_fdinfo
"""

from __future__ import annotations

from errno import ELOOP, ENOENT, ENOTDIR, EXDEV

from ..errors import KernelError, StorageError
from ..unistd import os
from . import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64  # directories that are held open at once


def remove_tree(path: str) -> None:
    """Remove `path` with all that is in it; nothing is done when it is missing.

    Raises StorageError when a part of it can't be removed, or has a file system mounted on it; what was removed before
    stays removed.
    """
    above, name = os.path.split(path.rstrip("/"))
    try:
        parent = os.open(above or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(f"can't remove {path}: {error.strerror}") from None
    try:
        _remove(parent, name)
    except OSError as error:
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise StorageError(f"can't remove {path}: {error.strerror}{where}", "is something in it in use?") from None
    finally:
        os.close(parent)


def _remove(parent: int, name: str, depth: int = 0) -> None:
    """Remove `name` in the directory `parent`, and what is in it. depth: how many directories are open above it."""
    if depth == _DEEPEST:
        _remove_far_down(parent, name)
        return
    try:
        here = paths.descend(parent, name)
    except KernelError as error:
        if error.errno == ENOENT:
            return
        if error.errno == EXDEV:
            raise OSError(0, "a file system is mounted there", name) from None
        if error.errno in (ENOTDIR, ELOOP):
            _unlink(parent, name)
        else:  # a directory that can't be entered as it is, or a kernel without the call
            _remove_far_down(parent, name)
        return
    try:
        for child in _empty(here):
            _remove(here, child, depth + 1)
    finally:
        os.close(here)
    _unlink(parent, name, os.rmdir)


def _remove_far_down(parent: int, name: str) -> None:
    """The same with two descriptors at most."""
    try:
        here = _enter(parent, name)
    except FileNotFoundError:
        return
    except OSError:  # a symlink or a file, or a directory that can't be entered: removing it tells which
        _unlink(parent, name)
        return
    mount = _mount_of(here)
    # One level each: the name in the directory above, that directory's identity, and the names still to be entered.
    levels: list[tuple[str, tuple[int, int], list[str]]] = [(name, _identity(parent), [])]
    try:
        if mount != _mount_of(parent):
            raise OSError(0, "a file system is mounted there", name)
        ahead = _empty(here)
        while levels:
            if ahead:
                child = ahead.pop()
                inner = _enter(here, child)
                levels.append((child, _identity(here), ahead))
                here, outer = inner, here
                os.close(outer)
                if _mount_of(here) != mount:
                    raise OSError(0, "a file system is mounted there", child)
                ahead = _empty(here)
                continue
            done, identity, ahead = levels.pop()
            outer = os.open("..", _ENTER, dir_fd=here)
            os.close(here)
            here = outer
            if _identity(here) != identity:
                raise OSError(0, "it was moved meanwhile", done)
            _unlink(here, done, os.rmdir)
    finally:
        os.close(here)


def _empty(here: int) -> list[str]:
    """Unlink all in the directory but the directories that aren't empty, whose names are returned."""
    inner = []
    with os.scandir(here) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        if not is_directory:
            _unlink(here, name)
            continue
        try:
            os.rmdir(name, dir_fd=here)  # most are empty, and to be told that they aren't is cheap
        except OSError:
            inner.append(name)
    return inner


def _unlink(parent: int, name: str, unlink: Callable[..., None] = os.unlink) -> None:
    try:
        unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except PermissionError:
        # A directory of ours without write permission. Root needs none, so there it means something else.
        if os.geteuid() == 0:
            raise
        os.chmod(f"/proc/self/fd/{parent}", 0o700)
        unlink(name, dir_fd=parent)


def _enter(parent: int, name: str) -> int:
    try:
        return os.open(name, _ENTER, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
            return os.open(f"/proc/self/fd/{handle}", _ENTER & ~os.O_NOFOLLOW)
        finally:
            os.close(handle)


def _identity(directory: int) -> tuple[int, int]:
    found = os.fstat(directory)
    return found.st_dev, found.st_ino


def _mount_of(directory: int) -> bytes:
    """The number of the mount that a descriptor was opened in; a bind mount of the same disk has another."""
    file = os.open(f"/proc/self/fdinfo/{directory}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(file, 4096)
    finally:
        os.close(file)
    return text.partition(b"mnt_id:")[2].split(b"\n", 1)[0]
