"""Who a container's program is, and what it may: ids, groups and capabilities, against hostile user files."""

from __future__ import annotations

import os
import subprocess

import pytest

from kernel.attacks import tools

pytestmark = pytest.mark.unhurried

BEYOND = (
    "4294967296",
    "4294967295",
    "2147483648",
    "-1",
    "+0",
    "18446744073709551616",
    "0x0",
    "1e3",
    "\u0660",
    "99" * 40,
)


@pytest.mark.parametrize("user", BEYOND)
def test_an_id_beyond_all_ids_is_nobody(tarbox, rootfs_busybox, user):
    """It never wraps around to 0."""
    done = tarbox("run", "--rm", f"--user={user}", rootfs_busybox, "id", "-u")
    assert done.stdout == ""
    tools.complained(done)
    for spelled in (f"--user=guest:{user}", f"--user=1000:{user}", f"--group-add={user}"):
        done = tarbox("run", "--rm", spelled, rootfs_busybox, "id")
        assert done.stdout == ""
        tools.complained(done)


def test_a_number_is_an_id_though_a_user_has_that_name(tarbox, rootfs_busybox):
    """A line that calls root "1000" makes nobody root."""
    passwd = "1000:x:0:0:root:/:/bin/sh\n4294967296:x:0:0::/:\n-1:x:0:0::/:\nroot:x:0:0:root:/root:/bin/sh\n"
    (rootfs_busybox / "etc/passwd").write_text(passwd)
    (rootfs_busybox / "etc/group").write_text("1000:x:0:\nroot:x:0:1000\n")
    assert tarbox.output("run", "--rm", "-u", "1000", rootfs_busybox, "id", "-u") == "1000\n"
    assert tarbox.output("run", "--rm", "-u", "1000:1000", rootfs_busybox, "id", "-g") == "1000\n"
    for user in ("4294967296", "-1"):
        tools.complained(tarbox("run", "--rm", f"--user={user}", rootfs_busybox, "id"))


@pytest.mark.parametrize("name", ["big", "minus", "long", "short", "empty", "hash"])
def test_a_line_that_is_no_user(tarbox, rootfs_busybox, name):
    """Ids that overflow, are missing or aren't numbers: such a user doesn't exist, least of all as root."""
    with open(rootfs_busybox / "etc/passwd", "a") as file:
        file.write("big:x:4294967296:4294967296::/:\nminus:x:-1:-1::/:\nlong:x:" + "0" * 5000 + "x:0::/:\nshort:x\n")
        file.write("empty:x:::: /:\n#hash:x:0:0::/:\n")
    done = tarbox("run", "--rm", "-u", name, rootfs_busybox, "id")
    assert f"unable to find user {name}" in tools.complained(done)


def _replace(path, kind, canary):
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 30)
    elif kind == "folder":
        path.mkdir()
    elif kind == "null":
        os.mknod(path, 0o020666, os.makedev(1, 3))
    else:
        path.symlink_to(kind)


HOSTILE = (
    "fifo",
    "huge",
    "folder",
    "null",
    "/proc/kmsg",
    "/proc/self/environ",
    "/proc/self/mem",
    "/proc/1/fd/0",
    "loop",
)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_a_user_file_that_is_none(tarbox, rootfs_busybox, tmp_path, name, kind):
    """Neither waited for, nor read without end, nor read where reading waits or takes something away."""
    canary = tools.Canary(tmp_path / "canary")
    (rootfs_busybox / "etc/loop").symlink_to("loop")
    _replace(rootfs_busybox / "etc" / name, kind, canary)
    for options in ((), ("-u", "guest")):
        tools.complained(tarbox("run", "--rm", *options, rootfs_busybox, "id", timeout=10))


def test_a_user_file_that_is_a_link_to_the_hosts(tarbox, rootfs_busybox, tmp_path):
    """It leads to a place in the image, where there is nothing: the host's users are unknown inside."""
    (tmp_path / "shadow").write_text("secret:x:7:7::/:/bin/sh\n")
    for target in (f"{tmp_path}/shadow", f"../../../../../../../..{tmp_path}/shadow", f"/proc/1/root{tmp_path}/shadow"):
        (rootfs_busybox / "etc/passwd").unlink()
        (rootfs_busybox / "etc/passwd").symlink_to(target)
        told = tools.complained(tarbox("run", "--rm", "-u", "secret", rootfs_busybox, "id"))
        assert "7" not in told.replace(str(tmp_path), "")


