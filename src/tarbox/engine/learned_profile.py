"""A seccomp profile of what a container used: made, put together with what earlier runs used, written.

    jq .syscalls[].names p.json

It is a profile in Docker's form, with one key more that engines pass over: `x-tarbox` says which capabilities were used
and what was refused. It has the rules of the profile that the container ran with, for the calls that were used and
for no others; so a rule for certain arguments stays one.
"""

from __future__ import annotations

import fcntl

from ..errors import StorageError, UsageError
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

KEY = "x-tarbox"
LARGEST = 1 << 20  # bytes

# What tarbox itself calls between the filter and the program, in whatever order the options ask for.
RUNNER_CALLS = (
    "capset", "close_range", "execve", "exit_group", "prctl", "setgroups", "setresgid", "setresuid", "write",
)  # fmt: skip
INIT_CALLS = ("clone", "close", "getpid", "getsid", "ioctl", "kill", "rt_sigprocmask", "rt_sigtimedwait", "setpgid",
              "wait4")  # fmt: skip
# Whether these are seen is chance: a signal at that moment; a clock that the kernel lets programs read by themselves.
CHANCE_CALLS = (
    "clock_getres", "clock_gettime", "exit", "getcpu", "gettimeofday", "restart_syscall", "rt_sigreturn", "time",
)  # fmt: skip
CHANCE_CALLS_32 = ("clock_getres_time64", "clock_gettime64", "sigreturn")
_FALLS_BACK = ("clone3",)  # refused with the errno at which programs use an older call

_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")


def rules(base: dict[str, Any], used: set[str], beyond: set[str]) -> list[dict[str, Any]]:
    """The rules of a profile for some calls.

    base: the decoded profile. used: names of the calls that it allowed. beyond: names of those that are allowed though
    it wouldn't have.
    """
    kept: list[dict[str, Any]] = []
    allowed: set[str] = set()
    for entry in base.get("syscalls") or []:
        allows = entry["action"] in _PERMISSIVE
        names = [entry["name"]] if entry.get("name") else entry.get("names") or []
        some = sorted(
            name for name in names if name not in beyond and (name in used or (not allows and name in _FALLS_BACK))
        )
        if not some:
            continue
        rule = {"names": some, **{key: value for key, value in entry.items() if key not in ("name", "names")}}
        if not allows and entry.get("args") and base.get("defaultAction") in _PERMISSIVE:
            rule["first"] = True
        kept.append({key: value for key, value in rule.items() if value not in (None, [], {})})
        if allows:
            allowed.update(some)
    plain = sorted((used - allowed) | beyond)
    return [*kept, {"names": plain, "action": "SCMP_ACT_ALLOW"}] if plain else kept


def document(
    syscalls: list[dict[str, Any]],
    architectures: Iterable[str],
    capabilities: Iterable[str],
    seen_by: str,
    refused: dict[str, str],
) -> dict[str, Any]:
    """The whole profile of one run.

    architectures: SCMP_ARCH_…. capabilities: names. seen_by: how it is known which were used, "kernel" or "calls".
    refused: names of calls, each with the capability that it would have needed or "".
    """
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": sorted(architectures, key=lambda name: (name not in _FIRST, name)),
        "syscalls": syscalls,
        KEY: {
            "runs": 1,
            "capabilities": list(capabilities),
            "capabilitiesSeenBy": seen_by,
            "refused": [{"call": name, "needs": needs} for name, needs in sorted(refused.items())],
        },
    }


_FIRST = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")


def merged(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """The profile that allows what either allows. Both are of the form that `document` makes."""
    import json

    together: dict[str, list[str]] = {}
    for rule in (*one["syscalls"], *two["syscalls"]):
        key = json.dumps({name: value for name, value in rule.items() if name != "names"}, sort_keys=True)
        together[key] = sorted({*together.get(key, []), *rule["names"]})
    ours, theirs = one[KEY], two[KEY]
    refused = {entry["call"]: entry["needs"] for entry in (*ours["refused"], *theirs["refused"])}
    from ..spec.runtime import CAPABILITIES

    known = {*ours["capabilities"], *theirs["capabilities"]}
    made = document(
        [{"names": names, **json.loads(key)} for key, names in together.items()],
        {*one["architectures"], *two["architectures"]},
        [name for name in CAPABILITIES if name in known],
        "kernel" if ours["capabilitiesSeenBy"] == theirs["capabilitiesSeenBy"] == "kernel" else "calls",
        refused,
    )
    made[KEY]["runs"] = ours["runs"] + theirs["runs"]
    return made


def allowed(profile: dict[str, Any]) -> set[str]:
    """The names of the calls that a profile allows, if only with certain arguments."""
    return {name for rule in profile["syscalls"] if rule["action"] in _PERMISSIVE for name in rule["names"]}


class ProfileFile:
    """The file of a profile, which other runs may be writing to at the same time.

    Its folder is opened at once, so that it is found out before the run whether the file can be written. Raises
    UsageError for a file that isn't a profile of ours, and StorageError.
    """

    __slots__ = ("_folder", "_name", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        real = os.path.realpath(path)
        folder, self._name = os.path.split(real)
        if not self._name or os.path.isdir(real):
            raise UsageError(f"--learn {path}: that is a directory", "name a file, e.g. --learn ./profile.json")
        try:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"--learn {path}: {error.strerror}", "is the directory there?") from None
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=self._folder, effective_ids=True):
            raise StorageError(f"--learn {path}: you may not write to the directory {folder}")
        self._read()

    def add(self, profile: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Put a run's profile together with what is in the file, and replace the file: the whole, and how many calls
        are new. Raises StorageError and UsageError; then the file is as it was."""
        import json

        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: two runs at once may lose one's calls
        before = self._read()
        whole = merged(before, profile) if before else profile
        new = len(allowed(whole)) - (len(allowed(before)) if before else 0)
        try:
            self._write(json.dumps(whole, indent=2).encode() + b"\n")
        except OSError as error:
            raise StorageError(f"--learn {self.path}: {error.strerror}", "what was learned is lost") from None
        finally:
            self.close()
        return whole, new

    def close(self) -> None:
        """Let go of the folder and its lock; a second call does nothing."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _write(self, data: bytes) -> None:
        temporary = f".{self._name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(temporary, flags, 0o600, dir_fd=self._folder)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(file, view) :]
                os.fchmod(file, 0o644)
                os.fsync(file)
            finally:
                os.close(file)
            os.rename(temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            os.unlink(temporary, dir_fd=self._folder)
            raise

    def _read(self) -> dict[str, Any] | None:
        import json

        try:
            file = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"--learn {self.path}: {error.strerror}") from None
        try:
            data = os.read(file, LARGEST)
        except OSError as error:
            raise StorageError(f"--learn {self.path}: {error.strerror}") from None
        finally:
            os.close(file)
        try:
            found = json.loads(data)
            merged(found, found)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            hint = "a run is only added to a profile that --learn wrote: choose another name, or remove the file"
            raise UsageError(f"--learn {self.path}: something else is there already", hint) from None
        return dict(found)
