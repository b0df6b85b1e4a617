"""`tarbox isolate`: what its words mean, and which steps they lead to, and no others."""

from __future__ import annotations

import pytest

from tarbox.cli.arguments import parse
from tarbox.cli.isolate import VERB, isolate_options
from tarbox.cli.main import main
from tarbox.cli.run import VERB as RUN
from tarbox.engine import isolate, rights
from tarbox.engine.machine import Machine
from tarbox.errors import TarboxError, UnsupportedError
from tarbox.kernel import capabilities


def options(line: str) -> isolate.IsolateOptions:
    return isolate_options(parse(VERB, line.split()))


def steps(line: str, monkeypatch: pytest.MonkeyPatch | None = None, machine: Machine | None = None) -> list[str]:
    """The names of the steps that a command line leads to, those that every command has left out."""
    if monkeypatch:
        monkeypatch.setattr(isolate, "read_machine", lambda: machine or Machine())
    always = ("DieWithParent", "Spawn", "DefaultSignals", "DeathSignal", "Execute")
    made = isolate._prepare(options(line), isolate.Roots("/nonexistent"), keep=False)
    return [type(step).__name__ for step in made.plan().steps if type(step).__name__ not in always]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--uts true", ["Unshare"]),
        ("-h box true", ["Unshare", "HostName"]),
        ("--domainname box true", ["Unshare", "DomainName"]),
        ("--net true", ["Unshare", "LoopbackUp"]),
        ("--mount true", ["Unshare", "PrivateMounts"]),
        ("--pid true", []),
        ("--mount --pid true", ["Unshare", "PrivateMounts", "MountProc"]),
        ("--user true", ["WriteMaps", "AwaitIdMaps", "Capabilities"]),
        ("--no-new-privileges true", ["NoNewPrivileges"]),
        ("--cap-drop CHOWN true", ["BoundingSet", "Capabilities"]),
        ("-u 1000 true", ["OpenDirectory", "LookUpUser", "Credentials"]),
        ("-w / true", ["ChangeDirectory"]),
        ("-e A=b true", []),
        ("--ulimit core=0 true", ["Limit"]),
        ("--root / --chroot true", ["OpenDirectory", "FindDirectory", "ChangeRoot", "Enter"]),
        (
            "--root / true",
            ["OpenTree", "FindDirectory", "Unshare", "PrivateMounts", "AttachRoot", "PivotRoot", "Enter"],
        ),
        ("--net --sysctl net.ipv4.ip_forward=1 true", ["Unshare", "LoopbackUp", "WriteSetting"]),
        ("--net=private true", ["Unshare", "LoopbackUp"]),
        ("--net=none true", ["Unshare", "LoopbackUp"]),
        ("--net=host --uts true", ["Unshare"]),
        ("--net=ns:/run/x true", ["OpenNamespace", "Join"]),
        ("--pid=pid:1 true", ["OpenNamespace"]),
        ("--pid=pid:1 --mount true", ["OpenNamespace", "Unshare", "PrivateMounts", "MountProc"]),
        ("--uptime-offset 1d true", ["MakeTimeNamespace", "Join"]),
        ("--time true", ["MakeTimeNamespace", "Join"]),
        ("--user --ipc=pid:1 true", ["OpenNamespace", "WriteMaps", "AwaitIdMaps", "Capabilities"]),
        (
            "--uidmap 0:1000:9 true",
            ["MakeMap", "MakeFilesAs", "MakeFilesAsBefore", "WriteMaps", "BecomeRoot", "Capabilities"],
        ),
        (
            "--userns=1000:9 --root / --net=pid:1 --oom-score-adj 5 true",
            [
                "OpenNamespace",
                "MakeMap",
                "MakeFilesAs",
                "OpenMappedTree",
                "FindDirectory",
                "MakeFilesAsBefore",
                "WriteMaps",
                "RaiseLimits",
                "BecomeRoot",
                "Unshare",
                "PrivateMounts",
                "AttachRoot",
                "PivotRoot",
                "Enter",
                "Capabilities",
            ],
        ),
    ],
)
def test_what_is_asked_for_and_nothing_else(monkeypatch, line, expected):
    assert steps(line, monkeypatch) == expected


