#!/usr/bin/env python3
"""What --learn costs: system calls, opened files and started programs in a container, with and without it.

    benchmarks/learn.py [-n 5]

Both take turns; medians in microseconds for each, and how many times as long it takes while learning. As root or as a
plain user. Leaves nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MAIN = Path(__file__).resolve().parent.parent / "src" / "tarbox" / "__main__.py"
INSIDE = """
import json, os, time
def spend(count, what):
    started = time.perf_counter()
    for _ in range(count):
        what()
    return (time.perf_counter() - started) / count * 1e6
print(json.dumps({
    "a system call": spend(10000, os.getppid),
    "open and close a file": spend(2000, lambda: os.close(os.open("/etc/passwd", 0))),
    "start a program": spend(50, lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)),
}))
"""


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", type=int, default=5, help="rounds")
    rounds = parser.parse_args().n
    times: dict[str, dict[str, list[float]]] = {"plain": {}, "learning": {}}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for contender, options in (("plain", []), ("learning", ["--learn", f"{folder}/p.json"])):
                start = [sys.executable, "-I", "-S", str(MAIN), "--root", f"{folder}/root", "run", *options]
                done = subprocess.run(
                    [*start, "host", "python3", "-c", INSIDE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                if done.returncode:
                    print("benchmarks/learn.py: a container failed; try the same by hand", file=sys.stderr)
                    return 1
                for what, spent in json.loads(done.stdout).items():
                    times[contender].setdefault(what, []).append(spent)
    for what, plain in times["plain"].items():
        before, after = statistics.median(plain), statistics.median(times["learning"][what])
        print(f"{what:24}{before:10.2f} µs{after:10.2f} µs  {after / before:6.1f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
