"""bin/tarbox finds the package and an interpreter wherever it was put, and starts the one on the other directly."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"

# Prints how it was started: the interpreter, its flags, the package and the words.
PACKAGE = """
import sys
print(sys.flags.isolated, sys.flags.no_site, sys.executable, __file__, sys.argv[1:], sep="|")
"""


def put(package: Path) -> None:
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(PACKAGE)


def launcher(bin: Path) -> Path:
    bin.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(CHECKOUT / "bin" / "tarbox", bin / "tarbox"))


def start(command: Path | str, *words: str, cwd: Path | None = None, path: str = "/usr/bin:/bin") -> list[str]:
    """What the package printed."""
    done = subprocess.run(
        [str(command), *words], cwd=cwd, env={"PATH": path}, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.rstrip("\n").split("|")


@pytest.mark.parametrize("library", [f"{PYTHON}/site-packages", f"{PYTHON}/dist-packages", "python3/dist-packages"])
def test_an_installed_package_is_started_by_the_interpreter_beside_it(tmp_path: Path, library: str) -> None:
    prefix = tmp_path / "a path with spaces"
    put(prefix / "lib" / library / "tarbox")
    command = launcher(prefix / "bin")
    (prefix / "bin" / "python3").symlink_to(sys.executable)
    isolated, no_site, python, package, words = start(command, "run", "two words", "")
    assert (isolated, no_site) == ("1", "1")
    assert python == str(prefix / "bin" / "python3")
    assert package == f"{prefix}/bin/../lib/{library}/tarbox/__main__.py"
    assert words == "['run', 'two words', '']"


def test_the_interpreter_of_the_librarys_version_comes_first(tmp_path: Path) -> None:
    put(tmp_path / "lib" / PYTHON / "site-packages" / "tarbox")
    command = launcher(tmp_path / "bin")
    (tmp_path / "bin" / PYTHON).symlink_to(sys.executable)
    other = tmp_path / "bin" / "python3"
    other.write_text("#!/bin/sh\nexit 9\n")
    other.chmod(0o755)
    assert start(command)[2] == str(tmp_path / "bin" / PYTHON)


def test_without_an_interpreter_beside_it_the_path_is_searched(tmp_path: Path) -> None:
    put(tmp_path / "lib" / PYTHON / "site-packages" / "tarbox")
    command = launcher(tmp_path / "bin")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "python3").symlink_to(sys.executable)
    assert start(command, path=f"{tmp_path}/elsewhere")[2] == f"{tmp_path}/elsewhere/python3"


def test_no_interpreter_at_all_is_told(tmp_path: Path) -> None:
    put(tmp_path / "lib" / PYTHON / "site-packages" / "tarbox")
    command = launcher(tmp_path / "bin")
    done = subprocess.run(
        ["/bin/sh", str(command)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 125
    assert done.stderr == "tarbox: there is no python3 here (install Python 3.11 or newer)\n"


def test_links_lead_to_it(tmp_path: Path) -> None:
    put(tmp_path / "venv" / "lib" / PYTHON / "site-packages" / "tarbox")
    launcher(tmp_path / "venv" / "bin")
    (tmp_path / "venv" / "bin" / "python3").symlink_to(sys.executable)
    (tmp_path / "my bin").mkdir()
    (tmp_path / "my bin" / "tarbox").symlink_to("../venv/bin/tarbox")
    (tmp_path / "absolute").symlink_to(tmp_path / "my bin" / "tarbox")
    for command in (tmp_path / "my bin" / "tarbox", tmp_path / "absolute"):
        assert start(command, "x")[4] == "['x']"
    assert start("./my bin/tarbox", cwd=tmp_path)[4] == "[]"


def test_an_editable_install_leads_to_the_sources(tmp_path: Path) -> None:
    put(tmp_path / "my sources" / "src" / "tarbox")
    library = tmp_path / "venv" / "lib" / PYTHON / "site-packages"
    library.mkdir(parents=True)
    (library / "distutils-precedence.pth").write_text("import os\n")
    (library / "_editable_impl_tarbox.pth").write_text(str(tmp_path / "my sources" / "src"))
    command = launcher(tmp_path / "venv" / "bin")
    (tmp_path / "venv" / "bin" / "python3").symlink_to(sys.executable)
    assert start(command)[3] == f"{tmp_path}/my sources/src/tarbox/__main__.py"


def test_a_checkout_uses_its_own_virtual_environment(tmp_path: Path) -> None:
    put(tmp_path / "src" / "tarbox")
    (tmp_path / "pyproject.toml").touch()
    command = launcher(tmp_path / "bin")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python3").symlink_to(sys.executable)
    assert start(command)[2:4] == [
        f"{tmp_path}/.venv/bin/python3",
        f"{tmp_path}/bin/../src/tarbox/__main__.py",
    ]


def test_a_source_directory_that_is_no_checkout_is_left_alone(tmp_path: Path) -> None:
    """As /usr/local/src/tarbox might be: then the interpreter's own search decides."""
    put(tmp_path / "src" / "tarbox")
    command = launcher(tmp_path / "bin")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "python3").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "path" / "python3").chmod(0o755)
    assert start(command, "run", path=f"{tmp_path}/path:/usr/bin:/bin") == ["-I -m tarbox run"]


def test_this_checkout_starts() -> None:
    done = subprocess.run([CHECKOUT / "bin" / "tarbox", "--version"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert done.stdout.startswith("tarbox ")


def test_it_is_in_the_wheel_by_its_name() -> None:
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    scripts = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-scripts"]
    assert scripts == {"bin/tarbox": "tarbox"}
