"""Runs of containers that are stopped at a chosen place, and what they left.

A driver, forked from the tests, forks a command for each case: no Python starts. The command tells the driver through a
pipe what it reaches; the driver kills whom the case names, waits for all that came from the command, and looks around.

The runner tells nothing: it only makes the calls of its table. So a case changes the table. A row that always fails
takes the place of another one, or a call that waits is put before it, and the driver sees the runner wait there
(`/proc/PID/syscall`).

man 2 PR_SET_CHILD_SUBREAPER, man 2 pidfd_open, man 5 proc_pid_syscall
"""

from __future__ import annotations

import importlib
import os
import pickle
import pkgutil
import select
import signal
import sys
import time
from errno import EIO
from pathlib import Path

import tarbox
from around import changes, children, mounts, sockets, state
from tarbox.engine import networks, undo
from tarbox.engine import run as engine
from tarbox.engine.mount_options import tmpfs, volume
from tarbox.engine.options import RunOptions
from tarbox.engine.roots import Roots
from tarbox.engine.session import Session
from tarbox.errors import KernelError, TarboxError
from tarbox.images.extraction import Extraction
from tarbox.kernel import runner, seccomp, trees
from tarbox.kernel.syscall import syscall
from tarbox.networks import leases, ports, teardown
from tarbox.plan.executor import Execution
from tarbox.plan.step import PARENT, Row
from tarbox.runtime import launch
from testhost import interfaces, tables

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
PATIENCE = 20.0  # seconds, for a run on a busy machine
GONE = 1.0  # seconds after a kill until nothing of the container runs
PLACES = ("step", "handover")
HELD = 0x7EA2B0C5  # an argument that no call looks at: by it the driver knows a row that waits
# What steps call of the interpreter's own; the rest goes through `syscall`.
OF_OS = ("chmod", "chown", "fchmod", "fchown", "listdir", "mkdir", "mknod", "open", "read", "scandir", "stat",
         "symlink", "umask", "write")  # fmt: skip
FAILING = Row("fcntl", (-1, 1))


