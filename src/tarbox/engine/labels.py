"""`--label`, `--label-file` and `--annotation`: words about a container. Loaded only when one of them is given.

    --label com.example.owner=me             docker inspect shows it; here the config has it, as an annotation

https://github.com/opencontainers/runtime-spec/blob/main/config.md#annotations
"""

from __future__ import annotations

from ..errors import UsageError
from .values import shorten

_LARGEST = 1 << 20  # bytes of one value
_EXAMPLE = "NAME=VALUE, e.g. com.example.owner=me"


def label(text: str) -> tuple[str, str]:
    """One --label as (name, value); a name alone has the value ""."""
    name, _, value = text.partition("=")
    name = name.lstrip()
    _check(name, value, text)
    return name, value


def annotation(text: str) -> tuple[str, str]:
    """One --annotation as (name, value); it needs both parts, as the OCI has no annotation without a value."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{shorten(text)!r} has no value", _EXAMPLE)
    _check(name, value, text)
    return name, value


def _check(name: str, value: str, text: str) -> None:
    if not name:
        raise UsageError(f"{shorten(text)!r} has no name", _EXAMPLE)
    if any(letter.isspace() or not letter.isprintable() for letter in name):
        raise UsageError(f"{shorten(text)!r}: the name {shorten(name)!r} has a space or a control character in it")
    if "\0" in value:
        raise UsageError(f"{shorten(name)}: the value has a zero byte in it")
    if len(name) + len(value) > _LARGEST:
        raise UsageError(f"{shorten(name)} has more than {_LARGEST >> 20} MiB")


def read_label_file(path: str) -> dict[str, str]:
    """The labels of a file, `NAME=VALUE` or `NAME` a line; `#` begins a comment. Raises UsageError with the line."""
    from .env_files import lines

    found: dict[str, str] = {}
    for number, line in lines(path, "--label-file"):
        try:
            name, value = label(line)
        except UsageError as error:
            raise UsageError(f"--label-file {shorten(path)}, line {number}: {error.message}", error.hint) from None
        found[name] = value
    return found
