"""Obstacles: why a program of the container doesn't start.

    file PROGRAM; head -c 100 PROGRAM; uname -m

The kernel can only say a number. Once a program couldn't be executed, a look at the container's files gives the reason
in words: nothing by that name, a directory, no permission, made for another processor, a script whose interpreter is
missing.

man 2 execve, man 5 elf
"""

from __future__ import annotations

from errno import EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOEXEC, ENOTDIR

from ..errors import CommandNotExecutableError, CommandNotFoundError, KernelError
from ..unistd import S_ISDIR, S_ISREG, os
from .paths import Beyond, Tree, reopen
from .program import candidates, short
from .syscall import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError

# e_machine of an ELF header, as `uname -m` calls it
PROCESSORS = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64",
    258: "loongarch64",
}  # fmt: skip
_STARTER = "the process that starts the container, not a program of the image"
_INSTEAD = "links of /proc to running programs can't be started: name a program of the image"
_INTERPRETERS = 5  # as many as the kernel puts before one another
_RUNS = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}


def explain(tree: Tree, directory: str, name: str, path: str, errno: int) -> TarboxError:
    """Why the program couldn't be started, from the files of the container.

    directory: the working directory, from which relative paths go. name, path: as for `candidates`. errno: what the
    kernel said.
    """
    found: TarboxError | None = None
    for candidate in candidates(name, path):
        try:
            program = candidate if candidate.startswith("/") else f"{directory}/{candidate}"
            _check(tree, program, candidate)
        except CommandNotFoundError as error:
            found = found or (error if "/" in name else None)
        except CommandNotExecutableError as error:
            return error
        else:
            return _refused(candidate, errno, _obstacle(tree, program))
    if found:
        return found
    hint = f"PATH in the container is {path}"
    return CommandNotFoundError(f"there is no program {short(name)} in the container", hint)


def second_pass(tree: Tree, directory: str, name: str, path: str) -> str:
    """What to say of a program that ended with 126: in words when it was the starter itself, else ""."""
    for candidate in candidates(name, path):
        program = candidate if candidate.startswith("/") else f"{directory}/{candidate}"
        try:
            _check(tree, program, candidate)
            if ": " in (text := _obstacle(tree, program)):
                return text if _STARTER in text else ""
        except CommandNotExecutableError as error:
            return str(error) if _STARTER in error.message else ""
        except CommandNotFoundError:
            continue
    return ""


def _refused(program: str, errno: int, obstacle: str) -> TarboxError:
    text = f"cannot start {short(program)}: {os.strerror(errno)}"
    if errno in (ENOENT, ENOTDIR):
        return CommandNotFoundError(text, obstacle or "its interpreter or loader isn't in the image")
    hints = {
        EACCES: "is it executable, and may this user enter its directory?",
        ENOEXEC: "it is no program for this machine, and has no #! line",
        ELOOP: "a program whose interpreter is /proc/self/exe never runs in a container",
    }
    return CommandNotExecutableError(text, obstacle or hints.get(errno, ""))


def _open(tree: Tree, path: str) -> int:
    """An O_PATH descriptor of a file of the container's; raises KernelError, and CommandNotExecutableError in /proc."""
    place = tree.find(path)[1]
    if isinstance(place, Beyond):
        if place.rest.endswith("/exe"):
            raise CommandNotExecutableError(f"{short(path)} in the container is {_STARTER}", _INSTEAD)
        raise CommandNotFoundError(f"there is no {short(path)} in the container")
    return place


def _check(tree: Tree, path: str, shown: str) -> None:
    shown = short(shown)
    try:
        handle = _open(tree, path)
    except KernelError as error:
        if error.errno in (ENOENT, ENOTDIR, ENAMETOOLONG):
            raise CommandNotFoundError(f"there is no {shown} in the container") from None
        text = f"cannot look at {shown} in the container: {os.strerror(error.errno)}"
        raise CommandNotExecutableError(text) from None
    mode = os.fstat(handle).st_mode
    os.close(handle)
    if S_ISDIR(mode):
        raise CommandNotExecutableError(f"{shown} in the container is a directory, not a program")
    if not S_ISREG(mode) or not mode & 0o111:
        raise CommandNotExecutableError(f"{shown} in the container isn't executable", "chmod +x it in the image")


def _obstacle(tree: Tree, path: str, interpreters: int = 0) -> str:
    """Why this program may not start; "" where nothing is known.

    interpreters: how many are started before it.
    """
    try:
        handle = _open(tree, path)
        descriptor = reopen(handle, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        os.close(handle)
    except KernelError:
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
        return _interpreted(tree, path, os.fsdecode((head[2:].split(b"\n")[0].split() or [b""])[0]), interpreters)
    return ""


def _interpreted(tree: Tree, path: str, interpreter: str, interpreters: int) -> str:
    try:
        _check(tree, interpreter if interpreter.startswith("/") else f"/{interpreter}", interpreter)
    except CommandNotFoundError:
        return f"its interpreter {short(interpreter)} isn't in the image"
    except CommandNotExecutableError as error:
        if _STARTER in error.message:
            text = f"the interpreter of {short(path)} in the container, {short(interpreter)}, is {_STARTER}"
            return f"{text}: {_INSTEAD}"
        return f"its interpreter {short(interpreter)} can't be executed"
    if interpreters == _INTERPRETERS:
        return "its interpreter is a script, whose interpreter is a script, and so on: too many of them"
    return _obstacle(tree, interpreter, interpreters + 1)


def processor_of(head: bytes) -> str:
    """The processor that an ELF file was made for, from its first 20 bytes, as `uname -m` says it; "" for others."""
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return ""
    number = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    return PROCESSORS.get(number, f"processor {number}")
