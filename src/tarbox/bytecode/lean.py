"""Compiles a module to what running it takes, and nothing that only readers and type checkers look at.

    python3 -OO      leaves out docstrings and assertions; here docstrings go, assertions stay, and so do lines
    also left out    columns, annotations, what is imported for type checkers, and the import of `__future__`

An error is told with its lines, as ever. Only the command that writes the file of compiled modules loads this.

https://docs.python.org/3/library/ast.html
"""

from __future__ import annotations
import __future__

import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType


def lean(source: bytes, path: str) -> CodeType:
    """Compile a module without docstrings, annotations and `__future__`, and with its lines but not its columns."""
    tree = ast.parse(source, path)
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


def _strip(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
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
