"""`tarbox what PID`: how much of a container is any process, whoever started it?"""

from __future__ import annotations

from ..errors import UsageError
from ..unistd import os
from .arguments import Option, Verb, parse
from .layout import as_json, columns, folded, printable, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..runtime.isolation import Namespace
    from ..runtime.what import Capabilities, Limit, What
    from .main import Globals

VERB = Verb(
    "what",
    "[--json] PID",
    "Tell how much of a container a process is: its namespaces and who shares them, its root, its control groups with"
    " their limits, its capabilities, filters and ids. Any process will do, also those of other container engines,"
    " browsers and services. PID is a number, or 'self' for this command. Root sees all; others see what is theirs, and"
    " of the rest what everybody may read.",
    (Option(("json",), "", "Show it as JSON; docs/json.md has the keys"),),
    {"p": "the process's number is enough", "pid": "the process's number is enough"},
    (
        ("tarbox what $$", "The shell that you type this into."),
        ("tarbox what 1", "The first process of the machine."),
        ("sudo tarbox what --json $(pidof -s firefox)", "A web browser, for a program to read."),
    ),
)

_MEANING = {
    "cgroup": "the tree of control groups",
    "ipc": "message queues, shared memory",
    "mount": "which files are where",
    "network": "interfaces, addresses, ports",
    "pid": "numbers of processes",
    "time": "clocks since boot",
    "user": "ids, and what root means",
    "uts": "the host name",
}


def main(words: list[str], settings: Globals) -> int:
    """Print what the process is."""
    from .help import show

    found = parse(VERB, words)
    rest, json = found.rest, found.values.get("json") is True
    if "--json" in rest[1:]:
        rest, json = [word for word in rest if word != "--json"], True
    pid = process_number(rest)

    from ..runtime.what import look

    what = look(pid)
    show(as_json(what) if json else "\n".join(_told(what)) + "\n")
    return 0


def process_number(words: list[str]) -> int:
    """The process that the words after the verb mean; raises UsageError unless that is one."""
    from ..engine.values import shorten
    from ..kernel.processes import named

    if not words:
        raise UsageError("what process?", "e.g. 'tarbox what $$' for your shell; see 'tarbox what --help'")
    if len(words) > 1:
        raise UsageError(f"'what' takes one process, and {shorten(words[1])!r} is one more", "call it once for each")
    word = words[0]
    if word == "self":
        return os.getpid()
    if not (word.isascii() and word.isdecimal()):
        pids = " ".join(map(str, named(word)[:5])) if word else ""
        hint = f"those named so are {pids}" if " " in pids else f"the one named so is {pids}"
        raise UsageError(f"{shorten(word)!r} is not the number of a process", hint if pids else "'ps -e' lists them")
    if not word.strip("0"):
        raise UsageError("there is no process 0 to look at", "the first one is 1")
    if len(word) > 20:
        raise UsageError(f"there is no process {shorten(word)}")
    return int(word)


def _told(what: What) -> list[str]:
    lines = [f"process {what['pid']}  {printable(what['command'], 100)}", *_who(what)]
    if not what["zombie"]:
        lines += ["", *_namespaces(what), "", *_root(what), "", *_cgroups(what), "", *_rights(what)]
    if what["unseen"]:
        lines += ["", "Not shown, as you may not see it: " + ", ".join(what["unseen"])]
    if what["looked_from"] == "container":
        lines += ["", "You are in a container yourself: of the machine outside little can be known."]
    return [*lines, "", what["verdict"]]


def _who(what: What) -> list[str]:
    state = f"{what['state']}, child of {what['parent']}"
    if what["thread_of"]:
        state = f"a thread of process {what['thread_of']}, {state}"
    if len(what["pids"]) > 1:
        state += f"; inside, its number is {' and then '.join(map(str, what['pids'][1:]))}"
    lines = folded("state", state)
    owner = what["owner"]
    if owner:
        name = f" {owner['id']}" if owner["id"] else ""
        article = "an" if owner["kind"] == "app" else "a"
        belongs = f"{article} {owner['kind']} of {owner['engine']}{name}"
        lines += folded("belongs to", f"{printable(belongs)} (as its {printable(owner['told_by'])} tells)")
    if what["unit"]:
        lines += folded("unit", f"{printable(what['unit'])}, of systemd")
    started = what["started_by"]
    if started:
        lines += folded("made by", f"process {started['pid']}, {printable(started['command'], 80)}")
    return lines


def _namespaces(what: What) -> list[str]:
    spaces = what["namespaces"]
    own = sum(space["own"] is True for space in spaces.values())
    hidden = what["unseen_processes"] > 1  # process 1 may keep even root out
    rows = [[kind, _whose(space), str(space["inode"] or "-"), _with(space, hidden), _MEANING[kind]]
            for kind, space in spaces.items()]  # fmt: skip
    known = sum(space["own"] is not None for space in spaces.values())
    seen = f"{len(spaces)}" if known == len(spaces) else f"the {known} that can be seen"
    lines = [f"Namespaces: {own} of {seen} are its own", *columns(rows, 2)]
    for kind, space in spaces.items():
        if space["for_children"]:
            lines.append(f"  its children will be in another {kind} namespace: {space['for_children']}")
    return lines


def _whose(space: Namespace) -> str:
    if space["own"] is None:
        yours = {True: "yours", False: "not yours"}
        return "unknown" if space["shared_with_caller"] is None else yours[space["shared_with_caller"]]
    if not space["own"]:
        return "the machine's"
    return "own, and yours" if space["shared_with_caller"] else "own"


