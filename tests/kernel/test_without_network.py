"""Root who can't connect a container, in a container itself say: what is missing is named, and others have loopback."""

from __future__ import annotations

import subprocess

import pytest

import netns
from kernel.attacks import tools
from testhost import tables

SHOW = ("host", "ip", "-br", "address", "show", "dev", "lo")
READ_ONLY = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"


@pytest.fixture(autouse=True)
def _network():
    with netns.fresh():
        yield


def powerless(tarbox, *words):
    """Without CAP_NET_ADMIN."""
    return _run(tarbox, ["setpriv", "--bounding-set", "-net_admin"], words)


def in_read_only(tarbox, *words):
    """Where no setting can be written, as in an outer container without --privileged."""
    return _run(tarbox, ["unshare", "-m", "sh", "-euc", f'{READ_ONLY}; exec "$@"', "-"], words)


def _run(tarbox, before, words):
    command = [*before, *tarbox.command("run", "--rm", *words)]
    return subprocess.run(command, env=tarbox.environment(), capture_output=True, text=True, timeout=60)


def test_without_the_capability(tarbox):
    for words in ((), ("--network", "none")):
        done = powerless(tarbox, *words, *SHOW)
        assert (done.returncode, done.stdout.split()) == (0, ["lo", "DOWN"])
        assert "no network, and its loopback is down: root without CAP_NET_ADMIN" in done.stderr
        assert done.stderr.count("\n") == 1
    done = powerless(tarbox, "--network", "host", "host", "echo", "well")
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


def test_with_settings_that_cant_be_written(tarbox):
    done = in_read_only(tarbox, *SHOW)
    assert (done.returncode, done.stdout.split()[2]) == (0, "127.0.0.1/8")
    assert "no network but its loopback: /proc/sys is mounted read-only" in done.stderr
    assert "--network host)" in done.stderr
    for name in ("none", "host"):
        done = in_read_only(tarbox, "--network", name, "host", "echo", "well")
        assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


@pytest.mark.parametrize(
    ("run", "said"), [(powerless, "root without CAP_NET_ADMIN can't"), (in_read_only, "/proc/sys is mounted read-only")]
)
def test_what_was_asked_for_is_refused(tarbox, run, said):
    """Before anything is made."""
    for words in (("--network", "bridge"), ("-p", "8080:80")):
        told = tools.complained(run(tarbox, *words, "host", "true"))
        assert f"{words[0]}" in told
        assert said in told
        assert "or choose --network none or host)" in told
    assert not tables()
    assert [one["ifname"] for one in netns.shown("link")] == ["lo"]


def test_isolate_names_the_capability(tarbox):
    command = ["setpriv", "--bounding-set", "-net_admin", *tarbox.command("isolate", "--net", "true")]
    done = subprocess.run(command, env=tarbox.environment(), capture_output=True, text=True, timeout=60)
    assert "root without CAP_NET_ADMIN can't bring up the loopback" in tools.complained(done)
