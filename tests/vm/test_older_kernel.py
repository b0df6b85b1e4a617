"""What works on a kernel from before Linux 6.5: an overlay's layers are given in another way there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import testhost
from vm.conftest import Inside, started

pytestmark = [pytest.mark.vm, pytest.mark.long]

IMAGE = "mkdir -p /tmp/image/bin /tmp/image/etc; cp /bin/busybox /tmp/image/bin/; ln -s busybox /tmp/image/bin/sh"


@pytest.fixture(scope="module")
def older(test_host: testhost.TestHost) -> Iterator[Inside]:
    with started(test_host, memory="1G", older=True) as made:
        release = made("uname", "-r")[1]
        if tuple(map(int, release.split(".")[:2])) >= (6, 5):
            pytest.skip(f"the release's own kernel isn't old: {release}")
        made.open_to_plain_users()
        assert made("sh", "-ec", IMAGE) == (0, "")
        yield made


def test_throw_away_layers(older):
    """Of the machine's own files, of a directory, of several over one another, in memory, and of a volume."""
    write = "/bin/busybox touch /etc/mine && /bin/busybox ls /etc"
    assert "mine\n" in older.tarbox("run", "--rm", "host", "sh", "-c", write)[1]
    assert older("test", "-e", "/etc/mine")[0] == 1
    for options in ((), ("--root-tmpfs", "1m")):
        told = older.tarbox("run", "--rm", *options, "/tmp/image:O", "/bin/sh", "-c", write)
        assert (told[0], "mine\n" in told[1]) == (0, True), told
    assert older("sh", "-c", "test -e /tmp/image/etc/mine")[0] == 1
    made = (
        "cd /tmp; for name in a b; do mkdir -p layer-$name; echo $name > layer-$name/both; done; echo > layer-b/below"
    )
    assert older("sh", "-ec", made) == (0, "")
    layers = "/tmp/layer-a:/tmp/layer-b:/tmp/image"
    told = older.tarbox("isolate", "--overlay", layers, "/bin/busybox", "cat", "/both", "/below")
    assert told == (0, "a\n\n")
    volume = ("-v", "/tmp/layer-a:/data:O")
    told = older.tarbox("run", "--rm", *volume, "/tmp/image", "/bin/busybox", "rm", "/data/both")
    assert told == (0, "")
    assert older("cat", "/tmp/layer-a/both") == (0, "a\n")


def test_too_many_layers_are_refused_by_their_number(older):
    names = [f"/tmp/many-{number}" for number in range(40)]
    assert older("mkdir", "-p", *names) == (0, "")
    status, output = older.tarbox("isolate", "--overlay", ":".join(names), "true")
    assert status == 125
    assert "before Linux 6.7 overlay takes no 40 layers like this" in output


def test_a_plain_users_throw_away_layer(older):
    become = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "env", "HOME=/tmp/plain")
    assert older("install", "-d", "-o", "65533", "-m", "700", "/tmp/plain") == (0, "")
    told = older.tarbox("run", "--rm", "host", "sh", "-c", "id -u; touch /usr/x && echo made", become=become)
    assert told == (0, "0\nmade\n")
