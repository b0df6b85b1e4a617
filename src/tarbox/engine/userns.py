"""`--userns`, `--uidmap` and `--gidmap`: which ids of the host a container of root's has. Loaded only when given.

    host                  the host's own (default)
    auto, auto:size=N     a range that no other container has, from /etc/subuid or from 1879048192 upwards
    START:SIZE            from 0 inside, so many ids from START on the host
    keep-id               as auto, but the user of -u is the same user on the host
    ns:PATH, pid:N, pidfd:N   that of others

A range that was taken is a small file below /run/tarbox, locked as long as its owner lives: one that nobody holds is a
dead one's, and free unless a running process has its ids.

    cat /proc/PID/uid_map; grep containers: /etc/subuid

man 7 user_namespaces, man 5 subuid
"""

from __future__ import annotations

import fcntl

from ..errors import ConfigError, StorageError, UnsupportedError, UsageError
from ..plan.journal import drop
from ..spec.mappings import LARGEST, check, outside_of
from ..unistd import os
from .options import HOST
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.mappings import Rows
    from ..spec.runtime import Config
    from .machine import Machine
    from .options import RunOptions

SIZE = 65536  # ids of a container that asks for no number
# Where ranges are taken when /etc/subuid has none for containers: systemd's list of ids has nobody there, and some
# programs and older kernels' devpts read no numbers from 1879048192 upwards.
FIRST, LAST = 1879048192, 2147352575
_NAMES = ("containers", "root")  # whose lines count, as other engines have them
_EXAMPLE = "host, auto, auto:size=N, START:SIZE, keep-id, ns:PATH, pid:N or pidfd:N"
_FILES = ("/etc/subuid", "/etc/subgid")


def read(text: str) -> str:
    """One --userns, checked: "host", "auto N", "range START SIZE", "keep UID GID SIZE" (-1: of -u)."""
    name, colon, rest = text.partition(":")
    words = dict(part.partition("=")[::2] for part in rest.split(",")) if rest else {}
    if text in (HOST, ""):
        return HOST
    if text == "private":
        return f"auto {SIZE}"
    if name == "auto" and words.keys() <= {"size"} and bool(colon) == bool(words):
        return f"auto {_count(words.get('size', str(SIZE)), text)}"
    if name == "keep-id" and words.keys() <= {"uid", "gid", "size"} and bool(colon) == bool(words):
        uid = _number(words["uid"], text) if "uid" in words else -1
        gid = _number(words["gid"], text) if "gid" in words else uid
        return f"keep {uid} {gid} {_count(words.get('size', str(SIZE)), text)}"
    if colon and name.isdecimal():
        return f"range {_number(name, text)} {_count(rest, text)}"
    if name in ("container", "ns", "pid", "pidfd"):
        from .namespaces import read as read_space

        return f"join {read_space('user', text)}"
    if name == "nomap":
        raise UsageError(f"{shorten(text)!r} is for plain users of other engines", _EXAMPLE)
    from .nearest import suggest

    near = suggest(text, ("host", "auto", "keep-id", "private"))
    raise UsageError(f"{shorten(text)!r} is no user namespace", f"did you mean {near}?" if near else _EXAMPLE)


def _number(word: str, text: str) -> int:
    if not (word.isascii() and word.isdecimal()) or len(word) > 10 or int(word) > LARGEST:
        raise UsageError(f"{shorten(text)!r}: {shorten(word)!r} is no id", f"0 to {LARGEST}; {_EXAMPLE}")
    return int(word)


def _count(word: str, text: str) -> int:
    count = _number(word, text)
    if not count:
        raise UsageError(f"{shorten(text)!r} has no ids", _EXAMPLE)
    return count


def row(text: str) -> tuple[int, int, int]:
    """One --uidmap or --gidmap, CONTAINER:HOST:SIZE."""
    parts = text.split(":")
    if len(parts) == 2:
        parts.append("1")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise UsageError(f"{shorten(text)!r} is no row of a map", "CONTAINER:HOST:SIZE, e.g. 0:100000:65536")
    inside, outside, size = (_number(part, text) for part in parts)
    return inside, outside, size


class Chosen:
    """The maps of a container, and the descriptor that holds a range that was taken for it, or -1.

    users, groups: rows of (first inside, first on the host, how many). path: of the range's file, "" for none. user:
    who the program runs as where nobody says, "" for the image's own. joined: the path of the namespace that has these
    maps, "" for a new one.
    """

    __slots__ = ("groups", "held", "joined", "path", "user", "users")

    def __init__(self, users: Rows, groups: Rows, held: int = -1, path: str = "", user: str = "") -> None:
        self.joined = ""
        self.users = users
        self.groups = groups
        self.held = held
        self.path = path
        self.user = user

    def release(self) -> None:
        """Give the range back."""
        if self.held >= 0:
            os.close(self.held)
            self.held = -1
            drop(self.path)


