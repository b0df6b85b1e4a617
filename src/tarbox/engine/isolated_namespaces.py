"""The namespaces of `tarbox isolate`: new ones, those of others that the command joins, and whose ids it has.

    unshare --net COMMAND; nsenter --net=/run/netns/blue COMMAND; unshare --user --map-users=0:100000:65536 COMMAND

As for `tarbox run`, but that a kind which isn't spoken of is the caller's.

man 7 namespaces, man 7 user_namespaces
"""

from __future__ import annotations

from ..errors import UnsupportedError, UsageError
from ..unistd import os
from .namespaces import OPTIONS
from .options import HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..runtime.parts import Parts
    from .isolate import IsolateOptions
    from .machine import Machine
    from .roots import Roots
    from .userns import Chosen

_ORDER = ("user", "mount", "pid", "network", "uts", "ipc", "cgroup", "time")


def new(options: IsolateOptions, mount: bool) -> tuple[str, ...]:
    """The kinds that are new, with those that other options can't do without.

    mount: whether what else was asked for takes a mount namespace. Raises UsageError for what can't go together.
    """
    shared, kinds = options.shared, set(options.namespaces)
    if shared.hostname or shared.domainname:
        _insist(options, "uts", "-h" if shared.hostname else "--domainname", "it would rename all who have that one")
        kinds.add("uts")
    if shared.uptime_offset:
        _insist(options, "time", "--uptime-offset", "the clocks of a namespace are set before anybody is in it")
        kinds.add("time")
    if options.map_root:
        _insist(options, "user", "--map-root-user", "who is who is said there already")
        kinds.add("user")
    if shared.uidmap or shared.gidmap or (shared.userns and not shared.userns.startswith(("join ", HOST))):
        _insist(options, "user", "--uidmap" if shared.uidmap else "--gidmap", "who is who is said there already")
        kinds.add("user")
    if mount:
        kinds.add("mount")
    return tuple(kind for kind in _ORDER if kind in kinds)


def _insist(options: IsolateOptions, kind: str, option: str, why: str) -> None:
    """Raise where a namespace is asked for that isn't a new one."""
    if options.others.get(kind):
        raise UsageError(f"{option} can't go with --{OPTIONS[kind]} of others", f"{why}: leave one of them out")


def join(parts: Parts, options: IsolateOptions, plain: bool) -> None:
    """Have the command join what others have; raises UnsupportedError where it may not. plain: it isn't root's."""
    joined = {kind: path for kind, path in options.others.items() if path != HOST}
    if plain and joined:
        raise UnsupportedError(
            f"--{OPTIONS[next(iter(joined))]}: a plain user can't join a namespace: the kernel wants root of whoever "
            "owns it",
            "run it as root; 'tarbox enter --user' goes into a user namespace of your own, and what belongs to it",
        )
    parts.joined = joined


def choose(
    parts: Parts, options: IsolateOptions, machine: Machine, roots: Roots, plain: bool, keep: bool
) -> Chosen | None:
    """Decide which ids the command has; None for those of the host. keep: whether a range is taken, or only told of.

    Raises UsageError and UnsupportedError.
    """
    shared = options.shared
    if not (shared.userns or shared.uidmap or shared.gidmap) or shared.userns == HOST:
        return None
    if options.map_root:
        raise UsageError("--map-root-user can't go with other ids", "root is in them already: leave it out")
    from .userns import choose as choose_ids

    chosen = choose_ids(shared, machine.uid or plain, f"{os.path.dirname(roots.state)}/ids", keep)
    if chosen is None:  # the user namespace that is to be joined is this one
        return None
    from ..runtime.mapped import Ids

    listed = [
        [{"containerID": a, "hostID": b, "size": n} for a, b, n in rows] for rows in (chosen.users, chosen.groups)
    ]
    parts.maps = Ids({"uidMappings": listed[0], "gidMappings": listed[1]}, bool(chosen.joined))  # type: ignore[typeddict-item]
    if chosen.joined:
        parts.joined = {"user": chosen.joined, **parts.joined}
    shared.user = shared.user or chosen.user
    return chosen


def check(parts: Parts, keep: bool) -> None:
    """Refuse namespaces of which the /proc that is mounted couldn't be, and those in which somebody may trace.

    keep: whether it will be done, or only told of.
    """
    if "mount" in parts.namespaces and ("user" in parts.namespaces or "user" in parts.joined):
        from ..runtime.mapped import refuse

        refuse(parts.joined, parts.namespaces)
    if "pid" in parts.joined and keep:
        from .namespaces import refuse_tracers

        refuse_tracers(parts.joined["pid"])


def clocks(options: IsolateOptions) -> tuple[tuple[str, int], ...]:
    """What the clocks of a new time namespace are set to."""
    return tuple(options.shared.uptime_offset.items())
