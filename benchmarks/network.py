#!/usr/bin/env python3
"""What a network of its own costs a container: to start with it, and to send through it; against Docker and podman.

    benchmarks/network.py [-n 20] [--rounds 5] [--seconds 2] [--many 99] [--only start,throughput,connections,many]

Four tables, each of medians; all engines take turns in each.

    start         run --rm -p 8080:80 IMAGE true, from a cold command line to its exit status
    throughput    iperf3, one TCP connection: between containers, and from the host to a published port
    connections   made one after another, each for one byte, in the same three ways
    many          tarbox alone: the first container of a network, and one beside --many others

Needs root, busybox-static, iperf3, gcc with libc6-dev, iproute2, and takes docker.io and podman
(containernetworking-plugins) as they are there. Everybody works in network namespaces of their own; nothing is left.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import start  # noqa: E402
from engines import OWN_ADDRESS, Docker, Engine, Podman, Tarbox, remove_groups  # noqa: E402

import roots  # noqa: E402
import testhost  # noqa: E402

IPERF, CONNECTIONS = 15201, 19000  # ports of the host; inside 5201 and 9000
SERVE = "iperf3 -s >/dev/null & connections serve 9000 & ip -o -4 addr show dev eth0; read until_we_end"
WAYS = ("container to container", "port by 127.0.0.1", "port by its own address")
Rows = dict[str, dict[str, list[float]]]  # numbers by way and engine


def image(folder: Path) -> Path:
    """A busybox with iperf3, the libraries it needs, and the program that counts connections, as a tarball."""
    root = roots.busybox(folder / "image")
    found = shutil.which("iperf3")
    if not found:
        raise SystemExit("network.py: iperf3 is missing: apt-get install iperf3")
    told = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
    for name in [found, *re.findall(r"(/\S+) \(0x", told)]:
        copy = root / name.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(name), copy)
    source = HERE / "connections.c"
    subprocess.run(["gcc", "-O2", "-static", "-o", root / "bin/connections", source], check=True)
    return roots.packed(root, folder / "image.tar")


# --- Starts


def starts(everybody: list[Engine], count: int, errors: int) -> list[start.Contender]:
    """The times of a start with a published port, in turns."""
    found = []
    for engine in everybody:
        command = engine.command("-p", "8080:80", words=("true",)) if not engine.why_not else []
        contender = start.Contender(engine.name, command)
        contender.why_not = engine.why_not
        found.append(contender)
    start.measure(found, count, 2, errors)
    return found


def many(tarbox: Engine, count: int, others: int, errors: int) -> list[start.Contender]:
    """The first start and one beside many others, in the order first, many, first: machines drift."""
    command = tarbox.command("-p", "8080:80", words=("true",))
    alone, beside = start.Contender("alone", command), start.Contender(f"beside {others}", command)
    start.measure([alone], count, 2, errors)
    running = []
    try:
        for _ in range(others):
            running.append(
                subprocess.Popen(
                    tarbox.command("-i", words=("sh", "-c", "echo on; read x")),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert running[-1].stdout
            if running[-1].stdout.readline() != b"on\n":
                beside.why_not = f"only {len(running) - 1} of {others} started"
                break
        else:
            start.measure([beside], 2 * count, 2, errors)
    finally:
        for process in running:
            process.communicate()
    start.measure([alone], count, 2, errors)
    return [beside, alone]


# --- What goes through


class Server:
    """A container that serves iperf3 and connections, with its ports published. address: its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        words = ("-i", "-p", f"{IPERF}:5201", "-p", f"{CONNECTIONS}:9000")
        self.process = subprocess.Popen(
            engine.command(*words, words=("sh", "-c", SERVE)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout
        line = self.process.stdout.readline().decode().split()
        self.address = line[line.index("inet") + 1].partition("/")[0] if "inet" in line else ""
        if not self.address:
            raise SystemExit(f"network.py: {engine.name}: no server came up")

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()

    def ask(self, way: str, words: Callable[[str, bool], list[str]], folder: Path) -> str:
        """The output of a client that goes this way. words: of the client, by address, and whether by the port."""
        if way == WAYS[0]:
            command = self.engine.command(words=tuple(words(self.address, False)))
        else:
            address = "127.0.0.1" if way == WAYS[1] else OWN_ADDRESS
            program, *rest = words(address, True)
            if program == "connections":
                program = str(folder / "image/bin/connections")
            command = [*self.engine.entered, program, *rest]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"network.py: {self.engine.name}, {way}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return done.stdout


def turns(servers: list[Server], rounds: int) -> Iterator[tuple[str, Server]]:
    """Every way and server, `rounds` times, in an order that rotates."""
    for turn in range(rounds):
        for way in WAYS:
            shift = turn % len(servers)
            for server in servers[shift:] + servers[:shift]:
                yield way, server


def throughput(servers: list[Server], rounds: int, seconds: float, folder: Path) -> Rows:
    """Gbit/s, by way and engine."""

    def words(address: str, published: bool) -> list[str]:
        return ["iperf3", "-J", "-t", str(int(seconds)), "-c", address, "-p", str(IPERF if published else 5201)]

    rows: Rows = {way: {server.engine.name: [] for server in servers} for way in WAYS}
    for way, server in turns(servers, rounds):
        told = json.loads(server.ask(way, words, folder))
        rows[way][server.engine.name].append(told["end"]["sum_received"]["bits_per_second"] / 1e9)
    return rows


def connections(servers: list[Server], rounds: int, seconds: float, folder: Path) -> Rows:
    """Connections a second, by way and engine."""

    def words(address: str, published: bool) -> list[str]:
        return ["connections", "ask", address, str(CONNECTIONS if published else 9000), str(seconds)]

    rows: Rows = {way: {server.engine.name: [] for server in servers} for way in WAYS}
    for way, server in turns(servers, rounds):
        rows[way][server.engine.name].append(float(server.ask(way, words, folder)))
    return rows


def table(title: str, rows: Rows, digits: int) -> str:
    """Medians of all engines, minimum and maximum behind them, and tarbox's as part of each other's."""
    lines = [title]
    for way, engines in rows.items():
        ours = statistics.median(engines["tarbox"])
        for name, numbers in engines.items():
            median = statistics.median(numbers)
            row = f"  {way:<25}{name:<8}{median:10.{digits}f}  ({min(numbers):.{digits}f} to {max(numbers):.{digits}f})"
            lines.append(row if name == "tarbox" else f"{row:<75} tarbox is {ours / median:.2f} of it")
    return "\n".join(lines)


def measure(options: argparse.Namespace, everybody: list[Engine], folder: Path, errors: int) -> None:
    """Make and print the tables that are wanted."""
    wanted = options.only.split(",")
    for engine in everybody:
        if engine.why_not:
            print(f"{engine.name} isn't measured: {engine.why_not}")
    result: dict[str, object] = {}
    if "start" in wanted:
        contenders = starts(everybody, options.n, errors)
        result["start"] = {one.name: one.times for one in contenders}
        print(start.report(contenders, options.n))
    with ExitStack() as stack:
        servers: list[Server] = []
        if {"throughput", "connections"} & set(wanted):
            for engine in everybody:
                if not engine.why_not:
                    servers.append(Server(engine))
                    stack.callback(servers[-1].close)
        if "throughput" in wanted:
            rows = result["throughput"] = throughput(servers, options.rounds, options.seconds, folder)
            print(table("\niperf3, Gbit/s", rows, 1))
        if "connections" in wanted:
            rows = result["connections"] = connections(servers, options.rounds, options.seconds, folder)
            print(table("\nconnections a second", rows, 0))
    if "many" in wanted:
        contenders = many(everybody[0], options.n, options.many, errors)
        result["many"] = {one.name: one.times for one in contenders}
        print("\n" + start.report(contenders, options.n).replace("tarbox is", "first is", 1))
    if options.json:
        options.json.write(json.dumps(result, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", type=int, default=20, metavar="N", help="starts that count (default 20)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of throughput and connections (default 5)")
    parser.add_argument("--seconds", type=float, default=2, metavar="S", help="of each (default 2)")
    parser.add_argument("--many", type=int, default=99, metavar="N", help="how many others (default 99)")
    parser.add_argument("--only", default="start,throughput,connections,many", metavar="TABLE,…", help="which tables")
    parser.add_argument("--json", type=argparse.FileType("w"), metavar="FILE", help="write all numbers there as well")
    parser.add_argument("--tarbox", metavar="PATH", help="the command to measure (default: this checkout's)")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("needs root")
    launcher = start.launcher(options.tarbox)
    host = testhost.TestHost()
    host.enter()
    subprocess.run(["ip", "addr", "add", f"{OWN_ADDRESS}/32", "dev", "lo"], check=True)
    with ExitStack() as stack:
        stack.callback(host.leave)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tarbox-bench-")))
        errors = stack.enter_context(tempfile.TemporaryFile())
        stack.callback(remove_groups)
        archive = image(folder)
        everybody: list[Engine] = [Tarbox(launcher, folder, archive)]
        for make in (Docker, Podman):
            everybody.append(make(folder, archive))
            stack.callback(everybody[-1].close)
        measure(options, everybody, folder, errors.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
