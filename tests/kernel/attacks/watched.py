"""tarbox, with every event of the interpreter's while it has a container's files open written to a file.

    python -I -S watched.py LOG MAIN [--import NAME] ARGUMENT…

--import NAME: load that module there, as a mistake would. The events are those of sys.addaudithook. `opened` is written
before the first step that opens the container's files; `first EXE` says which program the container's first process
runs, just after its birth; `started in DIRECTORY of ROOT` comes when the container runs or couldn't be started.
"""

import os
import sys

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
main_file = sys.argv[2]
arguments = sys.argv[3:]
planted = ""
if arguments[0] == "--import":
    planted = arguments[1]
    arguments = arguments[2:]
sys.path[:0] = [os.path.dirname(os.path.dirname(main_file))]
sys.dont_write_bytecode = True

from tarbox.cli.main import main  # noqa: E402
from tarbox.plan.executor import Execution  # noqa: E402

opened = False
do, start, wait = Execution._do, Execution.start, Execution._await_program


def hook(event: str, details: tuple[object, ...]) -> None:
    if opened:
        os.write(log, f"{event} {details!r}\n".encode("utf-8", "replace"))


def watched_do(self, index):  # type: ignore[no-untyped-def]
    global opened
    if not opened and "tree" in self.plan.steps[index].gives():
        os.write(log, b"opened\n")
        opened = True
    do(self, index)


def watched_wait(self, *rest):  # type: ignore[no-untyped-def]
    try:
        first = os.readlink(f"/proc/{self.pid}/exe")
    except FileNotFoundError:
        first = "ended"
    os.write(log, f"first {first}\n".encode())
    if planted:
        try:
            __import__(planted)
        except ImportError:
            pass
    wait(self, *rest)


def watched_start(self):  # type: ignore[no-untyped-def]
    global opened
    try:
        return start(self)
    finally:
        opened = False
        os.write(log, f"started in {os.getcwd()} of {os.readlink('/proc/self/root')}\n".encode())


Execution._do, Execution._await_program, Execution.start = watched_do, watched_wait, watched_start  # type: ignore[method-assign]
sys.addaudithook(hook)
code = main(arguments)
os._exit(code)
