"""The tar format, read once from front to back: headers become entries, and each entry's data can be read after it.

    tar -tvf ARCHIVE

It reads what has been written by GNU tar, BSD tar, Docker, Go, Python and old Unixes: v7, ustar, PAX (with GNU's three
kinds of sparse files and SCHILY's extended attributes), GNU long names, old GNU sparse files, numbers in base 256.
Python's own tarfile does too, ten times slower than GNU tar, and with filters that refuse real systems.

What is in an archive is a stranger's word: every size, count and number is checked before it is used, and memory
stays bounded whatever the headers say. Names are bytes, and are judged where they are used.

man 5 tar, POSIX pax ("ustar Interchange Format", "pax Header"), GNU tar manual ("Basic Tar Format", "Sparse Formats")
"""

from __future__ import annotations

from ..errors import ArchiveError
from .compression import BLOCK, checksum_is_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    "file", "hard link", "symlink", "character device", "block device", "directory", "fifo",
)  # fmt: skip

LONGEST_NAME = 4096  # bytes of a path or a link's target: PATH_MAX
LARGEST_HEADER = 1 << 20  # bytes of one PAX header, of a long name, and of all global PAX records together
MOST_SPARSE = 1 << 18  # parts of one sparse file
LARGEST_SIZE = (1 << 63) - 1
LARGEST_OWNER = (1 << 32) - 2  # the last number means "no change" to chown(2)
LATEST_TIME = 1 << 40  # seconds either side of 1970

_ZEROS = bytes(BLOCK)
_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"S": FILE, b"1": HARD_LINK, b"2": SYMLINK, b"3": CHARACTER,
    b"4": BLOCK_DEVICE, b"5": DIRECTORY, b"D": DIRECTORY, b"6": FIFO,
}  # fmt: skip
_WITH_DATA = (b"0", b"\0", b"7", b"S", b"D")


