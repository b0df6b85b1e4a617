"""The package's compiled modules in one file, so that a start opens one file instead of sixty.

    src/tarbox/__pycache__/tarbox.cpython-311.modules

Python keeps the compiled form of each module in a file of its own, asks the file system several times before it finds
it, and spends as long again on locks and on asking around who might know the module. For a command that imports sixty
small modules and then runs for some milliseconds, that is a good part of its time. The file here holds the modules in
groups: one that is imported, and before it whatever else that import brings along, in the order in which they are
ready. When the one is imported, the others are made first, without a question, and its `import` statements find them.

Each source's time and size are compared. A group with a changed source isn't used, what isn't in the file is imported
in the ordinary way, and the file is written anew at the end: see `file.py`.

A third of the code is functions that a start doesn't call: for errors, for explaining, for other options. They are in
the file too, but what a module has in their place is a `Later`, which reads the function when it is called. Which ones
is nobody's decision: they are those that weren't called when the module was written to the file. A command that calls
many of them has them written as functions.

https://docs.python.org/3/reference/import.html#finders-and-loaders, PEP 3147
"""

# ruff: noqa: UP037
# The annotations are quoted here: only modules that come from the file do without loading __future__.
import builtins
import marshal
import posix as os  # os itself takes a millisecond to import
import sys

try:
    from _frozen_importlib import ModuleSpec
    from _frozen_importlib_external import MAGIC_NUMBER, spec_from_file_location
except ImportError:  # another Python than CPython, or one that moved its private parts
    from importlib.machinery import ModuleSpec
    from importlib.util import MAGIC_NUMBER, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, FunctionType, ModuleType
    from typing import Any

    # A module of a group: its name; its source, from the package's folder; that one's time and size; is it a package
    Member = tuple[str, str, tuple[int, int], bool]
    # by the name of its last member: the members, and where their code is in the file, and how long
    Groups = dict[str, tuple[tuple[Member, ...], int, int]]
    # The code of a function, the defaults of its arguments, those of arguments that are given by name alone
    Parts = tuple[CodeType, tuple[Any, ...] | None, dict[str, Any] | None]
    # by name: the path of a module that is machine code, as stat(2) knows it
    Extensions = dict[str, tuple[str, tuple[int, int]]]

PACKAGE = __file__.rpartition("/")[0].rpartition("/")[0]
FOLDER = f"{PACKAGE}/__pycache__"
FILE = f"{FOLDER}/tarbox.{sys.implementation.cache_tag}.modules"
MAGIC = MAGIC_NUMBER
HEAD = len(MAGIC) + 8  # the magic number of Python's bytecode, and the length of the index
WRITERS = "tarbox.bytecode."  # whose modules aren't in the file
PATIENCE = 2  # so many functions may be read one by one at each start; with more of them the file is written anew
PYTHON = f"{sys.version} {sys.base_exec_prefix}"  # whose machine code it is
_MODULE = type(sys)
_FUNCTION: "Any" = type(lambda: None)


class Later:
    """Stands in a module or class for a function that hasn't been called yet. name: its module:its qualified name."""

    __slots__ = ("name",)

    if TYPE_CHECKING:
        read: Callable[[str], FunctionType]  # `Modules.function`

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: "Any", **options: "Any") -> "Any":
        return Later.read(self.name)(*arguments, **options)

    def __get__(self, instance: object, owner: "type | None" = None) -> "Any":
        return Later.read(self.name).__get__(instance, owner)

    def __getattr__(self, name: str) -> "Any":
        return getattr(Later.read(self.name), name)