def test_what_is_joined_with_new_ids_is_entered_from_outside(monkeypatch):
    """Who is in a user namespace of its own may join none of the host's, so it is born in them."""
    monkeypatch.setattr(isolate, "read_machine", lambda: Machine())
    for line, entered in (
        ("--pid=pid:1 --net=pid:1 true", ("pid",)),
        ("--user --pid=pid:1 --net=pid:1 true", ("network", "pid")),
        ("--userns=1000:9 --net=pid:1 --uptime-offset 1d true", ("network", "time")),
    ):
        made = isolate._prepare(options(line), isolate.Roots("/nonexistent"), keep=False).plan()
        assert [step.entered for step in made.steps if type(step).__name__ == "Spawn"] == [entered], line


def test_a_label_is_asked_for_first_and_with_an_init_last(monkeypatch):
    """It needs rights that are given up later; an init has it at once, so it comes after all that it needn't allow."""
    confined = Machine(apparmor="unconfined")
    line = "--security-opt apparmor=mine --cap-drop CHOWN"
    made = steps(f"{line} true", monkeypatch, confined)
    assert made == ["OpenProc", "OpenAttribute", "SetLabel", "BoundingSet", "Capabilities"]
    made = steps(f"{line} --pid --init true", monkeypatch, confined)
    assert made == ["OpenProc", "OpenAttribute", "BoundingSet", "Capabilities", "SetLabel"]
    assert steps("--pid true", monkeypatch, confined) == []


def test_every_option_of_run_is_there_or_refused_with_a_reason():
    """And what isn't joined by run isn't by this: its values are the same."""
    here = {name for option in VERB.options for name in option.names}
    for option in RUN.options:
        for name in option.names:
            assert name in here or VERB.missing.get(name), name


def test_a_filter_comes_last_where_new_privileges_are_given_up(monkeypatch, tmp_path):
    """Then it judges nothing but the execve; without that it needs rights that are given up later."""
    monkeypatch.setattr(rights, "load_filter", lambda *_: ("some", bytes(8), 0))
    assert steps("--seccomp default --no-new-privileges --cap-drop ALL true", monkeypatch)[-1] == "LoadSeccomp"
    assert steps("--seccomp default --cap-drop ALL true", monkeypatch)[0] == "LoadSeccomp"


