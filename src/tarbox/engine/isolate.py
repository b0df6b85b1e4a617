"""`tarbox isolate`: the parts of a container, each alone, for a plain command without an image.

    unshare --uts COMMAND; unshare --net COMMAND; chroot DIR COMMAND; setpriv --bounding-set … COMMAND

What isn't asked for stays the caller's. Only what lies on the host, control groups and directories for throw-away
layers, is written into a journal and taken away at the end.

man 1 unshare, man 7 namespaces
"""

from __future__ import annotations

from ..errors import ImageNotFoundError, UnsupportedError, UsageError
from ..kernel import cgroups, signals
from ..plan.journal import Journal
from ..runtime.parts import Parts, plan
from ..unistd import os
from .isolated_namespaces import check, choose, clocks, join, new
from .limits import asked, chosen, of_each_process, planned, prepared, tell, tell_of_memory
from .machine import read_machine
from .options import RunOptions
from .plain_process import carry_out, here, program
from .roots import Roots
from .undo import UNDO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..kernel.cgroups import Backend
    from ..plan.plan import Plan
    from ..plan.step import Step
    from ..spec.runtime import Mount
    from .machine import Machine
    from .options import MountOption
    from .userns import Chosen

_SYS_ADMIN = 21  # CAP_SYS_ADMIN, man 7 capabilities


class IsolateOptions:
    """What `tarbox isolate` was asked for.

    namespaces: OCI names of the new ones, those that others imply left out. others: by OCI name, the path of one that
    is joined, or "host" for the caller's. map_root: be root in the user namespace. root: the new
    root, "" for none; `DIR:O` isn't written. overlay: its layers instead, topmost first. chroot: enter it by chroot.
    caps: exactly these capabilities, None for not said. shared: what `tarbox run` has as well, by its names there.
    """

    __slots__ = ("caps", "chroot", "map_root", "namespaces", "others", "overlay", "root", "shared")

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self.others: dict[str, str] = {}
        self.map_root = False
        self.root = ""
        self.overlay: tuple[str, ...] = ()
        self.chroot = False
        self.caps: list[str] | None = None
        self.shared = RunOptions()


class _Prepared:
    """All that is decided: the parts, the command, and what lies on the host meanwhile.

    range: ids that were taken for it, None for none. warnings: lines for the user.
    """

    __slots__ = ("backend", "id", "options", "parts", "program", "range", "resources", "roots", "warnings")

    def __init__(self, options: IsolateOptions, roots: Roots) -> None:
        self.options = options
        self.roots = roots
        self.id = os.urandom(32).hex()
        self.parts = Parts()
        self.backend: Backend | None = None
        self.resources: dict[str, Any] = {}
        self.range: Chosen | None = None
        self.warnings: list[str] = []

    def records(self) -> list[tuple[str, str]]:
        """What lies on the host."""
        taken = [("range", self.range.path)] if self.range and self.range.path else []
        return [*taken, *self.plan().records()]

    def plan(self, mask: bytes = bytes(8), given: tuple[str, ...] = ()) -> Plan:
        shared = self.options.shared
        start = program(shared.command, shared.env, self.parts.directory, shared.init)
        return plan(self.parts, start, mask, given)


def run(options: IsolateOptions, root: str | None = None) -> int:
    """Run the command with these parts, to its end; returns its exit code.

    root: the data root, None for the default. Raises a TarboxError when it couldn't be started.
    """
    made = _prepare(options, Roots(root))
    tell(made.warnings)
    records = made.records()
    if not records:
        signals.leave_on_termination()
        return carry_out(made.plan)
    prepared(root)
    journals = [Journal(folder, made.id, UNDO) for folder in made.roots.journals]
    on_disk = [record for record in records if record[1].startswith(made.roots.data + "/")]
    try:
        for journal, part in zip(journals, ([it for it in records if it not in on_disk], on_disk), strict=True):
            journal.write(part)
        if made.backend:
            tell(made.backend.warnings(made.resources))
        code = carry_out(made.plan)
        if code and made.backend:
            tell_of_memory(made.backend.events(f"tarbox-{made.id}").oom_kills, options.shared.memory)
        return code
    finally:
        mask = signals.block_all()  # a second ^C must not stop the taking away
        if made.range:
            made.range.release()
        for journal in journals:
            tell([str(error) for error in journal.clean()])
        signals.set_mask(mask)


