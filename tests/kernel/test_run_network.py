"""`tarbox run` on networks: which address and ports it has, who else is there, and what is refused with its reason."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import time

import pytest

import roots
from boxes import until
from conftest import Tarbox
from kernel.attacks import tools
from testhost import interfaces, tables

ANSWER = "while true; do echo answer | nc -l -p 80; done & echo ready; cat"


@contextlib.contextmanager
def living(tarbox, *words, script="echo ready; cat", image=None):
    """A container that lives meanwhile, and says `ready` first."""
    running = tarbox.start("run", "-i", *words, image, "sh", "-c", script)
    try:
        line = running.stdout.readline()
        assert line == b"ready\n", running.communicate()[1].decode()
        yield running
    finally:
        running.stdin.close()
        running.stdin = None
        running.communicate(timeout=30)


def address(tarbox, *words, image):
    """The IPv4 address of eth0 that a container sees."""
    return re.findall(r"inet ([0-9.]+)/", tarbox.output("run", *words, image, "ip", "address", "show", "eth0"))[0]


def get(port, host="127.0.0.1", family=socket.AF_INET):
    """What the container's listener says; between two connections there is none for a moment."""
    end = time.monotonic() + 10
    while True:
        try:
            if answer := get_once(port, host, family):
                return answer
        except ConnectionError:
            pass
        assert time.monotonic() < end, "nobody answers"
        time.sleep(0.02)


def get_once(port, host="127.0.0.1", family=socket.AF_INET):
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect((host, port))
        return client.recv(100)


@pytest.fixture
def image(rootfs_busybox):
    return f"{rootfs_busybox}:O"


@pytest.fixture(autouse=True)
def all_gone():
    """After a test nothing of a network is in the kernel."""
    yield
    until(lambda: interfaces() == {"lo"} and not tables())


def test_a_container_has_an_address_and_a_way_out(tarbox, image):
    text = tarbox.output("run", image, "sh", "-c", "ip -o address; ip route; hostname; cat /etc/hosts; ip -o link")
    assert "inet 10.211.0.2/16" in text
    assert "default via 10.211.0.1 dev eth0" in text
    name = re.search(r"^[0-9a-f]{12}$", text, re.MULTILINE)[0]
    assert f"10.211.0.2\t{name}\n" in text
    assert "link/ether 02:42:0a:d3:00:02" in text
    with living(tarbox, image=image):
        found = [address(tarbox, image=image) for _ in range(3)]
        assert len(set(found)) == 3, "an address that was just given back isn't somebody else's at once"


def test_published_ports_lead_into_it(tarbox, image):
    with living(tarbox, "-p", "8080:80", "-p", "127.0.0.2:81:80", image=image, script=ANSWER):
        assert get(8080) == get(81, "127.0.0.2") == b"answer\n"
        assert get(8080, "::1", socket.AF_INET6) == b"answer\n"
        said = tools.complained(tarbox("run", "-p", "8080:80", image, "true"))
        assert "port 8080/tcp is already in use on the host" in said
    with pytest.raises(ConnectionRefusedError):
        get_once(8080)
    with living(tarbox, "-p", "8080:80", image=image, script=ANSWER):  # at once free for another
        assert get(8080) == b"answer\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--userns", "auto"), ("--init",), ("--privileged",), ("--cap-drop", "ALL"), ("--read-only",),
        ("-u", "guest"), ("-m", "64m"), ("--security-opt", "no-new-privileges"), ("--pid", "host"),
        ("--userns", "auto", "--cap-drop", "ALL", "--init"),
    ],
)  # fmt: skip
def test_with_other_options_a_published_port_leads_into_it(tarbox, plain_folder, words):
    image = f"{roots.busybox(plain_folder / 'image')}:O"
    with living(tarbox, *words, "-p", "8080:80", image=image, script=ANSWER):
        assert get(8080) == b"answer\n"


def test_on_a_terminal(tarbox, image):
    keys, side = pty.openpty()
    try:
        running = tarbox.start(
            "run", "-it", "-p", "8080:80", image, "sh", "-c", ANSWER, stdin=side, stdout=side, stderr=side
        )
        assert os.read(keys, 100) == b"ready\r\n"
        assert get(8080) == b"answer\n"
        os.write(keys, b"\x04")
        assert running.wait(30) == 0
    finally:
        os.close(keys)
        os.close(side)


def test_in_systemd_mode(tarbox, image):
    text = tarbox.output("run", "--systemd=always", "-p", "8080:80", image, "ip", "-o", "address", "show", "eth0")
    assert "inet 10.211.0.2/16" in text


def test_a_network_by_its_name_or_id(tarbox, image):
    id = tarbox.output("network", "create", "--subnet", "10.2.0.0/24", "--ipv6", "web").strip()
    for word in ("web", id, id[:6]):
        text = tarbox.output("run", "--network", word, image, "ip", "-o", "address", "show", "eth0")
        assert "inet 10.2.0." in text
        assert "inet6 fd" in text
    said = tools.complained(tarbox("run", "--network", "wbe", image, "true"))
    assert "there is no network 'wbe' (did you mean web?)" in said
    said = tools.complained(tarbox("run", "--network", "brigde", image, "true"))
    assert "did you mean bridge?" in said


