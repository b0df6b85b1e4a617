"""Finding a program: by the container's PATH, in the container's files, before it's executed.

    command -v NAME

The last system call can only say a number. Looking first gives the reason in words: nothing by that name, a directory,
no permission, made for another processor, a script whose interpreter is missing.

man 2 execve, man 5 elf
"""

from __future__ import annotations

import os
from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from stat import S_ISDIR, S_ISREG

from ..errors import CommandNotExecutableError, CommandNotFoundError, KernelError
from ..plan.step import CHILD, Slots, Step
from . import paths
from .syscall import MACHINE

# e_machine of an ELF header, as `uname -m` calls it
PROCESSORS = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64",
    258: "loongarch64",
}  # fmt: skip
_STARTER = "the process that starts the container, not a program of the image"
_INSTEAD = "links of /proc to running programs can't be started: name a program of the image"
_INTERPRETERS = 5  # as many as the kernel puts before one another
_RUNS = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}


class FindProgram(Step):
    """Find the program to execute; finds "program", its path, and "obstacle", what may keep it from running.

    name: as given; one without a slash is looked for along `path`, the value of PATH.
    """

    __slots__ = ("name", "path")

    phase = "exec"
    why = "a name without a slash is looked for in the container's own PATH, among the container's own files"
    man = "execvp(3)"

    def __init__(self, name: str, path: str, by: str = CHILD) -> None:
        super().__init__(by)
        self.name = name
        self.path = path

    def finds(self) -> tuple[str, ...]:
        return ("program", "obstacle")

    def apply(self, slots: Slots) -> None:
        program = self._search()
        if _is_starter(program):
            raise CommandNotExecutableError(f"{_short(program)} in the container is {_STARTER}", _INSTEAD)
        slots.found["program"] = program
        slots.found["obstacle"] = _obstacle(program)

    def _search(self) -> str:
        if not self.name:
            raise CommandNotFoundError("the command is an empty name", "is a variable in it unset?")
        if "/" in self.name:
            _check(self.name)
            return self.name
        refused: CommandNotExecutableError | None = None
        for directory in self.path.split(":"):
            try:
                _check(candidate := f"{directory or '.'}/{self.name}")
                return candidate
            except CommandNotFoundError:
                pass
            except CommandNotExecutableError as error:
                refused = refused or error
        if refused:
            raise refused
        hint = f"PATH in the container is {self.path}" if self.path else "the container has no PATH"
        raise CommandNotFoundError(f"there is no program {_short(self.name)} in the container", hint)

    def call(self) -> str:
        return f'stat("{self.name}")' if "/" in self.name else f'stat("{{{self.path}}}/{self.name}")'

    def shell(self) -> str:
        return f"command -v {self.name}"


def _check(path: str) -> None:
    shown = _short(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR, ENAMETOOLONG):
            raise CommandNotFoundError(f"there is no {shown} in the container") from None
        raise CommandNotExecutableError(f"cannot look at {shown} in the container: {error.strerror}") from None
    if S_ISDIR(mode):
        raise CommandNotExecutableError(f"{shown} in the container is a directory, not a program")
    if not S_ISREG(mode) or not mode & 0o111:
        raise CommandNotExecutableError(f"{shown} in the container isn't executable", "chmod +x it in the image")


def _short(path: str) -> str:
    return path if len(path) <= 200 else path[:197] + "..."


def _is_starter(path: str) -> bool:
    """Whether a link of /proc leads to the program of this process, /proc/self/exe for one: it would run itself."""
    try:
        if not os.path.samefile(path, "/proc/self/exe"):
            return False
    except OSError:
        return False
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # a volume may show the same file under a name of its own: then no link of /proc is in the way to it
        os.close(paths.open_in(root, os.path.join(os.getcwd(), path)))
        return False
    except KernelError as error:
        return error.errno == ELOOP
    finally:
        os.close(root)


def _obstacle(path: str, interpreters: int = 0) -> str:
    """Why this program may not start, for the message if it really doesn't; "" where nothing is known.

    interpreters: how many are started before it. Raises CommandNotExecutableError for one that is this very process.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        head = os.read(descriptor, 256)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    processor = processor_of(head)
    if processor and processor not in _RUNS.get(MACHINE, (MACHINE,)):
        return f"it is a program for {processor}, and this machine is {MACHINE}: get an image for {MACHINE}"
    if head.startswith(b"#!"):
        interpreter = (head[2:].split(b"\n")[0].split() or [b""])[0]
        name = os.fsdecode(interpreter)
        if not os.path.exists(interpreter):
            return f"its interpreter {interpreter.decode('utf-8', 'replace')} isn't in the image"
        if _is_starter(name):
            text = f"the interpreter of {_short(path)} in the container, {_short(name)}, is {_STARTER}"
            raise CommandNotExecutableError(text, _INSTEAD)
        if interpreters == _INTERPRETERS:
            return "its interpreter is a script, whose interpreter is a script, and so on: too many of them"
        return _obstacle(name, interpreters + 1)
    return ""


def processor_of(head: bytes) -> str:
    """The processor that an ELF file was made for, from its first 20 bytes, as `uname -m` says it; "" for others."""
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return ""
    number = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    return PROCESSORS.get(number, f"processor {number}")
