"""SELinux on a kernel that has it, with a small policy: a label is in force from the program's first moment.

Everything is base_t, but what a container gets: its processes are box_t, which may write to files of box_file_t only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

import testhost
from vm.conftest import started

pytestmark = [pytest.mark.vm, pytest.mark.long]

PROCESS = (
    "fork transition sigchld sigkill sigstop signull signal ptrace getsched setsched getsession getpgid setpgid getcap"
    " setcap share getattr setexec setfscreate noatsecure siginh setrlimit rlimitinh dyntransition setcurrent execmem"
    " execstack execheap setkeycreate setsockcreate getrlimit"
)
FILE = (
    "ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link rename execute quotaon"
    " mounton audit_access open execmod watch watch_mount watch_sb watch_with_perm watch_reads execute_no_trans"
    " entrypoint"
)
SIDS = ("security", "unlabeled", "fs", "file", "file_labels", "init")
POLICY = f"""
class security
class process
class system
class capability
class filesystem
class file
class dir
sid kernel
{"".join(f"sid {name}{chr(10)}" for name in SIDS)}
class process {{ {PROCESS} }}
class file {{ {FILE} }}
class dir {{ relabelto }}
sensitivity s0;
dominance {{ s0 }}
{"".join(f"category c{number};{chr(10)}" for number in range(1024))}
level s0:c0.c1023;
mlsconstrain file {{ read write open }} (h1 dom h2 or t1 == base_t);
type base_t;
type box_t;
type box_file_t;
role base_r;
role base_r types {{ base_t box_t box_file_t }};
allow base_t {{ base_t box_t }}:process {{ {PROCESS} }};
allow box_t box_t:process {{ {PROCESS} }};
allow box_t base_t:process {{ sigchld signull getattr }};
allow base_t {{ base_t box_t box_file_t }}:file {{ {FILE} }};
allow base_t {{ base_t box_file_t }}:dir relabelto;
allow box_t {{ box_t box_file_t }}:file {{ {FILE} }};
allow box_t base_t:file {{ read getattr open map execute execute_no_trans entrypoint ioctl lock }};
user user_u roles base_r level s0 range s0 - s0:c0.c1023;
sid kernel user_u:base_r:base_t:s0 - s0:c0.c1023
{"".join(f"sid {name} user_u:base_r:base_t:s0{chr(10)}" for name in SIDS)}
fs_use_xattr overlay user_u:object_r:base_t:s0;
fs_use_xattr ext4 user_u:object_r:base_t:s0;
fs_use_trans tmpfs user_u:object_r:base_t:s0;
fs_use_trans devpts user_u:object_r:base_t:s0;
fs_use_trans mqueue user_u:object_r:base_t:s0;
fs_use_task pipefs user_u:base_r:base_t:s0;
fs_use_task sockfs user_u:base_r:base_t:s0;
genfscon proc / user_u:object_r:base_t:s0
genfscon sysfs / user_u:object_r:base_t:s0
genfscon cgroup2 / user_u:object_r:base_t:s0
genfscon virtiofs / user_u:object_r:base_t:s0
"""
CONTEXTS = "process = user_u:base_r:box_t:s0\nfile = user_u:object_r:box_file_t:s0\n"
SET_UP = f"""
set -e
mount -t selinuxfs x /sys/fs/selinux
cat > /tmp/policy
checkpolicy -M -U allow -c 33 -o /tmp/compiled /tmp/policy
cat /tmp/compiled > /sys/fs/selinux/load
echo 1 > /sys/fs/selinux/enforce
mkdir -p /etc/selinux/small/contexts
echo SELINUXTYPE=small > /etc/selinux/config
printf '{CONTEXTS}' > /etc/selinux/small/contexts/lxc_contexts
echo host > /tmp/file
"""
OWN = "tr '\\0' '\\n' < /proc/self/attr/current"


@pytest.fixture(scope="module")
def run(test_host: testhost.TestHost) -> Iterator:
    """Runs `tarbox run` in a machine of its own, on which the policy is in force."""
    if not shutil.which("checkpolicy"):
        pytest.skip("checkpolicy isn't installed")
    with started(test_host, "security=selinux selinux=1") as inside:
        done = inside("sh", "-c", f"sh -c \"$0\" <<'END'\n{POLICY}\nEND\n", SET_UP)
        assert done[0] == 0, done[1]

        def start(*words):
            return inside.tarbox("--root", "/tmp/selinux", "run", "--rm", *words[:-1], "host", "sh", "-c", words[-1])

        yield start


def test_a_label_is_in_force_and_so_is_that_of_its_files(run):
    script = (
        f"exec 2>/dev/null; {OWN};"
        "for file in /file /usr/new /etc/new /dev/shm/new /etc/hosts; do echo x >>$file && echo $file; done;"
        "ls -Zd /dev/mqueue /usr | sed 's/ .*//'; cat /file"
    )
    status, output = run(
        "-v", "/tmp/file:/file", "--security-opt", "label=level:s0:c1,c2", f"exec 2>/dev/null; {script}"
    )
    assert (status, output.splitlines()) == (0, [
        "user_u:base_r:box_t:s0:c1,c2",
        "/usr/new", "/etc/new", "/dev/shm/new", "/etc/hosts",
        "user_u:object_r:box_file_t:s0:c1,c2", "user_u:object_r:box_file_t:s0:c1,c2",
        "host",
    ])  # fmt: skip


def test_an_init_has_it_as_well(run):
    status, output = run(
        "--init", "--security-opt", "label=type:box_t", f"{OWN}; tr '\\0' '\\n' < /proc/1/attr/current"
    )
    assert status == 0
    own, first = output.split()
    assert own == first
    assert own.startswith("user_u:base_r:box_t:s0:c")


def test_a_label_that_the_policy_doesnt_have_ends_the_start(run):
    status, output = run("--security-opt", "label=type:nosuch", "echo ran")
    assert status == 125
    assert output.startswith("tarbox: SELinux's policy has no context user_u:base_r:nosuch:s0:c")


def test_unasked_there_is_no_label_and_nothing_is_relabelled(run):
    for options in ((), ("--security-opt", "label=disable")):
        status, output = run(*options, OWN)
        assert (status, output.split(":")[2]) == (0, "base_t")
    status, output = run("-v", "/tmp:/x:Z", "true")
    assert (status, "relabels no files" in output) == (125, True)
