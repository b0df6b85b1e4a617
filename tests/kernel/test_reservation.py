"""Ports of the host are really taken, all or none, and who can't have one is told why."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys

import pytest

from tarbox.errors import PortError, UnsupportedError
from tarbox.networks.ports import read
from tarbox.networks.reservation import reserve
from testhost import CHECKOUT


def asked(*texts: str):
    return [port for text in texts for port in read(text)]


def taken(address: str, port: int, kind: int = socket.SOCK_STREAM) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as other:
        if family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((address, port))
        except OSError:
            return True
        return False


@pytest.mark.parametrize(("suffix", "kind"), [("", socket.SOCK_STREAM), ("/udp", socket.SOCK_DGRAM)])
def test_a_port_is_taken_at_all_addresses_of_both_families_until_it_is_given_back(suffix, kind):
    everywhere = ("0.0.0.0", "127.0.0.1", "::", "::1")
    with reserve(asked(f"8080:80{suffix}")) as got:
        assert [taken(address, 8080, kind) for address in everywhere] == [True] * 4
        assert len(got.ports) == len(got.sockets) == 1
    assert [taken(address, 8080, kind) for address in everywhere] == [False] * 4
    assert not got.sockets


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("127.0.0.1:8080:80", ("127.0.0.1", "0.0.0.0"), ("127.0.0.2", "::1")),
        ("0.0.0.0:8080:80", ("127.0.0.1", "0.0.0.0"), ("::1", "::")),
        ("[::1]:8080:80", ("::1", "::"), ("127.0.0.1", "0.0.0.0")),
        ("[::]:8080:80", ("::1", "::"), ("127.0.0.1", "0.0.0.0")),
    ],
)
def test_with_an_address_it_is_taken_there_alone(text, yes, no):
    with reserve(asked(text)):
        assert [taken(address, 8080) for address in yes] == [True, True]
        assert [taken(address, 8080) for address in no] == [False, False]


def test_a_free_port_is_the_same_for_both_families():
    with reserve(asked("80", "81", "53/udp", "127.0.0.1::82")) as got:
        numbers = [port.host_first for port in got.ports]
        assert all(1024 < number < 65536 for number in numbers)
        assert [(port.container, port.protocol, port.address) for port in got.ports] == [
            (80, "tcp", ""), (81, "tcp", ""), (53, "udp", ""), (82, "tcp", "127.0.0.1"),
        ]  # fmt: skip
        assert all(port.host_first == port.host_last for port in got.ports)
        assert [taken(address, numbers[0]) for address in ("127.0.0.1", "::1")] == [True, True]
        assert [os.fstat(number).st_ino for number in got.sockets]


def test_of_a_range_it_is_the_first_that_is_free():
    with socket.create_server(("127.0.0.1", 8000)), reserve(asked("8000-8003:80", "8000-8003:81", "8001:82")) as got:
        assert [port.host_first for port in got.ports] == [8002, 8003, 8001]
    with (
        reserve(asked("8000-8001:80", "8000-8001:81")),
        pytest.raises(PortError, match=r"none of the ports 8000-8001/tcp of the host is free"),
    ):
        reserve(asked("8000-8001:82"))


@pytest.mark.parametrize(
    ("text", "address", "kind", "command"),
    [
        ("8080:80", "127.0.0.1", socket.SOCK_STREAM, "ss -ltnp 'sport = :8080'"),
        ("8080:80", "::1", socket.SOCK_STREAM, "ss -ltnp"),
        ("127.0.0.1:8080:80", "0.0.0.0", socket.SOCK_STREAM, "ss -ltnp"),
        ("8080:80/udp", "127.0.0.1", socket.SOCK_DGRAM, "ss -lunp 'sport = :8080'"),
    ],
)
def test_a_port_that_is_in_use_is_told_with_how_to_find_who(text, address, kind, command):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)  # ended connections
        other.bind((address, 8080))
        if kind == socket.SOCK_STREAM:
            other.listen()
        with pytest.raises(PortError) as raised:
            reserve(asked(text))
    assert f"{read(text)[0].host()} is already in use on the host" in str(raised.value)
    assert command in str(raised.value)


def test_what_was_taken_is_given_back_when_another_cant_be_had():
    before = os.listdir("/proc/self/fd")
    with socket.create_server(("127.0.0.1", 8082)), pytest.raises(PortError, match="8082/tcp"):
        reserve(asked("8080:80", "8081:81", "80", "8082:82"))
    assert os.listdir("/proc/self/fd") == before
    assert not taken("127.0.0.1", 8080)


def test_a_port_cant_lead_to_two():
    with pytest.raises(PortError, match="8080/tcp of the host can't be published twice, for 80 and 81"):
        reserve(asked("8080:80", "8080:81"))
    with pytest.raises(PortError, match="twice"):
        reserve(asked("8080:80", "127.0.0.1:8080:80"))
    with reserve(asked("8080:80", "8080:80", "8080:80/udp")) as got:
        assert [port.protocol for port in got.ports] == ["tcp", "udp"]


def test_connections_that_ended_dont_hold_a_port():
    with reserve(asked("8080:80")) as got, socket.create_connection(("127.0.0.1", 8080)):
        listening = socket.socket(fileno=os.dup(got.sockets[0]))
        listening.accept()[0].close()  # the first to close waits a minute
        listening.close()
    with reserve(asked("8080:80")):
        pass


def test_an_address_that_the_host_hasnt():
    for address in ("10.9.9.9", "fd99::9"):
        with pytest.raises(PortError, match=f"this host has no address {address}"):
            reserve(asked(f"[{address}]:8080:80"))


def test_a_kernel_without_sctp_is_told_of_before_anything_is_taken():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()
    except OSError:
        with pytest.raises(UnsupportedError, match="this kernel has no SCTP"):
            reserve(asked("8080:80", "5000:5000/sctp"))
        assert not taken("127.0.0.1", 8080)
        return
    with reserve(asked("5000:5000/sctp")), pytest.raises(PortError, match="5000/sctp is already in use"):
        reserve(asked("5000:5000/sctp"))


def test_only_root_may_take_low_ports(test_host):
    source = str(test_host.plain_main.parent.parent)
    program = (
        f"import sys; sys.path.insert(0, {source!r}); import os; os.setresuid(65533, 65533, 65533)\n"
        "from tarbox.networks.ports import read\nfrom tarbox.networks.reservation import reserve\n"
        "try:\n    reserve(read('80:80'))\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([test_host.plain_python, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("PortError port 80/tcp is below 1024, where only root may take one")
    assert "net.ipv4.ip_unprivileged_port_start" in done.stdout


MANY = """
import os, resource, subprocess, sys
sys.path.insert(0, sys.argv[1])
soft, hard = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
if sys.argv[4] == "plain":
    os.setresuid(65533, 65533, 65533)
