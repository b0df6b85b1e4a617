"""A user namespace for root's containers: ranges of ids, an image that isn't copied for it, volumes that are mapped."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

import roots
from inside import ask
from kernel.test_session_terminal import Terminal

AUTO = ("--userns", "auto")


def ids(path) -> tuple[int, int]:
    facts = os.lstat(path)
    return facts.st_uid, facts.st_gid


@pytest.fixture
def data(tmp_path):
    """A folder of user 1000's, with a file of root's that nobody else may read."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "mine").write_text("mine\n")
    (folder / "roots").write_text("secret\n")
    (folder / "roots").chmod(0o600)
    for path in (folder, folder / "mine"):
        os.chown(path, 1000, 1000)
    return folder


@pytest.fixture(params=["overlay", "directory", "memory", "host"])
def image(request, rootfs_busybox):
    """The words for a run of each kind of image."""
    return {
        "overlay": (f"{rootfs_busybox}:O",), "directory": (rootfs_busybox,),
        "memory": ("--root-tmpfs", "8m", f"{rootfs_busybox}:O"), "host": ("host",),
    }[request.param]  # fmt: skip


def test_root_inside_is_nobody_outside(tarbox, image):
    """The image's files, what the engine makes and what is written belong to root inside; nothing is root's outside."""
    said = ask(
        tarbox, *AUTO, *image,
        id="id -u; id -g; id -G", map="cat /proc/self/uid_map /proc/self/gid_map",
        own="stat -c %u:%g / /etc /etc/passwd /etc/hosts /etc/hostname /dev /dev/null /dev/shm /dev/fd /tmp /dev/stdin",
        write="echo '#' >>/etc/passwd && touch /new && chown 1000:1000 /new && stat -c %u:%g /new /etc/passwd",
        far="chown 70000 /new", device="echo x >/dev/null && head -c 2 /dev/zero | wc -c", mknod="mknod /n c 1 3",
        reopen="echo again >/dev/stdout", masked="stat -c %t:%T /proc/keys /proc/timer_list",
        sysctl="cat /proc/sys/net/ipv4/ping_group_range; echo 1 >/proc/sys/kernel/panic",
        filter="grep ^Seccomp: /proc/1/status", lo="cat /sys/class/net/lo/flags",
        groups="cat /sys/fs/cgroup/pids/pids.current /sys/fs/cgroup/pids.current",
        owner="cat /proc/1/setgroups",
    )  # fmt: skip
    assert said["id"].split() == ["0", "0", "0"]
    inside, outside, size = map(int, said["map"].split()[:3])
    assert (inside, size) == (0, 65536)
    assert outside >= 65536
    assert said["map"].split()[:3] == said["map"].split()[3:]
    assert set(said["own"].split()) == {"0:0"}
    assert said["write"].split() == ["1000:1000", "0:0"]
    assert "Invalid argument" in said["far"]
    assert said["device"] == "2"
    assert "not permitted" in said["mknod"]
    assert said["reopen"] == "again"
    assert set(said["masked"].split()) == {"1:3"}
    assert said["sysctl"].split()[:2] == ["0", "65535"]
    assert "Read-only" in said["sysctl"]
    assert said["filter"].split()[1] == "2"
    assert said["lo"] == "0x9"
    assert 0 < int(next(word for word in said["groups"].split() if word.isdecimal())) < 20
    assert said["owner"] == "allow"


def test_it_is_the_ids_of_the_host_that_are_others(tarbox, rootfs_busybox):
    """Seen from outside: the processes and the scratch files of a running container are of its range."""
    started = tarbox.start(
        "run", "-i", "--userns", "3000000:2000", f"{rootfs_busybox}:O", "sh", "-c", "touch /new; echo on; read end"
    )
    assert started.stdout.readline() == b"on\n"
    (first,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    status = Path(f"/proc/{first}/status").read_text()
    assert "Uid:\t3000000\t3000000\t3000000\t3000000" in status
    (new,) = tarbox.root.glob("scratch/*/upper/new")
    assert ids(new) == (3000000, 3000000)
    assert ids(new.parent) == (3000000, 3000000)
    assert ids(rootfs_busybox / "bin/busybox") == (0, 0)
    lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tarbox.root) in line]
    assert not lines, "nothing stays mounted on the host"
    started.communicate(b"\n", timeout=60)
    assert started.returncode == 0


