"""The source of tarbox as the rule tests read it: modules, imports, lines, without running any of it."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

from testhost import CHECKOUT

PACKAGE = CHECKOUT / "src" / "tarbox"


def modules() -> dict[str, Path]:
    """All modules of the package, by their dotted names."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, text: str | None = None) -> set[str]:
    """The dotted names of everything that a module imports, wherever in it the import stands."""
    tree = ast.parse(path.read_text() if text is None else text)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def tracked(*suffixes: str) -> list[Path]:
    """The files of the repository with these name endings; all of them without."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    paths = [CHECKOUT / name for name in listed if name and (not suffixes or name.endswith(suffixes))]
    return [path for path in paths if path.is_file()]
