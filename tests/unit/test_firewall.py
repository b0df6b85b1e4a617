"""Elements of the rules that networks share, as a journal has them."""

from __future__ import annotations

from tarbox.networks import firewall
from tarbox.networks.firewall import Element


def test_elements_in_a_journal_are_the_same_ones():
    elements = (
        Element("bridge", "ends4", ("tv-0123456789ab", "02:42:0a:d3:00:02", "10.211.0.2")),
        Element("inet", "ports6_at", ("fd00::1", "udp", "53"), ("fd00:2::2", "5353")),
        Element("inet", "ports4", ("tcp", "80"), ("10.211.0.2", "8080")),
    )
    found = firewall.read(firewall.written(elements))
    assert [(one.family, one.set, one.key) for one in found] == [(one.family, one.set, one.key) for one in elements]
    assert firewall.read("") == []
