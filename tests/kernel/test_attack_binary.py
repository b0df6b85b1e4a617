"""The program that starts a container is out of its reach: through /proc, a debugger, or by being started again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import testhost
from kernel.attacks import tools

pytestmark = pytest.mark.unhurried


@pytest.fixture
def untouched(tarbox, tmp_path, monkeypatch):
    """Fails a test after which the interpreter, a library or a module isn't what it was.

    The modules are a copy, as somebody may be at work on those of the checkout.
    """
    source = tmp_path / "checkout/src"
    shutil.copytree(testhost.MAIN.parent, source / "tarbox", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(tarbox.host, "main", source / "tarbox/__main__.py")
    before = tools.own_files(source)
    assert len(before) > 250
    yield
    after = tools.own_files(source)
    assert [name for name in before if after.get(name) != before[name]] == []


@pytest.mark.parametrize("interpreter", ["/proc/self/exe", "/proc/1/exe", "/proc/thread-self/exe"])
def test_a_script_whose_interpreter_is_the_process_itself(tarbox, rootfs_busybox, untouched, interpreter):
    """The entry point that once overwrote a runtime: what it names is the sealed runner, which doesn't run twice."""
    tools.install(rootfs_busybox / "entry", f"#!{interpreter}\n".encode())
    for options in ((), ("--init",), ("--cap-add", "SYS_PTRACE"), ("-u", "guest")):
        done = tarbox("run", "--rm", *options, rootfs_busybox, "/entry")
        assert done.stdout == ""
        assert f"the interpreter of /entry in the container, {interpreter}, is" in tools.complained(done, 126)


def test_a_script_whose_interpreter_leads_to_the_process_itself(tarbox, rootfs_busybox, untouched):
    """By a link of the image, or by another script."""
    (rootfs_busybox / "link").symlink_to("/proc/self/exe")
    tools.install(rootfs_busybox / "entry", b"#!/link\n")
    tools.install(rootfs_busybox / "outer", b"#!/entry\n")
    for entry in ("/entry", "/outer"):
        text = tools.complained(tarbox("run", "--rm", rootfs_busybox, entry), 126)
        assert "the interpreter of /entry in the container, /link, is" in text


def test_a_script_that_is_its_own_interpreter(tarbox, rootfs_busybox):
    tools.install(rootfs_busybox / "entry", b"#!/entry\n")
    assert "too many of them" in tools.complained(tarbox("run", "--rm", rootfs_busybox, "/entry"), 126)


@pytest.mark.parametrize("link", ["/proc/self/exe", "/proc/1/exe"])
@pytest.mark.parametrize("options", [(), ("--init",)])
def test_a_program_that_is_the_process_itself(tarbox, rootfs_busybox, untouched, link, options):
    (rootfs_busybox / "entry").symlink_to(link)
    for entry in ("/entry", link):
        done = tarbox("run", "--rm", *options, rootfs_busybox, entry)
        assert done.stdout == ""
        assert f"{entry} in the container is the process that starts" in tools.complained(done, 126)


def test_a_script_with_an_honest_interpreter_runs(tarbox, rootfs_busybox):
    tools.install(rootfs_busybox / "entry", b"#!/bin/sh\necho honest $1\n")
    assert tarbox.output("run", "--rm", rootfs_busybox, "/entry", "work") == "honest work\n"
    tools.install(rootfs_busybox / "outer", b"#!/entry\n")
    assert tarbox.output("run", "--rm", rootfs_busybox, "/outer") == "honest /outer\n"
    for interpreter in ("bin/sh", "/proc/self/root/bin/sh", "/proc/thread-self/cwd/bin/sh"):
        tools.install(rootfs_busybox / "entry", f"#!{interpreter}\necho still\n".encode())
        assert tarbox.output("run", "--rm", rootfs_busybox, "/entry") == "still\n"


def test_the_init_of_a_container_is_the_sealed_runner(tarbox, rootfs_busybox, untouched):
    """With --init, process 1 is ours for good: it can be looked at and not changed."""
    tools.probe(rootfs_busybox)
    script = "(echo x > /proc/1/exe) 2>&1; readlink /proc/1/exe; probe pry 0.3"
    told = tarbox.output("run", "--rm", "--init", "--cap-add", "SYS_PTRACE", rootfs_busybox, "sh", "-c", script)
    lines = told.splitlines()
    assert "Text file busy" in lines[0]
    assert lines[1] == "/memfd:runner (deleted)"
    assert "pid /proc/1" in lines
    exes = {line for line in lines if line.startswith(("exe ", "map "))}
    assert exes <= {
        "exe /memfd:runner (deleted)",
        "map /memfd:runner (deleted)",
        "exe /bin/busybox",
        "map /bin/busybox",
    }
    assert not [line for line in lines if line.startswith(("writable /memfd", "foreign", "taken"))]
    assert not [line for line in lines if "python" in line or ".py" in line or ".so" in line]
    descriptors = {line.split()[1].partition(":")[0] for line in lines if line.startswith("fd ")}
    assert descriptors <= {"/dev/null", "pipe"}


