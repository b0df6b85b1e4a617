"""Addresses and subnets of the Internet's two protocols, as numbers and as text.

    10.2.0.7  fd00::7        an address: 32 or 128 bits
    10.2.0.0/24              a subnet: all addresses whose first 24 bits are these

Read strictly, as a leading zero is octal to some programs and nothing to others: four plain numbers, or eight groups of
hexadecimal digits with `::` for some that are zero. Written as RFC 5952 has it, so that one address has one text.

man 7 ip, man 7 ipv6, https://www.rfc-editor.org/rfc/rfc5952
"""

from __future__ import annotations

from ..errors import UsageError
from ..kernel import addresses

BITS = {4: 32, 6: 128}


def read(text: str) -> tuple[int, int]:
    """An address as (4 or 6, its number); raises UsageError for what is none."""
    try:
        ip = addresses.packed(text)
    except ValueError:
        raise UsageError(f"{_shown(text)} is not an address", "e.g. 10.2.0.7 or fd00::7") from None
    return 4 if len(ip) == 4 else 6, int.from_bytes(ip, "big")


def text(version: int, value: int) -> str:
    """The address as people write it."""
    return addresses.shown(packed(version, value))


def packed(version: int, value: int) -> bytes:
    """The address as the kernel and packets have it."""
    return value.to_bytes(BITS[version] >> 3, "big")


def read_subnet(text_: str) -> tuple[int, int, int]:
    """A subnet as (4 or 6, the number of its first address, how many bits are fixed).

    Raises UsageError for what is none, and for bits that are set behind the fixed ones.
    """
    word, slash, length = text_.partition("/")
    try:
        version, value = read(word)
    except UsageError:
        raise UsageError(f"{_shown(text_)} is not a subnet", "e.g. 10.2.0.0/24 or fd00:2::/64") from None
    if not slash:
        raise UsageError(f"{_shown(text_)} is an address, and a subnet has a length", f"e.g. {word}/24")
    prefix = _number(length, BITS[version])
    if prefix < 0:
        raise UsageError(f"{_shown(text_)}: {_shown(length)} is no length of a prefix", f"0 to {BITS[version]}")
    network = first(version, value, prefix)
    if network != value:
        raise UsageError(
            f"{text_} is an address within its subnet", f"the subnet is {text_of_subnet(version, network, prefix)}"
        )
    return version, network, prefix


def text_of_subnet(version: int, network: int, prefix: int) -> str:
    """The subnet as people write it."""
    return f"{text(version, network)}/{prefix}"


def first(version: int, value: int, prefix: int) -> int:
    """The first address of the subnet that an address is in."""
    free = BITS[version] - prefix
    return value >> free << free


def last(version: int, network: int, prefix: int) -> int:
    """The last address of a subnet."""
    return network | (1 << BITS[version] - prefix) - 1


def overlap(version: int, network: int, prefix: int, other: int, other_prefix: int) -> bool:
    """Whether two subnets of one protocol share an address; then one holds the other."""
    return (network ^ other) >> BITS[version] - min(prefix, other_prefix) == 0


def _number(word: str, most: int) -> int:
    """A decimal number without a leading zero, -1 for anything else."""
    if not (word.isascii() and word.isdecimal()) or len(word) > 3 or (word[0] == "0" and len(word) > 1):
        return -1
    value = int(word)
    return value if value <= most else -1


def _shown(word: str) -> str:
    return repr(word if len(word) <= 60 else f"{word[:57]}...")