def test_two_ranges_own_disjoint_files(tarbox, rootfs_busybox, tmp_path):
    """10000 to 11999 and 12000 to 13999: neither can touch what the other has written."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    for start in (10000, 12000):
        script = f"umask 077; for u in 0 1 1999; do echo x >/s/{start}-$u; chown $u:$u /s/{start}-$u; done"
        tarbox.output(
            "run", "--userns", f"{start}:2000", "-v", f"{shared}:/s", f"{rootfs_busybox}:O", "sh", "-c", script
        )
    owners = {path.name: ids(path)[0] for path in shared.iterdir()}
    assert owners == {f"{start}-{u}": start + u for start in (10000, 12000) for u in (0, 1, 1999)}
    said = ask(
        tarbox, "--userns", "12000:2000", "-v", f"{shared}:/s", f"{rootfs_busybox}:O",
        read="cat /s/10000-0", remove="rm -f /s/10000-0", own="cat /s/12000-1999", see="stat -c %u /s/10000-1",
    )  # fmt: skip
    assert "denied" in said["read"]
    assert "not permitted" in said["remove"]
    assert (said["own"], said["see"]) == ("x", "65534")


def test_two_that_run_at_once_have_ranges_of_their_own(tarbox, rootfs_busybox):
    """And one that was killed leaves its range to the next."""

    def start():
        command = ("run", "-i", *AUTO, f"{rootfs_busybox}:O", "sh", "-c", "cat /proc/self/uid_map; read end")
        started = tarbox.start(*command)
        return started, int(started.stdout.readline().split()[1])

    (first, one), (second, two) = start(), start()
    assert abs(one - two) >= 65536
    first.kill()
    first.communicate()
    third, three = start()
    assert three not in (two,)
    for started in (second, third):
        started.communicate(b"\n", timeout=60)
        assert started.returncode == 0
    assert os.listdir("/run/tarbox/ids") == []


def test_what_is_in_etc_subuid_is_taken(tarbox, rootfs_busybox, tmp_path):
    """The lines for containers, where users and groups have them both."""
    kept = {name: Path(name).read_text() for name in ("/etc/subuid", "/etc/subgid")}
    bound = []
    try:
        for name, text in (("subuid", "alice:1:9\ncontainers:500000:5000\n"), ("subgid", "containers:501000:8000\n")):
            (tmp_path / name).write_text(text)
            subprocess.run(["mount", "--bind", tmp_path / name, f"/etc/{name}"], check=True)
            bound.append(f"/etc/{name}")
        found = tarbox.output(
            "run",
            "--userns",
            "auto:size=1500",
            f"{rootfs_busybox}:O",
            "cat",
            "/proc/self/uid_map",
            "/proc/self/gid_map",
        )
        assert found.split() == ["0", "501000", "1500"] * 2
        done = tarbox("run", *AUTO, f"{rootfs_busybox}:O", "true")
        assert done.returncode == 125
        assert "there are no 65536 ids left for a container (there are 501000 to 504999" in done.stderr
    finally:
        for path in bound:
            subprocess.run(["umount", path], check=True)
    assert kept == {name: Path(name).read_text() for name in kept}


def test_explicit_maps(tarbox, rootfs_busybox):
    """--uidmap and --gidmap by rows; one stands for both; small ones work, too."""
    rows = ("--uidmap", "0:20000:10", "--uidmap", "10:1000:1", "--gidmap", "0:30000:100")
    said = ask(tarbox, *rows, "-u", "10", f"{rootfs_busybox}:O", u="cat /proc/self/uid_map", g="cat /proc/self/gid_map")
    assert said["u"].split() == ["0", "20000", "10", "10", "1000", "1"]
    assert said["g"].split() == ["0", "30000", "100"]
    assert tarbox.output("run", "--uidmap", "0:777:1", f"{rootfs_busybox}:O", "cat", "/proc/self/gid_map").split() == [
        "0", "777", "1",
    ]  # fmt: skip


@pytest.mark.parametrize("user", ["1000:1000", "0"])
def test_a_mapped_volume_is_its_owners_on_both_sides(tarbox, rootfs_busybox, data, user):
    """What uid 1000 writes inside belongs to 1000 outside, and the other way round; the source is never changed."""
    before = {path: (ids(path), path.stat().st_ino) for path in (data, *data.iterdir())}
    said = ask(
        tarbox, *AUTO, "-u", user, "-v", f"{data}:/v:idmap", f"{rootfs_busybox}:O",
        seen="stat -c %u:%g /v /v/mine /v/roots", read="cat /v/mine", secret="cat /v/roots",
        write="echo new >/v/new && mkdir /v/folder && echo more >>/v/mine",
    )  # fmt: skip
    assert said["seen"].split() == ["1000:1000", "1000:1000", "0:0"]
    assert said["read"] == "mine"
    assert ("secret" in said["secret"]) == (user == "0")
    if user != "0":  # root has no right over the files of 1000 but what it has in the namespace, where both are
        assert said["write"] == ""
        assert ids(data / "new") == ids(data / "folder") == (1000, 1000)
    else:
        assert ids(data / "new") == (0, 0)
    assert {path: (ids(path), path.stat().st_ino) for path in before} == before


def test_a_volume_without_a_map_is_nobodys(tarbox, rootfs_busybox, data):
    """Root of the container can't read what only the host's root may, nor write into it, nor make it its own."""
    said = ask(
        tarbox, *AUTO, "-v", f"{data}:/v", f"{rootfs_busybox}:O",
        seen="stat -c %u /v /v/roots", secret="cat /v/roots", write="touch /v/new", own="chown 0 /v/roots",
        mode="chmod 777 /v/roots", open="cat /v/mine",
    )  # fmt: skip
    assert set(said["seen"].split()) == {"65534"}
    assert "denied" in said["secret"]
    assert "denied" in said["write"]
    for name in ("own", "mode"):
        assert "not permitted" in said[name] or "Invalid" in said[name] or "too large" in said[name], said[name]
    assert said["open"] == "mine"
    assert sorted(os.listdir(data)) == ["mine", "roots"]


def test_a_map_of_its_own_and_mounts_below(tarbox, rootfs_busybox, data):
    """idmap=uids=…;gids=… and ridmap; what isn't in the map is nobody's."""
    (data / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "uid=1000,gid=1000", "inner", data / "inner"], check=True)
    try:
        words = "uids=1000-100005-1;gids=1000-100007-1"
        for option, below in (("idmap", "65534:65534"), ("ridmap", "5:7")):
            said = ask(
                tarbox, "--userns", "100000:65536", "-v", f"{data}:/v:{option}={words}", f"{rootfs_busybox}:O",
                seen="stat -c %u:%g /v/mine /v/roots /v/inner",
            )  # fmt: skip
            assert said["seen"].split() == ["5:7", "65534:65534", below]
    finally:
        subprocess.run(["umount", data / "inner"], check=True)


def test_keep_id(tarbox, rootfs_busybox, data):
    """The user of -u is the same on the host, without any mapping of the volume; nobody else is."""
    for words in (("keep-id", "-u", "1000:1000"), ("keep-id:uid=1000,gid=1000",)):
        said = ask(
            tarbox, "--userns", *words, "-v", f"{data}:/v", f"{rootfs_busybox}:O",
            id="id -u; id -g", write="echo x >/v/kept && stat -c %u:%g /v/kept", secret="cat /v/roots",
            image="stat -c %u /etc/passwd",
        )  # fmt: skip
        assert said["id"].split() == ["1000", "1000"]
        assert said["write"] == "1000:1000"
        assert "denied" in said["secret"]
        assert said["image"] == "0"
        assert ids(data / "kept") == (1000, 1000)
        (data / "kept").unlink()
    done = tarbox("run", "--userns", "keep-id", f"{rootfs_busybox}:O", "true")
    assert (done.returncode, "whose id is to be kept isn't said" in done.stderr) == (125, True)
    kept = ("run", "--userns", "keep-id", f"{rootfs_busybox}:O", "id", "-u")
    assert tarbox.output(*kept, env={"SUDO_UID": "1234", "SUDO_GID": "1234"}).strip() == "1234"


def test_the_usual_options_work(tarbox, rootfs_busybox, data):
    """-u by name, --cap-add and --cap-drop, --init, -t, --read-only, --tmpfs, limits, no-new-privileges, -w."""
    said = ask(
        tarbox, *AUTO, "-u", "guest", "--group-add", "audio", "--init", "--tmpfs", "/t:uid=5,gid=6,mode=700",
        "--ulimit", "nofile=64:128", "--security-opt", "no-new-privileges", "-w", "/place/here", "-m", "64m",
        "--oom-score-adj", "100", f"{rootfs_busybox}:O",
        user="id -u", tmpfs="stat -c %u:%g:%a /t", files="ulimit -n; ulimit -Hn", cwd="pwd",
        score="cat /proc/self/oom_score_adj", privileges="grep NoNewPrivs /proc/self/status",
        reopen="echo x >/dev/stdout",
    )  # fmt: skip
    assert said["user"] != "0"
    assert said["tmpfs"] == "5:6:700"
    assert said["files"].split() == ["64", "128"]
    assert said["cwd"] == "/place/here"
    assert said["score"] == "100"
    assert said["privileges"].split()[1] == "1"
    assert said["reopen"] == "x"
    said = ask(
        tarbox, *AUTO, "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN",
        "--security-opt", "seccomp=unconfined", f"{rootfs_busybox}:O",
        mount="mount -t tmpfs x /tmp && echo mounted", name="hostname inside && hostname", chown="chown 5 /etc/passwd",
        link="ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu", real="mount -t ext4 /dev/vda /tmp",
        remount="mount -o remount,rw,bind /proc/sys && echo 1 >/proc/sys/kernel/panic",
    )  # fmt: skip
    assert said["mount"] == "mounted"
    assert said["name"] == "inside"
    assert said["link"] == "1400"
    assert "not permitted" in said["chown"]
    assert said["real"]
    assert "denied" in said["remount"] or "not permitted" in said["remount"]
    done = tarbox(
        "run", *AUTO, "-t", "--read-only", f"{rootfs_busybox}:O", "sh", "-c", "tty; stat -c %u $(tty); touch /x"
    )
    assert done.stdout.split()[:2] == ["/dev/pts/0", "0"]
    assert "Read-only file system" in done.stdout


@pytest.mark.parametrize("shared", ["--net", "--ipc", "--uts", "--cgroupns", "--pid", "--time"])
def test_it_goes_with_the_hosts_namespaces(tarbox, rootfs_busybox, shared):
    """What belongs to the host isn't the container's root's to change."""
    kind = {"--net": "net", "--cgroupns": "cgroup"}.get(shared, shared[2:])
    said = ask(
        tarbox, *AUTO, shared, "host", f"{rootfs_busybox}:O",
        space=f"readlink /proc/self/ns/{kind}", map="cat /proc/self/uid_map", proc="cat /proc/self/comm",
        masked="stat -c %t:%T /proc/keys", change="hostname changed; ip link set lo mtu 1300; kill -9 1",
    )  # fmt: skip
    assert said["space"] == os.readlink(f"/proc/self/ns/{kind}")
    assert said["map"].split()[2] == "65536"
    assert said["proc"]
    assert said["masked"] == "1:3"
    assert "not permitted" in said["change"]


