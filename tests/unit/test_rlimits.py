"""Limits of one process, as --ulimit gives them."""

from __future__ import annotations

import resource

import pytest

from tarbox.errors import UsageError
from tarbox.kernel import rlimits
from tarbox.kernel.rlimits import INFINITY, Limit, parse
from tarbox.plan.step import RUNNER, Slots


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nofile=1024:2048", ("nofile", 1024, 2048)), ("nofile=1024", ("nofile", 1024, 1024)),
        ("core=0", ("core", 0, 0)), ("core=-1", ("core", INFINITY, INFINITY)),
        ("memlock=1:-1", ("memlock", 1, INFINITY)), ("nproc=unlimited", ("nproc", INFINITY, INFINITY)),
        ("stack=8388608:unlimited", ("stack", 8388608, INFINITY)), ("cpu=007", ("cpu", 7, 7)),
        ("rss=18446744073709551615", ("rss", INFINITY, INFINITY)),
    ],
)  # fmt: skip
def test_limits(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nofile", "no value"), ("", "no value"), ("files=3", "no limit named 'files'"), ("=3", "no limit named ''"),
        ("nofile=", "isn't a number"), ("nofile=a", "isn't a number"), ("nofile=1:", "isn't a number"),
        ("nofile=1:2:3", "isn't a number"), ("nofile=-2", "isn't a number"), ("nofile=1k", "isn't a number"),
        ("nofile= 1", "isn't a number"), ("nofile=\uff11", "isn't a number"), ("nofile=" + "9" * 30, "isn't a number"),
        ("nofile=18446744073709551616", "isn't a number"), ("nofile=2:1", "soft limit is above"),
        ("nofile=-1:5", "soft limit is above"), ("NOFILE=1", "no limit named"),
    ],
)  # fmt: skip
def test_what_is_no_limit(text, said):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in caught.value.message
    assert caught.value.hint


def test_the_numbers_are_the_kernels():
    for name, number in rlimits.NUMBERS.items():
        known = getattr(resource, f"RLIMIT_{name.upper()}", None)
        assert known is None or known == number
    assert len(rlimits.NUMBERS) == 16


def test_present_limits():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert rlimits.present("nofile") == (soft & INFINITY, hard & INFINITY)


def test_the_step_of_the_runner():
    (row,) = Limit("nofile", 5, INFINITY, by=RUNNER).rows(Slots())
    assert row.arguments == (0, 7, (5).to_bytes(8, "little") + bytes([255] * 8), 0)
    assert row.optional
    assert row.shown == "prlimit64(0, RLIMIT_NOFILE, {5, RLIM64_INFINITY}, NULL)"
    assert Limit("core", 0, 1).shell() == "prlimit --core=0:1 --pid $$"
