"""No code of an image's is run or loaded by a process of tarbox's: no library, no helper, no module.

Python is never in the container. It opens the container's files from outside, and loads next to nothing meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import faults
import roots
from conftest import PLAIN_USER
from kernel.attacks import tools
from rows import in_child

MARK = "it-ran"
# Without a C library: what a constructor of a library, or a program, does is one mkdir.
LIBRARY = """
__attribute__((constructor)) static void run(void)
{ long r; __asm__ volatile("syscall" : "=a"(r) : "a"(83), "D"("/%s"), "S"(0755) : "rcx", "r11", "memory"); }
"""
PROGRAM = """
#include <sys/stat.h>
int main(void) { return mkdir("/%s", 0755); }
"""
CODES = ("import os", "try: os.mkdir('/%s')", "except OSError: pass")
x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the hostile library is made for x86-64")


def _poison(rootfs: Path) -> None:
    """Put something hostile wherever a process that is half inside might look for code."""
    library = tools.compiled(LIBRARY % MARK, "-shared", "-nostdlib", "-fPIC")
    names = ["libc.so.6", "libpthread.so.0", "libtarbox.so", "libnss_tarbox.so.2"]
    names += [f"libnss_{name}.so.2" for name in ("files", "compat", "dns", "systemd", "myhostname")]
    for folder in ("lib", "usr/lib", f"lib/{sysconfig.get_config_var('MULTIARCH')}", "lib64", "usr/local/lib"):
        for name in names:
            tools.install(rootfs / folder / name, library)
    (rootfs / "etc/nsswitch.conf").write_text("passwd: tarbox files\ngroup: tarbox files\nhosts: tarbox\n")
    (rootfs / "etc/ld.so.preload").write_text("/lib/libtarbox.so\n")
    program = tools.compiled(PROGRAM % MARK)
    for folder in ("bin", "usr/bin", "usr/local/bin", "sbin", "usr/sbin"):
        for name in (
            "xz",
            "gzip",
            "pigz",
            "unpigz",
            "zstd",
            "tar",
            "mount",
            "nsenter",
            "python3",
            "newuidmap",
            "tarbox",
        ):
            tools.install(rootfs / folder / name, program)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    code = "\n".join(CODES) % MARK + "\n"
    bases = [Path(sys.base_prefix), Path(sys.prefix), Path("/usr"), Path("/usr/local")]
    own = [Path(path) for path in sys.path if path.startswith("/")]
    folders = [base / "lib" / version for base in bases] + own + [tools.HERE.parents[2] / "src"]
    for folder in {*folders, *(folder / "site-packages" for folder in folders), Path("/")}:
        inside = rootfs / str(folder).lstrip("/")
        if inside.is_file():
            continue
        for name in ("sitecustomize.py", "usercustomize.py", "encodings/__init__.py", "encodings/utf_8.py", "os.py",
                     "tarbox/__init__.py", "shlex.py", "traceback.py", "linecache.py", "codecs.py"):  # fmt: skip
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            (inside / name).write_text(code)


RUNS = {
    "plain": (),
    "user": ("-u", "guest", "--group-add", "audio"),
    "init": ("--init",),
    "limits": ("-m", "64m", "--pids-limit", "50", "--ulimit", "nofile=100:200", "--cpus", "0.5"),
    "variables": ("-e", "LD_PRELOAD=/lib/libtarbox.so", "-e", "PYTHONPATH=/", "-e", "PYTHONSTARTUP=/os.py",
                  "-e", "LD_LIBRARY_PATH=/lib", "-e", "GCONV_PATH=/lib", "-e", "PYTHONINSPECT=1"),
    "folder": ("-w", "/new/folder", "--tmpfs", "/tmpfs"),
    "read-only": ("--read-only", "-w", "/tmp"),
    "rights": ("--cap-add", "SYS_PTRACE", "--security-opt", "no-new-privileges"),
    "network": ("--net", "host", "-h", "box"),
    "terminal": ("-t",),
    "privileged": ("--privileged",),
    "memory": ("--root-tmpfs", "64m"),
}  # fmt: skip


@x86
@pytest.mark.parametrize("name", RUNS)
def test_nothing_of_the_image_runs_but_its_program(tarbox, rootfs_busybox, name):
    _poison(rootfs_busybox)
    try:
        told = tarbox.output("run", "--rm", *RUNS[name], rootfs_busybox, "/bin/busybox", "id", "-u")
        assert told.strip() == ("1000" if name == "user" else "0")
        assert not (rootfs_busybox / MARK).exists()
        assert not os.path.exists(f"/{MARK}")
    finally:
        if os.path.isdir(f"/{MARK}"):
            os.rmdir(f"/{MARK}")


@x86
def test_what_is_hostile_would_leave_its_mark(tarbox, rootfs_busybox):
    """The test above could fail: started by the container itself, each of the three leaves the mark."""
    _poison(rootfs_busybox)
    tarbox("run", "--rm", rootfs_busybox, "xz")
    assert (rootfs_busybox / MARK).is_dir()
    for command in (
        ["env", "-", f"LD_PRELOAD={rootfs_busybox}/lib/libtarbox.so", "/bin/true"],
        [sys.executable, "-I", "-S", "-c", f"exec(open({str(rootfs_busybox / 'os.py')!r}).read())"],
    ):
        subprocess.run(command, check=True)
        os.rmdir(f"/{MARK}")


MAIN = tools.HERE.parents[2] / "src/tarbox/__main__.py"
RUNNER, BUSYBOX = "/memfd:runner (deleted)", "/bin/busybox"
MEANWHILE = "tarbox.kernel.trees"  # loaded while the runner is busy
REASONS = "tarbox.kernel.obstacles"  # loaded when the program didn't start
# Nothing of these ever happens while the container's files are open.
NEVER = ("ctypes.dlopen", "subprocess", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.chdir", "os.fchdir",
         "pty.", "os.setxattr", "os.putenv")  # fmt: skip


def _events(tarbox, tmp_path, *arguments, planted=()):
    """What happened while a container's files were open: the command, and the events.

    With a network the program could have ended before this process looks at it.
    """
    log = tmp_path / "log"
    log.write_bytes(b"")
    log.chmod(0o666)
    start = [tarbox.host.python, "-I", "-S", str(tools.HERE / "watched.py"), str(log), str(MAIN)]
    done = subprocess.run(
        [*start, *planted, "--root", str(tarbox.root), "run", "--net", "none", *map(str, arguments)],
        env=tarbox.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tarbox.folder,
    )  # fmt: skip
    lines = log.read_text().splitlines()
    assert lines[0] == "opened", done.stderr
    return done, lines


def _check(tarbox, lines, *known):
    """Only these modules were loaded, from where tarbox lies; nothing was started; and it stayed where it was."""
    assert len(lines) > 10
    assert [line for line in lines if line.startswith(NEVER)] == []
    assert _loaded(lines) == list(known)
    names = [line.split("'")[1] for line in lines if line.startswith("open ('")]
    code = [name for name in names if name.endswith((".py", ".pyc", ".so", ".modules", ".zip"))]
    assert [name for name in code if not name.startswith(f"{MAIN.parent}/")] == []
    executed = [line for line in lines if line.startswith("exec ")]
    assert len(executed) == len(known)
    for name, line in zip(known, executed, strict=True):
        assert f"/{name.replace('.', '/')}.py" in line
    assert lines[-1] == f"started in {tarbox.folder} of /"
    # From its birth on; on a busy machine it may be the container's program already, or have ended.
    (first,) = [line for line in lines if line.startswith("first ")]
    assert first.removeprefix("first ") in (RUNNER, BUSYBOX, "ended")


def _loaded(lines):
    return [line.split("'")[1] for line in lines if line.startswith("import ")]


@pytest.mark.parametrize("name", RUNS)
def test_no_module_is_loaded_while_a_containers_files_are_open(tarbox, tmp_path, rootfs_busybox, name):
    """But one by name, when the container is on its own already. Counted by the interpreter itself."""
    done, lines = _events(tarbox, tmp_path, "--rm", *RUNS[name], rootfs_busybox, "true")
    assert done.returncode == 0, done.stderr
    _check(tarbox, lines, MEANWHILE)


@pytest.mark.parametrize(
    "arguments", [("no-such-program",), ("/etc/passwd",), ("/etc",), ("-w", "/etc/passwd", "true")]
)
def test_no_module_is_loaded_for_an_error_but_to_find_the_reason(tarbox, tmp_path, rootfs_busybox, arguments):
    options, words = (arguments[:2], arguments[2:]) if arguments[0] == "-w" else ((), arguments)
    done, lines = _events(tarbox, tmp_path, *options, rootfs_busybox, *words)
    assert done.returncode in (125, 126, 127)
    if options:  # found out before there is a process
        assert _loaded(lines) == []
        assert not any(line.startswith(("first ", "exec ", *NEVER)) for line in lines)
    else:
        _check(tarbox, lines, MEANWHILE, REASONS)


def test_no_module_is_loaded_in_a_container_of_the_hosts_files(tarbox, tmp_path):
    done, lines = _events(tarbox, tmp_path, "--rm", "-u", "nobody", "host", "true")
    assert done.returncode == 0, done.stderr
    assert _loaded(lines) == [MEANWHILE]
    assert not any(line.startswith(NEVER) for line in lines)


def test_the_count_sees_a_module_that_is_loaded(tarbox, tmp_path, rootfs_busybox):
    """And the module isn't found, though the image has one by that name where the interpreter would look first."""
    (rootfs_busybox / "planted.py").write_text("\n".join(CODES) % MARK)
    done, lines = _events(tarbox, tmp_path, rootfs_busybox, "true", planted=("--import", "planted"))
    assert done.returncode == 0, done.stderr
    assert "planted" in _loaded(lines)
    assert not (rootfs_busybox / MARK).exists()


