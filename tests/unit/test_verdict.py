"""The closing line, for kinds of processes that there are."""

from __future__ import annotations

import pytest

from tarbox.runtime.verdict import of

KINDS = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")


def what(own=(), unknown=(), root="machine", limits=(), held=41, **more):
    spaces = {kind: {"own": None if kind in unknown else kind in own, "shared_with_caller": False} for kind in KINDS}
    return {
        "zombie": False, "kernel_thread": False, "parent": 7, "namespaces": spaces, "root": {"how": root},
        "cgroups": {"limits": [{"resource": name} for name in limits]}, "lsm": None, "no_new_privs": False,
        "capabilities": {"permitted": {"names": ["x"] * held}}, "capabilities_known": 41,
        "seccomp": {"mode": "none"},
    } | more  # fmt: skip


FILTER = {"mode": "filter"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (what(), "no container, but an ordinary process of the machine: no namespace of its own, no limits, all 41"
                 " capabilities"),
        (what(own=("cgroup", "ipc", "mount", "network", "pid", "uts"), root="pivoted", held=14, seccomp=FILTER,
              limits=("memory", "memory+swap", "cpu-weight", "pids", "devices")),
         "a container of its own: 6 of 8 namespaces, another root, limits on memory and pids, 14 of 41 capabilities,"
         " filtered"),
        (what(own=("mount",), root="copy", held=0, no_new_privs=True),
         "hardly a container: 1 of 8 namespaces, no limits, no capabilities, no new privileges"),
        (what(own=("mount", "pid", "user"), root="copy"),
         "half a container: 3 of 8 namespaces, no limits, all 41 capabilities (in its own user namespace only)"),
        (what(root="chrooted"), "hardly a container: no namespace of its own, another root by chroot, no limits, all 41"
                                " capabilities"),
        (what(limits=("memory",)), "no container, but a process with limits: no namespace of its own, limits on memory,"
                                   " all 41 capabilities"),
        (what(unknown=set(KINDS) - {"pid", "mount"}), "as far as you may see, no container: 0 of the 2 namespaces that"
                                                      " can be seen, no limits, all 41 capabilities"),
        (what(lsm={"module": "AppArmor", "label": "docker-default (enforce)"}),
         "no container, but a process with limits: no namespace of its own, no limits, all 41 capabilities, confined by"
         " a label"),
        (what(lsm={"module": "AppArmor", "label": "unconfined"}), of(what())),
        (what(zombie=True), "a zombie: it has ended, and its parent, process 7, hasn't collected its exit status yet"),
        (what(kernel_thread=True), "a thread of the kernel's: it runs no program, and nothing contains it"),
    ],
)  # fmt: skip
def test_the_line(given, line):
    assert of(given) == line
