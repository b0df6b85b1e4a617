"""Addresses and subnets, compared with Python's own reading of them."""

from __future__ import annotations

import ipaddress
import random

import pytest

from tarbox.errors import UsageError
from tarbox.networks import addresses

SEED = random.Random(20260131)
FOURS = [0, 1, 2**32 - 1, 0x0A020007, *(SEED.getrandbits(32) for _ in range(500))]
# Words of 16 bits that are often zero, so that all runs of zeros come up.
SIXES = [0, 1, 2**128 - 1, 0xFFFF << 32 | 0x01020304]
SIXES += [
    sum(SEED.choice((0, 0, SEED.getrandbits(16), SEED.getrandbits(4))) << shift for shift in range(0, 128, 16))
    for _ in range(2000)
]


@pytest.mark.parametrize(("version", "values"), [(4, FOURS), (6, SIXES)])
def test_numbers_and_texts_are_those_of_everybody_else(version, values):
    kind = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}[version]
    for value in values:
        other = kind(value)
        text = addresses.text(version, value)
        assert addresses.read(text) == (version, value)
        assert addresses.read(other.exploded) == (version, value)
        assert addresses.packed(version, value) == other.packed
        if not (version == 6 and other.ipv4_mapped):
            assert text == str(other)


def test_an_ipv4_address_in_an_ipv6_one_is_seen():
    """As RFC 5952 wants it, and read in every place where it may stand."""
    assert addresses.text(6, 0xFFFF << 32 | 0x0A000001) == "::ffff:10.0.0.1"
    for text in (
        "::ffff:10.0.0.1",
        "0:0:0:0:0:ffff:10.0.0.1",
        "::FFFF:a00:1",
        "64:ff9b::1.2.3.4",
        "1::2:3:4:5:1.2.3.4",
    ):
        assert addresses.read(text) == (6, int(ipaddress.IPv6Address(text))), text


LETTERS = "0123456789abcdef:::::....gG%/ +-_x"


def mutations():
    """Texts that are nearly addresses."""
    for _ in range(20000):
        text = list(
            addresses.text(4, SEED.choice(FOURS)) if SEED.random() < 0.4 else addresses.text(6, SEED.choice(SIXES))
        )
        for _ in range(SEED.randint(1, 3)):
            at = SEED.randrange(len(text) + 1)
            match SEED.randrange(3):
                case 0:
                    text.insert(at, SEED.choice(LETTERS))
                case 1 if at < len(text):
                    del text[at]
                case 2 if at < len(text):
                    text[at] = SEED.choice(LETTERS)
        yield "".join(text)


def test_what_is_no_address_to_others_is_none_here():
    """And what is one, is the same one: thousands of texts with slips, most of them wrong, some still right."""
    right = wrong = 0
    for text in mutations():
        try:
            other = ipaddress.ip_address(text)
        except ValueError:
            other = None
        if other is None or "%" in text:
            wrong += 1
            with pytest.raises(UsageError):
                addresses.read(text)
        else:
            right += 1
            assert addresses.read(text) == (other.version, int(other)), text
    assert right > 100
    assert wrong > 100


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.04", "1.2.3.4 ", " 1.2.3.4", "1.2.3.-4",
     "0x1.2.3.4", "1,2,3,4", "\u0661.2.3.4", "1.2.3.4\n", ":", ":::", "1", "1::2::3", "1:2:3:4:5:6:7",
     "1:2:3:4:5:6:7:8:9", "::1%eth0", "1:2:3:4:5:6:7:8::", "::12345", "::g", "1.2.3.4::", "::1.2.3.4:5", "::1.2.3",
     "[::1]", "::1/64", "x" * 10000],
)  # fmt: skip
def test_strictly(text):
    """No octal, no zones, no brackets, no spaces, no other digits; and the error stays short."""
    with pytest.raises(UsageError) as raised:
        addresses.read(text)
    assert len(str(raised.value)) < 200


def test_subnets_are_those_of_everybody_else():
    """Every length; with bits behind it that are set, the error names the right subnet."""
    for version, values in ((4, FOURS), (6, SIXES[:200])):
        for value in values[:40]:
            for prefix in range(addresses.BITS[version] + 1):
                word = f"{addresses.text(version, value)}/{prefix}"
                right = ipaddress.ip_network(
                    f"{ipaddress.ip_address(addresses.packed(version, value))}/{prefix}", False
                )
                network = int(right.network_address)
                assert addresses.first(version, value, prefix) == network
                assert addresses.last(version, network, prefix) == int(right.broadcast_address)
                if value == network:
                    assert addresses.read_subnet(word) == (version, network, prefix)
                else:
                    with pytest.raises(UsageError) as raised:
                        addresses.read_subnet(word)
                    assert addresses.text_of_subnet(version, network, prefix) in raised.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "/", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/255.0.0.0", "/24",
     "10.0.0.0/24/24", "fd00::/129", "fd00::/ 64", "10.0.0.0/\u0668", "10.0.0.0/1e1", "web/24",
     "10.0.0.0/" + "9" * 5000],
)  # fmt: skip
def test_what_is_no_subnet(text):
    with pytest.raises(UsageError):
        addresses.read_subnet(text)


def test_overlaps_are_those_of_everybody_else():
    together = 0
    for _ in range(3000):
        version = SEED.choice((4, 6))
        bits = addresses.BITS[version]
        ones = []
        for _ in range(2):
            prefix = SEED.randint(0, bits)
            few = SEED.getrandbits(3) << bits - 3 | SEED.getrandbits(4)  # few differ, so that many overlap
            ones.append((addresses.first(version, few, prefix), prefix))
        kind = {4: ipaddress.IPv4Network, 6: ipaddress.IPv6Network}[version]
        one, other = (kind((network, prefix)) for network, prefix in ones)
        assert addresses.overlap(version, *ones[0], *ones[1]) == one.overlaps(other)
        together += one.overlaps(other)
    assert 100 < together < 2900
