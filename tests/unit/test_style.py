"""Lint, format and strict types are clean."""

from __future__ import annotations

import subprocess
import sys

import pytest

from testhost import CHECKOUT


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
        ("mypy", "--no-error-summary"),
    ],
    ids=["lint", "format", "types"],
)
def test_style(command, tmp_path):
    """The programs of the same names say nothing against this checkout."""
    cache = ["--cache-dir", str(tmp_path)] if command[0] == "mypy" else []
    done = subprocess.run(
        [sys.executable, "-m", *command, *cache], cwd=CHECKOUT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
