"""`tarbox run`: one container in the foreground, from its options to its exit code.

options ─► source, config ─► plan ─► journal ─► execution ─► session ─► exit code; then everything is taken away
"""

from __future__ import annotations

from ..errors import ImageNotFoundError, KernelError, TarboxError, UnsupportedError, UsageError
from ..images import source
from ..kernel import cgroups, signals
from ..kernel.mounts import MakeSource
from ..kernel.overlay import OpenOverlay, drop_marker
from ..kernel.program import Execute
from ..kernel.syscall import syscall
from ..plan.executor import Execution
from ..plan.journal import Journal, sweep
from ..plan.step import Slots
from ..runtime import launch
from ..runtime.planner import Beside, plan
from ..unistd import os
from .config import config, is_system, seccomp_of, user_of
from .files import MakeFiles, MountFiles, render
from .machine import read_machine
from .options import HOST, NONE
from .roots import Roots
from .session import Session
from .undo import UNDO, load, load_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..images.source import Source
    from ..plan.executor import Observer
    from ..plan.plan import Plan
    from ..plan.step import Step
    from ..spec.runtime import Config, ImageConfig
    from .learning import Learning
    from .machine import Machine
    from .network import Attached
    from .options import RunOptions
    from .userns import Chosen

    class Watch(Protocol):
        """Whoever looks on. attach: before the first step. started: the program runs. ended: it has ended."""

        def attach(self, container: Container, execution: Execution) -> None: ...
        def started(self) -> None: ...
        def ended(self) -> None: ...


_NOT_EXECUTABLE = 126
_NET_ADMIN, _SYS_ADMIN = 12, 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN, man 7 capabilities


class Container:
    """A container that is planned: everything that is known of it before anything is done."""

    __slots__ = ("attached", "beside", "config", "id", "learning", "name", "plan", "range", "stop_signal", "warnings")

    def __init__(self, id: str, made: Config, beside: Beside, planned: Plan) -> None:
        self.id = id
        self.config = made
        self.beside = beside
        self.plan = planned
        self.learning: Learning | None = None
        self.range: Chosen | None = None
        self.attached: Attached | None = None
        self.name = made["linux"]["cgroupsPath"].strip("/")
        self.stop_signal = 0  # what ends its program in the place of SIGTERM; 0 where that is right
        self.warnings = beside.cgroups.warnings({**(made["linux"].get("resources") or {})})

    def names(self) -> dict[str, str]:
        """What a text calls the values that each container has others of.

        $ID, $NAME where the host name is new, and $END, the host's end of its cable.
        """
        names = {self.id: "ID"}
        if self.attached:
            names[self.attached.end] = "END"
        if self.config.get("hostname") == self.id[:12]:
            names[self.id[:12]] = "NAME"
        return names


def run(
    options: RunOptions, root: str | None = None, observe: Observer | None = None, watch: Watch | None = None
) -> int:
    """Run a container to its end and return its exit code; raises a TarboxError when it couldn't be started.

    root: the data root, None for the default. observe: is told of every step and handover (`plan.executor`). watch:
    times the steps, or stops between them (`engine.watching`).
    """
    roots = Roots(root)
    roots.make()
    for folder in roots.journals:
        _warn([str(error) for error in sweep(folder, UNDO)])
    signals.leave_on_termination()
    session = Session(options.interactive, options.tty, options.attach, options.sig_proxy)
    mask = signals.present_mask()
    try:
        container = prepare(options, roots, tuple(session.slots()))
        return _carry_out(container, roots, session, options, observe, watch)
    finally:
        session.close()
        signals.set_mask(mask)


def explain(options: RunOptions, root: str | None = None, command: str = "") -> str:
    """What `run` would do with these options, step by step, as text. Nothing is done, and no privilege is needed.

    command: the words of the command line; then the text is a shell script that does the same.
    """
    given = ("stdin", "stdout", "stderr") if not options.tty else ()
    container = prepare(options, Roots(root), given, keep=False)
    if not command:
        from ..plan.explain import render

        return render(container.plan, container.names())
    from .script import script

    return script(container.plan, command, os.geteuid(), container.names())


def _check_company(made: Config, keep: bool) -> None:
    """Look at who is in a PID namespace that will be joined."""
    paths = [space["path"] for space in made["linux"]["namespaces"] if space["type"] == "pid" and space.get("path")]
    if paths and keep:
        from .namespaces import refuse_tracers

        refuse_tracers(paths[0])


