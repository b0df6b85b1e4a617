"""The path rule: one module walks the paths that a container or an image controls.

Whoever joins a container's root and a path as text follows the container's own symlinks, out of it. So a variable named
root, rootfs, merged, … in the packages that handle containers may be passed on, opened or closed, never extended.
"""

from __future__ import annotations

import ast
import itertools
import re

import pytest

import source

WATCHED = ("kernel", "runtime", "images", "engine", "networks", "build")
WALKER = "tarbox.kernel.paths"
CONTAINER_ROOT = re.compile(
    r"^(new_?|container_?|image_?|target_?)?(root|rootfs|merged|upper_?dir|merged_?dir)(_?(dir|path|fs|folder))?$", re.I
)
WRAPPERS = {"str", "bytes", "Path", "encode", "fsencode", "rstrip", "realpath", "abspath"}


def walks(text: str) -> list[str]:
    """The places of a module where a container's root and a path are put together as text, or walked by descriptor."""
    tree = ast.parse(text)
    found = []
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))]
    for scope in scopes:
        names = _names_of_roots(scope)
        found += [f"line {node.lineno}: {ast.unparse(node)}" for node in ast.walk(scope) if _joins(node, names)]
    return sorted(set(found))


def _names_of_roots(scope: ast.AST) -> set[str]:
    """Variables that are only another name for a container's root."""
    names: set[str] = set()
    for _ in range(2):  # twice: a name of a name
        for node in ast.walk(scope):
            if isinstance(node, ast.Assign) and _is_root(node.value, names):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.NamedExpr) and _is_root(node.value, names):
                names.add(node.target.id)
    return names


def _is_root(node: ast.AST | None, names: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in names or bool(CONTAINER_ROOT.match(name))
        case ast.Attribute(attr=name):
            return bool(CONTAINER_ROOT.match(name))
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in WRAPPERS:
            return any(_is_root(argument, names) for argument in arguments)
        case ast.Call(func=ast.Attribute(attr=name, value=owner), args=arguments) if name in WRAPPERS:
            return any(_is_root(part, names) for part in (owner, *arguments))
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return bool(CONTAINER_ROOT.match(key))
    return False


def _starts_a_path(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and node.value[:1] in ("/", b"/")


def _joins(node: ast.AST, names: set[str]) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr="join" | "joinpath", value=owner), args=[first, *_]):
            return (_is_root(first, names) and not isinstance(owner, ast.Constant)) or _is_root(owner, names)
        case ast.Call(func=ast.Name(id="join" | "Path" | "PurePath"), args=[first, _, *_]):
            return _is_root(first, names)
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Constant(value=str(form))), args=[first, *_]):
            return "{}/" in form and _is_root(first, names)
        case ast.Call(keywords=keywords) if any(
            k.arg and k.arg.endswith("dir_fd") and _is_root(k.value, names) for k in keywords
        ):
            return True
        case ast.BinOp(op=ast.Div(), left=left):
            return _is_root(left, names)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _is_root(left, names) and not isinstance(right, ast.List | ast.Tuple)
        case ast.BinOp(op=ast.Mod(), left=ast.Constant(value=str(form)), right=right):
            values = right.elts if isinstance(right, ast.Tuple) else [right]
            return "%s/" in form and any(_is_root(value, names) for value in values)
        case ast.JoinedStr(values=values):
            return any(
                isinstance(part, ast.FormattedValue) and _is_root(part.value, names)
                and (_starts_a_path(after) or isinstance(after, ast.FormattedValue))
                for part, after in itertools.pairwise(values)
            )  # fmt: skip
    return False


def test_one_module_walks_paths_that_a_container_controls():
    found = [
        f"{name} {place}"
        for name, path in source.modules().items()
        if name.split(".")[1:2] and name.split(".")[1] in WATCHED and name != WALKER
        for place in walks(path.read_text())
    ]
    assert not found, "a container's root and a path meet outside of kernel/paths.py (use open_in and its kin)"


def test_one_module_calls_openat2():
    """The number table names the call, and one module makes it; others may name it in an error."""
    users = set()
    for name, path in source.modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id=caller) | ast.Attribute(attr=caller), args=[ast.Constant("openat2"), *_]
                ):
                    if not caller.endswith("Error"):
                        users.add(name)
    assert users == {WALKER}


@pytest.mark.parametrize(
    "bad",
    [
        "open(os.path.join(rootfs, name))",
        "os.path.join(self.root, 'etc/passwd')",
        "f'{rootfs}/etc/passwd'",
        "f'/proc/self/fd/{root}/etc/group'",
        "f'{merged}{path}'",
        "root + '/etc/hosts'",
        "os.fsencode(root) + b'/dev/null'",
        "'%s/%s' % (rootfs, path)",
        "'{}/{}'.format(new_root, path)",
        "Path(rootfs) / path",
        "rootfs.joinpath('etc')",
        "os.open(path, os.O_PATH, dir_fd=root)",
        "os.rename(a, b, src_dir_fd=x, dst_dir_fd=rootfs)",
        "def f(root):\n    here = root\n    there = here\n    return f'{there}/x'",
        "os.path.join(config['rootfs'], path)",
        "if (top := rootfs): mkdir(top + '/proc')",
        "from ..unistd import os\nos.open(os.path.join(rootfs, name), os.O_PATH)",
        "from ..unistd import os\nos.stat(name, dir_fd=root)",
        "from ..unistd import os as system\nsystem.open(system.path.join(rootfs, name), 0)",
    ],
)
def test_the_path_rule_catches(bad):
    assert walks(bad)


@pytest.mark.parametrize(
    "good",
    [
        "open_in(root, path)",
        "os.path.join(data_root, 'images')",
        "f'the root is {root}'",
        "f'/proc/self/fd/{target}'",
        "', '.join(rootfs_names)",
        "mount(source, f'{store}/layers')",
        "shell = f'pivot_root {new_root} .'",
        "os.path.join(store, digest)",
        "os.open('.', os.O_PATH)",
        "os.close(root)",
    ],
)
def test_the_path_rule_lets_pass(good):
    assert not walks(good)
