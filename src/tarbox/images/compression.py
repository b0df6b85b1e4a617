"""Compressed or not, and with what: told by the first bytes, never by the name; undone in bounded memory.

    file ARCHIVE                      says what a file is
    gzip -dc, xz -dc, zstd -dc …      undo it

The libraries work in this process. No program is started for it: one that is found by name could be an image's own.

man 1 gzip, man 1 xz, man 1 zstd, man 5 magic
"""

from __future__ import annotations

from ..errors import ArchiveError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    class Decompressor(Protocol):
        """What every library's incremental decompressor for one member, stream or frame can do."""

        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


PIECE = 1 << 20  # bytes that are given on at a time; with a few of them on the way, this bounds the memory
BLOCK = 512
_XZ_MEMORY = 160 << 20  # bytes; `xz -9` asks for 65 MiB, and a forged header could ask for 4 GiB

_MAGICS = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
# What people hand over by mistake, and what they are told about it.
_STRANGERS = (
    (0, b"\x7fELF", "a program (ELF)"),
    (0, b"#!", "a script"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"!<arch>\n", "a Debian package or another ar archive"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"07070", "a cpio archive"),
    (0, b"hsqs", "a squashfs image"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"\x5d\x00\x00", "an lzma file of the old kind"),
    (0, b"\x89PNG", "a picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<", "a web page or XML"),
    (0, b"{", "a JSON document"),
    (510, b"\x55\xaa", "a disk image"),
)


def checksum_is_right(block: bytes) -> bool:
    """Whether the 512 bytes carry the checksum of a tar header, summed as unsigned or (old Suns) as signed bytes."""
    field = block[148:156].strip(b" \0")
    if not field or len(block) != BLOCK or any(digit not in b"01234567" for digit in field):
        return False
    stated = int(field, 8)
    summed = sum(block[:148]) + sum(block[156:]) + 8 * 32
    if stated == summed:
        return True
    return stated == summed - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)


def detect(head: bytes, name: str) -> str:
    """Say what the first 512 bytes of the file `name` are: "tar", "gzip", "bzip2", "xz" or "zstd".

    Raises ArchiveError, which says what it looks like instead.
    """
    if not head:
        raise ArchiveError(f"{name} is an empty file, not an archive")
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if _skippable(head):  # zstd's frames without content may come first
        return "zstd"
    if checksum_is_right(head[:BLOCK]):
        return "tar"
    raise ArchiveError(
        f"{name} isn't a tar archive{_likeness(head)}",
        "an image is a tar archive of a root filesystem, plain or compressed with gzip, bzip2, xz or zstd",
    )


def _skippable(head: bytes) -> bool:
    return len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"


def _likeness(head: bytes) -> str:
    if head[257:262] == b"ustar":
        return ": its first header is damaged or cut short"
    if not head.strip(b"\0"):
        return ": it begins with zeros only"
    for offset, magic, what in _STRANGERS:
        if head[offset : offset + len(magic)] == magic:
            return f": it looks like {what}"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in head):
        return ": it looks like text"
    return ""


def decompress(kind: str, chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Yield what the compressed chunks of the file `name` hold, at most `PIECE` bytes at a time.

    kind: as `detect` said. Members that follow each other count as one, zeros after the last are passed over, and
    other bytes there too, as gzip does. Raises ArchiveError when it is damaged, cut short, or needs too much memory.
    """
    if kind == "tar":
        yield from chunks
        return
    source = iter(chunks)
    data = b""
    first = True
    while first or _continues(kind, data):
        decompressor = _open(kind)
        first = False
        while not decompressor.eof:
            if decompressor.needs_input and not data:
                data = next(source, b"")
                if not data:
                    raise ArchiveError(f"{name} is cut short: its {kind} data ends too early")
            piece = _advance(decompressor, data, kind, name)
            data = b""
            if piece:
                yield piece
        data = decompressor.unused_data
        while len(data := data.lstrip(b"\0")) < 6:  # enough to see what follows
            more = next(source, b"")
            if not more:
                break
            data += more
    for _rest in source:  # read on, so that the digest of the file covers all of it
        pass


def _advance(decompressor: Decompressor, data: bytes, kind: str, name: str) -> bytes:
    try:
        return decompressor.decompress(data, PIECE)
    except MemoryError:
        raise ArchiveError(f"{name} can't be decompressed: it needs too much memory") from None
    except Exception as error:  # each library has its own kind, with no common parent
        reason = str(error)
        if "emory" in reason or "window" in reason:
            raise ArchiveError(f"{name} can't be decompressed within {_XZ_MEMORY >> 20} MiB of memory") from None
        raise ArchiveError(f"{name} is damaged: {kind}: {reason}") from None


def _continues(kind: str, data: bytes) -> bool:
    magic = next(magic for magic, its in _MAGICS if its == kind)
    return data.startswith(magic) or (kind == "zstd" and _skippable(data))


def _open(kind: str) -> Decompressor:
    if kind == "gzip":
        try:
            from isal import igzip_lib  # twice as fast as zlib
        except ImportError:
            return GzipByZlib()
        made: Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return made
    if kind == "bzip2":
        from bz2 import BZ2Decompressor

        return BZ2Decompressor()
    if kind == "xz":
        from lzma import FORMAT_XZ, LZMADecompressor

        return LZMADecompressor(FORMAT_XZ, memlimit=_XZ_MEMORY)
    return _open_zstd()


def _open_zstd() -> Decompressor:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise UnsupportedError("zstd can't be read here", "install the Python package backports.zstd") from None
    # 2^27 bytes of window: what the zstd command accepts without --long
    made: Decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})
    return made


class GzipByZlib:
    """One member of a gzip file, undone by Python's own zlib, with the interface that the other libraries share."""

    __slots__ = ("_full", "_inner")

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(wbits=31)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._full  # as much as was asked for came out, so there may be more within

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Up to `max_length` bytes of what `data`, and what was left of earlier data, holds."""
        made = self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))
        self._full = bool(self._inner.unconsumed_tail) or len(made) == max_length
        return made