def _may_mount(made: Config, options: RunOptions) -> bool:
    """Whether programs of the container can mount control groups: by right, or in a user namespace that they make."""
    return "CAP_SYS_ADMIN" in made["process"]["capabilities"]["bounding"] or seccomp_of(options) != "default"


def prepare(options: RunOptions, roots: Roots, given: tuple[str, ...], keep: bool = True) -> Container:
    """Plan a container: read what has to be known of the machine, and decide.

    given: the slots that the session fills. keep: whether what was computed (a compiled filter) may be kept on disk.
    """
    found = source.find(options.image, options.rootfs).choose(options.pull, options.platform, options.quiet)
    machine = read_machine(devices=options.privileged)
    if options.devices:
        from .device_edits import look_up

        machine.edits = look_up(options.devices, options.cdi_dirs)
    if keep and machine.uid == 0 and not machine.capabilities >> _SYS_ADMIN & 1:
        raise UnsupportedError(
            "root without CAP_SYS_ADMIN can't make a container: it may not mount anything",
            "give the outer container that capability (--cap-add SYS_ADMIN), or run tarbox as a plain user",
        )
    if not (options.userns or options.uidmap or options.gidmap):
        return _prepared(options, roots, given, keep, found, machine)
    from .userns import choose

    chosen = choose(options, machine.uid, f"{os.path.dirname(roots.state)}/ids", keep)
    try:
        if chosen:
            machine.maps, machine.joined = (chosen.users, chosen.groups), chosen.joined
            machine.capabilities, machine.bounding = (1 << 41) - 1, (1 << 64) - 1  # a user namespace comes with all
            options.user = options.user or chosen.user
        container = _prepared(options, roots, given, keep, found, machine)
    except BaseException:
        if chosen:
            chosen.release()
        raise
    container.range = chosen
    return container


def _prepared(
    options: RunOptions, roots: Roots, given: tuple[str, ...], keep: bool, found: Source, machine: Machine
) -> Container:
    image = found.config()
    id = os.urandom(32).hex()
    warnings: list[str] = []
    attached = _attach(options, image, id, roots, keep, machine, warnings)
    try:
        container = _planned(options, roots, given, keep, found, image, machine, id, attached, warnings)
    except BaseException:
        if attached:
            attached.close()
        raise
    container.attached = attached
    return container


def _attach(
    options: RunOptions,
    image: ImageConfig,
    id: str,
    roots: Roots,
    keep: bool,
    machine: Machine,
    warnings: list[str],
) -> Attached | None:
    """Take what the container needs of a network; None where it has none, the host's, or somebody else's."""
    powerless = not machine.uid and not machine.capabilities >> _NET_ADMIN & 1
    default = not (options.network or options.ports or options.publish_all)
    name = ""
    if not (options.network in (NONE, HOST) or options.network.startswith("/") or (machine.uid and default)):
        from . import network

        name = network.wanted(options, machine.uid, machine.capabilities, warnings)
    if not name:
        options.network = options.network or NONE
        _refuse_addresses(options)
        if powerless and options.network == NONE:
            from . import network

            warnings.append(network.down())
        return None
    return network.attach(name, options, image, id, roots, keep, warnings)


def _refuse_addresses(options: RunOptions) -> None:
    for option, value in (("--ip", options.ip), ("--ip6", options.ip6), ("--mac-address", options.mac_address)):
        if value:
            raise UsageError(
                f"{option} {value} can't be had with --network {options.network}: it makes no interface",
                "leave it out, or choose another network",
            )


