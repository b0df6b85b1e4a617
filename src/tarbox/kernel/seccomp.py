"""seccomp: a program that the kernel runs before every system call, and that decides whether it is made.

    bwrap --seccomp FD … COMMAND          grep Seccomp /proc/self/status

Compiled programs are kept on disk, so that a start reads one small file instead of a profile. A filter is for good:
every child inherits it and can only add to it.

Without no_new_privs the kernel wants CAP_SYS_ADMIN for loading, so the step then stands before the ones that give
capabilities and ids away, and the profile must allow what comes after it: prctl, capset, setgroups, setresgid,
setresuid, close_range, execve, write (for reporting an error) and exit_group.

man 2 seccomp
"""

from __future__ import annotations

from ..errors import ConfigError, UsageError
from ..plan.step import RUNNER, Filter, Row, Step
from ..unistd import S_ISREG, os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Slots

DEFAULT = "default"
FORMAT = 3  # goes up when the compiler makes another program of the same profile
LARGEST_PROFILE = 1 << 20  # bytes
LARGEST_PROGRAM = 4096 * 8  # bytes

_DEFAULT_PROFILE = os.path.join(os.path.dirname(__file__), "seccomp-default.json")
_SECCOMP_SET_MODE_FILTER = 1
_FLAG_BYTES = 8  # a kept file is the program and then the flags


def load(profile: str, capabilities: int, cache: str, keep: bool = True) -> tuple[bytes, int]:
    """The program of a profile and the flags to load it with, from the cache or compiled and put there.

    profile: "default", or the path of a JSON file in Docker's or the OCI's form. capabilities: the bounding set of the
    container. cache: a directory of one's own, made when missing; where it can't be used, nothing is kept.
    keep: False leaves the cache as it is. Raises
    UsageError for a file that can't be read and ConfigError for what is wrong in it.
    """
    path = path_of(profile)
    try:
        # Not to wait for a writer of a named pipe here; reading below waits for it, as it should.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UsageError(f"the seccomp profile {path!r} can't be read: {_reason(error)}") from error
    try:
        name = _kept_name(os.fstat(descriptor), capabilities, cache)
        found = _read_kept(name) if name else None
        if found:
            return found
        program, flags = _compile(path, _read_all(descriptor, path), capabilities)
    finally:
        os.close(descriptor)
    if name and keep:
        keep_in(name, program + flags.to_bytes(_FLAG_BYTES, "little"))
    return program, flags


def path_of(profile: str) -> str:
    """The file of a profile that is given as for `load`."""
    return _DEFAULT_PROFILE if profile == DEFAULT else profile


def _kept_name(status: os.stat_result, capabilities: int, cache: str) -> str:
    if not S_ISREG(status.st_mode):
        return ""  # a pipe, such as a shell's <(…), is another one each time
    uname = os.uname()
    release = uname.release.split("-", 1)[0]
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, capabilities)
    numbers = "-".join(f"{number:x}" for number in identity)
    return f"{cache}/seccomp-{FORMAT}-{uname.machine}-{release}-{numbers}.bpf"


def _read_kept(path: str) -> tuple[bytes, int] | None:
    """The program and its flags that are kept in a file, if it is whole."""
    data = kept(path, LARGEST_PROGRAM + _FLAG_BYTES) or b""
    size = len(data) - _FLAG_BYTES
    if size <= 0 or size % 8:
        return None
    return data[:size], int.from_bytes(data[size:], "little")


def kept(path: str, most: int) -> bytes | None:
    """What is kept in a file, if it is one that this user wrote, and nobody else can write; at most so many bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        data = os.read(descriptor, most + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data if len(data) <= most else None


def keep_in(path: str, data: bytes) -> None:
    """Put a file in place whole or not at all; a cache that can't be written isn't missed."""
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)  # after a power cut there is no empty or zeroed program
        finally:
            os.close(descriptor)
        if os.stat(temporary).st_size == len(data):
            os.rename(temporary, path)
            return
    except OSError:
        pass
    try:
        os.unlink(temporary)
    except OSError:
        pass


def _read_all(descriptor: int, path: str) -> bytes:
    os.set_blocking(descriptor, True)
    data = b""
    try:
        while piece := os.read(descriptor, 1 << 16):
            data += piece
            if len(data) > LARGEST_PROFILE:
                raise UsageError(f"the seccomp profile {path!r} is longer than {LARGEST_PROFILE} bytes")
    except OSError as error:
        raise UsageError(f"the seccomp profile {path!r} can't be read: {_reason(error)}") from error
    return data


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _compile(path: str, data: bytes, capabilities: int) -> tuple[bytes, int]:
    import json

    from .seccomp_compiler import compile_profile

    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(path, f"the seccomp profile isn't JSON: {error}") from error
    return compile_profile(document, capabilities, f"{path}: $")


class LoadSeccomp(Step):
    """Put a seccomp program before every later system call.

    profile: its name, for people. program: the instructions, 8 bytes each; b"" where it's only told of.
    flags: of seccomp(2).
    """

    __slots__ = ("flags", "profile", "program")

    phase = "privileges"
    why = "The kernel refuses the system calls that a container has no business with, whoever calls."
    man = "seccomp(2)"

    def __init__(self, profile: str, program: bytes, flags: int = 0, by: str = RUNNER) -> None:
        super().__init__(by)
        self.profile = profile
        self.program = program
        self.flags = flags

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("seccomp", (_SECCOMP_SET_MODE_FILTER, self.flags, Filter(self.program)), self.call())]

    def call(self) -> str:
        flags = [name for bit, name in ((2, "LOG"), (4, "SPEC_ALLOW")) if self.flags & bit]
        shown = "|".join(f"SECCOMP_FILTER_FLAG_{name}" for name in flags) or "0"
        count = f"{len(self.program) // 8} instructions of " if self.program else ""
        return f"seccomp(SECCOMP_SET_MODE_FILTER, {shown}, {{{count}the profile {self.profile}}})"

    def shell(self) -> str:
        return f"bwrap --dev-bind / / --seccomp 9 COMMAND 9<{self.profile}.bpf"