def choose(options: RunOptions, uid: int, folder: str, keep: bool) -> Chosen | None:
    """The maps that were asked for; None for the host's ids.

    folder: for the files of ranges that are taken. keep: whether one is taken, or only told which it could be. Raises
    UsageError and UnsupportedError.
    """
    word, *numbers = (options.userns or HOST).split(" ")
    if uid:
        _refuse_plain(options, word)
        return None
    if options.uidmap or options.gidmap:
        if word != HOST:
            raise UsageError("--uidmap and --gidmap can't go with --userns", "leave one of them out")
        users = tuple(options.uidmap or options.gidmap)
        return _checked(Chosen(users, tuple(options.gidmap or options.uidmap)))
    if word == HOST:
        return None
    if word == "range":
        rows = ((0, int(numbers[0]), int(numbers[1])),)
        return _checked(Chosen(rows, rows))
    if word == "join":
        return _joined(options.userns.partition(" ")[2])
    user = ""
    kept = -1, -1
    if word == "keep":
        kept, user = _kept(options, int(numbers[0]), int(numbers[1]))
    size = int(numbers[-1])
    start, held, path = take(size, folder, keep)
    return _checked(Chosen(_around(start, size, kept[0]), _around(start, size, kept[1]), held, path, user))


def _joined(path: str) -> Chosen | None:
    """The maps of a namespace that is there; None for this process's own."""
    from ..kernel.joined_namespaces import open_namespace
    from ..kernel.namespace_files import look_around

    handle = open_namespace("user", path)
    try:
        number = os.fstat(handle).st_ino
        if number == os.stat("/proc/self/ns/user").st_ino:
            return None
        space = look_around().namespaces.get(("user", number))
        for pid in space.pids if space else ():
            texts = [_text(f"/proc/{pid}/{name}_map") for name in ("uid", "gid")]
            try:
                if os.stat(f"/proc/{pid}/ns/user").st_ino != number:  # another process by that number
                    continue
            except OSError:
                continue
            found = [tuple(tuple(map(int, line.split())) for line in text.splitlines()) for text in texts]
            if any(outside_of(rows, 0) is None for rows in found):  # type: ignore[arg-type]
                raise UnsupportedError(f"{path} can't be joined: it has no id 0, which sets a container up")
            chosen = Chosen(found[0], found[1])  # type: ignore[arg-type]
            chosen.joined = path
            return chosen
    finally:
        os.close(handle)
    raise UnsupportedError(f"{path} can't be joined: no process is in it that tells which ids it has", _EXAMPLE)


def _refuse_plain(options: RunOptions, word: str) -> None:
    if word == HOST and not options.userns and not options.uidmap and not options.gidmap:
        return
    asked = "--uidmap" if options.uidmap else "--gidmap" if options.gidmap else f"--userns {shorten(options.userns)}"
    if word == "keep":
        raise UnsupportedError(
            "--userns keep-id: a plain user's container has one id, 0, which is that user outside",
            "leave it out: what it writes to a volume is yours already",
        )
    if word == HOST and options.userns:
        raise UnsupportedError(
            "--userns host: only in a user namespace of his own may a plain user make a container",
            "leave it out, or run tarbox as root",
        )
    raise UnsupportedError(
        f"{asked.split(' ')[0]}: the kernel lets a plain user map one id, his own",
        "leave it out, or run tarbox as root",
    )


def _checked(chosen: Chosen) -> Chosen:
    for name, rows in (("uid", chosen.users), ("gid", chosen.groups)):
        try:
            check(rows, f"--{name}map")
        except ConfigError as error:
            raise UsageError(error.message, "CONTAINER:HOST:SIZE, e.g. 0:100000:65536") from None
    return chosen


def _kept(options: RunOptions, uid: int, gid: int) -> tuple[tuple[int, int], str]:
    """Whose ids are the same inside and outside, and who the program runs as where -u doesn't say."""
    name, _, group = options.user.partition(":")
    if uid < 0 and name.isdecimal() and (not group or group.isdecimal()):
        uid, gid = int(name), int(group or name)
    if uid < 0 and not options.user and os.environ.get("SUDO_UID", "").isdecimal():
        uid = int(os.environ["SUDO_UID"])
        gid = int(os.environ["SUDO_GID"]) if os.environ.get("SUDO_GID", "").isdecimal() else uid
    if uid <= 0 or gid <= 0:
        raise UsageError(
            "--userns keep-id: whose id is to be kept isn't said, and root's never is",
            "by number: -u 1000:1000, or keep-id:uid=1000,gid=1000",
        )
    return (uid, gid), "" if options.user else f"{uid}:{gid}"


