"""What the attacks share: programs compiled for them, and the host's files before and after."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
_compiled: dict[str, bytes] = {}


def compiled(source: str | Path, *options: str) -> bytes:
    """The program that gcc makes of a C file here, or of C as text."""
    key = f"{source} {options}"
    if key not in _compiled:
        with tempfile.TemporaryDirectory() as folder:
            file = HERE / source if isinstance(source, Path) else Path(folder, "program.c")
            if not isinstance(source, Path):
                file.write_text(source)
            made = Path(folder, "program")
            subprocess.run(["gcc", "-O1", *(options or ("-static",)), file, "-o", made], check=True)
            _compiled[key] = made.read_bytes()
    return _compiled[key]


def install(path: Path, program: bytes) -> Path:
    """Write an executable file, in the place of whatever is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(program)
    path.chmod(0o755)
    return path


def behave(rootfs: Path) -> Path:
    """Put the program of ordinary habits into a root filesystem, as /bin/behave."""
    return install(rootfs / "bin/behave", compiled(Path("behave.c")))


def probe(rootfs: Path) -> Path:
    """Put the hostile program into a root filesystem, as /bin/probe."""
    return install(rootfs / "bin/probe", compiled(Path("probe.c")))


def own_files(source: Path) -> dict[str, str]:
    """What runs tarbox, by content: the interpreter, its libraries, every module of it and of tarbox's source."""
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), source]
    files = {Path(sys.executable).resolve()}
    files |= {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    for folder in {Path(folder).resolve() for folder in folders}:
        for name in ("*.py", "*.so", "lib-dynload/*.so", "tarbox/**/*.*", "encodings/*.py"):
            files |= {file for file in folder.glob(name) if file.suffix != ".pyc"}
    return hashes(files)


def hashes(files) -> dict[str, str]:
    """Files by name, each as the hash of its mode, owner and content."""
    found = {}
    for file in sorted(files):
        facts = os.lstat(file)
        what = f"{facts.st_mode:o} {facts.st_uid} {facts.st_gid} {facts.st_rdev} ".encode()
        if file.is_symlink():
            what += os.readlink(file).encode()
        elif file.is_file():
            what += file.read_bytes()
        found[str(file)] = hashlib.sha256(what).hexdigest()
    return found


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder, and the folder itself; see `hashes`."""
    return hashes([folder, *folder.rglob("*")])


class Canary:
    """A folder of the host's that an attack would like to change: a file, a folder, a FIFO and a link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "inner").mkdir(parents=True)
        (folder / "file").write_text("the host's own\n")
        os.mkfifo(folder / "fifo")
        (folder / "link").symlink_to("file")
        self.before = tree(folder)
        self.null = self._null()

    @staticmethod
    def _null() -> tuple[int, ...]:
        facts = os.stat("/dev/null")
        return facts.st_mode, facts.st_uid, facts.st_gid, facts.st_rdev, facts.st_ino

    def check(self) -> None:
        """Insist that nothing about it has changed, nor about the host's null device."""
        assert tree(self.folder) == self.before
        assert self._null() == self.null


@contextlib.contextmanager
def unchanged(folder: Path):
    """Insist at the block's end that no file of the host's has changed: canaries, the machine's users and names,
    what runs tarbox, the shells and libraries that `host` shows."""
    canary = Canary(folder)
    names = ["passwd", "group", "shadow", "hosts", "hostname", "resolv.conf", "fstab", "ld.so.cache"]
    watched = {Path("/etc", name) for name in names} | {Path("/bin/sh"), Path("/bin/busybox"), Path("/bin/bash")}
    watched = {file for file in watched if os.path.lexists(file)}
    before = hashes(watched), own_files(folder)
    yield canary
    canary.check()
    assert (hashes(watched), own_files(folder)) == before


def copy(rootfs: Path, to: Path) -> Path:
    """A root filesystem once more."""
    return Path(shutil.copytree(rootfs, to, symlinks=True))


def complained(done: subprocess.CompletedProcess[str], code: int = 125) -> str:
    """Insist that a start was refused with this code and in one clear line, which is returned."""
    assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("tarbox: "), done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]
