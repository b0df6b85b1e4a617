"""System calls from Python: by name, with plain numbers and bytes, errors as exceptions.

    strace -e trace=mount,unshare,… COMMAND      shows the same calls from outside

Python's own `os` has the calls of every Unix. The ones that make containers are Linux's alone, so they are reached
here through the C library's `syscall(2)`. Importing `ctypes` costs ten times what `_ctypes` costs, and every start of a
container would pay it; so this one file uses the private module, and the public one where that isn't there.

man 2 syscall, man 2 syscalls
"""

from __future__ import annotations

from ..errors import KernelError, UnsupportedError
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Argument: TypeAlias = int | bytes | Any | None  # Any: a buffer()

MACHINE = os.uname().machine

# Calls added since 2018 have one number everywhere; the older ones differ.
_COMMON = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438,
    "faccessat2": 439, "mount_setattr": 442,
}  # fmt: skip
_NUMBERS = {
    "x86_64": {
        "write": 1, "close": 3, "rt_sigaction": 13, "rt_sigprocmask": 14, "ioctl": 16, "dup2": 33, "socket": 41,
        "sendmsg": 46, "recvmsg": 47, "socketpair": 53, "getpid": 39, "clone": 56, "execve": 59, "kill": 62,
        "fcntl": 72, "chdir": 80, "fchdir": 81, "setgroups": 116, "setresuid": 117, "setresgid": 119, "capget": 125,
        "capset": 126, "personality": 135, "pivot_root": 155, "prctl": 157, "setrlimit": 160, "chroot": 161,
        "mount": 165, "umount2": 166, "sethostname": 170, "setdomainname": 171, "setxattr": 188, "lsetxattr": 189,
        "fsetxattr": 190, "exit_group": 231, "keyctl": 250, "waitid": 247, "unshare": 272, "dup3": 292,
        "signalfd4": 289, "prlimit64": 302, "setns": 308, "seccomp": 317, "memfd_create": 319, "bpf": 321,
        "execveat": 322, "setsid": 112, "setfsuid": 122, "setfsgid": 123, "syncfs": 306, "fstatfs": 138,
        "read": 0, "mmap": 9, "munmap": 11, "nanosleep": 35, "recvfrom": 45, "exit": 60, "wait4": 61, "getcwd": 79,
        "fchmod": 91, "fchown": 93, "umask": 95, "syslog": 103, "rt_sigtimedwait": 128, "setpriority": 141,
        "gettid": 186, "sched_setaffinity": 203, "ioprio_set": 251, "openat": 257, "mkdirat": 258, "mknodat": 259,
        "fchownat": 260, "symlinkat": 266, "ppoll": 271, "perf_event_open": 298, "setsockopt": 54,
    },
    "aarch64": {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "dup3": 24, "fcntl": 25, "ioctl": 29, "umount2": 39,
        "mount": 40, "pivot_root": 41, "chdir": 49, "fchdir": 50, "chroot": 51, "close": 57, "write": 64,
        "signalfd4": 74, "capget": 90, "capset": 91, "personality": 92, "exit_group": 94, "waitid": 95,
        "unshare": 97, "kill": 129, "rt_sigaction": 134, "rt_sigprocmask": 135, "setresuid": 147, "setresgid": 149,
        "setsid": 157, "setgroups": 159, "sethostname": 161, "setdomainname": 162, "setrlimit": 164, "prctl": 167,
        "getpid": 172, "socket": 198, "socketpair": 199, "sendmsg": 211, "recvmsg": 212, "keyctl": 219,
        "clone": 220, "execve": 221, "prlimit64": 261, "setns": 268, "seccomp": 277, "memfd_create": 279,
        "bpf": 280, "execveat": 281, "syncfs": 267, "fstatfs": 44,
        "getcwd": 17, "ioprio_set": 30, "mknodat": 33, "mkdirat": 34, "symlinkat": 36, "fchmod": 52, "fchownat": 54,
        "fchown": 55, "openat": 56, "read": 63, "ppoll": 73, "exit": 93, "nanosleep": 101, "syslog": 116,
        "sched_setaffinity": 122, "rt_sigtimedwait": 137, "setpriority": 140, "umask": 166, "gettid": 178,
        "setfsuid": 151, "setfsgid": 152, "recvfrom": 207, "munmap": 215, "mmap": 222, "perf_event_open": 241,
        "wait4": 260, "setsockopt": 208,
    },
}  # fmt: skip
NUMBERS: dict[str, int] = {**_NUMBERS.get(MACHINE, {}), **_COMMON}

