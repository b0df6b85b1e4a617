"""How a container without a PID namespace of its own ends as a whole. Loaded only for one.

Its first process is process 1 of nothing, so the kernel lets the others live on. Its control group holds all of them;
on version 2 one write kills a group.
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.cgroups import Backend, Cgroups


def watched(facts: Cgroups, backend: Backend, name: str, uid: int) -> str:
    """The group of version 2 by which all of its processes are killed, or "" where version 1 has to do.

    name: of the container's groups. Raises UnsupportedError where no group may be made: nothing would end them.
    """
    if not backend.groups(name):
        raise UnsupportedError(
            "--pid: without a PID namespace of its own only a control group ends all of a container, and none may be "
            "made here",
            "systemd-run --user --scope -p Delegate=yes tarbox …" if uid else "mount the control groups",
        )
    if not facts.v2:
        return ""
    own = next((path for path in backend.groups(name) if path.startswith(facts.v2 + "/")), f"{facts.v2}/{name}")
    return own if os.path.exists(f"{facts.v2}/cgroup.procs") else ""