def _planned(
    options: RunOptions,
    roots: Roots,
    given: tuple[str, ...],
    keep: bool,
    found: Source,
    image: ImageConfig,
    machine: Machine,
    id: str,
    attached: Attached | None,
    warnings: list[str],
) -> Container:
    made = config(options, image, id, machine, found.root())
    if image or not keep:  # what an image asks for is checked; our own defaults are when they are only told
        from ..spec.validation import validate

        validate(made)
    facts = cgroups.detect()
    every = _may_mount(made, options)
    backend = cgroups.pick(facts, options.cgroup_parent, {**made["linux"]["resources"]}, every=every)
    if every and facts.v1 and machine.uid == 0:
        from ..kernel.cgroups.everywhere import everywhere

        backend = everywhere(backend, facts.v2, options.cgroup_parent)
    beside = Beside(backend, facts.v1)
    beside.privileged = machine.uid == 0
    beside.loopback = bool(machine.uid or machine.capabilities >> _NET_ADMIN & 1)
    if not any(space["type"] == "pid" and "path" not in space for space in made["linux"]["namespaces"]):
        from .ending import watched

        _check_company(made, keep and machine.uid == 0)
        beside.watched = watched(facts, beside.cgroups, made["linux"]["cgroupsPath"].strip("/"), machine.uid)
    if options.group_add and not beside.privileged:
        raise UnsupportedError(
            f"--group-add {options.group_add[0]}: a container of a plain user has one group, that user's own outside",
            "leave --group-add out, or run tarbox as root",
        )
    _check_sources(options)
    beside.steps += found.steps(roots.data, f"{roots.scratch}/{id}", options.root_tmpfs, beside.privileged)
    if options.cidfile:
        from .cidfile import step

        beside.steps.append(step(options.cidfile, id))
    beside.steps += [MakeSource(mount.source) for mount in options.mounts if mount.create]
    if attached:
        beside.steps += attached.steps
        beside.connected = attached.connected
    elif options.ports or options.publish_all:
        from .publishing import published

        published(options, image, warnings)
    beside.steps += _own_files(options, made, roots.state, attached, warnings)
    if any(mount.kind == "overlay" for mount in options.mounts):
        from . import overlaid

        beside.steps += overlaid.steps(options, made, f"{roots.scratch}/{id}", machine.uid != 0)
    if "apparmorProfile" in made["process"]:
        from .security_labels import load_default

        beside.steps += load_default(made, options, roots.state, warnings, keep)
    system = is_system(options, made["process"]["args"])
    if system:
        from . import systemd_mode

        systemd_mode.prepare(made, options, beside, facts, id, warnings)
    beside.user = user_of(options, image)
    beside.extra_groups = tuple(options.group_add)
    if machine.edits and beside.privileged:
        beside.extra_groups += tuple(map(str, machine.edits.gids))
    beside.filter = _filter(options, made, roots, keep)
    beside.interactive = options.interactive
    beside.init = options.init
    beside.ignored = signals.ignored()
    beside.held = machine.bounding
    beside.given = given
    learning = None
    if options.learn:
        from . import learning as module

        learning = module.prepare(options, made, beside.filter[1] if beside.filter else b"", keep)
        beside.learn = learning.secret if learning else 1
    container = Container(id, made, beside, plan(made, beside))
    container.learning = learning
    container.warnings += warnings
    if system:
        container.stop_signal = options.stop_signal or systemd_mode.HALT
    if machine.edits:
        container.warnings += machine.edits.warnings
    return container


def _carry_out(
    container: Container,
    roots: Roots,
    session: Session,
    options: RunOptions,
    observe: Observer | None,
    watch: Watch | None,
) -> int:
    slots = Slots()
    slots.descriptors.update(session.slots())
    journals = [Journal(folder, container.id, UNDO) for folder in roots.journals]
    attached = container.attached
    if attached and attached.journal:
        journals[0], attached.journal = attached.journal, None
    kernel_objects, disk_objects = _sort(container.plan.records(), roots.data)
    if container.range and container.range.path:
        kernel_objects.insert(0, ("range", container.range.path))
    execution = Execution(container.plan, slots, launch, observe, meanwhile=lambda: _begin_to_take_away(container))
    learning = container.learning
    if learning:
        execution.receive = lambda listener: learning.start(listener, execution.pid)
    if watch:
        watch.attach(container, execution)
    try:
        for journal, records in zip(journals, (kernel_objects, disk_objects), strict=True):
            journal.write(records)
        _warn(container.warnings)
        try:
            pid = execution.start()
        finally:
            if "umask" in slots.found:
                os.umask(int(str(slots.found["umask"])))
            if "files as" in slots.found:
                from ..kernel.idmap import make_files_as

                make_files_as(*slots.found["files as"])  # type: ignore[misc]
        _warn(slots.warnings)
        if watch:
            watch.started()
        if attached and attached.reserved:
            from .relay import Relay

            session.relay = Relay(attached.reserved, attached.addresses)
        backend = container.beside.cgroups
        code = session.run(
            pid,
            slots.take("pidfd"),
            slots.descriptors.pop("console", None),
            timeout=options.timeout or None,
            stop_signal=container.stop_signal,
            freeze=lambda: backend.freeze(container.name),
            thaw=lambda: backend.thaw(container.name),
        )
        if learning:
            _warn(learning.finish(code))
        if watch:
            watch.ended()
        if code and options.memory:
            _tell_of_memory(container, options)
        if code == _NOT_EXECUTABLE:
            _tell_of_starter(container, slots)
        return code
    except BaseException:
        signals.block_all()  # a second ^C must not stop the taking away
        _end(execution.pid, slots.descriptors.get("pidfd"))
        raise
    finally:
        if learning:
            learning.close()
        for name in ("pidfd", "tree"):
            if name in slots.descriptors:
                os.close(slots.descriptors.pop(name))
        if container.range:
            container.range.release()
        if attached:
            attached.let_go()
        for journal in journals:
            _warn([str(error) for error in journal.clean()])
        if attached:
            attached.close()
        if "guard" in slots.found:
            from ..kernel.guard import dismiss

            dismiss(slots.found["guard"])  # type: ignore[arg-type]