def test_users_are_who_id_says(tarbox, rootfs_busybox):
    """Names, ids and groups as in Docker; the first group is among the others."""
    with open(rootfs_busybox / "etc/group", "a") as file:
        file.write("wheel:x:10:root,guest\nvideo:x:44:guest\nempty:x:45:\n")
    for user, expected in {
        "guest": "1000 1000 1000 29 10 44",
        "1000": "1000 1000 1000 29 10 44",
        "guest:video": "1000 44 44",
        "guest:45": "1000 45 45",
        "4242": "4242 0 0",
        "4242:4343": "4242 4343 4343",
        "root": "0 0 0 10",
        "2147483647:2147483647": "2147483647 2147483647 2147483647",
    }.items():
        script = "echo $(id -u) $(id -g) $(grep Groups /proc/self/status | cut -f2)"
        told = tarbox.output("run", "--rm", "-u", user, rootfs_busybox, "sh", "-c", script).split()
        wanted = expected.split()
        assert (told[:2], set(told[2:])) == (wanted[:2], set(wanted[2:])), user


SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
DEFAULT = 0xA80425FB


def _sets(tarbox, rootfs, *options):
    script = "cat /proc/self/status; cat /proc/1/status >&2"
    done = tarbox("run", "--rm", *options, rootfs, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        fields = dict(line.split(":", 1) for line in text.splitlines())
        yield tuple(int(fields[name], 16) for name in SETS), fields["NoNewPrivs"].strip()


NO = 0
CASES = {
    (): (NO, DEFAULT, DEFAULT, DEFAULT, NO),
    ("-u", "guest"): (NO, NO, NO, DEFAULT, NO),
    ("-u", "1000:1000"): (NO, NO, NO, DEFAULT, NO),
    ("--cap-drop", "ALL"): (NO, NO, NO, NO, NO),
    ("--cap-drop", "ALL", "--cap-add", "CHOWN"): (NO, 1, 1, 1, NO),
    ("--cap-drop", "ALL", "--cap-add", "CHOWN", "-u", "guest"): (NO, NO, NO, 1, NO),
    ("--cap-add", "NET_ADMIN", "-u", "guest"): (NO, NO, NO, DEFAULT | 1 << 12, NO),
    ("--cap-add", "SYS_PTRACE"): (NO, *[DEFAULT | 1 << 19] * 3, NO),
    ("--security-opt", "no-new-privileges"): (NO, DEFAULT, DEFAULT, DEFAULT, NO),
    ("--security-opt", "no-new-privileges", "-u", "guest"): (NO, NO, NO, DEFAULT, NO),
    ("--security-opt", "seccomp=unconfined"): (NO, DEFAULT, DEFAULT, DEFAULT, NO),
}


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("init", [(), ("--init",)])
def test_all_five_sets_of_capabilities(tarbox, rootfs_busybox, options, init):
    """Of the program and of process 1: inheritable and ambient are empty, whoever the user is."""
    for found, no_new in _sets(tarbox, rootfs_busybox, *init, *options):
        assert found == CASES[options]
        assert no_new == str(int("no-new-privileges" in options))


def test_privileged_has_no_inheritable_ones_either(tarbox, rootfs_busybox):
    for (inheritable, permitted, effective, bounding, ambient), _ in _sets(tarbox, rootfs_busybox, "--privileged"):
        assert (inheritable, ambient) == (0, 0)
        assert permitted == effective == bounding > DEFAULT


@pytest.mark.parametrize("options", [(), ("--init",), ("-u", "guest"), ("--privileged",)], ids=" ".join)
def test_what_the_caller_may_hand_on_is_not_handed_on(tarbox, rootfs_busybox, options):
    """Inheritable and ambient capabilities of whoever types the command end with it."""
    names = "+net_raw,+net_admin,+chown,+sys_admin"
    caller = ["setpriv", f"--inh-caps={names}", f"--ambient-caps={names}", "--"]
    command = ["sh", "-c", "cat /proc/1/status /proc/self/status"]
    words = [*caller, *tarbox.command("run", "--rm", *options, rootfs_busybox, *command)]
    told = subprocess.run(words, env=tarbox.environment(), capture_output=True, text=True, check=True).stdout
    for name in ("CapInh", "CapAmb"):
        assert [int(line.split()[1], 16) for line in told.splitlines() if line.startswith(name)] == [0, 0]
    outside = subprocess.run([*caller, "cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    assert "CapAmb:\t0000000000000000" not in outside, "the caller has some to hand on"


def test_a_files_inheritable_capabilities_give_nothing(tarbox, rootfs_busybox):
    """What they are for is gone with the inheritable set; permitted ones of a file are given, within the bounds."""
    grep = tools.install(rootfs_busybox / "caps/grep", (rootfs_busybox / "bin/busybox").read_bytes())
    status = {}
    for text in ("cap_net_raw,cap_net_admin+ei", "cap_net_raw+ep"):
        subprocess.run(["setcap", text, grep], check=True)
        told = tarbox.output("run", "--rm", "-u", "guest", rootfs_busybox, "/caps/grep", "^Cap", "/proc/self/status")
        status[text] = [int(line.split()[1], 16) for line in told.splitlines()]
    assert status["cap_net_raw,cap_net_admin+ei"] == [0, 0, 0, DEFAULT, 0]
    assert status["cap_net_raw+ep"] == [0, 1 << 13, 1 << 13, DEFAULT, 0]
    subprocess.run(["setcap", "cap_net_admin+ep", grep], check=True)
    done = tarbox("run", "--rm", "-u", "guest", rootfs_busybox, "/caps/grep", "Cap", "/proc/self/status")
    assert done.returncode == 126, "more than the bounds is no start at all"


TRICKY = """root:x:0:0:root:/root:/bin/sh
plain:x:1000:1000::/:/bin/sh
twice:x:1001:1001::/:/bin/sh
twice:x:0:0::/:/bin/sh
far:x:2147483646:2147483646::/:/bin/sh
lead:x:01002:01002::/:/bin/sh
dash-name:x:1003:1000::/:/bin/sh
dot.name:x:1004:1001::/:/bin/sh
_under:x:1005:1::/:/bin/sh
nogroup:x:1006:4242::/:/bin/sh
many:x:1007:1000::/:/bin/sh
"""


def test_users_are_whom_the_images_own_id_says(tarbox, rootfs_busybox):
    """Asked of a program in the container, which reads the same files by code of its own."""
    (rootfs_busybox / "etc/passwd").write_text(TRICKY)
    groups = ["root:x:0:", "plain:x:1000:", "twice:x:1001:many", "half:x:1009:twice,many,", "twin:x:1010:many"]
    groups += ["twin:x:1011:plain", *(f"g{number}:x:{number}:many" for number in range(3000, 3060))]
    (rootfs_busybox / "etc/group").write_text("\n".join(groups) + "\n")
    names = list(dict.fromkeys(line.split(":")[0] for line in TRICKY.splitlines()))
    script = "for n in $0; do echo $(id -u $n) $(id -g $n) $(id -G $n); done"
    said = tarbox.output("run", "--rm", rootfs_busybox, "sh", "-c", script, " ".join(names)).splitlines()
    for name, line in zip(names, said, strict=True):
        user, group, *more = line.split()
        mine = "echo $(id -u) $(id -g) $(grep Groups /proc/self/status | cut -f2)"
        told = tarbox.output("run", "--rm", "-u", name, rootfs_busybox, "sh", "-c", mine).split()
        assert told[:2] == [user, group], name
        assert set(told[2:]) == set(more), name


@pytest.mark.parametrize("user", BEYOND)
def test_no_program_of_the_image_knows_such_a_user_either(tarbox, rootfs_busybox, user):
    """What tarbox refuses isn't a user that `id` would have found."""
    assert tarbox("run", "--rm", rootfs_busybox, "id", "-u", "--", user).returncode != 0


def test_capabilities_work(tarbox, rootfs_busybox):
    """A dropped one is missed, the others do their work."""
    script = "touch /f && chown 5 /f && stat -c %u /f"
    assert tarbox.output("run", "--rm", rootfs_busybox, "sh", "-c", script) == "5\n"
    assert tarbox("run", "--rm", "--cap-drop", "CHOWN", rootfs_busybox, "sh", "-c", script).returncode == 1


def test_a_set_uid_program_can_be_had_and_be_done_without(tarbox, rootfs_busybox):
    """Honest set-uid programs work for a user, unless no-new-privileges is asked for."""
    busybox = tools.install(rootfs_busybox / "bin/elevated", (rootfs_busybox / "bin/busybox").read_bytes())
    busybox.unlink()
    source = '#include <unistd.h>\n#include <stdio.h>\nint main() { printf("%d\\n", geteuid()); }\n'
    tools.install(busybox, tools.compiled(source)).chmod(0o4755)
    assert tarbox.output("run", "--rm", "-u", "guest", rootfs_busybox, "elevated") == "0\n"
    options = ("-u", "guest", "--security-opt", "no-new-privileges")
    assert tarbox.output("run", "--rm", *options, rootfs_busybox, "elevated") == "1000\n"
