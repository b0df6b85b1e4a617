"""The journal: what a plan will leave on the host, written before the first step, so that anybody can take it away.

One small file for one container in a folder of journals, locked (`flock`) for as long as the process that owns it
lives. A journal that nobody holds belongs to a command that was killed: the next one that looks takes away what it
names, in reverse, and then the journal itself. All it needs is in the file: the kind and the name of each thing.

    tarbox 1
    boot 5f0c…            the boot that kernel objects belong to
    cgroup /sys/fs/cgroup/memory/tarbox-3d1f…
    tree /run/tarbox/…/3d1f…
    end                   without this line it was never finished, and then nothing was made

man 2 flock
"""

from __future__ import annotations

import fcntl
from errno import ENOSPC

from ..errors import StorageError, TarboxError
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Undo = Callable[[str], None]

_HEADER, _END = "tarbox 1", "end"
_DISK_KINDS = ("tree", "lock")  # what outlives a boot
_LARGEST = 1 << 20  # bytes


class Journal:
    """One journal that this process holds.

    folder: where journals lie. name: of this one. undo: for each kind of thing, the function that takes it away.
    """

    __slots__ = ("descriptor", "path", "records", "undo")

    def __init__(self, folder: str, name: str, undo: Mapping[str, Undo]) -> None:
        self.path = f"{folder}/{name}"
        self.undo = undo
        self.records: Sequence[tuple[str, str]] = ()
        self.descriptor = -1

    def write(self, records: Sequence[tuple[str, str]]) -> None:
        """Put the records down, locked, before any of them is made; raises StorageError.

        The second time they take the place of the first ones.
        """
        before = self.descriptor
        lines = [_HEADER, f"boot {_boot()}", *(f"{kind} {_escape(name)}" for kind, name in records), _END, ""]
        text = os.fsencode("\n".join(lines))
        folder, _, name = self.path.rpartition("/")
        fresh = f"{folder}/.{name}"
        try:
            while True:
                self.descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(self.descriptor, fcntl.LOCK_EX)
                if os.write(self.descriptor, text) != len(text):  # a full disk takes a part before it says so
                    raise OSError(ENOSPC, os.strerror(ENOSPC))
                try:
                    os.rename(fresh, self.path)  # under its own name it is whole and locked
                    break
                except FileNotFoundError:  # a sweep took it for a dead one's between open and flock
                    os.close(self.descriptor)
                    self.descriptor = before
        except OSError as error:
            if self.descriptor != before:
                _unlink(fresh)
                os.close(self.descriptor)
                self.descriptor = before
            hint = "is the disk full or read-only? choose another data root with --root"
            raise StorageError(f"cannot write the journal {self.path}: {error.strerror}", hint) from None
        if before >= 0:
            os.close(before)
        self.records = records

    def clean(self) -> list[TarboxError]:
        """Take away all that it names, last things first, then itself; returns what went wrong on the way.

        What can't be taken away stays in the journal for the next command.
        """
        failed = _undo(self.records, self.undo)
        if not failed and self.descriptor >= 0:
            failed = _unlink(self.path)
        self.close()
        return failed

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def sweep(folder: str, undo: Mapping[str, Undo]) -> list[TarboxError]:
    """Finish the clean-ups of commands that were killed: every journal in `folder` that nobody holds.

    Returns what went wrong; a folder that isn't there holds none.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [StorageError(f"cannot read the journals in {folder}: {error.strerror}")]
    failed: list[TarboxError] = []
    for name in names:
        failed += _sweep_one(f"{folder}/{name}", undo)
    return failed


def drop(path: str) -> bool:
    """Remove a file that is held by a lock as long as its owner lives, unless somebody holds it; whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # else the one at this path by now is another, and somebody else's
            os.unlink(path)
        return True
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    finally:
        os.close(descriptor)


def _sweep_one(path: str, undo: Mapping[str, Undo]) -> list[TarboxError]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        facts = os.fstat(descriptor)
        if facts.st_nlink == 0:  # its owner finished while we waited to look
            return []
        if facts.st_uid != os.geteuid():  # what somebody else wrote must not tell us what to remove
            return []
        records = read(os.fsdecode(os.read(descriptor, _LARGEST)))
        return _undo(records, undo) or _unlink(path)
    except OSError:  # held by a living command
        return []
    finally:
        os.close(descriptor)


def read(text: str) -> list[tuple[str, str]]:
    """The records of a journal's text that still mean something: after a reboot, only what lies on disk.

    A text that was cut short has none: half a path would name something else.
    """
    lines = text.split("\n")
    if lines[0] != _HEADER or lines[-2:] != [_END, ""]:
        return []
    same_boot = lines[1] == f"boot {_boot()}"
    records = [(kind, _unescape(name)) for kind, space, name in (line.partition(" ") for line in lines[2:]) if space]
    return [record for record in records if same_boot or record[0] in _DISK_KINDS]


def _undo(records: Sequence[tuple[str, str]], undo: Mapping[str, Undo]) -> list[TarboxError]:
    failed: list[TarboxError] = []
    for kind, name in reversed(records):
        try:
            undo[kind](name)
        except TarboxError as error:
            failed.append(error)
        except OSError as error:
            failed.append(StorageError(f"cannot take away the {kind} {name}: {error.strerror}"))
        except KeyError:
            failed.append(StorageError(f"a journal names a {kind}, which this tarbox doesn't know"))
    return failed


def _unlink(path: str) -> list[TarboxError]:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        return [StorageError(f"cannot remove the journal {path}: {error.strerror}")]
    return []


def _boot() -> str:
    try:
        descriptor = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "unknown"
    try:
        return os.read(descriptor, 64).decode().strip()
    finally:
        os.close(descriptor)


def _escape(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(name: str) -> str:
    return name.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
