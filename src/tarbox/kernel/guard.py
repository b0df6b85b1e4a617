"""A guard: a small process that kills a control group when the command that made the group dies.

    (read x <&9; echo 1 > /sys/fs/cgroup/box/cgroup.kill) 9<fifo &

With a PID namespace of its own a container ends with its first process: the kernel kills the others. In somebody else's
it wouldn't, and a command that was killed itself can't do it. So the guard, which is the runner with another table and
never Python, waits until nobody holds the other end of a pipe any more, and makes one write.

man 7 cgroups (cgroup.kill, version 2, since Linux 5.14), man 2 poll
"""

from __future__ import annotations

from select import POLLIN

from ..errors import KernelError
from ..plan.step import PARENT, Row, Slots, Step
from ..unistd import os
from . import runner, signals


class Guard(Step):
    """Start a guard over the group `path`. Finds "guard": its process, and the descriptor that keeps it waiting."""

    __slots__ = ("path",)

    phase = "host"
    why = "without a PID namespace of its own, what the container starts would outlive a command that is killed"
    man = "cgroups(7), poll(2)"

    def __init__(self, path: str) -> None:
        super().__init__(PARENT)
        self.path = path

    def apply(self, slots: Slots) -> None:
        file = f"{self.path}/cgroup.kill"
        try:
            kill = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError("open", (file,), error.errno or 0, "it is there since Linux 5.14") from None
        theirs, ours = os.pipe()
        try:
            slots.found["guard"] = (_start(kill, theirs), ours)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
            os.close(kill)

    def call(self) -> str:
        return f'clone3(CLONE_VM|CLONE_VFORK), execveat(RUNNER): poll(parent), write("{self.path}/cgroup.kill", "1")'

    def shell(self) -> str:
        return f"(read end <$FIFO; echo 1 > {self.path}/cgroup.kill) &"


def _start(kill: int, watched: int) -> int:
    waiting = watched.to_bytes(4, "little") + POLLIN.to_bytes(4, "little")
    rows = [
        Row("setsid", (), optional=True),  # no key of the terminal reaches it
        Row("ppoll", (waiting, 1, 0, 0, 8), optional=True),  # what happened can't be written back into the table
        Row("write", (kill, b"1", 1), optional=True),
    ]
    return start_helper(rows, kill, b"tarbox-guard", 0, [kill, watched])


def start_helper(rows: list[Row], errors: int, name: bytes, flags: int, keep: list[int]) -> int:
    """Start a process of the runner's kind that makes these calls and ends; returns its process id.

    errors, keep: descriptors that it has. name: what it is called. flags: of clone3, see `runner.spawn`.
    """
    program = runner.executable(runner.image(rows, errors))
    pid = 0
    try:
        mask = signals.block_all()
        try:
            pid, pidfd = runner.spawn(program, [name], [], flags, keep)
            os.close(pidfd)
        finally:
            signals.set_mask(mask)
    except BaseException:
        if pid:
            os.kill(pid, 9)  # it is there until it is waited for
            os.waitpid(pid, 0)
        raise
    finally:
        os.close(program)
    return pid


def dismiss(guard: tuple[int, int]) -> None:
    """Let a guard go, after its group is gone, and wait until it has."""
    pid, held = guard
    os.close(held)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass
