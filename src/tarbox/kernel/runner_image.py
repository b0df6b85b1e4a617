"""The bytes of the runner: a static program of some 600 bytes, followed by a table of system calls and their data.

    ELF header   64 + 56 bytes: one segment, the whole file, readable and executable, at a fixed address
    code         `CODE`, the assembled runner-x86_64.S or runner-aarch64.S
    header       errors                                   8 bytes, little-endian as all numbers here
    rows         number, six arguments, what follows      8 bytes each; runner-x86_64.S says what follows
    end          a row whose number is -1
    data         what rows point at

    gcc -nostdlib -static runner-x86_64.S       makes a program of the same code, without a table

man 5 elf, man 2 syscall
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..plan.step import ANY, Filter, Passing, Register, Row
from .syscall import MACHINE, number

# `as` makes these from the assembly beside this file; a test compares them.
CODE = {
    "x86_64": bytes.fromhex(
        """
        488b0c24488d442408488d54c8084881ec000200004889e548894500488955084c8d3521020000498d5e084531e40fb6533801d2
        b906000000488b04cb0fa3ca7305488b44c50050ffc975ed5f5e5a415a41584159488b034885c078690f05483d01f0ffff731c0f
        b64b39e305488944cd000fb64b3affc14101ccc1e1064801cbebab48f7d84889c28b433c0fb6cc0fb6f039f274e081feff000000
        74d8c1e81075e9524154b801000000498b3e4889e6ba100000000f05bf7e000000b8e70000000f050f0b48ffc074ed4881eca000
        000048c70424ffffffff48c744240800000000b80e000000bf020000004889e631d241ba080000000f054885c07884b87c000000
        31ff0f054989c7b8270000000f054929c7b838000000bf1100000031f631d24531d24531c00f054885c00f884fffffff0f84ba00
        00004889c3b8b4010000bf03000000beffffffff31d20f05b803000000498b3e0f05b8800000004889e7488d74242031d241ba08
        0000000f0541bc010000004883f811742b4883f8fc74d74885c079054531e4eb1b4d85ff7407837c2428007fc14889c6b83e0000
        004889df0f05ebb2b83d00000048c7c7ffffffff488d7424104c89e24531d20f054885c07494bf7e0000000f88ecfeffff4839d8
        75d28b7c241083e77f740b81c780000000e9d3feffff0fb67c2411e9c9feffff4d85ff7529b86d00000031ff31f60f05b8270000
        000f0589442410b81000000031ffbe10540000488d5424100f05b80e000000bf02000000488d74240831d241ba080000000f0531
        c9e934feffff660f1f440000
        """
    ),
    "aarch64": bytes.fromhex(
        """
        e00340f9e1230091220c008b42200091ff0308d1f3030091610a00a9ffc300d195120010b6220091170080d2c9e2403929791f53
        ca0080d2cb7a6af82c25ca1a4c0000366b7a6bf84a0500d1eb7b2af84affffb5e00740a9e20f41a9e41742a9c80240f90804f8b7
        010000d41ffc3fb122010054c1e6403941000034607a21f8c1ea403921040091f702018bd61a018be7ffff17f80300cbc03e40b9
        013c0853021c00125f00186be0feff545ffc0371a0feff54007c105320ffff35f763bfa9a00240f9e1030091020280d2080880d2
        010000d4c00f80d2c80b80d2010000d400000000080500b160ffff54ff8302d100008092e07f00a9400080d2e1030091020080d2
        030180d2e81080d2010000d420fcffb7000080d2881380d2010000d4f90300aa881580d2010000d4390300cb200280d2010080d2
        020080d2030080d2040080d2881b80d2010000d440faffb7600600b4f80300aa600080d201008012020080d2883680d2010000d4
        a00240f9280780d2010000d4e0030091e1830091020080d2030180d2281180d2010000d4370080d21f4400f1e00100541f1000b1
        c0feff546000f8b6170080d20a000014990000b4e12b40b93f000071ecfdff54e10300aae00318aa281080d2010000d4eaffff17
        00008092e1430091e20317aa030080d2882080d2010000d460fcffb4e10300aac00f80d201f7ffb73f0018eba1feff54e11340b9
        203c08532118007240f6ff5420000211b0ffff17b90100b5000080d2010080d2481380d2010000d4881580d2010000d4e01300b9
        000080d201828ad2e2430091a80380d2010000d4400080d2e1230091020080d2030180d2e81080d2010000d4010080d286ffff17
        """
    ),
}
# The same of spawn-x86_64.S and spawn-aarch64.S, for `runner.spawn`.
SPAWN = {
    "x86_64": bytes.fromhex(
        """
        4989d1b8b30100000f054885c07401c30fba271c7337488d3da3000000488d7708b87e0000000f054885c0787f31d24531d24531
        c0bf2f000000be02000000b89d0000000f05ffc24885c079e8bf03000000beffffffffba04000000b8b40100000f054885c07844
        498d5920488b3b4885ff7819be0200000031d2b8480000000f054883c3084885c079e1eb1f498b39488d352d000000498b51084d
        8b511041b800100000b8420100000f0549894118bf7f000000b83c0000000f050f1f40002205082000000000ffffffffffffffff
        ffffffffffffffffffffffffffffffff
        """
    ),
    "aarch64": bytes.fromhex(
        """
        e90302aaea0300aa683680d2010000d4400000b4c0035fd6400140f9e001e0360005001001200091680b80d2010000d4e003f8b7
        020080d2030080d2040080d2e00580d2410080d2e81480d2010000d44204009160ffffb6600080d201008012820080d2883680d2
        010000d40002f8b733810091608640f8e000f8b7410080d2020080d2280380d2010000d440ffffb607000014200140f961010010
        228d40a9040082d2282380d2010000d4200d00f9e00f80d2a80b80d2010000d41f2003d52205082000000000ffffffffffffffff
        ffffffffffffffffffffffffffffffff
        """
    ),
}
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
_ADDRESS = 0x400000  # of the first byte of the file
_HEADERS = 64 + 56
_ROW = 64
_END, _INIT = (1 << 64) - 1, (1 << 64) - 2
_REGISTERS = 64
_MASK = (1 << 64) - 1

_F_GETFD = 1
_ENDS = [bytes(8 - size) for size in range(8)]  # at least one zero, up to a multiple of 8


def image(rows: list[Row], errors: int) -> bytes:
    """The program that makes the system calls of `rows`, of which the last to be reached executes another program.

    errors: the number of the descriptor for the report. Raises UnsupportedError for another processor, by name, and
    ValueError for a row that can't be meant.
    """
    code = CODE.get(MACHINE)
    if code is None:
        raise UnsupportedError(f"there is no runner for the processor {MACHINE}", "tarbox runs on x86_64 and aarch64")
    left = len(rows)
    table = bytearray(8 + _ROW * (left + 2))
    words = memoryview(table).cast("Q")
    # The first row fails when the runner is executed a second time, as the interpreter of a program that begins with
    # `#!/proc/self/exe`: the program's execve has closed `errors` by then.
    words[0], words[1], words[2], words[3] = errors, number("fcntl"), errors, _F_GETFD
    at = _ADDRESS + _HEADERS + len(code) + len(table)  # where the next piece of data goes
    data: list[bytes] = []
    places: dict[bytes, int] = {}  # of what is in the data: paths come up again and again
    afters: dict[object, tuple[int, int]] = {}
    here = 9  # the word at which the next row begins
    for row in rows:
        left -= 1
        words[here] = _INIT if row.name == "init" else number(row.name)
        if len(row.arguments) > 6:
            raise ValueError(f"{row!r} has more than six arguments")
        last, word = 0, here
        for argument in row.arguments:
            word += 1
            kind = type(argument)
            if kind is int:
                words[word] = argument & _MASK  # type: ignore[operator]
            elif kind is bytes:
                place = places.get(argument)  # type: ignore[arg-type]
                if place is None:
                    place = places[argument] = at  # type: ignore[index]
                    data.append(argument + _ENDS[len(argument) & 7])  # type: ignore[operator,arg-type]
                    at += len(data[-1])
                words[word] = place
            elif kind is Register:
                words[word] = _checked(argument.number, row)  # type: ignore[union-attr]
                last |= 1 << word - here - 1
            elif kind is Filter:
                piece, words[word] = _program(argument, at)  # type: ignore[arg-type]
                data.append(piece)
                at += len(piece)
            elif kind is Passing:
                words[word] = at
                piece = _message(argument, at)  # type: ignore[arg-type]
                data.append(piece)
                at += len(piece)
            elif isinstance(argument, int):  # a bool
                words[word] = argument & _MASK
            else:
                raise ValueError(f"{row!r}: {argument!r} can't be an argument of a system call")
        if row.store or row.skip or row.on:
            after = (row.store, row.skip, row.on)
            found = afters.get(after)
            if found is None:
                found = afters[after] = _afterwards(row)
            last |= found[0]
            if found[1] > left:  # beyond the last row is the end of the table, where the runner leaves
                raise ValueError(f"{row!r} passes over {found[1]} rows, and {left} come after it")
        words[here + 7] = last
        here += 8
    words[here] = _END
    return b"".join([_elf(at - _ADDRESS), code, table, *data])


def read_report(report: bytes) -> tuple[int, int] | None:
    """What the runner wrote to `errors`: (index of the row that failed, errno); None where it wrote nothing.

    The caller's first row has index 0.
    """
    if len(report) != 16:
        return None
    return int.from_bytes(report[:8], "little") - 1, int.from_bytes(report[8:], "little")


def _word(value: int) -> bytes:
    return (value & _MASK).to_bytes(8, "little")


def _checked(place: int, row: Row) -> int:
    if not 0 <= place < _REGISTERS:
        raise ValueError(f"{row!r}: there is no register {place}")
    return place


def _afterwards(row: Row) -> tuple[int, int]:
    """What a row says of its result, as the last of its words, and how many rows it passes over at the most."""
    if row.store and _checked(row.store, row) < 2:
        raise ValueError(f"{row!r} would overwrite the program's arguments or its environment")
    if len(row.on) > 2:
        raise ValueError(f"{row!r} has more than two errnos to go on at")
    last = row.store << 8
    for shift, errno, skip in ((8, 0, row.skip), *((32 + 16 * at, *pair) for at, pair in enumerate(row.on))):
        if not (0 <= skip <= 255 and (0 < errno <= ANY or shift == 8)):
            raise ValueError(f"{row!r}: {errno} and {skip} don't fit into a byte each")
        last |= (errno | skip << 8) << shift
    return last, max(row.skip, *(skip for _, skip in row.on), 0)


def _program(argument: Filter, at: int) -> tuple[bytes, int]:
    """A filter as bytes at the address `at`, and the address of its `sock_fprog` (length, pointer)."""
    padded = argument + bytes(-len(argument) % 8)
    return padded + _word(len(argument) // 8) + _word(at), at + len(padded)


def _message(argument: Passing, at: int) -> bytes:
    """A `struct msghdr` at the address `at`, with what it points at: the control message, the vector, the text."""
    control, vector, text = at + 56, at + 56 + 24, at + 56 + 24 + 16
    header = [bytes(16), _word(vector), _word(1), _word(control), _word(24), bytes(8)]
    rights = [_word(16 + 4), *((number).to_bytes(4, "little") for number in (1, 1, argument.descriptor, 0))]
    size = len(argument.message)
    return b"".join([*header, *rights, _word(text), _word(size), argument.message, _ENDS[size & 7]])


def _elf(size: int) -> bytes:
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64 bits, little-endian, version 1
    fields = (
        (2, 2), (_ELF_MACHINES[MACHINE], 2), (1, 4),  # ET_EXEC
        (_ADDRESS + _HEADERS, 8), (64, 8), (0, 8),  # where it starts, the program headers, no section headers
        (0, 4), (64, 2), (56, 2), (1, 2), (0, 2), (0, 2), (0, 2),
        (1, 4), (5, 4), (0, 8), (_ADDRESS, 8), (_ADDRESS, 8),  # PT_LOAD, readable and executable, the whole file
        (size, 8), (size, 8), (0x10000, 8),
    )  # fmt: skip
    return identity + b"".join([value.to_bytes(width, "little") for value, width in fields])