class Entry:
    """One file of an archive, as its headers tell it.

    name, link: bytes as stored. mode: permission bits. mtime: nanoseconds since 1970. size: bytes of the file.
    sparse: (offset, length) of the parts that have data, None for a file without holes. device: (major, minor).
    """

    __slots__ = ("device", "gid", "kind", "link", "mode", "mtime", "name", "size", "sparse", "uid", "xattrs")

    def __init__(self, name: bytes, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.mtime = 0
        self.size = 0
        self.link = b""
        self.device = (0, 0)
        self.xattrs: dict[bytes, bytes] = {}
        self.sparse: list[tuple[int, int]] | None = None

    @property
    def shown(self) -> str:
        """Its name for people: one line, not too long."""
        text = ascii(self.name.decode("utf-8", "replace"))[1:-1]
        return text if len(text) <= 120 else text[:117] + "..."


class Archive:
    """The entries of a tar archive whose bytes come in chunks.

    chunks: the uncompressed archive. name: what to call it in messages. marked: whether it must end with the two zero
    blocks; without them nobody can tell a plain archive from one that was cut between two files.
    Iterating gives the entries; `pieces` the data of the last one. `warnings` counts what was passed over, by its name.
    """

    __slots__ = ("_chunks", "_left", "_padding", "_position", "_view", "marked", "name", "warnings")

    def __init__(self, chunks: Iterable[bytes], name: str, marked: bool = True) -> None:
        self._chunks = iter(chunks)
        self._view = memoryview(b"")
        self._position = 0
        self._left = 0  # bytes of the last entry's data that nobody has read
        self._padding = 0
        self.name = name
        self.marked = marked
        self.warnings: dict[str, int] = {}

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in their order; raises ArchiveError when it is damaged or cut short."""
        shared: dict[bytes, bytes] = {}  # of global PAX headers
        own: list[tuple[bytes, bytes]] = []  # of the next entry's PAX header
        long_name = long_link = None
        while (block := self._header()) is not None:
            kind = block[156:157]
            if kind in b"xgXLK":
                content = self._meta(block)
                if kind == b"L":
                    long_name = content.split(b"\0", 1)[0]
                elif kind == b"K":
                    long_link = content.split(b"\0", 1)[0]
                elif kind == b"g":
                    shared.update(pax_records(content))
                    if sum(len(key) + len(value) for key, value in shared.items()) > LARGEST_HEADER:
                        raise ArchiveError(f"{self.name}: its global PAX headers are too large")
                else:
                    own = pax_records(content)
                continue
            if kind not in _KINDS:
                self._pass_over(block, own)
            else:
                records = [*shared.items(), *own] if shared else own
                yield self._entry(block, records, long_name, long_link)
            own, long_name, long_link = [], None, None

    def pieces(self, length: int) -> Iterator[memoryview]:
        """Yield the next `length` bytes of the last entry's data, in pieces that aren't copied."""
        if length > self._left:
            raise ValueError("more data than the entry has")
        self._left -= length
        while length:
            if self._position == len(self._view):
                self._refill()
            piece = self._view[self._position : self._position + length]
            self._position += len(piece)
            length -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read what follows the last entry to its end, so that the digest covers it and a cut shows."""
        for _chunk in self._chunks:
            pass

    # The bytes

    def _refill(self) -> None:
        for chunk in self._chunks:
            if chunk:
                self._view = memoryview(chunk)
                self._position = 0
                return
        raise ArchiveError(f"{self.name} is cut short")

    def _take(self, length: int) -> bytes:
        end = self._position + length
        if end <= len(self._view):
            taken = bytes(self._view[self._position : end])
            self._position = end
            return taken
        self._left += length
        return b"".join(self.pieces(length))

    def _skip(self, length: int) -> None:
        end = self._position + length
        if end <= len(self._view):
            self._position = end
            return
        self._left += length
        for _piece in self.pieces(length):
            pass

    def _at_end(self) -> bool:
        if self._position < len(self._view):
            return False
        for chunk in self._chunks:
            if chunk:
                self._view = memoryview(chunk)
                self._position = 0
                return False
        return True

    # The headers

    def _header(self) -> bytes | None:
        """The next header block, checked; None at the end of the archive."""
        if self._left or self._padding:
            left, padding = self._left, self._padding
            self._left = self._padding = 0
            self._skip(left + padding)
        zeros = 0
        while not self._at_end():
            block = self._take(BLOCK)
            if block != _ZEROS:
                break
            zeros += 1
            if zeros == 2:
                return None
        else:
            if self.marked and not zeros:
                raise ArchiveError(f"{self.name} is cut short: it ends without the mark of an archive's end")
            return None
        if zeros:
            self._warn("a lone block of zeros")
        if not checksum_is_right(block):
            raise ArchiveError(f"{self.name} is damaged: a header's checksum is wrong")
        return block

    def _meta(self, block: bytes) -> bytes:
        size = self._number(block[124:136], "a header's size")
        if size > LARGEST_HEADER:
            raise ArchiveError(f"{self.name}: a header of {size} bytes is larger than any honest one")
        content = self._take(size)
        self._skip(-size % BLOCK)
        return content

    def _pass_over(self, block: bytes, records: list[tuple[bytes, bytes]]) -> None:
        kind = block[156:157]
        if kind == b"M":
            raise ArchiveError(f"{self.name} is one volume of several", "join them first")
        size = self._number(block[124:136], "a size")
        for key, value in records:
            if key == b"size":
                size = _decimal(value, LARGEST_SIZE)
        self._begin(size)
        if kind != b"V":  # a volume's label is no file, and no loss
            self._warn(f"an entry of the unknown type {kind.decode('latin-1')!a}")

    def _warn(self, text: str) -> None:
        if text in self.warnings or len(self.warnings) < 50:
            self.warnings[text] = self.warnings.get(text, 0) + 1

    def _begin(self, stored: int) -> None:
        self._left = stored
        self._padding = -stored % BLOCK

    def _number(self, field: bytes, what: str, most: int = LARGEST_SIZE) -> int:
        try:
            value = number(field)
        except ValueError:
            value = -1
        if not 0 <= value <= most:
            raise ArchiveError(f"{self.name} is damaged: {what} can't be {ascii(field)[2:-1]}")
        return value

    def _entry(
        self, block: bytes, records: list[tuple[bytes, bytes]], long_name: bytes | None, long_link: bytes | None
    ) -> Entry:
        kind = block[156:157]
        name = block[:100].split(b"\0", 1)[0]
        posix = block[257:263] == b"ustar\0"
        if posix and block[345]:
            name = block[345:500].split(b"\0", 1)[0] + b"/" + name
        if long_name is not None:
            name = long_name
        entry = Entry(name, _KINDS[kind])
        link = block[157:257]
        entry.link = (link.split(b"\0", 1)[0] if link[0] else b"") if long_link is None else long_link
        entry.mode = self._number(block[100:108], "a mode") & 0o7777
        # An owner too large for its field is in the PAX header, and the field then holds anything.
        keys = {key for key, _value in records} if records else ()
        if b"uid" not in keys:
            entry.uid = self._number(block[108:116], "an owner", LARGEST_OWNER)
        if b"gid" not in keys:
            entry.gid = self._number(block[116:124], "a group", LARGEST_OWNER)
        entry.size = self._number(block[124:136], "a size") if b"size" not in keys else 0
        entry.mtime = self._time(block[136:148]) if b"mtime" not in keys else 0
        if entry.kind in (CHARACTER, BLOCK_DEVICE):
            entry.device = (
                self._number(block[329:337], "a device's number", 0xFFF),
                self._number(block[337:345], "a device's number", 0xFFFFF),
            )
        sparse = _Sparse()
        try:
            for key, value in records:
                _apply(entry, sparse, key, value)
            self._finish(entry, sparse, block)
        except ValueError as error:
            raise ArchiveError(f"{self.name}: the header of {entry.shown} is damaged: {error}") from None
        return entry

    def _time(self, field: bytes) -> int:
        try:
            seconds = number(field)
        except ValueError:
            seconds = LATEST_TIME + 1
        if abs(seconds) > LATEST_TIME:
            raise ArchiveError(f"{self.name} is damaged: a time can't be {ascii(field)[2:-1]}")
        return seconds * 1_000_000_000

    def _finish(self, entry: Entry, sparse: _Sparse, block: bytes) -> None:
        kind = block[156:157]
        # A link, a device or a directory has no data, whatever its size says; readers that disagree about this read
        # different files out of one archive.
        self._begin(entry.size if kind in _WITH_DATA else 0)
        if entry.kind == FILE and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY  # how old tars wrote them
        if entry.kind != FILE:
            entry.size = 0
            return
        if kind == b"S":
            sparse.parts, sparse.size = self._old_sparse(block)
        elif sparse.major == 1:
            sparse.parts = self._sparse_in_data()
        if sparse.parts is not None:
            entry.size = _check_sparse(sparse, self._left)
            entry.sparse = sparse.parts

    # Sparse files

    def _old_sparse(self, block: bytes) -> tuple[list[tuple[int, int]], int]:
        """The parts and the real size of a sparse file as GNU tar wrote them before PAX, with their further headers."""
        size = number(block[483:495])
        parts: list[tuple[int, int]] = []
        fields, more = block[386:482], block[482]
        while True:
            for start in range(0, len(fields), 24):
                field = fields[start : start + 24]
                if not field[12]:
                    break
                parts.append((number(field[:12]), number(field[12:])))
            if len(parts) > MOST_SPARSE:
                raise ValueError("too many parts")
            if not more:
                return parts, size
            left, padding = self._left, self._padding
            self._left = self._padding = 0
            block = self._take(BLOCK)
            self._left, self._padding = left, padding
            fields, more = block[:504], block[504]

    def _sparse_in_data(self) -> list[tuple[int, int]]:
        """The parts of a sparse file of PAX form 1.0: decimal lines in front of its data, filled up to a block."""
        lines: list[bytes] = []
        wanted = 1
        rest = b""
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise ValueError("its list of parts is cut short")
            self._left -= BLOCK
            left, self._left = self._left, 0
            rest += self._take(BLOCK)
            self._left = left
            *complete, rest = rest.split(b"\n")
            lines += complete
            if wanted == 1 and lines:
                wanted = 1 + 2 * _decimal(lines[0], MOST_SPARSE)
            if len(lines) < wanted and len(rest) > 20:
                raise ValueError("a number that is too long")
        numbers = [_decimal(line, LARGEST_SIZE) for line in lines[1:wanted]]
        return list(zip(numbers[::2], numbers[1::2], strict=True))


class _Sparse:
    """What PAX records say of an entry's holes."""

    __slots__ = ("major", "parts", "pending", "size")

    def __init__(self) -> None:
        self.major = 0
        self.size = -1
        self.parts: list[tuple[int, int]] | None = None
        self.pending = -1


def number(field: bytes) -> int:
    """The value of a header's number: octal digits, or base 256 with the first bit set; raises ValueError."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    if not text.isdigit():  # int() would take signs and underscores
        raise ValueError("not a number")
    return int(text, 8)


def pax_records(content: bytes) -> list[tuple[bytes, bytes]]:
    """The records of a PAX header, "LENGTH KEY=VALUE\\n" each, in their order; raises ArchiveError."""
    records = []
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 8)
        digits = content[position:space] if space > 0 else b""
        if not digits.isdigit():
            if not content[position:].strip(b"\0"):
                break  # filled up with zeros
            raise ArchiveError("a PAX header is damaged: a record has no length")
        end = position + int(digits)
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if end > len(content) or end <= space + 2 or not key or not equals or content[end - 1] != 10:
            raise ArchiveError("a PAX header is damaged: a record's length is wrong")
        records.append((key, value))
        position = end
    return records


def _decimal(text: bytes, most: int) -> int:
    if not text.isdigit() or len(text) > 20 or int(text) > most:
        raise ValueError(f"{ascii(text)[2:42]} isn't a number that it can have")
    return int(text)


def _decimal_time(text: bytes) -> int:
    negative = text.startswith(b"-")
    whole, _point, fraction = (text[1:] if negative else text).partition(b".")
    if fraction and not fraction.isdigit():
        raise ValueError("its time is no number")
    value = _decimal(whole, LATEST_TIME) * 1_000_000_000 + int((fraction[:9] or b"0").ljust(9, b"0"))
    return -value if negative else value


def _set_parts(entry: Entry, sparse: _Sparse, value: bytes) -> None:
    numbers = [_decimal(text, LARGEST_SIZE) for text in value.split(b",")] if value else []
    if len(numbers) % 2:
        raise ValueError("half a part in its list of parts")
    sparse.parts = list(zip(numbers[::2], numbers[1::2], strict=True))


def _add_length(entry: Entry, sparse: _Sparse, value: bytes) -> None:
    if sparse.pending < 0:
        raise ValueError("a part without a place")
    sparse.parts = [] if sparse.parts is None else sparse.parts
    sparse.parts.append((sparse.pending, _decimal(value, LARGEST_SIZE)))
    sparse.pending = -1


def _setter(name: str, most: int) -> Callable[[Entry, _Sparse, bytes], None]:
    return lambda entry, _sparse, value: setattr(entry, name, _decimal(value, most) if value else 0)


def _sparse_setter(name: str) -> Callable[[Entry, _Sparse, bytes], None]:
    return lambda _entry, sparse, value: setattr(sparse, name, _decimal(value, LARGEST_SIZE))


_RECORDS: dict[bytes, Callable[[Entry, _Sparse, bytes], None]] = {
    b"path": lambda entry, _sparse, value: setattr(entry, "name", value),
    b"linkpath": lambda entry, _sparse, value: setattr(entry, "link", value),
    b"size": _setter("size", LARGEST_SIZE),
    b"uid": _setter("uid", LARGEST_OWNER),
    b"gid": _setter("gid", LARGEST_OWNER),
    b"mtime": lambda entry, _sparse, value: setattr(entry, "mtime", _decimal_time(value) if value else 0),
    b"GNU.sparse.major": _sparse_setter("major"),
    b"GNU.sparse.realsize": _sparse_setter("size"),
    b"GNU.sparse.size": _sparse_setter("size"),
    b"GNU.sparse.offset": _sparse_setter("pending"),
    b"GNU.sparse.numbytes": _add_length,
    b"GNU.sparse.map": _set_parts,
}


def _apply(entry: Entry, sparse: _Sparse, key: bytes, value: bytes) -> None:
    setter = _RECORDS.get(key)
    if setter is not None:
        setter(entry, sparse, value)
    elif key == b"GNU.sparse.name":
        entry.name = value
    elif key.startswith(b"SCHILY.xattr."):
        entry.xattrs[key[13:]] = value


def _check_sparse(sparse: _Sparse, stored: int) -> int:
    """The size of a sparse file; raises ValueError unless its parts are in order, apart, within, and all there."""
    parts, size = sparse.parts or [], sparse.size
    if not 0 <= size <= LARGEST_SIZE or len(parts) > MOST_SPARSE:
        raise ValueError("its size with holes is missing or out of bounds")
    end = total = 0
    for offset, length in parts:
        if offset < end or length < 0 or offset + length > size:
            raise ValueError("its parts overlap, are out of order, or lie outside of it")
        end = offset + length
        total += length
    if total != stored:
        raise ValueError("its parts and its data differ in size")
    return size
