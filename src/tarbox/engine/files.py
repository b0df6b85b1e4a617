"""The three files of /etc that an engine writes for a container: its names, and whom it asks for others.

    printf '127.0.0.1 localhost\n127.0.1.1 box\n' > hosts; mount --bind hosts $ROOT/etc/hosts

man 5 hosts, man 5 hostname, man 5 resolv.conf
"""

from __future__ import annotations

import os

from ..errors import StorageError
from ..plan.step import PARENT, Slots, Step
from .options import HOST

_LARGEST = 1 << 20
_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def render(hostname: str, domainname: str, network: str) -> dict[str, str]:
    """The files' texts by name. With the host's network they are the host's, but for the host name."""
    full = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    if network == HOST:
        hosts, resolver = _read("/etc/hosts"), _read("/etc/resolv.conf")
    else:
        hosts, resolver = f"{_LOCAL}127.0.1.1\t{full}\n", "# There is no network but loopback, and no name server.\n"
    return {"hostname": f"{hostname}\n", "hosts": hosts, "resolv.conf": resolver}


def names_of(files: dict[str, str]) -> list[str]:
    """The names in the order in which they are mounted."""
    return sorted(files)


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _LARGEST).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


class WriteFiles(Step):
    """Write small files into a folder that is the container's own, outside of it."""

    __slots__ = ("files", "folder")

    phase = "host"
    why = "the container's own host name has to be found under its own name; the image can't know it"
    man = "hosts(5), resolv.conf(5)"

    def __init__(self, folder: str, files: dict[str, str]) -> None:
        super().__init__(PARENT)
        self.folder = folder
        self.files = files

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("tree", self.folder),)

    def apply(self, slots: Slots) -> None:
        try:
            os.mkdir(self.folder, 0o700)  # the mounts in the container need no way through it
            for name, text in self.files.items():
                descriptor = os.open(
                    f"{self.folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644
                )
                try:
                    os.fchmod(descriptor, 0o644)
                    os.write(descriptor, text.encode("utf-8", "surrogateescape"))
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise StorageError(f"cannot write {self.folder}: {error.strerror}", "is /run full?") from None

    def call(self) -> str:
        return f'write("{self.folder}/{{{",".join(self.files)}}}")'

    def shell(self) -> str:
        from ..plan.shell import quote

        writes = "; ".join(f"printf %s {quote(text)} > {self.folder}/{name}" for name, text in self.files.items())
        return f"mkdir -m 700 {self.folder}; {writes}"
