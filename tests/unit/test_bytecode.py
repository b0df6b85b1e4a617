"""The file of compiled modules: used when it fits, passed over when it doesn't, never in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tarbox

SOURCES = Path(tarbox.__file__).parent


@pytest.fixture
def package(tmp_path):
    """A copy of the package that may be changed, and how to start it."""
    copy = tmp_path / "tarbox"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def start(*arguments: str, verbose: bool = False) -> subprocess.CompletedProcess[str]:
        options = ["-I", "-S", *(["-v"] if verbose else [])]
        command = [sys.executable, *options, str(copy / "__main__.py"), *(arguments or ("version",))]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    start.folder = copy
    start.file = lambda: next(iter((copy / "__pycache__").glob("*.modules")), None)
    return start


def own_files(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The compiled files of single modules that Python read."""
    return [line for line in done.stderr.splitlines() if "code object from" in line and "/cli/" in line]


def test_the_second_start_reads_one_file_for_all(package):
    first = package(verbose=True)
    assert first.returncode == 0
    assert own_files(first)
    assert package.file().stat().st_size > 10_000
    second = package(verbose=True)
    assert second.stdout == first.stdout
    assert not own_files(second)


def test_a_changed_source_is_what_counts(package):
    said = package().stdout
    source = package.folder / "cli" / "version.py"
    source.write_text(source.read_text().replace("tarbox", "cratebox"))
    changed = package().stdout
    assert "cratebox" in changed
    assert "cratebox" not in said
    assert package().stdout == changed


@pytest.mark.parametrize("left", [0, 5, 11, 40, 2000, -1])
def test_a_file_that_was_cut_short_is_passed_over(package, left):
    said = package().stdout
    data = package.file().read_bytes()
    package.file().write_bytes(data[:left])
    done = package()
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert package().stdout == said


def test_a_file_of_another_python_is_passed_over(package):
    said = package().stdout
    data = package.file().read_bytes()
    package.file().write_bytes(b"\0\0\0\0" + data[4:])
    assert package().stdout == said


@pytest.mark.skipif(os.geteuid() != 0, reason="root can write everywhere else; as a plain user nothing is to be shown")
def test_nothing_is_written_into_somebody_elses_package(package):
    os.chown(package.folder, 12345, 12345)
    assert package().returncode == 0
    assert package.file() is None


def test_the_file_is_written_once_however_the_command_was_started(package):
    starter = package.folder.parent / "start.py"
    starter.write_text(
        f"import sys; sys.path[:0] = [{str(package.folder.parent)!r}]\nfrom tarbox.__main__ import command\ncommand()\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-I", "-S", str(starter), "version"], check=True, stdout=subprocess.DEVNULL)
    written = package.file().stat()
    subprocess.run([sys.executable, "-I", "-S", str(starter), "version"], check=True, stdout=subprocess.DEVNULL)
    package()
    assert package.file().stat() == written
