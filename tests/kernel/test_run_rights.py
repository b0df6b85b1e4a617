"""The options that give and take rights: capabilities, filters, no-new-privileges, --privileged. By what then works."""

from __future__ import annotations

import json
import os
import shutil

import pytest

import roots
from inside import ask

pytestmark = pytest.mark.unhurried

NUMBERS = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_BIND_SERVICE": 10,
    "NET_ADMIN": 12, "NET_RAW": 13, "SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "MKNOD": 27,
}  # fmt: skip
DEFAULT = 0xA80425FB


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def bits(*names: str) -> int:
    return sum(1 << NUMBERS[name] for name in names)


def sets(text: str) -> dict[str, int]:
    return {line.split(":")[0][3:]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--cap-add", "NET_ADMIN"), DEFAULT | bits("NET_ADMIN")),
        (("--cap-drop", "CHOWN", "--cap-drop", "cap_kill"), DEFAULT & ~bits("CHOWN", "KILL")),
        (("--cap-drop", "ALL"), 0),
        (("--cap-drop", "ALL", "--cap-add", "CHOWN"), bits("CHOWN")),
        (("--cap-add", "ALL", "--cap-drop", "SYS_ADMIN"), None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_sets_are_what_was_asked_for(tarbox, image, options, expected):
    """Bounding, permitted and effective alike; inheritable and ambient stay empty."""
    found = sets(ask(tarbox, *options, image, status="cat /proc/1/status")["status"])
    if expected is None:
        with open("/proc/self/status") as status:
            expected = sets(status.read())["Eff"] & ~bits("SYS_ADMIN")
    assert found == {"Inh": 0, "Prm": expected, "Eff": expected, "Bnd": expected, "Amb": 0}


def test_a_dropped_capability_takes_its_effect_along(tarbox, image):
    """And one that is added brings it."""
    do = {
        "chown": "touch /tmp/f && chown 5:5 /tmp/f && echo done",
        "chroot": "chroot / true && echo done",
        "setuid": "suid=1; setpriv --reuid 1 true 2>/dev/null || su guest -c true; echo $?",
        "mknod": "mknod /tmp/n c 1 3 && echo done",
        "lo": "ifconfig lo 127.0.0.2 && echo done",
        "mount": "mount -t tmpfs none /tmp && echo done",
        "closed": "mkdir -m 0 /tmp/d; chown 1 /tmp/d; cat /tmp/d/x",
    }
    plain = ask(tarbox, image, **do)
    assert [plain[name] for name in ("chown", "chroot", "mknod")] == ["done"] * 3
    assert all("done" not in plain[name] for name in ("lo", "mount"))
    less = ask(tarbox, "--cap-drop", "CHOWN", "--cap-drop", "SYS_CHROOT", "--cap-drop", "MKNOD", image, **do)
    assert all("Operation not permitted" in less[name] for name in ("chown", "chroot", "mknod"))
    more = ask(tarbox, "--cap-add", "NET_ADMIN", "--cap-add", "SYS_ADMIN", image, **do)
    assert [more[name] for name in ("lo", "mount")] == ["done", "done"]


def test_a_profile_of_ones_own_is_the_filter(tarbox, image, tmp_path):
    """What it denies fails with its errno, the rest works; unconfined has none; the default is there otherwise."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        ],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    do = {
        "filter": "grep ^Seccomp: /proc/1/status",
        "mkdir": "mkdir /tmp/d && echo done",
        "symlink": "ln -s a /tmp/l && echo done",
        "touch": "touch /tmp/f && echo done",
        "unshare": "unshare -m true && echo done",
    }
    own = ask(tarbox, "--security-opt", f"seccomp={tmp_path}/profile.json", image, **do)
    assert own["filter"].split()[1] == "2"
    assert "Operation not permitted" in own["mkdir"]
    assert "No space left on device" in own["symlink"]
    assert own["touch"] == "done"
    default = ask(tarbox, image, **do)
    assert [default[name] for name in ("mkdir", "symlink", "touch")] == ["done"] * 3
    assert "Operation not permitted" in default["unshare"]
    none = ask(tarbox, "--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN", image, **do)
    assert none["filter"].split()[1] == "0"
    assert none["unshare"] == "done"


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "JSON"), ("{", "JSON"), ("[]", "object"), ('{"defaultAction": "SCMP_ACT_NOPE"}', "SCMP_ACT_NOPE")],
)
def test_a_profile_that_is_none_is_refused(tarbox, image, tmp_path, text, said):
    """In one line that names the file; a missing one too."""
    (tmp_path / "profile.json").write_text(text)
    done = tarbox("run", "--security-opt", f"seccomp={tmp_path}/profile.json", image, "true")
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "profile.json" in done.stderr
    assert said in done.stderr


def test_no_new_privileges_disarms_set_uid_programs(tarbox, tmp_path):
    """A set-uid root program makes a user root, but not then."""
    (tmp_path / "v").mkdir()
    shutil.copy("/usr/bin/id", tmp_path / "v/id")
    (tmp_path / "v/id").chmod(0o4755)
    command = ("-v", f"{tmp_path}/v:/v", "host", "sh", "-c", "/v/id -u; grep NoNewPrivs /proc/self/status")
    assert tarbox.output("run", "-u", "1000", *command).split() == ["0", "NoNewPrivs:", "0"]
    options = ("--security-opt", "no-new-privileges", "-u", "1000")
    assert tarbox.output("run", *options, *command).split() == ["1000", "NoNewPrivs:", "1"]
    tmpfs = ("--tmpfs", "/t:exec", "host", "sh", "-c", "cp /v/id /t; chmod 4755 /t/id; setpriv --reuid 1000 /t/id -u")
    assert tarbox.output("run", "-v", f"{tmp_path}/v:/v", *tmpfs).strip() == "1000"  # nosuid


def test_unconfined_system_paths_are_as_the_kernel_shows_them(tarbox, image):
    """systempaths=unconfined: nothing is masked, nothing read-only in /proc."""
    said = ask(
        tarbox, "--security-opt", "systempaths=unconfined", image,
        masked="stat -c %F /proc/timer_list /proc/keys",
        mounts="grep -c ' /proc/' /proc/self/mountinfo",
        sysctl="echo 4096 >/proc/sys/kernel/msgmnb && echo done",
    )  # fmt: skip
    assert set(said["masked"].splitlines()) <= {"regular file", "regular empty file"}
    assert said["mounts"] == "0"
    assert said["sysctl"] == "done"  # a setting of the container's own ipc namespace


def test_a_privileged_container_may_all_that_the_caller_may(tarbox, image):
    """Capabilities, mounts, devices, /sys and cgroups writable, nothing masked, no filter."""
    said = ask(
        tarbox, "--privileged", image,
        status="grep -E '^(Cap|Seccomp:)' /proc/1/status",
        mount="mount -t tmpfs none /mnt || { mkdir /mnt && mount -t tmpfs none /mnt; } && echo done",
        masked="grep -c ' /proc/' /proc/self/mountinfo",
        sys="grep -E ' /sys ' /proc/self/mountinfo | cut -d' ' -f6",
        cgroup="mkdir /sys/fs/cgroup/pids/x 2>/dev/null || mkdir /sys/fs/cgroup/x; echo $?;"
        " rmdir /sys/fs/cgroup/pids/x 2>/dev/null || rmdir /sys/fs/cgroup/x",
        devices="cd /dev; find . -type b -o -type c | sort",
        numbers="stat -c %t:%T /dev/full",
    )  # fmt: skip
    with open("/proc/self/status") as status:
        assert sets(said["status"])["Eff"] == sets(status.read())["Eff"]
    assert "Seccomp:\t0" in said["status"]
    assert said["mount"].endswith("done")
    assert said["masked"] == "0"
    assert "ro" not in said["sys"].split(",")
    assert said["cgroup"].split()[0] == "0"
    host = {
        entry.name for entry in os.scandir("/dev") if not entry.is_dir() and not entry.is_symlink()
    } - {"console", "ptmx"}  # fmt: skip
    assert host <= {name.removeprefix("./") for name in said["devices"].split()}
    assert said["numbers"] == "1:7"
