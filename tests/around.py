"""What there is around a process that runs containers: its children, the mounts that it sees, ports that are taken."""

from __future__ import annotations

from pathlib import Path


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