def test_an_init_passes_signals_and_exit_codes_on(tarbox, rootfs_busybox):
    script = "trap 'exit 7' TERM; kill -TERM 1; sleep 5 & wait"
    assert tarbox("run", "--rm", "--init", rootfs_busybox, "sh", "-c", script).returncode == 7


def _race(tarbox, rootfs, starts, tmp_path):
    """What a process that pries into everything sees while that many other containers start from the same files."""
    seconds = str(max(2, starts * 0.2))
    shared = ("-v", f"{tmp_path}:/shared")
    racer = tarbox.start(
        "run", "--rm", "--init", "--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined", *shared,
        rootfs, "probe", "pry", str(float(seconds) * 10), text=True,
    )  # fmt: skip
    try:
        assert racer.stdout.readline() == "prying\n"
        for number in range(starts):
            options = [(), ("--init",), ("-u", "guest"), ("--net", "host"), ("--privileged",)][number % 5]
            assert tarbox.output("run", "--rm", *options, *shared, rootfs, "echo", "on") == "on\n"
    finally:
        racer.terminate()
        told = racer.stdout.read()  # not communicate(), which loses what readline() has read ahead
        errors = racer.communicate()[1]
    assert errors == ""
    return told.splitlines()


def _check_race(lines):
    assert "pid /proc/1" in lines, lines  # it did look
    seen = {line for line in lines if line.startswith(("exe ", "map "))}
    assert seen <= {"exe /memfd:runner (deleted)", "map /memfd:runner (deleted)"}
    assert not [line for line in lines if line.startswith(("foreign", "writable /memfd", "taken"))]
    assert {line for line in lines if line.startswith("pid ")} == {"pid /proc/1"}


def test_nobody_who_pries_sees_the_interpreter(tarbox, rootfs_busybox, untouched, tmp_path):
    """A container with a debugger's rights looks on while others start that share its files and a volume."""
    tools.probe(rootfs_busybox)
    _check_race(_race(tarbox, rootfs_busybox, 200, tmp_path))


@pytest.mark.long
def test_nobody_who_pries_for_long_sees_the_interpreter(tarbox, rootfs_busybox, untouched, tmp_path):
    tools.probe(rootfs_busybox)
    _check_race(_race(tarbox, rootfs_busybox, 750, tmp_path))


def test_a_container_sees_its_own_processes_only_from_its_first_moment(tarbox, rootfs_busybox):
    """No process of a container runs beside Python: its program finds itself to be the first, and alone."""
    script = "echo $$ /proc/[0-9]*; readlink /proc/1/exe"
    assert tarbox.output("run", "--rm", rootfs_busybox, "sh", "-c", script) == "1 /proc/1\n/bin/busybox\n"


def test_a_debugger_works_inside(tarbox, rootfs_busybox):
    """With SYS_PTRACE a container may trace its own."""
    tools.probe(rootfs_busybox)
    script = "sleep 5 & probe pry 0.2; kill $!"
    lines = tarbox.output("run", "--rm", "--cap-add", "SYS_PTRACE", rootfs_busybox, "sh", "-c", script).splitlines()
    assert "exe /bin/busybox" in lines
    assert "memory 400000 of a process" in lines


def test_what_is_seen_from_outside_is_the_program(tarbox, rootfs_busybox):
    """When its program runs, nothing is left in the container's process of the one that made it."""
    running = tarbox.start("run", "--rm", "-i", rootfs_busybox, "sh", "-c", "echo on; read x", text=True)
    try:
        assert running.stdout.readline() == "on\n"
        (pid,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert os.readlink(f"/proc/{pid}/exe").endswith("/bin/busybox")
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "busybox" in maps
        assert "python" not in maps
        assert "memfd" not in maps
    finally:
        told = running.communicate("\n")
    assert (running.returncode, told) == (0, ("", ""))
