"""The file of compiled modules: used when it fits, passed over when it doesn't, never in the way."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tarbox
from tarbox.bytecode.lean import lean, split

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

    def script(code: str, python: str = sys.executable) -> str:
        """What a program prints that has the finder and `modules`, and nothing else of the package."""
        before = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n"
        before += "from tarbox import bytecode\nmodules = bytecode.install()\n"
        command = [python, "-I", "-S", "-W", "error", "-c", before + code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    start.script = script
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


EXPLAIN = ("explain", "run", "-h", "box", "host", "true")
# Every attribute that the import system gives a module, for those of a start, in the order of their names. What
# __future__ leaves in them, and annotations, are what the file does without.
FACTS = """
import tarbox.cli.run, tarbox.engine.run, tarbox.cli.version
for name, module in sorted(sys.modules.items()):
    if name.startswith("tarbox.") and not name.startswith("tarbox.bytecode"):
        spec, above, last = module.__spec__, *name.rpartition(".")[::2]
        print(name, module.__name__, module.__package__, module.__file__, getattr(module, "__path__", ""), spec.name,
              spec.origin, spec.parent, spec.has_location, spec.submodule_search_locations, type(module).__name__,
              module.__loader__ is spec.loader, getattr(sys.modules[above], last) is module,
              sorted({*vars(module)} - {"annotations", "__annotations__"}))
"""


def test_a_module_from_the_file_is_what_python_would_have_made(package):
    made = package.script(FACTS + "modules.close()")
    assert package.file()
    assert package.script(FACTS) == made
    assert package.script("sys.meta_path.remove(modules)\n" + FACTS) == made


def test_the_modules_that_an_import_brings_along_are_made_without_the_import_system(package):
    """Their finder is asked for the one that is imported, and for what its package had to wait for."""
    code = """
asked = []
find = bytecode.Modules.find_spec
def count(self, name, *more):
    asked.append(name)
    return find(self, name, *more)
bytecode.Modules.find_spec = count
import tarbox.engine.run
print(len([name for name in asked if name.startswith("tarbox.")]), len(modules.imports["tarbox.engine.run"]))
modules.close()
"""
    first = package.script(code).split()
    second = package.script(code).split()
    assert int(first[1]) > 30
    assert int(second[1]) >= int(first[1])
    assert int(second[0]) < 6 < int(first[0])


def test_a_start_from_the_file_needs_nothing_of_the_compilers(package):
    """`__future__` was for whoever compiled the modules, and annotations for whoever reads them."""
    code = (
        "import tarbox.engine.run as run\nprint('__future__' in sys.modules, run.run.__annotations__)\nmodules.close()"
    )
    first, second = package.script(code), package.script(code)
    assert first.startswith("True {'")
    assert second == "False {}\n"


def test_a_changed_source_deep_in_a_group_is_what_counts_at_once(package):
    """Also when its size and the second of its time stay the same."""
    package(*EXPLAIN)
    source = package.folder / "kernel" / "uts.py"
    facts = source.stat()
    source.write_text(source.read_text().replace("uts", "utz"))
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert source.stat().st_size == facts.st_size
    shutil.rmtree(package.folder / "kernel" / "__pycache__")  # Python's own look at seconds only
    changed = package(*EXPLAIN).stdout
    assert "utz" in changed
    written = package.file().stat()
    assert package(*EXPLAIN).stdout == changed
    assert package.file().stat() == written


def test_a_source_that_begins_to_import_another_is_followed(package):
    package()
    (package.folder / "cli" / "extra.py").write_text("WORD = 'extraordinary'\n")
    source = package.folder / "cli" / "version.py"
    source.write_text(source.read_text().replace("import Option,", "import Option, ").replace(
        "TARBOX = ", "from .extra import WORD as TARBOX\n_OLD = "))  # fmt: skip
    for _ in range(2):
        assert "extraordinary" in package().stdout
    (package.folder / "cli" / "extra.py").unlink()
    assert "No module named 'tarbox.cli.extra'" in package().stderr


def test_a_broken_source_is_told_like_any_other(package):
    package(*EXPLAIN)
    (package.folder / "kernel" / "uts.py").write_text("def broken(:\n")
    for _ in range(2):
        assert "internal error: SyntaxError" in package(*EXPLAIN).stderr
    assert package().returncode == 0


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_file_with_a_hole_is_passed_over_or_mended(package, at):
    said = package(*EXPLAIN).stdout
    data = bytearray(package.file().read_bytes())
    middle = int(len(data) * at)
    data[middle : middle + 4000] = bytes(4000)
    package.file().write_bytes(data)
    for _ in range(2):
        done = package(*EXPLAIN)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_what_was_in_the_file_before_is_no_such_file(package):
    said = package().stdout
    magic = package.file().read_bytes()[:4]
    for index in ({"tarbox.cli.main": ()}, {"a": 1, "b": 2, "c": 3}, None, ({"x": 1}, {}, ""), ("", "", "")):
        data = marshal.dumps(index)
        package.file().write_bytes(magic + len(data).to_bytes(8, "little") + data + b"rest")
        assert package().stdout == said


def test_commands_that_write_at_once_leave_one_whole_file(package):
    command = [sys.executable, "-I", "-S", str(package.folder / "__main__.py"), *EXPLAIN]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    said = {process.communicate(timeout=60) for process in running}
    assert len(said) == 1
    assert [path.name for path in (package.folder / "__pycache__").glob("*modules*")] == [package.file().name]
    assert not own_files(package(*EXPLAIN, verbose=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="root can write everywhere else; as a plain user nothing is to be shown")
def test_where_nothing_may_be_written_nothing_is_prepared_for_it(package):
    os.chown(package.folder, 12345, 12345)
    code = "import tarbox.cli.main\nprint('tarbox.bytecode.file' in sys.modules, modules.fresh)"
    assert package.script(code) == "False False\n"


def test_the_file_may_move_with_the_package(package, tmp_path):
    package(*EXPLAIN)
    moved = tmp_path / "elsewhere" / "tarbox"
    moved.parent.mkdir()
    package.folder.rename(moved)
    command = [sys.executable, "-I", "-S", "-v", str(moved / "__main__.py"), *EXPLAIN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert not own_files(done)


def test_lines_of_errors_are_right_and_modules_can_be_loaded_again(package):
    package(*EXPLAIN)
    code = """
