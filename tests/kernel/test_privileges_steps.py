"""The privilege steps on the real kernel: what is given away is gone, and stays gone."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal

import pytest

from rows import failure, in_child, perform
from tarbox.engine import defaults
from tarbox.engine.machine import read_machine
from tarbox.errors import TarboxError, UsageError
from tarbox.kernel import capabilities, rlimits, signals
from tarbox.kernel.capabilities import BoundingSet, Capabilities
from tarbox.kernel.credentials import LARGEST_FILE, Credentials, LookUpUser
from tarbox.kernel.keyring import NewKeyring
from tarbox.kernel.no_new_privs import NoNewPrivileges
from tarbox.plan.step import Row, Slots

DEFAULT = capabilities.mask(defaults.CAPABILITIES)
SLOTS = Slots()


def status() -> dict[str, str]:
    with open("/proc/self/status") as lines:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def sets() -> tuple[int, ...]:
    now = status()
    return tuple(int(now[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"))


def after_exec() -> tuple[int, ...]:
    """The five sets that a program has that this process executes."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(theirs, 1)
        os.execv("/bin/cat", ["cat", "/proc/self/status"])
    os.close(theirs)
    with open(ours) as pipe:
        now = dict(line.split(":", 1) for line in pipe)
    os.waitpid(child, 0)
    return tuple(int(now[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"))


def drop(permitted: int, user: int = 0, keep: bool = False, bounding: int = DEFAULT, **more: int):
    perform(BoundingSet(bounding, read_machine().bounding).rows(SLOTS))
    perform(Credentials(user, user, (user,), keep=keep).rows(SLOTS))
    perform(Capabilities(permitted, permitted, **more).rows(SLOTS))


def test_root_keeps_the_default_set_and_nothing_inheritable():
    def body():
        drop(DEFAULT)
        return sets(), after_exec()

    expected = (0, DEFAULT, DEFAULT, DEFAULT, 0)
    assert in_child(body) == (expected, expected)


def test_root_without_any_capability():
    def body():
        drop(0, bounding=0)
        return sets(), after_exec(), failure("chroot", b"/"), failure("mount", b"a", b"/tmp", b"tmpfs", 0, 0)

    assert in_child(body) == ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), 1, 1)


def test_a_plain_user_has_only_the_bounding_set():
    def body():
        drop(0, user=1234)
        return sets(), after_exec(), os.getresuid(), os.getresgid(), os.getgroups(), failure("setresuid", 0, 0, 0)

    expected = (0, 0, 0, DEFAULT, 0)
    assert in_child(body) == (expected, expected, (1234,) * 3, (1234,) * 3, [1234], 1)


def test_a_plain_user_with_capabilities_until_it_executes():
    """As runc does: they help to reach the program (a 0700 directory above it), and don't outlive execve."""

    def body():
        drop(2, user=1234, keep=True)
        return sets(), after_exec()

    assert in_child(body) == ((0, 2, 2, DEFAULT, 0), (0, 0, 0, DEFAULT, 0))


def test_ambient_capabilities_outlive_execve():
    def body():
        drop(1 << 10, user=1234, keep=True, inheritable=1 << 10, ambient=1 << 10 | 1 << 21)
        return sets(), after_exec()

    expected = (1 << 10, 1 << 10, 1 << 10, DEFAULT, 1 << 10)
    assert in_child(body) == (expected, expected)


def test_inherited_ambient_capabilities_do_not_come_along():
    """A caller with ambient capabilities (a systemd service, say) must not hand them to a container's plain user."""

    def body():
        perform(Capabilities(DEFAULT, DEFAULT, inheritable=DEFAULT, ambient=DEFAULT).rows(SLOTS))
        before = sets()[4]
        drop(0, user=1234)
        return before, sets(), after_exec()

    expected = (0, 0, 0, DEFAULT, 0)
    assert in_child(body) == (DEFAULT, expected, expected)


def test_groups_are_replaced():
    def body():
        os.setgroups([5, 6])
        perform(Credentials(0, 7, (8, 9)).rows(SLOTS))
        return os.getgroups(), os.getresgid()

    assert in_child(body) == ([8, 9], (7, 7, 7))


def test_groups_are_emptied():
    def body():
        os.setgroups([5, 6])
        perform(Credentials(0, 0, ()).rows(SLOTS))
        return os.getgroups()

    assert in_child(body) == []


def test_capabilities_in_a_user_namespace_without_setgroups():
    def body():
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        perform([Row("unshare", (0x10000000,))])
        # Unmapped ids can't be set; 65534 is what they show as.
        perform(BoundingSet(DEFAULT).rows(SLOTS))
        perform(Capabilities(DEFAULT, DEFAULT).rows(SLOTS))
        return sets()

    assert in_child(body) == (0, DEFAULT, DEFAULT, DEFAULT, 0)


def test_no_new_privs():
    def body():
        perform(NoNewPrivileges().rows(SLOTS))
        return status()["NoNewPrivs"]

    assert in_child(body) == "1"


def test_a_new_session_keyring():
    def serial() -> int:
        from tarbox.kernel.syscall import syscall

        return syscall("keyctl", 0, -3, 0)  # KEYCTL_GET_KEYRING_ID of the session keyring

    def body():
        perform(NewKeyring().rows(SLOTS))
        first = serial()
        perform(NewKeyring().rows(SLOTS))
        return first, serial()

    first, second = in_child(body)
    assert first != second


def test_signals_are_given_back():
    def body():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGRTMIN})
        before = status()
        ignored = signals.ignored()
        perform(signals.DefaultSignals(ignored).rows(SLOTS))
        now = status()
        return before["SigIgn"] != "0" * 16, 1 in ignored, now["SigIgn"], now["SigBlk"]

    assert in_child(body) == (True, True, "0" * 16, "0" * 16)


