"""Published ports: which of the host lead to which of a container, in Docker's words.

    docker run -p 8080:80 -p 127.0.0.1:5353:53/udp -p 8000-8002:9000-9002 -p 80 IMAGE

    [ADDRESS:][HOST[-LAST]:]CONTAINER[-LAST][/tcp|udp|sctp]

Without HOST it is a free one that the kernel chooses. As many ports of the host as of the container go by pairs;
several of the host for one of the container are a choice: the first that is free. Without ADDRESS all of the host's
count.

https://docs.docker.com/engine/network/port-publishing/
"""

from __future__ import annotations

from ..errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TCP, UDP, SCTP = "tcp", "udp", "sctp"
PROTOCOLS = {TCP: 6, UDP: 17, SCTP: 132}  # their numbers, man 5 protocols

_EXAMPLES = "e.g. 8080:80, 127.0.0.1:8080:80, 80 or 5353:53/udp"
_EXPOSED = "e.g. 80, 53/udp or 3000-3005"
_LAST = 65535


class Port:
    """One port of a container, and the one of the host that leads to it.

    protocol: "tcp", "udp" or "sctp". address: of the host, "" for all of them. host_first, host_last: any of these of
    the host's, as a rule a single one; 0 is one that the kernel chooses. container: the port there.
    """

    __slots__ = ("address", "container", "host_first", "host_last", "protocol")

    def __init__(self, protocol: str, address: str, host_first: int, host_last: int, container: int) -> None:
        self.protocol = protocol
        self.address = address
        self.host_first = host_first
        self.host_last = host_last
        self.container = container

    def at(self, host: int) -> Port:
        """The same with this port of the host."""
        return Port(self.protocol, self.address, host, host, self.container)

    def host(self) -> str:
        """The host's side for people: `8080/tcp`, `127.0.0.1:8080-8090/tcp`, `[::1]:53/udp`."""
        address = f"[{self.address}]:" if ":" in self.address else f"{self.address}:" if self.address else ""
        numbers = f"{self.host_first}" if self.host_first == self.host_last else f"{self.host_first}-{self.host_last}"
        return f"{address}{numbers}/{self.protocol}"

    def _values(self) -> tuple[str, str, int, int, int]:
        return self.protocol, self.address, self.host_first, self.host_last, self.container

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Port) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return "Port({!r}, {!r}, {}, {}, {})".format(*self._values())


def read(text: str) -> list[Port]:
    """The ports of one `--publish`, one for each of the container's; raises UsageError that says what is wrong.

    Docker's longer form, `published=8080,target=80,protocol=udp`, is understood as well.
    """
    if "=" in text:
        text = _of_pairs(text)
    address, host, container = _split(text)
    if "/" in host:
        raise UsageError(f"{text[:60]!r} has the protocol in its midst", f"it goes last, {_EXAMPLES}")
    numbers, protocol = _protocol(container)
    if not numbers:
        raise UsageError(f"{text[:60]!r} names no port of the container", _EXAMPLES)
    first, last = _range(numbers, 1, _EXAMPLES)
    host_first, host_last = _range(host, 0, _EXAMPLES) if host else (0, 0)
    if address:
        address = _address(address)
    if first == last:
        return [Port(protocol, address, host_first, host_last, first)]
    if host and host_last - host_first != last - first:
        raise UsageError(
            f"{text[:60]!r} has {host_last - host_first + 1} ports of the host for {last - first + 1} of the container",
            "as many of each, or a single one of the container, e.g. 8000-8002:9000-9002 or 8000-8010:80",
        )
    found = []
    for step in range(last - first + 1):
        at = host_first + step if host_first else 0
        found.append(Port(protocol, address, at, at, first + step))
    return found


def expose(text: str) -> list[Port]:
    """The ports of one `--expose` (`80`, `3000-3005/udp`), each at any free port of the host if it is published."""
    numbers, protocol = _protocol(text)
    first, last = _range(numbers, 1, _EXPOSED)
    return [Port(protocol, "", 0, 0, number) for number in range(first, last + 1)]


def with_exposed(ports: list[Port], exposed: Iterable[Port]) -> list[Port]:
    """What `--publish-all` publishes: these ports, and the exposed ones that none of them leads to."""
    found, known = list(ports), {(port.protocol, port.container) for port in ports}
    for port in exposed:
        if (port.protocol, port.container) not in known:
            known.add((port.protocol, port.container))
            found.append(port)
    return found


def _of_pairs(text: str) -> str:
    values = {"published": "", "target": "", "protocol": TCP, "mode": "host"}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals or name not in values:
            raise UsageError(f"{pair[:60]!r} is not a part of a port", "e.g. published=8080,target=80,protocol=tcp")
        values[name] = value
    if values["mode"] not in ("host", "ingress"):
        raise UsageError(f"{values['mode'][:60]!r} is not a mode of ports", "leave it out")
    return f"{values['published']}:{values['target']}/{values['protocol']}"


def _split(text: str) -> tuple[str, str, str]:
    """Address, host and container; the address may have colons of its own."""
    rest, colon, container = text.rpartition(":")
    if "]" in container:
        raise UsageError(f"{text[:60]!r} is an address without ports", "e.g. [::1]:8080:80")
    if not colon:
        return "", "", container
    address, colon, host = rest.rpartition(":")
    if "]" in host:
        raise UsageError(
            f"{text[:60]!r} has one port behind the address",
            f"{rest[:50]}:8080:80, or {rest[:50]}::80 for any port of the host",
        )
    return address, host, container


def _protocol(text: str) -> tuple[str, str]:
    numbers, _, protocol = text.partition("/")
    protocol = protocol.lower() if protocol else TCP
    if protocol not in PROTOCOLS:
        raise UsageError(f"there is no protocol {protocol[:60]!r} for ports", "tcp, udp or sctp, e.g. 5353:53/udp")
    return numbers, protocol


def _range(text: str, least: int, examples: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    ends = [_number(first, text, least, examples)]
    ends.append(_number(last, text, least, examples) if dash else ends[0])
    if ends[0] > ends[1]:
        raise UsageError(f"{text[:60]!r} ends before it begins", f"e.g. {ends[1]}-{ends[0]}")
    if ends[1] and not ends[0]:
        raise UsageError(f"{text[:60]!r} begins with 0, which is no port", "leave the range out for any free port")
    return ends[0], ends[1]


def _number(text: str, whole: str, least: int, examples: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"{whole[:60]!r} is not a port", examples)
    if len(text) > 9 or not least <= int(text) <= _LAST:
        raise UsageError(f"there is no port {text[:60]}", f"they go from 1 to {_LAST}, {examples}")
    return int(text)


def _address(text: str) -> str:
    """An address of the host as the kernel writes it."""
    plain = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            packed = _socket.inet_pton(family, plain)
        except (OSError, ValueError):
            continue
        if packed.startswith(bytes(10) + b"\xff\xff"):  # an IPv4 address in the clothes of an IPv6 one
            return _socket.inet_ntop(_socket.AF_INET, packed[12:])
        return _socket.inet_ntop(family, packed)
    if "%" in plain:
        raise UsageError(f"{text[:60]!r}: an address that is valid on one interface can't be published", _EXAMPLES)
    raise UsageError(
        f"{text[:60]!r} is not an address", "one of the host's own, in numbers, e.g. 127.0.0.1:8080:80 or [::1]:8080:80"
    )
