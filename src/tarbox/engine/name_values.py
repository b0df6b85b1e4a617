"""The words of options about ports and names, read strictly: `--dns`, `--add-host` and the like become lines of files.

    docker run -p 8080:80 --dns 10.0.0.53 --dns-search example.org --add-host db:10.0.0.7 IMAGE

man 5 resolv.conf, man 5 hosts
"""

from __future__ import annotations

import _socket

from ..errors import UsageError
from ..networks import ports
from .values import shorten

port, exposed = ports.read, ports.expose

GATEWAY = "host-gateway"
_LONGEST = 253  # letters of a name, RFC 1035


def server(text: str) -> str:
    """The address of a name server."""
    return _address(text, "10.0.0.53 or fd00::53")


def domain(text: str) -> str:
    """A domain in which short names are looked for; `.` means none."""
    if text != ".":
        _check_name(text.removesuffix("."), text, "domain", "e.g. example.org, or . for none")
    return text


def option(text: str) -> str:
    """One word of the line `options` in resolv.conf."""
    letters = text.replace("-", "").replace("_", "").replace(":", "").replace(".", "")
    if not (letters.isascii() and letters.isalnum()) or len(text) > _LONGEST:
        raise UsageError(f"{shorten(text)!r} is not an option of resolv.conf", "e.g. ndots:2 or use-vc")
    return text


def added_host(text: str) -> tuple[str, str]:
    """Name and address of one `--add-host`: `db:10.0.0.7`, `db=10.0.0.7`, `db:fd00::7`, `db:[fd00::7]`."""
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not address:
        raise UsageError(f"{shorten(text)!r} is not a name with its address", "e.g. db:10.0.0.7")
    _check_name(name, name, "host name", "e.g. db:10.0.0.7")
    return name, GATEWAY if address == GATEWAY else _address(address, f"{shorten(name)}:10.0.0.7, or {GATEWAY}")


def _check_name(name: str, text: str, what: str, examples: str) -> None:
    for label in name.split("."):
        letters = label.replace("-", "").replace("_", "")
        if not (letters.isascii() and letters.isalnum()) or label[0] == "-" or label[-1] == "-" or len(label) > 63:
            raise UsageError(f"{shorten(text)!r} is not a {what}", examples)
    if len(name) > _LONGEST:
        raise UsageError(f"a {what} of {len(name)} characters is too long", f"at most {_LONGEST}")


def _address(text: str, examples: str) -> str:
    plain = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            return _socket.inet_ntop(family, _socket.inet_pton(family, plain))
        except (OSError, ValueError):
            continue
    raise UsageError(f"{shorten(text)!r} is not an address", f"e.g. {examples}")
