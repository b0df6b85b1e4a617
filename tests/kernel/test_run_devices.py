"""Devices by their effect inside: --device, CDI files, the rules of the devices cgroup."""

from __future__ import annotations

import json
import os
import stat

import pytest

import roots
from inside import ask

pytestmark = pytest.mark.unhurried

TUN = """
import fcntl, struct
try:
    tun = open("/dev/net/tun", "r+b", buffering=0)
except OSError as error:
    raise SystemExit(f"open: {error.strerror}")
try:
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"box0", 0x1002))  # TUNSETIFF: IFF_TAP, IFF_NO_PI
except OSError as error:
    raise SystemExit(f"ioctl: {error.strerror}")
print("box0" in open("/proc/net/dev").read())
"""
FUSE = """
import ctypes, os
try:
    fuse = os.open("/dev/fuse", os.O_RDWR)
except OSError as error:
    raise SystemExit(f"open: {error.strerror}")
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"none", b"/mnt", b"fuse", 0, options):
    raise SystemExit(f"mount: {os.strerror(ctypes.get_errno())}")
print([line.split()[2] for line in open("/proc/mounts") if line.split()[1] == "/mnt"])
"""
KVM = 'import fcntl; print(fcntl.ioctl(open("/dev/kvm", "r+b", buffering=0), 0xAE00))'
# One that anybody may open who is let at it.
PLAIN = next((path for path in ("/dev/loop-control", "/dev/fuse", "/dev/net/tun") if os.path.exists(path)), "/none")


def needs(path):
    return pytest.mark.skipif(not os.path.exists(path), reason=f"this machine has no {path}")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


def test_a_device_under_another_name(tarbox, image):
    """The host's numbers and mode; it works as the device that it is."""
    said = ask(
        tarbox, "--device", "/dev/zero:/dev/deep/x", "--device", "/dev/null:/dev/n:r", image,
        node="stat -c '%F %t:%T %a %u:%g' /dev/deep/x", read="head -c 5 /dev/deep/x | wc -c", end="cat /dev/n",
    )  # fmt: skip
    mode = stat.S_IMODE(os.stat("/dev/zero").st_mode)
    assert said == {"node": f"character special file 1:5 {mode:o} 0:0", "read": "5", "end": ""}


@needs(PLAIN)
def test_access_is_limited_to_what_was_given(tarbox, image):
    """For reading only; not at all without --device, though the container may make the node."""
    number = os.stat(PLAIN).st_rdev
    make = f"mknod /dev/made c {os.major(number)} {os.minor(number)}; head -c 0 </dev/made"
    without = ask(tarbox, image, made=make)
    assert "Operation not permitted" in without["made"]
    said = ask(
        tarbox, "--device", f"{PLAIN}:r", image,
        made=make, read=f": <{PLAIN} && echo read", write=f": >{PLAIN}", append=f": >>{PLAIN}",
    )  # fmt: skip
    assert said["read"] == "read"
    assert said["made"] == ""
    assert "Operation not permitted" in said["write"]
    assert "Operation not permitted" in said["append"]


@needs(PLAIN)
def test_a_rule_allows_what_the_container_makes_itself(tarbox, image):
    number = os.stat(PLAIN).st_rdev
    make = f"mknod /dev/made c {os.major(number)} {os.minor(number)}; : </dev/made && echo read"
    rule = f"c {os.major(number)}:* r"
    assert "Operation not permitted" in ask(tarbox, "--device-cgroup-rule", "c 250:* rwm", image, made=make)["made"]
    assert ask(tarbox, "--device-cgroup-rule", rule, image, made=make)["made"] == "read"


def test_a_directory_gives_all_its_devices(tarbox, image, tmp_path):
    (tmp_path / "in").mkdir()
    os.mknod(tmp_path / "one", 0o020640, os.makedev(1, 3))
    os.mknod(tmp_path / "in/two", 0o020604, os.makedev(1, 5))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("one")
    said = ask(
        tarbox, "--device", f"{tmp_path}:/dev/set", image,
        names="cd /dev/set && find . -type c | sort", modes="stat -c %a /dev/set/one /dev/set/in/two",
        works="echo x >/dev/set/one && head -c 3 /dev/set/in/two | wc -c",
    )  # fmt: skip
    assert said["names"].split() == ["./in/two", "./one"]
    assert said["modes"].split() == ["640", "604"]
    assert said["works"] == "3"