def _with(space: Namespace, hidden: bool) -> str:
    """Who else is in it. hidden: whether there are processes that can't be asked, more than process 1."""
    if space["processes"] is None:
        return "-"
    if space["processes"] == 1:
        return "nobody else in sight" if hidden else "alone in it"
    others = space["processes"] - 1
    if not space["own"]:
        return f"with {others} other{'s' * (others > 1)}" + " in sight" * hidden
    names = [printable(name, 15) for name in space["names"]]
    return f"with {others} other{'s' * (others > 1)}: {', '.join(names)}{', ...' if others > len(names) else ''}"


def _root(what: What) -> list[str]:
    root = what["root"]
    how = {
        "machine": "the machine's",
        "copy": "the machine's, in mounts of its own",
        "init": "that of process 1 here",
        "pivoted": "another file system (pivot_root)",
        "chrooted": f"the directory {printable(root['path'] or '')} (chroot)",
        None: "unknown",
    }[root["how"]]
    lines = ["Root: which files it sees", *folded("root", how)]
    if root["fstype"]:
        layers = f" of {root['layers']} layers" if root["layers"] else ""
        writing = "read-only" if root["read_only"] else "may be written to"
        lines += folded("file system", f"{root['fstype']}{layers}, {printable(root['source'] or '', 60)}, {writing}")
    if root["mounts"]:
        lines += folded("mounts", f"{root['mounts']} in sight")
    return lines


def _cgroups(what: What) -> list[str]:
    found = what["cgroups"]
    versions = {"none": "there are none", "v1": "version 1", "v2": "version 2", "hybrid": "version 1 and 2 together"}
    lines = [f"Control groups: how much it may use ({versions[found['layout']]})"]
    members: dict[str, list[str]] = {}
    for group in found["groups"]:
        names = group["controllers"] or ["version 2"]
        members.setdefault(group["path"] + (" (removed)" if group["deleted"] else ""), []).extend(names)
    lines += columns(
        [["group", printable(path), ", ".join(map(printable, names))] for path, names in members.items()], 2
    )
    own = {group["path"] for group in found["groups"]}
    rows = [[limit["resource"], *_limit(limit, own)] for limit in found["limits"]]
    lines += columns(rows, 2) if rows else ["  no limits"]
    use = found["use"]
    used = [f"{size(use['memory'])} of memory"] if "memory" in use else []
    used += [f"{use['pids']} tasks"] if "pids" in use else []
    used += [f"{use['cpu'] / 1e9:.2f} s of processor time"] if "cpu" in use else []
    if used:
        lines += folded("in use", ", ".join(used))
    return [*lines, "  all of it is frozen"] if found["frozen"] else lines


def _limit(limit: Limit, own: set[str]) -> list[str]:
    value, unit, use = limit["limit"], limit["unit"], limit["use"]
    used = ""
    if isinstance(value, str):
        shown = f"only {value}" if unit == "list" else value
    elif unit == "bytes":
        shown, used = f"{size(value)} at most", "" if use is None else f"{size(use)} used"
    elif unit.startswith("of "):
        shown = f"{value} (others usually {unit.removeprefix('of ')})"
    elif unit == "rules allow":
        shown = f"{value} rules say which"
    else:
        shown, used = f"{value:g} {unit} at most", "" if use is None else f"{use} used"
    above = "" if limit["group"] in own else f"set above, in {printable(limit['group'], 60)}"
    return [printable(shown), used, above]


def _rights(what: What) -> list[str]:
    sets = what["capabilities"]
    lines = [f"Rights: what it may do (of {what['capabilities_known']} capabilities)"]
    lines += told_sets(sets)
    mode, filters = what["seccomp"]["mode"], what["seccomp"]["filters"]
    many = f", {filters} of them" if filters and filters > 1 else ""
    seccomp = {"none": "no filter: it may try every system call", "filter": f"a filter decides over system calls{many}"}
    lines += folded("seccomp", seccomp.get(mode, mode))
    lines += folded("no new privs", "yes: set-uid programs give it nothing" if what["no_new_privs"] else "no")
    label = what["lsm"]
    lines += folded(
        "label", printable(f"{label['label']} ({label['module']})") if label else "none (AppArmor, SELinux)"
    )
    return lines + _ids(what)


def told_sets(sets: dict[str, Capabilities]) -> list[str]:
    """The five sets of capabilities, those that are alike together."""
    alike: dict[str, list[str]] = {}
    for name, held in sets.items():
        alike.setdefault(held["summary"], []).append(name)
    column = 4 + max(len(", ".join(names)) for names in alike.values())
    return [line for summary, names in alike.items() for line in folded(", ".join(names), summary, max(15, column))]


def _ids(what: What) -> list[str]:
    lines = []
    for name, ids, rows in (("user", what["uid"], what["uid_map"]), ("group", what["gid"], what["gid_map"])):
        text = str(ids["effective"])
        if ids["real"] != ids["effective"] or ids["saved"] != ids["effective"]:
            text += f" (real {ids['real']}, saved {ids['saved']})"
        if ids["inside"] is None:
            text += "; inside it has no number that the id map knows"
        elif ids["inside"] != ids["effective"]:
            text += f"; {ids['inside']} inside"
        if rows and rows != [(0, 0, 4294967295)]:
            text += "; id map " + ", ".join(f"{first} is {out} outside ({count} of them)" for first, out, count in rows)
        elif not rows and what["namespaces"]["user"]["own"]:
            text += "; no id map"
        lines += folded(name, text)
    differ = what["rlimits"]["differ"]
    for name, entry in differ.items():
        text = f"{name} {entry['soft']} (hard {entry['hard']}); process 1 has {entry['usual_soft']}"
        lines += folded("rlimit", text + (f" (hard {entry['usual_hard']})"))
    return lines
