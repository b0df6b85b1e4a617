"""What a container is when nobody says anything: Docker's defaults, measured from inside."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import roots
from inside import ask

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
# The 14 that Docker leaves, as bits: chown … setfcap.
CAPABILITIES = 0xA80425FB


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def test_a_container_is_what_docker_makes_it(tarbox, image):
    """One container answers for identity, environment, privileges, files of /proc and /sys, and namespaces."""
    said = ask(
        tarbox,
        image,
        id="id -u; id -g; id -G",
        cwd="pwd",
        umask="umask",
        env="tr '\\0' '\\n' </proc/1/environ | sort",
        descriptors="ls /proc/1/fd",
        capabilities="grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/1/status",
        confined="grep -E '^(NoNewPrivs|Seccomp):' /proc/1/status",
        masked_files="for f in /proc/interrupts /proc/keys /proc/timer_list; do stat -c %t:%T $f; cat $f; done",
        masked_folders="for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware; do"
        " [ ! -d $d ] || ls -A $d; [ ! -d $d ] || ! touch $d/x; done",
        kcore="[ ! -e /proc/kcore ] || { stat -c %t:%T /proc/kcore; head -c 1 /proc/kcore | wc -c; }",
        sysctl="echo 1 >/proc/sys/kernel/panic",
        sysrq="[ ! -e /proc/sysrq-trigger ] || echo h >/proc/sysrq-trigger",
        sys="touch /sys/x; echo 0 >/sys/kernel/mm/transparent_hugepage/enabled",
        cgroups="mkdir /sys/fs/cgroup/memory/x || mkdir /sys/fs/cgroup/x",
        cgroup="cut -d: -f3 /proc/1/cgroup | sort -u",
        mounts="cut -d' ' -f5 /proc/self/mountinfo",
        propagation="grep -cE ' (shared|master|propagate_from|unbindable)' /proc/self/mountinfo",
        namespaces="for n in cgroup ipc mnt net pid uts user; do readlink /proc/1/ns/$n; done",
        hostname="hostname; cat /etc/hostname",
        hosts="cat /etc/hosts",
        own_name='ping -c 1 -W 2 "$(hostname)" | head -1',
        interfaces="ls /sys/class/net",
        loopback="cat /sys/class/net/lo/flags; ping -c 1 -W 2 127.0.0.1 | grep received",
        null="echo into >/dev/null && wc -c </dev/null",
        devices="ls /dev",
        zero="head -c 4 /dev/zero | od -An -tx1",
        shm="df -k /dev/shm | tail -1",
        disk="mknod /tmp/disk b 8 0; head -c 1 /tmp/disk",
        mount="mount -t tmpfs none /mnt",
        chroot="mkdir -p /mnt; chroot / true && echo works",
        processes="ls -d /proc/[0-9]* | wc -l",
        oom="cat /proc/1/oom_score_adj",
    )
    assert said["id"].split() == ["0", "0", "0"]
    assert (said["cwd"], said["umask"]) == ("/", "0022")
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    name = said["hostname"].split()[0]
    assert said["env"].split() == ["HOME=/root", f"HOSTNAME={name}", path]
    assert re.fullmatch(r"[0-9a-f]{12}", name)
    assert said["hostname"].split() == [name, name]
    # ls opens its own, the shell keeps none.
    assert said["descriptors"].split() == ["0", "1", "2"]
    sets = dict(re.findall(r"Cap(\w+):\s+(\w+)", said["capabilities"]))
    assert {name: int(value, 16) for name, value in sets.items()} == {
        "Inh": 0,
        "Prm": CAPABILITIES,
        "Eff": CAPABILITIES,
        "Bnd": CAPABILITIES,
        "Amb": 0,
    }
    assert re.findall(r"\d+", said["confined"]) == ["0", "2"]
    assert set(said["masked_files"].split()) == {"1:3"}
    assert re.sub(r"touch: .*: Read-only file system\n?", "", said["masked_folders"]) == ""
    assert said["kcore"] in ("", "1:3\n0")
    for refused in ("sysctl", "sys", "cgroups"):
        assert "Read-only file system" in said[refused], said[refused]
    assert not said["sysrq"] or "Read-only file system" in said["sysrq"]
    assert said["cgroup"] == "/"
    own = ("/proc", "/dev", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
    foreign = [point for point in said["mounts"].split() if point != "/" and not point.startswith(own)]
    assert not foreign
    assert said["propagation"] == "0"
    inodes = dict(re.findall(r"(\w+):\[(\d+)\]", said["namespaces"]))
    for kind in NAMESPACES:
        assert inodes[kind] != re.findall(r"\d+", os.readlink(f"/proc/self/ns/{kind}"))[0], kind
    own = re.search(rf"^([\d.]+)\s+{name}$", said["hosts"], re.MULTILINE)[1]
    assert not own.startswith("127.")
    assert f"PING {name} ({own})" in said["own_name"]
    assert said["interfaces"].split() == ["eth0", "lo"]
    assert int(said["loopback"].split()[0], 16) & 1, "lo is down"
    assert "1 packets received" in said["loopback"]
    assert said["null"] == "0"
    wanted = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert said["devices"].split() == wanted.split()
    assert said["zero"].split() == ["00"] * 4
    assert said["shm"].split()[1] == "65536"
    assert "Operation not permitted" in said["disk"] or "Permission denied" in said["disk"]
    assert "denied" in said["mount"] or "not permitted" in said["mount"]
    assert said["chroot"] == "works"
    assert int(said["processes"]) < 6
    assert said["oom"] == Path("/proc/self/oom_score_adj").read_text().strip()


def test_masking_a_file_gives_no_hold_on_the_hosts_null_device(tarbox, image):
    """What covers /proc/keys is the host's null device: its mode, owner and times are out of reach."""
    before = os.stat("/dev/null")
    said = ask(
        tarbox,
        image,
        mode="chmod 600 /proc/keys",
        owner="chown 1 /proc/keys",
        times="touch -d 2001-01-01 /proc/keys",
        write="echo x >/proc/keys && echo swallowed",
    )
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_ctime_ns) == (before.st_mode, before.st_uid, before.st_ctime_ns)
    assert all("Read-only" in said[name] for name in ("mode", "owner", "times"))
    assert said["write"] == "swallowed"


