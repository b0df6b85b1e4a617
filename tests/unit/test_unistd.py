"""`tarbox.unistd` is `os` in all that is asked of it, without loading it; and nothing in the package goes past it."""

from __future__ import annotations

import ast
import os
import posix
import posixpath
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import source
from tarbox import unistd

SRC = Path(unistd.__file__).parents[1]
BEFORE = f"import sys; sys.path[:0] = [{str(SRC)!r}]; assert 'os' not in sys.modules\nfrom tarbox.unistd import os\n"


def alone(code: str, *, status: int = 0, **environment: str | bytes) -> str:
    """What a program prints that has this `os` and not the real one."""
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", BEFORE + code]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/bin", **environment}, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout


PATHS = [
    "", "/", "//", "///", ".", "..", "./", "../", "/..", "/../..", "//..", "///..", "a", "a/", "a//", "/a", "//a",
    "///a", "a/b", "a//b", "a/./b", "a/../b", "../a", "a/../../b", "/a/../../b", "a/b/..", "a/b/../..", "a/..", "/a/b/",
    "~", "~/", "~/a", "~a", "a b", "\udcff", "/\udcff/\udc80", "ä/€", "...", "a/...", ". /", "a\n/b", "a/.", "/.",
    "//./",
]  # fmt: skip
TEXTUAL = ("isabs", "split", "dirname", "basename", "normpath", "abspath", "realpath", "expanduser")
LOOKING = ("exists", "lexists", "isdir", "isfile")


def some_paths(count: int, parts: list[str], seed: int = 7) -> list[str]:
    choose = random.Random(seed)
    return ["".join(choose.choices(parts, k=choose.randrange(9))) for _ in range(count)]


def outcome(function: Callable[[object], object], argument: object) -> object:
    """What it returns, or the kind of what it raises."""
    try:
        return function(argument)
    except Exception as error:
        return type(error)


# --- Paths as text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTUAL)
def test_a_path_becomes_what_os_makes_of_it(name):
    """Also bytes and Paths."""
    ours, theirs = getattr(unistd, name), getattr(posixpath, name)
    for path in [*PATHS, *some_paths(3000, ["/", "/", ".", "..", "a", "~", "\udce4", "é"])]:
        for form in (path, os.fsencode(path), Path(path)):
            assert outcome(ours, form) == outcome(theirs, form), form


def test_paths_are_joined_as_os_joins_them():
    several = some_paths(400, ["/", "/", ".", "a", "b/", "\udce4"])
    for at, path in enumerate([*PATHS, *several]):
        assert unistd.join(path) == posixpath.join(path)
        for other in PATHS:
            assert unistd.join(path, other) == posixpath.join(path, other)
            third = several[at % 400]
            assert unistd.join(path, other, third) == posixpath.join(path, other, third)
    assert unistd.join("a", Path("b")) == "a/b"
    assert unistd.join(b"a", b"/b") == b"/b"
    for wrong in (("a", b"b"), (b"a", "b"), (None,), ("a", 1)):
        with pytest.raises(TypeError) as found:
            unistd.join(*wrong)
        with pytest.raises(TypeError) as wanted:
            posixpath.join(*wrong)
        assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("home", ["/root", "/root/", "/", "", "\udcff", None])
def test_the_home_directory_is_the_one_that_os_finds(monkeypatch, home):
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    for path in PATHS:
        assert unistd.expanduser(path) == posixpath.expanduser(path)


