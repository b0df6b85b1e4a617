"""The floors of the house: imports only go down, and packages on one floor don't import each other."""

from __future__ import annotations

from pathlib import Path

import pytest

import source

FLOORS = {
    "unistd": 0,
    "errors": 0,
    "bytecode": 0,
    "spec": 1,
    "plan": 2,
    "kernel": 3,
    "runtime": 4,
    "images": 4,
    "networks": 4,
    "build": 5,
    "engine": 6,
    "cli": 7,
    "api": 7,
    "__main__": 8,
    "": 8,  # the package itself: the library's few public names
}


def breaches(name: str, path: Path, text: str | None = None) -> list[str]:
    """The imports of one module that break the rule."""
    room = name.partition(".")[2].partition(".")[0]
    assert room in FLOORS, f"{name} is on no floor: a new package needs its place in the house"
    found = []
    for imported in sorted(source.imports(name, path, text)):
        parts = imported.split(".")
        if parts[0] != "tarbox":
            continue
        other = parts[1] if len(parts) > 1 and parts[1] in FLOORS else ""
        if other != room and FLOORS[other] >= FLOORS[room]:
            found.append(f"{name} imports {imported}")
    return found


def test_imports_only_go_down():
    found = [breach for name, path in source.modules().items() for breach in breaches(name, path)]
    assert not found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tarbox.kernel.mounts", "from ..runtime import planner"),
        ("tarbox.kernel.mounts", "from .. import engine"),
        ("tarbox.kernel.cgroups.v1", "def f():\n    from ...images.store import Store"),
        ("tarbox.images.store", "import tarbox.runtime.planner"),
        ("tarbox.plan.journal", "from ..kernel.paths import open_in"),
        ("tarbox.spec.runtime", "from ..plan import step"),
        ("tarbox.engine.containers", "import tarbox"),
    ],
)
def test_the_rule_sees_every_form_of_import(name, text):
    assert breaches(name, Path("module.py"), text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tarbox.kernel.mounts", "from ..errors import KernelError\nfrom ..plan.step import Step"),
        ("tarbox.cli.run", "from ..engine import containers\nfrom ..unistd import os"),
        ("tarbox.runtime.planner", "from ..kernel.cgroups import v1"),
    ],
)  # fmt: skip
def test_the_rule_allows_what_goes_down(name, text):
    assert not breaches(name, Path("module.py"), text)


def test_every_floor_above_the_ground_stands_on_something():
    """The reader of imports isn't blind: the packages that exist do import lower ones."""
    seen = {imported.split(".")[1] for name, path in source.modules().items() for imported in source.imports(name, path)
            if imported.startswith("tarbox.")}  # fmt: skip
    assert {"errors", "plan", "kernel"} <= seen
