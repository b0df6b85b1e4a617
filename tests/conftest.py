"""What all tests share: lanes and markers, a host of their own, the tarbox command, root filesystems to run.

    tests/unit            no root, no container; fast
    tests/kernel          root and the real kernel
    tests/contracts       root; what every backend of one kind promises
    tests/conformance     root and Debian's own tools as the reference
    tests/seeds           root; the scripts that people learn containers from, beside tarbox
    tests/vm              the same kernel tests in a virtual machine, for what this machine lacks

As root, the process that runs the tests moves into mount and network namespaces of its own before the first test, so
that nothing they do to mounts or interfaces can reach the machine. After every test of the lanes that need root, and
once more at the end, a check fails what was left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import neighbours
import roots
import testhost

ROOT_LANES = ("kernel", "contracts", "conformance", "seeds", "vm")
PLAIN_USER = 65533  # nobody's, on any Debian machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the tests marked long and vm")


def pytest_configure(config: pytest.Config) -> None:
    unhurried = "unhurried: doesn't look at interfaces, so the last container's bridge may still be there after a test"
    config.addinivalue_line("markers", unhurried)
    config.addinivalue_line("markers", "long: takes more than a few seconds; only with --all")
    config.addinivalue_line("markers", "vm: boots a virtual machine; only with --all")
    config.addinivalue_line("markers", "root: needs root; everything outside of tests/unit does")


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    host = config.stash[HOST] = testhost.TestHost()
    config.stash[MACHINE] = testhost.MachineSnapshot(host)
    config.stash[MARK] = testhost.mark()
    if os.geteuid() == 0 and not config.option.collectonly:
        try:
            host.enter()
        except OSError as error:
            raise pytest.UsageError(f"the tests run as root, but can't make namespaces: {error}") from None


MACHINE = pytest.StashKey[testhost.MachineSnapshot]()
MARK = pytest.StashKey[int]()
HOST = pytest.StashKey[testhost.TestHost]()
LEFT = pytest.StashKey[list[str]]()


def pytest_report_header() -> str:
    if os.geteuid() == 0:
        return "tests run in mount and network namespaces of their own"
    return f"not root: the tests of the lanes {', '.join(ROOT_LANES)} are skipped"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        lane = _lane(item)
        if lane in ROOT_LANES:
            item.add_marker("root")
        if lane == "vm":
            item.add_marker("vm")
        for name in ("long", "vm"):
            if item.get_closest_marker(name) and not config.getoption("--all"):
                item.add_marker(pytest.mark.skip(reason=f"marked {name}: --all runs it"))
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """End a test that hangs: after 5 minutes, or 30 when it is marked long or vm."""
    patience = 1800 if item.get_closest_marker("long") or item.get_closest_marker("vm") else 300

    def too_long(number: int, frame: object) -> None:
        pytest.fail(f"no end after {patience} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(patience)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    left = testhost.left_on_machine(config.stash[MACHINE])
    left += [f"process {pid}: {name}" for pid, name in testhost.marked(config.stash[MARK]).items()]
    config.stash[LEFT] = left
    config.stash[HOST].leave()
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash.get(LEFT, [])
    if left:
        terminalreporter.section("left on the machine: the tests failed", sep="!", red=True)
        for line in left:
            terminalreporter.line(line)


def _lane(item: pytest.Item) -> str:
    path = item.path
    return next((part for part in reversed(path.parts[:-1]) if part in (*ROOT_LANES, "unit")), "")


@contextlib.contextmanager
def nothing_left(config: pytest.Config, but_bridges: bool = False):
    """Fails when what is done meanwhile leaves a process, a mount or an interface in the test host."""
    number = config.stash[MARK]
    before = testhost.Snapshot(number)
    yield
    left = testhost.left_in_test_host(before, number, but_bridges=but_bridges)
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest):
    """Checks every test of the lanes that need root."""
    if not request.node.get_closest_marker("root"):
        yield
        return
    with nothing_left(request.config, but_bridges=request.node.get_closest_marker("unhurried") is not None):
        yield


@pytest.fixture(scope="module", autouse=True)
def leaves_no_bridge(request: pytest.FixtureRequest):
    """What is passed over after a test that is marked unhurried is gone before the next module."""
    if not request.node.get_closest_marker("unhurried"):
        yield
        return
    with nothing_left(request.config):
        yield


@pytest.fixture(scope="session")
def test_host(request: pytest.FixtureRequest) -> testhost.TestHost:
    """The namespaces that the tests run in; `outside()` runs a command on the machine itself."""
    return request.config.stash[HOST]


class Tarbox:
    """The tarbox command of this checkout, with a data root of its own."""

    def __init__(self, host: testhost.TestHost, folder: Path, user: int = 0) -> None:
        self.host = host
        self.folder = folder
        self.user = user
        self.started: list[subprocess.Popen] = []
        self.root = folder / "root"
        self.home = folder / "home"
        self.run_folder = folder / "run"
        for path in (self.home, self.run_folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(path, user, user)

    def command(self, *arguments: str | Path, python: tuple[str, ...] = ()) -> list[str]:
        """The whole command line, as for subprocess. python: more options of the interpreter's."""
        user = self.user
        start = [self.host.python, "-I", "-S", *python, str(self.host.main)]
        if user:
            become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
            start = [*become, self.host.plain_python, "-I", "-S", *python, str(self.host.plain_main)]
        return [*start, "--root", str(self.root), *map(str, arguments)]

    def environment(self, **more: str) -> dict[str, str]:
        """What the command gets as its environment."""
        base = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "XDG_DATA_HOME": str(self.home / "data"),
            "TERM": "xterm",
        }
        if self.user:
            base["XDG_RUNTIME_DIR"] = str(self.run_folder)
        return base | more

    def __call__(
        self,
        *arguments: str | Path,
        input: str | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 60,
        python: tuple[str, ...] = (),
        **options: object,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; its output as text. env: added to the environment. timeout: seconds."""
        if "stdin" not in options and input is None:
            options["stdin"] = subprocess.DEVNULL
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            self.command(*arguments, python=python),
            input=input,
            env=self.environment(**(env or {})),
            timeout=timeout,
            text=True,
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": self.folder} | options),
        )

    def output(self, *arguments: str | Path, **options: object) -> str:
        """Run it, insist on success, and return what it wrote to its output."""
        done = self(*arguments, **options)  # type: ignore[arg-type]
        assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def start(self, *arguments: str | Path, env: dict[str, str] | None = None, **options: object) -> subprocess.Popen:
        """Start it and return at once."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": self.folder}
        process = subprocess.Popen(  # type: ignore[call-overload]
            self.command(*arguments), env=self.environment(**(env or {})), **(pipes | options)
        )
        self.started.append(process)
        return process

    def end(self, patience: float = 3.0) -> list[str]:
        """End what was started and still runs, as after a test that failed half-way; returns what that was.

        patience: seconds to wait for what is on its way out.
        """
        end = time.monotonic() + patience
        while (running := [process for process in self.started if process.poll() is None]) and time.monotonic() < end:
            time.sleep(0.02)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for process in self.started:
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # nobody reads what is still to be written
                        stream.close()
        return [" ".join(process.args[-12:]) for process in running]

    def check(self) -> None:
        """Insist that all that was started has ended, and left nothing in the data root."""
        running = self.end()
        assert (running, self.leftovers()) == ([], [])

    def leftovers(self, patience: float = 3.0) -> list[str]:
        """What lies in the data root though no container runs; waits `patience` seconds for what is on its way out."""
        end = time.monotonic() + patience
        while True:
            left = [str(path) for name in ("scratch", "journals") for path in (self.root / name).glob("*")]
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.02)


