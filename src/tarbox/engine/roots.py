"""Where things live: the data root on disk, and the state folder that doesn't outlive a boot.

    /var/lib/tarbox      layers, scratch space         --root DIR or TARBOX_ROOT; a plain user: $XDG_DATA_HOME/tarbox
    /run/tarbox/NAME     journals, small files          a plain user: $XDG_RUNTIME_DIR/tarbox/NAME

NAME is the data root's path with dashes for its slashes, and %2d for its dashes, so that two data roots never meet.

https://specifications.freedesktop.org/basedir-spec/
"""

from __future__ import annotations

import os

from ..errors import StorageError

_NO_FOLDER = (FileExistsError, NotADirectoryError)


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
        """Make both folders, for their owner alone; raises StorageError."""
        for base, names, hint in (
            (self.data, ("scratch", "journals"), "choose a data root that you can write to: --root DIR or TARBOX_ROOT"),
            (self.state, ("journals",), "small files of running containers are kept there; is it full, or read-only?"),
        ):
            for name in names:
                try:
                    os.stat(f"{base}/{name}")
                except OSError:
                    _make(base, name, hint)
        owner = os.stat(self.state)
        if owner.st_uid != os.geteuid():
            raise StorageError(f"{self.state} belongs to another user", "remove it, or choose another root with --root")


def _make(base: str, name: str, hint: str) -> None:
    try:
        os.makedirs(base, 0o711, exist_ok=True)
        os.makedirs(f"{base}/{name}", 0o700, exist_ok=True)
    except OSError as error:
        reason = "something that isn't a directory is in the way" if isinstance(error, _NO_FOLDER) else error.strerror
        raise StorageError(f"cannot make {base}/{name}: {reason}", hint) from None


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