import importlib, inspect, traceback
import tarbox.engine.run, tarbox.cli.arguments as arguments
again = importlib.reload(arguments)
print(again is arguments, importlib.reload(tarbox.engine.run) is tarbox.engine.run)
try:
    arguments.parse(arguments.Verb("x", "", ""), ["--nope"])
except Exception as error:
    for frame in traceback.extract_tb(error.__traceback__)[1:]:
        print(frame.line)
print(inspect.getsource(arguments.HelpAsked).splitlines()[0], inspect.signature(arguments._valueless))
"""
    told = package.script(code).splitlines()
    assert told[0] == "True True"
    assert told[1] == "raise _unknown(verb, word, name, known)"
    assert told[2].startswith("class HelpAsked(Exception): (verb: 'Verb', option: 'Option'")


def test_without_pythons_private_parts_it_works_as_well(package):
    code = "import importlib.machinery, importlib.util\nsys.modules['_frozen_importlib'] = None\n"
    code += "from tarbox import bytecode\nmodules = bytecode.install()\nimport tarbox.engine.run\n"
    code += "print(modules.fresh)\nmodules.close()"
    before = f"import sys; sys.path[:0] = [{str(package.folder.parent)!r}]\n"
    for fresh in ("True", "False"):
        done = subprocess.run([sys.executable, "-I", "-c", before + code], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == (f"{fresh}\n", "")


SOURCE = b'''"""What it is."""
from __future__ import annotations
TYPE_CHECKING = False
if TYPE_CHECKING:
    import nowhere
else:
    kept = 1
if kept:
    more = 2
bare: int
value: int = 3
class Empty(Exception):
    """Nothing but this."""
class Fields:
    """Its fields."""
    one: int
    two: str = "2"
    def method(self, a: int, /, *b: int, c: str = "c", **d: int) -> tuple[object, ...]:
        """Returns all."""
        local: int = 4
        return a, b, c, d, local
def only_words() -> None:
    """Does nothing."""
'''


def test_what_readers_and_type_checkers_look_at_is_left_out_and_nothing_else():
    found = {}
    code = lean(SOURCE, "fields.py")
    exec(code, found)
    assert (found["kept"], found["more"], found["value"], found["Fields"].two) == (1, 2, 3, "2")
    assert found["Fields"]().method(1, 2, x=5) == (1, (2,), "c", {"x": 5}, 4)
    assert found["only_words"]() is None
    assert issubclass(found["Empty"], Exception)
    for thing in (found["Fields"], found["Empty"], found["Fields"].method, found["only_words"]):
        assert thing.__doc__ is None
        assert not getattr(thing, "__annotations__", {})
    assert found.keys().isdisjoint({"bare", "__annotations__", "annotations", "__doc__"})
    assert "nowhere" not in code.co_names
    assert lean(b"", "empty.py")
    assert lean(b"class A:\n    a: int\n", "a.py")


def test_code_without_docstrings_is_otherwise_the_same(package):
    """Every module of the package: the same instructions and names, lines included, whatever else the code holds."""

    def same(one, other):
        assert (one.co_name, one.co_qualname, one.co_names, one.co_varnames, one.co_freevars, one.co_firstlineno) == (
            other.co_name, other.co_qualname, tuple(name for name in other.co_names), other.co_varnames,
            other.co_freevars, other.co_firstlineno)  # fmt: skip
        inside = [[part for part in code.co_consts if hasattr(part, "co_code")] for code in (one, other)]
        for parts in zip(*inside, strict=True):
            same(*parts)

    for path in SOURCES.rglob("*.py"):
        source = path.read_bytes()
        whole, made = compile(source, str(path), "exec", dont_inherit=True), lean(source, str(path))
        functions = [[c for c in code.co_consts if hasattr(c, "co_code") and c.co_flags & 2] for code in (whole, made)]
        for one, other in zip(*functions, strict=True):
            same(one, other)
            lines = [[line for *_, line in code.co_lines()] for code in (one, other)]
            assert set(lines[0]) <= set(lines[1])
            assert {position[2:] for position in other.co_positions()} <= {(None, None), (0, 0)}


def test_a_report_of_imports_names_all_of_them(package):
    package()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", str(package.folder / "__main__.py"), "version"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert {"tarbox.errors", "tarbox.cli.main", "tarbox.cli.version"} <= set(done.stderr.split())


PROBE = """
class Kind:
    made = 0
    def __init__(self, size=3, *, name="kind"):
        self.size, self.name = size, name
    def __repr__(self): return f"<{self.name} {self.size}>"
    def __eq__(self, other): return self.size == other.size
    def __call__(self): return "called"
    def grown(self, by=1, *, twice=False): return self.size + by * (2 if twice else 1)
    @classmethod
    def of(cls, size): return cls(size)
    @property
    def double(self): return self.size * 2
