"""What a process is: how much of a container, in all respects that the kernel tells of.

    lsns --task $PID; cat /proc/$PID/{status,cgroup,limits,uid_map,attr/current}; readlink /proc/$PID/root

There is no such thing in the kernel as a container. There are processes, each with eight namespaces, a root, control
groups, capabilities, a filter, a label; some have all of these changed and are called contained, some have one or
two, as web browsers and system services do. This puts together what one process has, whoever started it.

man 7 namespaces, man 7 cgroups, man 7 capabilities, man 2 seccomp, man 5 proc
"""

from __future__ import annotations

from ..errors import ProcessNotFoundError
from ..kernel import capability_text, mountinfo, processes, security_label
from ..kernel.cgroups import membership
from . import isolation, owners, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    from ..kernel.processes import Process
    from .isolation import Namespace, Root, Starter
    from .owners import Owner

    class Group(TypedDict):
        version: int
        controllers: list[str]
        path: str
        folder: str | None
        deleted: bool

    class Limit(TypedDict):
        resource: str
        limit: int | float | str
        unit: str
        use: int | None
        group: str
        file: str

    class Cgroups(TypedDict):
        layout: str
        groups: list[Group]
        limits: list[Limit]
        use: dict[str, int]
        frozen: bool

    class Capabilities(TypedDict):
        names: list[str]
        mask: str
        summary: str

    class Ids(TypedDict):
        real: int
        effective: int
        saved: int
        filesystem: int
        inside: int | None

    class What(TypedDict):
        pid: int
        name: str
        command: str
        state: str
        parent: int
        thread_of: int | None
        kernel_thread: bool
        zombie: bool
        pids: list[int]
        owner: Owner | None
        unit: str | None
        started_by: Starter | None
        namespaces: dict[str, Namespace]
        root: Root
        cgroups: Cgroups
        capabilities: dict[str, Capabilities]
        capabilities_known: int
        no_new_privs: bool
        seccomp: dict[str, Any]
        lsm: dict[str, str] | None
        uid: Ids
        gid: Ids
        groups: list[int]
        uid_map: list[tuple[int, int, int]]
        gid_map: list[tuple[int, int, int]]
        rlimits: dict[str, Any]
        looked_from: str
        unseen: list[str]
        unseen_processes: int
        verdict: str


SETS = {
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}
_SECCOMP = {"0": "none", "1": "strict", "2": "filter"}


def look(pid: int) -> What:
    """All about one process, by its number; the keys are documented in docs/json.md. Raises ProcessNotFoundError."""
    with processes.Process(pid) as process:
        around = isolation.Surroundings()
        status = process.status()
        spaces = isolation.namespaces(process, around)
        found = membership.groups(process.text("cgroup") or "", around.own_mounts)
        root = isolation.root(process, spaces["mount"]["own"], around)
        started = isolation.starter(process, spaces)
        module, label = security_label.label(process)
        uid_map, gid_map = (processes.parse_map(process.text(name)) for name in ("uid_map", "gid_map"))
        elsewhere = spaces["user"]["shared_with_caller"] is False or spaces["user"]["own"] is True
        result: What = {
            "pid": pid,
            "name": process.name(),
            "command": process.command(),
            "state": processes.STATES.get(status.get("State", "?")[:1], "unknown"),
            "parent": _number(status, "PPid"),
            "thread_of": _number(status, "Tgid") if _number(status, "Tgid") != pid else None,
            "kernel_thread": process.is_kernel_thread(),
            "zombie": status.get("State", "?")[:1] in "ZX",
            "pids": [int(word) for word in status.get("NSpid", str(pid)).split()],
            "owner": owner(process, [group.path for group in found], root, started),
            "unit": owners.unit_of(group.path for group in found) or None,
            "started_by": started,
            "namespaces": spaces,
            "root": root,
            "cgroups": _cgroups(found),
            "capabilities": capabilities(status),
            "capabilities_known": capability_text.last().bit_count(),
            "no_new_privs": status.get("NoNewPrivs") == "1",
            "seccomp": {
                "mode": _SECCOMP.get(status.get("Seccomp", "0"), "unknown"),
                "filters": int(status["Seccomp_filters"]) if "Seccomp_filters" in status else None,
            },
            "lsm": {"module": module, "label": label} if label else None,
            "uid": _ids(status, "Uid", uid_map if elsewhere else None),
            "gid": _ids(status, "Gid", gid_map if elsewhere else None),
            "groups": [int(word) for word in status.get("Groups", "").split()],
            "uid_map": uid_map,
            "gid_map": gid_map,
            "rlimits": _rlimits(process),
            "looked_from": "container" if around.inside else "machine",
            "unseen": sorted({"namespaces" if name.startswith("ns/") else name for name in process.denied}),
            "unseen_processes": around.survey.unseen,
            "verdict": "",
        }
        if not result["zombie"] and process.status().get("State", "Z")[:1] in "ZX":
            raise ProcessNotFoundError(f"process {pid} ended while it was looked at")
        process.insist()
    result["verdict"] = verdict.of(result)
    return result


