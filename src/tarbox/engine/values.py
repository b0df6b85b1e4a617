"""The words that people give to options, read strictly: sizes, durations, processors, names, limits.

Every function takes the text and returns the value, or raises UsageError with what is wrong and an example of what is
right; the command line puts the option's name before it. Docker's rules: sizes count in powers of 1024.
"""

from __future__ import annotations

from ..errors import UsageError
from ..spec.runtime import CAPABILITIES, RLIMITS, UNLIMITED
from .options import HOST, NONE, Ulimit

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_LARGEST = 2**63 - 1
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LEAST_MEMORY = 1 << 20


def shorten(text: str, limit: int = 60) -> str:
    """The text for a message: on one line, without control characters, cut where it is long."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[: limit + 1])
    return shown if len(text) <= limit else f"{shown[:limit]}... ({len(text)} characters)"


def _number(text: str) -> float | None:
    """A plain decimal number: no sign, no exponent, no underscore, no infinity."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    return float(text) if digits.isascii() and digits.isdecimal() else None


def size(text: str) -> int:
    """Bytes: `512`, `20m`, `1.5g`, `64KiB`, `5 MB`; k, m, g, t, p are powers of 1024."""
    lowered = text.strip().lower()
    digits = lowered.rstrip("bikmgtp ")
    unit = lowered[len(digits) :].strip()
    if unit[1:] in ("b", "ib") and unit[0] != "b":
        unit = unit[0]
    number = _number(digits)
    if number is None or unit not in _UNITS:
        raise UsageError(f"{shorten(text)!r} is not a size", "a number with b, k, m or g, e.g. 512m or 1.5g")
    # Whole numbers stay exact; a float would lose the last digits of large ones.
    value = int(digits) * _UNITS[unit] if digits.isdecimal() else int(number * _UNITS[unit])
    if value > _LARGEST:
        raise UsageError(f"{shorten(text)!r} is more than the kernel can count")
    return value


def positive_size(text: str) -> int:
    """A size that isn't nothing."""
    value = size(text)
    if value == 0:
        raise UsageError(f"{shorten(text)!r} leaves nothing", "e.g. 64m")
    return value


def memory(text: str) -> int:
    """A memory limit in bytes; 0 is none. Refuses what no program fits in: most often a forgotten unit."""
    value = size(text)
    if 0 < value < _LEAST_MEMORY:
        hint = f"for megabytes write {text.strip()}m" if text.strip().isdecimal() else "at least 1m"
        raise UsageError(f"{shorten(text)!r} is {value} bytes, too little for any program", hint)
    return value


def memory_swap(text: str) -> int:
    """Memory and swap together in bytes; -1 is unlimited, 0 is unset."""
    return -1 if text.strip() == "-1" else size(text)


def cpus(text: str) -> float:
    """How many processors' time: `0.5`, `2`; 0 is no limit."""
    value = _number(text.strip())
    if value is None or 0 < value < 0.01:
        raise UsageError(f"{shorten(text)!r} is not a number of processors", "0.01 or more, e.g. 0.5 or 2")
    return value


def cpu_shares(text: str) -> int:
    """The weight against other containers, 2 to 262144; 1024 is everybody's, 0 is unset."""
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if value != 0 and not 2 <= value <= 262144:
        raise UsageError(f"{shorten(text)!r} is not a weight", "from 2 to 262144; 1024 is the usual one")
    return value


def pids_limit(text: str) -> int:
    """How many processes at most; 0 and -1 are no limit, and both come back as 0."""
    if text == "-1":
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"{shorten(text)!r} is not a number of processes", "e.g. 100, or -1 for no limit")
    return int(text)


