"""What somebody asks of a new network: its name, its subnets, its driver's options, checked without a look around.

    docker network create --subnet 10.2.0.0/24 --gateway 10.2.0.1 --ip-range 10.2.0.128/25 -o mtu=1400 web

Loaded only when a network is made.
"""

from __future__ import annotations

from ..errors import UnsupportedError, UsageError
from .addresses import first, last, overlap, read, read_subnet, text, text_of_subnet
from .choice import LARGEST
from .definition import BRIDGE_OPTIONS, MTU_OPTIONS, Subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Span = tuple[int, int, int]  # 4 or 6, the first address, how many bits are fixed

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_LONGEST_NAME, _LONGEST_INTERFACE = 200, 15
# What --network understands as something else than a name.
RESERVED = (
    "bridge", "host", "none", "default", "private", "container", "ns", "pid", "pidfd", "pasta", "slirp4netns",
)  # fmt: skip
_NO_INTERFACE = ("all", "default", "lo")  # the kernel's settings have other things by these names
_SMALLEST = {4: 30, 6: 126}  # a gateway and a container
_LEAST_MTU, _LEAST_MTU_SIX, _LARGEST_MTU = 68, 1280, 65535

# Parts of the Internet that can't be a network's: the first address, the fixed bits, and what they are.
_NEVER = (
    ("0.0.0.0/8", "this network"), ("127.0.0.0/8", "the loopback's"), ("224.0.0.0/4", "for multicast"),
    ("240.0.0.0/4", "reserved"), ("::/8", "reserved, the loopback's among them"), ("fe80::/10", "link-local"),
    ("ff00::/8", "for multicast"),
)  # fmt: skip

# Options of Docker's bridge with the value that they have here in any case.
_ALWAYS = {
    "com.docker.network.bridge.enable_icc": ("true", "containers of one network always reach each other"),
    "com.docker.network.bridge.enable_ip_masquerade": ("true", "--internal makes a network without a way out"),
    "com.docker.network.bridge.host_binding_ipv4": ("0.0.0.0", "-p ADDRESS:PORT:PORT says it for each port"),
    "com.docker.network.bridge.gateway_mode_ipv4": ("nat", "addresses are always translated on the way out"),
    "com.docker.network.bridge.gateway_mode_ipv6": ("nat", "addresses are always translated on the way out"),
    "com.docker.network.bridge.inhibit_ipv4": ("false", "the bridge always has the gateway's address"),
    "com.docker.network.container_iface_prefix": ("eth", "a container's interfaces are eth0, eth1 and so on"),
}


def name(word: str) -> str:
    """The name of a new network; raises UsageError for what can't be one."""
    if word in RESERVED or word.startswith(("container:", "ns:", "pid:", "pidfd:")):
        raise UsageError(f"{word[:60]!r} means something else after --network", "choose another name, e.g. web")
    if not word or not _LETTERS.issuperset(word) or not word[0].isalnum() or len(word) > _LONGEST_NAME:
        hint = f"letters, digits, _ . and -, a letter or digit first, at most {_LONGEST_NAME}"
        raise UsageError(f"{word[:60]!r} can't be the name of a network", hint)
    return word


def options(words: Mapping[str, str], ipv6: bool) -> dict[str, str]:
    """The driver's options; raises UsageError and UnsupportedError for those that aren't done here."""
    for key, value in words.items():
        if key in BRIDGE_OPTIONS:
            _interface(value)
        elif key in MTU_OPTIONS:
            _mtu(key, value, ipv6)
        elif key in _ALWAYS:
            only, why = _ALWAYS[key]
            if value.lower() != only:
                raise UnsupportedError(f"{key} is always {only}, not {value[:60]!r}", why)
        else:
            known = f"{', '.join((*BRIDGE_OPTIONS, *MTU_OPTIONS))} are there"
            raise UnsupportedError(f"a bridge has no option {key[:80]!r} here", known)
    for names in (BRIDGE_OPTIONS, MTU_OPTIONS):
        if len({words[each] for each in names if each in words}) > 1:
            raise UsageError(f"{names[0]} and {names[1]} say different things", "one of them is enough")
    return dict(words)


def checked(
    word: str,
    spans: Sequence[str],
    gateways: Sequence[str],
    ranges: Sequence[str],
    ipv6: bool,
    words: Mapping[str, str],
) -> tuple[list[Subnet], bool, dict[str, str]]:
    """All that is asked for: its subnets, whether there is IPv6, and its options. Raises for what can't be."""
    name(word)
    found = subnets(spans, gateways, ranges)
    six = ipv6 or any(subnet.version == 6 for subnet in found)
    return found, six, options(words, six)


