"""What a seccomp program says of a system call, without the kernel.

    bpf_dbg, seccomp-tools emu PROGRAM CALL

man 2 seccomp; the instructions are those that seccomp_compiler.py makes
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LD, _JA, _JEQ, _JGT, _JGE, _AND, _RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_ARGUMENTS = 16  # where the arguments begin in struct seccomp_data


def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    """The instructions: code, jump if true, jump if false, constant."""
    return [
        (
            int.from_bytes(program[at : at + 2], "little"),
            program[at + 2],
            program[at + 3],
            int.from_bytes(program[at + 4 : at + 8], "little"),
        )
        for at in range(0, len(program), 8)
    ]


def verdict(program: Sequence[tuple[int, int, int, int]], data: bytes) -> tuple[int, frozenset[int]]:
    """What the program returns, and the offsets of the argument words that it looked at for that.

    program: decoded. data: a `struct seccomp_data`, 64 bytes. Raises ValueError for an instruction it doesn't know.
    """
    at = accumulator = 0
    seen = set()
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == _LD:
            accumulator = int.from_bytes(data[k : k + 4], "little")
            if k >= _ARGUMENTS:
                seen.add(k)
        elif code == _RET:
            return k, frozenset(seen)
        elif code == _JGE:
            at += yes if accumulator >= k else no
        elif code == _JEQ:
            at += yes if accumulator == k else no
        elif code == _JGT:
            at += yes if accumulator > k else no
        elif code == _AND:
            accumulator &= k
        elif code == _JA:
            at += k
        else:
            raise ValueError(f"no seccomp program of ours has the instruction {code:#x}")
