"""The start path's budget: what `tarbox run` loads before the container starts is measured, and may not grow unseen."""

from __future__ import annotations

import pytest

import startpath


def test_the_guard_sees_imports():
    """The list of modules is the interpreter's own report, and holds what Python loads anyway."""
    loaded = startpath.loaded("-c", "import json")
    assert "json" in loaded
    assert "json.decoder" in loaded


def test_explain_run_loads_only_what_it_needs(tarbox):
    """Planning is most of a start; it happens without root, so it is measured everywhere.

    Two things aren't part of a start: compiling the system call filter, which a run finds compiled, and quoting words
    for the shell, which a run has no use for. To leave the filter out here, the container goes without; what only such
    a container needs isn't counted either.
    """
    words = ("explain", "run", "--net", "none", "--security-opt", "seccomp=unconfined", "host", "true")
    done = tarbox(*words, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    for_telling = {*startpath.loaded("-c", "import shlex"), "tarbox.cli.explain", "tarbox.plan.explain"}
    for_telling.add("tarbox.kernel.cgroups.everywhere")
    startpath.check([name for name in startpath.parsed(done.stderr) if name not in for_telling])


@pytest.mark.parametrize("words", [("run", "--help"), ("help",), ("--version",)])
def test_help_and_version_load_no_more_than_a_run(tarbox, words):
    done = tarbox(*words, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    startpath.check(startpath.parsed(done.stderr))