def test_blocked_signals_are_read_from_a_descriptor():
    def body():
        old = signals.block_all()
        descriptor = signals.signal_descriptor()
        flags = os.get_inheritable(descriptor), os.get_blocking(descriptor)
        nothing = signals.read_signal(descriptor)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), 40)
        read = [signals.read_signal(descriptor) for _ in range(3)]
        signals.set_mask(old)
        return old, flags, nothing, read, status()["SigBlk"]

    assert in_child(body) == (bytes(8), (False, False), None, [15, 40, None], "0" * 16)


def test_a_crash_is_not_held_back():
    def body():
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signals.block_all()
        os.kill(os.getpid(), signal.SIGSEGV)

    assert in_child(body) == ("killed", signal.SIGSEGV)


def test_limits_are_set():
    def body():
        slots = Slots()
        perform(rlimits.Limit("nofile", 30, 40).rows(slots))
        perform(rlimits.Limit("core", 0, 0).rows(slots))
        perform(rlimits.Limit("nproc", 100, 100, by="runner").rows(slots))
        return rlimits.present("nofile"), rlimits.present("core"), rlimits.present("nproc"), slots.warnings

    assert in_child(body) == ((30, 40), (0, 0), (100, 100), [])


def test_a_limit_that_cannot_be_raised_is_lowered_with_a_warning():
    def body():
        slots = Slots()
        perform(rlimits.Limit("nofile", 30, 40).rows(slots))
        perform(Capabilities(DEFAULT, DEFAULT).rows(slots))
        perform(rlimits.Limit("nofile", 35, rlimits.UNLIMITED).rows(slots))
        first = rlimits.present("nofile")
        perform(rlimits.Limit("nofile", 100, 200).rows(slots))
        perform(rlimits.Limit("nofile", 100, 200, by="runner").rows(slots))
        return first, rlimits.present("nofile"), slots.warnings

    first, second, warnings = in_child(body)
    assert (first, second) == ((35, 40), (40, 40))
    assert warnings == [
        "the limit nofile can't be raised to RLIM64_INFINITY here, so it is 40 (raising it needs CAP_SYS_RESOURCE)",
        *["the limit nofile can't be raised to 200 here, so it is 40 (raising it needs CAP_SYS_RESOURCE)"] * 2,
    ]


# --- Users of a root file system -------------------------------------------------------------------------------------


def look_up(root, spec, groups=()):
    slots = Slots()
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    slots.give("tree", descriptor)
    try:
        LookUpUser(spec, groups).apply(slots)
    finally:
        os.close(descriptor)
    return {name: value for name, value in slots.found.items() if name != "tree"}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nadm:x:4:app\n")
    return tmp_path


def test_a_user_of_the_containers_files(root):
    assert look_up(root, "app", ("root",)) == {"uid": 1000, "gid": 1001, "groups": (1001, 4, 0), "home": "/srv"}
    assert look_up(root, "")["home"] == "/root"


def test_bytes_that_are_not_utf_8_stay_as_they_are(root):
    (root / "etc/passwd").write_bytes(b"\xff\xfe:x:5:6::/\xe4:/bin/sh\n")
    assert os.fsencode(look_up(root, os.fsdecode(b"\xff\xfe"))["home"]) == b"/\xe4"


def test_numbers_work_in_an_empty_root(tmp_path):
    assert look_up(tmp_path, "5:6") == {"uid": 5, "gid": 6, "groups": (6,), "home": "/"}
    with pytest.raises(UsageError, match="unable to find user app"):
        look_up(tmp_path, "app")


def test_a_symlink_stays_inside(root, tmp_path_factory):
    """NixOS has an absolute link there; it means the container's own file."""
    outside = tmp_path_factory.mktemp("outside") / "passwd"
    outside.write_text("evil:x:0:0::/:/bin/sh\n")
    (root / "etc/passwd").rename(root / "real")
    (root / "etc/passwd").symlink_to("/real")
    assert look_up(root, "app")["uid"] == 1000
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to(outside)
    with pytest.raises(UsageError, match="unable to find user evil"):
        look_up(root, "evil")


def test_a_pipe_is_not_waited_for(root):
    (root / "etc/group").unlink()
    os.mkfifo(root / "etc/group")
    with pytest.raises(TarboxError, match="etc/group"):
        look_up(root, "app")


def test_a_file_of_a_gigabyte_is_refused(root):
    with open(root / "etc/group", "r+") as file:
        file.truncate(1 << 30)
    with pytest.raises(TarboxError, match="etc/group"):
        look_up(root, "app")
    with open(root / "etc/group", "w") as file:
        file.write("big:x:7:app\n" + "#" * (LARGEST_FILE - 100) + "\n")
    assert look_up(root, "app")["groups"] == (1001, 7)
