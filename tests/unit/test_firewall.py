"""The rules that networks share: the bytes that are kept on disk, and elements as a journal has them."""

from __future__ import annotations

from pathlib import Path

from tarbox.kernel.nft_tables import create
from tarbox.kernel.nftables import batch
from tarbox.networks import firewall
from tarbox.networks.firewall import Element
from tarbox.networks.rules import tables


def test_kept_tables_are_those_of_these_sources(tmp_path, monkeypatch):
    """A change of any source that they come from gives them another name, so that old rules are never taken."""
    package = Path(firewall.__file__).parents[1]
    made = set()
    for module in tables.__globals__.values():
        if origin := getattr(module, "__module__", getattr(module, "__name__", None)):
            made.add(str(origin))
    needed = {name.removeprefix("tarbox.").replace(".", "/") for name in made if name.startswith("tarbox.")}
    assert needed <= set(firewall._SOURCES), "rules.py is made of more than that"
    for name in firewall._SOURCES:
        copy = tmp_path / f"{name}.py"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((package / f"{name}.py").read_bytes())
    monkeypatch.setattr(firewall, "__file__", str(tmp_path / "networks/firewall.py"))
    names = {firewall._kept_name("tarbox", "/cache")}
    assert firewall._kept_name("tarbox", "/cache") in names
    for name in firewall._SOURCES:
        with (tmp_path / f"{name}.py").open("a") as file:
            file.write("#")
        names.add(firewall._kept_name("tarbox", "/cache"))
    assert len(names) == 1 + len(firewall._SOURCES)
    (tmp_path / "kernel/nft_types.py").unlink()
    assert firewall._kept_name("tarbox", "/cache") == ""


def test_encoded_tables_fit():
    assert len(batch([request for one in tables("tarbox") for request in create(one)])) < firewall._LARGEST


def test_elements_in_a_journal_are_the_same_ones():
    elements = (
        Element("bridge", "ends4", ("tv-0123456789ab", "02:42:0a:d3:00:02", "10.211.0.2")),
        Element("inet", "ports6_at", ("fd00::1", "udp", "53"), ("fd00:2::2", "5353")),
        Element("inet", "ports4", ("tcp", "80"), ("10.211.0.2", "8080")),
    )
    found = firewall.read(firewall.written(elements))
    assert [(one.family, one.set, one.key) for one in found] == [(one.family, one.set, one.key) for one in elements]
    assert firewall.read("") == []