from tarbox.networks.ports import read
from tarbox.networks.reservation import reserve
try:
    got = reserve(read("20001-22000:1-2000"))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
assert [port.host_first for port in got.ports] == list(range(20001, 22001))
assert len(set(got.sockets)) == 2000 and all(os.fstat(number) for number in got.sockets)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
more = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
said = subprocess.run(["sh", "-c", "ulimit -Sn; ulimit -Hn; ls /proc/self/fd | wc -l"], capture_output=True, text=True)
print(said.stdout.split())
"""


def many(soft: int, hard: int, user: str = "root", test_host=None) -> subprocess.CompletedProcess:
    source = str(test_host.plain_main.parent.parent if test_host else CHECKOUT / "src")
    python = test_host.plain_python if test_host else sys.executable
    words = [python, "-c", MANY, source, str(soft), str(hard), user]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.parametrize(("soft", "hard"), [(1024, 4096), (2100, 20000), (20000, 20000)])
def test_2000_ports_need_no_higher_limit_and_leave_room_for_the_rest(soft, hard):
    """What is started afterwards has the limits that were there before, and none of the sockets."""
    done = many(soft, hard)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"['{soft}', '{hard}', '4']"


def test_a_hard_limit_is_in_the_way_of_those_alone_who_may_not_raise_it():
    done = many(1024, 1024)
    if allowed_to_raise():
        assert done.stdout.strip() == "['1024', '1024', '4']"
    else:
        assert "PortError: 2000 ports need as many open files" in done.stderr


def allowed_to_raise() -> bool:
    program = "import resource as r; a = r.RLIMIT_NOFILE; r.setrlimit(a, (9, 9)); r.setrlimit(a, (9, 10))"
    return subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL).returncode == 0


def test_a_plain_user_has_as_many_as_the_hard_limit_lets_him(test_host):
    done = many(1024, 4096, "plain", test_host)
    assert done.returncode == 0, done.stderr
    done = many(1024, 1024, "plain", test_host)
    assert "PortError: 2000 ports need as many open files, and this process may have 1024" in done.stderr
    assert "ulimit -Hn" in done.stderr


def test_the_limit_is_the_same_afterwards_when_a_port_cant_be_had():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = (512, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, low)
    try:
        with socket.create_server(("127.0.0.1", 20500)), pytest.raises(PortError, match="20500/tcp"):
            reserve(asked("20001-20600:1-600"))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