class Child(Kind):
    def grown(self, by=1, *, twice=False): return super().grown(by + 1, twice=twice)
    def _secret(self): return self.__hidden()
    def __hidden(self): return "hidden"
def counted(first, second=None, *rest, third=(1, 2), **others): return first, second, rest, third, others
def listed(into=[]):
    into.append(1)
    return into
def numbers(count):
    yield from range(count)
def failing():
    raise ValueError("as it should")
def twice(): return 1
def twice(): return 2
TABLE = {"counted": counted}
"""
USED = """
import tarbox.probe as probe
from tarbox.probe import counted
print(probe.Kind(), probe.Kind(size=4, name="box"), probe.Kind(5) == probe.Kind(5), probe.Kind()(), probe.Kind.of(7))
print(probe.Kind(2).grown(), probe.Child(2).grown(3, twice=True), probe.Kind.grown(probe.Kind(1)))
print(probe.Child()._secret(), callable(counted), probe.Kind.grown.__module__)
print(counted(1), probe.TABLE["counted"](1, 2, 3, third=4, x=5), probe.counted.__name__, probe.Kind(2).double)
print(probe.listed(), probe.listed(), list(probe.numbers(3)), probe.twice())
try:
    probe.failing()
except ValueError as error:
    frame = error.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    print(error, frame.tb_lineno, frame.tb_frame.f_code.co_qualname)