def test_a_plain_user_steps_into_his_own_ids_first(monkeypatch):
    plain = Machine(uid=1000, gid=1000)
    assert steps("--user --net true", monkeypatch, plain) == ["EnterIds", "Unshare", "LoopbackUp", "Capabilities"]
    for line in ("--net true", "--root / true", "-h a true", "--tmpfs /tmp true", "--cap-drop ALL true", "-u 1 true"):
        with pytest.raises(UnsupportedError, match=r"is nothing that a plain user may do.*--user"):
            steps(line, monkeypatch, plain)
    for line in ("--net=pid:1 true", "--user --net=pid:1 true"):
        with pytest.raises(UnsupportedError, match=r"--network: a plain user can't join.*tarbox enter --user"):
            steps(line, monkeypatch, plain)
    with pytest.raises(UnsupportedError, match="the kernel lets a plain user map one id"):
        steps("--userns=auto true", monkeypatch, plain)
    with pytest.raises(UnsupportedError, match="--map-root-user"):
        steps("--user -u root true", monkeypatch, plain)
    powerless = Machine(capabilities=0)
    with pytest.raises(UnsupportedError, match="is nothing that root without CAP_SYS_ADMIN may do"):
        steps("--net true", monkeypatch, powerless)
    assert steps("--no-new-privileges true", monkeypatch, plain) == ["NoNewPrivileges"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no command to isolate"),
        ("--net", "no command to isolate"),
        ("true", "nothing to isolate 'true' from"),
        ("-- true", "nothing to isolate 'true' from"),
        ("--uts=false true", "nothing to isolate 'true' from"),
        ("--root= true", "--root needs a directory"),
        ("--root /nonexistent true", "--root /nonexistent: there is no such directory"),
        ("--root / --overlay / true", "--root and --overlay can't go together"),
        ("--chroot --pid true", "--chroot needs a directory"),
        ("--overlay /a::/b true", "--overlay: '/a::/b' has an empty name in it"),
        ("--overlay / true", "a throw-away layer over / can't be kept in a directory of /"),
        ("--root-tmpfs 1m --pid true", "--root-tmpfs needs a root"),
        ("--init --net true", "--init is process 1"),
        ("--group-add 1 --net true", "--group-add needs a user"),
        ("--caps CHOWN --cap-drop ALL true", "--caps says it all"),
        ("--caps CHOWM true", "--caps: there is no capability 'CHOWM' (did you mean CHOWN?)"),
        ("--seccomp /nonexistent true", "--seccomp: there is no file /nonexistent"),
        ("--security-opt systempaths=unconfined true", "isolate hides nothing of /proc"),
        ("--sysctl net.ipv4.ip_forward=1 true", "would be set for all who share the network namespace (add --net)"),
        ("--sysctl kernel.msgmax=1 true", "would be set for all who share the ipc namespace (add --ipc)"),
        ("--tmpfs /nonexistent true", "there is no /nonexistent on this machine to mount on"),
        ("--tmpfs /etc/passwd true", "a directory can't be mounted on a file"),
        ("-v /etc/passwd:/etc true", "a file can't be mounted on a directory"),
        ("-v /nonexistent:/etc true", "the source of a mount, /nonexistent, doesn't exist"),
        ("-w /nonexistent true", "-w /nonexistent: there is no such directory"),
        ("--root / -w here true", "-w here is not an absolute path"),
        ("--rootfs / true", "this version of tarbox has no --rootfs (it is --root DIR)"),
        ("--mnt true", "unknown option --mnt"),
        ("--net=4711 true", "'4711' doesn't say what it is (pid:4711 is process 4711"),
        ("--net=hots true", "--net: 'hots' is no net namespace (did you mean host?)"),
        ("--net=container:x true", "there is no running container 'x'"),
        ("--ipc=none true", "--ipc: 'none': isolate leaves /dev/shm as it is"),
        ("--mount=pid:1 true", "mounts of others aren't joined ('tarbox enter --mount TARGET'"),
        ("--mount=type=tmpfs,target=/x true", "it takes no value here (a mount is -v SOURCE:TARGET"),
        ("--uts=host -h box true", "-h can't go with --uts of others"),
        ("--uts=pid:1 -h box true", "-h can't go with --uts of others"),
        ("--time=pid:1 --uptime-offset 1d true", "--uptime-offset can't go with --time of others"),
        ("--user=host --map-root-user true", "--map-root-user can't go with --userns of others"),
        ("--user=host --uidmap 0:1:1 true", "--uidmap can't go with --userns of others"),
        ("--userns=auto --map-root-user true", "--map-root-user can't go with other ids"),
        ("--userns=auto --uidmap 0:1:1 true", "--uidmap and --gidmap can't go with --userns"),
        ("--userns=atuo true", "'atuo' is no user namespace (did you mean auto?)"),
        ("--user --pid=pid:1 --mount true", "a joined PID namespace and a new user namespace can't go together"),
        ("--net=pid:1 --sysctl net.ipv4.ip_forward=1 true", "for all who share the network namespace (--net without"),
        ("-v /etc:/etc:idmap true", "the command has the host's ids, so there is nothing to map"),
        ("--net=host true", "nothing to isolate 'true' from"),
        ("--security-opt apparmor=mine true", "--security-opt apparmor=mine: AppArmor is off on this machine"),
        ("--stop-signal TERM true", "this version of tarbox has no --stop-signal (what you send to tarbox"),
    ],
)
def test_a_slip_gets_one_line_and_125(capfd, monkeypatch, line, message):
    monkeypatch.setattr(isolate, "read_machine", lambda: Machine())
    assert main(["isolate", *line.split()]) == 125
    told = capfd.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert message in told.err


