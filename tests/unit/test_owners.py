"""Whose process it is: the marks of engines, as they were seen on machines."""

from __future__ import annotations

import pytest

from tarbox.kernel.mountinfo import parse
from tarbox.runtime.owners import container_of, owner_of_root, sandbox_of, unit_of

ID = "3f2a9c" + "0" * 56 + "1b"
POD = "pod0b9f6a5e_1c2d_4e3f_8a9b_0c1d2e3f4a5b"


@pytest.mark.parametrize(
    ("path", "engine", "kind", "id"),
    [
        (f"/tarbox-{ID}", "tarbox", "container", ID),
        (f"/tarbox-{ID}/inner", "tarbox", "container", ID),
        (f"/docker/{ID}", "docker", "container", ID),
        (f"/system.slice/docker-{ID}.scope", "docker", "container", ID),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container", "podman",
         "container", ID),
        (f"/machine.slice/libpod-conmon-{ID}.scope", "podman", "monitor", ID),
        (f"/machine.slice/libpod-{ID}", "podman", "container", ID),
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/cri-containerd-{ID}.scope",
         "kubernetes (containerd)", "container", ID),
        (f"/system.slice/containerd.service/kubepods-besteffort-{POD}.slice:cri-containerd:{ID}",
         "kubernetes (containerd)", "container", ID),
        (f"/kubepods/besteffort/{POD.replace('_', '-')}/{ID}", "kubernetes", "container", ID),
        (f"/kubepods.slice/crio-{ID}.scope", "cri-o", "container", ID),
        (f"/default/{ID}", "containerd", "container", ID),
        ("/lxc.payload.web/system.slice/ssh.service", "lxc", "container", "web"),
        ("/lxc.monitor.web", "lxc", "monitor", "web"),
        ("/lxc/web", "lxc", "container", "web"),
        ("/machine.slice/systemd-nspawn@deb.service/payload", "systemd-nspawn", "container", "deb"),
        ("/machine.slice/machine-deb.scope", "systemd-nspawn", "container", "deb"),
        ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/vcpu0", "libvirt", "virtual machine", "vm"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-flatpak-org.gnome.Maps-4711.scope", "flatpak",
         "app", "org.gnome.Maps"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/"
         "snap.firefox.firefox-0b9f6a5e-1c2d-4e3f-8a9b-0c1d2e3f4a5b.scope", "snap", "app", "firefox.firefox"),
        (f"/docker/{ID}/docker/{ID[::-1]}", "docker", "container", ID[::-1]),
        ("/box", "runc", "container", "box"),
    ],
)  # fmt: skip
def test_a_container_is_known_by_its_control_group(path, engine, kind, id):
    """The innermost one, where they are nested; runtimes by themselves also by their state folder."""
    found = container_of(["/", path], lambda folder: folder == "/run/runc/box")
    assert found
    assert (found["engine"], found["kind"], found["id"]) == (engine, kind, id)


@pytest.mark.parametrize(
    "path",
    ["/", "/system.slice/ssh.service", "/user.slice/user-1000.slice/session-3.scope", "/docker", "/tarbox", f"/{ID}",
     "/init.scope", "/../../other", "/tarbox-nothex"],
)  # fmt: skip
def test_other_control_groups_are_nobodys(path):
    assert container_of([path], lambda folder: False) is None


def test_units_are_those_of_systemd():
    assert unit_of(["/", "/system.slice/ssh.service"]) == "ssh.service"
    assert unit_of(["/user.slice/user-1000.slice/session-3.scope"]) == "session-3.scope"
    assert unit_of(["/", "/docker/x"]) == ""


@pytest.mark.parametrize(
    ("line", "engine", "id"),
    [
        (f"52 53 254:0 /root/.local/share/tarbox/scratch/{ID}/root / rw - ext4 /dev/vda rw", "tarbox", ID),
        ("1 2 0:5 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:/b,upperdir=/c", "docker", ""),
        ("1 2 0:5 / / rw - overlay o rw,upperdir=/var/lib/containers/storage/overlay/ab/diff", "podman", ""),
        ("1 2 254:0 /var/lib/lxc/web/rootfs / rw - ext4 /dev/vda rw", "lxc", "web"),
        ("1 2 254:0 /var/lib/machines/deb / rw - btrfs /dev/vda rw", "systemd-nspawn", "deb"),
    ],
)
def test_the_folders_of_a_root_tell_too(line, engine, id):
    table = parse(line)
    found = owner_of_root(table[0], table)
    assert found
    assert (found["engine"], found["id"], found["told_by"]) == (engine, id, "root file system")


def test_a_machines_own_root_tells_of_nobody():
    table = parse("22 1 254:0 / / rw - ext4 /dev/vda rw")
    assert owner_of_root(table[0], table) is None


def test_sandboxes_are_known_by_their_program():
    assert (sandbox_of("/usr/bin/bwrap"), sandbox_of("unshare"), sandbox_of("bash")) == ("bubblewrap", "unshare", "")
