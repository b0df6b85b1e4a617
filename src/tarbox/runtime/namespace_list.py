"""All namespaces of the machine, each with whom it belongs to.

    lsns --output NS,TYPE,NPROCS,PID,COMMAND

man 8 lsns, man 7 namespaces
"""

from __future__ import annotations

from ..errors import ProcessNotFoundError
from ..kernel import namespace_files, processes
from ..kernel.cgroups import membership
from . import isolation, owners, what

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from .owners import Owner

    class Place(TypedDict):
        path: str
        seen_by: int | None

    class Row(TypedDict):
        kind: str
        inode: int
        processes: int
        pid: int | None
        command: str | None
        of_machine: bool | None
        owner: Owner | None
        unit: str | None
        made_by: str | None
        name: str | None
        places: list[Place]
        owned_by: int | None
        parent: int | None

    class Listing(TypedDict):
        namespaces: list[Row]
        unseen_processes: int


def listing(kinds: set[str] | None = None) -> Listing:
    """All namespaces that this user can see, by kind and then by number; `kinds` are the OCI names of those to list."""
    survey = namespace_files.look_around(deep=True)
    around = isolation.Surroundings(survey)
    rows: list[Row] = []
    known: dict[int, tuple[str, Owner | None, str, str]] = {}
    for (kind, inode), namespace in sorted(survey.namespaces.items()):
        if kinds and kind not in kinds:
            continue
        first = namespace.pids[0] if namespace.pids else 0
        own = around.is_own(kind, inode)
        of_machine = None if own is None else not own
        if first and first not in known:
            known[first] = _process(first, around)
        command, owner, unit, maker = known.get(first, ("", None, "", ""))
        rows.append(
            {
                "kind": kind,
                "inode": inode,
                "processes": len(namespace.pids),
                "pid": first or None,
                "command": command or None,
                "of_machine": of_machine,
                "owner": None if of_machine else owner,
                "unit": None if of_machine else unit or None,
                "made_by": None if of_machine else maker or None,
                "name": next((name for path, _ in namespace.places if (name := lasting_name(path))), None),
                "places": [{"path": path, "seen_by": pid or None} for path, pid in namespace.places],
                "owned_by": namespace.owner,
                "parent": namespace.parent,
            }
        )
    return {"namespaces": rows, "unseen_processes": survey.unseen}


def lasting_name(path: str) -> str:
    """The name under which `tarbox ns create` keeps a namespace at this path; "" where it isn't one of those."""
    parts = path.split("/")
    kept = len(parts) == 7 and parts[1:3] == ["run", "tarbox"] and parts[4] == "namespaces"
    return parts[5] if kept else ""


def _process(pid: int, around: isolation.Surroundings) -> tuple[str, Owner | None, str, str]:
    """(command, owner, unit, the name of who made its namespaces) of a process; empty where it has just ended."""
    try:
        with processes.Process(pid) as process:
            command = process.command()
            groups = [group.path for group in membership.groups(process.text("cgroup") or "", around.own_mounts)]
            spaces = isolation.namespaces(process, around)
            root = isolation.root(process, spaces["mount"]["own"], around)
            started = isolation.starter(process, spaces)
            if process.is_kernel_thread():
                return command, None, "", "the kernel"
            owner = what.owner(process, groups, root, started)
            return command, owner, owners.unit_of(groups), started["name"] if started else ""
    except ProcessNotFoundError:
        return "", None, "", ""