def test_it_goes_with_namespaces_of_others(tarbox, rootfs_busybox):
    """A network, and clocks; another's PID namespace is refused, as its /proc couldn't be shown."""
    holder = subprocess.Popen(["unshare", "--net", "--uts", "--ipc", "sleep", "60"])
    try:
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        joins = [word for name in ("net", "uts", "ipc") for word in (f"--{name}", f"pid:{holder.pid}")]
        said = ask(
            tarbox, *AUTO, *joins, "--uptime-offset", "30d", f"{rootfs_busybox}:O",
            net="readlink /proc/self/ns/net", uptime="cat /proc/uptime", root="id -u",
        )  # fmt: skip
        assert said["net"] == os.readlink(f"/proc/{holder.pid}/ns/net")
        assert float(said["uptime"].split()[0]) > 30 * 86400
        assert said["root"] == "0"
        done = tarbox("run", *AUTO, "--pid", f"pid:{holder.pid}", f"{rootfs_busybox}:O", "true")
        assert (done.returncode, "can't go together" in done.stderr) == (125, True)
    finally:
        holder.kill()
        holder.wait()


def test_another_containers_user_namespace_is_joined(tarbox, rootfs_busybox):
    """With its PID namespace, or the host's; its ids are the new container's, and its image is shown by them."""
    started = tarbox.start("run", "-i", *AUTO, f"{rootfs_busybox}:O", "sh", "-c", "echo on; read end")
    assert started.stdout.readline() == b"on\n"
    (first,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    theirs = os.readlink(f"/proc/{first}/ns/user")
    for words in (("--pid", f"pid:{first}"), ("--pid", "host"), ("--pid", f"pid:{first}", "--net", f"pid:{first}")):
        for user in (f"pid:{first}", f"ns:/proc/{first}/ns/user"):
            said = ask(
                tarbox, "--userns", user, *words, f"{rootfs_busybox}:O",
                space="readlink /proc/self/ns/user", id="id -u", image="stat -c %u /etc/passwd /etc/hosts",
                write="touch /new && stat -c %u /new", kill="kill -0 1",
            )  # fmt: skip
            assert said["space"] == theirs
            assert (said["id"], said["image"].split(), said["write"]) == ("0", ["0", "0"], "0")
            assert (said["kill"] == "") == (words[1] != "host")
    done = tarbox("run", "--userns", f"pid:{first}", f"{rootfs_busybox}:O", "true")
    assert done.returncode == 125
    assert "join both: --pid pid:N, or --pid host" in done.stderr
    started.communicate(b"\n", timeout=60)
    assert started.returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--userns", "host"), "--userns host: only in a user namespace of his own may a plain user make a container"),
        (("--userns", "keep-id"), "--userns keep-id: a plain user's container has one id, 0"),
        (AUTO, "--userns: the kernel lets a plain user map one id"),
        (("--uidmap", "0:1:1"), "--uidmap: the kernel lets a plain user map one id, his own"),
    ],
)
def test_a_plain_user_is_told_why_not(plain_tarbox, plain_folder, words, said):
    image = roots.busybox(plain_folder / "image")
    done = plain_tarbox("run", *words, f"{image}:O", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(f"tarbox: {said}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("more", [(), ("--root-tmpfs", "8m")], ids=["", "memory"])
def test_a_volume_whose_changes_are_thrown_away_is_mapped(tarbox, rootfs_busybox, data, more):
    """Its files are the container's, also those of root's that nobody else may read; what is written goes."""
    volume = ("-v", f"{data}:/d:O,idmap")
    before = {path.name: (path.read_text(), ids(path)) for path in data.iterdir()}
    said = ask(
        tarbox, *AUTO, *more, *volume, f"{rootfs_busybox}:O",
        own="stat -c %u:%g /d /d/mine /d/roots", read="cat /d/roots",
        change="echo new >/d/roots && chown 5:5 /d/mine && rm /d/mine && touch /d/x && stat -c %u /d/x /d/roots",
    )  # fmt: skip
    assert said["own"].split() == ["1000:1000", "1000:1000", "0:0"]
    assert (said["read"], said["change"].split()) == ("secret", ["0", "0"])
    assert {path.name: (path.read_text(), ids(path)) for path in data.iterdir()} == before
    said = ask(
        tarbox, *AUTO, "-v", f"{data}:/d:O", f"{rootfs_busybox}:O", own="stat -c %u /d/roots", read="cat /d/roots"
    )
    assert said["own"] == "65534"
    assert "denied" in said["read"]
    said = ask(
        tarbox,
        *AUTO,
        "-v",
        f"{data}:/d:ro,O,idmap",
        f"{rootfs_busybox}:O",
        write="touch /d/x",
        own="stat -c %u /d/roots",
    )
    assert ("Read-only" in said["write"], said["own"]) == (True, "0")
    told = tarbox.output(
        "isolate", "--userns=auto", "-v", f"{data}:/mnt:O,idmap", "sh", "-c", "cat /mnt/roots; rm /mnt/roots"
    )
    assert told == "secret\n"
    assert (data / "roots").exists()
    done = tarbox("run", *volume, f"{rootfs_busybox}:O", "true")
    assert (done.returncode, "the container has the host's ids" in done.stderr) == (125, True)


def test_terminals_belong_to_the_container(tarbox, rootfs_busybox):
    """The directory that they are in, what makes them, and the container's own."""
    script = "stat -c %u:%g /dev/pts /dev/pts/ptmx /dev/pts/0; id -u"
    terminal = Terminal(*tarbox.command("run", "-it", *AUTO, f"{rootfs_busybox}:O", "sh", "-c", f"{script}; echo on"))
    try:
        assert terminal.expect("on").split()[:4] == ["0:0", "0:0", "0:5", "0"]
        assert terminal.wait() == 0
    finally:
        terminal.close()


def test_a_disk_that_cant_be_mapped_says_so(tarbox, rootfs_busybox):
    """And what it is, and what to do."""
    done = tarbox("run", *AUTO, "-v", "/proc/self/ns:/v:idmap", f"{rootfs_busybox}:O", "true")
    assert done.returncode == 125
    assert "/proc/self/ns can't show its files with other owners" in done.stderr
