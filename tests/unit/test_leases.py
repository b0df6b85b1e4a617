"""Addresses that are leased: in turn, by name, until nobody holds them."""

from __future__ import annotations

import os

import pytest

from tarbox.errors import NetworkError, StorageError, UsageError
from tarbox.networks import leases, request
from tarbox.networks.addresses import read, text

ONE, TWO = f"container {'1' * 64}\nmac 02:42:0a:02:00:02\n", f"container {'2' * 64}\n"


def subnet(word: str = "10.2.0.0/29", *more: str):
    (found,) = request.subnets([word], more[:1], more[1:2])
    return found


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "state" / "id")


class Held:
    """Leases that are let go at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.leases = []

    def take(self, space, wanted="", words=ONE) -> str:
        lease = leases.take(self.folder, space, words, read(wanted)[1] if wanted else None, "web")
        self.leases.append(lease)
        shown = text(space.version, lease.address)
        assert lease.path == f"{self.folder}/{shown}"
        assert os.stat(lease.path).st_mode & 0o777 == 0o600
        return shown

    def give(self, address: str) -> None:
        """As an owner who ends well."""
        lease = self._out(address)
        assert leases.let_go(lease.path)

    def die(self, address: str) -> None:
        """As an owner who was killed: the file stays."""
        assert os.path.exists(self._out(address).path)

    def _out(self, address):
        (lease,) = [lease for lease in self.leases if lease.path.endswith(f"/{address}")]
        self.leases.remove(lease)
        os.close(lease.descriptor)
        return lease


@pytest.fixture
def held(folder):
    held = Held(folder)
    yield held
    for lease in held.leases:
        os.close(lease.descriptor)


def test_one_after_the_other(held):
    """Never the subnet's own, the gateway's or the broadcast's; one that was given back not at once."""
    space = subnet()
    assert [held.take(space) for _ in range(2)] == ["10.2.0.2", "10.2.0.3"]
    held.give("10.2.0.3")
    assert [held.take(space) for _ in range(3)] == ["10.2.0.4", "10.2.0.5", "10.2.0.6"]
    assert held.take(space) == "10.2.0.3"
    with pytest.raises(NetworkError, match=r"the network web has no address left \(5 of 5 are taken\)"):
        held.take(space)
    held.give("10.2.0.5")
    assert held.take(space) == "10.2.0.5"


def test_a_gateway_between_is_passed_over(held):
    space = subnet("10.2.0.0/29", "10.2.0.3")
    assert [held.take(space) for _ in range(5)] == ["10.2.0.1", "10.2.0.2", "10.2.0.4", "10.2.0.5", "10.2.0.6"]
    space = subnet("10.3.0.0/29", "10.3.0.6", "10.3.0.4/30")
    assert [held.take(space) for _ in range(2)] == ["10.3.0.4", "10.3.0.5"]
    with pytest.raises(NetworkError, match="2 of 2"):
        held.take(space)


def test_six(held):
    space = subnet("fd00:2::/64")
    assert [held.take(space) for _ in range(3)] == ["fd00:2::2", "fd00:2::3", "fd00:2::4"]
    assert held.take(space, "fd00:2::ffff:0:1") == "fd00:2::ffff:0:1"
    assert (
        held.take(
            subnet(),
        )
        == "10.2.0.2"
    )


