"""A container's control groups without the container: made by a backend's own steps, removed as the journal would."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time

import pytest

from rows import perform
from tarbox.kernel.cgroups import groups
from tarbox.plan.step import PARENT, RUNNER, Slots

UNDO = {"cgroup": groups.remove, "cgroup-parent": groups.remove_parent}


class Box:
    """A container's groups, made on the real machine; as a context manager they are gone at the end."""

    def __init__(self, backend, resources=None, name=None):
        self.backend = backend
        self.name = name or f"tarbox-test-{secrets.token_hex(4)}"
        self.steps = backend.steps(self.name, resources or {})
        self.slots = Slots()

    def __enter__(self):
        try:
            for step in self.steps:
                if step.by == PARENT:
                    step.apply(self.slots)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def join(self):
        """What the child does, in the child."""
        for step in self.steps:
            if step.by == RUNNER:
                perform(step.rows(self.slots))

    def run(self, *command, timeout=120):
        """Run a command in the groups; its status and output."""
        done = subprocess.run(
            command,
            preexec_fn=self.join,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            text=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        return done.returncode, done.stdout

    @contextlib.contextmanager
    def start(self, *command):
        """Run a command in the groups meanwhile; it is ended whatever happens."""
        process = subprocess.Popen(command, preexec_fn=self.join)
        try:
            yield process
        finally:
            process.kill()
            self.remove()
            process.wait()

    def path(self, *files):
        """The group that has one of these files."""
        own = [path for kind, path in self.records() if kind == "cgroup"]
        found = [path for path in own if any(os.path.exists(f"{path}/{file}") for file in files)]
        return found[0] if found else pytest.skip(f"this kernel has none of {', '.join(files)}")

    def says(self, *files):
        """What the first of these control files that is there says."""
        for file in files:
            for _, path in self.records():
                text = groups.read(f"{path}/{file}")
                if text is not None:
                    return text.strip()
        return pytest.skip(f"this kernel has none of {', '.join(files)}")

    def records(self):
        return [record for step in self.steps for record in step.record()]

    def remove(self):
        for kind, name in reversed(self.records()):
            UNDO[kind](name)


def needs(backend, *controllers):
    """Skip where a controller isn't there at all."""
    have = set(getattr(backend, "mounts", ())) | set(getattr(backend, "controllers", ()))
    if missing := set(controllers) - have:
        pytest.skip(f"no controller for {', '.join(sorted(missing))}")


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
