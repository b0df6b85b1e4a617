"""Learned profiles: programs that ask, what they would have said, and the rules that come of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tarbox.engine import learned_profile as profiles
from tarbox.engine.capability_calls import TOLD, CapabilityCalls
from tarbox.errors import StorageError, UsageError
from tarbox.kernel import runner_image, seccomp
from tarbox.kernel.capabilities import mask
from tarbox.kernel.seccomp_compiler import compile_profile
from tarbox.kernel.seccomp_notify import ALLOW, AUDIT_ARCH, USER_NOTIF, LoadNotifier, asking
from tarbox.kernel.seccomp_program import decode, verdict
from tarbox.kernel.syscall import MACHINE
from tarbox.kernel.system_calls import numbers
from tarbox.plan.step import Passing, Row, Slots

DEFAULT = json.loads(Path(seccomp.path_of("default")).read_text())
NATIVE = AUDIT_ARCH[MACHINE]
CALLS = numbers(MACHINE)
SECRET = 0x5EC2E7


def data(name: str, *arguments: int, architecture: int = NATIVE) -> bytes:
    return struct.pack("<iIQ6Q", CALLS[name], architecture, 0, *arguments, *(0,) * (6 - len(arguments)))


def of(program: bytes, *call, **options) -> int:
    return verdict(decode(program), data(*call, **options))[0]


@pytest.fixture(scope="module")
def default() -> bytes:
    return compile_profile(DEFAULT, 0)[0]


def test_a_program_tells_its_verdict_and_what_it_looked_at(default):
    assert verdict(decode(default), data("read")) == (ALLOW, frozenset())
    assert of(default, "unshare") == 0x50001
    assert of(default, "clone3") == 0x50026
    assert verdict(decode(default), data("socket", 2)) == (ALLOW, frozenset({16, 20}))
    assert of(default, "socket", 40) == 0x50001


def test_a_program_that_asks_asks_about_what_it_allows_and_what_it_refuses(default):
    made = asking(default, SECRET)
    for call in (("read",), ("unshare",), ("clone3",), ("socket", 40), ("socket", 2)):
        assert of(made, *call) == USER_NOTIF
    assert of(made, "read", architecture=0x1234) == of(default, "read", architecture=0x1234) == 0
    assert of(asking(b"", SECRET), "read", architecture=0x1234) == USER_NOTIF


@pytest.mark.parametrize("program", [True, False])
def test_only_the_runners_three_calls_go_unasked(default, program):
    made = asking(default if program else b"", SECRET)
    for name in ("sendmsg", "dup3", "close_range"):
        assert of(made, name, 3, 4, SECRET << 32) == ALLOW
        assert of(made, name, 3, 4, 0) == USER_NOTIF
        assert of(made, name, 3, 4, SECRET) == USER_NOTIF
    assert of(made, "read", 3, 4, SECRET << 32) == USER_NOTIF


def test_the_listener_is_closed_before_anything_waits():
    slots = Slots()
    slots.found["errors"] = 7
    rows = LoadNotifier("default", b"", 0, SECRET).rows(slots)
    loaded = max(at for at, row in enumerate(rows) if row.name == "seccomp")
    after = [row.name for row in rows[loaded + 1 :]]
    assert after == ["dup3", "sendmsg", "close_range", "close_range"]
    assert [row.arguments[:2] for row in rows[-2:]] == [(3, 6), (8, 0xFFFFFFFF)]
    assert all(row.arguments[2] >> 32 == SECRET for row in rows[loaded + 1 :])


def test_a_message_that_passes_a_descriptor_is_whole():
    message = Passing(b"l", 5)
    made = runner_image.image([Row("sendmsg", (3, message, 0))], 3)
    at = made.index(struct.pack("<QII", 20, 1, 1))
    header = at - 56
    base = 0x400000
    vector, count, control, size = struct.unpack_from("<4Q", made, header + 16)
    assert (count, control, size) == (1, base + at, 24)
    assert struct.unpack_from("<i", made, at + 16) == (5,)
    text, length = struct.unpack_from("<2Q", made, vector - base)
    assert made[text - base : text - base + length] == b"l"


def allowed(rules: list[dict]) -> set[str]:
    return {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_the_rules_are_those_of_the_profile_for_what_was_used():
    rules = profiles.rules(DEFAULT, {"read", "clone", "socket", "ioctl"}, set())
    assert allowed(rules) == {"read", "clone", "socket", "ioctl"}
    made = compile_profile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}, 0)[0]
    assert of(made, "read") == ALLOW
    assert of(made, "write") == 0x50001
    assert of(made, "socket", 2) == ALLOW
    assert of(made, "socket", 40) == 0x50001
    assert of(made, "clone", 17) == ALLOW
    assert of(made, "clone", 0x10000000) == 0x50001
    assert of(made, "ioctl", 0, 0x5412) == 0x50001
    assert of(made, "ioctl", 0, 0x5413) == ALLOW
    assert of(made, "clone3") == 0x50026, "programs must fall back to clone"


def test_what_the_profile_wouldn_t_allow_is_allowed_for_all_arguments():
    rules = profiles.rules(DEFAULT, {"read", "socket"}, {"socket", "unshare"})
    made = compile_profile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}, 0)[0]
    assert of(made, "socket", 40) == of(made, "unshare") == ALLOW


def test_a_profile_that_lists_what_is_forbidden_becomes_one_of_what_is_allowed():
    base = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO"},
            {"name": "socket", "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 40}]},
        ],
    }
    rules = profiles.rules(base, {"read", "socket", "close_range"}, set())
    made = compile_profile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}, 0)[0]
    assert of(made, "read") == of(made, "socket", 2) == ALLOW
    assert of(made, "mount") == of(made, "write") == of(made, "socket", 40) == 0x50001


def profile(*used: str, capabilities: tuple[str, ...] = (), seen_by: str = "kernel") -> dict:
    rules = profiles.rules(DEFAULT, set(used), set())
    return profiles.document(rules, ["SCMP_ARCH_X86_64"], capabilities, seen_by, {})


def test_a_file_gathers_runs(tmp_path):
    path = str(tmp_path / "p.json")
    assert profiles.ProfileFile(path).add(profile("read", "socket"))[1] == 2
    later = profile("read", "clone", capabilities=("CAP_KILL",), seen_by="calls")
    whole, new = profiles.ProfileFile(path).add(later)
    assert new == 1
    assert json.loads(Path(path).read_text()) == whole
    assert allowed(whole["syscalls"]) == {"read", "socket", "clone"}
    told = whole["x-tarbox"]
    assert (told["runs"], told["capabilities"], told["capabilitiesSeenBy"]) == (2, ["CAP_KILL"], "calls")
    assert profiles.ProfileFile(path).add(later)[0]["syscalls"] == whole["syscalls"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.json"]
    assert Path(path).stat().st_mode & 0o7777 == 0o644


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "p.json").symlink_to("real/q.json")
    profiles.ProfileFile(str(tmp_path / "p.json")).add(profile("read"))
    assert (tmp_path / "p.json").is_symlink()
    assert (tmp_path / "real" / "q.json").is_file()


@pytest.mark.parametrize("text", ["", "{}", "null", '{"x-tarbox": 1}', '{"x-tarbox": {}, "syscalls": []}', "\xff"])
def test_what_isn_t_ours_is_refused(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UsageError, match="something else"):
        profiles.ProfileFile(str(tmp_path / "p.json"))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(StorageError, match="is the directory there"):
        profiles.ProfileFile(str(tmp_path / "no" / "p.json"))


def test_capabilities_of_which_no_call_tells_are_kept():
    granted = mask(["NET_ADMIN", "CHOWN", "DAC_OVERRIDE"])
    assert CapabilityCalls(granted, one_id=False, own_network=True).used == mask(["NET_ADMIN"])
    assert not TOLD & mask(["NET_ADMIN"])
    assert TOLD & granted == mask(["CHOWN", "DAC_OVERRIDE"])


def test_a_call_that_tells_nothing_isn_t_looked_at():
    calls = CapabilityCalls(mask(["NET_BIND_SERVICE"]), one_id=False, own_network=True)
    assert not calls.tells("read")
    assert calls.tells("chroot")
    assert not calls.tells("bind")
    assert not calls.tells("openat")
    assert CapabilityCalls(mask(["DAC_OVERRIDE"]), one_id=False, own_network=False).tells("openat")
    assert CapabilityCalls(0, one_id=False, own_network=False).tells("bind")


def test_files_aren_t_looked_at_where_somebody_inside_could_be_the_one_who_shows_them(monkeypatch):
    """A process that serves a file system waits for the same answers as all others."""
    from tarbox.engine import capability_calls

    class Root:
        uids, gids, effective = [0] * 4, [0] * 4, mask(["DAC_OVERRIDE", "SYS_ADMIN"])

    monkeypatch.setattr(capability_calls, "Caller", lambda pid: Root)
    monkeypatch.setattr(capability_calls, "needs_rights", lambda *_: "")
    for granted, confined, kept in (("DAC_OVERRIDE", True, 0), ("DAC_OVERRIDE", False, 2), ("SYS_ADMIN", True, 2)):
        calls = CapabilityCalls(mask(["DAC_OVERRIDE", granted]), False, True, confined)
        calls.look_at("openat", 1, (0,) * 6)
        assert calls.used == kept


def test_what_may_not_be_looked_at_is_kept(monkeypatch):
    from tarbox.engine import capability_calls

    class Root:
        uids, gids, effective = [0] * 4, [0] * 4, mask(["DAC_OVERRIDE"])

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(capability_calls, "Caller", lambda pid: Root)
    monkeypatch.setattr(capability_calls, "needs_rights", refuse)
    calls = CapabilityCalls(mask(["DAC_OVERRIDE"]), one_id=False, own_network=True)
    calls.look_at("openat", 1, (0,) * 6)
    assert calls.used == mask(["DAC_OVERRIDE"])
