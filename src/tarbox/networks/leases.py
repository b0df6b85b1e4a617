"""Addresses that containers have: one small file each, held by a lock as long as its owner lives.

    set -C; exec 9>/run/tarbox/…/10.2.0.7 && flock 9          and nobody else has 10.2.0.7 until this process ends

A file that nobody holds is a dead one's, and its address free. Whoever looks at files or makes some holds a lock of the
folder meanwhile, so that nobody is seen between a file's making and its locking. Addresses are given in turn, so that
one that was given back isn't somebody else's at once.

man 2 flock, man 2 open (O_EXCL)
"""

from __future__ import annotations

import fcntl

from ..errors import NetworkError, StorageError, UsageError
from ..plan.journal import drop
from ..unistd import os
from .addresses import read, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .definition import Subnet

ROUTER = ".forwarding"  # the file in the folder of all networks that says who made the machine a router: `router.py`
_FULL = "small files of running containers are kept there; is it full, or read-only?"
_WIDTH = 48  # bytes of the file that says which address was given last


class Lease:
    """An address that was taken, and the descriptor that holds it.

    address: its number. path: of its file, for `let_go`. descriptor: whoever closes it, by ending even, gives it back.
    """

    __slots__ = ("address", "descriptor", "path")

    def __init__(self, address: int, path: str, descriptor: int) -> None:
        self.address = address
        self.path = path
        self.descriptor = descriptor

    def note(self, words: str) -> None:
        """Put other words into its file."""
        os.ftruncate(self.descriptor, os.pwrite(self.descriptor, words.encode("utf-8", "surrogateescape"), 0))


