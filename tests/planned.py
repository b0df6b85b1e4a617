"""Steps that only say what they do, and machinery for plans of them that forks and sends, but makes no container."""

from __future__ import annotations

import os

from tarbox.kernel import channel
from tarbox.plan.executor import KNOCK
from tarbox.plan.step import PARENT, RUNNER, Row, Step


class Pretend(Step):
    """A step with a name. act: what it does, a function of the slots. The rest is what it declares."""

    __slots__ = ("act", "finds_", "gives_", "name", "record_", "takes_", "uses_")

    phase = "filesystem"
    why = "it has to be done"
    man = "true(1)"

    def __init__(self, name, by=RUNNER, act=None, takes=(), gives=(), uses=(), finds=(), record=()):
        super().__init__(by)
        self.name = name
        self.act = act
        self.takes_, self.gives_, self.uses_, self.finds_ = takes, gives, uses, finds
        self.record_ = record

    def takes(self):
        return self.takes_

    def gives(self):
        return self.gives_

    def uses(self):
        return self.uses_

    def finds(self):
        return self.finds_

    def record(self):
        return self.record_

    def apply(self, slots):
        if self.act:
            self.act(slots)

    def rows(self, slots):
        return [Row("getpid", ())]

    def call(self):
        return f'do("{self.name}")'


class Fork(Pretend):
    __slots__ = ()
    phase = "namespaces"
    spawns = True


def fork(**more):
    return Fork("fork", PARENT, **more)


class Table:
    """What the fake runner does: the names of its steps, and how many rows each has."""

    def __init__(self, steps, counts, errors):
        self.steps = steps
        self.counts = counts
        self.errors = errors
        self.closed = False

    def close(self):
        self.closed = True


class Forking:
    """What the executor needs of the kernel. become: what the child does in the place of the runner.

    The runner's rows are made, and then `become(steps, slots, errors)` is called in a fork; without it the child only
    says that it is ready.
    """

    def __init__(self, become=None):
        self.become = become or ready
        self.pid = 0
        self.table_ = None

    def pair(self):
        return channel.pair()

    def table(self, steps, slots, errors):
        self.table_ = Table(steps, [len(step.rows(slots)) for step in steps], errors)
        return self.table_

    def spawn(self, step, slots, table, keep):
        self.keep = keep
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.become(table.steps, slots, table.errors)
            finally:
                os._exit(0)
        return self.pid

    def report(self, data):
        return (data[0], data[1]) if len(data) == 2 else None


def ready(steps, slots, errors):
    """Say what the runner says when all that is left is the program."""
    os.write(errors, KNOCK)
