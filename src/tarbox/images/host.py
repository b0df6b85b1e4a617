"""The embedded image `host`: this machine's own programs, read only, under a fresh writable layer.

    for d in usr etc opt; do mount -t overlay overlay -o lowerdir=/$d,upperdir=…,workdir=… $ROOT/$d; done

Nothing is copied and the host is never written. What a container has no business with isn't there: homes, /var, and the
secrets of /etc (all that not everybody may read, and what goes by the name of a key, a token or a password).
"""

from __future__ import annotations

from errno import EPERM

from ..errors import StorageError
from ..kernel.mount_points import AttachTree, FindPlace
from ..kernel.mounts import OpenTree
from ..kernel.overlay import REFUSED, MakeScratch, OpenOverlay
from ..plan.step import PARENT, Slots, Step
from ..unistd import S_IMODE, S_ISDIR, S_ISLNK, os
from .snapshots.overlay import options

_LAYERED = ("usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_EMPTY = {
    "dev": 0o755, "proc": 0o755, "sys": 0o755, "run": 0o755, "tmp": 0o1777, "root": 0o700, "home": 0o755, "mnt": 0o755,
    "media": 0o755, "srv": 0o755, "var": 0o755, "var/cache": 0o755, "var/lib": 0o755, "var/log": 0o755,
    "var/spool": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
_LINKS = {"var/run": "/run", "var/lock": "/run/lock"}
_SECRET_NAMES = ("shadow", "shadow-", "gshadow", "gshadow-", "machine-id", ".pwd.lock", "auth.conf", "auth.conf.d")
_SECRET_ENDINGS = (".key", ".keytab", ".token", ".secret", ".password", ".kubeconfig")


def steps(scratch: str, memory: int, privileged: bool) -> list[Step]:
    """The steps that put the machine's own files into the slot "tree"; see `overlay.steps` for the arguments."""
    links: dict[str, str] = dict(_LINKS)
    layered: list[str] = []
    for name in _LAYERED:
        try:
            kind = os.lstat(f"/{name}").st_mode
        except OSError:
            continue
        if S_ISLNK(kind):
            links[name] = os.readlink(f"/{name}")
        elif S_ISDIR(kind):
            layered.append(name)
    made: list[Step] = [MakeScratch(scratch, ())]
    if memory:
        from ..kernel.tmpfs import LetGo, MountMemory

        made.append(MountMemory(scratch, memory, ()))
    directories = {**_EMPTY, **dict.fromkeys(layered, 0o755)}
    # As a plain user one has no more rights inside than outside: what is secret stays unreadable.
    secrets = find_secrets("/etc") if privileged else ()
    made.append(MakeSkeleton(scratch, directories, links, tuple(layered), secrets))
    crowded = () if privileged else _with_mounts(layered)
    for name in layered:
        if name in crowded:
            # A user namespace may not take apart what others have mounted in there: it's shown whole, and read only.
            made.append(OpenTree(f"/{name}", f"tree /{name}", attributes=("ro",)))
            continue
        covers = (f"{scratch}/secrets",) if name == "etc" and secrets else ()
        upper, work = f"{scratch}/{name}-upper", f"{scratch}/{name}-work"
        made.append(OpenOverlay(f"tree /{name}", (*covers, f"/{name}"), upper, work, options(privileged)))
    made.append(OpenTree(f"{scratch}/root", "tree", recursive=False))
    if memory:
        made.append(LetGo(scratch))
    for name in layered:
        made += [FindPlace(f"/{name}", f"place /{name}", f"tree /{name}")]
    return [*made, *(AttachTree(f"tree /{name}", f"place /{name}", f"/{name}") for name in layered)]


def _with_mounts(names: list[str]) -> tuple[str, ...]:
    """Those of the names, directories of "/", below which something else is mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [line.split(" ", 5)[4] for line in table]
    return tuple(name for name in names if any(point.startswith(f"/{name}/") for point in points))


def find_secrets(directory: str) -> tuple[str, ...]:
    """The paths below `directory`, relative to it, that a container must not see."""
    found: list[str] = []
    folders = [""]
    while folders:
        above = folders.pop()
        try:
            entries = list(os.scandir(f"{directory}/{above}" if above else directory))
        except OSError:
            continue
        for entry in entries:
            path = f"{above}/{entry.name}" if above else entry.name
            if entry.is_symlink():
                continue
            folder = entry.is_dir(follow_symlinks=False)
            wanted = 0o005 if folder else 0o004  # what everybody may read is no secret
            named = entry.name in _SECRET_NAMES or entry.name.endswith(_SECRET_ENDINGS)
            if named or entry.stat(follow_symlinks=False).st_mode & wanted != wanted:
                found.append(path)
            elif folder:
                folders.append(path)
    return tuple(sorted(found))


class MakeSkeleton(Step):
    """Make the directories and links of a root whose contents are mounted on it.

    path: where; the root is `root` in it. directories: modes by path. links: targets by path. layered: names that get
    an upper and a work directory. secrets: paths of /etc that a layer of whiteouts hides.
    """

    __slots__ = ("directories", "layered", "links", "path", "secrets")

    phase = "filesystem"
    why = "the container's root holds empty directories and links; the machine's own directories are laid on it"
    man = "mkdir(2), symlink(2)"

    def __init__(
        self, path: str, directories: dict[str, int], links: dict[str, str], layered: tuple[str, ...],
        secrets: tuple[str, ...],
    ) -> None:  # fmt: skip
        super().__init__(PARENT)
        self.path = path
        self.directories = directories
        self.links = links
        self.layered = layered
        self.secrets = secrets

    def apply(self, slots: Slots) -> None:
        mask = os.umask(0)
        try:
            top = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._make(top)
            finally:
                os.close(top)
        except OSError as error:
            hint = REFUSED if error.errno == EPERM else ""  # no node 0:0 can be made on an overlay
            raise StorageError(f"cannot make {self.path}/root: {error.strerror}", hint) from None
        finally:
            os.umask(mask)

    def _make(self, top: int) -> None:
        os.mkdir("root", 0o755, dir_fd=top)
        for path, mode in self.directories.items():
            os.mkdir(f"root/{path}", mode, dir_fd=top)
        for path, target in self.links.items():
            os.symlink(target, f"root/{path}", dir_fd=top)
        for name in self.layered:
            os.mkdir(f"{name}-upper", S_IMODE(os.stat(f"/{name}").st_mode), dir_fd=top)
            os.mkdir(f"{name}-work", 0o755, dir_fd=top)
        if self.secrets:
            os.mkdir("secrets", 0o755, dir_fd=top)
        for path in self.secrets:
            self._hide(top, path)

    @staticmethod
    def _hide(top: int, path: str) -> None:
        """A device with the number 0:0 is overlay's sign that a name was deleted."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            facts = os.stat(f"/etc/{above}")
            try:  # a directory in an upper layer lends its mode and owner to the merged one
                os.mkdir(f"secrets/{above}", S_IMODE(facts.st_mode), dir_fd=top)
                os.chown(f"secrets/{above}", facts.st_uid, facts.st_gid, dir_fd=top)
            except FileExistsError:
                pass
        os.mknod(f"secrets/{path}", 0o020000, os.makedev(0, 0), dir_fd=top)

    def call(self) -> str:
        return f'mkdir("{self.path}/root/{{{",".join(self.directories)}}}"), symlink({", ".join(self.links)})'

    def shell(self) -> str:
        links = "; ".join(f"ln -s {target} {self.path}/root/{path}" for path, target in self.links.items())
        made = " ".join(f"{self.path}/root/{path}" for path in self.directories)
        hidden = "; ".join(f"mknod {self.path}/secrets/{path} c 0 0" for path in self.secrets)
        return "; ".join(filter(None, (f"mkdir -p {made}", links, hidden)))