class Locked:
    """The folder of a network's leases, in which nobody else changes anything meanwhile.

    shared: whether others may look as well. make: whether it is made where it is missing; without, a missing one has
    the descriptor -1.
    """

    __slots__ = ("_make", "_operation", "descriptor", "folder")

    def __init__(self, folder: str, shared: bool = False, make: bool = False) -> None:
        self.folder = folder
        self.descriptor = -1
        self._operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._make = make

    def __enter__(self) -> Locked:
        while True:
            try:
                self.descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self.descriptor, self._operation)
                ours, there = os.fstat(self.descriptor), os.stat(self.folder)
                if (ours.st_ino, ours.st_dev) == (there.st_ino, there.st_dev):
                    return self
            except FileNotFoundError:  # or removed while we waited
                if not self._make:
                    self.__exit__()
                    return self
                try:
                    os.makedirs(self.folder, 0o700, exist_ok=True)
                except OSError as error:
                    raise StorageError(f"cannot make {self.folder}: {error.strerror}", _FULL) from None
            except OSError as error:
                self.__exit__()
                raise StorageError(f"cannot open {self.folder}: {error.strerror}", _FULL) from None
            self.__exit__()

    def __exit__(self, *exception: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def names(self) -> list[str]:
        """The addresses that have a file, as text, held or not."""
        if self.descriptor < 0:
            return []
        return [name for name in os.listdir(self.descriptor) if name[0] != "."]

    def text(self, name: str) -> str | None:
        """What the holder of an address wrote; None when nobody holds it."""
        try:
            descriptor = os.open(f"{self.folder}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others who look aren't holders
            return None
        except BlockingIOError:
            return os.read(descriptor, os.fstat(descriptor).st_size).decode("utf-8", "surrogateescape")
        finally:
            os.close(descriptor)

    def drop(self, name: str) -> bool:
        """Remove the file of an address unless somebody holds it; whether it is gone."""
        return drop(f"{self.folder}/{name}")


def take(folder: str, subnet: Subnet, words: str, wanted: int | None = None, network: str = "") -> Lease:
    """Take an address: the next one in turn, or the one that is wanted.

    folder: of the network's leases, made where it is missing. words: lines for whoever looks, the first of them
    "container ID". network: its name, for errors. Raises NetworkError where none is left or the wanted one is taken,
    UsageError for one that can't be had.
    """
    with Locked(folder, make=True) as locked:
        if wanted is None:
            address = _next(locked, subnet, network, keep=True)
        else:
            address = _checked(locked, subnet, wanted, network)
            locked.drop(text(subnet.version, address))  # a dead one's
        path = f"{folder}/{text(subnet.version, address)}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _write(descriptor, words)
            except OSError:
                os.close(descriptor)
                os.unlink(path)
                raise
        except OSError as error:
            raise StorageError(f"cannot take an address in {folder}: {error.strerror}", _FULL) from None
        return Lease(address, path, descriptor)


def would_be(folder: str, subnet: Subnet, wanted: int | None = None, network: str = "") -> int:
    """The address that `take` would take now; nothing is taken, made or written. Raises what `take` does."""
    with Locked(folder, shared=True) as locked:
        if wanted is None:
            return _next(locked, subnet, network, keep=False)
        return _checked(locked, subnet, wanted, network)


def let_go(path: str) -> bool:
    """Remove the file of a lease unless somebody holds it; whether it is gone. Close the lease's descriptor before."""
    folder, _, name = path.rpartition("/")
    with Locked(folder) as locked:
        return locked.descriptor < 0 or locked.drop(name)


def held(folder: str) -> list[tuple[str, str]]:
    """The addresses that are held, as text, each with what its holder wrote."""
    with Locked(folder, shared=True) as locked:
        found = [(name, locked.text(name)) for name in locked.names()]
    return [(name, words) for name, words in found if words is not None]


def holders(folder: str) -> list[str]:
    """What the holders of addresses wrote."""
    return [words for _, words in held(folder)]


def busy(folder: str) -> bool:
    """Whether somebody holds an address; looks no further than to the first."""
    with Locked(folder, shared=True) as locked:
        if locked.descriptor < 0:
            return False
        with os.scandir(folder) as entries:
            return any(entry.name[0] != "." and locked.text(entry.name) is not None for entry in entries)


def any_busy(base: str) -> bool:
    """Whether somebody holds an address of any network; base: the folder of all of them."""
    try:
        names = os.listdir(base)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return any(busy(f"{base}/{name}") for name in names if os.path.isdir(f"{base}/{name}"))


def others(base: str) -> list[str]:
    """The same folders of other data roots."""
    state, _, name = base.rpartition("/")
    every, _, own = state.rpartition("/")
    return [f"{every}/{other}/{name}" for other in os.listdir(every) if other != own]


def container(words: str) -> str:
    """The id of the container whose lease says so, shortened for people."""
    for line in words.splitlines():
        if line.startswith("container "):
            return line[10:22]
    return "another process"


def _checked(locked: Locked, subnet: Subnet, wanted: int, network: str) -> int:
    """An address that is asked for, free from here on."""
    shown = text(subnet.version, wanted)
    if not subnet.holds(wanted):
        of = f", the subnet of the network {network}" if network else ""
        raise UsageError(f"{shown} is not in {subnet}{of}")
    if not subnet.may_be_used(wanted):
        others = {subnet.gateway: "the gateway's", subnet.network: "the subnet's own"}
        what = others.get(wanted, "for broadcasts")
        raise UsageError(f"{shown} can't be a container's: it is {what} in {subnet}")
    words = locked.text(shown) if locked.descriptor >= 0 else None
    if words is not None:
        raise NetworkError(f"{shown} is taken by the container {container(words)}", "leave --ip out for a free one")
    return wanted


def _next(locked: Locked, subnet: Subnet, network: str, keep: bool) -> int:
    """The next free address after the one that was given last; `keep` notes it for the next time."""
    note = -1
    if locked.descriptor >= 0:
        try:
            how = os.O_RDWR | os.O_CREAT if keep else os.O_RDONLY
            note = os.open(f"{locked.folder}/.{subnet.version}", how | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError(f"cannot take an address in {locked.folder}: {error.strerror}", _FULL) from None
    try:
        address = _free(locked, subnet, _after(subnet, _noted(note, subnet)), keep)
        if address < 0:
            count = subnet.count()
            raise NetworkError(
                f"{f'the network {network}' if network else subnet} has no address left ({count} of {count} are taken)",
                "end a container, or make a network with a larger --subnet",
            )
        if keep:
            os.pwrite(note, text(subnet.version, address).ljust(_WIDTH).encode(), 0)
        return address
    finally:
        if note >= 0:
            os.close(note)


def _noted(note: int, subnet: Subnet) -> int:
    """The address that was given last, -1 for none."""
    if note < 0:
        return -1
    try:
        return read(os.pread(note, _WIDTH, 0).decode("ascii", "replace").rstrip())[1]
    except UsageError:  # the first one
        return -1


def _after(subnet: Subnet, address: int) -> int:
    """The address whose turn it is after this one."""
    following = address + 1 if subnet.first <= address < subnet.last else subnet.first
    if following == subnet.gateway:
        following = following + 1 if following < subnet.last else subnet.first
    return following


def _free(locked: Locked, subnet: Subnet, address: int, keep: bool) -> int:
    """The first free address from this one on, -1 where there is none; `keep` removes the files of dead ones."""
    if locked.descriptor < 0 or not os.path.lexists(f"{locked.folder}/{text(subnet.version, address)}"):
        return address
    names = set(locked.names())
    for _ in range(2):
        at = address
        for _ in range(min(subnet.count(), len(names) + 1)):
            if text(subnet.version, at) not in names:
                return at
            at = _after(subnet, at)
        # All have a file: those of the dead count no more.
        names = {name for name in names if (not locked.drop(name) if keep else locked.text(name) is not None)}
    return -1


def _write(descriptor: int, words: str) -> None:
    data = words.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(descriptor, data) :]


def remove(locked: Locked) -> None:
    """Remove the folder of a network's leases, unless somebody holds an address."""
    if locked.descriptor < 0 or not all(locked.drop(name) for name in locked.names()):
        return
    for name in os.listdir(locked.descriptor):
        os.unlink(f"{locked.folder}/{name}")
    os.rmdir(locked.folder)