def _around(start: int, size: int, kept: int) -> Rows:
    """The rows of a range, in which one id is the host's own."""
    if kept < 0:
        return ((0, start, size),)
    rows = [(0, start, min(kept, size)), (kept, kept, 1)]
    if kept + 1 < size:
        rows.append((kept + 1, start + kept + 1, size - kept - 1))
    return tuple(row for row in rows if row[2])


def spaces(texts: tuple[str, str]) -> list[tuple[int, int]]:
    """(first, how many) of the ids that may be taken, by the texts of /etc/subuid and /etc/subgid."""
    found: list[list[tuple[int, int]]] = []
    for text in texts:
        lines = [line.split(":") for line in text.splitlines()]
        good = [line for line in lines if len(line) == 3 and line[1].isdecimal() and line[2].isdecimal()]
        named = next((ranges for name in _NAMES if (ranges := [line for line in good if line[0] == name])), [])
        found.append([(int(line[1]), int(line[2])) for line in named])
    if not found[0] or not found[1]:
        return [(FIRST, LAST + 1 - FIRST)]
    both = []
    for first, size in found[0]:  # one number for users and groups
        for other, others in found[1]:
            low, high = max(first, other, 1), min(first + size, other + others, LARGEST + 1)
            if low < high:
                both.append((low, high - low))
    return both


def take(size: int, folder: str, keep: bool) -> tuple[int, int, str]:
    """Take a range of so many ids: its first, the descriptor that holds it, and the path of its file.

    keep: False to take none, and only say which could be. Raises UnsupportedError where none is free.
    """
    there = spaces((_text(_FILES[0]), _text(_FILES[1])))
    if not keep:
        return _gap(there, [], size), -1, ""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            start = _gap(there, [*_taken(folder), *_in_use()], size)
            path = f"{folder}/{start}-{size}"
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return start, held, path
        finally:
            os.close(lock)
    except OSError as error:
        raise StorageError(f"cannot take a range of ids in {folder}: {error.strerror}") from None


def _taken(folder: str) -> list[tuple[int, int]]:
    """The ranges that somebody holds; the files of others are removed."""
    found = []
    for name in os.listdir(folder):
        first, _, size = name.partition("-")
        if first.isdecimal() and size.isdecimal() and not drop(f"{folder}/{name}"):
            found.append((int(first), int(size)))
    return found


def _in_use() -> list[tuple[int, int]]:
    """The ids of the host that user namespaces of running processes have, whoever made them."""
    found: list[tuple[int, int]] = []
    seen = {os.readlink("/proc/self/ns/user")}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            space = os.readlink(f"/proc/{name}/ns/user")
        except OSError:  # ended meanwhile, or not to be looked at
            continue
        if space in seen:
            continue
        seen.add(space)
        for kind in ("uid", "gid"):
            rows = [line.split() for line in _text(f"/proc/{name}/{kind}_map").splitlines()]
            found += [(int(row[1]), int(row[2])) for row in rows if int(row[1]) <= LARGEST]
    return found


def _gap(there: list[tuple[int, int]], taken: list[tuple[int, int]], size: int) -> int:
    for first, count in there:
        at = first
        for low, many in sorted(taken):
            if low + many <= at:
                continue
            if at + size <= low:
                break
            at = low + many
        if at + size <= first + count:
            return at
    known = ", ".join(f"{first} to {first + count - 1}" for first, count in there) or "none for users and groups alike"
    raise UnsupportedError(
        f"there are no {size} ids left for a container",
        f"there are {known}, by /etc/subuid and /etc/subgid; --userns auto:size=N takes fewer",
    )


def _text(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 1 << 20).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def add(made: Config, machine: Machine) -> None:
    """Put the maps into a config."""
    assert machine.maps is not None
    linux = made["linux"]
    linux["namespaces"].insert(0, {"type": "user", "path": machine.joined} if machine.joined else {"type": "user"})
    for key, rows in zip(("uidMappings", "gidMappings"), machine.maps, strict=True):
        linux[key] = [{"containerID": a, "hostID": b, "size": size} for a, b, size in rows]  # type: ignore[literal-required]
    groups = machine.maps[1]
    if "net.ipv4.ping_group_range" in linux["sysctl"]:  # both ends have to be groups of the namespace
        most = max((first + size - 1 for first, _, size in groups), default=0)
        if outside_of(groups, most) is not None:
            linux["sysctl"]["net.ipv4.ping_group_range"] = f"0 {min(most, (1 << 31) - 1)}"