def _begin_to_take_away(container: Container) -> None:
    """While the container is being set up there is time for what needn't wait for its end."""
    load()
    if container.attached:
        load_network()
    for step in container.plan.steps:
        if isinstance(step, OpenOverlay) and step.work:
            drop_marker(step.work)


def _sort(records: list[tuple[str, str]], data: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The records of what dies with the boot, and of what lies on disk in the data root."""
    on_disk = [record for record in records if record[1].startswith(data + "/")]
    return [record for record in records if record not in on_disk], on_disk


def _end(pid: int, pidfd: int | None) -> None:
    """Kill the container's first process, and with it all of them, and wait for it.

    pidfd: tells it from a stranger that got its number meanwhile; None when nobody can have waited for it yet.
    """
    if pid:
        try:
            if pidfd is None:
                os.kill(pid, 9)
            else:
                syscall("pidfd_send_signal", pidfd, 9, None, 0)
        except (ProcessLookupError, KernelError):
            pass
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass


def _tell_of_memory(container: Container, options: RunOptions) -> None:
    kills = container.beside.cgroups.events(container.name).oom_kills
    if kills:
        limit = _written(options.memory)
        count = "a process" if kills == 1 else f"{kills} processes"
        _warn([f"the container reached its memory limit of {limit}: the kernel killed {count} (raise it with -m)"])


def _tell_of_starter(container: Container, slots: Slots) -> None:
    """A program that is /proc/self/exe, or whose interpreter that is, has met the runner and ended with 126."""
    from ..kernel.mount_points import tree_of
    from ..kernel.obstacles import second_pass

    last = container.plan.steps[-1]
    assert isinstance(last, Execute)
    if said := second_pass(tree_of(slots), last.directory, last.path, last.search):
        _warn([said])


def _written(size: int) -> str:
    """A number of bytes as people write it."""
    for unit, bytes_ in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= bytes_ and size % bytes_ == 0:
            return f"{size // bytes_} {unit}"
    return f"{size} bytes"


def _check_sources(options: RunOptions) -> None:
    for mount in options.mounts:
        if mount.kind == "bind" and not mount.create and not os.path.exists(mount.source):
            hint = "--mount wants it to be there; -v makes a missing directory"
            raise ImageNotFoundError(f"the source of a mount, {mount.source}, doesn't exist", hint)


def _own_files(
    options: RunOptions, made: Config, folder: str, attached: Attached | None, warnings: list[str]
) -> list[Step]:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf, but for those that the caller mounts himself."""
    name = made.get("hostname", "")
    if not name and options.namespaces.get("uts") == HOST:
        name = os.uname().nodename
    files = render(name, made.get("domainname", ""), options, warnings, attached)
    taken = {mount["destination"] for mount in made["mounts"]}
    wanted = {name: text for name, text in files.items() if f"/etc/{name}" not in taken and "/etc" not in taken}
    # In a user namespace nobody may go through our folder: then their file system lies over /proc meanwhile.
    place = "/proc" if any(space["type"] == "user" for space in made["linux"]["namespaces"]) else folder
    return [MakeFiles(wanted), MountFiles(place, tuple(wanted))] if wanted else []


def _filter(options: RunOptions, made: Config, roots: Roots, keep: bool) -> tuple[str, bytes, int] | None:
    profile = seccomp_of(options)
    if profile == "unconfined":
        return None
    if profile == "default" and not keep:  # to tell of it, it needn't be compiled; somebody's own is checked
        return profile, b"", 0
    from ..kernel.capabilities import mask
    from ..kernel.seccomp import load

    bounding = made["process"]["capabilities"].get("bounding") or []
    program, flags = load(profile, mask(bounding), roots.cache, keep)
    return profile, program, flags


def _warn(lines: list[str]) -> None:
    for line in lines:
        try:
            os.write(2, f"tarbox: {line}\n".encode("utf-8", "replace"))
        except OSError:
            pass


__all__ = ["Container", "TarboxError", "explain", "prepare", "run"]
