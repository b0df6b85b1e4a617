"""`tarbox limit ls` and `show`: lasting groups, for people and as JSON."""

from __future__ import annotations

from ..engine import lasting_groups
from ..engine.limits import written
from ..errors import UsageError
from .help import show as write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..kernel.cgroups.usage import Usage

_HEADINGS = ("NAME", "PROCESSES", "MEMORY", "CPUS", "CPU TIME", "PIDS")


def names_only(root: str | None) -> int:
    """Print the names, one a line."""
    write("".join(f"{name}\n" for name in lasting_groups.names(root)))
    return 0


def table(json: bool, root: str | None) -> int:
    """Print all groups."""
    found: dict[str, Usage] = {}
    for name in lasting_groups.names(root):
        try:
            found[name] = lasting_groups.usage(name)[0]
        except UsageError:
            pass  # removed meanwhile
    if json:
        write(_json([{"name": name, **_facts(usage)} for name, usage in found.items()]))
        return 0
    rows = [_HEADINGS, *((name, *_row(usage)) for name, usage in found.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    write("\n".join(lines) + "\n")
    return 0


def show(name: str, json: bool) -> int:
    """Print one group."""
    usage, paths = lasting_groups.usage(name)
    if json:
        write(_json({"name": name, **_facts(usage), "paths": paths}))
        return 0
    _, memory, cpus, time, pids = _row(usage)
    peak = f", at most {written(usage.memory_peak)} so far" if usage.memory_peak is not None else ""
    rows = (
        ("memory", memory + peak),
        ("killed for memory", str(usage.oom_kills or 0)),
        ("processors", cpus + (f", of these: {usage.cpuset}" if usage.cpuset else "")),
        ("weight", str(usage.weight or "-")),
        ("processor time", time),
        ("pids", pids),
        ("groups", "\n".ljust(21).join(paths)),
        ("processes", "\n".ljust(21).join(f"{number} {_name(number)}" for number in usage.processes) or "none"),
    )
    write("".join(f"{title:<20}{text}\n" for title, text in rows))
    return 0


def _row(usage: Usage) -> tuple[str, ...]:
    return (
        str(len(usage.processes)),
        _of(usage.memory, usage.memory_limit, written),
        f"{usage.cpus:g}" if usage.cpus is not None else "all",
        f"{usage.cpu_seconds:.2f} s" if usage.cpu_seconds is not None else "-",
        _of(usage.pids, usage.pids_limit, str),
    )


def _of(used: int | None, limit: int | None, text: Callable[[int], str]) -> str:
    now = text(used) if used is not None else "-"
    return f"{now} of {text(limit)}" if limit is not None else now


def _facts(usage: Usage) -> dict[str, object]:
    return {key: getattr(usage, key) for key in usage.__slots__}


def _json(value: object) -> str:
    import json

    return json.dumps(value, indent=2) + "\n"


def _name(process: int) -> str:
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
            return "".join(letter if letter.isprintable() else "?" for letter in file.read().rstrip("\n"))
    except OSError:
        return ""