@needs("/dev/net/tun")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--device", "/dev/net/tun", "--cap-add", "NET_ADMIN"), "True"),
        (("--device", "/dev/net/tun"), "ioctl: Operation not permitted"),
        (("--cap-add", "NET_ADMIN"), "open: No such file or directory"),
    ],
)
def test_a_tunnel_needs_the_device_and_the_capability(tarbox, options, said):
    done = tarbox("run", "--rm", *options, "host", "python3", "-c", TUN)
    assert (done.stdout + done.stderr).strip() == said


@needs("/dev/net/tun")
def test_a_node_of_ones_own_is_no_tunnel(tarbox):
    """The capability and a node that the container makes aren't enough."""
    script = f"mkdir -p /dev/net; mknod /dev/net/tun c 10 200; exec python3 -c '{TUN}'"
    done = tarbox("run", "--rm", "--cap-add", "NET_ADMIN", "host", "sh", "-c", script)
    assert (done.returncode, done.stderr.strip()) == (1, "open: Operation not permitted")


@needs("/dev/fuse")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--device", "/dev/fuse", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"), "['fuse']"),
        (("--device", "/dev/fuse"), "mount: Operation not permitted"),
        (("--cap-add", "SYS_ADMIN"), "open: No such file or directory"),
    ],
)
def test_a_file_system_in_user_space_needs_the_device_and_the_capability(tarbox, options, said):
    done = tarbox("run", "--rm", *options, "host", "python3", "-c", FUSE)
    assert (done.stdout + done.stderr).strip() == said


@needs("/dev/kvm")
def test_the_machines_virtualization_answers(tarbox):
    assert tarbox.output("run", "--rm", "--device", "/dev/kvm", "host", "python3", "-c", KVM) == "12\n"


def test_a_privileged_container_has_it_under_the_other_name_as_well(tarbox, image):
    said = ask(tarbox, "--privileged", "--device", "/dev/null:/dev/x", image, both="stat -c %t:%T /dev/x /dev/null")
    assert said["both"].split() == ["1:3", "1:3"]