def _interface(value: str) -> None:
    letters = _LETTERS.issuperset(value) and value[:1].isalnum()
    if not letters or len(value) > _LONGEST_INTERFACE or value in _NO_INTERFACE:
        hint = f"letters, digits, _ . and -, a letter or digit first, at most {_LONGEST_INTERFACE}"
        raise UsageError(f"{value[:60]!r} can't be the name of a bridge's interface", hint)


def _mtu(key: str, value: str, ipv6: bool) -> None:
    least = _LEAST_MTU_SIX if ipv6 else _LEAST_MTU
    number = int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else -1
    if number and not least <= number <= _LARGEST_MTU:
        why = f"{least} to {_LARGEST_MTU} bytes" + (", as IPv6 needs" if ipv6 else "")
        raise UsageError(f"{key}={value[:60]} is no size of packets", f"{why}; 0 for that of the default route")


def subnets(words: Sequence[str], gateways: Sequence[str] = (), ranges: Sequence[str] = ()) -> list[Subnet]:
    """The subnets that are asked for, each with its gateway and range; at most one of a protocol.

    Raises UsageError for what is wrong by itself, or goes with no subnet.
    """
    spans = [read_subnet(word) for word in words]
    if len({span[0] for span in spans}) < len(spans):
        raise UsageError(
            f"a network has one subnet of IPv4 and one of IPv6, and here are {', '.join(words)}",
            "make two networks; a container can be on both",
        )
    found: dict[Span, int] = {}
    for word in gateways:
        version, address = read(word)
        span = _around(spans, version, address, 128 if version == 6 else 32, f"the gateway {word}")
        if span in found:
            raise UsageError(f"{text_of_subnet(*span)} has two gateways", "one --gateway for a subnet")
        found[span] = address
    limits: dict[Span, Span] = {}
    for word in ranges:
        part = read_subnet(word)
        span = _around(spans, *part, f"the range {word}")
        if span in limits:
            raise UsageError(f"{text_of_subnet(*span)} has two ranges", "one --ip-range for a subnet")
        limits[span] = part
    return [laid_out(span, found.get(span), limits.get(span)) for span in spans]


def _around(spans: Sequence[Span], version: int, network: int, prefix: int, what: str) -> Span:
    for span in spans:
        if span[0] == version and span[2] <= prefix and overlap(version, network, prefix, *span[1:]):
            return span
    said = ", ".join(text_of_subnet(*span) for span in spans)
    raise UsageError(f"{what} is in no subnet of the network", f"--subnet {said}" if said else "it needs a --subnet")


def laid_out(span: Span, gateway: int | None = None, part: Span | None = None) -> Subnet:
    """A subnet with its gateway, the first address where none is given, and what containers are given of it.

    part: the range that they get addresses of, None for all. Raises UsageError.
    """
    version, network, prefix = span
    shown = text_of_subnet(*span)
    for word, what in _NEVER:
        kind, other, length = read_subnet(word)
        if kind == version and overlap(version, network, prefix, other, length):
            raise UsageError(f"{shown} can't be a network's: {word} is {what}", "e.g. 10.2.0.0/24 or fd00:2::/64")
    if not LARGEST <= prefix <= _SMALLEST[version]:
        why = "has no room for a gateway and a container" if prefix > LARGEST else "is too large"
        raise UsageError(f"{shown} {why}", f"from /{LARGEST} to /{_SMALLEST[version]}")
    lowest, highest = network + 1, last(version, network, prefix) - (version == 4)
    subnet = Subnet(version, network, prefix, lowest, lowest, highest)
    if gateway is not None:
        subnet.gateway = -1
        if not subnet.may_be_used(gateway):
            raise UsageError(
                f"the gateway {text(version, gateway)} can't be an address of its own in {shown}",
                f"e.g. {text(version, lowest)}",
            )
        subnet.gateway = gateway
    if part is not None:
        subnet.first = max(lowest, first(*part))
        subnet.last = min(highest, last(*part))
        if subnet.first > subnet.last or subnet.count() < 1:
            raise UsageError(
                f"the range {text_of_subnet(*part)} has no address for a container", "the gateway has one of its own"
            )
    return subnet
