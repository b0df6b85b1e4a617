"""Writes the file of compiled modules (see the package), when something was imported that it didn't have.

    magic number of Python's bytecode ── length of the index ── index ── code of a group ── code of a group ── …

Only the command that writes loads this. It sees the ordinary imports go by, so that it knows which modules the import
of another brings along. They are compiled once more, without what no command needs and every start would read: see
`lean.py`. Writing is to a file of another name, which then takes the place of the old one: two commands that write at
once disturb neither each other nor those who read.

https://docs.python.org/3/reference/import.html#finders-and-loaders, man 2 rename
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import ExtensionFileLoader, PathFinder, SourceFileLoader

from . import FILE, FOLDER, MAGIC, PACKAGE, PYTHON, fits, stamp_of
from .lean import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

    from . import Extensions, Groups, Member, Modules


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
    """The module as Python finds it, with a loader that records its import."""
    spec = PathFinder.find_spec(name, path)
    if spec is not None and spec.origin and type(spec.loader) is SourceFileLoader:
        spec.loader = Recorded(name, spec.origin)
        spec.loader.modules = modules
    return spec


def write(modules: Modules) -> None:
    """Write the groups that the file has and those of this command's imports; nothing where that isn't possible."""
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
        code = marshal.dumps(tuple(code for _, code in found))
        groups[name] = tuple(member for member, _ in found), at, len(code)
        codes.append(code)
        at += len(code)
    _replace(marshal.dumps((groups, _extensions(modules), PYTHON)), codes)


def _stored(modules: Modules) -> dict[str, tuple[Member, CodeType] | None]:
    """What the file has, as far as it still fits the sources."""
    known: dict[str, tuple[Member, CodeType] | None] = {}
    for members, at, size in modules.index.values():
        try:
            codes = marshal.loads(os.pread(modules.descriptor, size, modules.start + at))
        except (OSError, EOFError, ValueError, TypeError):
            continue
        for member, code in zip(members, codes, strict=False):
            if fits([member]):
                known[member[0]] = member, code
    return known


def _merged(name: str, old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The modules that the import of `name` may bring along, and itself as the last.

    One that a command had loaded before is missing from its record, and may not be there in the next command.
    """
    return [other for other in dict.fromkeys((*old, *new)) if other != name] + [name]


def _compiled(name: str) -> tuple[Member, CodeType] | None:
    """What the index has of a module, and its code; None when it can't be had, or changes while we look."""
    spec = sys.modules[name].__spec__ if name in sys.modules else None
    if spec is None or not spec.origin:
        return None
    stamp = stamp_of(spec.origin)
    try:
        with open(spec.origin, "rb") as file:
            code = lean(file.read(), spec.origin)
    except (OSError, SyntaxError, ValueError):
        return None
    if stamp_of(spec.origin) != stamp:
        return None
    source = spec.origin.removeprefix(PACKAGE + "/")
    return (name, source, stamp, spec.submodule_search_locations is not None), code


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
