"""Addresses taken by many processes at once, and given back by those that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tarbox.errors import NetworkError
from tarbox.networks import leases, request
from testhost import CHECKOUT

# Takes so many addresses, tells them, and holds them until its input ends. Some it gives back on the way.
OWNER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tarbox.networks import leases, request
folder, word, count, back = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
(subnet,) = request.subnets([word])
held = []
for turn in range(count):
    held.append(leases.take(folder, subnet, f"container {os.getpid():064}\\n", network="web"))
    if back and turn % back == back - 1:
        lease = held.pop(0)
        os.close(lease.descriptor)
        leases.let_go(lease.path)
print(*(lease.path.rpartition("/")[2] for lease in held), flush=True)
sys.stdin.read()
for lease in held:
    os.close(lease.descriptor)
    assert leases.let_go(lease.path)
"""


class Owners:
    def __init__(self, folder, word, count, each, back=0):
        command = [sys.executable, "-c", OWNER, str(CHECKOUT / "src"), folder, word, str(each), str(back)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
        self.addresses = {owner.pid: owner.stdout.readline().split() for owner in self.processes}

    def all(self) -> list[str]:
        return [address for found in self.addresses.values() for address in found]

    def end(self) -> None:
        for owner in self.processes:
            out, error = owner.communicate(timeout=60)
            assert owner.returncode in (0, -signal.SIGKILL), error
            assert not out


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "web")


def test_a_thousand_addresses_for_twenty_processes(folder):
    """None twice; those of the killed are free, and nobody else's."""
    owners = Owners(folder, "10.2.0.0/20", 20, 50)
    try:
        assert max(Counter(owners.all()).values()) == 1
        assert len(owners.all()) == 1000
        held = leases.held(folder)
        assert {address for address, _ in held} == set(owners.all())
        for address, words in held:
            assert address in owners.addresses[int(words.removeprefix("container "))]
        killed = owners.processes[::2]
        for owner in killed:
            owner.kill()
            owner.wait()
        left = {address for owner in owners.processes[1::2] for address in owners.addresses[owner.pid]}
        assert {address for address, _ in leases.held(folder)} == left
        assert leases.busy(folder)
        (subnet,) = request.subnets(["10.2.0.0/20"])
        wanted = owners.addresses[killed[0].pid][7]
        lease = leases.take(folder, subnet, "container new\n", request.read(wanted)[1])
        os.close(lease.descriptor)
        with pytest.raises(NetworkError, match="is taken by the container 0000"):
            leases.take(folder, subnet, "container new\n", request.read(min(left))[1])
    finally:
        owners.end()
    assert not leases.busy(folder)
    assert leases.holders(folder) == []


def test_many_that_come_and_go(folder):
    """With few more addresses than are held at a time, so that those that were given back are taken again at once."""
    for _ in range(3):
        owners = Owners(folder, "10.2.0.0/25", 20, 25, back=1)
        owners.end()
        assert leases.held(folder) == []
        owners = Owners(folder, "10.2.0.0/25", 12, 20, back=2)
        try:
            assert len(owners.all()) == len(set(owners.all())) == 120
            assert {address for address, _ in leases.held(folder)} == set(owners.all())
        finally:
            owners.end()


def test_the_addresses_of_the_killed_are_taken_when_there_are_no_others(folder):
    first = Owners(folder, "10.2.0.0/26", 3, 20)
    for owner in first.processes:
        owner.kill()
    first.end()
    assert len(os.listdir(folder)) == 61
    second = Owners(folder, "10.2.0.0/26", 6, 10)
    try:
        assert len(set(second.all())) == 60
        assert len(leases.holders(folder)) == 60
    finally:
        second.end()


def test_who_looks_disturbs_nobody(folder):
    """Nobody is taken for a holder because others look at the same file of a dead one."""
    dead = Owners(folder, "10.2.0.0/28", 1, 5)
    dead.processes[0].kill()
    dead.end()
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tarbox.networks import leases\n"
        "print(sum(leases.busy(sys.argv[2]) or bool(leases.held(sys.argv[2])) for _ in range(300)))"
    )
    command = [sys.executable, "-c", script, str(CHECKOUT / "src"), folder]
    lookers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [looker.communicate()[0] for looker in lookers] == ["0\n"] * 4
