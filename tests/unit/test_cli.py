"""The command: its verbs, its help, its errors in one line, its exit codes, and how little of Python it loads."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from tarbox.cli import help, run, version
from tarbox.cli.main import TARBOX, VERBS, main
from tarbox.engine import limit_values
from tarbox.engine.options import RunOptions
from tarbox.errors import CommandNotExecutableError, CommandNotFoundError, ImageNotFoundError, KernelError

CHECKOUT = Path(__file__).resolve().parents[2]
START = CHECKOUT / "src" / "tarbox" / "__main__.py"

Engine = Callable[[Callable[[RunOptions, str | None], int]], None]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Put a function in the place of the engine's `run`."""

    def install(function: Callable[[RunOptions, str | None], int]) -> None:
        module = types.ModuleType("tarbox.engine.run")
        module.run = function  # type: ignore[attr-defined]
        module.explain = lambda options, root, command: f"explained {options.image} in {root} {command}"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tarbox.engine.run", module)

    return install


def raising(error: BaseException) -> Callable[[RunOptions, str | None], int]:
    def run(options: RunOptions, root: str | None) -> int:
        raise error

    return run


@pytest.mark.parametrize("code", [0, 7, 137, 255])
def test_the_containers_exit_code_is_the_commands(engine: Engine, code: int) -> None:
    engine(lambda options, root: code)
    assert main(["run", "host", "true"]) == code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ImageNotFoundError("no image 'x'", "look"), 125, "tarbox: no image 'x' (look)"),
        (CommandNotFoundError("'x' isn't there"), 127, "tarbox: 'x' isn't there"),
        (CommandNotExecutableError("'x' can't be executed"), 126, "tarbox: 'x' can't be executed"),
        (KernelError("mount", ("a", 5), 1), 125, "tarbox: mount(a, 5): Operation not permitted"),
        (ImageNotFoundError("two\nlines"), 125, "tarbox: two lines"),
        (ImageNotFoundError("no \x1b[31m\udcff"), 125, "tarbox: no \\x1b[31m\\udcff"),
        (ValueError("odd"), 125, "tarbox: internal error: ValueError: odd (run again with --debug)"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    engine: Engine, capfd: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    engine(raising(error))
    assert main(["run", "host"]) == code
    assert capfd.readouterr() == ("", line + "\n")


def test_debug_shows_where_an_error_came_from(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    engine(raising(ValueError("odd")))
    assert main(["--debug", "run", "host"]) == 125
    error = capfd.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("\ntarbox: internal error: ValueError: odd\n")


def test_an_interrupt_is_quiet(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    engine(raising(KeyboardInterrupt()))
    assert main(["run", "host"]) == 130
    assert capfd.readouterr() == ("", "")


def test_options_after_the_image_are_asked_about(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    engine(raising(CommandNotFoundError("'-it' isn't there")))
    assert main(["run", "host", "-it", "bash"]) == 127
    assert capfd.readouterr().err == (
        "tarbox: '-it' isn't there (-it is taken for the command: options go before the image)\n"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rum", "there is no command 'rum' (did you mean 'tarbox run'?)"),
        ("RUN", "there is no command 'RUN' (did you mean 'tarbox run'?)"),
        ("frobnicate", "there is no command 'frobnicate' (see 'tarbox --help')"),
        ("--rot /x run host", "unknown option --rot (did you mean --root? see 'tarbox --help')"),
        ("--root", "--root needs a value: DIR (see 'tarbox --help')"),
        ("-H tcp://x run host", "this version of tarbox has no -H (there is no server to connect to)"),
        ("run", "no image to run (e.g. 'tarbox run -it host'; see 'tarbox run --help')"),
        ("run --rm -it", "no image to run (e.g. 'tarbox run -it host'; see 'tarbox run --help')"),
        ("run --intractive host", "unknown option --intractive (did you mean --interactive? see 'tarbox run --help')"),
        ("run --workdri / host", "unknown option --workdri (did you mean --workdir? see 'tarbox run --help')"),
        (
            "run -d host",
            "this version of tarbox has no -d (it runs in the foreground only; end the command line with & to go on)",
        ),
        ("run --memory=5 host", "--memory: '5' is 5 bytes, too little for any program (for megabytes write 5m)"),
        ("run -w app host", "-w: 'app' is not an absolute path (it is a directory in the container, e.g. /app)"),
        ("run --net pasta host", "--net: this version of tarbox has no 'pasta' network yet (none or host)"),
        ("run --env-file /nonexistent host", "--env-file /nonexistent: No such file or directory"),
        (
            "run --security-opt seccomp=/nonexistent host",
            "--security-opt seccomp=/nonexistent: there is no such file (a profile in Docker's or the OCI's JSON,"
            " or unconfined)",
        ),
        ("explain", "explain tells of run, isolate, limit, enter, debug (e.g. 'tarbox explain run -it host sh')"),
        (
            "explain ps",
            "explain tells of run, isolate, limit, enter, debug, not of 'ps' (e.g. 'tarbox explain run -it host sh')",
        ),
        (
            "explain isolate true",
            "nothing to isolate 'true' from (e.g. --net, --pid or --root DIR; see 'tarbox isolate --help')",
        ),
        (
            "explain limit -m 5m",
            "no command to limit (e.g. 'tarbox limit -m 50m -- make'; see 'tarbox limit --help')",
        ),
        (
            "explain limit create x",
            "explain tells of a command with limits, not of 'limit create' (a group that lasts is made by the same"
            " steps: tarbox explain limit -m 50m -- true)",
        ),
        ("explain enter --net", "enter needs a target (e.g. 'tarbox enter --net 4711 -- ip addr')"),
        (
            "explain --script isolate --net true",
            "--script writes a container, not what isolate does: a script is shells within shells, and what a plain"
            " command keeps of its caller (descriptors, variables, the terminal) it wouldn't keep ('tarbox explain"
            " isolate' shows each step's own command)",
        ),
        ("explain run", "no image to run (e.g. 'tarbox run -it host'; see 'tarbox run --help')"),
        ("help rnu", "there is no command 'rnu' (did you mean 'tarbox run'?)"),
        ("help run explain", "help takes one command (e.g. 'tarbox help run')"),
        ("version 2", "version takes no arguments, and '2' is one (see 'tarbox version --help')"),
    ],
)
def test_a_slip_gets_one_line_and_125(capfd: pytest.CaptureFixture[str], line: str, message: str) -> None:
    assert main(line.split()) == 125
    assert capfd.readouterr() == ("", f"tarbox: {message}\n")


def test_a_host_name_of_5000_letters_gets_a_short_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-h", "x" * 5000, "host"]) == 125
    assert capfd.readouterr().err == "tarbox: -h: a host name of 5000 characters is too long (Linux allows 64)\n"


def test_the_data_root_is_the_options_or_the_variables(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def note(options: RunOptions, root: str | None) -> int:
        seen.append(root)
        return 0

    engine(note)
    monkeypatch.delenv("TARBOX_ROOT", raising=False)
    main(["run", "host"])
    monkeypatch.setenv("TARBOX_ROOT", "/srv/tarbox")
    main(["run", "host"])
    main(["--root", "here", "run", "host"])
    assert seen == [None, "/srv/tarbox", os.path.abspath("here")]


def options_of(line: str) -> RunOptions:
    return run.run_options(run.parse(run.VERB, line.split()))


def test_no_options_are_dockers_defaults() -> None:
    options = options_of("host")
    assert options == RunOptions("host")


def test_every_option_reaches_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option of the table, given alone, changes what the engine is told."""
    monkeypatch.setenv("MINE", "1")
    (tmp_path / "env").write_text("A=1\n")
    monkeypatch.setattr(limit_values, "_disk", lambda path: (8, 0))  # whatever this machine has
    (tmp_path / "pages" / "hugepages-2048kB").mkdir(parents=True)
    monkeypatch.setattr(limit_values, "_PAGES", str(tmp_path / "pages"))
    samples = {
        "env": "A=1", "env-file": str(tmp_path / "env"), "workdir": "/a", "user": "1", "group-add": "1",
        "entrypoint": "/a", "stop-signal": "INT", "timeout": "1s", "volume": "/a:/b",
        "mount": "type=bind,src=/a,dst=/b", "tmpfs": "/a", "root-tmpfs": "1m", "rootfs": "/a", "shm-size": "1m",
        "memory": "6m", "memory-swap": "-1", "cpus": "1", "cpu-shares": "2", "cpuset-cpus": "0", "pids-limit": "1",
        "memory-reservation": "6m", "memory-high": "6m", "memory-swappiness": "0", "kernel-memory": "6m",
        "oom-score-adj": "0", "cpu-quota": "1000", "cpu-period": "1000", "cpu-rt-runtime": "1", "cpu-rt-period": "1",
        "cpuset-mems": "0", "blkio-weight": "10", "blkio-weight-device": "/d:10", "device-read-bps": "/d:1",
        "device-write-bps": "/d:1", "device-read-iops": "/d:1", "device-write-iops": "/d:1",
        "hugetlb": "2m=0", "net-class": "0", "cgroup-conf": "pids.max=1", "cgroup-parent": "/a",
        "ulimit": "core=0", "cap-add": "ALL", "cap-drop": "ALL", "security-opt": "no-new-privileges", "network": "host",
        "hostname": "a", "domainname": "a", "attach": "stdout", "label": "a=1", "label-file": str(tmp_path / "env"),
        "annotation": "a=1", "cidfile": "/a", "learn": "/a", "pull": "never", "platform": "arm64",
        "device": "/dev/fuse", "systemd": "always",
        "device-cgroup-rule": "c 1:3 r", "gpus": "all", "cdi-spec-dir": "/a", "sysctl": "net.ipv4.ip_forward=1",
        "pid": "host", "ipc": "none", "uts": "pid:1", "cgroupns": "private", "time": "ns:/a", "uptime-offset": "1d",
        "publish": "80", "expose": "80", "add-host": "a:10.0.0.7", "dns": "10.0.0.53", "dns-search": ".",
        "dns-option": "use-vc",
        "ip": "10.0.0.7", "ip6": "fd00::7", "mac-address": "02:00:00:00:00:01",
        "userns": "auto", "uidmap": "0:1:2", "gidmap": "0:1:2",
    }  # fmt: skip
    for option in run.OPTIONS:
        if option.names[0] in ("profile", "step"):
            continue  # these are about the run, and not about the container
        words = [option.dashed()] + ([samples[option.names[0]]] if option.metavar else [])
        words = ["--sig-proxy=false"] if words == ["--sig-proxy"] else words  # the one that is on by itself
        found = run.run_options(run.parse(run.VERB, [*words, "host"]))
        assert found != RunOptions("host"), option.names


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--profile host", (True, False)),
        ("--profile=true host", (True, False)),
        ("--profile=json host", ("json", False)),
        ("--profile=/a/file host", ("/a/file", False)),
        ("--step host", (None, True)),
        ("--step --profile=false host", ("", True)),
        ("--profile=0 --step=false host", None),
        ("host --profile --step", None),
    ],
)
def test_watching_is_asked_for_by_its_options(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, words: str, expected: object
) -> None:
    """And nothing of it is loaded otherwise."""
    said: list[object] = [None]
    watching = types.ModuleType("tarbox.engine.watching")
    watching.run = lambda options, root, profile, step: said.append((profile, step)) or 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tarbox.engine.watching", watching)
    engine(lambda options, root: 6)
    assert main(["run", *words.split()]) == (5 if expected else 6)
    assert said[-1] == expected


def test_a_profile_into_no_file_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--profile=", "host"]) == 125
    assert "--profile: an empty path" in capfd.readouterr().err


def test_variables_come_from_files_first_then_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env").write_text("A=file\nB=file\n")
    monkeypatch.setenv("MINE", "handed on")
    monkeypatch.delenv("UNSET", raising=False)
    options = options_of(f"-e B=option -e MINE -e UNSET --env-file {tmp_path}/env host")
    assert options.env == ["A=file", "B=file", "B=option", "MINE=handed on", "UNSET"]


def test_a_rootfs_needs_no_image() -> None:
    options = options_of("--rootfs ./dir sh -c true")
    assert (options.rootfs, options.image, options.command) == ("./dir", "", ["sh", "-c", "true"])


def test_the_last_of_several_limits_of_a_kind_counts() -> None:
    assert [limit.soft for limit in options_of("--ulimit core=1 --ulimit nofile=5 --ulimit core=2 host").ulimits] == [
        2,
        5,
    ]


def test_explain_takes_the_options_of_run(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    engine(lambda options, root: 1)
    assert main(["--root", "/r", "explain", "run", "-m", "50m", "host", "sh"]) == 0
    assert capfd.readouterr() == ("explained host in /r \n", "")
    assert main(["explain", "--script", "run", "-m", "50m", "host", "a b"]) == 0
    assert capfd.readouterr().out.endswith(" tarbox run -m 50m host 'a b'\n")


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_the_overview_lists_the_commands(capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    out, error = capfd.readouterr()
    assert error == ""
    for verb, summary in VERBS.items():
        assert verb in out
        assert summary in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_by_two_ways(capfd: pytest.CaptureFixture[str], verb: str) -> None:
    assert main([verb, "--help"]) == 0
    first = capfd.readouterr().out
    assert main(["help", verb]) == 0
    assert capfd.readouterr().out == first
    assert first.startswith(f"Usage: tarbox {verb} ")


def test_help_names_every_option_and_keeps_to_the_width() -> None:
    for width in (60, 80, 100):
        text = help.verb_help(run.VERB, width)
        assert text.isascii()
        examples = {f"  {command}" for command, _ in run.VERB.examples}
        assert [line for line in text.splitlines() if len(line) > width and line not in examples] == []
        for option in run.OPTIONS:
            for name in option.names:
                assert option.dashed(name) in text
            assert option.help.split()[0] in text


def test_no_option_is_both_there_and_missing() -> None:
    names = [name for option in run.OPTIONS for name in option.names]
    assert len(names) == len(set(names))
    assert not set(names) & set(run.VERB.missing)


def test_every_slip_in_an_options_name_leads_back_to_it(capfd: pytest.CaptureFixture[str]) -> None:
    """The last letter left out, two letters swapped, one letter doubled."""
    for option in (*run.OPTIONS, *TARBOX.options):
        name = option.names[0]
        if len(name) < 3:  # two letters are near to anything
            continue
        verb = ["run"] if option in run.OPTIONS else []
        slips = {name + name[-1]}
        if len(name) > 4:
            slips |= {name[:-1], name[:2] + name[3] + name[2] + name[4:]}
        known = {known for entry in run.OPTIONS for known in entry.names} | set(run.VERB.missing)
        for slip in slips - known:
            main([*verb, f"--{slip}"])
            assert f"did you mean --{name}?" in capfd.readouterr().err, slip


def test_the_version_is_the_projects(capfd: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["version"] == version.TARBOX
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"tarbox {version.TARBOX}\n"
    assert main(["version"]) == 0
    assert os.uname().release in capfd.readouterr().out


def started(*words: str, before: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """Start the package by its path as bin/tarbox does, with a line of Python before it if there is one."""
    command = [sys.executable, "-I", "-S"]
    if before:
        script = f"import sys; {before}; exec(compile(open({str(START)!r}).read(), {str(START)!r}, 'exec'))"
        command += ["-c", script, *words]
    else:
        command += [str(START), *words]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, timeout=30, **options)  # type: ignore[call-overload, no-any-return]


def test_elsewhere_than_on_linux_it_says_how_to_get_one() -> None:
    for platform, way in (("darwin", "limactl"), ("win32", "wsl --install")):
        # Nothing of tarbox is loaded on the way: there it might not even load.
        before = f"sys.platform = {platform!r}; sys.modules['tarbox'] = None"
        done = started("run", "host", before=before)
        assert done.returncode == 125
        assert done.stderr.count("\n") == 1
        assert f"this is {platform}" in done.stderr
        assert way in done.stderr


def test_an_old_python_is_told_so() -> None:
    done = started("run", "host", before="sys.version_info = (3, 9, 2); sys.modules['tarbox'] = None")
    assert done.returncode == 125
    assert "tarbox: Python 3.11 or newer is needed" in done.stderr
    assert done.stderr.endswith(" is 3.9\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = started("run", "--help", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_under_the_output_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = started("run", "--help", stdout=full)
    assert (done.returncode, done.stderr) == (
        125,
        "tarbox: can't write to standard output: No space left on device\n",
    )


def test_closed_outputs_do_no_harm() -> None:
    command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-I", "-S", str(START)]
    assert subprocess.run([*command, "rum"], timeout=30).returncode == 125
    assert subprocess.run([*command, "--version"], timeout=30).returncode == 0  # nobody wanted to hear it


def test_words_that_are_no_text_are_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(START), "run", b"--\xff\x1b[31m", "host"], stderr=subprocess.PIPE, timeout=30
    )
    assert done.returncode == 125
    assert b"\x1b" not in done.stderr
    assert done.stderr.startswith(b"tarbox: unknown option --")


def test_a_command_line_and_a_config_load_little() -> None:
    """From the first word to the OCI config, nothing is loaded beyond a bare interpreter but small modules of ours."""
    script = (
        "import os, sys; sys.path.insert(0, sys.argv.pop()); before = set(sys.modules);"
        "from tarbox.cli.arguments import parse; from tarbox.cli import main, run;"
        "from tarbox.engine.config import config; from tarbox.engine.machine import read_machine;"
        "words = ['-it', '-m', '64m', '-e', 'A=1', '-v', '/a:/b', '--tmpfs', '/t', '--cpuset-cpus', '0', 'host'];"
        "config(run.run_options(parse(run.VERB, words)), {}, 'a' * 64, read_machine(), '/r');"
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", script, str(CHECKOUT / "src")]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    assert {name for name in loaded if name.partition(".")[0] != "tarbox"} <= {"__future__"}
    assert "tarbox.cli.help" not in loaded
    assert "tarbox.engine.nearest" not in loaded