# --- Paths on the disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def tangle(tmp_path, monkeypatch):
    """Directories, files and links of every kind, loops included; it is the working directory."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    links = {
        "up": "..", "abs": str(tmp_path / "a"), "a/b/up": "../..", "chain": "abs/b", "self": "self", "x": "y", "y": "x",
        "none": "a/none", "a/dot": ".", "slash": "a//b/./", "deep": "self/a", "root": "/", "double": "//",
        "file": "a/file", "through": "file/b", "over": "chain/../file", os.fsdecode(b"\xff"): os.fsdecode(b"\xfe/x"),
    }  # fmt: skip
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    return [*links, "a", "b", "file", "..", ".", "", "/", "nowhere", "up/" + tmp_path.name]


def test_symbolic_links_are_followed_as_os_follows_them(tangle, tmp_path):
    paths = ["/".join(path) for path in zip(*[some_paths(1500, tangle, seed) for seed in (1, 2)], strict=True)]
    choose = random.Random(3)
    paths += ["/".join(choose.choices(tangle, k=choose.randrange(1, 7))) for _ in range(6000)]
    paths += [f"{tmp_path}/{path}" for path in paths[::3]] + PATHS + tangle
    real = 0
    for path in paths:
        found = unistd.realpath(path)
        assert found == posixpath.realpath(path), path
        real += found != posixpath.abspath(path)
        for name in LOOKING:
            assert getattr(unistd, name)(path) == getattr(posixpath, name)(path), (name, path)
    assert real > 1000
    assert unistd.realpath(b"chain") == posixpath.realpath(b"chain")
    with pytest.raises(OSError):
        unistd.realpath("self", strict=True)


def test_a_hundred_links_are_followed_to_the_end(tmp_path):
    """Where the kernel gives up, and so does os.path.exists."""
    (tmp_path / "0").mkdir()
    for at in range(100):
        (tmp_path / str(at + 1)).symlink_to(str(at))
    for at in (39, 40, 41, 100):
        assert unistd.realpath(f"{tmp_path}/{at}/x") == posixpath.realpath(f"{tmp_path}/{at}/x") == f"{tmp_path}/0/x"
        assert unistd.exists(f"{tmp_path}/{at}") == posixpath.exists(f"{tmp_path}/{at}")


@pytest.mark.parametrize("name", LOOKING)
def test_what_cannot_be_a_path_is_refused_or_not_there(name):
    ours, theirs = getattr(unistd, name), getattr(posixpath, name)
    for path in ("a\0b", "x" * 5000, b"/", Path("/etc/passwd"), "/dev/null", 0, 12345, None):
        assert outcome(ours, path) == outcome(theirs, path), path
    assert outcome(ours, None) is TypeError


@pytest.mark.parametrize("make", [unistd.makedirs, os.makedirs])
def test_directories_are_made_as_os_makes_them(tmp_path, monkeypatch, make):
    """The same promises for both."""
    monkeypatch.chdir(tmp_path)
    old = os.umask(0o022)
    try:
        make("a/b/c", 0o700)
        modes = [stat.S_IMODE(os.stat(path).st_mode) for path in ("a", "a/b", "a/b/c")]
        assert modes == [0o755, 0o755, 0o700]
        make("a/b/c", exist_ok=True)
        make(b"d/e/")
        make(Path("f/g"))
        make(f"{tmp_path}/h/.")
        make(b"i/.")
        assert all(os.path.isdir(path) for path in ("d/e", "f/g", "h", "i"))
        Path("file").write_text("")
        for wrong, error in (("a/b", FileExistsError), ("file/x", NotADirectoryError), ("", FileNotFoundError)):
            with pytest.raises(error):
                make(wrong)
        with pytest.raises(FileExistsError):
            make("file", exist_ok=True)
    finally:
        os.umask(old)


def test_names_become_bytes_and_text_as_with_os():
    for name in [*PATHS, "\udc80", b"\xff\xc3\xa4", b"", Path("é")]:
        assert unistd.fsencode(name) == os.fsencode(name)
        assert unistd.fsdecode(name) == os.fsdecode(name)
    for wrong in (None, 1):
        with pytest.raises(TypeError):
            unistd.fsencode(wrong)
        with pytest.raises(TypeError):
            unistd.fsdecode(wrong)


def test_modes_are_taken_apart_as_stat_takes_them_apart():
    names = [name for name in vars(unistd) if name.startswith("S_I")]
    assert len(names) > 18
    numbers = [name for name in names if isinstance(getattr(stat, name), int)]
    assert {name: getattr(unistd, name) for name in numbers} == {name: getattr(stat, name) for name in numbers}
    for name in set(names) - set(numbers):
        for mode in [kind << 12 | permissions for kind in range(17) for permissions in (0, 0o644, 0o7777)]:
            assert getattr(unistd, name)(mode) == getattr(stat, name)(mode), (name, mode)


# --- Which `os` a module gets ----------------------------------------------------------------------------------------


def test_whoever_has_os_gets_it():
    """A program that uses tarbox as a library, and changes its environment, say."""
    assert unistd.os is os
    code = "import sys, os; sys.path[:0] = sys.argv[1:]; from tarbox.unistd import os as ours; print(ours is os)"
    command = [sys.executable, "-I", "-S", "-c", code, str(SRC)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "True\n"


def test_everything_of_posix_is_there_under_the_name_that_os_has_for_it():
    """And nothing that os has under the same name is another thing."""
    names = [name for name in vars(posix) if not name.startswith("__") and name != "environ"]
    assert len(names) > 250
    assert not [name for name in names if hasattr(os, name) and getattr(os, name) is not getattr(posix, name)]
    code = "import posix\nfor name in set(vars(posix)) - {'environ', '__getattr__'}:\n"
    code += "    assert vars(os)[name] is vars(posix)[name], name\nassert 'os' not in sys.modules\n"
    code += "print(os._exit, os.O_PATH)"
    assert alone(code) == f"{os._exit} {os.O_PATH}\n"


def test_its_constants_are_those_of_os():
    code = "print(os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.R_OK, os.W_OK, 'os' in sys.modules)"
    assert alone(code) == f"{os.SEEK_SET} {os.SEEK_CUR} {os.SEEK_END} {os.R_OK} {os.W_OK} False\n"


def test_what_it_lacks_comes_from_the_real_one(tmp_path):
    (tmp_path / "one").mkdir()
    code = f"print('os' in sys.modules, [names for _, names, _ in os.walk({str(tmp_path)!r})], 'os' in sys.modules)\n"
    code += "print(os.path.relpath('/a/b', '/a'), os.path.dirname(b'/a/b'), os.path.ismount('/'), os.sep, os.name)\n"
    code += "print(hasattr(os, 'no_such_thing'), hasattr(os.path, 'no_such_thing'), hasattr(os, '__path__'))"
    assert alone(code) == "False [['one'], []] True\nb b'/a' True / posix\nFalse False False\n"


def test_the_environment_is_the_one_the_command_was_started_with():
    code = "import posix\nprint(os.environ.get('A'), os.environ['A'], 'B' in os.environ, os.environ.get('B', 2))\n"
    code += "print(sorted(os.environ), ascii(dict(os.environ.items())['C']), {**os.environ}['A'], len(os.environ))\n"
    code += "print('os' in sys.modules)"
    told = alone(code, A="1", C=b"\xff\xc3\xa4").splitlines()
    assert told[0] == "1 1 False 2"
    assert told[1].startswith("['A', 'C', ")
    assert "'\\udcff\\xe4' 1 " in told[1]
    assert told[2] == "False"


def test_a_change_of_the_environment_is_never_lost():
    """It is refused, or it is the real one's."""
    code = "try: os.environ['A'] = '2'\nexcept TypeError: print('refused')\n"
    code += "import os as real\nreal.environ['A'] = '3'\nprint(os.environ['A'], os.getenv('A'))"
    assert alone(code, A="1") == "refused\n3 3\n"


