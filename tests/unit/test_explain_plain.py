"""What is told of a plain command with limits, with parts of a container or in those of others, against golden texts.

TARBOX_GOLDEN=write python -m pytest tests/unit/test_explain_plain.py; git diff tests/unit/golden
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tarbox.cli.main import main
from tarbox.engine import enter, isolate, limits, plain_process, rights
from tarbox.engine.machine import Machine
from tarbox.engine.targets import Target
from tarbox.kernel import cgroups

GOLDEN = Path(__file__).parent / "golden"
V1 = {name: f"/sys/fs/cgroup/{name}" for name in ("memory", "pids", "devices", "freezer")}
MACHINES = {
    "v1": cgroups.Cgroups("v1", V1), "v2": cgroups.Cgroups("v2", {}, "/sys/fs/cgroup", ("memory", "pids")),
}  # fmt: skip
LINES = {
    "isolate-joined": ("v1", "isolate --net=ns:/run/netns/blue --pid=pid:4711 --mount -h box -- ip addr"),
    "isolate-root": ("v2", "isolate --root / --read-only --pid --tmpfs /tmp -m 50m --cap-drop ALL -- sh -c id"),
    "isolate-ids": ("v1", "isolate --uidmap 0:100000:9 --ipc=pid:4711 --uptime-offset 1d -v /etc:/mnt:ro,idmap id"),
    "limit-v1": ("v1", "limit -m 50m --pids-limit 9 --ulimit core=0 -- make -j 2"),
    "limit-v2": ("v2", "limit -m 50m --pids-limit 9 -- make"),
    "enter-all": ("v1", "enter --all 4711 -w /srv -- ps"),
    "debug": ("v1", "debug 4711 -- strace -p 1"),
}


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """The same machine, caller and target everywhere; whatever is looked at of this one fails."""
    for module in (isolate, limits):
        monkeypatch.setattr(module, "read_machine", lambda: Machine())
    monkeypatch.setattr(rights, "_present", lambda *_: (0, 0b1111, 0b1111, 0))
    caller = SimpleNamespace(environ={"PATH": "/usr/bin:/bin", "HOME": "/root"}, defpath="/bin", getcwd=lambda: "/srv")
    monkeypatch.setattr(plain_process, "os", caller)
    target = Target("process 4711")
    target.namespaces = dict.fromkeys(("mount", "pid", "network", "uts", "user"), -1)
    target.root, target.pid = 0, 4711
    monkeypatch.setattr(target.__class__, "close", lambda _: None)
    monkeypatch.setattr(enter, "find", lambda word, root: target)


@pytest.mark.parametrize("name", LINES)
def test_a_command_line_gives_exactly_this_text(monkeypatch, capfd, name):
    kind, line = LINES[name]
    monkeypatch.setattr(cgroups, "detect", lambda: MACHINES[kind])
    assert main(["explain", *line.split()]) == 0
    text, errors = capfd.readouterr()
    assert errors == ""
    file = GOLDEN / f"{name}.told"
    if os.environ.get("TARBOX_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def test_every_golden_text_has_a_line():
    assert {file.stem for file in GOLDEN.glob("*.told")} == set(LINES)


@pytest.mark.parametrize("name", LINES)
def test_it_is_told_of_a_command_and_all_of_its_steps(name):
    text = (GOLDEN / f"{name}.told").read_text()
    steps = [line for line in text.splitlines() if line[:3].strip().isdigit() and line[3:5] == "  "]
    assert len(steps) == int(text.split()[0])
    assert "== The command ==" in text
    assert "first process, inside" not in text
