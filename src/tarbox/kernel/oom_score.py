"""Who is killed first when the machine runs out of memory: each process has a score, and its owner may shift it.

    echo 500 > /proc/self/oom_score_adj; cat /proc/self/oom_score       choom -n 500 -- COMMAND

man 5 proc_pid_oom_score_adj, man 1 choom
"""

from __future__ import annotations

import os
from errno import EACCES, EPERM

from ..errors import KernelError
from ..plan.step import CHILD, Slots, Step

_FILE = "/proc/self/oom_score_adj"


class OomScore(Step):
    """Shift the score of this process, and of all that it starts, by `value`: -1000 (never killed) to 1000 (first).

    It is done while the host's /proc is in view. Shifting it below what it was needs CAP_SYS_RESOURCE on the host;
    without it the score stays where it is, with a warning.
    """

    __slots__ = ("value",)

    phase = "namespaces"
    why = "When the whole machine lacks memory, this says how soon the kernel turns to the container."
    man = "proc_pid_oom_score_adj(5)"

    def __init__(self, value: int, by: str = CHILD) -> None:
        super().__init__(by)
        self.value = value

    def apply(self, slots: Slots) -> None:
        present = "what it was"
        try:
            descriptor = os.open(_FILE, os.O_RDWR | os.O_CLOEXEC)
            try:
                present = os.read(descriptor, 16).decode().strip()
                os.write(descriptor, str(self.value).encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in (EACCES, EPERM):
                raise KernelError("write", (_FILE, self.value), error.errno or 0, shell=self.shell()) from None
            slots.warn(
                f"the OOM score can't be lowered to {self.value} here, so it stays at {present} "
                "(lowering it needs CAP_SYS_RESOURCE)"
            )

    def call(self) -> str:
        return f'write("{_FILE}", "{self.value}")'

    def shell(self) -> str:
        return f"echo {self.value} > {_FILE}"