def explain(options: IsolateOptions, root: str | None = None) -> str:
    """What `run` would do with these options, step by step, as text; nothing is done."""
    from ..plan.explain import PLAIN, render

    made = _prepare(options, Roots(root), keep=False)
    return render(made.plan(), {made.id: "ID"}, PLAIN)


def _prepare(options: IsolateOptions, roots: Roots, keep: bool = True) -> _Prepared:
    """Decide everything; raises UsageError and UnsupportedError. keep: whether computed things are kept on disk."""
    made = _Prepared(options, roots)
    try:
        _decide(made, keep)
    except BaseException:
        if made.range:
            made.range.release()
        raise
    return made


def _decide(made: _Prepared, keep: bool) -> None:
    options, parts, shared, roots = made.options, made.parts, made.options.shared, made.roots
    machine = read_machine()
    plain = machine.uid != 0 or not machine.capabilities >> _SYS_ADMIN & 1
    parts.namespaces = _namespaces(options)
    join(parts, options, plain)
    made.range = choose(parts, options, machine, roots, plain, keep)
    parts.clocks = clocks(options)
    check(parts, keep)
    _check(options, parts, machine, plain)
    own_ids = "user" in parts.namespaces or "user" in parts.joined
    if "user" in parts.namespaces and plain:
        if shared.user:
            raise UnsupportedError(
                f"-u {shared.user}: a plain user's namespace has one id in it, that user's own",
                "leave -u out; --map-root-user makes you root there",
            )
        from ..kernel.id_maps import EnterIds

        user, group = (0, 0) if options.map_root else (machine.uid, machine.gid)
        parts.ids = EnterIds((user, machine.uid), (group, machine.gid), "mount" in parts.namespaces)
        parts.setgroups = False
    parts.hostname, parts.domainname, parts.settings = shared.hostname, shared.domainname, shared.sysctls
    if shared.limited():
        made.resources = asked(shared)
        made.backend = chosen(cgroups.pick(cgroups.detect(), shared.cgroup_parent, made.resources))
        parts.groups = planned(made.backend, f"tarbox-{made.id}", made.resources)
    parts.limits = of_each_process(shared)
    _add_files(made, plain)
    if shared.user:
        parts.user, parts.extra_groups = shared.user, tuple(shared.group_add)
        if not parts.image:
            from ..kernel.chroot import OpenDirectory

            parts.image = [OpenDirectory("/")]
    from . import rights

    parts.rights = rights.of(options, own_ids, machine)
    parts.no_new_privileges = shared.no_new_privileges
    if shared.seccomp not in ("", "unconfined"):
        parts.filter = rights.load_filter(shared.seccomp, parts.rights, roots, keep)
    if shared.apparmor or shared.selinux:
        _label(made, machine, keep)


def _label(made: _Prepared, machine: Machine, keep: bool) -> None:
    """Have a security module label the command, and the file systems that are made for it."""
    from ..runtime.security_labels import steps
    from .security_labels import add, load_default

    config: Any = {"process": {}, "linux": {}}
    add(config, made.options.shared, machine)
    if keep:
        made.roots.make()
    loaded = load_default(config, made.options.shared, made.roots.state, made.warnings, keep)
    made.parts.labels = [*loaded, *steps(config["process"], made.options.shared.init)]
    made.parts.mount_label = config["linux"].get("mountLabel", "")


def _namespaces(options: IsolateOptions) -> tuple[str, ...]:
    """The kinds that are new, with those that other options can't do without."""
    return new(options, _needs_tree(options) or (bool(options.root) and not options.chroot))


