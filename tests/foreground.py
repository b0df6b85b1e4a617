"""A session around a plain process in the place of a container, to test it without the rest of the engine.

    python -I tests/foreground.py [-i] [-t] [--timeout S] [--hangup S] [--fail-to-thaw] [--no-freezer]
                                  [--publish PORT]… [--to ADDRESS]… -- COMMAND…

It does what the engine does: blocks all signals, makes the process, and lets the session serve it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tarbox.engine.session import Session
    from tarbox.networks.reservation import Reserved

MAIN = Path(__file__).resolve()


def command(*arguments: str | Path, options: str = "") -> list[str]:
    """The command line that runs `arguments` in a session with these options."""
    return [sys.executable, "-I", str(MAIN), *options.split(), "--", *map(str, arguments)]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", dest="interactive", action="store_true")
    parser.add_argument("-t", dest="terminal", action="store_true")
    parser.add_argument("--timeout", type=float)
    parser.add_argument("--hangup", type=float)
    parser.add_argument("--fail-to-thaw", action="store_true")
    parser.add_argument("--no-freezer", action="store_true")
    parser.add_argument("--publish", action="append", default=[])
    parser.add_argument("--to", action="append", default=[])
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def main() -> int:
    from rows import perform
    from tarbox.engine import session
    from tarbox.errors import UnsupportedError, UsageError
    from tarbox.kernel import signals
    from tarbox.kernel.terminal import ChooseStreams, OpenConsole, UseStreams
    from tarbox.plan.step import Slots

    asked = _parse()
    if asked.hangup is not None:
        session._HANGUP_SECONDS = asked.hangup
    try:
        ours = session.Session(asked.interactive, asked.terminal)
    except UsageError as error:
        print(f"tarbox: {error}", file=sys.stderr)
        return 125
    reserved = _publish(ours, asked.publish, asked.to) if asked.publish else None
    signals.block_all()
    slots = Slots()
    slots.descriptors.update(ours.slots())
    slots.give("tree", os.open("/", os.O_PATH | os.O_DIRECTORY))
    if asked.terminal:
        OpenConsole().apply(slots)
    ChooseStreams(asked.interactive, asked.terminal).apply(slots)
    pid = os.fork()
    if pid == 0:
        try:
            perform(UseStreams(asked.terminal).rows(slots))
            for number in signals.ignored():
                signal.signal(number, signal.SIG_DFL)
            signals.set_mask(bytes(8))
            os.execvp(asked.command[0], asked.command)
        finally:
            os._exit(127)
    for name in ("terminal", "stream 0", "stream 1", "stream 2"):
        if name in slots.descriptors:
            os.close(slots.take(name))

    def fail() -> None:
        raise RuntimeError("it can't be thawed")

    def refuse() -> None:
        raise UnsupportedError("there is no freezer")

    hooks = {"freeze": lambda: None, "thaw": fail} if asked.fail_to_thaw else {}
    if asked.no_freezer:
        hooks = {"freeze": refuse, "thaw": refuse}
    console = slots.take("console") if asked.terminal else None
    try:
        return ours.run(pid, os.pidfd_open(pid), console, timeout=asked.timeout, **hooks)
    finally:
        if reserved:
            reserved.close()


def _publish(ours: Session, words: list[str], addresses: list[str]) -> Reserved:
    """Let ports lead to these addresses, as if they were the container's; standard error tells their numbers."""
    from tarbox.engine.relay import Relay
    from tarbox.networks.ports import read
    from tarbox.networks.reservation import reserve

    reserved = reserve([port for text in words for port in read(text)])
    ours.relay = Relay(reserved, addresses)
    print(*(port.host_first for port in reserved.ports), file=sys.stderr, flush=True)
    return reserved


if __name__ == "__main__":
    sys.path[:0] = [str(MAIN.parent.parent / "src"), str(MAIN.parent)]
    while (spare := os.open("/dev/null", os.O_RDWR)) < 3:  # as the command does for what its caller closed
        pass
    os.close(spare)
    code = main()
    os._exit(code)
