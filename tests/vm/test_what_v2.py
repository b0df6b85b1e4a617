"""What a container is on a machine with control groups of version 2 alone."""

from __future__ import annotations

import json

import pytest

from vm.conftest import PYTHON
from vm.machine import PROJECT

pytestmark = [pytest.mark.vm, pytest.mark.long]

LOOK = """
"$@" run --rm --net none -m 20m --memory-swap 20m --pids-limit 20 --cpus 0.5 --cpuset-cpus 0 host sleep 60 &
for attempt in $(seq 200); do
    pid=$(grep -lx sleep /proc/[0-9]*/comm | cut -d/ -f3) && [ -n "$pid" ] && break
    sleep 0.1
done
"$@" what --json $pid
status=$?
kill $pid
wait
exit $status
"""


def test_limits_of_version_2_are_told(inside):
    """Of the group it is in, with what is used; and all is compared with the machine's first process."""
    status, output = inside("sh", "-c", LOOK, "sh", PYTHON, "-I", "-S", f"{PROJECT}/src/tarbox/__main__.py")
    assert status == 0, output
    found = json.loads(output[output.index("{") : output.rindex("}") + 1])
    assert found["cgroups"]["layout"] == "v2"
    (group,) = found["cgroups"]["groups"]
    assert group["path"] == f"/tarbox-{found['owner']['id']}"
    limits = {entry["resource"]: (entry["limit"], entry["group"]) for entry in found["cgroups"]["limits"]}
    assert limits["memory"] == (20 << 20, group["path"])
    assert (limits["swap"][0], limits["cpu"][0], limits["pids"][0]) == (0, 0.5, 20)
    assert found["cgroups"]["use"]["pids"] == 1
    assert found["cgroups"]["use"]["memory"] > 0
    own = {kind for kind, space in found["namespaces"].items() if space["own"]}
    assert own == {"cgroup", "ipc", "mount", "network", "pid", "uts"}
    assert found["verdict"].startswith(
        "a container of its own: 6 of 8 namespaces, another root, limits on memory, swap, processors and pids,"
    )
