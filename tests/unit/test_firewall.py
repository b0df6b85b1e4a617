"""The rules that networks share: the bytes that are kept on disk, and elements as a journal has them."""

from __future__ import annotations

import hashlib

from tarbox.kernel.nft_tables import create
from tarbox.kernel.nftables import batch
from tarbox.networks import firewall
from tarbox.networks.firewall import Element
from tarbox.networks.rules import tables

KNOWN = (1, "7334d507eec4a41646a71ea132cd53c9396978d9f4479ad4349b85c8a7742ae0")


def test_kept_tables_have_another_name_when_they_change():
    """After a change that is meant raise `firewall.RULES`, and put both here; else old rules are taken from disk."""
    made = batch([request for one in tables("tarbox") for request in create(one)])
    assert (firewall.RULES, hashlib.sha256(made).hexdigest()) == KNOWN
    assert len(made) < firewall._LARGEST


def test_elements_in_a_journal_are_the_same_ones():
    elements = (
        Element("bridge", "ends4", ("tv-0123456789ab", "02:42:0a:d3:00:02", "10.211.0.2")),
        Element("inet", "ports6_at", ("fd00::1", "udp", "53"), ("fd00:2::2", "5353")),
        Element("inet", "ports4", ("tcp", "80"), ("10.211.0.2", "8080")),
    )
    found = firewall.read(firewall.written(elements))
    assert [(one.family, one.set, one.key) for one in found] == [(one.family, one.set, one.key) for one in elements]
    assert firewall.read("") == []