def test_paths_from_home_need_nothing_more():
    code = "print(os.path.expanduser('~/x'), os.path.realpath('/proc/self/../self/..'), 'os' in sys.modules)"
    assert alone(code, HOME="/home/me") == "/home/me/x /proc False\n"


def test_without_the_private_part_of_posix_it_is_os():
    code = f"import posix, sys; sys.path[:0] = [{str(SRC)!r}]\n"
    code += "del posix._path_normpath\nfrom tarbox.unistd import S_ISDIR, os\nprint(os.__name__, S_ISDIR(0o40755))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "os True\n"


# --- The rule --------------------------------------------------------------------------------------------------------

DOORS = {"os", "posix", "stat", "_stat", "posixpath", "genericpath", "ntpath"}
# The first two run before there is a finder for modules of ours; the third only when something has changed.
EXCEPTIONS = {
    "tarbox.unistd": DOORS,
    "tarbox.__main__": {"os", "posix"},
    "tarbox.bytecode": {"posix"},
    "tarbox.bytecode.file": {"os"},
    "tarbox.errors": {"posix"},
}


def doors(name: str, text: str) -> set[str]:
    """The ways past `unistd` that a module takes, and other names for `os` that would hide it from other rules."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name.partition(".")[0] for alias in names} & DOORS
            case ast.ImportFrom(module=str(module), names=names, level=level):
                if not level:
                    found |= {module.partition(".")[0]} & DOORS
                elif module.rpartition(".")[2] == "unistd":
                    found |= {f"{alias.name} as {alias.asname}" for alias in names if alias.asname}
                    found |= {alias.name for alias in names if alias.name != "os" and not alias.name.startswith("S_I")}
            case ast.ImportFrom(names=names):
                found |= {alias.name for alias in names if alias.name == "unistd"}
            case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(module)), *_]):
                found |= {module} & DOORS
    return found - EXCEPTIONS.get(name, set())


def test_no_module_goes_past_it():
    found = {name: doors(name, path.read_text()) for name, path in source.modules().items()}
    assert not {name: past for name, past in found.items() if past}, "say: from ..unistd import os"


def test_the_rule_sees_every_way_past_it():
    for text in (
        "import os", "import os.path", "import os as system", "from os import open", "from os.path import join",
        "def f():\n    import posix", "from stat import S_ISDIR", "import stat", "from posixpath import join",
        "from ..unistd import os as system", "from ..unistd import join", "from .. import unistd", "__import__('os')",
    ):  # fmt: skip
        assert doors("tarbox.kernel.mounts", text), text
    assert not doors("tarbox.kernel.mounts", "from ..unistd import S_IFCHR, S_ISDIR, os\nimport select")