def processors(text: str) -> list[int]:
    """The numbers in a list of processors such as `0-2,7`."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not dash:
            last = first
        ends = first + last
        if not first or not last or not (ends.isascii() and ends.isdecimal()) or len(first) > 5 or len(last) > 5:
            raise UsageError(f"{shorten(text)!r} is not a list of processors", "their numbers, e.g. 0-2,7")
        if int(first) > int(last):
            raise UsageError(f"{shorten(text)!r} is not a list of processors", f"{first} comes after {last}")
        numbers += range(int(first), int(last) + 1)
    return numbers


def cpuset(text: str) -> str:
    """A list of processors as the kernel reads it, without spaces."""
    processors(text)
    return text.replace(" ", "")


def duration(text: str) -> float:
    """Seconds: `10`, `1.5h`, `1m30s`, `500ms`; 0 is no limit."""
    total, rest = 0.0, text.strip().lower()
    plain = _number(rest)
    if plain is not None:
        return plain
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("msh"))]
        rest = rest[len(unit) :]
        number = _number(digits)
        if number is None or unit not in _SECONDS:
            raise UsageError(f"{shorten(text)!r} is not a length of time", "e.g. 30s, 1m30s or 1.5h")
        total += number * _SECONDS[unit]
    if not text.strip():
        raise UsageError("an empty length of time", "e.g. 30s, 1m30s or 1.5h")
    return total


def hostname(text: str) -> str:
    """A host name after RFC 1123, at most 64 bytes as Linux allows; `_` is let through, as many use it."""
    if len(text) > 64:
        raise UsageError(f"a host name of {len(text)} characters is too long", "Linux allows 64")
    for label in text.split("."):
        letters = label.replace("-", "").replace("_", "")
        if (
            not label
            or len(label) > 63
            or label[0] == "-"
            or label[-1] == "-"
            or not letters.isalnum()
            or not label.isascii()
        ):
            raise UsageError(
                f"{shorten(text)!r} is not a host name",
                "letters, digits and hyphens, in parts of 1 to 63 joined by dots",
            )
    return text


def workdir(text: str) -> str:
    """An absolute path in the container."""
    if not text.startswith("/"):
        raise UsageError(f"{shorten(text)!r} is not an absolute path", "it is a directory in the container, e.g. /app")
    return text


def user(text: str) -> str:
    """`name|uid[:group|gid]`; whether a name exists is known only in the container."""
    name, colon, group = text.partition(":")
    if not text or (colon and not group) or ":" in group:
        raise UsageError(f"{shorten(text)!r} is not a user", "USER or USER:GROUP by name or number, e.g. 1000:1000")
    _identity(name, "user")
    _identity(group, "group")
    return text


def group(text: str) -> str:
    """A group's name or number."""
    if not text or ":" in text:
        raise UsageError(f"{shorten(text)!r} is not a group", "a name or a number")
    _identity(text, "group")
    return text


def _identity(part: str, what: str) -> None:
    from ..spec.users import number

    if len(part) > 256 or any(letter.isspace() or not letter.isprintable() for letter in part):
        raise UsageError(f"{shorten(part)!r} is not the name of a {what}", "a name or a number")
    number(part, what)


def capability(text: str) -> str:
    """`NET_ADMIN`, `cap_net_admin` or `ALL`, as `CAP_NET_ADMIN` or `ALL`."""
    name = text.strip().upper()
    if name == "ALL":
        return name
    full = name if name.startswith("CAP_") else f"CAP_{name}"
    if full not in CAPABILITIES:
        from .nearest import suggest

        near = suggest(full, CAPABILITIES)
        hint = (
            f"did you mean {near.removeprefix('CAP_')}?"
            if near
            else "man 7 capabilities lists them, e.g. NET_ADMIN; or ALL"
        )
        raise UsageError(f"there is no capability {shorten(text)!r}", hint)
    return full


def ulimit(text: str) -> Ulimit:
    """`name=soft[:hard]`; -1 and `unlimited` are no limit."""
    name, equals, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    if not equals or not soft or (colon and not hard):
        raise UsageError(f"{shorten(text)!r} is not a limit", "NAME=SOFT or NAME=SOFT:HARD, e.g. nofile=1024:4096")
    if name not in RLIMITS:
        from .nearest import suggest

        near = suggest(name, tuple(RLIMITS))
        raise UsageError(
            f"there is no limit {shorten(name)!r}",
            f"did you mean {near}?" if near else "one of " + ", ".join(sorted(RLIMITS)),
        )
    lower, upper = _limit(soft, text), _limit(hard if colon else soft, text)
    if lower > upper:
        raise UsageError(f"{shorten(text)!r}: the soft limit {soft} is above the hard limit {hard}")
    return Ulimit(name, lower, upper)


def _limit(part: str, text: str) -> int:
    if part in ("-1", "unlimited"):
        return UNLIMITED
    if not (part.isascii() and part.isdecimal()) or len(part) > 20 or int(part) > UNLIMITED:
        raise UsageError(f"{shorten(text)!r} is not a limit", "numbers, or unlimited, e.g. nofile=1024:4096")
    return int(part)


def signal(text: str) -> int:
    """The number of a signal given as `TERM`, `SIGTERM`, `15` or `RTMIN+3`."""
    import _signal  # type: ignore[import-not-found]  # what `signal` is built on, without its 6 ms of enums

    name = text.strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdecimal() and 0 < int(name[:4]) <= 64:
        return int(name)
    base, plus, offset = name.partition("+" if "+" in name else "-")
    number = getattr(_signal, f"SIG{base}", None)
    if isinstance(number, int) and not base.startswith("_") and base not in ("DFL", "IGN"):
        if not plus:
            return int(number)
        if base in ("RTMIN", "RTMAX") and offset.isascii() and offset.isdecimal() and int(offset[:4]) <= 30:
            return int(number) + int(offset) if "+" in name else int(number) - int(offset)
    raise UsageError(f"there is no signal {shorten(text)!r}", "a name or a number, e.g. TERM, INT or 15")


