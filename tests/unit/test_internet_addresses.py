"""Addresses as bytes and as text are what the C library makes of them."""

from __future__ import annotations

import random
import socket

import pytest

from tarbox.kernel.addresses import hardware, packed, shown


def test_text_is_what_the_c_library_writes():
    chance = random.Random(4)
    for _ in range(5000):
        ip = bytes(chance.choice((0, 0, 0, 1, 0xAB, 255)) for _ in range(16))
        if ip[:10] != bytes(10):  # the C library writes some of the others partly as IPv4
            assert shown(ip) == socket.inet_ntop(socket.AF_INET6, ip)
        assert shown(ip[:4]) == socket.inet_ntop(socket.AF_INET, ip[:4])
        assert packed(shown(ip)) == ip
        assert packed(shown(ip[:4])) == ip[:4]


@pytest.mark.parametrize(
    "text",
    ["::", "::1", "1::", "fe80::1", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", "::ffff:10.0.0.1",
     "64:ff9b::1.2.3.4", "1:2:3:4:5:6:7.8.9.10", "FD00::ABCD"],
)  # fmt: skip
def test_all_forms_are_read(text):
    assert packed(text) == socket.inet_pton(socket.AF_INET6, text)


def test_an_address_of_ipv4_in_ipv6_is_shown_as_such():
    assert shown(packed("::ffff:10.0.0.1")) == "::ffff:10.0.0.1"


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.-4", "1.2.3.4 ", "\u0661.2.3.4",
     ":", ":::", "1::2::3",
     "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "12345::", "g::", "::1%eth0", "1.2.3.4::", "::1.2.3",
     "fe80::1/64", "+1::", "_1::"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):
        packed(text)


def test_hardware_addresses():
    assert hardware("02:00:0a:00:00:Ff") == b"\x02\x00\x0a\x00\x00\xff"
    for text in ("", "02:00:0a:00:00", "02:00:0a:00:00:01:02", "2:0:a:0:0:1", "02-00-0a-00-00-01", "zz:00:0a:00:00:01"):
        with pytest.raises(ValueError):
            hardware(text)
