"""Writes the file of compiled modules (`bytecode`), when something was imported that it didn't have.

    magic number of Python's bytecode ── length of the index ── index ── code of a group ── code of a group ── …

This is loaded only by the command that writes. It sees the ordinary imports go by, so that it knows which modules the
import of another brings along, and has Python's own loader compile them. Writing is to a file of another name, which
then takes the place of the old one: two commands that write at once don't disturb each other or those who read.

https://docs.python.org/3/reference/import.html#finders-and-loaders, man 2 rename
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import ExtensionFileLoader, PathFinder, SourceFileLoader

from .bytecode import FILE, MAGIC_NUMBER, PYTHON, fits, stamp_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

    from .bytecode import Extensions, Groups, Member, Modules


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
    """Write the groups that the file has and those of the imports of this process; nothing when that isn't possible."""
    groups: Groups = {}
    codes: list[bytes] = []
    at = 0
    kept = {name: group for name, group in modules.groups.items() if fits(group[0])}
    imports = {**modules.imports, "tarbox": (), "__future__": ()}  # these two are needed before one can be recorded
    for name in {**kept, **imports}:
        old = kept[name][0] if name in kept else ()
        names = _merged(name, [member[0] for member in old], imports.get(name, ()))
        if len(names) == len(old):
            members, code = old, os.pread(modules.descriptor, kept[name][2], modules.start + kept[name][1])
        else:
            compiled = [found for other in names if (found := _compiled(other)) is not None]
            if len(compiled) < len(names):
                continue
            members, code = tuple(member for member, _ in compiled), marshal.dumps(tuple(code for _, code in compiled))
        groups[name] = members, at, len(code)
        codes.append(code)
        at += len(code)
    _replace(marshal.dumps((groups, _extensions(modules), PYTHON)), codes)


def _merged(name: str, old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The modules that the import of `name` can bring along, and itself as the last.

    What one command has loaded before is missing from its record, and may not be there in another.
    """
    return [other for other in dict.fromkeys((*old, *new)) if other != name] + [name]


def _compiled(name: str) -> tuple[Member, CodeType] | None:
    """What the index has of a module, and its code; None when it can't be had, or changes while we look."""
    spec = sys.modules[name].__spec__ if name in sys.modules else None
    if spec is None or not spec.origin:
        return None
    before = stamp_of(spec.origin)
    try:
        code = SourceFileLoader(name, spec.origin).get_code(name)
    except (OSError, ImportError, SyntaxError, ValueError):
        return None
    if code is None or before == (0, 0) or stamp_of(spec.origin) != before:
        return None
    return (name, spec.origin, before, spec.submodule_search_locations is not None), code


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
        os.makedirs(os.path.dirname(FILE), exist_ok=True)
        with open(fresh, "xb") as file:
            file.write(MAGIC_NUMBER + len(index).to_bytes(8, "little") + index)
            file.writelines(codes)
        os.rename(fresh, FILE)
    except OSError:
        try:
            os.unlink(fresh)
        except OSError:
            pass
