"""The options of an OCI mount, told apart, and what the planner makes of a bind mount's."""

from __future__ import annotations

import pytest

from tarbox.runtime.mount_options import MountOptions


@pytest.mark.parametrize(
    ("words", "attributes", "cleared", "propagation", "recursively", "own"),
    [
        ([], (), (), "", False, ()),
        (["ro"], ("ro",), (), "", False, ()),
        (["rro"], ("ro",), (), "", True, ()),
        (["ro", "rw"], (), ("ro",), "", False, ()),
        (["rprivate"], (), (), "rprivate", False, ()),
        (["slave"], (), (), "slave", False, ()),
        (["rshared", "ro", "nosuid"], ("ro", "nosuid"), (), "rshared", False, ()),
        (["size=64m", "mode=755", "noexec"], ("noexec",), (), "", False, ("size=64m", "mode=755")),
        (["exec", "suid", "dev"], (), ("noexec", "nosuid", "nodev"), "", False, ()),
        (["newinstance", "relatime", "defaults"], (), (), "", False, ("newinstance",)),
    ],
)
def test_words_mean_what_mount_says(words, attributes, cleared, propagation, recursively, own):
    found = MountOptions(words)
    assert found.attributes == attributes
    assert found.cleared == cleared
    assert found.propagation == propagation
    assert found.recursively == recursively
    assert found.own == own


@pytest.mark.parametrize(
    ("words", "bind", "recursive"), [(["bind"], True, False), (["rbind"], True, True), ([], False, False)]
)
def test_bind_and_rbind(words, bind, recursive):
    found = MountOptions(words)
    assert (found.bind, found.recursive) == (bind, recursive)
