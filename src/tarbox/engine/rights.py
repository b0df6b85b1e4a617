"""What a plain command may do: capabilities taken away and given, and a filter of system calls.

    setpriv --bounding-set -all,+chown COMMAND        setpriv --reuid 1000 --ambient-caps +net_raw COMMAND

man 7 capabilities, man 2 seccomp
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..kernel.capabilities import mask, names
from ..runtime.parts import Rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .isolate import IsolateOptions
    from .machine import Machine
    from .roots import Roots

_SETS = ("CapInh", "CapPrm", "CapBnd", "CapAmb")


def of(options: IsolateOptions, own_ids: bool, machine: Machine) -> Rights | None:
    """The capabilities for what was asked, None where that is nothing; raises UnsupportedError for those not had.

    own_ids: the command is in a user namespace of its own. Whoever isn't root loses capabilities by executing a
    program; those that were asked for by name are made ambient, so that they are kept.
    """
    shared = options.shared
    inheritable, permitted, bounding, ambient = _present(machine, own_ids)
    if not (own_ids or shared.cap_add or shared.cap_drop or options.caps is not None):
        return None
    added = _asked(shared.cap_add if options.caps is None else options.caps, permitted & bounding)
    dropped = shared.cap_drop if options.caps is None else ["ALL"]
    kept = 0 if "ALL" in dropped else bounding & ~mask(dropped)
    kept |= added
    for_root = shared.user.partition(":")[0] in ("0", "root") if shared.user else options.map_root or machine.uid == 0
    if for_root:
        return Rights(kept, bounding, permitted & kept, inheritable & kept, ambient & kept)
    if shared.user and not added:
        return Rights(kept, bounding)
    # Without names the program starts with none, as it would for any user; what it was given is ambient.
    return Rights(kept, bounding, added, inheritable & kept | added, added)


def _present(machine: Machine, own_ids: bool) -> tuple[int, int, int, int]:
    """The inheritable, permitted, bounding and ambient sets of this process; in a new user namespace there are all."""
    if own_ids:
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
            every = (1 << int(file.read()) + 1) - 1
        return 0, every, every, 0
    found = dict.fromkeys(_SETS, 0)
    with open("/proc/self/status", encoding="utf-8", errors="surrogateescape") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value, 16)
    inheritable, permitted, bounding, ambient = (found[name] for name in _SETS)
    return inheritable, permitted, bounding, ambient


def _asked(wanted: list[str], have: int) -> int:
    if "ALL" in wanted:
        return have
    asked = mask(wanted)
    if missing := asked & ~have:
        name = names(missing)[0].removeprefix("CAP_")
        raise UnsupportedError(
            f"tarbox doesn't have the capability {name} here, so it can't give it away",
            "grep CapPrm /proc/self/status shows what it has",
        )
    return asked


def load_filter(profile: str, rights: Rights | None, roots: Roots, keep: bool) -> tuple[str, bytes, int]:
    """The filter of a profile: its name, its program and its flags. keep: whether what was compiled is kept on disk."""
    from ..kernel.seccomp import load

    if keep:
        roots.make()
    if rights is None:
        with open("/proc/self/status", encoding="utf-8", errors="surrogateescape") as status:
            bounding = next(int(line[7:], 16) for line in status if line.startswith("CapBnd:"))
    else:
        bounding = rights.bounding
    return profile, *load(profile, bounding, roots.cache, keep)
