"""The label of a security module: the program starts with it, or doesn't start, whatever lies where it's written.

This machine needn't have such a module: then no label can be set, and an image that fakes the file must not make it
look as if one were. Whether labels are in force where there is one, tests/vm/test_apparmor.py shows.
"""

from __future__ import annotations

import os
import subprocess
from errno import EINVAL, EXDEV
from pathlib import Path

import pytest

from kernel.test_attack_race import swapping
from rows import in_child, perform
from tarbox.errors import KernelError, UnsupportedError
from tarbox.kernel.security_label import APPARMOR, SELINUX, OpenAttribute, OpenProc, SetLabel
from tarbox.kernel.syscall import syscall
from tarbox.plan.step import Slots

pytestmark = pytest.mark.unhurried

CLONE_NEWNS, MS_PRIVATE, MS_BIND = 0x20000, 1 << 18 | 0x4000, 0x1000
ON = os.path.exists("/sys/module/apparmor") or os.path.exists("/sys/fs/selinux/enforce")

# Python that starts the command as on a machine where AppArmor is on and the profile is loaded.
AS_IF = """
import sys
sys.path.insert(0, {source!r})
from tarbox.engine import machine
from tarbox.kernel import apparmor
machine._apparmor = lambda: "unconfined"
apparmor.is_loaded = apparmor.is_marked = lambda name: True
from tarbox.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_profile_or_label_is_refused_with_the_reason_where_there_is_no_module(tarbox):
    for option, module in (("apparmor=mine", "AppArmor"), ("label=type:container_t", "SELinux")):
        if ON:
            pytest.skip("a security module is on here")
        done = tarbox("run", "--rm", "--security-opt", option, "host", "true")
        assert done.returncode == 125
        assert f"--security-opt {option}: {module} is off on this machine" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_to_ask_for_none_is_fine_everywhere(tarbox):
    for option in ("apparmor=unconfined", "label=disable"):
        assert tarbox.output("run", "--rm", "--security-opt", option, "host", "echo", "ran") == "ran\n"


def _with_files(rootfs: Path, kind: str) -> list[Path]:
    """Put a /proc into an image that has files to write labels to, and return them."""
    place = rootfs / "proc"
    if kind == "a link to a folder":
        place.rmdir()
        place.symlink_to("/fake")
        place = rootfs / "fake"
    files = []
    for process in ("self", "thread-self", "1"):
        for name in ("exec", "current", "apparmor/exec", "apparmor/current"):
            files.append(place / process / "attr" / name)
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_text("")
    return files


@pytest.mark.skipif(ON, reason="a label can be set here")
@pytest.mark.parametrize("kind", ["a folder", "a link to a folder"])
@pytest.mark.parametrize("init", [(), ("--init",)])
def test_an_image_that_brings_files_for_it_gets_no_label_written_and_isnt_run(
    test_host, tarbox, rootfs_busybox, kind, init
):
    files = _with_files(rootfs_busybox, kind)
    source = str(test_host.main.parent.parent)
    start = [test_host.python, "-I", "-S", "-c", AS_IF.format(source=source), "--root", str(tarbox.root)]
    command = [*start, "run", "--rm", *init, str(rootfs_busybox), "echo", "ran"]
    done = subprocess.run(command, env=tarbox.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (125, "")
    assert "AppArmor doesn't take tarbox-default as a profile, or is off" in done.stderr, done.stderr
    assert [file.read_text() for file in files] == [""] * len(files)
    command[-3:-2] = ["--security-opt", "apparmor=unconfined", str(rootfs_busybox)]  # and the honest use of that image
    done = subprocess.run(command, env=tarbox.environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "ran\n", done.stderr


@pytest.mark.skipif(ON, reason="a label can be set here: tests/vm/test_attack_label.py")
@pytest.mark.parametrize("kind", ["a folder", "a link to a folder"])
def test_a_proc_that_is_exchanged_meanwhile_gets_no_label_either(test_host, tarbox, rootfs_busybox, tmp_path, kind):
    """No start of forty is fooled: the program isn't run, and none of the files has been written to."""
    files = _with_files(rootfs_busybox, kind)
    (rootfs_busybox / "proc").rename(rootfs_busybox / "proc.swap")
    (rootfs_busybox / "proc").mkdir()
    files = [Path(str(file).replace(f"{rootfs_busybox}/proc/", f"{rootfs_busybox}/proc.swap/")) for file in files]
    source = str(test_host.main.parent.parent)
    start = [test_host.python, "-I", "-S", "-c", AS_IF.format(source=source), "--root", str(tarbox.root)]
    command = [*start, "run", "--rm", str(rootfs_busybox), "echo", "ran"]
    with swapping(tmp_path, [(rootfs_busybox / "proc", rootfs_busybox / "proc.swap")]):
        for _ in range(40):
            done = subprocess.run(command, env=tarbox.environment(), capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout) == (125, "")
            assert len(done.stderr.splitlines()) == 1
    found = [file for file in rootfs_busybox.rglob("attr/**/*") if file.is_file() and not file.is_symlink()]
    assert len(found) == len(files)
    assert {file.read_text() for file in found} == {""}


