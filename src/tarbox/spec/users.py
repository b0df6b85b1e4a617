"""Users and groups as a container's own /etc/passwd and /etc/group name them.

    id -u NAME; id -g NAME; id -G NAME       inside the container

Text only: the C library's look-up (NSS) would load libraries that the image brought along.

man 5 passwd, man 5 group; the USER instruction of a Dockerfile, config.User of the OCI image specification
"""

from __future__ import annotations

from ..errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_ID = (1 << 31) - 1  # as Docker; the kernel's 2**32-1 means "leave it as it is"


class User:
    """Who the container's program runs as, in numbers, and where its home is.

    groups: the supplementary ones, with the first group among them, so that leaving that one for another by a
    set-gid file doesn't get around a rule against it.
    """

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def find(spec: str, passwd: str, group: str, extra_groups: Sequence[str] = ()) -> User:
    """Who `spec` is, by Docker's rules.

    spec: "", "NAME", "UID", "NAME:GROUP", "UID:GID", ":GROUP"; digits always are an id, never a name. passwd, group:
    the text of the container's two files; lines that aren't well-formed are passed over. extra_groups: names or ids
    from --group-add. A group in `spec` replaces the user's groups in /etc/group. Raises UsageError for ids outside 0
    to 2147483647 and for names that the files don't have.
    """
    who, _, group_name = spec.partition(":")
    if ":" in group_name:
        raise UsageError(f"the user {spec!r} has more than one colon", "write it as USER or USER:GROUP")
    name, uid, gid, home = _find_user(who, passwd)
    groups: list[int] = []
    if group_name:
        gid = _find_group(group_name, group)
    elif name:
        groups = [number for _, number, members in _groups(group) if name in members]
    groups = [gid, *groups, *(_find_group(extra, group) for extra in extra_groups)]
    return User(uid, gid, tuple(dict.fromkeys(groups)), home or "/")


def number(text: str, what: str = "user") -> int | None:
    """The id that `text` is, or None where it is a name; raises UsageError for a number that can't be an id.

    what: "user" or "group", for the message.
    """
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0") or "0"
        if len(digits) <= 10 and int(digits) <= MAX_ID:
            return int(digits)
    elif not (text.isdecimal() or text[:1] in ("+", "-")):
        return None
    raise UsageError(f"{text!r} can't be the id of a {what}", f"give a number from 0 to {MAX_ID}, or a name")


def _find_user(who: str, passwd: str) -> tuple[str, int, int, str]:
    wanted = number(who) if who else 0
    for name, uid, gid, home in _users(passwd):
        if (name == who) if wanted is None else (uid == wanted):
            return name, uid, gid, home
    if wanted is None:
        raise UsageError(
            f"unable to find user {who}: no matching entries in passwd file",
            "name a user of the image's /etc/passwd, or give a number",
        )
    return "", wanted, 0, ""


def _find_group(name: str, group: str) -> int:
    wanted = number(name, "group")
    if wanted is not None:
        return wanted
    for found, gid, _ in _groups(group):
        if found == name:
            return gid
    raise UsageError(
        f"unable to find group {name}: no matching entries in group file",
        "name a group of the image's /etc/group, or give a number",
    )


def _users(passwd: str) -> Iterator[tuple[str, int, int, str]]:
    for fields in _lines(passwd):
        if len(fields) >= 4:
            uid, gid = _id(fields[2]), _id(fields[3])
            if uid is not None and gid is not None:
                yield fields[0], uid, gid, fields[5] if len(fields) > 5 else ""


def _groups(group: str) -> Iterator[tuple[str, int, list[str]]]:
    for fields in _lines(group):
        if len(fields) >= 3:
            gid = _id(fields[2])
            if gid is not None:
                yield fields[0], gid, fields[3].split(",") if len(fields) > 3 else []


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.split("\n"):
        line = line.strip(" \t\r")
        if line and line[0] not in "#:" and "\0" not in line:
            yield line.split(":")


def _id(field: str) -> int | None:
    try:
        return number(field)
    except UsageError:
        return None