def test_every_option_counts(tmp_path):
    """Each option of the table, given alone, changes what the engine is told."""
    samples = {
        "hostname": "a", "domainname": "a", "root": "/a", "overlay": "/a", "root-tmpfs": "1m", "volume": "/a:/b",
        "tmpfs": "/a", "as": "1", "group-add": "1", "workdir": "/a", "env": "A=1", "cap-drop": "ALL", "cap-add": "ALL",
        "uidmap": "0:1:1", "gidmap": "0:1:1", "uptime-offset": "1d", "env-file": str(tmp_path / "env"),
        "caps": "none", "seccomp": "default", "security-opt": "no-new-privileges", "sysctl": "net.ipv4.ip_forward=1",
    }  # fmt: skip

    (tmp_path / "env").write_text("A=1\n")

    def told(found):
        return {name: getattr(found, name) for name in isolate.IsolateOptions.__slots__}

    for option in VERB.options:
        if option.group != "Limits":  # these are those of `tarbox run`
            words = [option.dashed(), *([samples[option.names[0]]] if option.metavar else []), "true"]
            assert told(isolate_options(parse(VERB, words))) != told(options("--ulimit core=0 true")), option.names


def test_layers_whose_names_have_colons():
    assert options("--overlay /a\\:b:/c true").overlay == ("/a:b", "/c")


HELD = (0, 0b1111, 0b1111, 0)  # inheritable, permitted, bounding, ambient


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--net true", None),
        ("--cap-drop CHOWN true", (0b1110, 0b1111, 0b1110, 0, 0)),
        ("--cap-drop ALL true", (0, 0b1111, 0, 0, 0)),
        ("--cap-drop ALL --cap-add CHOWN true", (1, 0b1111, 1, 0, 0)),
        ("--caps CHOWN true", (1, 0b1111, 1, 0, 0)),
        ("--caps none true", (0, 0b1111, 0, 0, 0)),
        ("-u 0:5 --cap-drop CHOWN true", (0b1110, 0b1111, 0b1110, 0, 0)),
        ("-u 1000 --cap-drop CHOWN true", (0b1110, 0b1111, None, 0, 0)),
        ("-u 1000 --cap-add CHOWN true", (0b1111, 0b1111, 1, 1, 1)),
        ("-u 1000 --caps CHOWN true", (1, 0b1111, 1, 1, 1)),
    ],
)
def test_the_sets_of_capabilities(monkeypatch, line, expected):
    """Bounding, held, permitted, inheritable, ambient: a user other than root keeps what it was given by name."""
    monkeypatch.setattr(rights, "_present", lambda *_: HELD)
    found = rights.of(options(line), False, Machine())
    got = found and (found.bounding, found.held, found.permitted, found.inheritable, found.ambient)
    assert got == expected


def test_a_capability_that_nobody_has_here(monkeypatch):
    monkeypatch.setattr(rights, "_present", lambda *_: HELD)
    with pytest.raises(TarboxError, match="doesn't have the capability SYS_ADMIN here"):
        rights.of(options("--cap-add SYS_ADMIN true"), False, Machine())
    assert capabilities.mask(["CHOWN"]) == 1


def test_explaining_does_nothing(monkeypatch):
    monkeypatch.setattr(isolate, "read_machine", lambda: Machine())
    told = isolate.explain(options("--root / --net -m 10m -- sh"), "/nonexistent")
    for words in ("sethostname", "pivot_root", 'execve("{'):
        assert (words in told) is (words != "sethostname")
