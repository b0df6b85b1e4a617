"""Paths inside a root in which another process exchanges names meanwhile."""

from __future__ import annotations

import os
import subprocess

import pytest

from kernel.attacks import tools
from tarbox.errors import KernelError
from tarbox.kernel import paths


@pytest.mark.parametrize("walk", ["kernel", "by hand"])
def test_names_that_are_exchanged_lead_nowhere_outside(tmp_path, monkeypatch, walk):
    """A folder turns into a link that leads out, and back."""
    monkeypatch.setattr(paths, "_kernel_walks", walk == "kernel")
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "a/b/c", outside / "b/c"):
        folder.mkdir(parents=True)
    (outside / "secret").write_text("secret")
    (outside / "b/c/secret").write_text("secret")
    (root / "secret").write_text("inside")
    (root / "link").symlink_to("../../../../../.." + str(outside))
    forbidden = {entry.stat().st_ino for entry in (tmp_path, outside, *outside.rglob("*"))}
    before = tools.tree(outside)
    program = tools.install(tmp_path / "swap", tools.compiled(tools.Path("probe.c")))
    command = [program, "swap", "10000", "600", root / "a", root / "link"]
    racer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    handle = os.open(root, os.O_PATH | os.O_DIRECTORY)
    opened = refused = 0
    try:
        for number in range(1500):
            for path in ("a/b/c", "a/secret", "a/b/../../secret", "a/b/c/../../../../secret"):
                try:
                    found = paths.open_in(handle, path)
                except KernelError:
                    refused += 1
                    continue
                assert os.fstat(found).st_ino not in forbidden
                os.close(found)
                opened += 1
            if number % 10 == 0:
                for make, path in (
                    (paths.make_directories, f"a/new{number}/x"),
                    (paths.make_file, f"a/b/file{number}"),
                ):
                    try:
                        made = make(handle, path)
                    except KernelError:
                        continue
                    assert os.fstat(made).st_ino not in forbidden
                    os.close(made)
    finally:
        os.close(handle)
        told = racer.communicate()[0]
    assert int(told.split()[1]) >= 10000
    assert opened > 100
    assert refused > 0
    assert tools.tree(outside) == before