def test_addresses_that_are_asked_for(tarbox, image):
    tarbox.output("network", "create", "--subnet", "10.2.0.0/24", "--subnet", "fd00:2::/64", "web")
    words = ("--network", "web", "--ip", "10.2.0.77", "--ip6", "fd00:2::77", "--mac-address", "02:42:ac:11:00:02")
    with living(tarbox, *words, image=image):
        said = tools.complained(tarbox("run", *words[:4], image, "true"))
        assert "10.2.0.77 is taken by the container" in said
        said = tools.complained(tarbox("run", "--network", "web", "--ip6", "fd00:2::77", image, "true"))
        assert "fd00:2::77 is taken by the container" in said
    text = tarbox.output("run", *words, image, "ip", "address", "show", "eth0")
    for part in ("inet 10.2.0.77/24", "inet6 fd00:2::77/64", "link/ether 02:42:ac:11:00:02"):
        assert part in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ip", "10.2.1.7"), "10.2.1.7 is not in 10.2.0.0/24, the subnet of the network web"),
        (("--ip", "10.2.0.1"), "10.2.0.1 can't be a container's: it is the gateway's"),
        (("--ip", "10.2.0.0"), "10.2.0.0 can't be a container's: it is the subnet's own"),
        (("--ip", "10.2.0.255"), "it is for broadcasts"),
        (("--ip", "10.2.0"), "'10.2.0' is not an address"),
        (("--ip", "fd00::2"), "fd00::2"),
        (("--ip6", "fd00::2"), "the network web has no IPv6"),
        (("--mac-address", "01:42:ac:11:00:02"), "01:42:ac:11:00:02"),
        (("--mac-address", "nonsense"), "nonsense"),
        (("-p", "80:80/tpc"), "tpc"),
        (("-p", "99999:80"), "99999"),
        (("-p", "192.0.2.1:80:80"), "this host has no address 192.0.2.1"),
        (("--net", "none", "--ip", "10.2.0.7"), "--ip 10.2.0.7 can't be had with --network none"),
        (("--net", "host", "--mac-address", "02:42:ac:11:00:02"), "can't be had with --network host"),
        (("--net", "none", "-p", "80:80"), "-p can't go with --network none"),
    ],
)
def test_what_cant_be_is_refused(tarbox, image, words, said):
    """With the reason, and nothing stays taken."""
    tarbox.output("network", "create", "--subnet", "10.2.0.0/24", "web")
    assert said in tools.complained(tarbox("run", "--network", "web", *words, image, "true"))
    assert not os.path.exists(states(tarbox) + f"/{network_id(tarbox, 'web')}")


def states(tarbox):
    name = str(tarbox.root).strip("/").replace("-", "%2d").replace("/", "-")
    return f"/run/tarbox/{name}/networks"


def network_id(tarbox, name):
    return json.loads(tarbox.output("network", "inspect", name))[0]["Id"]


def test_the_last_word_for_a_network_counts(tarbox, image):
    tarbox.output("network", "create", "web")
    for words, found in ((("web", "none"), {"lo"}), (("none", "web"), {"lo", "eth0"})):
        options = [part for word in words for part in ("--network", word)]
        done = tarbox("run", *options, image, "ls", "/sys/class/net")
        assert (done.returncode, set(done.stdout.split())) == (0, found), done.stderr


def test_ports_with_the_hosts_network_are_told_of(tarbox, image):
    """As other engines do: they are left out, with a word about it."""
    done = tarbox("run", "--net", "host", "-p", "8080:80", image, "true")
    assert done.returncode == 0
    assert "-p is without effect" in done.stderr


def test_one_container_in_the_network_of_another(tarbox, image, tmp_path):
    """By the beginning of its id: the same interface, and each other's ports by loopback."""
    with living(tarbox, "--cidfile", tmp_path / "id", "-p", "8080:80", image=image):
        id = (tmp_path / "id").read_text().strip()
        other = ("--network", f"container:{id[:12]}", "--pid", f"container:{id[:8]}", "--ipc", f"container:{id}")
        text = tarbox.output("run", *other, image, "sh", "-c", "ip -o address show eth0; ps")
        assert "inet 10.211.0.2/16" in text
        assert "cat" in text
        with living(tarbox, *other[:2], image=image, script=ANSWER):
            assert get(8080) == b"answer\n"
        said = tools.complained(tarbox("run", *other[:2], "-p", "81:81", image, "true"))
        assert "-p" in said or "81" in said
    said = tools.complained(tarbox("run", "--network", f"container:{id[:12]}", image, "true"))
    assert id[:12] in said