@pytest.mark.parametrize("name", ["directory", "terminal", "plain"])
def test_no_python_is_in_the_container_at_any_step(name, plain_folder, test_host):
    """Its first process is the runner from the first row on, with nothing else in its memory."""
    scene = faults.scene(name, plain_folder, roots.busybox(plain_folder / "busybox"), test_host, PLAIN_USER)

    def drive():
        faults.be_driver()
        first = faults.Command(scene)
        first.drive()
        seen = []
        for row in first.table.places():
            command = faults.Command(scene, hold=row)
            command.await_hold()
            assert command.held, row
            seen.append((row, _inside(command.held), _shared(command.pid, command.held)))
            command.drive("child")
        return seen, first.table.of("Unshare")[-1]

    seen, unshared = in_child(drive)
    assert seen[0][0] == 0 < unshared < seen[-1][0]
    for row, inside, shared in seen:
        assert set(inside) == {(RUNNER, ())}, row
        own = {"pid"} if row <= unshared else {"pid", "mnt", "ipc", "uts", "cgroup"}
        assert not shared & own, row


def _inside(pid):
    """Of each process in the same PID namespace: what it executes, and which files are in its memory."""
    space = os.readlink(f"/proc/{pid}/ns/pid")
    found = []
    for entry in os.listdir("/proc"):
        try:
            if not entry.isdigit() or os.readlink(f"/proc/{entry}/ns/pid") != space:
                continue
            exe = os.readlink(f"/proc/{entry}/exe")
            maps = Path(f"/proc/{entry}/maps").read_text().splitlines()
        except OSError:
            continue  # it ended while we looked
        files = {line.split(None, 5)[5] for line in maps if len(line.split(None, 5)) == 6} - {RUNNER}
        found.append((exe, tuple(sorted(file for file in files if not file.startswith("[")))))
    return found


def _shared(one, other):
    """The kinds of namespaces in which both are."""
    return {
        kind
        for kind in os.listdir(f"/proc/{one}/ns")
        if os.readlink(f"/proc/{one}/ns/{kind}") == os.readlink(f"/proc/{other}/ns/{kind}")
    }


def test_names_of_users_are_read_from_the_image(tarbox, rootfs_busybox):
    """The honest side: without any library, a user of the image's is known by name, and only there."""
    with open(rootfs_busybox / "etc/passwd", "a") as file:
        file.write("only-here:x:4711:4712::/srv:/bin/sh\n")
    script = "id -u; id -g; echo $HOME"
    told = tarbox.output("run", "--rm", "-u", "only-here", rootfs_busybox, "sh", "-c", script)
    assert told == "4711\n4712\n/srv\n"
    done = tarbox("run", "--rm", "-u", "daemon", rootfs_busybox, "id")
    assert "unable to find user daemon" in tools.complained(done)