def test_a_volume_over_proc_is_refused(tarbox, tmp_path):
    for place in ("/proc", "/proc/self/attr", "/proc/sys"):
        done = tarbox("run", "--rm", "-v", f"{tmp_path}:{place}", "host", "true")
        assert (done.returncode, "nothing can be mounted at /proc" in done.stderr) == (125, True)


# The steps by themselves, on a machine whose /proc somebody has changed.


def _in_own_mounts(function):
    """What `function` returns in a child with a mount namespace of its own."""

    def body():
        syscall("unshare", CLONE_NEWNS)
        syscall("mount", 0, b"/", 0, MS_PRIVATE, 0)
        return function()

    return in_child(body)


def _bind(source, target):
    syscall("mount", os.fsencode(source), os.fsencode(target), 0, MS_BIND, 0)


def _open() -> str:
    slots = Slots()
    try:
        OpenProc().apply(slots)
    except UnsupportedError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("fake", ["folder", "tmpfs", "a part of the real one"])
def test_a_machines_proc_that_isnt_the_kernels_is_refused(tmp_path, fake):
    def body():
        if fake == "tmpfs":
            syscall("mount", b"x", b"/proc", b"tmpfs", 0, 0)
        else:
            _bind(tmp_path if fake == "folder" else "/proc/self", "/proc")
        return _open()

    assert "this machine's /proc isn't the kernel's" in _in_own_mounts(body)
    assert in_child(_open) == ""


def _ask(module: str, name: str, label: str) -> tuple[str, int]:
    """Ask for a label; the call that fails and its errno."""
    slots = Slots()
    OpenProc().apply(slots)
    try:
        registers = perform(OpenAttribute(module, name).rows(slots))
    except KernelError as error:
        return error.call, error.errno
    try:
        perform(SetLabel(module, label, name == "current").rows(slots), registers)
    except KernelError as error:
        return error.call, error.errno
    return "", 0


@pytest.mark.parametrize("module", [APPARMOR, SELINUX])
@pytest.mark.parametrize("name", ["exec", "current"])
def test_a_file_that_lies_over_the_kernels_isnt_written_to(tmp_path, module, name):
    fake = tmp_path / "fake"
    fake.write_text("")
    own = f"/proc/self/attr/{'apparmor/' if module == APPARMOR and os.path.exists('/proc/self/attr/apparmor') else ''}"

    def body():
        _bind(fake, os.path.realpath(own) + f"/{name}")
        return _ask(module, name, "mine")

    assert _in_own_mounts(body) == ("openat2", EXDEV)
    assert fake.read_text() == ""


@pytest.mark.skipif(ON, reason="a label can be set here")
def test_without_a_module_the_kernel_takes_no_label():
    for module in (APPARMOR, SELINUX):
        for name in ("exec", "current"):
            assert in_child(lambda module=module, name=name: _ask(module, name, "mine")) == ("write", EINVAL)
