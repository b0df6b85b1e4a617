"""`-v SOURCE:TARGET:idmap`: a mount that shows the files of one owner as another's. Loaded only when one is given.

    mount --bind -o X-mount.idmap=u:1000:0:1 SOURCE TARGET

Inside a user namespace the ids of the host don't exist: a file of user 1000 belongs to nobody. A mapped mount shows it
as the container's, both ways, and nobody's file is ever given to somebody else. It maps as the container's user
namespace does, or as `uids=` and `gids=` say: rows of FILE-HOST-COUNT joined by `#`, from ids as they are on disk to
ids of the host that the user namespace has.

man 2 mount_setattr (MOUNT_ATTR_IDMAP), man 7 user_namespaces
"""

from __future__ import annotations

from ..errors import UnsupportedError, UsageError
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import Linux, Mapping, Mount

_LARGEST = (1 << 32) - 2
_EXAMPLE = "idmap, or idmap=uids=0-1000-1;gids=0-1000-1"


def read(word: str, text: str) -> str:
    """What stands after `idmap=` in an option of -v, checked; "" for `idmap` alone. text: the whole, for messages."""
    _, equals, words = word.partition("=")
    if equals:
        try:
            _rows(words)
        except UsageError as error:
            raise UsageError(f"{shorten(text)!r}: {error.message}", error.hint) from None
    return words


def _rows(words: str) -> dict[str, list[Mapping]]:
    found: dict[str, list[Mapping]] = {}
    for part in words.split(";"):
        key, equals, rows = part.partition("=")
        if key not in ("uids", "gids") or not equals or key in found:
            raise UsageError(f"{shorten(part)!r} is not a mapping of ids", _EXAMPLE)
        found[key] = [_row(row) for row in rows.split("#")]
    return found


def _row(row: str) -> Mapping:
    numbers = row.split("-")
    if len(numbers) != 3 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise UsageError(f"{shorten(row)!r} is not FILE-HOST-COUNT", _EXAMPLE)
    first, host, count = (int(number[:11]) for number in numbers)
    if not count or max(first, host) + count - 1 > _LARGEST:
        raise UsageError(f"{shorten(row)!r} goes beyond the ids that there are", f"0 to {_LARGEST}")
    return {"containerID": first, "hostID": host, "size": count}


def add(mount: Mount, words: str, linux: Linux, plain: bool) -> None:
    """Put the mapping into a mount of the config. plain: the caller is a plain user.

    Raises UnsupportedError where the kernel wouldn't make it: without a user namespace, and for plain users.
    """
    if plain:
        raise UnsupportedError(
            f"-v {mount.get('source', '')}:…:idmap: only root may map the ids of a mount",
            "leave idmap out: root in the container is you outside",
        )
    if not any(namespace["type"] == "user" for namespace in linux["namespaces"]):
        raise UnsupportedError(
            f"-v {mount.get('source', '')}:…:idmap: the container has the host's ids, so there is nothing to map",
            "leave idmap out, as -u runs as the files' owner; or give it ids of its own: --userns auto",
        )
    if words:
        rows = _rows(words)
        mount["uidMappings"], mount["gidMappings"] = rows.get("uids", []), rows.get("gids", [])
    else:
        mount["uidMappings"] = list(linux.get("uidMappings") or [])
        mount["gidMappings"] = list(linux.get("gidMappings") or [])
    if "ridmap" not in (options := mount.get("options") or []):
        mount["options"] = [*options, "idmap"]
