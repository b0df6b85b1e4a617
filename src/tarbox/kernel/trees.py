"""Taking a directory tree away.

    rm -rf --one-file-system PATH

By directory descriptors: no symlink is followed and no mount point is crossed, whatever lies in the tree.

man 2 unlinkat, man 7 path_resolution
"""

from __future__ import annotations

import os
from errno import EACCES, ENOTDIR, EPERM

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove the directory `path` with everything in it; what is missing is no error. Raises OSError."""
    above, _, name = path.rstrip("/").rpartition("/")
    try:
        parent = os.open(above or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    stack: list[tuple[int, str, list[str] | None]] = [(parent, name, None)]
    device = -1
    try:
        while stack:
            directory, name, _ = stack[-1]
            try:
                opened = _open(directory, name)
            except FileNotFoundError:
                stack.pop()
                continue
            except OSError as error:
                if error.errno != ENOTDIR and error.errno != 40:
                    raise
                os.unlink(name, dir_fd=directory)
                stack.pop()
                continue
            try:
                facts = os.fstat(opened)
                device = facts.st_dev if device < 0 else device
                if facts.st_dev != device:
                    raise OSError(EPERM, "is a mount point", name)
                _empty(opened, device)
            finally:
                os.close(opened)
            os.rmdir(name, dir_fd=directory)
            stack.pop()
    finally:
        os.close(parent)


def _open(directory: int, name: str) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=directory)
    except OSError as error:
        if error.errno != EACCES:
            raise
    os.chmod(name, 0o700, dir_fd=directory)
    return os.open(name, _OPEN, dir_fd=directory)


def _empty(directory: int, device: int) -> None:
    for entry in list(os.scandir(directory)):
        if entry.is_dir(follow_symlinks=False):
            inner = _open(directory, entry.name)
            try:
                if os.fstat(inner).st_dev != device:
                    raise OSError(EPERM, "is a mount point", entry.name)
                _empty(inner, device)
            finally:
                os.close(inner)
            os.rmdir(entry.name, dir_fd=directory)
        else:
            os.unlink(entry.name, dir_fd=directory)