@needs(PLAIN)
def test_the_hosts_dev_gets_no_node_from_us(tarbox, image):
    """With -v /dev:/dev the rule is what --device adds; nothing is made in the host's directory."""
    before = sorted(os.listdir("/dev"))
    said = ask(
        tarbox, "-v", "/dev:/dev", "--device", f"{PLAIN}:r", image, read=f": <{PLAIN} && echo read",
        write=f": >>{PLAIN}",
    )  # fmt: skip
    assert said["read"] == "read"
    assert "Operation not permitted" in said["write"]
    done = tarbox("run", "-v", "/dev:/dev", "--device", f"{PLAIN}:/dev/new-one", image, "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert sorted(os.listdir("/dev")) == before


@pytest.fixture
def cdi(tmp_path):
    """A folder with one file of a vendor's, and what it mounts."""
    folder = tmp_path / "cdi"
    folder.mkdir()
    (tmp_path / "library").mkdir()
    (tmp_path / "library/lib.so").write_text("of the vendor\n")
    one = {
        "env": ["VENDOR=one"],
        "deviceNodes": [
            {"path": "/dev/vendor/a", "hostPath": "/dev/zero", "fileMode": 0o600, "uid": 7, "gid": 8},
            {"path": "/dev/vendor/b", "type": "c", "major": 1, "minor": 3},
        ],
        "mounts": [{"hostPath": f"{tmp_path}/library", "containerPath": "/opt/v", "options": ["ro", "rbind"]}],
        "additionalGids": [4242, 0],
    }  # fmt: skip
    spec = {
        "cdiVersion": "1.0.0",
        "kind": "vendor.com/class",
        "devices": [{"name": "one", "containerEdits": one}, {"name": "two", "containerEdits": {"env": ["OTHER=two"]}}],
        "containerEdits": {"env": ["OF_ALL=yes"]},
    }
    (folder / "vendor.json").write_text(json.dumps(spec))
    return folder


def test_a_cdi_device_brings_everything_that_its_vendor_says(tarbox, image, cdi):
    questions = {
        "env": "echo $VENDOR $OTHER $OF_ALL",
        "nodes": "stat -c '%t:%T %a %u:%g' /dev/vendor/*",
        "works": "head -c 4 /dev/vendor/a | wc -c; echo x >/dev/vendor/b && echo written",
        "library": "cat /opt/v/lib.so; touch /opt/v/new",
        "groups": "id -G",
    }
    said = ask(tarbox, "--cdi-spec-dir", cdi, "--device", "vendor.com/class=one", image, **questions)
    mode = stat.S_IMODE(os.stat("/dev/zero").st_mode)
    assert said["env"] == "one yes"
    assert said["nodes"].splitlines() == ["1:5 600 7:8", "1:3 666 0:0"]
    assert mode != 0o600
    assert said["works"].split() == ["4", "written"]
    assert said["library"].startswith("of the vendor\n")
    assert "Read-only file system" in said["library"]
    assert "4242" in said["groups"].split()
    all_of_it = ask(tarbox, "--cdi-spec-dir", cdi, "--device", "vendor.com/class=all", image, env=questions["env"])
    assert all_of_it["env"] == "one two yes"


def test_a_cdi_file_that_is_wrong_is_told_by_its_path(tarbox, image, cdi):
    (cdi / "vendor.json").write_text('{"cdiVersion": "1.0.0", "kind": "vendor.com/class", "devices": []}')
    done = tarbox("run", "--cdi-spec-dir", cdi, "--device", "vendor.com/class=one", image, "true")
    assert done.returncode == 125
    assert done.stderr.startswith(f"tarbox: {cdi}/vendor.json: $.devices: must not be empty")


def test_gpus_without_a_cdi_file_are_refused(tarbox, image, tmp_path):
    done = tarbox("run", "--cdi-spec-dir", tmp_path, "--gpus", "all", image, "true")
    assert done.returncode == 125
    assert done.stderr.startswith("tarbox: --gpus all: no CDI file in ")
    assert "nvidia-ctk" in done.stderr


def test_gpus_are_those_of_nvidias_cdi_file(tarbox, image, tmp_path):
    devices = [{"name": name, "containerEdits": {"env": [f"GPU{name}=here"]}} for name in ("0", "1")]
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
    (tmp_path / "nvidia.json").write_text(json.dumps(spec))
    for words, expected in (("all", "here here"), ("1", "here"), ('"device=0,1"', "here here")):
        said = ask(tarbox, "--cdi-spec-dir", tmp_path, "--gpus", words, image, env="echo $GPU0 $GPU1")
        assert said["env"] == expected


def test_a_plain_users_container_gets_the_hosts_nodes(plain_tarbox, plain_folder):
    """Mounted one by one; what the user may not use stays out of reach, and that is said."""
    said = ask(
        plain_tarbox, "--device", "/dev/zero:/dev/deep/x", "host",
        node="stat -c %t:%T /dev/deep/x", read="head -c 5 /dev/deep/x | wc -c",
        mounted="grep -c ' /dev/deep/x ' /proc/self/mountinfo",
    )  # fmt: skip
    assert said == {"node": "1:5", "read": "5", "mounted": "1"}
    node = plain_folder / "closed"
    os.mknod(node, 0o020600, os.makedev(1, 3))
    done = plain_tarbox("run", "--device", f"{node}:/dev/x", "host", "sh", "-c", ": >/dev/x")
    assert done.returncode != 0
    assert f"you may not read or write {node}, and neither may your container" in done.stderr
    assert "Permission denied" in done.stderr
