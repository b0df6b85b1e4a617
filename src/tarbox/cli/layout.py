"""Text for people in columns, and for programs as JSON. What a container may have named is made harmless on the way.

A process can call itself anything, a sequence that clears the terminal included. So whatever isn't a plain letter is
shown as its escape, as `\\x1b`. JSON gets the same text as it is; bytes that are no UTF-8 become `\\xNN` there.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def printable(text: str, limit: int = 0) -> str:
    """The text with everything that a terminal might act on as escapes; cut to `limit` letters, 0 is not."""
    if limit and len(text) > limit:
        text = text[: limit - 3] + "..."
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(letter)[1:-1]


def columns(rows: Sequence[Sequence[str]], indent: int = 0, right: Sequence[int] = ()) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell; `right` are the columns that numbers are in."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def folded(label: str, text: str, column: int = 15, width: int = 100) -> list[str]:
    """A label and a text beside it from `column` on, in lines of at most `width` where words allow it."""
    lines = [f"  {label}".ljust(column)]
    for word in text.split(" "):
        if len(lines[-1]) + 1 + len(word) > width and lines[-1].strip():
            lines.append(" " * column)
        empty = len(lines[-1]) == column and not lines[-1][-1:].strip()
        lines[-1] += word if empty else f" {word}"
    return [line.rstrip() for line in lines]


def size(count: float) -> str:
    """Bytes in the unit that suits them: 5242880 is `5 MiB`."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def as_json(value: object, indent: int | None = 2) -> str:
    """Valid JSON, on lines of its own, whatever the text in it. indent: spaces a level; None for a single line."""
    import json

    return json.dumps(_valid(value), indent=indent) + "\n"


def _valid(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {key: _valid(entry) for key, entry in value.items()}
    return [_valid(entry) for entry in value] if isinstance(value, list | tuple) else value