"""
LATER = "print(sorted(n for n, f in vars(sys.modules['tarbox.probe']).items() if type(f).__name__ == 'Later'))\n"
CLOSE = "modules.close()"


def test_functions_that_were_not_called_are_read_when_they_are(package):
    (package.folder / "probe.py").write_text(PROBE)
    package.script("import tarbox.probe\n" + CLOSE)  # calls none of them
    later = package.script("import tarbox.probe\n" + LATER)
    assert later == "['counted', 'failing', 'numbers']\n"
    in_class = (
        "import tarbox.probe\nprint([n for n, f in vars(tarbox.probe.Kind).items() if type(f).__name__ == 'Later'])"
    )
    assert package.script(in_class) == "['__init__', '__repr__', '__eq__', 'grown']\n"
    package.file().rename(package.folder / "kept")
    (package.folder / "__pycache__").rename(package.folder / "aside")
    said = package.script("sys.meta_path.remove(modules)\n" + USED)
    (package.folder / "__pycache__").mkdir(exist_ok=True)
    (package.folder / "kept").rename(package.folder / "__pycache__" / f"tarbox.{sys.implementation.cache_tag}.modules")
    assert said.splitlines()[0] == "<kind 3> <box 4> True called <kind 7>"
    assert package.script(USED + LATER) == said + "[]\n"


def test_functions_that_are_called_after_all_become_functions_in_the_file(package):
    (package.folder / "probe.py").write_text(PROBE)
    package.script("import tarbox.probe\n" + CLOSE)
    one = "import tarbox.probe as probe\nprint(probe.counted(1))\n" + CLOSE
    written = package.file().stat()
    package.script(one)
    assert package.file().stat() == written  # not for a single one
    package.script(USED + CLOSE)
    assert package.file().stat() != written
    assert package.script("import tarbox.probe\n" + LATER) == "[]\n"
    assert package.script(USED + "print(len(modules.functions))").endswith("\n0\n")


def test_functions_that_were_called_when_the_file_was_written_are_functions_in_it(package):
    (package.folder / "probe.py").write_text(PROBE)
    package.script("import tarbox.probe\ntarbox.probe.counted(1)\n" + CLOSE)
    assert package.script("import tarbox.probe\n" + LATER) == "['failing', 'numbers']\n"


def test_a_function_that_cannot_be_read_is_taken_from_the_source(package):
    (package.folder / "probe.py").write_text(PROBE)
    package.script("import tarbox.probe\n" + CLOSE)
    data = package.file().read_bytes()
    code = "import tarbox.probe\nprint(tarbox.probe.counted(1, third=0))\n" + LATER + CLOSE
    at = data.rindex(b"tarbox.probe:counted")
    package.file().write_bytes(data[: at + 30] + bytes(60) + data[at + 90 :])
    said = "(1, None, (), 0, {})\n['failing', 'numbers']\n"
    assert [package.script(code) for _ in range(2)] == [said, said]
    assert b"tarbox.probe:counted" not in package.file().read_bytes()  # it is a function there now


def test_what_a_function_needs_at_once_keeps_it_where_it_is():
    code, kept = split(PROBE.encode(), "probe.py", "probe", lambda name: name == "Child._secret")
    assert {*kept} == {
        "probe:Kind.__init__", "probe:Kind.__repr__", "probe:Kind.__eq__", "probe:Kind.grown", "probe:Child.__hidden",
        "probe:counted", "probe:numbers", "probe:failing",
    }  # fmt: skip
    assert "__later__" in code.co_names


def test_every_function_that_may_wait_is_kept_as_it_is(package):
    """Of every module: what is marshalled is the same code, with the same defaults, as Python makes of the source."""
    count = 0
    for path in SOURCES.rglob("*.py"):
        source = path.read_bytes()
        kept = split(source, str(path), "m", lambda _: False)[1]
        whole = lean(source, str(path))
        inside = [c for c in whole.co_consts if hasattr(c, "co_code")]
        named = {
            f"m:{c.co_qualname}": c
            for c in [*inside, *(d for c in inside for d in c.co_consts)]
            if hasattr(c, "co_code")
        }
        for name, data in kept.items():
            assert marshal.loads(data)[0] == named[name]
            count += 1
        assert split(source, str(path), "m", lambda _: True) == (whole, {})
    assert count > 1000
