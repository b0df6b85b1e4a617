"""What is printed of names that somebody else chose, in columns and as JSON."""

from __future__ import annotations

import json

from tarbox.cli.layout import as_json, columns, folded, printable, size


def test_nothing_reaches_the_terminal_but_letters():
    """Neither escape sequences, nor bytes that are no text, nor letters that turn the line around."""
    assert printable("a\x1b[2J\udcff\n\u202eb ü") == "a\\x1b[2J\\xff\\n\\u202eb ü"
    assert printable("abcdefgh", 6) == "abc..."


def test_json_is_valid_whatever_the_names():
    text = as_json({"name": "a\x1b\udcff", "rows": [(1, "\udce4")], "none": None, "yes": True})
    assert json.loads(text) == {"name": "a\x1b\\xff", "rows": [[1, "\\xe4"]], "none": None, "yes": True}
    text.encode("utf-8")
    assert "\\ud" not in text


def test_columns_are_as_wide_as_they_must_be():
    assert columns([["a", "1", "x"], ["bcd", "20", ""]], 2, right=(1,)) == ["  a     1  x", "  bcd  20"]


def test_long_texts_are_folded_beside_their_label():
    assert folded("label", "one two three", 10, 18) == ["  label   one two", "          three"]
    assert folded("label", "x" * 30, 10, 18) == ["  label", "          " + "x" * 30]
    assert folded("no new privs", "no") == ["  no new privs no"]


def test_sizes_are_told_in_their_unit():
    assert [size(count) for count in (0, 1023, 1024, 5242880, 1 << 62)] == [
        "0 bytes", "1023 bytes", "1 KiB", "5 MiB", "4096 PiB",
    ]  # fmt: skip
