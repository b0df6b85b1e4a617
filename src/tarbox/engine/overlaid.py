"""`-v SOURCE:TARGET:O`: a directory of the host that the container may change for itself alone.

    mount -t overlay overlay -o lowerdir=SOURCE,upperdir=SCRATCH/upper,workdir=SCRATCH/work $ROOT/TARGET

The config has the mount as other engines write it, of type overlay with its three directories as options; the steps
make the two that take the writes, and they go with the container.

man 5 overlayfs (Documentation/filesystems/overlayfs.rst)
"""

from __future__ import annotations

from ..errors import ImageNotFoundError, UnsupportedError, UsageError
from ..images.snapshots.overlay import options
from ..kernel.overlay import MakeScratch
from ..kernel.tmpfs import LetGo, MountMemory
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Step
    from ..spec.runtime import Config
    from .options import RunOptions

_LONGEST = 255  # bytes of an option that fsconfig(2) takes


def steps(wanted: RunOptions, made: Config, scratch: str, plain: bool) -> list[Step]:
    """The steps that make room for the writes of each such mount; its entry in the config `made` is completed.

    scratch: what the names of the directories begin with, on the data root. plain: the caller is a plain user. Raises
    ImageNotFoundError, UsageError or UnsupportedError for a source that can't be the lower layer.
    """
    found: list[Step] = []
    entries = {mount["destination"]: mount for mount in made["mounts"]}
    for number, mount in enumerate(mount for mount in wanted.mounts if mount.kind == "overlay"):
        _check(mount.source, plain)
        folder = f"{scratch}-volume{number}"
        if wanted.root_tmpfs:  # all changes stay in memory then
            memory = MountMemory(folder, wanted.root_tmpfs, ("upper", "work"), mount.source)
            found += [MakeScratch(folder, ()), memory, LetGo(folder)]
        else:
            found.append(MakeScratch(folder, ("upper", "work"), (mount.source,)))
        entry = entries[mount.target]
        entry["source"] = "overlay"
        entry["options"] = [
            *mount.options,
            *(["idmap"] if mount.idmap is not None else []),
            f"lowerdir={_escaped(mount.source)}",
            f"upperdir={folder}/upper",
            f"workdir={folder}/work",
            *options(not plain),
        ]
        if any(len(os.fsencode(option.partition("=")[2])) > _LONGEST for option in entry["options"]):
            raise UnsupportedError(
                f"-v {mount.source}:{mount.target}:O: an overlay takes paths of at most {_LONGEST} bytes",
                "mount it, or the data root, at a shorter path",
            )
    return found


def _check(source: str, plain: bool) -> None:
    shown = f"-v {source}:…:O"
    if not os.path.exists(source):
        raise ImageNotFoundError(f"{shown}: there is no such directory", "nothing is made for O, which writes nothing")
    if not os.path.isdir(source):
        raise UsageError(f"{shown}: only a directory takes O", "show the file read-only with ro, or copy it")
    if plain and (inner := mounted_below(source)):
        # A user namespace may not take apart what others have mounted in there.
        raise UnsupportedError(
            f"{shown}: something is mounted below it, at {inner}, and a plain user can't lay an overlay over that",
            "give the directories without it, each by its own -v",
        )


def _escaped(path: str) -> str:
    """The path for a list that has colons between its entries."""
    return path.replace("\\", "\\\\").replace(":", "\\:")


def mounted_below(directory: str) -> str:
    """A place below the directory at which something else is mounted; "" where there is none."""
    top = os.path.realpath(directory).rstrip("/") + "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = line.split(" ", 5)[4]
            for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                point = point.replace(code, letter)
            if point.startswith(top):
                return point
    return ""
