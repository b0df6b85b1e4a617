"""`tarbox caps`: the capabilities of processes and files by name, and setting those of files."""

from __future__ import annotations

from ..errors import UsageError
from ..unistd import os
from .arguments import Option, Verb, parse
from .layout import as_json, columns, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..kernel.file_capabilities import FileCapabilities
    from .main import Globals


def _number(text: str) -> int:
    from ..engine.values import shorten

    if not (text.isascii() and text.isdecimal()) or int(text[:12]) >= 2**32 - 1:
        raise UsageError(f"{shorten(text)!r} is not a user's number")
    return int(text)


VERB = Verb(
    "caps",
    "[--json] PID|FILE...  or  caps --files DIR  or  caps set SPEC FILE...",
    "Show the capabilities of processes (all five sets) and of files (what whoever executes them gets). A number is"
    " a process if there is such a one; ./123 is a file. 'caps set' gives capabilities to files and takes them"
    " away.",
    (
        Option(("files",), "DIR", "List all files below this directory that have capabilities"),
        Option(("json",), "", "Show them as JSON; docs/json.md has the keys"),
    ),
    {"r": "'tarbox caps set -r FILE' takes them away", "n": "it is an option of 'tarbox caps set'"},
    (
        ("tarbox caps $$", "Those of the shell that you type this into."),
        ("tarbox caps --files /usr", "All programs below /usr that get some."),
        ("tarbox caps set cap_net_raw+ep ./ping", "Whoever executes ./ping may send raw packets."),
    ),
)

SET = Verb(
    "caps set",
    "SPEC FILE...  or  caps set -r FILE...",
    "Set the capabilities of files. SPEC is as setcap reads it: names, a sign, and the sets: e(ffective), p(ermitted),"
    " i(nheritable). An empty SPEC takes them away, as -r does. This needs root, or CAP_SETFCAP.",
    (
        Option(("remove", "r"), "", "Take the capabilities of the files away"),
        Option(("rootid", "n"), "UID", "Only for user namespaces whose user 0 is this user outside", "", _number),
    ),
    examples=(
        ("tarbox caps set cap_net_raw,cap_net_admin=ep ./tool", "Two of them, effective as soon as it starts."),
        ("tarbox caps set -r ./tool", "None any more."),
    ),
)


def main(words: list[str], settings: Globals) -> int:
    """Print capabilities, or set them."""
    found = parse(VERB, words)
    rest, json = found.rest, found.values.get("json") is True
    if rest[:1] == ["set"] and not json:
        return _set(rest[1:])
    if "--json" in rest[1:]:
        rest, json = [word for word in rest if word != "--json"], True
    folder = found.values.get("files")
    if isinstance(folder, str):
        if rest:
            raise UsageError("--files takes one directory and nothing else", "see 'tarbox caps --help'")
        return _search(folder, json)
    if not rest:
        raise UsageError(
            "capabilities of what?", "a process or a file, e.g. 'tarbox caps $$'; see 'tarbox caps --help'"
        )
    return _show(rest, json)


def _show(words: list[str], json: bool) -> int:
    from ..kernel import file_capabilities
    from .help import show

    processes: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    told: list[str] = []
    for word in words:
        pid = _process(word)
        if pid:
            processes.append(_of_process(pid))
            told += _told_process(processes[-1])
        else:
            capabilities = file_capabilities.read(word)
            files.append(_of_file(word, capabilities))
            told += _told_file(word, capabilities)
    show(as_json({"processes": processes, "files": files}) if json else "\n".join(told) + "\n")
    return 0


def _process(word: str) -> int:
    """The process that a word means; 0 when it means a file. Raises UsageError when it is neither."""
    from ..engine.values import shorten

    if word == "self":
        return os.getpid()
    number = word.isascii() and word.isdecimal()
    if number and int(word[:12]) > 0 and os.path.isdir(f"/proc/{int(word[:12])}"):
        return int(word[:12])
    if not os.path.lexists(word):
        missing = "neither a process nor a file" if number else "there is no such file"
        hint = "'tarbox caps FILE' shows them" if word in ("get", "show", "ls") else ""
        raise UsageError(f"{shorten(word)!r}: {missing}", hint)
    if os.path.isdir(word):
        raise UsageError(f"{shorten(word)!r} is a directory", f"for the files below it: --files {shorten(word)}")
    return 0


