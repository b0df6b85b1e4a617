"""Compression is told by content, undone in pieces, and what is no archive is named for what it is."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest
from backports import zstd

from tarballs import END, file
from tarbox.errors import ArchiveError
from tarbox.images import compression
from tarbox.images.compression import GzipByZlib, decompress, detect

PLAIN = file("a", bytes(range(256)) * 9000) + END
PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd.compress}


def chunks(content, size=1000):
    return [content[at : at + size] for at in range(0, len(content), size)]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_each_kind_is_told_and_undone(kind, size):
    packed = PACK[kind](PLAIN)
    assert detect(packed[:512], "x") == kind
    pieces = list(decompress(kind, chunks(packed, size), "x"))
    assert b"".join(pieces) == PLAIN
    assert max(map(len, pieces)) <= compression.PIECE


@pytest.mark.parametrize("kind", PACK)
def test_several_members_are_one_and_zeros_or_noise_behind_are_passed_over(kind):
    packed = PACK[kind](PLAIN[:5000]) + PACK[kind](b"") + PACK[kind](PLAIN[5000:])
    for behind in (b"", bytes(5000), b"noise" * 100):
        read = iter(chunks(packed + behind))
        assert b"".join(decompress(kind, read, "x")) == PLAIN
        assert list(read) == []  # the digest covers what is behind too


@pytest.mark.parametrize("kind", PACK)
def test_a_cut_and_a_changed_byte_are_told(kind):
    packed = PACK[kind](PLAIN)
    for length in (20, len(packed) // 2, len(packed) - 1):
        with pytest.raises(ArchiveError, match="cut short"):
            list(decompress(kind, chunks(packed[:length]), "x"))
    if kind != "zstd":  # its command adds a checksum, its library doesn't
        middle = len(packed) // 2
        with pytest.raises(ArchiveError, match=r"damaged|cut short"):
            list(decompress(kind, [packed[:middle] + bytes([packed[middle] ^ 4]) + packed[middle + 1 :]], "x"))


def test_zlib_does_what_isal_does():
    packed = gzip.compress(PLAIN)
    mine, given = GzipByZlib(), b""
    rest = chunks(packed, 501)
    while not mine.eof:
        given += mine.decompress(rest.pop(0) if mine.needs_input else b"", 300)
    assert given == PLAIN
    assert mine.unused_data == b""


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"\x7fELF" + bytes(500), "program"),
        (b"PK\x03\x04" + bytes(500), "zip"),
        (b"<!DOCTYPE html>", "web page"),
        (b"#!/bin/sh\n", "script"),
        (b"just words\n", "text"),
        (bytes(512), "zeros"),
        (file("a", b"x")[:300], "cut short"),
        (b"hsqs" + bytes(508), "squashfs"),
    ],
)
def test_what_is_no_archive_is_named(head, words):
    with pytest.raises(ArchiveError, match=words) as caught:
        detect(head, "thing")
    assert "\n" not in str(caught.value)


def test_too_much_memory_is_refused_not_taken():
    packed = lzma.compress(PLAIN, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}])
    with pytest.raises(ArchiveError, match="memory"):
        list(decompress("xz", [packed], "x"))
