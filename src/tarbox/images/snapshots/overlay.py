"""Snapshots by overlay: an image's layers stay as they are, and what a container writes lies in a directory of its own.

    mount -t overlay overlay -o lowerdir=LAYERS,upperdir=SCRATCH/upper,workdir=SCRATCH/work ROOT

Nothing is mounted here: the steps that do it are returned.
"""

from __future__ import annotations

from ...kernel.overlay import MakeScratch, OpenOverlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...plan.step import Step


def steps(slot: str, layers: tuple[str, ...], scratch: str, memory: int, privileged: bool) -> list[Step]:
    """The steps that give `slot`, the merged view of `layers`, topmost first, with writes into `scratch`.

    memory: bytes of a tmpfs that takes the writes instead; 0 for none. privileged: whether the caller may set the
    attributes that overlay keeps its notes in; in a user namespace it uses ones that anybody may.
    """
    upper = OpenOverlay(slot, layers, f"{scratch}/upper", f"{scratch}/work", options(privileged))
    if not memory:
        return [MakeScratch(scratch, ("upper", "work"), layers[:1]), upper]
    from ...kernel.tmpfs import LetGo, MountMemory

    memory_steps = MountMemory(scratch, memory, ("upper", "work"), layers[0]), upper, LetGo(scratch)
    return [MakeScratch(scratch, ()), *memory_steps]


def options(privileged: bool) -> tuple[str, ...]:
    """Never synced, since all of it is thrown away."""
    return ("volatile",) if privileged else ("volatile", "userxattr")
