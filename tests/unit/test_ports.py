"""Docker's words for ports: what each leads to, and that what can't be meant is refused with an example."""

from __future__ import annotations

import pytest

from tarbox.engine.options import RunOptions
from tarbox.engine.publishing import published
from tarbox.errors import ImageError, UsageError
from tarbox.networks.ports import Port, expose, read, with_exposed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", Port("tcp", "", 8080, 8080, 80)),
        ("80", Port("tcp", "", 0, 0, 80)),
        (":80", Port("tcp", "", 0, 0, 80)),
        ("0:80", Port("tcp", "", 0, 0, 80)),
        ("80/", Port("tcp", "", 0, 0, 80)),
        ("53/udp", Port("udp", "", 0, 0, 53)),
        ("5353:53/UDP", Port("udp", "", 5353, 5353, 53)),
        ("5000:5000/sctp", Port("sctp", "", 5000, 5000, 5000)),
        ("127.0.0.1:8080:80", Port("tcp", "127.0.0.1", 8080, 8080, 80)),
        ("127.0.0.1::80", Port("tcp", "127.0.0.1", 0, 0, 80)),
        ("0.0.0.0:8080:80", Port("tcp", "0.0.0.0", 8080, 8080, 80)),
        ("[::1]:8080:80", Port("tcp", "::1", 8080, 8080, 80)),
        ("[::]:8080:80/udp", Port("udp", "::", 8080, 8080, 80)),
        ("[fd00:0:0::0007]::80", Port("tcp", "fd00::7", 0, 0, 80)),
        ("::1:8080:80", Port("tcp", "::1", 8080, 8080, 80)),  # Docker reads it without brackets, too
        ("[::ffff:10.0.0.1]:8080:80", Port("tcp", "10.0.0.1", 8080, 8080, 80)),
        (":8080:80", Port("tcp", "", 8080, 8080, 80)),
        ("8000-8010:80", Port("tcp", "", 8000, 8010, 80)),
        ("127.0.0.1:8000-8010:80/udp", Port("udp", "127.0.0.1", 8000, 8010, 80)),
        ("8000-8000:80-80", Port("tcp", "", 8000, 8000, 80)),
        ("1:65535", Port("tcp", "", 1, 1, 65535)),
        ("published=8080,target=80", Port("tcp", "", 8080, 8080, 80)),
        ("target=53,protocol=udp", Port("udp", "", 0, 0, 53)),
    ],
)
def test_one_port(text, expected):
    assert read(text) == [expected]


def test_ranges_go_by_pairs():
    assert [(port.host_first, port.host_last, port.container) for port in read("8000-8002:9000-9002")] == [
        (8000, 8000, 9000), (8001, 8001, 9001), (8002, 8002, 9002),
    ]  # fmt: skip
    assert read("9000-9001/udp") == [Port("udp", "", 0, 0, 9000), Port("udp", "", 0, 0, 9001)]
    assert read("127.0.0.1::9000-9001")[1] == Port("tcp", "127.0.0.1", 0, 0, 9001)
    assert len(read("1-65535:1-65535")) == 65535


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no port of the container"),
        ("8080:", "names no port of the container"),
        ("8080:/tcp", "names no port of the container"),
        ("http:80", "'http' is not a port"),
        ("80:http", "'http' is not a port"),
        ("8080:0", "there is no port 0"),
        ("8080:65536", "there is no port 65536"),
        ("99999999999999999999:80", "there is no port 99999999999999999999"),
        ("-1:80", "'-1' is not a port"),
        ("8080:8_0", "'8_0' is not a port"),
        ("8080:٨", "is not a port"),
        (" 8080:80", "' 8080' is not a port"),
        ("80/tls", "there is no protocol 'tls' for ports"),
        ("8080/tcp:80", "the protocol in its midst"),
        ("9000-8000:80", "'9000-8000' ends before it begins (e.g. 8000-9000)"),
        ("8000-:80", "'8000-' is not a port"),
        ("0-10:80", "begins with 0"),
        ("8000-8001:9000-9002", "has 2 ports of the host for 3 of the container"),
        ("8000:9000-9002", "has 1 ports of the host for 3 of the container"),
        ("localhost:8080:80", "'localhost' is not an address"),
        ("10.0.0:8080:80", "'10.0.0' is not an address"),
        ("[::1:8080:80", "'[::1' is not an address"),
        ("[::1]:80", "has one port behind the address"),
        ("[::1]", "is an address without ports"),
        ("[fe80::1%eth0]:8080:80", "valid on one interface"),
        ("published=8080", "names no port of the container"),
        ("published=8080,port=80", "'port=80' is not a part of a port"),
        ("published=8080,target=80,mode=both", "'both' is not a mode of ports"),
        ("8080:80\n", "is not a port"),
    ],
)
def test_what_cant_be_meant_is_refused_with_an_example(text, said):
    with pytest.raises(UsageError) as raised:
        read(text)
    message = str(raised.value)
    assert said in message
    assert raised.value.hint
    assert "\n" not in message
    assert len(message) < 250


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("tcp", 80)]),
        ("53/udp", [("udp", 53)]),
        ("3000-3002", [("tcp", 3000), ("tcp", 3001), ("tcp", 3002)]),
    ],
)
def test_exposed_ports(text, expected):
    found = expose(text)
    assert [(port.protocol, port.container) for port in found] == expected
    assert {(port.address, port.host_first) for port in found} == {("", 0)}


