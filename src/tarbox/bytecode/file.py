"""Writes the file of compiled modules (see the package), when something was imported that it didn't have.

    magic number of Python's bytecode ── length of the index ── index ── code of a group ── … ── functions for later

Only the command that writes loads this. It sees the ordinary imports go by, so that it knows which modules the import
of another brings along, and the calls, so that it knows which functions may be kept for later. Modules are compiled
once more, without what no command needs and every start would read: see `lean.py`. Writing is to a file of another
name, which then takes the place of the old one: two commands that write at once disturb neither each other nor those
who read.

https://docs.python.org/3/reference/import.html#finders-and-loaders, man 2 rename
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import ExtensionFileLoader, PathFinder, SourceFileLoader

from . import FILE, FOLDER, MAGIC, PACKAGE, PYTHON, fits, path_of, stamp_of
from .lean import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, FrameType, ModuleType

    from . import Extensions, Groups, Member, Modules, Parts

    # What the file has of a module: its member of a group, its code, its functions for later
    Entry = tuple[Member, CodeType, dict[str, bytes]]

_called: set[tuple[str, str]] = set()  # path of the source and qualified name


class Recorded(SourceFileLoader):
    """Python's loader of sources, which tells the finder when an import begins and ends."""

    modules: Modules

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        self.modules.begin()
        ended = ""
        try:
            super().exec_module(module)
            ended = module.__name__
            self.modules.fresh = True
        finally:
            self.modules.end(ended)


def recorded(modules: Modules, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """The module as Python finds it, with a loader that records its import; from here on, calls are noted too."""
    if sys.getprofile() is None:
        sys.setprofile(_note)
    spec = PathFinder.find_spec(name, path)
    if spec is not None and spec.origin and type(spec.loader) is SourceFileLoader:
        spec.loader = Recorded(name, spec.origin)
        spec.loader.modules = modules
    return spec


def _note(frame: FrameType, event: str, argument: object) -> None:
    if event == "call":
        _called.add((frame.f_code.co_filename, frame.f_code.co_qualname))


def write(modules: Modules) -> None:
    """Write the groups that the file has and those of this command's imports; nothing where that isn't possible."""
    if sys.getprofile() is _note:
        sys.setprofile(None)
    known = _stored(modules)
    groups: Groups = {}
    codes: list[bytes] = []
    at = 0
    for name in {**modules.index, **modules.imports}:
        old = [member[0] for member in modules.index[name][0]] if name in modules.index else []
        found = []
        for other in _merged(name, old, modules.imports.get(name, ())):
            entry = known[other] = known.get(other) or _compiled(other)
            if entry:
                found.append(entry)
        if not known[name]:
            continue
        code = marshal.dumps(tuple(code for _, code, _ in found))
        groups[name] = tuple(member for member, _, _ in found), at, len(code)
        codes.append(code)
        at += len(code)
    codes.append(marshal.dumps({name: kept for entry in known.values() if entry for name, kept in entry[2].items()}))
    _replace(marshal.dumps((groups, _extensions(modules), PYTHON, (at, len(codes[-1])))), codes)


def _stored(modules: Modules) -> dict[str, Entry | None]:
    """What the file has, as far as it still fits the sources; with the functions that were called meanwhile in it."""
    found: dict[str, Entry] = {}
    try:
        later = modules.kept()
        for members, at, size in modules.index.values():
            codes = marshal.loads(os.pread(modules.descriptor, size, modules.start + at))
            for member, code in zip(members, codes, strict=False):
                if fits([member]):
                    kept = {name: later[name] for name in later if name.startswith(f"{member[0]}:")}
                    found[member[0]] = member, code, kept
    except (OSError, EOFError, ValueError, TypeError):  # it was damaged
        pass
    known: dict[str, Entry | None] = {**found}
    for name, entry in found.items():
        called = [function for function in entry[2] if _was_called(function, entry[0], modules)]
        if called:
            known[name] = _made(name, entry[0], {*entry[2]}.difference(called))
    return known


def _was_called(function: str, member: Member, modules: Modules) -> bool:
    return function in modules.functions or (path_of(member[1]), function.partition(":")[2]) in _called


def _merged(name: str, old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The modules that the import of `name` may bring along, and itself as the last.

    One that a command had loaded before is missing from its record, and may not be there in the next command.
    """
    return [other for other in dict.fromkeys((*old, *new)) if other != name] + [name]


def _compiled(name: str) -> Entry | None:
    """What the index has of a module, and its code; None when it can't be had, or changes while we look."""
    spec = sys.modules[name].__spec__ if name in sys.modules else None
    if spec is None or not spec.origin:
        return None
    source = spec.origin.removeprefix(PACKAGE + "/")
    return _made(name, (name, source, stamp_of(spec.origin), spec.submodule_search_locations is not None), None)


def _made(name: str, member: Member, for_later: Collection[str] | None) -> Entry | None:
    """Compile a module. for_later: the functions that may be kept for later if they weren't called; None for all."""
    path = path_of(member[1])

    def wanted(qualified: str) -> bool:
        function = f"{name}:{qualified}"
        return (path, qualified) in _called or (for_later is not None and function not in for_later)

    try:
        with open(path, "rb") as file:
            code, kept = split(file.read(), path, name, wanted)
    except (OSError, SyntaxError, ValueError):
        return None
    return (member, code, kept) if fits([member]) else None


def from_source(name: str) -> Parts:
    """A function that is kept for later, when it can't be read: compiled once more. name: that of its `Later`."""
    module = name.partition(":")[0]
    path = sys.modules[module].__file__ or ""
    with open(path, "rb") as file:
        kept = split(file.read(), path, module, lambda _: False)[1]
    parts: Parts = marshal.loads(kept[name])
    return parts


def _extensions(modules: Modules) -> Extensions:
    """The modules of machine code that were found on the search path."""
    found = {name: entry for name, entry in modules.extensions.items() if stamp_of(entry[0]) == entry[1]}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec and spec.origin and isinstance(spec.loader, ExtensionFileLoader) and "." not in name:
            found[name] = spec.origin, stamp_of(spec.origin)
    return found


def _replace(index: bytes, codes: list[bytes]) -> None:
    fresh = f"{FILE}.{os.getpid()}"
    try:
        os.makedirs(FOLDER, exist_ok=True)
        with open(fresh, "xb") as file:
            file.write(MAGIC + len(index).to_bytes(8, "little") + index)
            file.writelines(codes)
        os.rename(fresh, FILE)
    except OSError:
        try:
            os.unlink(fresh)
        except OSError:
            pass
