"""Lasting namespaces: made with a name, kept without a process, entered by the name, removed.

    ip netns add lab1; ip netns exec lab1 COMMAND; ip netns delete lab1       and the same for other kinds than networks

Each is a folder below the state folder, with a file for each kind on which the namespace is mounted. They don't outlive
a boot, as no namespace does.

man 7 namespaces, man 8 ip-netns
"""

from __future__ import annotations

import fcntl

from ..errors import StorageError, UnsupportedError, UsageError
from ..kernel.kept_namespaces import KeepNamespaces, MakeKeepers
from ..kernel.namespace_files import look_around
from ..kernel.paths import filesystem_of
from ..kernel.processes import KINDS, Process
from ..plan.journal import Journal
from ..unistd import os
from .limits import prepared, take, tell
from .roots import Roots
from .undo import UNDO
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "namespaces"
NSFS = 0x6E736673  # the file system type, as statfs(2) tells it
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_LONGEST_NAME = 100
_SHOWN = 5  # processes that are named


def name(text: str) -> str:
    """A name for lasting namespaces; raises UsageError for what can't be one."""
    if not text or not _LETTERS.issuperset(text) or not text[0].isalnum() or len(text) > _LONGEST_NAME:
        hint = f"letters, digits, _ . and -, a letter or digit first, at most {_LONGEST_NAME}"
        raise UsageError(f"{shorten(text)!r} can't be the name of namespaces", hint)
    if text.isdecimal():
        raise UsageError(f"{shorten(text)!r} would be taken for the number of a process", f"e.g. lab{text[:20]}")
    return text


def create(label: str, kinds: tuple[str, ...], hostname: str = "", root: str | None = None) -> None:
    """Make namespaces of these kinds (OCI names) that stay until they are removed.

    label: their name. hostname: of the UTS namespace, "" for the machine's. root: the data root, None for the default.
    Raises TarboxErrors; then nothing is left.
    """
    if os.geteuid():
        raise UnsupportedError(
            "a mount keeps a namespace, and only root may mount where others see it",
            "run it as root; a plain user's last as long as a process: tarbox isolate --user --net sleep 1d",
        )
    if "pid" in kinds:
        raise UsageError(
            "a PID namespace can't be kept: it ends with its first process",
            "tarbox isolate --pid runs a command in one",
        )
    if not kinds:
        raise UsageError(f"which namespaces shall {label!r} have?", f"e.g. tarbox ns create --net {label}")
    with _Locked(root) as base:
        folder = _inside(base, label)
        if os.path.lexists(folder):
            raise UsageError(
                f"there are namespaces by the name {label!r} already", f"'tarbox ns rm {label}' removes them"
            )
        steps = [MakeKeepers(base), KeepNamespaces(folder, kinds, hostname)]
        journal = Journal(Roots(root).journals[0], os.urandom(32).hex(), UNDO)
        try:
            journal.write([record for step in steps for record in step.record()])
            take([*steps])
            journal.records = ()  # they are whole now, and stay
        finally:
            tell([str(error) for error in journal.clean()])


def remove(label: str, force: bool = False, root: str | None = None) -> None:
    """Remove lasting namespaces; raises UsageError while processes are in one, which `force` lets live on in them."""
    with _Locked(root) as base:
        folder = existing(label, root)
        users = [] if force else in_use(folder)
        if users:
            shown = ", ".join(f"{pid} ({command})" for pid, command in users[:_SHOWN])
            count = "a process is" if len(users) == 1 else f"{len(users)} processes are"
            more = " …" if len(users) > _SHOWN else ""
            hint = "end them first; --force only takes the name away: the namespaces last until they have ended"
            raise UsageError(f"{count} in the namespaces {label!r}: {shown}{more}", hint)
        files = [("mount", f"{folder}/{entry}") for entry in sorted(os.listdir(folder))]
        journal = Journal(Roots(root).journals[0], os.urandom(32).hex(), UNDO)
        journal.write([("keepers", base), ("tree", folder), *files])  # who is killed has the next command finish it
        failed = journal.clean()
        if failed:
            raise failed[0]


def names(root: str | None = None) -> list[str]:
    """The names of all lasting namespaces of the data root, in order."""
    try:
        return sorted(os.listdir(f"{Roots(root).state}/{FOLDER}"))
    except OSError:
        return []


def existing(label: str, root: str | None = None) -> str:
    """The folder of lasting namespaces; raises UsageError where there are none by that name."""
    folder = _inside(f"{Roots(root).state}/{FOLDER}", name(label))
    if os.path.isdir(folder):
        return folder
    from .nearest import suggest

    near = suggest(label, names(root))
    raise UsageError(
        f"there are no namespaces by the name {label!r}", f"did you mean {near}?" if near else "see 'tarbox ns ls'"
    )


def opened(folder: str) -> dict[str, int]:
    """A descriptor for each of the namespaces in a folder, by OCI name, which the caller closes."""
    found: dict[str, int] = {}
    for link in sorted(os.listdir(folder)):
        if link in KINDS:
            handle = os.open(f"{folder}/{link}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if filesystem_of(handle) == NSFS:
                found[KINDS[link]] = handle
            else:
                os.close(handle)
    if not found:
        raise StorageError(
            f"nothing is mounted in {folder}, as seen from here", "was it made in another mount namespace?"
        )
    return found


def in_use(folder: str) -> list[tuple[int, str]]:
    """The processes in one of the namespaces of a folder, each with its command."""
    inodes = set()
    for kind, handle in opened(folder).items():
        inodes.add((kind, os.fstat(handle).st_ino))
        os.close(handle)
    survey = look_around()
    pids = sorted({pid for key, one in survey.namespaces.items() if key in inodes for pid in one.pids})
    return list(_told(pids))


def _told(pids: list[int]) -> Iterator[tuple[int, str]]:
    from ..errors import ProcessNotFoundError

    for pid in pids:
        try:
            with Process(pid) as process:
                yield pid, process.name()
        except ProcessNotFoundError:
            continue


def _inside(base: str, label: str) -> str:
    return f"{base}/{label}"


class _Locked:
    """The folder of all lasting namespaces, with nobody else making or removing any meanwhile."""

    __slots__ = ("_descriptor", "_root")

    def __init__(self, root: str | None) -> None:
        self._root = root
        self._descriptor = -1

    def __enter__(self) -> str:
        prepared(self._root)
        state = Roots(self._root).state
        self._descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return f"{state}/{FOLDER}"

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)
