"""A seccomp program run by hand: what it answers to a call, and in how many instructions."""

from __future__ import annotations

import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "x32": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
ALLOW, KILL_THREAD, KILL_PROCESS, TRAP, LOG = 0x7FFF0000, 0, 0x80000000, 0x00030000, 0x7FFC0000


def errno(number: int) -> int:
    """The action that fails a call with this errno."""
    return 0x00050000 | number


def answer(program: bytes, number: int, architecture: str, *arguments: int) -> int:
    """The action for a call with these arguments; those left out are 0."""
    return run(program, number, ARCHITECTURES[architecture], *arguments)[0]


def run(program: bytes, number: int, audit: int, *arguments: int) -> tuple[int, int]:
    """The action and the count of instructions, with the kernel's own rules checked on the way."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    at = steps = accumulator = 0
    while True:
        code, if_true, if_false, k = struct.unpack_from("<HBBI", program, at * 8)
        at, steps = at + 1, steps + 1
        if code == 0x20:  # load a word
            assert k % 4 == 0
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif code == 0x05:
            at += k
        elif code in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
            at += if_true if holds else if_false
        elif code == 0x54:
            accumulator &= k
        else:
            assert code == 0x06, f"the compiler doesn't make the instruction {code:#x}"
            return k, steps
