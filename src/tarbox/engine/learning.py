"""`--learn FILE`: what a run used, as a seccomp profile and a list of capabilities.

    strace -f -c COMMAND, and the calls from its table put into a profile by hand

A thread of this command answers for the container's filter (`kernel/seccomp_notify.py`): it gives the verdict that the
filter would have given, and remembers each call that it sees for the first time. The calls show which capabilities may
have been used (`capability_calls.py`), and the kernel tells root as well (`kernel/capability_trace.py`): those of
which both say so are kept.
"""

from __future__ import annotations

from errno import ENOSYS

from ..errors import KernelError, TarboxError
from ..kernel import capability_trace
from ..kernel import seccomp_notify as notify
from ..kernel.capabilities import mask, names
from ..kernel.seccomp import DEFAULT, path_of
from ..kernel.seccomp_compiler import compile_profile
from ..kernel.seccomp_program import decode, verdict
from ..kernel.syscall import MACHINE, syscall
from ..kernel.system_calls import numbers
from ..unistd import os
from . import learned_profile as profiles
from .capability_calls import CapabilityCalls
from .config import seccomp_of
from .learned_access import give_up_rights
from .options import HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..spec.runtime import Config
    from .options import RunOptions

_ACTION, _DATA = 0xFFFF0000, 0xFFFF
_KEPT = 10000  # verdicts on calls with certain arguments
_X32 = 0x40000000
# By the kernel's numbers of architectures: the table of calls and the name in profiles.
_ARCHITECTURES = {
    0xC000003E: ("x86_64", "SCMP_ARCH_X86_64"),
    0x40000003: ("i386", "SCMP_ARCH_X86"),
    0xC00000B7: ("aarch64", "SCMP_ARCH_AARCH64"),
    0x40000028: ("arm", "SCMP_ARCH_ARM"),
}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


class Learning:
    """One run that is learned from.

    path: of the profile's file. base: the decoded profile that the container runs with, and program: made of it; b""
    for a container without. made: its config. Raises UsageError and StorageError when the file can't be used.
    """

    def __init__(self, path: str, base: dict[str, Any], program: bytes, made: Config, options: RunOptions) -> None:
        self.secret = int.from_bytes(os.urandom(4), "little") | 1
        self._file = profiles.ProfileFile(path)
        self._base = base
        self._confined = bool(program)
        self._granted = mask(made["process"].get("capabilities", {}).get("bounding") or [])
        if not program:
            program = compile_profile(base, self._granted)[0]
        self._program = decode(program)
        self._one_id = "uidMappings" in made["linux"]
        self._init = options.init
        self._tables: dict[str, dict[int, str]] = {}
        self._known: dict[bytes, bytes] = {}
        self._arguments: dict[bytes, tuple[int, ...]] = {}  # of calls that depend on some: where these are
        self._verdicts: dict[bytes, bytes] = {}
        self._architectures = {_NATIVE[MACHINE]}
        self._used: set[str] = set()
        self._beyond: set[str] = set()
        self._refused: dict[str, str] = {}
        self._needs = _needs(base)
        self._started = False
        self._counters: capability_trace.Counters | None = None
        self._calls = CapabilityCalls(
            self._granted, self._one_id, options.network != HOST, seccomp_of(options) == DEFAULT
        )
        self._listener = -1
        self._error = ""
        self._missed = 0

    def start(self, listener: int, pid: int) -> None:
        """Answer from now on. listener: of the container's filter; it is closed here. pid: the first process."""
        import _thread

        self._listener = listener
        try:
            if not self._one_id:
                wanted = [number for number in range(self._granted.bit_length()) if self._granted >> number & 1]
                self._counters = capability_trace.Counters(pid, wanted)
        except (KernelError, OSError):
            pass  # an older kernel, or root who isn't the machine's
        pidfd = syscall("pidfd_open", pid, 0)
        _thread.start_new_thread(self._serve, (pidfd,))

    def close(self) -> None:
        """Let go of everything, when the container didn't start."""
        self._file.close()
        if self._counters:
            self._counters.close()

    def finish(self, code: int) -> list[str]:
        """Write the profile, when the container has ended; returns lines for people. Raises a TarboxError.

        code: the container's exit code.
        """
        if self._error:
            self.close()
            raise TarboxError(f"--learn: {self._error}, so the container was killed; nothing was written")
        capabilities = self._calls.used & self._granted  # those that may have been used
        if self._counters:
            capabilities &= sum(1 << number for number in self._counters.used())  # and these as well
        used = self._used.union(profiles.RUNNER_CALLS, profiles.CHANCE_CALLS, profiles.INIT_CALLS if self._init else ())
        if len(self._architectures) > 1:
            used.update(profiles.CHANCE_CALLS_32)
        refused = {name: f"CAP_{needs}" for name, needs in self._calls.refused.items()} | self._refused
        profile = profiles.document(
            profiles.rules(self._base, used, self._beyond),
            self._architectures,
            names(capabilities),
            "kernel" if self._counters else "calls",
            refused,
        )
        whole, new = self._file.add(profile)
        shown = os.path.relpath(self._file.path)
        lines = _lines(whole, new, self._file.path if shown.startswith("..") else shown, refused)
        if code and self._missed:
            lines.append(
                f"{self._missed} system calls met a signal before they were answered, which some programs take for an"
                " error (EINTR): if this one failed of it, try again, or learn without the signals"
            )
        return lines

    def _serve(self, pidfd: int) -> None:
        """The thread: nobody else's code runs meanwhile for long, and the container waits for every answer."""
        try:
            give_up_rights()
            notify.serve(self._listener, self._known, self._decide, self._miss)
        except Exception as error:  # whatever it is: the container must not wait for ever, nor go on unlearned
            self._error = f"an answer to a system call failed ({error!r})"
            try:
                syscall("pidfd_send_signal", pidfd, 9, None, 0)
            except KernelError:
                pass
        finally:
            os.close(self._listener)
            os.close(pidfd)

    def _miss(self) -> None:
        self._missed += 1

    def _decide(self, call: bytes) -> bytes:
        """The answer to a call that isn't known to be always the same."""
        key = call[16:24]
        architecture, name = self._name(key)
        arguments = tuple(int.from_bytes(call[at : at + 8], "little") for at in range(32, 80, 8))
        if not self._started and name == "execve":
            self._started = True
            if self._counters:
                self._counters.enable()
        depends = self._arguments.get(key, ())
        answer = self._verdicts.get(key + b"".join([call[16 + at : 20 + at] for at in depends]))
        if answer is None:
            answer = self._judge(key, call[16:], architecture, name)
        if not self._started:  # what the runner does for itself says nothing of the program's capabilities
            return answer
        if answer == notify.GO_ON and self._calls.tells(name):
            try:
                self._calls.look_at(name, int.from_bytes(call[8:12], "little"), arguments)
            except (OSError, KernelError, LookupError, ValueError, OverflowError):
                pass  # it died, or it is nobody whom this user may look at, or its pointer points nowhere
        elif key not in self._arguments:
            self._known[key] = answer
        return answer

    def _judge(self, key: bytes, data: bytes, architecture: str, name: str) -> bytes:
        returned, depends = verdict(self._program, data)
        allows = returned & _ACTION in (notify.ALLOW, notify.LOG)
        errno = returned & _DATA
        answer = notify.GO_ON if allows or not self._confined else notify.fail(errno)
        if name and (allows or not self._confined):
            self._architectures.add(architecture)
            (self._used if allows else self._beyond).add(name)
        elif errno != ENOSYS:  # with that, programs fall back to an older call
            self._refused.setdefault(name or f"call {int.from_bytes(key[:4], 'little')}", self._needs.get(name, ""))
        if not depends <= {*self._arguments.get(key, ())}:  # what was kept for fewer isn't found any more
            self._arguments[key] = tuple(sorted(depends.union(self._arguments.get(key, ()))))
        if len(self._verdicts) < _KEPT:
            self._verdicts[key + b"".join([data[at : at + 4] for at in self._arguments.get(key, ())])] = answer
        return answer

    def _name(self, key: bytes) -> tuple[str, str]:
        number, audit = int.from_bytes(key[:4], "little"), int.from_bytes(key[4:], "little")
        table, architecture = _ARCHITECTURES.get(audit, ("", ""))
        if table == "x86_64" and number & _X32:
            table, architecture = "x32", "SCMP_ARCH_X32"
        if table not in self._tables:
            self._tables[table] = {number: name for name, number in numbers(table).items()} if table else {}
        return architecture, self._tables[table].get(number, "")


