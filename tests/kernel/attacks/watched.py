"""tarbox, with every event of the interpreter's that its processes inside of a container cause written to a file.

    python -I -S watched.py LOG MAIN [--import NAME] ARGUMENT…

--import NAME: load that module inside, as a mistake would. The events are those of sys.addaudithook; `inside` begins
when a process has just been forked, before anything of the container's is in view.
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
from tarbox.kernel.pivot_root import Enter  # noqa: E402
from tarbox.runtime import launch  # noqa: E402

inside = False
forked, apply = launch.forked, Enter.apply


def hook(event: str, details: tuple[object, ...]) -> None:
    if inside:
        os.write(log, f"{event} {details!r}\n".encode("utf-8", "replace"))


def watch() -> None:
    global inside
    forked()
    inside = True
    os.write(log, b"inside\n")


def enter(self, slots):  # type: ignore[no-untyped-def]
    if planted:
        try:
            __import__(planted)
        except ImportError:
            pass
    apply(self, slots)


launch.forked = watch
Enter.apply = enter  # type: ignore[method-assign]
sys.addaudithook(hook)
code = main(arguments)
os._exit(code)