@pytest.fixture
def tarbox(test_host: testhost.TestHost, tmp_path: Path):
    """Runs the tarbox command of this checkout, with a fresh data root: `tarbox("run", "--rm", "host", "true")`.

    Fails the test when containers left something in the data root.
    """
    command = Tarbox(test_host, tmp_path / "tarbox")
    yield command
    command.check()


@pytest.fixture
def plain_folder():
    """A folder of a plain user's, which that user can reach (root's temporary folder is closed to others)."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="tarbox-user-"))
    os.chown(folder, PLAIN_USER, PLAIN_USER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def plain_tarbox(test_host: testhost.TestHost, plain_folder: Path):
    """The same command as a plain user without capabilities, groups or a name."""
    command = Tarbox(test_host, plain_folder, PLAIN_USER)
    yield command
    command.check()


@pytest.fixture
def rootfs_busybox(tmp_path: Path) -> Path:
    """A root filesystem as a directory: one static busybox, its applets as links, /etc/passwd and /etc/group."""
    return roots.busybox(tmp_path / "busybox")


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a plain tarball."""
    folder = tmp_path_factory.mktemp("busybox")
    return roots.packed(roots.busybox(folder / "root"), folder / "busybox.tar")


@pytest.fixture(scope="session")
def debian_tar(test_host: testhost.TestHost) -> Path:
    """A minimal Debian as a tarball of about 130 MB, made by mmdebstrap once and kept between runs."""
    return roots.debian(test_host, "minbase")


@pytest.fixture(scope="session")
def debian_fish_tar(test_host: testhost.TestHost) -> Path:
    """A Debian with fish and redis-server as a tarball of about 200 MB, made once and kept between runs."""
    return roots.debian(test_host, "minbase", "fish", "redis-server", "procps", "python3-minimal")


@pytest.fixture(scope="session")
def debian_servers_tar(test_host: testhost.TestHost) -> Path:
    """A Debian with servers that everybody knows, as a tarball of about 500 MB, made once and kept between runs."""
    servers = ("nginx-light", "redis-server", "postgresql", "iperf3")
    tools = ("iproute2", "iputils-ping", "curl", "netcat-openbsd", "python3-minimal")
    return roots.debian(test_host, "minbase", *servers, *tools)


@pytest.fixture(scope="session")
def debian_servers(debian_servers_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same unpacked, as an image that no container changes."""
    folder = tmp_path_factory.mktemp("servers")
    subprocess.run(["tar", "--numeric-owner", "-C", folder, "-xf", debian_servers_tar], check=True)
    return f"{folder}:O"


@pytest.fixture(scope="module")
def lasting_tarbox(request: pytest.FixtureRequest, test_host: testhost.TestHost, tmp_path_factory):
    """A tarbox command for all tests of a module: its containers may outlive a test, but not the module."""
    with nothing_left(request.config):
        command = Tarbox(test_host, tmp_path_factory.mktemp("lasting"))
        yield command
        command.check()


@pytest.fixture
def neighbour():
    """Another machine on the test host's network, which does what it is told: see neighbours.py."""
    with neighbours.neighbour() as machine:
        yield machine


sys.dont_write_bytecode = True  # the checkout may be shown to containers; leave no root-owned caches in it