def _of_process(pid: int) -> dict[str, Any]:
    from ..kernel import capability_text
    from ..kernel.processes import Process
    from ..runtime.what import capabilities

    with Process(pid) as process:
        return {
            "pid": pid,
            "name": process.name(),
            "sets": capabilities(process.status()),
            "known": capability_text.last().bit_count(),
        }


def _told_process(found: dict[str, Any]) -> list[str]:
    from .what import told_sets

    return [f"process {found['pid']}  {printable(found['name'])}  (of {found['known']} capabilities)",
            *told_sets(found["sets"])]  # fmt: skip


def _of_file(path: str, found: FileCapabilities | None) -> dict[str, Any]:
    from ..kernel import capability_text

    if found is None:
        return {"path": path, "text": None, "permitted": [], "inheritable": [], "effective": False, "version": None,
                "rootid": None}  # fmt: skip
    return {
        "path": path,
        "text": capability_text.form(found.sets, capability_text.last()),
        "permitted": capability_text.short(found.sets.permitted),
        "inheritable": capability_text.short(found.sets.inheritable),
        "effective": bool(found.sets.effective),
        "version": found.version,
        "rootid": found.rootid,
    }


def _form(found: FileCapabilities) -> str:
    from ..kernel import capability_text

    text = capability_text.form(found.sets, capability_text.last())
    return text if found.rootid is None else f"{text} [rootid={found.rootid}]"


def _told_file(path: str, found: FileCapabilities | None) -> list[str]:
    if found is None:
        return [f"{printable(path)}  none"]
    sets = found.sets
    lines = [f"{printable(path)}  {_form(found)}"]
    if sets.permitted:
        at_once = "has these at once" if sets.effective else "may switch these on"
        lines.append(f"  whoever executes it {at_once}, as far as the bounding set allows")
    if sets.inheritable:
        lines.append("  the inheritable ones (i) are kept by those who had them inheritable before")
    if not sets.permitted and not sets.inheritable:
        lines.append("  whoever executes it has none, not even root")
    if found.rootid is not None:
        lines.append(f"  all this only where user {found.rootid} is the user 0 of a user namespace")
    return lines


def _search(folder: str, json: bool) -> int:
    from ..engine.values import shorten
    from ..kernel import file_capabilities
    from .help import show

    if not os.path.isdir(folder):
        raise UsageError(f"--files {shorten(folder)}: there is no such directory")
    unreadable: list[str] = []
    found = list(file_capabilities.search(folder, unreadable))
    if json:
        files = [_of_file(path, capabilities) for path, capabilities in found]
        show(as_json({"processes": [], "files": files, "unreadable": unreadable}))
        return 0
    lines = columns([[printable(path), _form(capabilities)] for path, capabilities in found]) if found else []
    if not found:
        lines.append("No file there has capabilities.")
    if unreadable:
        more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        lines.append(f"Not looked into, since it can't be read: {printable(unreadable[0])}{more}")
    show("\n".join(lines) + "\n")
    return 0


def _set(words: list[str]) -> int:
    from ..kernel import capability_text, file_capabilities

    found = parse(SET, words)
    rest = found.rest
    removing = found.values.get("remove") is True
    if not removing:
        if not rest:
            raise UsageError("set which capabilities of what?", "e.g. 'tarbox caps set cap_net_raw+ep FILE'")
        spec, rest = rest[0], rest[1:]
        removing = not spec.strip()
    if not rest:
        raise UsageError("no file to set the capabilities of", "see 'tarbox caps set --help'")
    if removing:
        for path in rest:
            file_capabilities.remove(path)
        return 0
    if os.path.isfile(spec) and any(sign in rest[0] for sign in "=+-") and not os.path.lexists(rest[0]):
        raise UsageError(f"{printable(spec)} is a file", "the capabilities come first, then the files")
    rootid = found.values.get("rootid")
    data = file_capabilities.encode(
        capability_text.parse(spec, capability_text.last()), rootid if isinstance(rootid, int) else None
    )
    for path in rest:
        file_capabilities.write(path, data)
    return 0
