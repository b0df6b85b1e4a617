"""Steps that only say what they do, and machinery for plans of them that forks and sends, but makes no container."""

from __future__ import annotations

import os

from tarbox.kernel import channel
from tarbox.plan.step import CHILD, PARENT, Row, Step


class Pretend(Step):
    """A step with a name. act: what it does, a function of the slots. The rest is what it declares."""

    __slots__ = ("act", "finds_", "gives_", "name", "record_", "takes_", "uses_")

    phase = "filesystem"
    why = "it has to be done"
    man = "true(1)"

    def __init__(self, name, by=CHILD, act=None, takes=(), gives=(), uses=(), finds=(), record=()):
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


class Forking:
    """What the executor needs of the kernel. become: what the child does in the place of the runner."""

    def __init__(self, become=None):
        self.become = become or (lambda steps, slots, errors: os._exit(0))
        self.pid = 0

    def pair(self):
        return channel.pair()

    def spawn(self, step, slots):
        self.pid = os.fork()
        return self.pid

    def forked(self):
        pass

    def launch(self, steps, slots, errors, announce):
        counts = ",".join(str(len(step.rows(slots))) for step in steps[:-1])
        announce(f"{counts}\n/bin/program\nobstacle".encode())
        self.become(steps, slots, errors)

    def report(self, data):
        return (data[0], data[1]) if len(data) == 2 else None
