"""The texts of /proc, recorded on real machines, and what is read from them."""

from __future__ import annotations

import os

import pytest

from tarbox.errors import ProcessNotFoundError
from tarbox.kernel import mountinfo, processes
from tarbox.kernel.namespace_files import kept

STATUS = """Name:\tweb:cat
Umask:\t0022
State:\tS (sleeping)
Tgid:\t4711
Pid:\t4711
PPid:\t4700
Uid:\t1000\t1000\t1000\t1000
NSpid:\t4711\t12\t1
CapEff:\t00000000a80425fb
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t3
"""

LIMITS = """Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max open files            1024                 524288               files     
Max nice priority         0                    0                    
Max realtime timeout      unlimited            unlimited            us        
"""  # noqa: W291

MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
44 22 0:39 / /mnt/my\040disk ro,nosuid master:7 - overlay overlay rw,lowerdir=/a:/b,upperdir=/u,workdir=/w
51 22 0:4 net:[4026532177] /run/netns/blue rw shared:12 master:3 - nsfs nsfs rw
52 22 0:4 mnt:[4026532180] /run/kept rw - nsfs nsfs rw
nonsense
60 44 254:0 /srv / ro - ext4 /dev/vda rw
"""


def test_status_is_read_by_name():
    status = processes.parse_status(STATUS)
    assert (status["Name"], status["NSpid"].split()) == ("web:cat", ["4711", "12", "1"])
    assert (status["Seccomp"], status["Seccomp_filters"]) == ("2", "3")


def test_limits_are_read_by_their_names():
    """Also the ones without a unit."""
    assert processes.parse_limits(LIMITS) == {
        "cpu": ("unlimited", "unlimited"),
        "nofile": ("1024", "524288"),
        "nice": ("0", "0"),
        "rttime": ("unlimited", "unlimited"),
    }


def test_id_maps_are_rows_of_numbers():
    assert processes.parse_map("         0     100000      65536\n     65536  1000 1\n") == [
        (0, 100000, 65536),
        (65536, 1000, 1),
    ]
    assert processes.parse_map("") == processes.parse_map(None) == []


@pytest.mark.parametrize(
    ("link", "inode"),
    [("mnt:[4026531832]", 4026531832), (None, None), ("", None), ("pipe:[x]", None), ("/a/b", None)],
)
def test_the_number_of_a_namespace_is_in_its_link(link, inode):
    assert processes.inode_of(link) == inode


def test_mounts_are_read_field_by_field():
    """Optional fields of any number, escapes, lines that make no sense."""
    mounts = mountinfo.parse(MOUNTS)
    assert [mount.id for mount in mounts] == [22, 44, 51, 52, 60]
    disk = mounts[1]
    assert (disk.point, disk.fstype, disk.read_only()) == ("/mnt/my disk", "overlay", True)
    assert "upperdir=/u" in disk.settings
    assert mountinfo.at(mounts, "/") is mounts[4]
    assert mountinfo.by_id(mounts, 44) is disk
    assert mountinfo.unescaped(r"a\134b\x\04") == r"a\b\x\04"


def test_mounted_namespaces_are_found():
    assert kept(mountinfo.parse(MOUNTS)) == [
        ("/run/netns/blue", "network", 4026532177),
        ("/run/kept", "mount", 4026532180),
    ]


def test_a_process_is_held_while_it_is_read():
    """This one; and one that has ended, whose number may be somebody else's by then, isn't mixed up with another."""
    child = os.fork()
    if not child:
        os.execvp("sleep", ["sleep", "60"])
    with processes.Process(child) as process:
        assert int(process.status()["Pid"]) == child
        assert set(process.namespaces()) == {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
        os.kill(child, 9)
        os.waitpid(child, 0)
        with pytest.raises(ProcessNotFoundError, match=f"process {child} ended while it was looked at"):
            process.text("status")
    with pytest.raises(ProcessNotFoundError, match=f"there is no process {child}"):
        processes.Process(child)


def test_the_parents_of_a_process_are_climbed():
    with processes.Process(os.getpid()) as process:
        assert next(processes.ancestors(process.pid)) == os.getppid()
