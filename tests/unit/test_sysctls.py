"""--sysctl: what a container has to itself, and what it hasn't."""

from __future__ import annotations

import os
import random
from errno import ENOENT
from typing import Any

import pytest

from tarbox.engine.config import config
from tarbox.engine.machine import Machine
from tarbox.engine.options import RunOptions
from tarbox.engine.sysctls import add, sysctl
from tarbox.errors import UnsupportedError, UsageError
from tarbox.kernel.sysctl import WriteSetting
from tarbox.plan.step import Slots
from tarbox.spec.validation import validate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("net.ipv4.ip_forward=1", ("net.ipv4.ip_forward", "1")),
        (" net.ipv4.tcp_rmem = 4096 87380\t6291456 ", ("net.ipv4.tcp_rmem", "4096 87380\t6291456")),
        ("kernel.shmmax=1", ("kernel.shmmax", "1")),
        ("kernel.shm_rmid_forced=1", ("kernel.shm_rmid_forced", "1")),
        ("kernel.msgmnb=1", ("kernel.msgmnb", "1")),
        ("kernel.sem=1 2 3 4", ("kernel.sem", "1 2 3 4")),
        ("fs.mqueue.msg_max=1", ("fs.mqueue.msg_max", "1")),
        ("net.ipv4.conf.eth0-1.mc_forwarding=a=b", ("net.ipv4.conf.eth0-1.mc_forwarding", "a=b")),
    ],
)
def test_settings_of_namespaces(text: str, expected: tuple[str, str]) -> None:
    assert sysctl(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "has no value"),
        ("net.ipv4.ip_forward", "has no value"),
        ("net.ipv4.ip_forward=", "one line of text"),
        ("net.ipv4.ip_forward=1\n2", "one line of text"),
        ("=1", "not the name of a setting"),
        ("net=1", "not the name of a setting"),
        ("net/ipv4/ip_forward=1", "dots go between the parts: net.ipv4.ip_forward"),
        ("/proc/sys/net/ipv4/ip_forward=1", "dots go between the parts: net.ipv4.ip_forward"),
        ("net.../kernel/core_pattern=x", "not the name of a setting"),
        ("net./../kernel.core_pattern=x", "not the name of a setting"),
        ("../kernel=1", "not the name of a setting"),
        ("net..ipv4=1", "not the name of a setting"),
        (".net.ipv4=1", "not the name of a setting"),
        ("net.ipv4.=1", "not the name of a setting"),
        ("net.ipv4\0.x=1", "not the name of a setting"),
        ("net.ipv4 .x=1", "not the name of a setting"),
        (f"net.{'a' * 300}=1", "not the name of a setting"),
        ("kernel.hostname=x", "it is -h NAME"),
        ("kernel.domainname=x", "it is --domainname NAME"),
        ("kernel.core_pattern=|/x", "kernel.core_pattern is the whole machine's"),
        ("kernel.shmax=1", "did you mean kernel.shmmax?"),
        ("kernel.shm_next_id=1", "the whole machine's"),
        ("vm.overcommit_memory=1", "vm.overcommit_memory is the whole machine's"),
        ("fs.file-max=1", "fs.file-max is the whole machine's"),
        ("nett.ipv4=1", "no setting 'nett.ipv4'"),
    ],
)
def test_what_is_no_containers_is_refused_by_name(text: str, part: str) -> None:
    with pytest.raises(UsageError) as raised:
        sysctl(text)
    assert part in str(raised.value)


def test_no_name_leads_out_of_a_namespaces_folders() -> None:
    """Whatever is made of the letters that paths are made of."""
    chance = random.Random(9)
    pieces = [
        "net",
        "kernel",
        "fs",
        "mqueue",
        "sem",
        ".",
        "..",
        "/",
        "\0",
        "\n",
        " ",
        "-",
        "a",
        "core_pattern",
        "%2e",
        "\u2024",
    ]
    taken = 0
    for _ in range(20000):
        begin = chance.choice(["", "net.", "fs.mqueue.", "kernel."])
        try:
            name, _value = sysctl(begin + "".join(chance.choices(pieces, k=chance.randint(1, 5))) + "=1")
        except UsageError:
            continue
        path = WriteSetting(name, "1")._path()
        taken += 1
        assert os.path.normpath(path) == path
        assert path.startswith(("/proc/sys/net/", "/proc/sys/fs/mqueue/")) or path == "/proc/sys/kernel/sem"
    assert taken > 100


def settings(uid: int = 0, **chosen: object) -> dict[str, str]:
    options = RunOptions("./rootfs", ["sh"])
    for name, value in chosen.items():
        setattr(options, name, value)
    made: Any = config(options, {}, "0123456789abcdef" * 4, Machine("here", uid=uid), "/srv")
    validate(made)
    return made["linux"]["sysctl"]  # type: ignore[no-any-return]


def test_they_are_in_the_config_over_our_own() -> None:
    asked = {"net.ipv4.ip_unprivileged_port_start": "99", "kernel.sem": "1 2 3 4"}
    assert settings(sysctls=asked) == {"net.ipv4.ping_group_range": "0 2147483647", **asked}
    assert settings(uid=1000, sysctls=asked) == asked


def test_the_hosts_network_is_not_set() -> None:
    with pytest.raises(UsageError, match=r"net\.ipv4\.ip_forward can't go with --network host"):
        settings(sysctls={"net.ipv4.ip_forward": "1"}, network="host")
    assert settings(sysctls={"kernel.sem": "1"}, network="host") == {"kernel.sem": "1"}


def test_anothers_namespace_is_not_set() -> None:
    """An IPC namespace that is joined, or none at all."""
    for namespaces in ([{"type": "ipc", "path": "/proc/1/ns/ipc"}], []):
        with pytest.raises(UsageError, match=r"kernel\.sem can't go with another's ipc namespace"):
            add({"linux": {"namespaces": namespaces, "sysctl": {}}}, {"kernel.sem": "1"})  # type: ignore[typeddict-item]


def test_a_setting_that_was_asked_for_is_not_left_out() -> None:
    """As our own are where a kernel lacks them."""
    slots, step = Slots(), WriteSetting("net.none.such", "1")
    assert [row.name for row in step.rows(slots)] == ["openat", "write"]
    error = step.explain(0, ENOENT, slots)
    assert isinstance(error, UnsupportedError)
    assert "there is no setting net.none.such in the container" in str(error)
    assert slots.warnings == []
    assert WriteSetting("net.ipv4.ping_group_range", "0 1").rows(slots)
