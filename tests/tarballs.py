"""Archives made header by header, also ones that no tar would write, and trees compared file by file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

BLOCK = 512
END = bytes(2 * BLOCK)


def header(
    name: bytes | str = b"file", kind: bytes = b"0", size: int = 0, link: bytes | str = b"", mode: int = 0o644,
    uid: int = 0, gid: int = 0, mtime: int = 1_600_000_000, device: tuple[int, int] = (0, 0),
    magic: bytes = b"ustar\x0000", fields: dict[int, bytes] | None = None,
) -> bytes:  # fmt: skip
    """One header with the right checksum. fields: bytes that are put at an offset, whatever belongs there."""
    block = bytearray(BLOCK)

    def put(offset: int, value: bytes) -> None:
        block[offset : offset + len(value)] = value

    put(0, _bytes(name)[:100])
    put(100, b"%07o\0" % mode)
    put(108, b"%07o\0" % uid)
    put(116, b"%07o\0" % gid)
    put(124, b"%011o\0" % size)
    put(136, b"%011o\0" % mtime)
    put(156, kind)
    put(157, _bytes(link)[:100])
    put(257, magic)
    if magic:
        put(329, b"%07o\0" % device[0])
        put(337, b"%07o\0" % device[1])
    for offset, value in (fields or {}).items():
        put(offset, value)
    put(148, b" " * 8)
    put(148, b"%06o\0 " % sum(block))
    return bytes(block)


def padded(data: bytes) -> bytes:
    """The data, filled up to a block."""
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes | str, data: bytes = b"", **fields: object) -> bytes:
    """A header and its data."""
    return header(name, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]


def pax(records: list[tuple[str | bytes, str | bytes]], kind: bytes = b"x") -> bytes:
    """A PAX header with these records."""
    content = b""
    for key, value in records:
        body = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
        length = len(body) + 1
        while length != len(body) + len(str(length)):
            length = len(body) + len(str(length))
        content += str(length).encode() + body
    return header("pax", kind, len(content)) + padded(content)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU tar's header for a name of more than 100 bytes; `kind` K for a link's target."""
    return header("././@LongLink", kind, len(name) + 1) + padded(name + b"\0")


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def facts(tree: Path | str) -> dict[bytes, tuple[object, ...]]:
    """All that matters of each file below `tree`: two trees with equal facts are the same system.

    Hard links are told by the first of their names; contents by bytes; times to the nanosecond.
    """
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(tree)
    for folder, folders, files in os.walk(top):
        for name in [b".", *sorted(files), *sorted(n for n in folders if os.path.islink(os.path.join(folder, n)))]:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = _facts(path)
    links: dict[int, list[bytes]] = {}
    for path in found:
        status = os.lstat(os.path.join(top, path))
        if not stat.S_ISDIR(status.st_mode):
            links.setdefault(status.st_ino, []).append(path)
    for group in links.values():
        for path in group:
            found[path] = (*found[path], min(group))
    return found


def _facts(path: bytes) -> tuple[object, ...]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    content: bytes = b""
    if kind == stat.S_IFREG:
        content = Path(os.fsdecode(path)).read_bytes()
    elif kind == stat.S_IFLNK:
        content = os.readlink(path)
    xattrs = tuple(sorted((name, os.getxattr(path, name, follow_symlinks=False))
                          for name in os.listxattr(path, follow_symlinks=False)))  # fmt: skip
    size = 0 if kind == stat.S_IFDIR else status.st_size
    special = status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    mode = stat.S_IMODE(status.st_mode)
    return (oct(kind), oct(mode), status.st_uid, status.st_gid, size, status.st_mtime_ns, special, xattrs, content)