def test_neighbours_see_each_other_and_two_data_roots_dont_mind(tarbox, image, test_host, tmp_path):
    """Each data root has a bridge, rules and addresses of its own."""
    other = Tarbox(test_host, tmp_path / "other")
    with living(tarbox, image=image, script=ANSWER), living(other, image=image, script=ANSWER):
        assert len(interfaces()) == 1 + 2 + 2
        assert len(tables()) == 4
        for command in (tarbox, other):
            network = json.loads(command.output("network", "inspect", "bridge"))[0]
            (only,) = network["Containers"].values()
            at = only["IPv4Address"].partition("/")[0]
            assert command.output("run", image, "sh", "-c", f"until nc {at} 80; do sleep 0.02; done") == "answer\n"
        subnets = {json.loads(one.output("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Subnet"]
                   for one in (tarbox, other)}  # fmt: skip
        assert len(subnets) == 2


def test_two_machines_side_by_side(tarbox, image):
    """Two hosts with a network namespace and a /run of their own: the same data root's path, and nothing shared."""
    words = tarbox.command("run", "-p", "8080:80", image, "ip", "-o", "address", "show", "eth0")
    script = 'mount -t tmpfs run /run; ip link set lo up; exec "$@"'
    entered = ["unshare", "-mn", "--propagation", "private", "sh", "-c", script, "sh", *words]
    both = [
        subprocess.Popen(entered, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=tarbox.environment())
        for _ in range(2)
    ]
    for one in both:
        text, errors = one.communicate(timeout=60)
        assert (one.returncode, errors) == (0, b"")
        assert b"inet 10.211.0.2/16" in text


@pytest.mark.parametrize("count", [12, pytest.param(50, marks=pytest.mark.long)])
def test_many_at_once_on_one_network(tarbox, image, count):
    """None fails, and while they live no address is given twice."""
    address(tarbox, image=image)
    script = "ip -o -4 address show eth0; read line"
    all_ = [tarbox.start("run", "-i", "-p", "80", image, "sh", "-c", script) for _ in range(count)]
    found = [re.findall(rb"inet ([0-9.]+)/", one.stdout.readline()) for one in all_]
    for one in all_:
        one.stdin.close()
        one.stdin = None
        assert one.communicate(timeout=60)[1] == b""
        assert one.wait() == 1, "the end of the input, for read"
    assert len({at[0] for at in found}) == count


def test_many_short_ones_at_once(tarbox, image):
    """The bridge goes and comes while others start: none of them fails."""
    for _ in range(3):
        started = [tarbox.start("run", image, "ip", "-o", "address", "show", "eth0") for _ in range(8)]
        for one in started:
            text, errors = one.communicate(timeout=60)
            assert (one.returncode, errors) == (0, b"")
            assert b"inet 10.211." in text
        time.sleep(0.25)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_any_moment(tarbox, image, number):
    """It ends with the signal's or the program's code, and leaves nothing."""
    tarbox.output("run", image, "true")
    for turn in range(24):
        started = tarbox.start("run", "-p", "8080:80", image, "sh", "-c", "trap 'exit 7' INT TERM; sleep 9 & wait")
        time.sleep(0.002 * turn + (0.03 if turn % 2 else 0))
        started.send_signal(number)
        try:
            errors = started.communicate(timeout=5)[1].decode()
        except subprocess.TimeoutExpired:  # the program had no handler yet, and as process 1 no ear for it
            started.kill()
            started.communicate()
            continue
        assert started.returncode in (7, 128 + number, -number), (turn, errors)
        assert "Traceback" not in errors or started.returncode == -number, errors
    tarbox.output("run", "-p", "8080:80", image, "true")


def test_a_plain_user_is_told_why_not(plain_tarbox, plain_folder):
    image = roots.busybox(plain_folder / "image")
    subprocess.run(["chown", "-R", f"{plain_tarbox.user}:{plain_tarbox.user}", image], check=True)
    for words in (("--network", "bridge"), ("-p", "8080:80"), ("-P",), ("--network", "web")):
        said = tools.complained(plain_tarbox("run", *words, image, "true"))
        assert "a plain user may make no interface on the host" in said
    assert plain_tarbox.output("run", image, "ls", "/sys/class/net").split() == ["lo"]


def test_rules_that_somebody_took_away_are_made_again(tarbox, image):
    """One of the two tables, or both; what another container had in them is lost, and the new one works."""
    with living(tarbox, image=image):
        for families in (("bridge",), ("inet",), ("inet", "bridge")):
            here = sorted(tables())
            for family in families:
                name = here[0].partition(" ")[2]
                subprocess.run(["nft", "delete", "table", family, name], check=True)
            with living(tarbox, "-p", "8080:80", image=image, script=ANSWER):
                assert get(8080) == b"answer\n"
                assert sorted(tables()) == here


def test_explaining_ports_changes_nothing_and_needs_no_root(plain_tarbox, tarbox, image):
    text = tarbox.output("explain", "run", "-p", "8080:80", "-p", "[::1]:53:53/udp", "-p", "81", image, "true")
    assert re.search(r"inet ports4 \{ tcp \. 8080 : 10\.211\.0\.2 \. 80 \}", " ".join(text.split()))
    assert "ip link add" in text
    assert not (tarbox.root / "networks").exists()
    assert not os.path.exists(states(tarbox))
    assert (interfaces(), tables()) == ({"lo"}, set())
    said = tools.complained(plain_tarbox("explain", "run", "-p", "8080:80", "host", "true"))
    assert "a plain user may make no interface on the host" in said
