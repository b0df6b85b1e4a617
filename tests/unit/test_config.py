"""An image and options become an OCI config: whole configs as they must be, and each rule of Docker's by itself."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tarbox.engine.config import check, config, seccomp_of, user_of
from tarbox.engine.machine import Machine, host_devices, read_machine
from tarbox.engine.options import MountOption, RunOptions, Ulimit
from tarbox.errors import UnsupportedError, UsageError
from tarbox.spec.runtime import CAPABILITIES
from tarbox.spec.validation import validate

ID = "0123456789abcdef" * 4
MACHINE = Machine("laptop", (0, 1), (1 << 41) - 1)
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
]  # fmt: skip


def allow(kind: str, major: int, minor: int | None = None) -> dict[str, Any]:
    number = {"major": major} | ({} if minor is None else {"minor": minor})
    return {"allow": True, "type": kind, **number, "access": "rwm"}


DEVICES = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(allow("c", 1, minor) for minor in (3, 5, 7, 8, 9)),
    *(allow("c", 5, minor) for minor in (0, 1, 2)),
    allow("c", 136),
]

# What `tarbox run host` means.
GOLDEN: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": False,
        "args": ["/bin/sh"],
        "env": [PATH, "HOSTNAME=0123456789ab"],
        "cwd": "/",
        "capabilities": {
            "bounding": DEFAULT_CAPABILITIES,
            "effective": DEFAULT_CAPABILITIES,
            "permitted": DEFAULT_CAPABILITIES,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [],
        "noNewPrivileges": False,
    },
    "root": {"path": "/run/root", "readonly": False},
    "hostname": "0123456789ab",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["ro", "nosuid", "noexec", "nodev"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
        },
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "ipc", "pid", "cgroup")],
        "cgroupsPath": f"/tarbox-{ID}",
        "resources": {"devices": DEVICES},
        "devices": [],
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
            "/sys/firmware",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}  # fmt: skip


def make(image: Any = None, machine: Machine = MACHINE, command: list[str] | None = None, **options: Any) -> Any:
    """The config of `host` with these options, which must be one that the specification allows."""
    chosen = RunOptions("host", command)
    for name, value in options.items():
        setattr(chosen, name, value)
    made = config(chosen, image or {}, ID, machine, "/run/root")
    validate(made)
    return made


def test_the_config_of_a_plain_run() -> None:
    assert make() == GOLDEN


def test_the_config_of_a_rich_command_line() -> None:
    from tarbox.cli.arguments import parse
    from tarbox.cli.run import VERB, run_options

    line = (
        "-it --rm -eA=1 -e B=two --user 1000:100 -w /app -h box --domainname lab --read-only --init"
        " --tmpfs /tmp:size=64m -v /srv/a:/data/deep/er:ro"
        " --mount type=bind,src=/srv/b,dst=/data,bind-propagation=rslave"
        " -m 64m --memory-swap 64m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0-1 --pids-limit 50 --ulimit nofile=10:20"
        " --cap-drop ALL --cap-add NET_RAW --security-opt no-new-privileges --shm-size 1m --net host"
        " host sh -c true"
    )
    options = run_options(parse(VERB, line.split()))
    made: Any = config(options, {}, ID, MACHINE, "/run/root")
    validate(made)
    expected = deepcopy(GOLDEN)
    expected["process"] = {
        "terminal": True,
        "args": ["sh", "-c", "true"],
        "env": [PATH, "HOSTNAME=box", "TERM=xterm", "A=1", "B=two"],
        "cwd": "/app",
        "capabilities": {
            "bounding": ["CAP_NET_RAW"],
            "effective": ["CAP_NET_RAW"],
            "permitted": ["CAP_NET_RAW"],
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        "noNewPrivileges": True,
        "user": {"uid": 1000, "gid": 100},
    }
    expected["root"]["readonly"] = True
    expected["hostname"] = "box"
    expected["domainname"] = "lab"
    expected["mounts"][-1]["options"][-1] = "size=1048576"
    expected["mounts"] += [
        {"destination": "/data", "type": "bind", "source": "/srv/b", "options": ["rbind", "rslave"]},
        {
            "destination": "/tmp",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["noexec", "nosuid", "nodev", "size=64m"],
        },
        {
            "destination": "/data/deep/er",
            "type": "bind",
            "source": "/srv/a",
            "options": ["rbind", "rro", "rprivate"],
        },
    ]
    linux = expected["linux"]
    linux["namespaces"].remove({"type": "network"})
    linux["sysctl"] = {}
    linux["rootfsPropagation"] = "rslave"
    linux["resources"] |= {
        "memory": {"limit": 64 << 20, "swap": 64 << 20},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0-1"},
        "pids": {"limit": 50},
    }
    assert made == expected
    assert options.init
    assert options.interactive


IMAGE = {"Entrypoint": ["/entry", "-x"], "Cmd": ["a", "b"]}


@pytest.mark.parametrize(
    ("image", "entrypoint", "command", "expected"),
    [
        ({}, None, [], ["/bin/sh"]),
        ({"Cmd": ["a"]}, None, [], ["a"]),
        ({"Cmd": None, "Entrypoint": None}, None, [], ["/bin/sh"]),
        (IMAGE, None, [], ["/entry", "-x", "a", "b"]),
        (IMAGE, None, ["c"], ["/entry", "-x", "c"]),
        (IMAGE, "/other", [], ["/other"]),
        (IMAGE, "/other", ["c"], ["/other", "c"]),
        (IMAGE, "", ["c"], ["c"]),
        (IMAGE, "", [], ["/bin/sh"]),
    ],
)
def test_entrypoint_and_command_join_as_in_docker(image: Any, entrypoint: Any, command: Any, expected: Any) -> None:
    assert make(image, command=command, entrypoint=entrypoint)["process"]["args"] == expected


def test_variables_replace_the_images_and_a_bare_name_takes_one_away() -> None:
    made = make({"Env": ["A=1", "PATH=/x", "GONE=1"]}, env=["A=2", "B=x=y", "GONE", "E="])
    assert made["process"]["env"] == ["PATH=/x", "HOSTNAME=0123456789ab", "A=2", "B=x=y", "E="]


def test_a_terminal_sets_term_unless_it_is_set() -> None:
    assert "TERM=xterm" in make(tty=True)["process"]["env"]
    assert "TERM=vt100" in make(tty=True, env=["TERM=vt100"])["process"]["env"]


def test_the_working_directory_is_the_options_the_images_or_the_root() -> None:
    assert make({"WorkingDir": "/i"}, workdir="/o")["process"]["cwd"] == "/o"
    assert make({"WorkingDir": "/i"})["process"]["cwd"] == "/i"
    assert make({"WorkingDir": ""})["process"]["cwd"] == "/"


@pytest.mark.parametrize("user", ["", "root", "1000", "1000:adm", ":5"])
def test_a_user_that_must_be_looked_up_stays_out(user: str) -> None:
    assert "user" not in make(user=user)["process"]


def test_the_user_is_the_options_or_the_images() -> None:
    assert make({"User": "5:6"})["process"]["user"] == {"uid": 5, "gid": 6}
    options = RunOptions("host")
    assert user_of(options, {"User": "app"}) == "app"
    options.user = "7"
    assert user_of(options, {"User": "app"}) == "7"


def test_an_images_user_that_is_no_id_is_refused() -> None:
    with pytest.raises(UsageError):
        make({"User": "4294967296:0"})


def capabilities(**options: Any) -> list[str]:
    sets = make(**options)["process"]["capabilities"]
    assert sets["bounding"] == sets["effective"] == sets["permitted"]
    assert sets["inheritable"] == sets["ambient"] == []
    bounding: list[str] = sets["bounding"]
    return bounding


def test_capabilities_are_added_and_dropped_as_in_docker() -> None:
    assert capabilities(cap_drop=["CAP_NET_RAW"]) == [name for name in DEFAULT_CAPABILITIES if name != "CAP_NET_RAW"]
    assert set(capabilities(cap_add=["CAP_SYS_ADMIN"])) == {*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"}
    assert capabilities(cap_add=["ALL"]) == list(CAPABILITIES)
    assert capabilities(cap_add=["ALL"], cap_drop=["CAP_BPF"]) == [name for name in CAPABILITIES if name != "CAP_BPF"]
    assert capabilities(cap_drop=["ALL"]) == []
    assert capabilities(cap_drop=["ALL"], cap_add=["CAP_KILL", "CAP_CHOWN"]) == ["CAP_CHOWN", "CAP_KILL"]
    assert capabilities(cap_drop=["CAP_KILL"], cap_add=["CAP_KILL"]) == DEFAULT_CAPABILITIES


def test_a_machine_gives_only_the_capabilities_that_it_has() -> None:
    poor = Machine("laptop", (0,), 0b11)
    assert capabilities(machine=poor) == ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]
    assert capabilities(machine=poor, privileged=True) == ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]
    with pytest.raises(UnsupportedError, match="CAP_SYS_RESOURCE"):
        make(machine=poor, cap_add=["CAP_SYS_RESOURCE"])


def test_privileged_takes_the_walls_away() -> None:
    device: Any = {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}
    made = make(machine=Machine("laptop", (0,), devices=(device,)), privileged=True)
    linux = made["linux"]
    assert made["process"]["capabilities"]["bounding"] == list(CAPABILITIES)
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert linux["devices"] == [device]
    options = {mount["destination"]: mount["options"] for mount in made["mounts"]}
    assert "ro" not in options["/sys"]
    assert "ro" not in options["/sys/fs/cgroup"]


def test_seccomp_is_the_default_unless_told() -> None:
    options = RunOptions("host")
    assert seccomp_of(options) == "default"
    options.privileged = True
    assert seccomp_of(options) == "unconfined"
    options.seccomp = "/profile.json"
    assert seccomp_of(options) == "/profile.json"


def test_unmasked_paths() -> None:
    linux = make(unmasked=True)["linux"]
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []


def test_the_temperature_of_the_host_is_masked() -> None:
    path = "/sys/devices/system/cpu/cpu0/thermal_throttle"
    assert path in make(machine=Machine("laptop", thermal_paths=(path,)))["linux"]["maskedPaths"]


def test_swap_is_as_much_again_as_memory() -> None:
    assert make(memory=100 << 20)["linux"]["resources"]["memory"] == {"limit": 100 << 20, "swap": 200 << 20}
    assert make(memory=100 << 20, memory_swap=-1)["linux"]["resources"]["memory"]["swap"] == -1
    assert "memory" not in make()["linux"]["resources"]


def test_the_hosts_network_keeps_the_hosts_name() -> None:
    made = make(network="host")
    assert made["hostname"] == "laptop"
    assert {"type": "network"} not in made["linux"]["namespaces"]
    assert make(network="host", hostname="box")["hostname"] == "box"


def bind(target: str, *options: str) -> MountOption:
    return MountOption("bind", "/src", target, options or ("rbind", "rprivate"))


def test_a_mount_of_ones_own_takes_the_place_of_the_default() -> None:
    targets = [mount["destination"] for mount in make(mounts=[bind("/dev/shm")])["mounts"]]
    assert targets.count("/dev/shm") == 1
    targets = [mount["destination"] for mount in make(mounts=[bind("/dev")])["mounts"]]
    assert targets == ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]


def test_a_tmpfs_at_dev_is_ours_with_its_options() -> None:
    asked = MountOption("tmpfs", "tmpfs", "/dev", ("nosuid", "nodev", "noexec", "size=1m", "mode=711"))
    mounts = make(mounts=[asked, bind("/dev/shm")])["mounts"]
    targets = [mount["destination"] for mount in mounts]
    assert targets == ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
    assert mounts[1]["type"] == "tmpfs"
    assert mounts[1]["options"] == ["nosuid", "strictatime", "mode=711", "size=1m", "noexec"]
    with pytest.raises(UsageError, match="can't be read-only"):
        make(mounts=[MountOption("tmpfs", "tmpfs", "/dev", ("ro",))])


def test_deeper_mounts_come_later() -> None:
    made = make(mounts=[bind("/a/b/c"), bind("/z"), bind("/a")])
    assert [mount["destination"] for mount in made["mounts"]][-3:] == ["/z", "/a", "/a/b/c"]


def test_a_shared_mount_makes_the_root_shared() -> None:
    assert make(mounts=[bind("/a", "rbind", "rshared"), bind("/b", "rslave")])["linux"]["rootfsPropagation"] == "shared"


def test_without_root_there_is_a_user_namespace_with_one_id() -> None:
    made = make(machine=Machine("laptop", (0,), (1 << 41) - 1, 1000, 1001))
    linux = made["linux"]
    assert linux["namespaces"][0] == {"type": "user"}
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert "net.ipv4.ping_group_range" not in linux["sysctl"]
    options = {mount["destination"]: mount["options"] for mount in made["mounts"]}
    assert "gid=5" not in options["/dev/pts"]


def test_without_root_the_hosts_network_comes_with_the_hosts_sysfs() -> None:
    made = make(machine=Machine("laptop", (0,), (1 << 41) - 1, 1000, 1000), network="host")
    sysfs = next(mount for mount in made["mounts"] if mount["destination"] == "/sys")
    assert (sysfs["type"], sysfs["source"]) == ("bind", "/sys")
    assert "rro" in sysfs["options"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"memory_swap": 5 << 20}, "--memory-swap needs --memory"),
        ({"memory": 10 << 20, "memory_swap": 5 << 20}, "is less than --memory"),
        ({"cpus": 2.5}, "--cpus 2.5 is more than this machine has (from 0.01 to 2)"),
        ({"cpuset_cpus": "0-2"}, "there is no processor 2 here (available: 0,1)"),
        ({"mounts": [bind("/a"), bind("/a")]}, "two mounts at /a"),
        ({"mounts": [bind("/proc")]}, "nothing can be mounted at /proc"),
        ({"mounts": [bind("/proc/sys/kernel")]}, "nothing can be mounted at /proc/sys/kernel"),
    ],
)
def test_options_that_can_not_be_are_refused(options: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError) as raised:
        make(**options)
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_lxcfs_puts_over_proc_is_allowed() -> None:
    assert make(mounts=[bind("/proc/meminfo")])["mounts"][-1]["destination"] == "/proc/meminfo"


def test_two_configs_share_nothing() -> None:
    one, other = make(), make()
    one["process"]["capabilities"]["bounding"].append("CAP_X")
    one["mounts"][0]["options"].append("x")
    one["linux"]["resources"]["devices"].pop()
    one["linux"]["maskedPaths"].append("/x")
    assert other == make() == GOLDEN
    assert "CAP_X" not in one["process"]["capabilities"]["effective"]


def test_ulimits_keep_their_order() -> None:
    rlimits = make(ulimits=[Ulimit("nofile", 1, 2), Ulimit("core", 0, 0)])["process"]["rlimits"]
    assert [limit["type"] for limit in rlimits] == ["RLIMIT_NOFILE", "RLIMIT_CORE"]


def test_this_machine_can_be_read() -> None:
    machine = read_machine()
    assert machine.hostname
    assert machine.cpus
    assert machine.devices == ()
    check(RunOptions("host"), machine)


def test_the_devices_of_the_host_are_found_without_terminals() -> None:
    found = {device["path"]: device for device in host_devices()}
    assert (found["/dev/null"]["major"], found["/dev/null"]["minor"]) == (1, 3)
    assert not any(path.startswith("/dev/pts/") for path in found)
    assert host_devices("/nonexistent") == ()
