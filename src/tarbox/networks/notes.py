"""What the rules know of containers that run, as it is noted beside their addresses.

    sed -n 's/^rule //p' /run/tarbox/…/networks/*/10.*

Somebody can take all rules of the machine away, as a reload of its firewall does. The next container that makes the
tables again gives the others what they had. Loaded only then.
"""

from __future__ import annotations

from ..unistd import os
from . import leases
from .firewall import Element

_WORD = "rule "


def of_running(folder: str) -> list[Element]:
    """The elements of all containers that hold addresses, each once; folder: of all networks' state."""
    found: dict[Element, None] = {}
    for name in sorted(os.listdir(folder)):
        if os.path.isdir(network := f"{folder}/{name}"):
            for words in leases.holders(network):
                found.update(dict.fromkeys(map(_element, _lines(words))))
    return list(found)


def _lines(words: str) -> list[str]:
    return [line.removeprefix(_WORD) for line in words.splitlines() if line.startswith(_WORD)]


def _element(line: str) -> Element:
    named, _, leads = line.partition(" ")
    family, set, *key = named.split(",")
    return Element(family, set, tuple(key), tuple(leads.split(",")) if leads else ())