def _needs_tree(options: IsolateOptions) -> bool:
    """Whether the root has to be put together of mounts, wherever it is then entered."""
    shared = options.shared
    throws_away = options.root.endswith(":O") or bool(options.overlay) or bool(shared.root_tmpfs)
    return throws_away or bool(shared.mounts) or shared.read_only


def _check(options: IsolateOptions, parts: Parts, machine: Machine, plain: bool) -> None:
    shared, kinds = options.shared, parts.namespaces
    if options.root and options.overlay:
        raise UsageError(
            "--root and --overlay can't go together", "--overlay makes the root of its layers: leave --root out"
        )
    new_root = bool(options.root or options.overlay)
    if options.chroot and not new_root:
        raise UsageError("--chroot needs a directory to go to", "e.g. --root ./rootfs --chroot")
    if shared.root_tmpfs and not new_root:
        raise UsageError("--root-tmpfs needs a root", "e.g. --root ./rootfs --root-tmpfs 64m")
    if shared.init and "pid" not in kinds:
        raise UsageError("--init is process 1, and only a new PID namespace has one", "add --pid")
    if shared.group_add and not shared.user:
        raise UsageError("--group-add needs a user whose groups they are added to", "add -u USER")
    for name in shared.sysctls:
        from .sysctls import namespace

        if (wanted := namespace(name)) not in kinds:
            option = {"network": "--net"}.get(wanted, f"--{wanted}")
            hint = f"{option} without a value" if wanted in options.others else f"add {option}"
            raise UsageError(f"--sysctl {name} would be set for all who share the {wanted} namespace", hint)
    if plain and "user" not in kinds:
        _refuse_plain(options, kinds, machine)


def _refuse_plain(options: IsolateOptions, kinds: tuple[str, ...], machine: Machine) -> None:
    """Refuse what takes root, where there is no user namespace in which anybody is."""
    shared = options.shared
    asked_for = {
        f"--{'net' if kind == 'network' else kind}": kind in options.namespaces for kind in kinds
    } | {
        "-h": bool(shared.hostname), "--domainname": bool(shared.domainname), "--root": bool(options.root),
        "--overlay": bool(options.overlay), "--read-only": shared.read_only,
        "a mount (-v, --tmpfs)": bool(shared.mounts), "-u": bool(shared.user), "--cap-add": bool(shared.cap_add),
        "--cap-drop": bool(shared.cap_drop), "--caps": options.caps is not None,
        "--seccomp without --no-new-privileges": bool(shared.seccomp) and not shared.no_new_privileges,
    }  # fmt: skip
    who = "root without CAP_SYS_ADMIN" if machine.uid == 0 else "a plain user"
    for option, given in asked_for.items():
        if given:
            raise UnsupportedError(
                f"{option} is nothing that {who} may do", "add --user: in a user namespace of your own you may"
            )


def _add_files(made: _Prepared, plain: bool) -> None:
    """The new root and what is mounted on it, if anything of that was asked for."""
    options, parts, shared = made.options, made.parts, made.options.shared
    parts.own_root = bool(options.root or options.overlay)
    parts.attached = _needs_tree(options) or (bool(options.root) and not options.chroot)
    parts.chroot = options.chroot
    parts.read_only = shared.read_only and parts.own_root
    parts.directory = _directory(shared.workdir, parts)
    if not parts.attached:
        if parts.own_root:
            from ..kernel.chroot import OpenDirectory

            parts.image = [OpenDirectory(_folder(options.root, "--root"))]
        return
    scratch = f"{made.roots.scratch}/{made.id}"
    parts.image = _image(options, scratch, plain)
    entries: list[Mount] = [
        {"destination": entry.target, "type": entry.kind, "source": entry.source, "options": list(entry.options)}
        for entry in sorted(shared.mounts, key=lambda entry: entry.target.count("/"))
    ]
    if not parts.own_root:
        _check_places(entries)
    for entry in shared.mounts:
        if [other["destination"] for other in entries].count(entry.target) > 1:
            raise UsageError(f"two mounts at {entry.target}", "give each target once")
        if entry.kind == "bind" and not os.path.exists(entry.source):
            raise ImageNotFoundError(f"the source of a mount, {entry.source}, doesn't exist")
    for entry in shared.mounts:
        if entry.idmap is not None:
            _map(entry, next(it for it in entries if it["destination"] == entry.target), parts)
    if any(entry.kind == "overlay" for entry in shared.mounts):
        from .overlaid import steps

        config: Any = {"mounts": entries}
        parts.image = [*parts.image, *steps(shared, config, scratch, plain)]
    parts.mounts = entries


