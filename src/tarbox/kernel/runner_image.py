"""The bytes of the runner: a static program of some 700 bytes, followed by a table of system calls and their data.

    ELF header   64 + 56 bytes: one segment, the whole file, readable and executable, at a fixed address
    code         `CODE`, the assembled runner-x86_64.S or runner-aarch64.S
    header       errors, init                             8 bytes each, little-endian as all numbers here
    rows         number, six arguments, flags             8 bytes each
    end          a row whose number is -1
    data         what rows point at

    gcc -nostdlib -static runner-x86_64.S       makes a program of the same code, without a table

man 5 elf, man 2 syscall
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..plan.step import Filter, Row
from .syscall import MACHINE, number

# `as` makes these from the assembly beside this file; a test compares them.
CODE = {
    "x86_64": bytes.fromhex(
        """
        4889e5488b45004c8d6cc5104c8d35f5010000498d5e104531e4488b034885c07831488b7b08488b7310488b53184c8b53204c8b
        43284c8b4b300f05483d01f0ffff7206f643380174224883c34041ffc4ebc741807e08007548b83b000000488b7d08488d75104c
        89ea0f0548f7d8504154b801000000498b3e4889e6ba100000000f05bf7e00000048837c240802750848833b007902ffc7b8e700
        00000f050f0b4881eca000000048c70424ffffffff48c744240800000000b80e000000bf020000004889e631d241ba080000000f
        054885c07896b87c00000031ff0f054989c7b8270000000f054929c7b838000000bf1100000031f631d24531d24531c00f054885
        c00f8861ffffff0f84a70000004889c3b803000000498b3e0f05b8800000004889e7488d74242031d241ba080000000f0541bc01
        0000004883f811742b4883f8fc74d74885c079054531e4eb1b4d85ff7407837c2428007fc14889c6b83e0000004889df0f05ebb2
        b83d00000048c7c7ffffffff488d7424104c89e24531d20f054885c07494bf7e0000000f8804ffffff4839d875d28b7c241083e7
        7f740b81c780000000e9ebfeffff0fb67c2411e9e1feffff4d85ff7529b86d00000031ff31f60f05b8270000000f0589442410b8
        1000000031ffbe10540000488d5424100f05b80e000000bf02000000488d74240831d241ba080000000f05e956feffff0f1f4000
        """
    ),
    "aarch64": bytes.fromhex(
        """
        f3030091600240f9740e008b9442009155100010b6420091170080d2c80240f98801f8b7c08640a9c28e41a9c49642a9010000d4
        1ffc3fb163000054c11e40f961010036d6020191f7060091f4ffff17a00640f9c00200b5600640f961420091e20314aaa81b80d2
        010000d4f80300cbf763bfa9a00240f9e1030091020280d2080880d2010000d4c00f80d21f0b00f181000054c10240f94100f8b6
        e00f80d2c80b80d2010000d400000000ff8302d100008092e07f00a9400080d2e1030091020080d2030180d2e81080d2010000d4
        e0fcffb7000080d2881380d2010000d4f90300aa881580d2010000d4390300cb200280d2010080d2020080d2030080d2040080d2
        881b80d2010000d400fbffb7c00500b4f80300aaa00240f9280780d2010000d4e0030091e1830091020080d2030180d2281180d2
        010000d4370080d21f4400f1e00100541f1000b1c0feff546000f8b6170080d20a000014990000b4e12b40b93f000071ecfdff54
        e10300aae00318aa281080d2010000d4eaffff1700008092e1430091e20317aa030080d2882080d2010000d460fcffb4e10300aa
        c00f80d2e1f7ffb73f0018eba1feff54e11340b9203c08532118007220f7ff5420000211b7ffff17b90100b5000080d2010080d2
        481380d2010000d4881580d2010000d4e01300b9000080d201828ad2e2430091a80380d2010000d4400080d2e1230091020080d2
        030180d2e81080d2010000d491ffff17
        """
    ),
}
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
_ADDRESS = 0x400000  # of the first byte of the file
_HEADERS = 64 + 56
_MASK = (1 << 64) - 1
_ROW = 64
_OPTIONAL = 1

_F_GETFD = 1


def image(rows: list[Row], errors: int, init: bool = False) -> bytes:
    """The program that makes the system calls of `rows` and then executes its arguments; see `runner.enter`.

    errors: the number of the descriptor for the report. init: whether it stays as process 1. Raises UnsupportedError
    for another processor, by name.
    """
    code = CODE.get(MACHINE)
    if code is None:
        raise UnsupportedError(f"there is no runner for the processor {MACHINE}", "tarbox runs on x86_64 and aarch64")
    # The first row fails when the runner is executed a second time, as the interpreter of a program that begins with
    # `#!/proc/self/exe`: the program's execve has closed `errors` by then.
    rows = [Row("fcntl", (errors, _F_GETFD)), *rows]
    at = _ADDRESS + _HEADERS + len(code) + 16 + _ROW * (len(rows) + 1)  # where the next piece of data goes
    table = [_word(errors), _word(init)]
    data: list[bytes] = []
    for row in rows:
        table.append(_word(number(row.name)))
        for argument in row.arguments:
            if isinstance(argument, int):
                table.append(_word(argument))
                continue
            piece, start = _piece(argument, at)
            data.append(piece)
            at += len(piece)
            table.append(_word(start))
        table.append(bytes(8 * (6 - len(row.arguments))))
        table.append(_word(row.optional and _OPTIONAL))
    table.append(_word(-1) + bytes(_ROW - 8))
    return _elf(at - _ADDRESS) + code + b"".join(table) + b"".join(data)


def read_report(report: bytes) -> tuple[int, int] | None:
    """What the runner wrote to `errors`: (index of the row that failed, errno); None where it wrote nothing.

    The caller's first row has index 0, and the final execve the number of the caller's rows.
    """
    if len(report) != 16:
        return None
    return int.from_bytes(report[:8], "little") - 1, int.from_bytes(report[8:], "little")


def _word(value: int) -> bytes:
    return (value & _MASK).to_bytes(8, "little")


def _piece(argument: bytes, at: int) -> tuple[bytes, int]:
    """An argument as bytes at the address `at`, padded to a multiple of 8, and the address to pass."""
    padded = bytes(argument) + bytes(8 - len(argument) % 8)  # always at least one zero
    if not isinstance(argument, Filter):
        return padded, at
    program = (len(argument) // 8).to_bytes(8, "little") + _word(at)  # struct sock_fprog: length, pointer
    return padded + program, at + len(padded)


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
