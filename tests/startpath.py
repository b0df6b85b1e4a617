"""What the interpreter loads, and what the start of a container may load.

python -I -S -X importtime src/tarbox/__main__.py explain run host true
"""

from __future__ import annotations

import re
import subprocess
import sys

# Each costs more than a container's start can pay, or drags in one that does.
FORBIDDEN = {
    "_collections_abc", "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum",
    "functools", "genericpath", "hashlib", "http", "inspect", "json", "logging", "os", "pathlib", "posixpath", "re",
    "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "stat", "struct", "subprocess", "tarfile", "tempfile",
    "threading", "traceback", "typing", "urllib", "urllib3",
}  # fmt: skip

# Modules of our own, and of Python's beyond those that it loads for `-I -S -c pass`.
OWN_BUDGET = 72
PLAIN_USERS = 1  # more of our own for a plain user, who needs a user namespace
CONNECTED = 14  # more for a container on a network: addresses, interfaces, rules, and taking them away
MAKING = 7  # and to make the network: its rules; is its subnet still free, forwarding, is a firewall in the way
PUBLISHED = 10  # and yet more for one with published ports, which are read, taken and served
OTHERS_BUDGET = 8


def parsed(report: str) -> list[str]:
    """The names of the modules in the report that `-X importtime` writes, in the order of loading."""
    return re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", report, re.MULTILINE)


def loaded(*arguments: str) -> list[str]:
    """What an isolated interpreter loads with these arguments."""
    command = [sys.executable, "-I", "-S", "-X", "importtime", *arguments]
    return parsed(subprocess.run(command, check=True, capture_output=True, text=True).stderr)


def check(modules: list[str], more: int = 0) -> None:
    """Insist on the budget, with so many modules of our own more; the message names what is too much."""
    assert modules, "the interpreter reported no import"
    forbidden = sorted({name for name in modules if name.partition(".")[0] in FORBIDDEN})
    assert not forbidden, f"the start path loads {', '.join(forbidden)}"
    own = [name for name in modules if name.partition(".")[0] == "tarbox"]
    others = sorted(set(modules) - set(own) - set(loaded("-c", "pass")))
    assert len(own) <= OWN_BUDGET + more, f"{len(own)} modules of our own: {', '.join(own)}"
    assert len(others) <= OTHERS_BUDGET, f"{len(others)} others: {', '.join(others)}"
    assert own, "no module of tarbox was loaded"
