"""AppArmor on a kernel that has it: a profile is in force from the program's first moment, or the program isn't run."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.long]

OWN = "cat /proc/self/attr/current"
MINE = "profile nowrite flags=(attach_disconnected,mediate_deleted) { capability, file, network, deny /tmp/x w, }\n"
LOAD = ("sh", "-c", f"printf %s '{MINE}' | apparmor_parser -Kr")
# An image with files in /proc that a label might be written to.
FAKED = """
mkdir -p /tmp/faked/bin /tmp/faked/proc/self/attr/apparmor
cp /bin/busybox /tmp/faked/bin/
for name in cat touch sh; do ln -sf busybox /tmp/faked/bin/$name; done
for file in exec current apparmor/exec apparmor/current; do : > /tmp/faked/proc/self/attr/$file; done
"""


@pytest.fixture
def run(inside):
    """Runs `tarbox run` with a data root of its own."""

    def start(*words, image="host"):
        return inside.tarbox("--root", "/tmp/apparmor", "run", "--rm", *words[:-1], image, "sh", "-c", words[-1])

    return start


@pytest.fixture(scope="module")
def mine(inside):
    assert inside("sh", "-c", "cat /sys/module/apparmor/parameters/enabled") == (0, "Y\n")
    assert inside(*LOAD)[0] == 0
    return ("--security-opt", "apparmor=nowrite")


def test_the_default_profile_is_loaded_and_in_force(inside, run):
    """Loaded by the first container alone; what it forbids fails though every capability and mask says otherwise."""
    assert run(OWN) == (0, "tarbox-default (enforce)\n")
    profiles = "grep -c ^tarbox-default /sys/kernel/security/apparmor/profiles; stat -c %y /run/tarbox/*/apparmor"
    first = inside("sh", "-c", profiles)
    assert first[1].startswith("1\n")
    assert run(OWN)[0] == 0
    assert inside("sh", "-c", profiles) == first
    open_to = ("--cap-add", "SYS_ADMIN", "--cap-add", "SYS_RAWIO", "--security-opt", "systempaths=unconfined")
    setting = "{ cat /proc/sys/kernel/%s >/tmp/v; cat /tmp/v >/proc/sys/kernel/%s; } || echo no %s;"
    script = (
        "mkdir /tmp/m; mount -t tmpfs x /tmp/m || echo no mount; head -c 1 /proc/kcore >/dev/null || echo no kcore;"
        + "".join(setting % (name, name, name) for name in ("panic", "shmmni"))
    )
    status, output = run(*open_to, f"exec 2>/dev/null; {script}")
    assert (status, output) == (0, "no mount\nno kcore\nno panic\n")
    assert run(*open_to, "--security-opt", "apparmor=unconfined", script) == (0, "")


def test_honest_use_is_left_alone_by_the_default_profile(run):
    script = (
        "touch /tmp/a /root/b; mkdir -p /srv/c; ln /tmp/a /tmp/d; cat /proc/1/status /sys/fs/cgroup/cgroup.procs >/d;"
        "exec 3>&2 2>/dev/null; sleep 9 & kill $!; wait $!; exec 2>&3; cd /tmp;"
        "printf '#!/bin/sh\\necho ran' >e; chmod +x e; ./e"
    )
    assert run("-u", "0", script) == (0, "ran\n")


def test_privileged_and_unconfined_containers_have_none(run):
    assert run("--privileged", OWN) == (0, "unconfined\n")
    assert run("--security-opt", "apparmor=unconfined", OWN) == (0, "unconfined\n")


@pytest.mark.parametrize(
    "more", [(), ("--init",), ("--security-opt", "no-new-privileges", "-u", "1000"), ("--privileged",)]
)
def test_a_profile_of_ones_own_is_in_force(run, mine, more):
    status, output = run(
        *mine, *more, f"{OWN} /proc/1/attr/current; touch /tmp/y && echo y; touch /tmp/x || echo denied"
    )
    assert status == 0
    assert output.splitlines()[:3] == ["nowrite (enforce)", "nowrite (enforce)", "y"]
    assert output.splitlines()[-1] == "denied"


@pytest.mark.parametrize("more", [(), ("--pid", "--mount", "--init"), ("--no-new-privileges", "--as", "1000")])
def test_a_plain_command_has_a_profile_that_it_was_given_and_no_other(inside, mine, more):
    script = f"{OWN}; touch /tmp/y && echo y; touch /tmp/x || echo denied; rm -f /tmp/y"
    status, output = inside.tarbox("isolate", *mine, *more, "sh", "-c", script)
    assert (status, output.splitlines()[:2], output.splitlines()[-1]) == (0, ["nowrite (enforce)", "y"], "denied")
    assert inside.tarbox("isolate", "--uts", "cat", "/proc/self/attr/current") == (0, "unconfined\n")


def test_a_profile_that_isnt_loaded_ends_the_start(run):
    status, output = run("--security-opt", "apparmor=nosuch", "echo ran")
    assert status == 125
    assert output.startswith("tarbox: there is no AppArmor profile nosuch (")


def test_a_plain_user_may_have_a_loaded_profile_and_gets_none_unasked(inside, mine):
    become = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "env", "HOME=/tmp/plain")
    assert inside(*become, "mkdir", "-p", "/tmp/plain")[0] == 0
    for options, expected in (((), "unconfined"), (mine, "nowrite (enforce)")):
        words = ("run", "--rm", "--net", "none", *options, "host", "sh", "-c", OWN)
        assert inside.tarbox(*words, become=become) == (0, f"{expected}\n")


def test_an_image_with_a_proc_of_its_own_is_confined_all_the_same(inside, run, mine):
    assert inside("sh", "-c", FAKED) == (0, "")
    script = f"{OWN}; touch /tmp/x || echo denied"
    status, output = run(*mine, "-v", "/tmp:/tmp", script, image="/tmp/faked")
    assert (status, output.splitlines()[0], output.splitlines()[-1]) == (0, "nowrite (enforce)", "denied")
    assert inside("find", "/tmp/faked/proc", "-type", "f", "-size", "+0") == (0, "")
    assert inside("test", "-e", "/tmp/x")[0] == 1
