"""The planner, against golden plans: this config gives exactly these steps, on whatever machine the test runs.

The plans are text files in `golden/`: one step a line, with the handovers between processes. After a change that is
meant, write them anew and read the difference:

    TARBOX_GOLDEN=write python -m pytest tests/unit/test_planner.py; git diff tests/unit/golden
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tarbox.engine import network
from tarbox.engine.config import config, user_of
from tarbox.engine.machine import Machine
from tarbox.engine.options import MountOption, RunOptions, Ulimit
from tarbox.errors import ConfigError, UnsupportedError
from tarbox.images import host
from tarbox.images.source import ARCHIVE, DIRECTORY, HOST, Source
from tarbox.kernel import cgroups
from tarbox.kernel.mounts import MakeSource
from tarbox.networks import ports
from tarbox.networks.definition import Network
from tarbox.networks.request import laid_out
from tarbox.plan import explain
from tarbox.plan.step import RUNNER
from tarbox.runtime.planner import Beside, plan

GOLDEN = Path(__file__).parent / "golden"
ID = "0123456789abcdef" * 4
V1 = {
    name: f"/sys/fs/cgroup/{name}"
    for name in ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids", "blkio")
}
MACHINES = {
    "v1": cgroups.Cgroups("v1", V1),
    "v2": cgroups.Cgroups("v2", {}, "/sys/fs/cgroup", ("cpuset", "cpu", "io", "memory", "pids")),
    "none": cgroups.Cgroups("none", {}),
}
DEVICES = (
    {"type": "c", "path": "/dev/kmsg", "major": 1, "minor": 11, "fileMode": 0o644, "uid": 0, "gid": 0},
    {"type": "b", "path": "/dev/vda", "major": 254, "minor": 0, "fileMode": 0o660, "uid": 0, "gid": 6},
)


def options_of(**chosen):
    options = RunOptions("./rootfs", ["sh"])
    for name, value in chosen.items():
        setattr(options, name, value)
    return options


NETWORKS = {
    "bridge": Network("2" * 64, "bridge", (laid_out((4, 10 << 24 | 211 << 16, 16)),), options={"mtu": "1500"}),
    "web": Network(
        "3" * 64, "web", (laid_out((4, 10 << 24 | 2 << 16, 24)), laid_out((6, 0xFD000002 << 96, 64))),
        True, True, {}, {"mtu": "1400", "com.docker.network.bridge.name": "web0"}, "",
    ),
}  # fmt: skip


def connect(beside, options):
    """What the engine puts beside a config for a container that has the second address of a network."""
    attached = network.Attached(NETWORKS[options.network])
    own = [(subnet, subnet.first + 1) for subnet in attached.network.subnets]
    network._plan(attached, own, [port for text in options.ports for port in ports.read(text)], options, ID, ROOTS)
    beside.steps += attached.steps
    beside.connected = attached.connected


def planned(options, source, facts, uid=0):
    """The plan of a run on a machine with these control groups, for this user."""
    machine = Machine("machine", (0, 1), uid=uid, gid=uid, devices=DEVICES if options.privileged else ())
    if options.uidmap:
        machine.maps = tuple(options.uidmap), tuple(options.gidmap)
        machine.joined = "/proc/4711/ns/user" if options.userns else ""
    made = config(options, {}, ID, machine, source.root())
    beside = Beside(cgroups.pick(facts), facts.v1)
    beside.privileged = uid == 0
    scratch = f"/var/lib/tarbox/scratch/{ID}"
    beside.steps += source.steps("/var/lib/tarbox", scratch, options.root_tmpfs, beside.privileged)
    beside.steps += [MakeSource(mount.source) for mount in options.mounts if mount.create]
    if options.network in NETWORKS:
        connect(beside, options)
    beside.user = user_of(options, {})
    beside.extra_groups = tuple(options.group_add)
    beside.filter = None if options.privileged else ("default", b"\x06\0\0\0\0\0\xff\x7f", 0)
    beside.interactive, beside.init = options.interactive, options.init
    beside.given = () if options.tty else ("stdin", "stdout", "stderr")
    if "pid" in options.namespaces:
        beside.watched = f"/sys/fs/cgroup/unified/tarbox-{ID}"
    return plan(made, beside)


def told(made) -> str:
    """A plan as text: a step a line by phase, and the handovers."""
    lines, phase = [], ""
    for index, step in enumerate(made.steps):
        if handover := made.handover(index):
            slots = f" with {', '.join(handover.slots)}" if handover.slots else ""
            lines.append(f"    -- {handover.sender} to {handover.receiver}{slots}")
        if step.phase != phase:
            phase = step.phase
            lines.append(f"{phase}:")
        lines.append(f"    {step!r}")
    return "\n".join(lines).replace(ID, "ID") + "\n"


ROOTS = SimpleNamespace(data="/var/lib/tarbox", state="/run/tarbox/var-lib-tarbox", cache="/var/lib/tarbox/cache")
DIRECTORY_RUN = (Source(DIRECTORY, "/srv/rootfs", False), "v1", 0)
BIND = MountOption("bind", "/srv/data", "/data", ("rbind", "rro", "rprivate"), create=True)
INNER = MountOption("bind", "/srv/inner", "/data/inner", ("bind", "rslave"))
TMPFS = MountOption("tmpfs", "tmpfs", "/run", ("nosuid", "nodev", "noexec", "size=64m"))
MAP = [(0, 100000, 1000), (1000, 1000, 1)]
RUNS = {
    "directory-v1": (options_of(), *DIRECTORY_RUN),
    "directory-v2-limits": (
        options_of(memory=100 << 20, cpus=0.5, pids_limit=10, cpuset_cpus="0"),
        Source(DIRECTORY, "/srv/rootfs", False),
        "v2",
        0,
    ),
    "rootless": (options_of(interactive=True), Source(DIRECTORY, "/srv/rootfs", True), "none", 1000),
    "rootless-host-network": (options_of(network="host"), Source(DIRECTORY, "/srv/rootfs", False), "none", 1000),
    "host": (options_of(image="host"), Source(HOST, "/", True), "v1", 0),
    "terminal": (options_of(tty=True, interactive=True, init=True), *DIRECTORY_RUN),
    "read-only-binds": (options_of(read_only=True, mounts=[INNER, BIND, TMPFS]), *DIRECTORY_RUN),
    "privileged": (options_of(privileged=True), *DIRECTORY_RUN),
    "in-memory": (options_of(root_tmpfs=1 << 20), Source(DIRECTORY, "/srv/rootfs", True), "v1", 0),
    "connected": (
        options_of(network="bridge", ports=["8080:80", "127.0.0.1:53:53/udp", "[::1]:81:81"]),
        *DIRECTORY_RUN,
    ),
    "connected-six-userns": (
        options_of(
            uidmap=MAP, gidmap=MAP, network="web", mac_address="02:42:ac:11:00:02", ports=["[fd00::9]:53:53/udp"]
        ),
        Source(DIRECTORY, "/srv/rootfs", False),
        "v1",
        0,
    ),
    "host-namespaces": (options_of(namespaces=dict.fromkeys(("pid", "ipc", "uts", "cgroup"), "host")), *DIRECTORY_RUN),
    "joined-namespaces": (
        options_of(
            network="/run/netns/blue",
            namespaces={kind: f"/proc/4711/ns/{kind}" for kind in ("pid", "ipc", "uts", "cgroup", "time")},
        ),
        *DIRECTORY_RUN,
    ),
    "rootless-host-namespaces": (
        options_of(network="host", namespaces=dict.fromkeys(("pid", "ipc", "uts", "cgroup"), "host")),
        Source(DIRECTORY, "/srv/rootfs", False),
        "none",
        1000,
    ),
    "userns": (
        options_of(
            uidmap=MAP,
            gidmap=MAP,
            network="/run/netns/blue",
            ulimits=[Ulimit("nofile", 64, 64)],
            mounts=[
                MountOption("bind", "/srv/data", "/data", ("rbind", "rprivate"), idmap=""),
                MountOption(
                    "bind", "/srv/more", "/more", ("rbind", "rprivate", "ridmap"), idmap="uids=0-7-1;gids=0-7-1"
                ),
            ],
        ),
        Source(DIRECTORY, "/srv/rootfs", True),
        "v1",
        0,
    ),
    "userns-joined": (
        options_of(uidmap=MAP, gidmap=MAP, userns="join", namespaces={"pid": "host"}, oom_score_adj=100),
        *DIRECTORY_RUN,
    ),
    "uptime-offset": (
        options_of(namespaces={"ipc": "none"}, uptime_offset={"monotonic": 3 * 10**9, "boottime": -1}),
        *DIRECTORY_RUN,
    ),
    "user-no-new-privileges": (
        options_of(
            user="guest",
            group_add=["audio"],
            no_new_privileges=True,
            cap_drop=["CAP_CHOWN"],
            ulimits=[Ulimit("nofile", 64, 64), Ulimit("core", 0, 0)],
            workdir="/work",
            hostname="box",
            domainname="example.org",
        ),
        *DIRECTORY_RUN,
    ),
}


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with a merged /usr and two secrets, whatever this one has."""
    kinds = {"/usr": 0o040755, "/etc": 0o040755, "/bin": 0o120777, "/lib": 0o120777}

    def lstat(path):
        if path not in kinds:
            raise FileNotFoundError(path)
        return SimpleNamespace(st_mode=kinds[path])

    monkeypatch.setattr(host, "os", SimpleNamespace(lstat=lstat, readlink=lambda path: f"usr{path}"))
    monkeypatch.setattr(host, "find_secrets", lambda directory: ("shadow", "ssl/private"))


