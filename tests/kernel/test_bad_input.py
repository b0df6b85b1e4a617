"""What can't work ends in one clear line and the right code, and nothing is left of it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import roots
import testhost

OVERLAY_IS_MISSING = """
import os, sys
sys.path.insert(0, {source!r})
from tarbox.kernel import overlay
from tarbox.errors import KernelError
real = overlay.syscall
def refuse(name, *arguments, **more):
    if name == "fsopen" and arguments[0] == b"overlay":
        raise KernelError(name, arguments, 19)
    return real(name, *arguments, **more)
overlay.syscall = refuse
from tarbox.cli.main import main
os._exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory."""
    return roots.busybox(tmp_path_factory.mktemp("image") / "root")


def refused(done: subprocess.CompletedProcess[str], said: str, code: int = 125) -> None:
    """It failed with this code, one line of tarbox's that says this, and no output."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("tarbox: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("\n")
    assert said in done.stderr
    assert len(done.stderr) < 700
    assert done.stderr[:-1].isprintable()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frob", "host"), "unknown option --frob"),
        (("-m", "lots", "host"), "lots"),
        (("-m", "5m", "--memory-swap", "1m", "host"), "--memory-swap is less than --memory"),
        (("--cpus", "1000", "host"), "more than this machine has"),
        (("--cap-add", "NOPE", "host"), "NOPE"),
        (("--stop-signal", "NOPE", "host"), "NOPE"),
        (("-w", "relative", "host"), "not an absolute path"),
        (("-h", "a" * 5000, "host"), "5000 characters is too long"),
        (("-h", "two\nlines", "host"), "host name"),
        (("-v", "named:/x", "host"), "named volume"),
        (("-v", "/x", "host"), "anonymous volume"),
        (("-v", "./x:/", "host"), "can't be /"),
        (("-v", "./x:/proc", "host"), "nothing can be mounted at /proc"),
        (("-v", "./x:/y", "-v", "./z:/y", "host"), "two mounts at /y"),
        (("--env-file", "./none", "host"), "none"),
        (("-u", "nobody-here", "host"), "nobody-here"),
        (("--security-opt", "seccomp=./none", "host"), "no such file"),
        (("--timeout", "soon", "host"), "soon"),
        ((), "no image to run"),
        (("nothing",), "there is no image nothing"),
        (("./nothing",), "there is no ./nothing"),
        (("./two\nlines",), "there is no ./two lines"),
        (("./" + "x" * 5000,), "there is no ./xxx"),
        (("--rootfs", "./nothing", "true"), "there is no such directory"),
        (("./folder:P",), "there is no ./folder:P"),
        (("folder",), "for the one here: ./folder"),
        (("./text",), "isn't a tar archive"),
        (("./empty",), "empty"),
        (("./noise",), "isn't a tar archive"),
        (("./cut.tar",), "cut short"),
        (("./cut.tar.gz",), "cut short"),
        (("./fifo",), "no regular file"),
        (("/dev/zero",), "no regular file"),
        (("./text:O",), "only a directory takes :O"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else "",
)
def test_one_line_says_what_is_wrong(tarbox, image, busybox_tar, words, said):
    """Code 125: tarbox didn't start anything. Nothing is left in the data root."""
    (tarbox.folder / "folder").mkdir()
    (tarbox.folder / "text").write_text("this is text\n" * 100)
    (tarbox.folder / "empty").touch()
    (tarbox.folder / "noise").write_bytes(os.urandom(4096))
    (tarbox.folder / "cut.tar").write_bytes(busybox_tar.read_bytes()[:300_000])
    packed = subprocess.run(["gzip", "-1c", busybox_tar], capture_output=True, check=True).stdout
    (tarbox.folder / "cut.tar.gz").write_bytes(packed[: len(packed) // 2])
    os.mkfifo(tarbox.folder / "fifo")
    refused(tarbox("run", "--rm", *words), said)
    left = [path for path in tarbox.root.rglob("*") if not path.is_dir() and path.parent.name != "cache"]
    assert not left
    assert not list(tarbox.root.glob("scratch/*"))


def test_a_program_for_another_processor(tarbox, image):
    """Told by its ELF header: which it is for, and what this machine is."""
    machine = os.uname().machine
    other, number = ("aarch64", 183) if machine == "x86_64" else ("x86_64", 62)
    binary = bytearray((image / "bin/busybox").read_bytes())
    binary[18:20] = number.to_bytes(2, "little")
    (image / "foreign").write_bytes(binary)
    (image / "foreign").chmod(0o755)
    refused(tarbox("run", f"{image}:O", "/foreign"), f"it is a program for {other}, and this machine is {machine}", 126)


def test_a_kernel_without_overlay(tarbox, image, tmp_path):
    """It says so, and what needs none; that works."""
    driver = OVERLAY_IS_MISSING.format(source=str(testhost.MAIN.parent.parent))
    (tmp_path / "driver.py").write_text(driver)
    start = [tarbox.host.python, "-I", "-S", tmp_path / "driver.py", "--root", tarbox.root, "run"]
    more = {"env": tarbox.environment(), "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    for name in (f"{image}:O", "host"):
        refused(subprocess.run([*start, name, "true"], **more), "this kernel has no overlay file system (try 'modprobe")
    assert subprocess.run([*start, image, "echo", "works"], **more).stdout == "works\n"
    assert not list((tarbox.root / "scratch").iterdir())


@pytest.fixture
def mount_root(tarbox):
    """Mounts a tmpfs with these options as the data root."""
    done: list[Path] = []

    def mount(options: str, flags: int = 0) -> Path:
        tarbox.root.mkdir()
        testhost.mount("small", str(tarbox.root), "tmpfs", flags, options)
        done.append(tarbox.root)
        return tarbox.root

    yield mount
    for path in done:
        subprocess.run(["umount", path], check=True)


def left_in(root: Path) -> list[str]:
    """The files and containers' directories in a data root, but for the cache."""
    kept = [path for path in root.rglob("*") if not path.is_dir() and path.parent.name != "cache"]
    return [str(path) for path in (*kept, *root.glob("scratch/*"), *root.glob("layers/*"))]


def test_a_full_disk(tarbox, image, busybox_tar, mount_root):
    """In the middle of unpacking, for the container's own directories, and for what the container writes."""
    root = mount_root("size=400k")
    refused(tarbox("run", busybox_tar, "true"), "unpacks to more than")
    assert not left_in(root)
    done = tarbox("run", f"{image}:O", "dd", "if=/dev/zero", "of=/x", "bs=1M", "count=1")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert not left_in(root)
    with (root / "filler").open("wb", buffering=0) as filler:
        for size in (4096, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                pass
    refused(tarbox("run", f"{image}:O", "true"), "No space left on device")
    (root / "filler").unlink()
    assert not left_in(root)
    assert tarbox("run", f"{image}:O", "true").returncode == 0


def test_a_disk_without_inodes(tarbox, image, mount_root):
    """As full as can be."""
    root = mount_root("nr_inodes=7")
    refused(tarbox("run", f"{image}:O", "true"), "No space left on device")
    assert not left_in(root)


def test_a_read_only_data_root(tarbox, image, mount_root):
    """Even for an image that is written through: locks and journals lie there."""
    mount_root("", 1)  # MS_RDONLY
    refused(tarbox("run", f"{image}:O", "true"), "Read-only file system (choose a data root that you can write to")
    refused(tarbox("run", image, "true"), "Read-only file system")


def test_a_data_root_that_is_a_file(tarbox, image):
    """Or below one."""
    tarbox.root.touch()
    refused(tarbox("run", image, "true"), "something that isn't a directory is in the way")
    tarbox.root = tarbox.root / "below"
    refused(tarbox("run", image, "true"), "something that isn't a directory is in the way")


def test_a_data_root_on_an_overlay(tarbox, image, tmp_path):
    """As in most containers: it says what to do, and doing it works."""
    folders = {name: tmp_path / name for name in ("lower", "upper", "work")}
    for folder in (*folders.values(), tarbox.root):
        folder.mkdir()
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**folders)
    testhost.mount("overlay", str(tarbox.root), "overlay", 0, options)
    try:
        refused(tarbox("run", f"{image}:O", "true"), "with --root, or keep the writes in memory with --root-tmpfs SIZE")
        assert (
            tarbox.output("run", "--root-tmpfs", "1m", f"{image}:O", "sh", "-c", "touch /x && echo works") == "works\n"
        )
        assert tarbox.output("run", image, "echo", "works") == "works\n"
        assert not left_in(tarbox.root)
    finally:
        subprocess.run(["umount", tarbox.root], check=True)


@pytest.mark.parametrize("mode", ["700", "755"])
def test_a_state_folder_that_cant_be_written(tarbox, image, tmp_path, mode):
    """/run on a read-only file system."""
    command = tarbox.command("run", image, "true")
    script = "mkdir -p /run/tarbox; mount -t tmpfs -o ro,mode=" + mode + ' none /run/tarbox; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        env=tarbox.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    refused(done, "cannot make /run/tarbox")
    assert "Read-only file system" in done.stderr


def test_a_processor_that_tarbox_has_no_code_for(tarbox, image, tmp_path):
    """It is refused by name."""
    driver = f"import os,sys; sys.path.insert(0, {str(testhost.MAIN.parent.parent)!r}); real = os.uname();\n"
    driver += "os.uname = lambda: os.uname_result((real[0], real[1], real[2], real[3], 'riscv64'))\n"
    driver += "from tarbox.cli.main import main; os._exit(main(sys.argv[1:]))"
    (tmp_path / "driver.py").write_text(driver)
    start = [tarbox.host.python, "-I", "-S", tmp_path / "driver.py", "--root", tarbox.root, "run", image, "true"]
    done = subprocess.run(start, env=tarbox.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 125
    assert re.fullmatch(r"tarbox: .*riscv64.*\n", done.stderr), done.stderr


def test_root_without_the_capability_to_mount(tarbox, image):
    """As in another engine's container; what would be done is still told."""
    weak = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-all", "--"]
    done = subprocess.run(
        [*weak, *tarbox.command("run", image, "true")], env=tarbox.environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("tarbox: root without CAP_SYS_ADMIN can't make a container: ")
    assert done.stderr.count("\n") == 1
    told = subprocess.run(
        [*weak, *tarbox.command("explain", "run", image, "true")],
        env=tarbox.environment(),
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "pivot_root" in told.stdout
