"""The freezer stops all processes of a group where they are, and none of them can notice.

    echo FROZEN > /sys/fs/cgroup/freezer/box/freezer.state          version 1
    echo 1 > /sys/fs/cgroup/box/cgroup.freeze                       version 2

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html
"""

from __future__ import annotations

import time

from ...errors import UnsupportedError
from .groups import read, read_key, write

_PATIENCE = 5.0  # seconds


def freeze_v1(path: str) -> None:
    """Freeze the group `path` and return when all of it stands still; raises KernelError, UnsupportedError."""
    if not path:
        raise UnsupportedError("the freezer controller isn't mounted, or can't be written to")
    deadline = time.monotonic() + _PATIENCE
    while True:
        # Written again at each turn: a process that is being forked may have slipped through the time before.
        write(path + "/freezer.state", "FROZEN")
        if (read(path + "/freezer.state") or "").strip() == "FROZEN":
            return
        if time.monotonic() > deadline:
            thaw_v1(path)
            raise UnsupportedError(f"{path} can't be frozen: one of its processes doesn't stop")
        time.sleep(0.001)


def thaw_v1(path: str) -> None:
    """Let the group `path` go on; raises KernelError, UnsupportedError."""
    if not path:
        raise UnsupportedError("the freezer controller isn't mounted, or can't be written to")
    write(path + "/freezer.state", "THAWED")


def freeze_v2(path: str) -> None:
    """Freeze the group `path` and return when all of it stands still; raises KernelError, UnsupportedError."""
    deadline = time.monotonic() + _PATIENCE
    write(path + "/cgroup.freeze", "1")
    while read_key(path + "/cgroup.events", "frozen") != 1:
        if time.monotonic() > deadline:
            thaw_v2(path)
            raise UnsupportedError(f"{path} can't be frozen: one of its processes doesn't stop")
        time.sleep(0.001)


def thaw_v2(path: str) -> None:
    """Let the group `path` go on; raises KernelError."""
    write(path + "/cgroup.freeze", "0")
