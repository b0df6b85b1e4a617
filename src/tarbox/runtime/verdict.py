"""How much of a container a process is, in one line of plain words.

    a container of its own: 6 of 8 namespaces, another root, limits on memory and pids, 14 of 41 capabilities, filtered

man 7 namespaces
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .what import What


# What is a limit in the line, by what it is called in full; weights and devices aren't.
_LIMITS = {
    "memory": "memory", "memory+swap": "memory", "memory-throttle": "memory", "swap": "swap", "cpu": "processors",
    "cpus": "processors", "pids": "pids", "io": "io",
}  # fmt: skip


def of(what: What) -> str:
    """The line; says nothing of what couldn't be seen but that."""
    if what["zombie"]:
        return f"a zombie: it has ended, and its parent, process {what['parent']}, hasn't collected its exit status yet"
    if what["kernel_thread"]:
        return "a thread of the kernel's: it runs no program, and nothing contains it"
    spaces = what["namespaces"]
    known = [space for space in spaces.values() if space["own"] is not None]
    own = [kind for kind, space in spaces.items() if space["own"]]
    rooted = what["root"]["how"] in ("pivoted", "chrooted")
    parts = [_namespaces(len(own), len(known), len(spaces))]
    if rooted:
        parts.append("another root" if what["root"]["how"] == "pivoted" else "another root by chroot")
    limited = list(dict.fromkeys(_LIMITS.get(limit["resource"], "") for limit in what["cgroups"]["limits"]))
    limited = [word for word in limited if word]
    parts.append(f"limits on {_listed(limited)}" if limited else "no limits")
    parts.append(_capabilities(what))
    if what["seccomp"]["mode"] != "none":
        parts.append("filtered" if what["seccomp"]["mode"] == "filter" else "strict seccomp")
    if what["no_new_privs"]:
        parts.append("no new privileges")
    confined = what["lsm"] is not None and "unconfined" not in what["lsm"]["label"]
    if confined:
        parts.append("confined by a label")
    return f"{_kind(what, own, rooted, confined)}: {', '.join(parts)}"


def _kind(what: What, own: list[str], rooted: bool, confined: bool) -> str:
    spaces = what["namespaces"]
    inside = what["root"]["how"] == "init" and spaces["mount"]["own"] is not False  # another root than the machine's
    if "pid" in own and (inside or ("mount" in own and (rooted or len(own) >= 6))):
        together = all(spaces[kind]["shared_with_caller"] for kind in own)
        return "the container that you are in" if together else "a container of its own"
    if own or rooted:
        if all(space["own"] is None for kind, space in spaces.items() if kind not in own):
            return "partly hidden from you, and contained at least a little"
        return "half a container" if len(own) >= 3 or (rooted and own) else "hardly a container"
    if any(space["own"] is None for space in spaces.values()):
        return "as far as you may see, no container"
    if what["cgroups"]["limits"] or what["seccomp"]["mode"] != "none" or confined:
        return "no container, but a process with limits"
    return "no container, but an ordinary process of the machine"


def _namespaces(own: int, known: int, every: int) -> str:
    if known < every:
        return f"{own} of the {known} namespaces that can be seen" if known else "no namespace can be seen"
    return f"{own} of {every} namespaces" if own else "no namespace of its own"


def _capabilities(what: What) -> str:
    held, known = len(what["capabilities"]["permitted"]["names"]), what["capabilities_known"]
    inside = " (in its own user namespace only)" if held and what["namespaces"]["user"]["own"] else ""
    if held >= known:
        return f"all {known} capabilities{inside}"
    return f"{held} of {known} capabilities{inside}" if held else "no capabilities"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