def owner(process: Process, groups: list[str], root: Root, started: Starter | None) -> Owner | None:
    """Which container, app or sandbox a process belongs to; raises ProcessNotFoundError."""
    found = owners.container_of(groups)
    if found is None and root["how"] in ("pivoted", "chrooted"):
        table = mountinfo.parse(process.text("mountinfo") or "")
        top = mountinfo.at(table, "/")
        found = owners.owner_of_root(top, table) if top else None
    if found is None and started:
        sandbox = owners.sandbox_of(started["name"])
        if sandbox:
            return {"kind": "sandbox", "engine": sandbox, "id": "", "told_by": "ancestor"}
    return found


def capabilities(status: dict[str, str]) -> dict[str, Capabilities]:
    """The five sets of a process, from the lines of its status file."""
    every = capability_text.last()
    found: dict[str, Capabilities] = {}
    for name, line in SETS.items():
        held = int(status.get(line, "0"), 16)
        found[name] = {
            "names": capability_text.short(held),
            "mask": f"{held:016x}",
            "summary": capability_text.summary(held, every),
        }
    return found


def _cgroups(found: list[membership.Group]) -> Cgroups:
    versions = {group.version for group in found}
    return {
        "layout": "none" if not versions else "hybrid" if len(versions) == 2 else f"v{min(versions)}",
        "groups": [
            {
                "version": group.version,
                "controllers": list(group.controllers),
                "path": group.path,
                "folder": group.folder or None,
                "deleted": group.deleted,
            }
            for group in found
        ],
        "limits": [
            {
                "resource": limit.resource,
                "limit": limit.limit,
                "unit": limit.unit,
                "use": limit.use,
                "group": limit.group,
                "file": limit.file,
            }
            for limit in membership.limits(found)
        ],
        "use": membership.usage(found),
        "frozen": membership.frozen(found),
    }


def _number(status: dict[str, str], name: str) -> int:
    word = status.get(name, "")
    return int(word) if word.isdecimal() else 0


def _ids(status: dict[str, str], name: str, rows: list[tuple[int, int, int]] | None) -> Ids:
    """The four ids, and which number it has inside. rows: the id map, if its user namespace isn't the caller's."""
    words = [int(word) for word in status.get(name, "").split()]
    real, effective, saved, files = words if len(words) == 4 else (0, 0, 0, 0)
    inside: int | None = effective
    if rows is not None:
        inside = next((first + effective - out for first, out, count in rows if out <= effective < out + count), None)
    return {"real": real, "effective": effective, "saved": saved, "filesystem": files, "inside": inside}


def _rlimits(process: Process) -> dict[str, Any]:
    """The limits of the process that differ from those of process 1."""
    try:
        with processes.Process(1) as first:
            usual = first.limits()
    except ProcessNotFoundError:
        usual = {}
    differ = {
        name: {"soft": soft, "hard": hard, "usual_soft": usual[name][0], "usual_hard": usual[name][1]}
        for name, (soft, hard) in process.limits().items()
        if name in usual and usual[name] != (soft, hard)
    }
    return {"compared_with": 1 if usual else None, "differ": differ}
