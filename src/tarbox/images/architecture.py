"""For which processor a root filesystem was made, and whether this machine can run it.

    file -L /bin/sh; uname -m; cat /proc/sys/fs/binfmt_misc/*

Told from the header of a program in the tree. Names are those of Go and the OCI: amd64, arm64, ….

man 5 elf, man 1 uname, kernel documentation "binfmt_misc"
"""

from __future__ import annotations

from ..errors import ArchitectureError, TarboxError
from ..kernel.paths import open_in
from ..kernel.syscall import MACHINE
from ..unistd import S_ISREG, os

# (e_machine, bits, "little" or "big"): the name
_NAMES = {
    (3, 32, "little"): "386", (62, 64, "little"): "amd64", (62, 32, "little"): "amd64p32", (40, 32, "little"): "arm",
    (183, 64, "little"): "arm64", (243, 64, "little"): "riscv64", (243, 32, "little"): "riscv32",
    (21, 64, "little"): "ppc64le", (21, 64, "big"): "ppc64", (20, 32, "big"): "ppc", (22, 64, "big"): "s390x",
    (8, 32, "little"): "mipsle", (8, 32, "big"): "mips", (8, 64, "little"): "mips64le", (8, 64, "big"): "mips64",
    (258, 64, "little"): "loong64", (2, 32, "big"): "sparc", (43, 64, "big"): "sparc64",
}  # fmt: skip
_HOSTS = {"x86_64": ("amd64", "386", "amd64p32"), "aarch64": ("arm64", "arm")}
# What nearly every system has; then whatever is where programs are.
_PROGRAMS = ("bin/sh", "usr/bin/env", "bin/busybox", "usr/bin/dpkg", "sbin/init", "usr/lib/systemd/systemd")
_FOLDERS = ("bin", "usr/bin", "usr/local/bin", "sbin", "usr/sbin", "app", ".")
_LOOKED_AT = 64  # files of each folder
_HANDLERS = "/proc/sys/fs/binfmt_misc"


def architecture(tree: int) -> str | None:
    """The architecture of the programs in the directory `tree` (a descriptor); None when no program tells."""
    for program in _PROGRAMS:
        if name := _of_program(tree, program):
            return name
    for folder in _FOLDERS:
        try:
            handle = open_in(tree, folder, os.O_RDONLY | os.O_DIRECTORY)
        except TarboxError:
            continue
        try:
            with os.scandir(handle) as entries:
                names = [entry.name for entry, _ in zip(entries, range(_LOOKED_AT), strict=False)]
        finally:
            os.close(handle)
        for program in names:
            if name := _of_program(tree, f"{folder}/{program}"):
                return name
    return None


def _of_program(tree: int, path: str) -> str | None:
    try:
        handle = open_in(tree, path, os.O_PATH)
    except TarboxError:
        return None
    try:
        if not S_ISREG(os.fstat(handle).st_mode):
            return None
        file = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(handle)
    try:
        return of_header(os.read(file, 20))
    except OSError:
        return None
    finally:
        os.close(file)


def of_header(header: bytes) -> str | None:
    """The architecture that the first 20 bytes of a program tell; None when it's no ELF file."""
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[4] not in (1, 2) or header[5] not in (1, 2):
        return None
    order = "little" if header[5] == 1 else "big"
    machine = int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")
    return _NAMES.get((machine, 32 * header[4], order), f"elf-{machine}")


def require(name: str, image: str, platform: str = "") -> None:
    """Raise ArchitectureError unless this machine runs programs of the architecture `name` ("": not known).

    platform: the one that it must be, "" for any.
    """
    if platform and name and name != platform:
        raise ArchitectureError(f"{image} is made for {name}, not for {platform}", f"--platform linux/{name}")
    hosts = _HOSTS.get(MACHINE, (MACHINE,))
    if not name or name in hosts or _has_handler(name):
        return
    raise ArchitectureError(
        f"{image} is made for {name}, and this machine is {hosts[0]}",
        f"use an image for {hosts[0]}, or install an emulator for {name}, on Debian: apt install qemu-user-static",
    )


def require_platform(platform: str, directory: str = "", own: bool = False) -> None:
    """Raise ArchitectureError unless this machine runs programs of that architecture.

    directory: a root that has to be made for it, "" for none. own: the programs are this machine's.
    """
    hosts = _HOSTS.get(MACHINE, (MACHINE,))
    if own and platform != hosts[0]:
        raise ArchitectureError(f"this machine's own programs are for {hosts[0]}, not for {platform}", "name an image")
    if platform not in hosts and not _has_handler(platform):
        raise ArchitectureError(
            f"--platform linux/{platform}: this machine is {hosts[0]} and doesn't run such programs",
            f"install an emulator for {platform}, on Debian: apt install qemu-user-static",
        )
    if directory:
        tree = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            require(architecture(tree) or "", directory, platform)
        finally:
            os.close(tree)


def _has_handler(name: str) -> bool:
    """Whether binfmt_misc hands programs of this architecture to an emulator."""
    try:
        handlers = os.listdir(_HANDLERS)
    except OSError:
        return False
    for handler in handlers:
        if handler not in ("register", "status"):
            try:
                with open(f"{_HANDLERS}/{handler}") as text:
                    if handles(text.read(), name):
                        return True
            except OSError:
                continue
    return False


def handles(handler: str, name: str) -> bool:
    """Whether a handler, as /proc/sys/fs/binfmt_misc shows it, takes programs of the architecture `name`."""
    lines = handler.split("\n")
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    if "enabled" not in lines or fields.get("offset") != "0" or "magic" not in fields:
        return False
    try:
        magic = bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields.get("mask", "ff" * len(magic)))
    except ValueError:
        return False
    for (machine, bits, order), its in _NAMES.items():
        if its == name:
            little = order == "little"
            header = b"\x7fELF" + bytes([bits // 32, 1 if little else 2, 1]) + bytes(9)
            header += (2).to_bytes(2, "little" if little else "big")
            header += machine.to_bytes(2, "little" if little else "big")
            return len(magic) <= 20 and all(
                given & keep == wanted & keep for given, wanted, keep in zip(header, magic, mask, strict=False)
            )
    return False
