"""Addresses of the internet and of Ethernet: as bytes, which packets hold, and as text, which people read.

    python3 -c 'import socket; print(socket.inet_pton(socket.AF_INET6, "fd00::1"))'

Python's `socket` and `ipaddress` know all of this; they load several times what a whole container's start does.

https://www.rfc-editor.org/rfc/rfc4291#section-2.2, https://www.rfc-editor.org/rfc/rfc5952; man 3 inet_pton
"""

from __future__ import annotations


def shown(ip: bytes) -> str:
    """An internet address, 4 or 16 bytes, as text: one of IPv6 in its shortest form."""
    if len(ip) == 4:
        return ".".join(map(str, ip))
    if ip.startswith(_MAPPED):
        return f"::ffff:{shown(ip[12:])}"
    groups = [f"{ip[at] << 8 | ip[at + 1]:x}" for at in range(0, 16, 2)]
    text = ":" + ":".join(groups) + ":"
    for count in range(8, 1, -1):
        before, zeros, after = text.partition(":0" * count + ":")
        if zeros:
            return f"{before[1:]}::{after[:-1]}"
    return text[1:-1]


def packed(text: str) -> bytes:
    """The 4 or 16 bytes of an internet address; raises ValueError for what isn't one."""
    if ":" not in text:
        return _packed4(text)
    head, _, last = text.rpartition(":")
    if "." in last:  # the last 32 bits, written as an address of IPv4
        bits = _packed4(last)
        text = f"{head}:{bits[:2].hex()}:{bits[2:].hex()}"
    before, gap, after = text.partition("::")
    left, right = _groups(before), _groups(after)
    missing = 16 - len(left) - len(right)
    if missing < 2 if gap else missing or (not right and not left):
        raise ValueError(f"{text!r} is no internet address")
    return left + bytes(missing) + right


def hardware(text: str) -> bytes:
    """The 6 bytes of an Ethernet address like 02:00:00:00:00:01; raises ValueError for what isn't one."""
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) != 2 for part in parts):
        raise ValueError(f"{text!r} is no Ethernet address")
    return bytes.fromhex("".join(parts))


_MAPPED = bytes(10) + b"\xff\xff"
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF")


def _packed4(text: str) -> bytes:
    parts = text.split(".")
    if len(parts) == 4 and all(part and len(part) < 4 and _DIGITS.issuperset(part) for part in parts):
        numbers = [int(part) for part in parts]
        # With a leading zero some read it as octal: neither reading is right for everybody.
        if max(numbers) < 256 and [str(number) for number in numbers] == parts:
            return bytes(numbers)
    raise ValueError(f"{text!r} is no internet address")


def _groups(text: str) -> bytes:
    made = b""
    for group in text.split(":") if text else ():
        if not 0 < len(group) < 5 or not _HEX.issuperset(group):
            raise ValueError(f"{text!r} is no part of an internet address")
        made += int(group, 16).to_bytes(2, "big")
    return made