def network(text: str) -> str:
    """`none`, `host`, the path of a namespace to be joined, or the name of a network."""
    if text in (NONE, HOST):
        return text
    if text.startswith(("container:", "ns:", "pid:", "pidfd:")) or text in ("ns", "pid", "pidfd"):
        from .namespaces import read

        return read("network", text)
    if text == "private":
        return NONE
    if text in ("pasta", "slirp4netns"):
        raise UsageError(f"this version of tarbox has no {shorten(text)!r} network yet", "none or host")
    if not text or not text[0].isalnum() or not all(letter.isalnum() or letter in "_.-" for letter in text):
        raise UsageError(
            f"{shorten(text)!r} is no network",
            "a name of 'tarbox network ls', none, host, container:ID, ns:PATH, pid:N or pidfd:N",
        )
    return text


def address(text: str, version: int) -> str:
    """An internet address of that version, in the form that everybody writes."""
    from ..networks.addresses import read
    from ..networks.addresses import text as written

    found, value = read(text)
    if found != version:
        raise UsageError(f"{shorten(text)!r} is an address of IPv{found}", f"IPv{version} is wanted here")
    return written(found, value)


def mac_address(text: str) -> str:
    """The address of a network interface, for itself and not for a group."""
    parts = text.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
        raise UsageError(f"{shorten(text)!r} is no address of a link", "six bytes, e.g. 02:42:ac:11:00:02")
    if int(parts[0], 16) & 1:
        raise UsageError(f"{shorten(text)!r} is an address of many", "the first byte must be even, e.g. 02")
    if not any(int(part, 16) for part in parts):
        raise UsageError(f"{shorten(text)!r} is nobody's address", "e.g. 02:42:ac:11:00:02")
    return ":".join(parts)


def security(text: str) -> tuple[str, str]:
    """One --security-opt as (key, value): ("seccomp", FILE|unconfined|builtin), ("no-new-privileges", true|false),
    ("systempaths", "unconfined"), or what `security_labels.option` makes of "apparmor" and "label"."""
    separator = min((text.find(mark) for mark in "=:" if mark in text), default=len(text))
    key, value = text[:separator], text[separator + 1 :]
    if key == "no-new-privileges":
        return key, "true" if switch(value or "true") else "false"
    if key == "seccomp" and value:
        return key, value
    if key == "systempaths" and value == "unconfined":
        return key, value
    if key in ("apparmor", "label"):
        from .security_labels import option

        return key, option(key, value)
    raise UsageError(
        f"{shorten(text)!r} is not a security option",
        "seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, label=PART:VALUE|disable, no-new-privileges or"
        " systempaths=unconfined",
    )


def profile(text: str) -> str:
    """Where a profile goes: "json", or the path of a file; "" where none is wanted."""
    if not text:
        raise UsageError("an empty path", "leave the = out for a table, or give --profile=json or --profile=FILE")
    return "" if text.lower() in ("0", "f", "false") else text


def switch(text: str) -> bool:
    """The value of a flag, as Docker (Go) reads it: 1, t, true, 0, f, false in any usual case."""
    lowered = text.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise UsageError(f"{shorten(text)!r} is neither true nor false")


def variable(text: str) -> str:
    """One --env: `NAME=value`, or `NAME` alone."""
    name = text.partition("=")[0]
    if not name or "\0" in text:
        raise UsageError(f"{shorten(text)!r} has no name", "NAME=value, or NAME to hand on its value")
    return text


def stream(text: str) -> str:
    """One --attach: `stdin`, `stdout` or `stderr`, in any case."""
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise UsageError(f"there is no stream {shorten(text)!r}", "stdin, stdout or stderr")
    return text.lower()


def pull(text: str) -> str:
    """`always`, `missing` or `never`."""
    if text not in ("always", "missing", "never"):
        from .nearest import suggest

        near = suggest(text, ("always", "missing", "never"))
        raise UsageError(
            f"{shorten(text)!r} doesn't say when", f"did you mean {near}?" if near else "always, missing or never"
        )
    return text


_OTHER_NAMES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armhf": "arm"}


def platform(text: str) -> str:
    """The architecture in `linux/arm64`, `linux/arm/v7` or `arm64`, in the OCI's words."""
    system, *rest = text.lower().split("/")
    if rest:
        if system != "linux":
            raise UsageError(f"{shorten(text)!r}: containers here are Linux's", "e.g. linux/arm64")
    elif system != "linux":
        rest = [system]
    if not rest or len(rest) > 2 or not all(part.isascii() and part.isalnum() for part in "".join(rest).split("_")):
        raise UsageError(f"{shorten(text)!r} is not a platform", "linux/ARCHITECTURE, e.g. linux/amd64 or linux/arm64")
    return _OTHER_NAMES.get(rest[0], rest[0])
