"""Whose process is it? The container, sandbox or unit that a process belongs to, by the marks that engines leave.

    cat /proc/$PID/cgroup        systemd-cgls        findmnt --task $PID /

Every engine names the control groups of its containers in a way of its own, nearly always with the container's id in
them. Where there is none, as for plain users, the folders that the root file system is made of tell. These are
customs, not facts of the kernel's: a process with its own control groups can call them what it likes.

https://systemd.io/CGROUP_DELEGATION/
"""

from __future__ import annotations

import re

from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypedDict

    from ..kernel.mountinfo import MountLine

    class Owner(TypedDict):
        kind: str  # container, virtual machine, monitor, app, session, unit, sandbox
        engine: str
        id: str
        told_by: str


_ID = r"(?P<id>[0-9a-f]{64})"

# (engine, kind, one or two parts of a control group's path), the surest first. `id` is the container's.
_PATTERNS = tuple(
    (engine, kind, re.compile(pattern))
    for engine, kind, pattern in (
        ("tarbox", "container", r"tarbox-(?P<id>[0-9a-f]{12,64})"),
        ("docker", "container", rf"docker-{_ID}\.scope"),
        ("docker", "container", rf"docker/{_ID}"),
        ("podman", "monitor", rf"libpod-conmon-{_ID}(\.scope)?"),
        ("podman", "container", rf"libpod-{_ID}(\.scope)?"),
        ("cri-o", "monitor", rf"crio-conmon-{_ID}(\.scope)?"),
        ("cri-o", "container", rf"crio-{_ID}(\.scope)?"),
        ("kubernetes (containerd)", "container", rf"cri-containerd-{_ID}\.scope"),
        ("kubernetes (containerd)", "container", rf"[^/]*:cri-containerd:{_ID}"),
        ("kubernetes", "container", rf"pod[0-9a-f_-]{{32,36}}/{_ID}"),
        ("nerdctl", "container", rf"nerdctl-{_ID}(\.scope)?"),
        ("buildkit", "container", r"buildkit/(?P<id>[0-9a-z]{20,})"),
        ("amazon ecs", "container", rf"[0-9a-f]{{32}}/{_ID}"),
        ("lxc", "monitor", r"lxc\.monitor[./](?P<id>[^/]+)"),
        ("lxc", "container", r"lxc\.payload[./](?P<id>[^/]+)"),
        ("lxc", "container", r"lxc/(?P<id>[^/]+)"),
        ("libvirt", "virtual machine", r"machine-qemu(-|\\x2d)\d+(-|\\x2d)(?P<id>[^/]+)\.scope"),
        ("systemd-nspawn", "container", r"machine-(?P<id>[^/]+)\.scope"),
        ("systemd-nspawn", "container", r"systemd-nspawn@(?P<id>[^/]+)\.service"),
        ("apptainer", "container", r"(apptainer|singularity)-(?P<id>[^/]+)\.scope"),
        ("flatpak", "app", r"app-flatpak-(?P<id>[^/]+?)(-\d+)?\.scope"),
        ("snap", "app", r"snap\.(?P<id>[^/]+?)(-[0-9a-f-]{36})?\.(scope|service)"),
        ("containerd", "container", rf"[a-z0-9.-]+/{_ID}"),
    )
)
_UNIT = re.compile(r"[^/]+\.(service|scope|socket|mount|swap)")

# Parts of a root file system's source or layers, where control groups tell nothing.
_FOLDERS = tuple(
    (engine, re.compile(pattern))
    for engine, pattern in (
        ("tarbox", r"/scratch/(?P<id>[0-9a-f]{64})/"),
        ("docker", r"/docker/(?:overlay2|rootfs/overlayfs)/(?P<id>)"),  # these names are layers', not the container's
        ("podman", r"/containers/storage/overlay/(?P<id>)"),
        ("containerd", r"/io\.containerd\.snapshotter\.v1\.\w+/snapshots/(?P<id>)"),
        ("lxc", r"/(?:lxc|lxd|incus)/(?:storage-pools/[^/]+/containers/)?(?P<id>[^/]+)/rootfs\b"),
        ("systemd-nspawn", r"/machines/(?P<id>[^/]+)\b"),
    )
)

# Programs that put what they start into namespaces, by the file that they execute.
SANDBOXES = {
    "bwrap": "bubblewrap", "unshare": "unshare", "firejail": "firejail", "nsjail": "nsjail", "minijail0": "minijail",
    "systemd-nspawn": "systemd-nspawn", "runc": "runc", "crun": "crun", "youki": "youki", "conmon": "podman",
    "chrome": "Chrome's sandbox", "chromium": "Chromium's sandbox", "firefox": "Firefox's sandbox",
    "mmdebstrap": "mmdebstrap", "sbuild": "sbuild", "lxc-start": "lxc",
}  # fmt: skip

_RUNTIMES = (("runc", "/run/runc"), ("crun", "/run/crun"), ("youki", "/run/youki"))


def container_of(paths: Iterable[str], has_state: Callable[[str], bool] = os.path.isdir) -> Owner | None:
    """The container or app that control groups at these paths belong to, the innermost one; None where none is told of.

    has_state: whether a folder exists: runtimes by themselves give a group the container's id alone, and have a folder
    of that name.
    """
    best: Owner | None = None
    depth = -1
    for path in paths:
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for at, part in enumerate(parts):
            found = _engine_of(parts[at - 1] if at else "", part) or _runtime_of(part, has_state)
            if found and at > depth:
                engine, kind, id = found
                best = {"kind": kind, "engine": engine, "id": id, "told_by": "control group"}
                depth = at
    return best


def _engine_of(before: str, part: str) -> tuple[str, str, str] | None:
    """(engine, kind, id) by one part of a path, or by it and the part before."""
    for engine, kind, pattern in _PATTERNS:
        found = pattern.fullmatch(part) or pattern.fullmatch(f"{before}/{part}")
        if found:
            return engine, kind, found["id"]
    return None


def _runtime_of(part: str, has_state: Callable[[str], bool]) -> tuple[str, str, str] | None:
    for engine, folder in _RUNTIMES:
        if has_state(f"{folder}/{part}"):
            return engine, "container", part
    return None


def unit_of(paths: Iterable[str]) -> str:
    """The systemd unit (a service, a scope) that control groups at these paths belong to; "" for none."""
    for path in paths:
        for part in reversed(path.split("/")):
            if _UNIT.fullmatch(part):
                return part
    return ""


def owner_of_root(top: MountLine, mounts: Iterable[MountLine]) -> Owner | None:
    """The container that a root file system was made for, as the folders it is made of tell.

    top: the mount of its root. mounts: all that the process sees; what lies deeper than one level isn't asked.
    """
    near = [mount for mount in mounts if mount.fstype == "overlay" and mount.point.count("/") == 1]
    for mount in (top, *near):
        layers = [word for word in mount.settings if word.startswith(("upperdir=", "workdir=", "lowerdir"))]
        for text in (mount.top, mount.source, *layers):
            for engine, pattern in _FOLDERS:
                found = pattern.search(text)
                if found and text != "/":
                    return {"kind": "container", "engine": engine, "id": found["id"], "told_by": "root file system"}
    return None


def sandbox_of(program: str) -> str:
    """The name of the sandbox that a program by this file name makes; "" for programs that aren't known to make any."""
    return SANDBOXES.get(os.path.basename(program).removesuffix(" (deleted)"), "")
