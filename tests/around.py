"""What there is around a process that runs containers: its children, the mounts that it sees, ports that are taken."""

from __future__ import annotations

import os
import termios
from pathlib import Path

from tarbox.kernel import signals


def children(pid):
    """Its children's numbers."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def mounts():
    """The mounts that this process sees, a line each."""
    return {f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def sockets():
    """The ports that somebody has taken, a line each."""
    found = set()
    for protocol in ("tcp", "udp", "tcp6", "udp6"):
        rows = [line.split() for line in Path("/proc/net", protocol).read_text().splitlines()[1:]]
        found |= {f"port {protocol} {row[1]}" for row in rows if row[3] in ("0A", "07")}  # that listens, or is bound
    return found


def state():
    """What a command could change of its own process."""
    return {
        "descriptors": {name: _target(name) for name in os.listdir("/proc/self/fd")},
        "mounts": {line.split(" ", 3)[3] for line in mounts()},  # without the numbers, which differ in a copy
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
        "children": Path("/proc/self/task", str(os.getpid()), "children").read_text(),
        "umask": next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask")),
        "directory": os.getcwd(),
        "signals": signals.set_mask(bytes(8)),
        "terminal": _modes(),
    }


def _target(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""  # of the listing itself


def _modes():
    try:
        return repr(termios.tcgetattr(1))
    except termios.error:
        return ""


def changes(before, after, moved=()):
    """What is different, a line each; moved: the namespaces that this process may have left for others."""
    lines = []
    for name in moved:
        after["namespaces"][name] = before["namespaces"][name]
    for key, value in before.items():
        if after[key] != value and key == "descriptors":
            opened = {name: target for name, target in after[key].items() if target and name not in value}
            lines += [f"descriptor {name}: {target}" for name, target in opened.items()]
        elif key == "mounts":
            lines += [f"mounted {line}" for line in sorted(after[key] - value)]
            # What lies on the scratch space may be another command's, which was killed.
            lines += [f"no longer mounted {line}" for line in sorted(value - after[key]) if "/scratch/" not in line]
        elif after[key] != value:
            lines.append(f"{key}: {after[key]!r} instead of {value!r}")
    return lines
