"""Where things live: the data root on disk, and the state folder that doesn't outlive a boot.

    /var/lib/tarbox      layers, scratch space         --root DIR or TARBOX_ROOT; a plain user: $XDG_DATA_HOME/tarbox
    /run/tarbox/NAME     journals, small files          a plain user: $XDG_RUNTIME_DIR/tarbox/NAME

NAME is the data root's path with dashes for its slashes, and %2d for its dashes, so that two data roots never meet.

https://specifications.freedesktop.org/basedir-spec/
"""

from __future__ import annotations

from ..errors import StorageError
from ..unistd import S_IRWXG, S_IRWXO, S_ISDIR, S_ISLNK, S_ISVTX, S_IWGRP, S_IWOTH, os

_NO_FOLDER = (FileExistsError, NotADirectoryError)
_STATE_HINT = "small files of running containers are kept there; is it full, or read-only?"
_ELSEWHERE = "remove it; a plain user can also set XDG_RUNTIME_DIR to a folder of his own"


class Roots:
    """The two folders of one data root.

    data: the data root. state: the state folder. Nothing is made before `make()`.
    """

    __slots__ = ("data", "state")

    def __init__(self, root: str | None) -> None:
        self.data = os.path.abspath(root) if root else _default_data()
        self.state = f"{_state_base()}/{_name(self.data)}"

    @property
    def scratch(self) -> str:
        """For what containers write, and for things in progress."""
        return f"{self.data}/scratch"

    @property
    def journals(self) -> tuple[str, str]:
        """Where journals lie: of what dies with the boot, and of what lies on disk."""
        return f"{self.state}/journals", f"{self.data}/journals"

    @property
    def cache(self) -> str:
        """For what can be computed again."""
        return f"{self.data}/cache"

    def make(self) -> None:
        """Make both folders, for their owner alone; raises StorageError, also where others could put files there."""
        for folder in (self.scratch, f"{self.data}/journals"):
            _own(folder, "choose a data root that you can write to: --root DIR or TARBOX_ROOT")
        mode = os.stat(self.data).st_mode
        if mode & S_IWOTH:
            self._share(mode)
        _keep_private(os.path.dirname(self.state))
        _own(f"{self.state}/journals", _STATE_HINT)

    def _share(self, mode: int) -> None:
        """A data root that everybody can write to, as a fresh tmpfs is: nobody else may have been there, or get in."""
        if not mode & S_ISVTX:
            hint = f"chmod o-w {self.data}, or choose another data root with --root"
            raise StorageError(f"everybody can write to the data root {self.data}", hint)
        for name in ("layers", "sources", "cache"):
            _own(f"{self.data}/{name}", "choose another data root with --root")


def _keep_private(base: str) -> None:
    """Make the folder that all state folders lie in, or make sure of it: it may lie in /tmp."""
    if not os.path.lexists(base):
        _make(base, base, _STATE_HINT)
    try:
        folder = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"cannot open {base}: {error.strerror}", _STATE_HINT) from None
    try:
        facts = os.fstat(folder)
        if S_ISLNK(facts.st_mode):
            raise StorageError(f"{base} is a link, and must be a directory", _ELSEWHERE)
        if S_ISDIR(facts.st_mode):  # anything else is in the way of what is made in it
            _require_owner(base, facts.st_uid, _ELSEWHERE)
            if facts.st_mode & (S_IWGRP | S_IWOTH):
                raise StorageError(f"others can write to {base}, and may have", _ELSEWHERE)
            if facts.st_mode & (S_IRWXG | S_IRWXO):
                os.chmod(f"/proc/self/fd/{folder}", 0o700)
    except OSError as error:
        raise StorageError(f"cannot make {base} private: {error.strerror}", _STATE_HINT) from None
    finally:
        os.close(folder)


def _own(folder: str, hint: str) -> None:
    """Make a folder, or make sure that it's ours."""
    try:
        owner = os.lstat(folder).st_uid
    except OSError:
        _make(os.path.dirname(folder), folder, hint)
        owner = os.lstat(folder).st_uid
    _require_owner(folder, owner, "remove it, or choose another root with --root")


def _require_owner(folder: str, owner: int, hint: str) -> None:
    if owner != os.geteuid():
        raise StorageError(f"{folder} belongs to another user", hint)


def _make(base: str, folder: str, hint: str) -> None:
    try:
        os.makedirs(base, 0o700, exist_ok=True)
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        reason = "something that isn't a directory is in the way" if isinstance(error, _NO_FOLDER) else error.strerror
        raise StorageError(f"cannot make {folder}: {reason}", hint) from None


def _default_data() -> str:
    if os.geteuid() == 0:
        return "/var/lib/tarbox"
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.abspath(f"{base}/tarbox")


def _state_base() -> str:
    if os.geteuid() == 0:
        return "/run/tarbox"
    base = os.environ.get("XDG_RUNTIME_DIR")
    return f"{base}/tarbox" if base else f"/tmp/tarbox-{os.geteuid()}"


def _name(path: str) -> str:
    """The path as one file name, different for different paths."""
    name = path.strip("/").replace("%", "%25").replace("-", "%2d").replace("/", "-") or "-"
    if len(os.fsencode(name)) <= 200:
        return name
    from hashlib import sha256

    return "sha256-" + sha256(os.fsencode(path)).hexdigest()
