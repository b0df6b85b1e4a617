"""Compiles a module to what running it takes, and nothing that only readers and type checkers look at.

    python3 -OO      leaves out docstrings and assertions; here docstrings go, assertions stay, and so do lines
    also left out    columns, annotations, what is imported for type checkers, and the import of `__future__`

An error is told with its lines, as ever. Functions that aren't needed at once can be kept apart: `split`. Only the
command that writes the file of compiled modules loads this.

https://docs.python.org/3/library/ast.html
"""

from __future__ import annotations
import __future__

import ast
import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    Defined = ast.FunctionDef | ast.AsyncFunctionDef

# Of the names with a meaning to Python, those that it looks up in a class as it does any other.
_LIKE_OTHERS = frozenset(("__init__", "__repr__", "__str__", "__eq__", "__hash__"))


def split(source: bytes, path: str, module: str, wanted: Callable[[str], bool]) -> tuple[CodeType, dict[str, bytes]]:
    """Compile a module as `lean` does, but keep functions apart that aren't wanted; returns both.

    wanted: is asked with the qualified name of each that could be. A kept one has the name of a `Later`, and is
    marshalled: its code, the defaults of its arguments, those of arguments that are given by name alone.
    """
    whole = lean(source, path)
    codes = {code.co_qualname: code for code in _functions(whole)}
    tree = ast.parse(source, path)
    kept: dict[str, bytes] = {}
    scopes: list[ast.Module | ast.ClassDef] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    for scope in scopes:
        names = [node.name for node in scope.body if isinstance(node, ast.FunctionDef)]
        for at, node in enumerate(scope.body):
            if not isinstance(node, ast.FunctionDef) or not _may_wait(node, names):
                continue
            qualified = f"{scope.name}.{node.name}" if isinstance(scope, ast.ClassDef) else node.name
            code = codes[qualified]
            if code.co_freevars or wanted(qualified):  # super() needs its class at once
                continue
            try:
                defaults = tuple(ast.literal_eval(default) for default in node.args.defaults) or None
                pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                by_name = {argument.arg: ast.literal_eval(default) for argument, default in pairs if default} or None
                hash((defaults, *(by_name or {}).values()))
            except (ValueError, TypeError):  # computed, or could be changed
                continue
            name = f"{module}:{qualified}"
            kept[name] = marshal.dumps((code, defaults, by_name))
            later = ast.parse(f"{node.name} = __later__({name!r})").body[0]
            scope.body[at] = ast.fix_missing_locations(ast.copy_location(later, node))
    return _compiled(tree, path), kept


def _may_wait(node: ast.FunctionDef, names: list[str]) -> bool:
    special = node.name.startswith("__") and node.name.endswith("__") and node.name not in _LIKE_OTHERS
    return not node.decorator_list and not special and names.count(node.name) == 1


def _functions(code: CodeType) -> list[CodeType]:
    """The code of a module's functions and of its classes' methods; not of what is within those."""
    inside = [part for part in code.co_consts if isinstance(part, type(code))]
    classes = [part for part in inside if not part.co_flags & 2]  # CO_NEWLOCALS
    return inside + [part for found in classes for part in found.co_consts if isinstance(part, type(code))]


def lean(source: bytes, path: str) -> CodeType:
    """Compile a module without docstrings, annotations and `__future__`, and with its lines but not its columns."""
    return _compiled(ast.parse(source, path), path)


def _compiled(tree: ast.Module, path: str) -> CodeType:
    flags = 0
    for first in tree.body[:]:
        if isinstance(first, ast.ImportFrom) and first.module == "__future__":
            flags |= sum(getattr(__future__, feature.name).compiler_flag for feature in first.names)
            tree.body.remove(first)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            node.body = _of_types_bare(node.body)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _strip(node)
        if "lineno" in node._attributes:  # -1 says "unknown" to the compiler
            vars(node).update(end_lineno=vars(node)["lineno"], col_offset=-1, end_col_offset=-1)
    code: CodeType = compile(tree, path, "exec", flags, dont_inherit=True, optimize=0)
    return code


def _strip(node: ast.Module | ast.ClassDef | Defined) -> None:
    """Take away the docstring, and a function's annotations."""
    if ast.get_docstring(node, clean=False) is not None:
        node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node.returns = None
        given = node.args
        for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
            if argument:
                argument.annotation = None


def _of_types_bare(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module or class: with values instead of annotations, and with nothing for type checkers."""
    bare: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.If) and isinstance(statement.test, ast.Name):
            bare += statement.orelse if statement.test.id == "TYPE_CHECKING" else [statement]
        elif not isinstance(statement, ast.AnnAssign):
            bare.append(statement)
        elif statement.value:
            bare.append(ast.copy_location(ast.Assign([statement.target], statement.value), statement))
    return bare or [ast.copy_location(ast.Pass(), body[0])] if body else []
