"""The package's compiled modules in one file, so that a start opens one file instead of sixty.

    src/tarbox/__pycache__/tarbox.cpython-311.modules

Python keeps the compiled form of each module in a file of its own, and asks the file system several times before it
finds it. For a command that imports sixty small modules and then runs for some milliseconds, that is a tenth of its
time. The file here holds the same bytes, copied from Python's own files, each with the time and size of its source.
What no longer fits its source, or isn't in it, is imported in the ordinary way, and the file is written anew at the
end.

https://docs.python.org/3/reference/import.html#finders-and-loaders, PEP 3147
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    # by name: is a package; path of the source; its time and size; where the code is in the file, and how long
    Index = dict[str, tuple[bool, str, bytes, int, int]]

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_FILE = f"{_PACKAGE}/__pycache__/tarbox.{sys.implementation.cache_tag}.modules"
_HEAD = len(MAGIC_NUMBER) + 8  # the magic number of Python's bytecode, and the length of the index


class Modules:
    """A finder for `sys.meta_path`, and the loader of what it finds."""

    __slots__ = ("descriptor", "early", "index", "start")

    def __init__(self) -> None:
        self.descriptor = -1
        self.early = frozenset(sys.modules)  # what was imported before this can't come from here
        self.index: Index = {}
        self.start = 0  # of the code in the file
        try:
            self.descriptor = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
            head = os.read(self.descriptor, _HEAD)
            length = os.fstat(self.descriptor).st_size
            size = int.from_bytes(head[-8:], "little")
            if len(head) == _HEAD and head.startswith(MAGIC_NUMBER) and size < length:
                index: Index = marshal.loads(os.read(self.descriptor, size))
                self.start = _HEAD + size
                if self.start + sum(entry[4] for entry in index.values()) == length:  # and not cut short
                    self.index = index
        except (OSError, EOFError, ValueError, TypeError):  # not there, or no such file
            pass

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, when it is kept here and its source is still the one it was made of."""
        entry = self.index.get(name)
        if entry is None or _stamp(entry[1]) != entry[2]:
            return None
        spec = ModuleSpec(name, self, origin=entry[1], is_package=entry[0])  # type: ignore[arg-type]
        spec.has_location = True
        spec.cached = _FILE
        if entry[0]:
            spec.submodule_search_locations = [os.path.dirname(entry[1])]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """As Python makes one."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(self._code(module.__name__), module.__dict__)

    def _code(self, name: str) -> CodeType:
        at, size = self.index[name][3:]
        code: CodeType = marshal.loads(os.pread(self.descriptor, size, self.start + at))
        return code

    def close(self) -> None:
        """Let go of the file, and write it anew when modules were imported that it doesn't have."""
        fresh = {
            name: compiled
            for name, module in list(sys.modules.items())
            if name.startswith("tarbox.") and name not in self.early and (compiled := _compiled(module)) is not None
        }
        if fresh and os.access(_PACKAGE, os.W_OK) and os.stat(_PACKAGE).st_uid == os.geteuid():
            for name, (package, source, stamp, at, size) in self.index.items():
                if name not in fresh and _stamp(source) == stamp:
                    fresh[name] = package, source, stamp, os.pread(self.descriptor, size, self.start + at)
            _write(fresh)
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def install() -> Modules:
    """Put the finder before all others."""
    modules = Modules()
    sys.meta_path.insert(0, modules)
    return modules


def _stamp(source: str) -> bytes:
    """The time and size of a source as a compiled file has them."""
    try:
        facts = os.stat(source)
    except OSError:
        return b""
    return (int(facts.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (facts.st_size & 0xFFFFFFFF).to_bytes(4, "little")


def _compiled(module: ModuleType) -> tuple[bool, str, bytes, bytes] | None:
    """A module that Python imported in its own way: what the index has of it, and its code."""
    spec = module.__spec__
    if spec is None or not spec.origin or not spec.cached or spec.cached == _FILE:
        return None
    try:
        with open(spec.cached, "rb") as file:
            data = file.read()
    except OSError:
        return None
    stamp = _stamp(spec.origin)
    if len(data) < 16 or data[4:8] != bytes(4) or data[8:16] != stamp:  # checked by hash, or changed meanwhile
        return None
    return spec.submodule_search_locations is not None, spec.origin, stamp, data[16:]


def _write(modules: dict[str, tuple[bool, str, bytes, bytes]]) -> None:
    index: Index = {}
    at = 0
    for name, (package, source, stamp, code) in modules.items():
        index[name] = package, source, stamp, at, len(code)
        at += len(code)
    listed = marshal.dumps(index)
    fresh = f"{_FILE}.{os.getpid()}"
    try:
        with open(fresh, "xb") as file:
            file.write(MAGIC_NUMBER + len(listed).to_bytes(8, "little") + listed)
            file.writelines(code for *_, code in modules.values())
        os.rename(fresh, _FILE)
    except OSError:
        try:
            os.unlink(fresh)
        except OSError:
            pass
