"""Settings and annotations made of hostile words: what isn't the container's own is never set.

Other engines let a `+` or a line break lead from a harmless setting to `kernel.core_pattern`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kernel.attacks import tools
from tarbox.engine import labels, sysctls
from tarbox.errors import UsageError

pytestmark = pytest.mark.unhurried

HOSTILE = (
    "kernel.shm_rmid_forced=1+kernel.core_pattern=|/bin/x",
    "kernel.shm_rmid_forced=1\nkernel.core_pattern=|/bin/x",
    "kernel.core_pattern=|/bin/x", "kernel/core_pattern=|/bin/x", "kernel.core_pattern\0x=|/bin/x",
    "net/../kernel/core_pattern=|/bin/x", "net.../kernel/core_pattern=|/bin/x",
    "net.ipv4/../../kernel/core_pattern=|/x",
    "net.ipv4.conf.lo/../../../../kernel/core_pattern=|/x", "net.%2e%2e.kernel.core_pattern=|/x",
    "net..kernel.core_pattern=|/x", "net.=1", ".net.ipv4.ip_forward=1", "net.ipv4.ip_forward.=1",
    "fs.mqueue/../../kernel/core_pattern=|/x", "fs.mqueue.../core_pattern=|/x", "fs.mqueue.\n=1",
    "/proc/sys/kernel/core_pattern=|/x", "../kernel/core_pattern=|/x", "net.ipv4.ip_forward=\0", "=1", "net", "",
    "kernel.msgmax.../core_pattern=|/x", "KERNEL.core_pattern=|/x", "kernel.modprobe=/x", "kernel.hotplug=/x",
    "kernel.hostname=x", "vm.panic_on_oom=1", "user.max_user_namespaces=0", "dev.tty.legacy_tiocsti=1",
    "net.core.bpf_jit_enable/../../../kernel/core_pattern=|/x", "net.ipv4.\u2024\u2024=1", "n\u00e9t.ipv4.ip_forward=1",
)  # fmt: skip


def settings():
    """Everything of the host's that such a setting might want to change."""
    found = {}
    for top in ("kernel", "vm", "fs", "user", "debug", "dev", "net/core", "net/ipv4"):
        for path in Path("/proc/sys", top).glob("*"):
            if path.name in ("random", "pty", "ns_last_pid", "inode-nr", "inode-state", "file-nr", "dentry-state"):
                continue
            try:
                found[str(path)] = path.read_bytes()
            except OSError:
                continue
    assert found["/proc/sys/kernel/core_pattern"]
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_setting_is_refused(tarbox, rootfs_busybox, text):
    if "\0" in text:  # no command line has one: asked of the reader alone
        with pytest.raises(UsageError):
            sysctls.sysctl(text)
        return
    before = settings()
    done = tarbox("run", "--rm", "--sysctl", text, rootfs_busybox, "true")
    tools.complained(done)
    assert settings() == before


def test_what_follows_a_blank_is_no_setting(tarbox, rootfs_busybox):
    """A value may have several words, as kernel.sem; they go into one file."""
    before = settings()
    text = "kernel.shm_rmid_forced=1 kernel.core_pattern=|/bin/x"
    tarbox("run", "--rm", "--sysctl", text, rootfs_busybox, "true")
    assert settings() == before
    sem = "250 32000 32 200"
    told = tarbox.output("run", "--rm", "--sysctl", f"kernel.sem={sem}", rootfs_busybox, "cat", "/proc/sys/kernel/sem")
    assert told.split() == sem.split()


def test_a_setting_of_a_shared_network_is_the_hosts(tarbox, rootfs_busybox):
    """With the host's network there is none of the container's own."""
    before = settings()
    done = tarbox("run", "--rm", "--net", "host", "--sysctl", "net.ipv4.ip_forward=1", rootfs_busybox, "true")
    tools.complained(done)
    assert settings() == before


def test_an_honest_setting_is_set(tarbox, rootfs_busybox):
    words = (
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--sysctl",
        "kernel.shm_rmid_forced=1",
        "--sysctl",
        "net.ipv4.conf.lo.forwarding=1",
    )
    files = "/proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/conf/lo/forwarding"
    assert tarbox.output("run", "--rm", *words, rootfs_busybox, "cat", *files.split()).split() == ["1"] * 3


def _words(source, count):
    parts = (
        "net kernel fs mqueue ipv4 core_pattern shmmax msgmax ip_forward .. . / = + | % ~ * 1 é \\ \u202e \x7f \x1b[2J"
    )
    parts = [*parts.split(), "\n", " ", "\0", "a" * 300]
    for _ in range(count):
        yield "".join(source.choice(parts) for _ in range(source.randint(1, 9)))


def _read(read, text):
    """What a reader makes of a word; None when it refuses it, which it does in one line that can be shown."""
    said = ""
    try:
        return read(text)
    except UsageError as error:
        said = str(error)
    assert said.isprintable()
    return None


def test_whatever_is_accepted_is_a_setting_of_the_containers_own():
    """Thirty thousand made-up words: refused in the one way there is, or a name that leads into net, mqueue or IPC."""
    source, accepted = random.Random(20), 0
    for text in _words(source, 30_000):
        if not (found := _read(sysctls.sysctl, text)):
            continue
        name, value = found
        accepted += 1
        assert name.startswith(("net.", "fs.mqueue.")) or name in sysctls._OF_IPC
        assert not set(name) & set("\n\0 +=|*\\%~")
        assert all(part not in ("", ".", "..") for part in name.replace("/", ".").split("."))
        assert "\n" not in value
        assert "\0" not in value
    assert accepted


def test_whatever_an_annotation_says_it_changes_nothing(tarbox, rootfs_busybox):
    """Words by which other engines are told to do things, and made-up ones: the container is as without them."""
    told = [
        "org.systemd.property.ExecStartPre=/bin/touch /tmp/x", "run.oci.keep_original_groups=1", "run.oci.handler=wasm",
        "run.oci.hooks.stderr=/tmp/x", "io.kubernetes.cri-o.Devices=/dev/mem", "io.kubernetes.cri-o.userns-mode=host",
        "io.containerd.nri.x=y", "cdi.k8s.io/x=vendor.com/device=all", "io.crun.debug=1",
        "module.wasm.image/variant=compat", "io.podman.annotations.privileged=TRUE",
        "org.criu.config=/etc/passwd", "a=\n\x1b[2J", "a=" + "x" * 5000,
        "io.katacontainers.config.hypervisor.path=/bin/sh",
        "com.docker.swarm.x=$(touch /tmp/x)",
    ]  # fmt: skip
    script = "grep -E '^(Cap|Seccomp:|NoNew|Groups|Uid)' /proc/self/status; ls /dev; cut -d' ' -f5 /proc/self/mountinfo"
    plain = tarbox.output("run", "--rm", rootfs_busybox, "sh", "-c", script)
    with tools.unchanged(tarbox.folder / "canary"):
        for option in ("--annotation", "--label"):
            words = [word for text in told for word in (option, text)]
            done = tarbox("run", "--rm", *words, rootfs_busybox, "sh", "-c", script)
            assert (done.returncode, done.stdout, done.stderr) == (0, plain, "")


def test_made_up_annotations_are_refused_or_kept():
    source = random.Random(30)
    for text in _words(source, 10_000):
        for read in (labels.annotation, labels.label):
            if found := _read(read, text):
                assert found[0]
                assert found[0].isprintable()
                assert "\0" not in found[1]