if TYPE_CHECKING:
    _native: Any
    _library: Any
    _syscall: Any
    _held: Any
    _errno: Any
    _Byte: Any
    _Array: Any
    addressof: Any

try:
    _native = __import__("_ctypes")
    _CDECL, _KEEP_LOCK, _USE_ERRNO = 1, 4, 8  # the flags of a function type, as in CPython's ctypes.h

    def _simple(letter: str) -> Any:
        return type("Simple", (_native._SimpleCData,), {"_type_": letter})

    def _function(address: int, flags: int, result: Any) -> Any:
        kind = type("Function", (_native.CFuncPtr,), {"_flags_": _CDECL | flags, "_restype_": result})
        return kind(address)

    _Byte, _Pointer, _Long, _Array = _simple("c"), _simple("P"), _simple("l"), _native.Array
    _library = _native.dlopen(None, 0)
    _address = _native.dlsym(_library, "syscall")
    _syscall = _function(_address, _USE_ERRNO, _Long)
    _held = _function(_address, _USE_ERRNO | _KEEP_LOCK, _Long)  # for calls that return twice
    _syscall.argtypes = _held.argtypes = (_Pointer,) * 7
    _errno, addressof = _native.get_errno, _native.addressof

    def _code(address: int, arguments: int) -> Any:
        found = _function(address, _KEEP_LOCK, _Long)
        found.argtypes = (_Pointer,) * arguments
        return found

    def _interpreter(name: str) -> Any:
        function = _function(_native.dlsym(_library, name), _KEEP_LOCK, _Long)
        function.restype = None
        return function

except (ImportError, AttributeError):  # another Python than CPython, or one that moved its private parts
    _native = __import__("ctypes")
    _Byte, _Array, _library = _native.c_char, _native.Array, _native.CDLL(None, use_errno=True)
    _syscall, _held = _library.syscall, _native.PyDLL(None, use_errno=True).syscall
    _syscall.restype = _held.restype = _native.c_long
    _syscall.argtypes = _held.argtypes = (_native.c_void_p,) * 7
    _errno, addressof = _native.get_errno, _native.addressof

    def _code(address: int, arguments: int) -> Any:
        return _native.PYFUNCTYPE(_native.c_long, *(_native.c_void_p,) * arguments)(address)

    def _interpreter(name: str) -> Any:
        function = getattr(_native.pythonapi, name)
        function.restype = None
        return function


_buffer_types: dict[int, Any] = {}


def buffer(size: int) -> Any:
    """Memory of `size` zero bytes for the kernel to read or write; `bytes(buffer)` reads it back."""
    kind = _buffer_types.get(size)
    if kind is None:
        kind = _buffer_types[size] = type("Buffer", (_Array,), {"_type_": _Byte, "_length_": size})
    return kind()


def function(address: int, arguments: int) -> Callable[..., int]:
    """The machine code at this address as a function of so many numbers or pointers, which returns a number.

    The interpreter's lock stays held while it runs.
    """
    made: Callable[..., int] = _code(address, arguments)
    return made


def number(name: str) -> int:
    """The call's number on this machine; raises UnsupportedError for a processor that tarbox doesn't know."""
    try:
        return NUMBERS[name]
    except KeyError:
        raise UnsupportedError(
            f"the number of the system call {name} isn't known for {MACHINE}", "tarbox runs on x86_64 and aarch64"
        ) from None


def syscall(name: str, *arguments: Argument, hint: str = "") -> int:
    """Call the kernel by name and return what it returns; raises KernelError with the call, its arguments and errno.

    arguments: numbers, descriptors, zero-terminated bytes (Python's bytes are), None for a null pointer, or a
    `buffer()`. hint: what a user can do when it fails.
    """
    padded = arguments + (0,) * (6 - len(arguments))
    result: int = _syscall(number(name), *padded)
    if result < 0:
        raise KernelError(name, arguments, _errno(), hint)
    return result


def forking_syscall(name: str, *arguments: Argument) -> int:
    """Like `syscall`, for one that returns twice (clone, clone3): 0 in the child.

    The interpreter's own fork hooks run around it, as `os.fork` runs them. The process must have no other thread.
    """
    padded = arguments + (0,) * (6 - len(arguments))
    _interpreter("PyOS_BeforeFork")()
    result: int = _held(number(name), *padded)
    if result == 0:
        _interpreter("PyOS_AfterFork_Child")()
        return 0
    failed = _errno() if result < 0 else 0
    _interpreter("PyOS_AfterFork_Parent")()
    if failed:
        raise KernelError(name, arguments, failed)
    return result
