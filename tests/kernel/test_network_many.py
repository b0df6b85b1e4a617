"""Many containers on one network, started and ended at once: nobody's address is another's, and nothing is left."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

import puppets
import roots
from neighbours import ip


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory that no container changes."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def there():
    """Links, rules, files and listening sockets that there are, also because of networks."""
    listening = [line for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    return {
        "links": [line.split(": ")[1] for line in ip("-o", "link").splitlines()],
        "rules": subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout,
        "files": sorted(str(path) for path in Path("/run/tarbox").rglob("*") if path.is_file()),
        "listening": listening,
    }


def becomes(wanted, patience=5.0):
    """Insist that it is so again, at the latest after `patience` seconds: interfaces take their time to go."""
    end = time.monotonic() + patience
    while (now := there()) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    assert now == wanted


def answer(host, port, patience=20.0):
    """What the server behind a port says, as soon as there is one."""
    end = time.monotonic() + patience
    while (said := host.ask_tcp("127.0.0.1", port, "", seconds=patience)) is None and time.monotonic() < end:
        time.sleep(0.02)
    return said


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.long)])
def test_many_at_once_twice(tarbox, image, count):
    """Each reaches the first one by its address, is published at a port of its own, and has an address of its own."""
    before = there()
    with puppets.network(tarbox, "many", "--ipv6") as network:
        for _ in range(2):
            with puppets.box(tarbox, "--network", network) as first, puppets.here() as host:
                script = (
                    f"ping -c1 -W20 {first.address()} >/dev/null && ip -o addr show dev eth0 | grep ' inet';"
                    " nc -l -p 80 </etc/who"
                )
                started = [
                    tarbox.start("run", "--rm", "--network", network, "-p", f"{20000 + number}:80", image,
                                 "sh", "-c", f"echo {number} >/etc/who; {script}")
                    for number in range(count)
                ]  # fmt: skip
                addresses = set()
                for process in started:
                    for _ in range(3):  # IPv4, IPv6, and that of the link
                        line = process.stdout.readline().decode().split()
                        assert line, process.stderr.read()
                        addresses.add(line[3])
                assert len(addresses) == 3 * count
                for number in range(count):
                    assert answer(host, 20000 + number) == f"{number}\n"
                for process in started:
                    _, errors = process.communicate(timeout=60)
                    assert (process.returncode, errors) == (0, b"")
            becomes(before)
    becomes(before)