@pytest.mark.parametrize("name", RUNS)
def test_a_config_gives_exactly_these_steps(name):
    options, source, kind, uid = RUNS[name]
    text = told(planned(options, source, MACHINES[kind], uid))
    file = GOLDEN / f"{name}.plan"
    if os.environ.get("TARBOX_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def test_every_golden_plan_has_a_run():
    assert {file.stem for file in GOLDEN.glob("*.plan")} == set(RUNS)


@pytest.mark.parametrize("name", ["connected", "connected-six-userns"])
def test_what_is_told_of_a_network(name):
    """Each step of it, with the commands that do the same, as `explain` shows them."""
    options, source, facts, uid = RUNS[name]
    made = planned(options, source, MACHINES[facts], uid)
    steps = [step for step in made.steps if type(step).__name__ in ("MakeNetwork", "Forward", "AddElements",
                                                                    "ConnectVeth", "AwaitNetwork")]  # fmt: skip
    lines = [line for number, step in enumerate(steps, 1) for line in (*explain.told(number, step, {ID: "ID"}), "")]
    file = GOLDEN / f"{name}.network"
    text = "\n".join(lines)
    if os.environ.get("TARBOX_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def test_the_planner_asks_the_kernel_for_nothing(monkeypatch):
    """Not one system call, and no file is opened."""
    from tarbox.kernel import syscall

    def forbidden(*arguments, **more):
        raise AssertionError(arguments)

    run = RUNS["read-only-binds"]
    planned(run[0], run[1], MACHINES[run[2]])  # everything is imported
    for name in ("open", "stat", "lstat", "mkdir", "listdir", "scandir", "readlink"):
        monkeypatch.setattr(os, name, forbidden)
    monkeypatch.setattr(syscall, "syscall", forbidden)
    assert planned(run[0], run[1], MACHINES[run[2]]).steps


@pytest.mark.parametrize("name", RUNS)
def test_rules_that_hold_for_every_plan(name):
    options, source, kind, uid = RUNS[name]
    steps = planned(options, source, MACHINES[kind], uid).steps
    order = [type(step).__name__ for step in steps]
    runners = [step.by == RUNNER for step in steps]
    assert runners == sorted(runners), "Python makes what is needed, then the runner goes inside"
    assert order[-1] == "Execute"
    assert order.index("PrivateMounts") < order.index("AttachRoot") < order.index("PivotRoot")
    assert order.index("CloseDescriptors") < order.index("BoundingSet"), "while nobody may look who isn't root"
    assert max(index for index, name in enumerate(order) if name in ("AttachTree", "MakeDevices")) < order.index(
        "PivotRoot"
    )
    if "MaskPaths" in order:
        made = [index for index, name in enumerate(order) if name == "MountFilesystem"]
        assert order.index("MaskPaths") > max(made, default=0)
    if "ReadOnlyRoot" in order:
        assert order.index("ReadOnlyRoot") > max(index for index, name in enumerate(order) if name == "AttachTree")
        assert order.index("ReadOnlyRoot") > order.index("Enter"), "the working directory may have to be made"
    if options.privileged or uid:
        return
    own = [order.index(name) for name in ("BoundingSet", "Credentials", "Capabilities")]
    assert own == sorted(own)
    assert (order.index("LoadSeccomp") > own[-1]) == options.no_new_privileges


def test_a_tarball_is_unpacked_first_where_its_not_known(tmp_path):
    """What unpacks it comes before anything else."""
    archive = tmp_path / "image.tar"
    archive.write_bytes(b"not yet looked into")
    steps = Source(ARCHIVE, str(archive), True).steps(str(tmp_path / "data"), str(tmp_path / "scratch"), 0, True)
    assert steps[0].phase == "image"
    assert [type(step).__name__ for step in steps[1:]] == ["MakeScratch", "OpenOverlay"]


def test_what_cant_be_planned_is_refused():
    machine = Machine()
    made = config(options_of(), {}, ID, machine, "/srv/rootfs")
    made["linux"]["namespaces"] = [space for space in made["linux"]["namespaces"] if space["type"] != "mount"]
    with pytest.raises(UnsupportedError, match="mount namespace"):
        plan(made, Beside(cgroups.pick(MACHINES["none"]), {}))
    made = config(options_of(), {}, ID, machine, "/srv/rootfs")
    made["process"]["args"] = []
    with pytest.raises(ConfigError, match=r"\$\.process\.args"):
        plan(made, Beside(cgroups.pick(MACHINES["none"]), {}))