def prepare(options: RunOptions, made: Config, program: bytes, keep: bool) -> Learning | None:
    """What learns from a run; None where nothing is run. program: its filter's, b"" without one.

    Raises UsageError and StorageError when the file can't be used.
    """
    if not keep:
        profiles.ProfileFile(options.learn).close()
        return None
    import json

    profile = seccomp_of(options)
    with open(path_of(DEFAULT if profile == "unconfined" else profile), "rb") as file:
        base = json.load(file)
    return Learning(options.learn, base, program, made, options)


def _needs(base: dict[str, Any]) -> dict[str, str]:
    """The capability with which a profile allows a call, by the call's name."""
    found: dict[str, str] = {}
    for entry in base.get("syscalls") or []:
        capabilities = (entry.get("includes") or {}).get("caps")
        if capabilities and entry["action"] == "SCMP_ACT_ALLOW":
            for name in entry.get("names") or []:
                found.setdefault(name, capabilities[0])
    return found


def _lines(whole: dict[str, Any], new: int, shown: str, refused: dict[str, str]) -> list[str]:
    from ..plan.shell import quote

    kept = whole[profiles.KEY]
    runs = kept["runs"]
    count = len(profiles.allowed(whole))
    capabilities = [name.removeprefix("CAP_") for name in kept["capabilities"]]
    so_far = f" in {runs} runs, {new} of them new" if runs > 1 else ""
    kinds = "1 capability" if len(capabilities) == 1 else f"{len(capabilities) or 'no'} capabilities"
    added = "".join(f" --cap-add {name}" for name in capabilities)
    lines = [
        f"learned {count} system calls{so_far}, and {kinds}: see {shown}",
        f"to use them: tarbox run --security-opt {quote(f'seccomp={shown}')} --cap-drop ALL{added} …",
    ]
    if refused:
        told = [f"{name} (needs {needs})" if needs else name for name, needs in sorted(refused.items())]
        lines.append(f"refused: {', '.join(told)}")
    return lines