def test_every_run_has_a_keyring_of_its_own(tarbox, tmp_path):
    """What is put in a session keyring is found neither by the caller nor by the next container."""
    search = "import ctypes,sys;l=ctypes.CDLL(None,use_errno=True);"
    add = search + "print(l.syscall(248,b'user',b'tarbox-test',b'x',1,-3)>0)"
    find = search + "print(l.syscall(250,10,-3,b'user',b'tarbox-test',0)>0)"
    options = ("run", "--rm", "--security-opt", "seccomp=unconfined", "host", "/usr/bin/python3", "-c")
    # The filter denies keyring calls anyway; without it the keyring itself has to keep things apart.
    assert tarbox.output(*options, add).strip() == "True"
    assert tarbox.output(*options, find).strip() == "False"
    assert subprocess.run(["python3", "-c", find], capture_output=True, text=True).stdout.strip() == "False"


def test_process_1_is_what_process_1_is(tarbox, image):
    """Signals without a handler don't reach it from inside, and it gets the orphans."""
    said = ask(
        tarbox,
        image,
        term="kill -TERM 1; sleep 0.1; echo alive",
        kill="kill -KILL 1; sleep 0.1; echo alive",
        orphan="(sh -c 'sleep 0.3; grep PPid /proc/self/status >/tmp/parent' &); sleep 0.6; cat /tmp/parent",
    )
    assert said["term"] == said["kill"] == "alive"
    assert said["orphan"].split() == ["PPid:", "1"]


def test_what_a_container_leaves_running_ends_with_it(tarbox, image, tmp_path):
    """The end of process 1 is the end of them all, and the command is over then, not earlier."""
    (tmp_path / "shared").mkdir()
    script = "(while :; do date +%s%N >/shared/beat; done) & sleep 0.3"
    assert tarbox("run", "--rm", "-v", f"{tmp_path}/shared:/shared", image, "sh", "-c", script).returncode == 0
    beat = (tmp_path / "shared/beat").read_text()
    assert beat == (tmp_path / "shared/beat").read_text()


def test_nothing_is_left_on_disk(tarbox, image, tmp_path):
    """Neither what a container wrote nor a journal, an empty directory or a cgroup."""
    tarbox.output("run", "--rm", image, "sh", "-c", "mkdir -p /a/b/c; chmod 0 /a/b; echo x >/etc/x; rm -r /usr/bin")
    assert sorted(path.name for path in tarbox.root.iterdir()) == ["cache", "journals", "scratch"]
    assert not [*(tarbox.root / "journals").iterdir(), *(tarbox.root / "scratch").iterdir()]
    state = Path("/run/tarbox", str(tarbox.root).strip("/").replace("-", "%2d").replace("/", "-"))
    assert sorted(path.name for path in state.iterdir()) == ["journals", "networks"]
    assert [path.name for path in (state / "networks").iterdir()] == ["bridge"], "the note of its subnet"
    # The bridge goes a moment later.
    assert not [path for path in (state / "journals").iterdir() if not path.name.startswith("bridge-")]
    assert (Path(image[:-2]) / "usr/bin/env").is_symlink()


def test_the_note_of_an_overlay_that_is_never_synced_goes_while_it_is_in_use(tarbox, image):
    """Its removal waits for the disk, so it is begun early; the container goes on to copy up, remove and rename."""
    work = "echo x >>/etc/passwd && rm -r /usr/bin && mkdir /usr/bin && mv /etc/group /etc/gone && ls /usr/bin /etc"
    started = tarbox.start("run", "--rm", "-i", image, "sh", "-c", f"echo on; read go; {work}")
    assert started.stdout.readline() == b"on\n"
    (overlay,) = (tarbox.root / "scratch").iterdir()
    assert [path.name for path in overlay.glob("work/*")] == ["work"]
    assert not list(overlay.glob("**/incompat"))
    output, errors = started.communicate(b"go\n", timeout=60)
    assert (started.returncode, errors) == (0, b"")
    assert {b"gone", b"passwd"} < {*output.split()}
    assert not list((tarbox.root / "scratch").iterdir())
