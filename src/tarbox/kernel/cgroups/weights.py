"""The weight of a group among those that want the same disk at the same time.

    echo 500 > /sys/fs/cgroup/blkio/box/blkio.bfq.weight            version 1
    echo 500 > /sys/fs/cgroup/box/io.bfq.weight                     version 2, the bfq scheduler
    echo 'default 4950' > /sys/fs/cgroup/box/io.weight              version 2, the io.cost controller

Which of these files counts depends on the disk: on its scheduler, and on whether io.cost is switched on for it. So the
weight goes into all that this kernel has; where no disk looks at any of them, the user is told.

https://docs.kernel.org/block/bfq-iosched.html; https://docs.kernel.org/admin-guide/cgroup-v2.html#io
"""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP

from ...errors import KernelError
from ...plan.step import PARENT, Slots, Step
from ...unistd import os
from .groups import read, write

_LEGACY = ("blkio.weight", "blkio.bfq.weight")
_SCHEDULERS = ("[bfq]", "[cfq]")  # the others treat all groups alike


class WriteWeight(Step):
    """Give the group `path` a weight when disks are busy.

    value: the weight, 10 to 1000, where 100 is a new group's on version 2 and 500 was the usual one on version 1; after
    "major:minor " it is for that disk alone.
    """

    __slots__ = ("path", "value")
    phase = "host"
    why = "When several groups want a disk at once, each gets a part of its time by weight."
    man = "cgroups(7)"

    def __init__(self, path: str, value: str, by: str = PARENT) -> None:
        super().__init__(by)
        self.path = path
        self.value = value

    def apply(self, slots: Slots) -> None:
        device = self.value.partition(":")[1]
        there = [(file, value) for file, value in self._files() if os.path.exists(f"{self.path}/{file}")]
        if not there:
            slots.warn("the weight for disks is ignored: this kernel has no control for it")
            return
        refused: KernelError | None = None
        accepted = False
        for file, value in there:
            try:
                write(f"{self.path}/{file}", value)
                accepted = True
            except KernelError as error:
                # A disk whose scheduler isn't bfq takes no weight by itself; older kernels say EINVAL.
                if not (device and error.errno in (EOPNOTSUPP, EINVAL)):
                    raise
                refused = error
        if refused and not accepted:
            number = self.value.partition(" ")[0]
            hint = f"its scheduler must be bfq, and is {_scheduler(f'/sys/dev/block/{number}')}"
            raise KernelError(refused.call, refused.arguments, refused.errno, hint)
        if not device and not _heeded():
            slots.warn("the weight for disks has no effect yet: no disk here has the bfq scheduler or io.cost")

    def _files(self) -> tuple[tuple[str, str], ...]:
        device, _, weight = self.value.rpartition(" ")
        even = f"{device or 'default'} {even_weight(int(weight))}"
        own = tuple((file + "_device" if device else file, self.value) for file in _LEGACY)
        return (*own, ("io.bfq.weight", self.value), ("io.weight", even))

    def call(self) -> str:
        return f'write("{self.path}/{{blkio.bfq.weight,io.bfq.weight,io.weight}}", "{self.value}")'

    def shell(self) -> str:
        return f"echo '{self.value}' > {self.path}/io.bfq.weight  # blkio.bfq.weight on version 1"


def even_weight(weight: int) -> int:
    """The `io.weight`, 1 to 10000, for a weight from 10 to 1000."""
    return 1 + (weight - 10) * 9999 // 990


def _heeded() -> bool:
    """Whether any disk of this machine looks at weights."""
    if "enable=1" in (read("/sys/fs/cgroup/io.cost.qos") or ""):
        return True
    try:
        disks = os.listdir("/sys/block")
    except OSError:
        return True  # nothing is known
    return any(name in (read(f"/sys/block/{disk}/queue/scheduler") or "") for disk in disks for name in _SCHEDULERS)


def _scheduler(disk: str) -> str:
    chosen = (read(f"{disk}/queue/scheduler") or "").partition("[")[2].partition("]")[0]
    return chosen or "none"
