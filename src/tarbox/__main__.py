"""Where the command starts: `python -I -S .../tarbox/__main__.py`, as bin/tarbox does, or `python -m tarbox`.

Kept small, as Python compiles it at every start, and in words that older Pythons read, to tell them what is missing.
"""

# ruff: noqa: UP031, UP036, RUF005

import gc
import sys

if sys.platform == "linux":
    import posix as os  # of os itself nothing is needed, and it takes a millisecond to import
else:
    import os


def _start() -> "int | str":
    if sys.platform != "linux":
        return (
            "tarbox: containers are Linux processes, and this is %s (get a Linux machine:"
            " on macOS with Lima, Colima or Multipass, e.g. 'brew install lima' and 'limactl start';"
            " on Windows with WSL 2, 'wsl --install')" % sys.platform
        )
    if sys.version_info < (3, 11):
        return "tarbox: Python 3.11 or newer is needed, and %s is %d.%d" % ((sys.executable,) + sys.version_info[:2])
    if not __package__:  # started by path, without the site module: nothing has been put on the path
        normal = getattr(os, "_path_normpath", None) or __import__("os").path.abspath
        package = normal(__file__).rpartition("/")[0]
        libraries = "lib/python%d.%d/site-packages" % sys.version_info[:2]
        beside = sys.executable.rpartition("/")[0].rpartition("/")[0] + "/" + libraries
        sys.path[:0] = [package.rpartition("/")[0]]
        if beside not in sys.path:
            sys.path.append(beside)  # of a checkout or an editable install, whose libraries aren't beside it
    while True:  # a closed input, output or error would give its number to the next file that is opened
        descriptor = os.open("/dev/null", os.O_RDWR)
        if descriptor > 2:
            break
    os.close(descriptor)
    from tarbox import bytecode

    modules = bytecode.install()
    from tarbox.cli.main import main

    code = main(sys.argv[1:])
    modules.close()
    return code


def command() -> None:
    """Carry out the command line and end the process with its exit code."""
    gc.disable()  # looking for cycles costs a tenth of a start, and nothing here lives long
    try:
        code = _start()
        if isinstance(code, str):
            sys.stderr.write(code + "\n")
            code = 125
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
    except KeyboardInterrupt:
        code = 130
    except (OSError, ValueError):  # nobody reads what was left to say
        code = 125
    os._exit(code)  # the interpreter's own tidying up takes longer than a container's


if __name__ == "__main__":
    command()