def _map(option: MountOption, mount: Mount, parts: Parts) -> None:
    """Have a mount show its files with the owners that the command's user namespace knows."""
    if not parts.maps:
        raise UsageError(
            f"-v {option.source}:…:idmap: the command has the host's ids, so there is nothing to map",
            "leave idmap out, or give it ids of its own: --userns=auto",
        )
    from .idmap import add

    linux: Any = {"namespaces": [{"type": "user"}]}
    for key, rows in (("uidMappings", parts.maps.users), ("gidMappings", parts.maps.groups)):
        linux[key] = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in rows]
    add(mount, option.idmap or "", linux, False)


def _image(options: IsolateOptions, scratch: str, plain: bool) -> list[Step]:
    """The steps that give the slot "tree"."""
    from ..kernel.mounts import OpenTree

    memory = options.shared.root_tmpfs
    path, discard = (options.root[:-2], True) if options.root.endswith(":O") else (options.root, False)
    if options.overlay or discard or memory:
        from ..images.snapshots import overlay

        if options.overlay:
            layers = tuple(_folder(layer, "--overlay") for layer in options.overlay)
        else:
            layers = (_folder(path, "--root"),)
        if "/" in layers and not memory:
            raise UsageError(
                "a throw-away layer over / can't be kept in a directory of /", "keep it in memory: --root-tmpfs 1g"
            )
        return overlay.steps("tree", layers, scratch, memory, not plain)
    if path:
        return [OpenTree(_folder(path, "--root"), "tree")]
    # The machine's own files: all of its mounts are meant, and what is mounted on them afterwards isn't.
    return [OpenTree("/", "tree", attributes=("ro",) if options.shared.read_only else ())]


def _folder(path: str, option: str) -> str:
    if not os.path.isdir(path):
        from .values import shorten

        raise ImageNotFoundError(f"{option} {shorten(path, 200)}: there is no such directory")
    return os.path.abspath(path)


def _check_places(entries: list[Mount]) -> None:
    """Nothing is made on the machine's own file systems: what is mounted over has to be there."""
    for entry in entries:
        target, source = entry["destination"], entry.get("source", "")
        if not os.path.exists(target):
            raise UsageError(f"there is no {target} on this machine to mount on", "make it first, or choose another")
        file = entry.get("type") == "bind" and os.path.exists(source) and not os.path.isdir(source)
        if file == os.path.isdir(target):
            what = "a file can't be mounted on a directory" if file else "a directory can't be mounted on a file"
            raise UsageError(f"{source} on {target}: {what}")


def _directory(wanted: str, parts: Parts) -> str:
    """Where the command starts: in a new root at its top, else where the caller is, unless it was said."""
    if parts.own_root:
        if wanted and not wanted.startswith("/"):
            raise UsageError(f"-w {wanted} is not an absolute path", "it is a directory in the new root, e.g. /app")
        return wanted or "/"
    if wanted:
        wanted = os.path.abspath(wanted)
        if not os.path.isdir(wanted):
            raise UsageError(f"-w {wanted}: there is no such directory")
        return wanted
    return here() if parts.attached else ""


__all__ = ["IsolateOptions", "explain", "run"]