def load() -> None:
    """Import all of tarbox, so that commands load nothing, whatever their user may read."""
    for module in pkgutil.walk_packages(tarbox.__path__, "tarbox."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


class Scene:
    """Where a kind of run takes place.

    options: of the run; called anew for each. root: the data root. user: the id to run as, 0 for root. terminal:
    whether its output is a terminal. shared: directories that no run may change.
    """

    def __init__(self, options, root, user=0, terminal=False, shared=(), runtime="", profile=""):
        self.options = options
        self.root = str(root)
        self.user = user
        self.terminal = terminal
        self.shared = [str(path) for path in shared]
        self.runtime = str(runtime)
        self.profile = profile
        self.moves = ("user", "mnt") if user else ()  # a plain user's command goes where it may mount

    def become(self):
        """In the command: be its user."""
        if not self.user:
            return
        if self.profile:
            seccomp._DEFAULT_PROFILE = self.profile
        os.environ["XDG_RUNTIME_DIR"] = self.runtime
        os.setgroups([])
        os.setresgid(self.user, self.user, self.user)
        os.setresuid(self.user, self.user, self.user)
        syscall("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after any execve; else /proc/self is root's

    def things(self):
        """Every file that a run could leave, in its data root and its state folder, a line each.

        And every mount, interface and table of rules, and every port that is taken.
        """
        found = set()
        state = f"{self.runtime}/tarbox" if self.user else Roots(self.root).state
        for top in (self.root, state, *self.shared):
            for folder, names, files in os.walk(top):
                found |= {f"file {os.path.join(folder, name)}" for name in (*names, *files)}
        # Which subnet the default network has is noted until a boot.
        found -= {f"file {state}/networks", f"file {state}/networks/bridge"}
        found |= {f"interface {name}" for name in interfaces()} | {f"table {name}" for name in tables()}
        return found | mounts() | sockets()


SCENES = ("directory", "host", "memory", "terminal", "shared", "mapped", "plain", "plain-memory", "published", "six")
WRITE_AND_END = ["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i > /dev/shm/$i; echo $i > /tmp/$i; done; exit 0"]


def scene(name, folder, rootfs, host, plain_user):
    """One of SCENES: a run with these options, by root or by the plain user.

    name: also "typed", a terminal whose keys the container gets.
    folder: empty, to be reached by both. rootfs: a busybox there. host: the tests' own.
    """
    (folder / "shared").mkdir()
    (folder / "shared/file").write_text("shared\n")
    user = plain_user if name.startswith("plain") else 0
    for path in (rootfs, *rootfs.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)

    for part in ("root", "run"):
        (folder / part).mkdir()
        os.chown(folder / part, user, user)
    if name == "six":
        networks.create("six", ipv6=True, root=str(folder / "root"))

    def options():
        wanted = RunOptions(f"{rootfs}:O", ["true"])
        if name == "directory":
            wanted.memory, wanted.cpus, wanted.pids_limit = 64 << 20, 0.5, 20
            wanted.mounts = [volume(f"{folder}/shared:/shared", "/"), tmpfs("/scratch")]
            wanted.init = wanted.no_new_privileges = True
            wanted.user = "guest"
        elif name == "host":
            wanted.image = "host"
        elif name == "mapped":
            wanted.userns = "auto 2000"
            wanted.mounts = [volume(f"{folder}/shared:/shared:idmap", "/")]
            wanted.user = "1000"
            wanted.network = f"/proc/{os.getpid()}/ns/net"
        elif name in ("published", "six"):
            wanted.network = "six" if name == "six" else ""
            address = "[::1]:" if name == "six" else "127.0.0.1:"
            for text in ("8080:80", "5353:53/udp", f"{address}8081:81", f"{address}5354:54/udp"):
                wanted.ports += ports.read(text)
        elif name == "shared":
            wanted.namespaces = {"pid": "host", "ipc": "host", "uts": f"/proc/{os.getpid()}/ns/uts"}
            wanted.uptime_offset = {"boottime": 10**9}
        elif name in ("memory", "plain-memory"):
            wanted.root_tmpfs, wanted.read_only = 8 << 20, True
        elif name in ("terminal", "typed"):
            wanted.tty, wanted.interactive = True, name == "typed"
        return wanted

    profile = str(Path(host.plain_main).parent / "kernel/seccomp-default.json") if user else ""
    shared = (rootfs, folder / "shared")
    return Scene(options, folder / "root", user, name in ("terminal", "typed"), shared, folder / "run", profile)


class Place:
    """What a command reaches: ("step", index, process), ("handover", index, process), ("running", 0, "parent") …"""

    def __init__(self, kind, index, process, pid=0):
        self.kind = kind
        self.index = index
        self.process = process
        self.pid = pid

    def __repr__(self):
        return f"{self.kind} {self.index} of the {self.process}"

    @property
    def key(self):
        return self.kind, self.index, self.process


class Table:
    """What a runner has to do, flat: its rows are counted from 0 through all of its steps.

    kinds, counts: of its steps, in their order, the class and the number of rows. passing: rows that another one may
    pass over. init: the row at which the runner stays behind as an init, or -1.
    """

    def __init__(self, steps, counts, rows):
        self.kinds = [type(step).__name__ for step in steps]
        self.counts = counts
        self.starts = [sum(counts[:at]) for at in range(len(counts))]
        self.passing = {
            at + 1 + skipped
            for at, row in enumerate(rows)
            for skip in (row.skip, *(skip for _, skip in row.on))
            for skipped in range(skip)
        }
        self.init = next((at for at, row in enumerate(rows) if row.name == "init"), -1)
        # What comes after the first row that may execute the program isn't always reached either.
        first = next(at for at, row in enumerate(rows) if row.name == "execve")
        self.passing |= set(range(first + 1, len(rows)))

    def __len__(self):
        return sum(self.counts)

    def of(self, kind):
        """The rows of the first step of this kind."""
        at = self.kinds.index(kind)
        return range(self.starts[at], self.starts[at] + self.counts[at])

    def owner(self, row):
        """Whose row it is, and the which of its own, as errors name it."""
        at = max(at for at, start in enumerate(self.starts) if start <= row and self.counts[at])
        return f"in row {row - self.starts[at]} of {self.kinds[at]}("

    def ready(self):
        """The row that says that only the program is missing; from there on the container counts as started."""
        return self.of("DeathSignal")[-1]

    def places(self):
        """The first row of each step, and the one at which a program that has an init is started."""
        return sorted({start for start, count in zip(self.starts, self.counts, strict=True) if count} | {self.init + 1})

    def is_bound(self, row):
        """Whether the kernel ends the runner at this row when its parent dies: it forgets that when ids change."""
        if "BecomeRoot" in self.kinds and row in self.of("BecomeRoot")[3:]:
            return False  # after its ids, and until it asks for that again
        return self.of("DieWithParent")[0] < row <= self.of("Credentials")[0] or row > self.of("DeathSignal")[0]


class Command:
    """One run in a process of its own, and what is told of it.

    stop: at which place it stops and waits to be killed, or what is raised there. fail: the row of the runner's that
    fails. hold: the row of the runner's before which it waits: for ever, or with `wakes` until the command has died.
    call: which of the system calls that the parent makes for its steps fails, counted from 0.
    """

    def __init__(self, scene, options=None, stop=None, error=None, fail=None, hold=None, wakes=False, call=None):
        self.scene = scene
        self.reader, writer = os.pipe()
        self.master, output = os.openpty() if scene.terminal else (-1, -1)
        self.stderr = os.memfd_create("stderr")
        self.stop, self.error, self.fail, self.hold, self.wakes = stop, error, fail, hold, wakes
        self.call = call
        self.calls = []  # what the parent did for its steps
        self.names = []  # (kind, name) of what its plan leaves on the host
        self.places = []
        self.table = None
        self.answer = None
        self.stream = b""
        self.held = 0  # the process that waits
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                os.close(self.reader)
                self.writer = writer
                self._live(options or scene.options(), output)
                status = 0
            except BaseException:
                import traceback

                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(writer)
        if output >= 0:
            os.close(output)

    # In the command.

    def _live(self, options, output):
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(output if options.interactive else null, 0)
        os.dup2(output if output >= 0 else null, 1)
        os.dup2(self.stderr, 2)
        for extra in (null, output):
            if extra >= 0:
                os.close(extra)
        self.scene.become()
        self._wrap()
        first = state()
        try:
            result = engine.run(options, self.scene.root, self._observe)
        except TarboxError as error:
            result = f"{error} {' '.join(getattr(error, '__notes__', []))}"
        self._tell("result", (result, changes(first, state(), self.scene.moves)))

    def _observe(self, kind, index, process):
        counting, self.counting = self.counting, False
        self._reach(Place(kind, index, process))
        self.counting = counting and kind != "handover"

    def _reach(self, place):
        """Tell of a place; stop or fail there when this is the one."""
        stops = self.stop == place.key
        self._tell("stop" if stops and not self.error else "place", place)
        if stops and self.error:
            raise TarboxError(self.error)
        if stops:
            time.sleep(PATIENCE)

    counting = False

    def _wrap(self):
        """Put our observers around what has none."""
        self._wrap_table()
        self._wrap_calls()
        teardown.LINGER = 0.01
        prepare, serve, unlink, add = engine.prepare, Session._serve, trees._unlink, Extraction._add

        def prepared(*arguments, **options):
            container = prepare(*arguments, **options)
            steps = [(type(step).__name__, step.by) for step in container.plan.steps]
            self._tell("plan", (container.plan.records(), container.name, steps))
            return container

        def served(*arguments, **options):
            self._reach(Place("running", 0, PARENT))
            code = serve(*arguments, **options)
            self._reach(Place("ended", 0, PARENT))
            return code

        def added(*arguments):
            self._reach(Place("unpacking", next(self.counter), PARENT))
            add(*arguments)

        def leased(*arguments):
            lease = lease_one(*arguments)
            self._reach(Place("leased", next(self.leased), PARENT))
            return lease

        def unlinked(*arguments):
            unlink(*arguments)
            self._reach(Place("unlinked", next(self.counter), PARENT))

        engine.prepare, Session._serve, trees._unlink, Extraction._add = prepared, served, unlinked, added
        lease_one, leases.take = leases.take, leased
        self.counter, self.leased = iter(range(1 << 20)), iter(range(1 << 20))
        taken = iter(range(1 << 20))

        def taking(kind, take):
            def taken_away(name):
                take(name)
                self._reach(Place("taken", next(taken), PARENT))

            return taken_away

        for kind, take in list(undo.UNDO.items()):
            undo.UNDO[kind] = taking(kind, take)

    def _wrap_table(self):
        """Change the runner's table as the case wants it, and tell of it as it was."""
        image, table = runner.image, launch.table
        plain, making = [], []

        def edited(rows, errors):
            if not making:  # a helper's
                return image(rows, errors)
            plain[:] = rows
            return image(self._edited(rows, errors), errors)

        def made(steps, slots, errors):
            making.append(True)
            result = table(steps, slots, errors)
            making.clear()
            self._tell("table", Table(steps, result.counts, plain))
            return result

        runner.image, launch.table = edited, made

    def _wrap_calls(self):
        """Count the calls that the parent makes from its first step to the handover, and fail one of them."""
        start, made = Execution.start, []
        self.counting = False

        def counted(name, call):
            def calling(*arguments, **options):
                if not self.counting:
                    return call(*arguments, **options)
                made.append((arguments[0], "") if call is syscall else (name, _on_what(arguments)))
                if len(made) - 1 == self.call:
                    raise KernelError(name, arguments, EIO) if call is syscall else OSError(EIO, os.strerror(EIO))
                return call(*arguments, **options)

            return calling

        def started(execution):
            self.counting = True
            try:
                return start(execution)
            finally:
                self.counting = False
                self._tell("calls", made)

        calling = counted("syscall", syscall)
        for module in [module for name, module in sys.modules.items() if name.startswith("tarbox.")]:
            if getattr(module, "syscall", None) is syscall:
                module.syscall = calling
        for name in OF_OS:
            setattr(os, name, counted(name, getattr(os, name)))
        Execution.start = started

    def _edited(self, rows, errors):
        if self.fail is not None:
            return [*rows[: self.fail], FAILING, *rows[self.fail + 1 :]]
        return rows if self.hold is None else before(rows, self.hold, self._waiting(errors))

    def _waiting(self, errors):
        """A call that waits; the last argument is for the driver. Nothing is written back: the table can't be.

        errors: where the runner reports, its one descriptor that is open to the end; the command's death hangs it up.
        """
        patience = int(PATIENCE).to_bytes(8, "little") + bytes(8)
        if not self.wakes:
            return Row("nanosleep", (patience, 0, 0, 0, 0, HELD))
        command = errors.to_bytes(4, "little") + bytes(4)
        return Row("ppoll", (command, 1, patience, 0, 8, HELD), optional=True)

    def _tell(self, kind, value):
        os.write(self.writer, _framed(kind, value))

    # In the driver.

    def drive(self, victim="command", alone=True):
        """Follow it to its end, and kill the victim ("command" or "child") where it stops or its runner waits.

        Returns the seconds from the kill to the end of all that the command had started. alone: whether nothing else
        that the driver started runs meanwhile.
        """
        self.killed_at = time.monotonic()
        if self.hold is not None:
            self.await_hold()
            self._kill(victim)
        while self.hear_once(victim):
            pass
        self.status = os.waitpid(self.pid, 0)[1]
        while alone and self._is_somebody_left():
            if time.monotonic() > self.killed_at + PATIENCE:
                left = children(os.getpid())
                for process in left:
                    os.kill(process, signal.SIGKILL)
                assert not left, f"{left} outlive the command"
            time.sleep(0.001)
        os.close(self.reader)
        if self.master >= 0:
            os.close(self.master)
        return time.monotonic() - self.killed_at

    def await_hold(self):
        """Wait until the runner waits; `held` stays 0 when the command ends without it."""
        end = time.monotonic() + PATIENCE
        while not self.held:
            assert time.monotonic() < end, (
                f"the runner neither waits nor ends at row {self.hold}, after {self.places[-1:]}"
            )
            if select.select([self.reader], [], [], 0.0005)[0] and not self.hear_once():
                return
            if self.table:
                self.held = _waiting_in(self.pid)

    def hear_once(self, victim="command"):
        """Wait for news of it; False when there will be none any more."""
        ready = select.select([self.reader], [], [], PATIENCE)[0]
        assert ready, f"nothing happened for {PATIENCE:g} s, after {self.places[-1:]}"
        more = os.read(self.reader, 65536)
        self.stream += more
        while len(self.stream) >= 4 and len(self.stream) >= 4 + (size := int.from_bytes(self.stream[:4], "little")):
            kind, value = pickle.loads(self.stream[4 : 4 + size])
            self.stream = self.stream[4 + size :]
            self._hear(kind, value, victim)
        return bool(more)

    def _hear(self, kind, value, victim):
        if kind == "plan":
            self.names, self.name, self.steps = value
        elif kind == "table":
            self.table = value
        elif kind == "calls":
            self.calls = value
        elif kind == "result":
            self.answer = value
        else:
            self.places.append(value)
            if kind == "stop":
                self._kill(victim)

    def _kill(self, victim):
        for process in children(self.pid) if victim == "child" else [self.pid]:
            os.kill(process, signal.SIGKILL)
        self.killed_at = time.monotonic()

    @staticmethod
    def _is_somebody_left():
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        return True

    def said(self):
        """What it wrote to standard error."""
        size = os.fstat(self.stderr).st_size
        text = os.pread(self.stderr, size, 0).decode()
        os.close(self.stderr)
        return text


def _on_what(arguments):
    """The path that a call of the interpreter's is about, that of a descriptor as well."""
    first = arguments[0] if arguments else ""
    if not isinstance(first, int):
        return first
    try:
        return os.readlink(f"/proc/self/fd/{first}")
    except OSError:
        return ""


def _framed(kind, value):
    data = pickle.dumps((kind, value))
    return len(data).to_bytes(4, "little") + data


def before(rows, place, added):
    """The rows with another one before the row `place`; who came to that row comes to the other one first."""
    made = []
    for at, row in enumerate(rows):
        if at == place:
            made.append(added)

        def passed(skip, at=at):
            return skip + (at < place < at + 1 + skip)

        on = tuple((errno, passed(skip)) for errno, skip in row.on)
        made.append(Row(row.name, row.arguments, row.shown, store=row.store, skip=passed(row.skip), on=on))
    return made


def _waiting_in(pid):
    """The process below this one that makes a call with the argument HELD, or 0."""
    try:
        below = children(pid)
        for child in below:
            if f" {HELD:#x} " in Path(f"/proc/{child}/syscall").read_text():
                return child
        return next((found for child in below if (found := _waiting_in(child))), 0)
    except OSError:
        return 0  # it ended meanwhile


def cgroups(name):
    """The groups of a container in every hierarchy."""
    top = "/sys/fs/cgroup"
    places = [top, *(entry.path for entry in os.scandir(top) if entry.is_dir())]
    return [path for place in places if os.path.isdir(path := f"{place}/{name}")]


def left(command, before):
    """What is still there of what a command's plan names, and of what it could leave elsewhere, a line each.

    The kernel takes its time to end a network, and with it a cable.
    """
    lines = [f"{kind} {name}" for kind, name in command.names if os.path.lexists(name)]
    if command.names:
        lines += [f"cgroup {path}" for path in cgroups(command.name)]
    end = time.monotonic() + PATIENCE
    while cables(found := command.scene.things() - before) and time.monotonic() < end:
        time.sleep(0.005)
    return lines + sorted(found)


def cables(things):
    """Those that are ends of a cable to a container."""
    return [thing for thing in things if thing.startswith("interface tv")]


def be_driver():
    """Make this process the one to which everything comes that a command leaves behind."""
    load()
    syscall("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
