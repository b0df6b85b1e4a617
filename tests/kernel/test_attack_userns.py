"""What a container's root can't do in a user namespace of its own, and maps that can't be."""

from __future__ import annotations

import os

import pytest

from inside import ask
from tarbox.engine.userns import FIRST

AUTO = ("--userns", "auto")
REFUSED = ("denied", "not permitted", "Invalid", "too large", "No such", "can't")


def test_root_of_the_container_reaches_nothing_of_the_hosts_root(tarbox, rootfs_busybox, tmp_path):
    """Through a volume: with every capability that there is, and no filter, it is still nobody to the host's files."""
    (tmp_path / "v").mkdir()
    secret, set_uid = tmp_path / "v/secret", tmp_path / "v/busybox"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    set_uid.write_bytes((rootfs_busybox / "bin/busybox").read_bytes())
    set_uid.chmod(0o4755)
    said = ask(
        tarbox, *AUTO, "--privileged", "-v", f"{tmp_path / 'v'}:/v", f"{rootfs_busybox}:O",
        read="cat /v/secret", write="echo x >/v/secret", mode="chmod 4777 /v/secret", own="chown 0:0 /v/secret",
        make="touch /v/new", remove="rm -f /v/secret", link="ln /v/secret /v/linked",
        suid="/v/busybox id -u", node="mknod /n b 8 0", kernel="echo 1 >/proc/sys/kernel/panic",
        module="echo b >/proc/sysrq-trigger", reboot="sethostname 2>/dev/null; date -s 2001-01-01",
        raw="head -c 1 /dev/vda",
    )  # fmt: skip
    for name in ("read", "write", "mode", "own", "make", "remove", "node", "kernel", "module", "reboot"):
        assert any(word in said[name] for word in REFUSED), (name, said[name])
    assert said["suid"] == "0"  # the container's own, as a file of nobody's gives nothing
    assert sorted(os.listdir(tmp_path / "v")) in (["busybox", "secret"], ["busybox", "linked", "secret"])
    assert secret.stat().st_mode & 0o7777 == 0o600
    assert secret.read_text() == "secret\n"


def test_ids_outside_of_the_range_are_out_of_reach(tarbox, rootfs_busybox, tmp_path):
    """They can't be become, given files, or told apart."""
    folder = tmp_path / "v"
    folder.mkdir()
    for number in (0, 999, 123456):
        (folder / str(number)).touch()
        os.chown(folder / str(number), number, number)
    said = ask(
        tarbox, "--userns", "50000:1000", "-v", f"{folder}:/v", f"{rootfs_busybox}:O",
        seen="stat -c %u:%g /v/*", give="touch /tmp/f; chown 1000 /tmp/f", minus="chown 4294967294 /tmp/f",
        parent="ls -ln /proc/1/root/ >/dev/null && id -u", map="echo '0 0 1' >/proc/self/uid_map",
        nested="unshare -U sh -c 'echo 0 0 1 >/proc/self/uid_map'",
    )  # fmt: skip
    assert set(said["seen"].split()) == {"65534:65534"}
    for name in ("give", "minus", "map", "nested"):
        assert any(word in said[name] for word in REFUSED), (name, said[name])


MANY = [word for number in range(341) for word in ("--uidmap", f"{2 * number}:{1000 + 2 * number}:1")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--uidmap", "0:1000:10", "--uidmap", "9:5000:5"), "[1].containerID: 9 is in another row already"),
        (("--uidmap", "0:1000:10", "--uidmap", "20:1009:5"), "[1].hostID: 1009 is in another row already"),
        (("--uidmap", "0:1000:0"), "[0].size: must be 1 or more"),
        (("--uidmap", "0:4294967290:10"), "goes beyond the ids that there are"),
        (("--uidmap", "0:4294967296:1"), "is no id"),
        (("--uidmap", "0:1:99999999999999999999"), "is no id"),
        (("--uidmap", "-1:1:1"), "is no row of a map"),
        (("--uidmap", "5:1000:1"), "must have the id 0"),
        (("--userns", "4294967000:65536"), "goes beyond the ids that there are"),
        (("--userns", "auto:size=4294967294"), "ids left for a container"),
        ([word.replace(":1", ":111111") for word in MANY[:600]], "bytes of text, and the kernel takes 4095"),
        (MANY, "must have 1 to 340 rows, not 341"),
        ((*AUTO, "--uidmap", "0:1000:1"), "--uidmap and --gidmap can't go with --userns"),
        ((*AUTO, "-u", "65536"), "has no user 65536: it has 0 to 65535"),
        ((*AUTO, "-u", "0:2147483647"), "has no group 2147483647"),
        ((*AUTO, "--group-add", "70000"), "has no group 70000"),
        ((*AUTO, "--tmpfs", "/t:uid=70000"), "uid=70000: the container's user namespace has no such id"),
    ],
)
def test_a_map_that_cant_be_is_refused_before_anything_is_done(tarbox, rootfs_busybox, words, said):
    done = tarbox("run", *words, f"{rootfs_busybox}:O", "echo", "ran")
    assert (done.returncode, done.stdout) == (125, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_longest_map_that_the_kernel_takes(tarbox, rootfs_busybox):
    """340 rows: the honest use beside it."""
    assert (
        tarbox.output("run", *MANY[:680], f"{rootfs_busybox}:O", "wc", "-l", "/proc/self/uid_map").split()[0] == "340"
    )


def test_a_range_that_somebody_holds_isnt_given_again(tarbox, rootfs_busybox):
    """Not by a file that was left, a link in its place, or names that mean nothing; nor by ids that a process has."""
    folder = "/run/tarbox/ids"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    names = (f"{FIRST}-65536", "x", "5", "-", f"{FIRST}-")
    for name in names:
        open(f"{folder}/{name}", "w").close()
    os.symlink("/etc/passwd", f"{folder}/{FIRST + 65536}-65536")
    try:
        done = tarbox("run", *AUTO, f"{rootfs_busybox}:O", "cat", "/proc/self/uid_map")
        # The link can't be opened, so nobody knows whose it is.
        assert done.returncode == 125 or int(done.stdout.split()[1]) == FIRST
        assert os.path.exists("/etc/passwd")
    finally:
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
