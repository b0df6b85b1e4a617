"""The three files of /etc that an engine writes for a container: its names, and whom it asks for others.

    printf '127.0.0.1 localhost\n127.0.1.1 box\n' > hosts; mount --bind hosts $ROOT/etc/hosts

man 5 hosts, man 5 hostname, man 5 resolv.conf
"""

from __future__ import annotations

import os

from ..errors import KernelError
from ..kernel import mounts, paths
from ..plan.step import CHILD, Slots, Step
from .options import HOST

_LARGEST = 1 << 20
_OPTIONS, _ATTRIBUTES = ("size=1m", "mode=755"), ("nosuid", "nodev", "noexec")
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


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _LARGEST).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


class MountFiles(Step):
    """Mount small files into /etc of the container, from a file system in memory that only the container has.

    files: their texts by name. folder: a directory of the host over which that file system lies meanwhile, in the
    container's own mount namespace; it goes when the old root goes.
    """

    __slots__ = ("files", "folder")

    phase = "filesystem"
    why = "the container's own host name has to be found under its own name; the image can't know it"
    man = "hosts(5), resolv.conf(5)"

    def __init__(self, folder: str, files: dict[str, str], by: str = CHILD) -> None:
        super().__init__(by)
        self.folder = folder
        self.files = files

    def takes(self) -> tuple[str, ...]:
        return ("root",)

    def apply(self, slots: Slots) -> None:
        root = slots.take("root")
        memory = mounts.new_filesystem("tmpfs", _OPTIONS, _ATTRIBUTES)
        try:
            folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            mounts.attach(memory, folder)
            os.close(folder)
            for name, text in self.files.items():
                self._mount(root, memory, name, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(memory)

    @staticmethod
    def _mount(root: int, memory: int, name: str, text: bytes) -> None:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=memory)
        os.write(descriptor, text)
        os.close(descriptor)
        tree = mounts.clone_tree(memory, name)
        place = -1
        try:
            place = paths.make_file(root, f"/etc/{name}")
            mounts.refuse_proc(place, f"/etc/{name}")
            mounts.attach(tree, place)
        except KernelError as error:
            hint = mounts.REASONS.get(error.errno, error.hint)
            raise KernelError("move_mount", (f"/etc/{name}",), error.errno, hint) from None
        finally:
            os.close(tree)
            if place >= 0:
                os.close(place)

    def call(self) -> str:
        made = f'mount("tmpfs", "{self.folder}", "tmpfs", "{",".join((*_ATTRIBUTES, *_OPTIONS))}")'
        return "; ".join([made, *(f'move_mount(open_tree("{name}"), "/etc/{name}")' for name in self.files)])

    def shell(self) -> str:
        from ..plan.shell import quote

        steps = [f"mount -t tmpfs -o {','.join((*_ATTRIBUTES, *_OPTIONS))} tmpfs {self.folder}"]
        for name, text in self.files.items():
            file = f"{self.folder}/{name}"
            steps.append(f"printf %s {quote(text)} > {file}; mount --bind {file} $ROOT/etc/{name}")
        return "; ".join(steps)
