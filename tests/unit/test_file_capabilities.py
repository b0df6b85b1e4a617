"""Capabilities as text and as an attribute's bytes."""

from __future__ import annotations

import pytest

from tarbox.errors import UsageError
from tarbox.kernel.capability_text import DOCKER, Sets, form, parse, summary
from tarbox.kernel.file_capabilities import decode, encode

EVERY = (1 << 41) - 1
RAW, CHOWN = 1 << 13, 1


def sets(found: Sets) -> tuple[int, int, int]:
    return found.permitted, found.inheritable, found.effective


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cap_net_raw+ep", (RAW, 0, RAW)),
        ("cap_net_raw=ep", (RAW, 0, RAW)),
        ("CAP_NET_RAW,cap_chown=eip", (RAW | CHOWN, RAW | CHOWN, RAW | CHOWN)),
        ("cap_chown=p cap_net_raw+p", (RAW | CHOWN, 0, 0)),
        ("=ep", (EVERY, 0, EVERY)),
        ("all=p cap_chown-p", (EVERY & ~CHOWN, 0, 0)),
        ("=p cap_chown+i", (EVERY, CHOWN, 0)),
        ("cap_net_raw=p=i", (0, RAW, 0)),
        ("cap_net_raw+ep-e", (RAW, 0, 0)),
        ("cap_net_raw=ep cap_net_raw=", (0, 0, 0)),
        ("=", (0, 0, 0)),
        ("", (0, 0, 0)),
        ("\tcap_bpf=ep\n", (1 << 39, 0, 1 << 39)),
    ],
)
def test_setcaps_text_is_understood(text, expected):
    assert sets(parse(text, EVERY)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cap_net_raw", "which sets"),
        ("cap_net_raw+", "which sets"),
        ("cap_net_rwa=ep", "did you mean NET_RAW"),
        ("cap_net_raw=x", "the set 'x'"),
        ("+ep", "names no capability"),
        ("cap_chown,=p", "no capability named ''"),
    ],
)
def test_a_slip_in_it_is_told(text, said):
    with pytest.raises(UsageError, match=said):
        parse(text, EVERY)


@pytest.mark.parametrize("text", ["cap_net_raw=ep", "cap_chown=ip cap_kill=p", "all=ep", "=", "all=i", "cap_bpf=eip"])
def test_text_and_sets_are_each_others(text):
    assert form(parse(text, EVERY), EVERY) == text


# As setcap wrote them, by getfattr -e hex.
RECORDED = {
    "cap_net_raw=ep": "0100000200200000000000000000000000000000",
    "all=ep": "01000002ffffffff00000000ff01000000000000",
    "cap_chown,cap_kill=eip": "0100000221000000210000000000000000000000",
    "=": "0000000200000000000000000000000000000000",
    "cap_chown,cap_net_raw=p": "0000000201200000000000000000000000000000",
}


@pytest.mark.parametrize("text", RECORDED)
def test_the_bytes_are_setcaps(text):
    data = bytes.fromhex(RECORDED[text])
    assert encode(parse(text, EVERY)) == data
    found = decode(data)
    assert (form(found.sets, EVERY), found.version, found.rootid) == (text, 2, None)


def test_all_three_versions_are_read():
    third = bytes.fromhex("0100000300200000000000000000000000000000e8030000")
    found = decode(third)
    assert (form(found.sets, EVERY), found.version, found.rootid) == ("cap_net_raw=ep", 3, 1000)
    assert encode(found.sets, 1000) == third
    first = decode(bytes.fromhex("010000010020000001000000"))
    assert (sets(first.sets), first.version) == ((RAW, CHOWN, RAW | CHOWN), 1)


@pytest.mark.parametrize("data", [b"", bytes(20), bytes.fromhex("01000002"), bytes.fromhex("01000004") + bytes(16)])
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError, match="bytes of version"):
        decode(data)


@pytest.mark.parametrize("text", ["cap_net_raw=ep cap_chown+i", "cap_chown=e", "cap_chown=p cap_kill=e"])
def test_one_bit_for_effective_is_all_there_is(text):
    with pytest.raises(UsageError):
        encode(parse(text, EVERY))


def test_sets_are_summed_up():
    assert summary(0, EVERY) == "none"
    assert summary(EVERY, EVERY) == "all"
    assert summary(EVERY & ~RAW, EVERY) == "all but cap_net_raw"
    assert summary(DOCKER, EVERY).startswith("Docker's default: cap_chown cap_dac_override ")
    assert summary(RAW | CHOWN, EVERY) == "cap_chown cap_net_raw"
    assert summary(EVERY | 1 << 50, EVERY) == "all"  # a kernel that has more than it says