class Modules:
    """A finder for `sys.meta_path`, and the loader of what it finds.

    descriptor, index, start: the file, -1 without one; its groups; where their code begins. extensions: where machine
    code is that Python would look for. done: the modules that were made since the outermost import that is going on
    began, in order. imports: for each outermost import that has ended, what was done. fresh: whether any of that
    wasn't in the file. functions: those that were in the file for later and have been called, by `Later.name`. later:
    where all of those are in the file, and how long.
    """

    __slots__ = (
        "_codes", "_depth", "_facts", "_groups", "_kept", "_writable", "descriptor", "done", "extensions", "fresh",
        "functions", "imports", "index", "later", "start",
    )  # fmt: skip

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.index: "Groups" = {}
        self.extensions: "Extensions" = {}
        self.start = 0  # of the code in the file
        self.done: list[str] = []
        self.imports: dict[str, tuple[str, ...]] = {}
        self.fresh = False
        self.later = 0, 0
        self.functions: "dict[str, FunctionType]" = {}
        self._kept: dict[str, bytes] = {}
        self._depth = 0
        self._writable: bool | None = None
        self._codes: "dict[str, CodeType]" = {}  # what was read and hasn't run yet
        self._facts: "dict[str, Member]" = {}
        try:
            head = os.read(descriptor, HEAD)
            length = os.fstat(descriptor).st_size
            size = int.from_bytes(head[-8:], "little")
            if len(head) == HEAD and head.startswith(MAGIC) and size < length:
                groups, extensions, python, later = marshal.loads(os.read(descriptor, size))
                self.start = HEAD + size
                if self.start + sum(later) == length:  # and not cut short
                    self.index, self.later = groups, later
                    self.extensions = extensions if python == PYTHON else {}
        except (OSError, EOFError, ValueError, TypeError, AttributeError, LookupError):  # no such file
            pass
        self._groups = dict(self.index)

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The module, when it is kept here and its source is still the one it was made of."""
        if name in self._codes or (name in self._groups and self._read(name)):
            return self._spec(self._facts[name])
        if name in self.extensions:
            file, stamp = self.extensions[name]
            if stamp_of(file) == stamp:
                return spec_from_file_location(name, file)
        elif name.startswith("tarbox.") and not name.startswith(WRITERS) and self._may_write():
            from .file import recorded

            return recorded(self, name, path)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """As Python makes one."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module's code, after that of the modules which its import brings along."""
        name = module.__name__
        ended = ""
        self.begin()
        try:
            if name in self._groups:
                for member in self._groups[name][0]:
                    self._bring(member)
            exec(self._codes.pop(name), module.__dict__)
            ended = name
        finally:
            self.end(ended)

    def _bring(self, member: "Member") -> None:
        """Make another module of a group as the import system would, unless it is there or its package isn't ready."""
        name, source, _, package = member
        above, _, last = name.rpartition(".")
        loaded = sys.modules
        if name in loaded or name not in self._codes or above not in loaded:
            return
        module = loaded[name] = _MODULE(name)
        module.__spec__ = spec = self._spec(member)
        module.__loader__ = self  # type: ignore[assignment]
        module.__file__ = path_of(source)
        module.__cached__ = FILE  # type: ignore[attr-defined]
        module.__package__ = above
        if package:
            module.__package__ = name
            module.__path__ = spec.submodule_search_locations  # type: ignore[assignment]
        try:
            exec(self._codes.pop(name), module.__dict__)
        except BaseException:
            del loaded[name]
            raise
        setattr(loaded[above], last, module)
        self.done.append(name)

    def begin(self) -> None:
        """The import of a module begins."""
        self._depth += 1

    def end(self, name: str) -> None:
        """The import of a module has ended. name: "" when it failed."""
        if name:
            self.done.append(name)
        self._depth -= 1
        if not self._depth:
            if name:
                self.imports[name] = tuple(self.done)
            self.done.clear()

    def _spec(self, member: "Member") -> ModuleSpec:
        name, source, _, package = member
        path = path_of(source)
        spec = ModuleSpec(name, self, origin=path, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        spec.cached = FILE
        if package:
            spec.submodule_search_locations = [path.rpartition("/")[0]]
        return spec

    def _read(self, name: str) -> bool:
        """Read the code of a group; False, and it is forgotten, when a source has changed."""
        members, at, size = self._groups[name]
        if fits(members):
            try:
                codes = marshal.loads(os.pread(self.descriptor, size, self.start + at))
                for member, code in zip(members, codes, strict=True):
                    self._facts[member[0]] = member
                    self._codes[member[0]] = code
                return True
            except (OSError, EOFError, ValueError, TypeError):  # it was damaged
                pass
        del self._groups[name]
        return False

    def function(self, name: str) -> "FunctionType":
        """The function that a `Later` stands for, which is put into its place."""
        function = self.functions.get(name)
        if function is None:
            module, _, qualified = name.partition(":")
            above, _, last = qualified.rpartition(".")
            within = vars(sys.modules[module])
            code, defaults, by_name = self._parts(name)
            function = self.functions[name] = _FUNCTION(code, within, None, defaults)
            function.__kwdefaults__ = by_name
            scope = within[above] if above else sys.modules[module]
            if isinstance(vars(scope).get(last), Later):
                setattr(scope, last, function)
        return function

    def _parts(self, name: str) -> "Parts":
        try:
            self._kept = self._kept or self.kept()
            code, defaults, by_name = marshal.loads(self._kept[name])
            return code, defaults, by_name
        except (OSError, EOFError, ValueError, TypeError, LookupError):  # it was damaged
            from .file import from_source

            self.fresh = self._may_write()
            return from_source(name)

    def kept(self) -> dict[str, bytes]:
        """All functions that are in the file for later: what `lean.split` made of them."""
        at, size = self.later
        found: dict[str, bytes] = marshal.loads(os.pread(self.descriptor, size, self.start + at)) if size else {}
        return found

    def _may_write(self) -> bool:
        """Whether the file could be written anew. Nothing of ours is left in a package that is another user's."""
        if self._writable is None:
            folder = FOLDER if os.access(FOLDER, os.F_OK) else PACKAGE
            self._writable = os.access(folder, os.W_OK) and os.stat(PACKAGE).st_uid == os.geteuid()
        return self._writable

    def close(self) -> None:
        """Let go of the file, and write it anew when modules were imported that it doesn't have."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self.fresh or (len(self.functions) > PATIENCE and self._may_write()):
            from .file import write

            write(self)
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def install() -> Modules:
    """Put the finder before all others."""
    try:
        descriptor = os.open(FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        descriptor = -1
    modules = Modules(descriptor)
    Later.read = modules.function
    builtins.__later__ = Later  # type: ignore[attr-defined]
    if "importtime" not in getattr(sys, "_xoptions", ()):  # whoever asks for a report of imports gets one of all
        sys.meta_path.insert(0, modules)
    return modules


def fits(members: "Sequence[Member]") -> bool:
    """Whether the sources of a group's members are still those that its code was made of."""
    return all(stamp_of(path_of(source)) == stamp for _, source, stamp, _ in members)


def path_of(source: str) -> str:
    """The path of a member's source: in the package, or of a module of Python's own."""
    return source if source.startswith("/") else f"{PACKAGE}/{source}"


def stamp_of(path: str) -> tuple[int, int]:
    """The time and size of a file; (0, 0) when it isn't there."""
    try:
        facts = os.stat(path)
    except OSError:
        return 0, 0
    return facts.st_mtime_ns, facts.st_size
