"""Limits of one process, as --ulimit gives them."""

from __future__ import annotations

import resource

from tarbox.kernel import rlimits
from tarbox.kernel.rlimits import UNLIMITED, Limit
from tarbox.plan.step import RUNNER, Slots


def test_the_numbers_are_the_kernels():
    for name, number in rlimits.RLIMITS.items():
        known = getattr(resource, f"RLIMIT_{name.upper()}", None)
        assert known is None or known == number
    assert len(rlimits.RLIMITS) == 16


def test_present_limits():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert rlimits.present("nofile") == (soft & UNLIMITED, hard & UNLIMITED)


def test_the_step_of_the_runner():
    (row,) = Limit("nofile", 5, 6, by=RUNNER).rows(Slots())
    assert row.arguments == (0, 7, (5).to_bytes(8, "little") + (6).to_bytes(8, "little"), 0)
    assert row.shown == "prlimit64(0, RLIMIT_NOFILE, {5, 6}, NULL)"
    assert Limit("nofile", 5, UNLIMITED).call() == "prlimit64(0, RLIMIT_NOFILE, {5, RLIM64_INFINITY}, NULL)"
    assert Limit("core", 0, 1).shell() == "prlimit --core=0:1 --pid $$"