def test_one_that_is_wanted(held):
    """Also out of the range that others are given; it doesn't change whose turn it is."""
    space = subnet("10.2.0.0/24", "10.2.0.1", "10.2.0.128/25")
    assert held.take(space) == "10.2.0.128"
    assert held.take(space, "10.2.0.7") == "10.2.0.7"
    assert held.take(space, "10.2.0.129") == "10.2.0.129"
    assert held.take(space) == "10.2.0.130"
    with pytest.raises(NetworkError, match=r"10\.2\.0\.7 is taken by the container 111111111111 "):
        held.take(space, "10.2.0.7")
    held.die("10.2.0.7")
    assert held.take(space, "10.2.0.7", TWO) == "10.2.0.7"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("10.3.0.7", "not in 10.2.0.0/29, the subnet of the network web"), ("10.2.0.1", "the gateway's"),
        ("10.2.0.0", "the subnet's own"), ("10.2.0.7", "for broadcasts"),
    ],
)  # fmt: skip
def test_one_that_cannot_be_had(held, folder, wanted, said):
    with pytest.raises(UsageError) as raised:
        held.take(subnet(), wanted)
    assert said in str(raised.value)
    assert leases.holders(folder) == []


def test_who_holds_what(held, folder):
    assert leases.holders(folder) == []
    assert not leases.busy(folder)
    assert not os.path.exists(folder)
    space = subnet()
    held.take(space, words=ONE)
    held.take(space, words=TWO)
    assert sorted(leases.held(folder)) == [("10.2.0.2", ONE), ("10.2.0.3", TWO)]
    assert sorted(leases.holders(folder)) == sorted([ONE, TWO])
    assert leases.busy(folder)
    held.die("10.2.0.2")
    assert leases.holders(folder) == [TWO]
    assert leases.busy(folder)
    held.give("10.2.0.3")
    assert not leases.busy(folder)
    assert leases.holders(folder) == []


def test_the_dead_are_passed_over_until_there_is_nothing_else(held):
    space = subnet()
    taken = [held.take(space) for _ in range(4)]
    for address in taken:
        held.die(address)
    assert held.take(space) == "10.2.0.6"
    assert [held.take(space) for _ in range(4)] == taken
    with pytest.raises(NetworkError, match="no address left"):
        held.take(space)


def test_letting_go_spares_what_is_held(held, folder):
    """The clean-up of a dead owner can't take the address from whoever has it now."""
    address = held.take(subnet())
    assert not leases.let_go(f"{folder}/{address}")
    assert os.path.exists(f"{folder}/{address}")
    assert leases.let_go(f"{folder}/10.2.0.5")
    assert leases.let_go(f"{folder}-not-there/10.2.0.5")


def test_telling_takes_nothing(held, folder):
    space = subnet()
    assert leases.would_be(folder, space) == read("10.2.0.2")[1]
    assert not os.path.exists(folder)
    held.take(space)
    for _ in range(2):
        assert leases.would_be(folder, space) == read("10.2.0.3")[1]
    with pytest.raises(NetworkError, match="is taken by"):
        leases.would_be(folder, space, read("10.2.0.2")[1], "web")
    for _ in range(4):
        held.take(space)
    with pytest.raises(NetworkError, match="no address left"):
        leases.would_be(folder, space, network="web")
    held.die("10.2.0.4")
    assert leases.would_be(folder, space) == read("10.2.0.4")[1]
    assert os.path.exists(f"{folder}/10.2.0.4")


def test_a_damaged_note_begins_anew(held, folder):
    held.take(subnet())
    with open(f"{folder}/.4", "wb") as file:
        file.write(b"\xff\0nonsense")
    assert held.take(subnet()) == "10.2.0.3"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (f"{tmp_path}/file", f"{tmp_path}/file/id"):
        with pytest.raises(StorageError, match=folder):
            leases.take(folder, subnet(), ONE)


def test_no_descriptor_is_left_open(held, folder):
    before = os.listdir("/proc/self/fd")
    space = subnet()
    for _ in range(5):
        held.take(space)
    with pytest.raises(NetworkError):
        held.take(space)
    with pytest.raises(NetworkError):
        held.take(space, "10.2.0.2")
    leases.held(folder)
    leases.busy(folder)
    for address in ("10.2.0.2", "10.2.0.3", "10.2.0.4", "10.2.0.5", "10.2.0.6"):
        held.give(address)
    assert len(os.listdir("/proc/self/fd")) == len(before)