@pytest.mark.parametrize("text", ["", "8080:80", "http", "80/tls", "0", "70000", "5-4", "127.0.0.1:80"])
def test_what_isnt_a_port_cant_be_exposed(text):
    with pytest.raises(UsageError):
        expose(text)


def test_publish_all_takes_what_is_exposed_and_not_published_already():
    asked = [*read("8080:80"), *read("53/udp")]
    exposed = [*expose("80"), *expose("53"), *expose("53/udp"), *expose("443"), *expose("443")]
    assert with_exposed(asked, exposed) == [*asked, Port("tcp", "", 0, 0, 53), Port("tcp", "", 0, 0, 443)]


def test_a_port_tells_of_the_hosts_side():
    assert read("8080:80")[0].host() == "8080/tcp"
    assert read("[::1]:8000-8010:80/udp")[0].host() == "[::1]:8000-8010/udp"
    assert read("127.0.0.1::80")[0].at(4711).host() == "127.0.0.1:4711/tcp"


def options(network: str = "bridge", publish: str = "", publish_all: bool = False, exposed: str = "") -> RunOptions:
    made = RunOptions("host")
    made.network, made.publish_all = network, publish_all
    made.ports = read(publish) if publish else []
    made.expose = expose(exposed) if exposed else []
    return made


def test_the_images_ports_are_published_only_when_all_are():
    image = {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}
    warnings: list[str] = []
    assert published(options(exposed="9000"), image, warnings) == []
    found = published(options(publish="8080:80", publish_all=True, exposed="9000"), image, warnings)
    assert [(port.host_first, port.container, port.protocol) for port in found] == [
        (8080, 80, "tcp"), (0, 9000, "tcp"), (0, 53, "udp"),
    ]  # fmt: skip
    assert published(options(publish_all=True), {}, warnings) == []
    assert published(options(publish_all=True), {"ExposedPorts": None}, warnings) == []
    assert not warnings


@pytest.mark.parametrize("text", ["http", "80/tls\n", "0", ""])
def test_an_image_that_exposes_what_is_no_port_is_told_of(text):
    with pytest.raises(ImageError, match="the image exposes what is no port") as raised:
        published(options(publish_all=True), {"ExposedPorts": {text: {}}}, [])
    assert "\n" not in str(raised.value)


def test_with_the_hosts_network_publishing_is_ignored_with_a_word():
    warnings: list[str] = []
    assert published(options("host", "8080:80"), {}, warnings) == []
    assert warnings == ["-p is without effect: with --network host each port of the container is the host's own"]


@pytest.mark.parametrize("network", ["none", "/proc/1/ns/net"])
def test_without_a_network_of_its_own_publishing_is_refused(network):
    with pytest.raises(UsageError, match="-p can't go with"):
        published(options(network, "8080:80"), {}, [])
    with pytest.raises(UsageError, match="-P can't go with"):
        published(options(network, publish_all=True, exposed="80"), {}, [])
    assert published(options(network, publish_all=True), {}, []) == []
