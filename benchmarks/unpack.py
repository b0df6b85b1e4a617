#!/usr/bin/env python3
"""How long a root filesystem tarball takes to unpack, against GNU tar.

    benchmarks/unpack.py [-n 7] [--durable] [--json] [ARCHIVE]

ARCHIVE is a plain or gzip-compressed tar; without it a Debian root filesystem is made with mmdebstrap. Each round runs
every contender once in an order that rotates; what was unpacked is removed before the next.
Claims are ratios of medians of one such run.

    tar           tar --numeric-owner --xattrs --xattrs-include=* -xzpf, into the page cache
    tarbox        the same files, in a fresh Python process that also hashes the archive and its contents

and with --durable, which takes long on a busy disk:

    tar + sync    the same with `sync -f` afterwards
    tarbox store  the whole import: also the digest, sync and rename, so that a power cut leaves all or nothing

Needs root, GNU tar, gzip; mmdebstrap without ARCHIVE. Leaves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "src"))

from tarbox.kernel.trees import remove_tree  # noqa: E402

UNPACK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tarbox.images.store import unpack_file
unpack_file(os.open(sys.argv[2], os.O_RDONLY), sys.argv[2], sys.argv[3])
"""
IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
from tarbox.images.layers import Layers
from tarbox.plan.step import Slots
Layers(sys.argv[3]).unpack(sys.argv[2]).apply(Slots())
"""


def contenders(archive: Path, target: str) -> dict[str, list[str]]:
    """The command of each contender, which unpacks into the empty directory `target`."""
    tar = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xzpf", str(archive), "-C", target]
    python = [sys.executable, "-I", "-S"] if not sys.flags.no_site else [sys.executable]
    # The libraries that decompress are where this interpreter's packages are.
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    run = [*python, "-c"]
    bring = f"import sys; sys.path.append({packages!r})\n"
    return {
        "tar": tar,
        "tarbox": [*run, bring + UNPACK, str(CHECKOUT / "src"), str(archive), target],
        "tar + sync": ["sh", "-c", '"$@" && sync -f "$0"', target, *tar],
        "tarbox store": [*run, bring + IMPORT, str(CHECKOUT / "src"), str(archive), target],
    }


def once(command: list[str], target: str) -> float:
    """Run a command in a fresh `target`, which is removed; returns its time in seconds."""
    os.mkdir(target, 0o700)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    taken = time.perf_counter() - start
    remove_tree(target)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path)
    parser.add_argument("-n", type=int, default=7, help="rounds")
    parser.add_argument("--durable", action="store_true", help="also measure with what reaches the disk")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tarbox-unpack-", dir="/var/tmp") as folder:
        archive = options.archive or Path(folder, "debian.tar")
        if not options.archive:
            made = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=fish,redis-server", "bookworm", archive]
            subprocess.run(made, check=True)
        with open(archive, "rb") as given:
            packed = given.read(2) == b"\x1f\x8b"
        if not packed:
            with open(Path(folder, "packed.tar.gz"), "wb") as out:
                subprocess.run(["gzip", "-c", archive], stdout=out, check=True)
            archive = Path(folder, "packed.tar.gz")
        commands = contenders(archive, str(Path(folder, "target")))
        if not options.durable:
            commands = {name: commands[name] for name in ("tar", "tarbox")}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(-1, options.n):  # the first round only warms the caches
            names = list(commands)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                taken = once(commands[name], str(Path(folder, "target")))
                if turn >= 0:
                    times[name].append(taken)
        report(times, os.stat(archive).st_size, options.json)


def report(times: dict[str, list[float]], size: int, as_json: bool) -> None:
    """Print minimum, median and maximum of each, and the ratios of medians."""
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    ratios = {
        f"{ours} / {theirs}": medians[ours] / medians[theirs]
        for ours, theirs in (("tarbox", "tar"), ("tarbox store", "tar + sync"))
        if ours in medians
    }
    if as_json:
        print(json.dumps({"bytes": size, "seconds": times, "ratios": ratios}))
        return
    print(f"{size / 1e6:.0f} MB of gzip, {len(times['tar'])} rounds; seconds: minimum, median, maximum")
    for name, taken in times.items():
        print(f"{name:14} {min(taken):7.2f} {medians[name]:7.2f} {max(taken):7.2f}")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
