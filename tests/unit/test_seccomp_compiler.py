"""Seccomp profiles become programs that answer as the profile says."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from pathlib import Path

import pytest

import bpf
from bpf import ALLOW, KILL_PROCESS, KILL_THREAD, LOG, TRAP, answer, errno
from tarbox.engine import defaults
from tarbox.errors import ConfigError, UsageError
from tarbox.kernel import capabilities, seccomp, system_calls
from tarbox.kernel.seccomp_compiler import LONGEST, compile_profile

DEFAULT = json.loads(Path(seccomp._DEFAULT_PROFILE).read_text())
EPERM, ENOSYS = errno(1), errno(38)
X86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def default_program(*added: str, machine: str = "x86_64") -> bytes:
    return compile_profile(
        DEFAULT,
        capabilities.ALL if added == ("ALL",) else capabilities.mask((*defaults.CAPABILITIES, *added)),
        machine=machine,
        release="6.12.1",
    )[0]


def made(*rules: dict, default: str = "SCMP_ACT_ERRNO", **others: object) -> bytes:
    profile = {"defaultAction": default, "architectures": X86, "syscalls": list(rules), **others}
    return compile_profile(profile, 0, machine="x86_64", release="6.12")[0]


def rule(call: str, *conditions: tuple, action: str = "SCMP_ACT_ALLOW", **others: object) -> dict:
    arguments = [
        {"index": index, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second[0] if second else 0}
        for index, operator, value, *second in conditions
    ]
    return {"names": [call], "action": action, "args": arguments, **others}


def allowing(*rules: object) -> dict:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules)}


def number(name: str, architecture: str = "x86_64") -> int:
    return system_calls.numbers(architecture)[name]


# --- The numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "name", "expected"),
    [
        ("x86_64", "read", 0), ("x86_64", "openat", 257), ("x86_64", "clone3", 435), ("x86_64", "removexattrat", 466),
        ("i386", "exit", 1), ("i386", "socketcall", 102), ("i386", "socket", 359), ("i386", "clock_gettime64", 403),
        ("x32", "read", 0x40000000), ("x32", "execve", 0x40000000 | 520), ("x32", "pwritev2", 0x40000000 | 547),
        ("aarch64", "openat", 56), ("aarch64", "execve", 221), ("aarch64", "mseal", 462),
        ("arm", "openat", 322), ("arm", "set_tls", 983045), ("arm", "arm_sync_file_range", 341),
    ],
)  # fmt: skip
def test_numbers_are_the_kernels(architecture, name, expected):
    assert system_calls.numbers(architecture)[name] == expected


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "x32", "aarch64", "arm"])
def test_no_number_stands_for_two_names(architecture):
    table = system_calls.numbers(architecture)
    assert len(table) > 300
    assert len(set(table.values())) == len(table)


def test_x32_lacks_what_only_64_bits_have():
    assert not {"uselib", "_sysctl", "epoll_ctl_old"} & set(system_calls.numbers("x32"))


# --- The default profile ---------------------------------------------------------------------------------------------

FLAGS = {"CLONE_NEWUSER": 0x10000000, "CLONE_NEWNET": 0x40000000, "CLONE_NEWNS": 0x00020000, "thread": 0x3D0F00}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("read", (), ALLOW), ("openat", (), ALLOW), ("execve", (), ALLOW), ("seccomp", (), ALLOW),
        ("chroot", (), ALLOW),
        ("ptrace", (), ALLOW), ("mseal", (), ALLOW), ("arch_prctl", (), ALLOW), ("memfd_create", (), ALLOW),
        ("clone3", (), ENOSYS), ("clone", (FLAGS["thread"],), ALLOW), ("clone", (17,), ALLOW),
        ("clone", (FLAGS["CLONE_NEWUSER"] | 17,), EPERM), ("clone", (FLAGS["CLONE_NEWNS"],), EPERM),
        ("clone", (FLAGS["CLONE_NEWNET"] | 1 << 40,), EPERM),
        ("unshare", (FLAGS["CLONE_NEWUSER"],), EPERM), ("setns", (), EPERM), ("mount", (), EPERM),
        ("umount2", (), EPERM), ("pivot_root", (), EPERM), ("open_tree", (), EPERM), ("move_mount", (), EPERM),
        ("fsopen", (), EPERM), ("mount_setattr", (), EPERM), ("bpf", (), EPERM), ("perf_event_open", (), EPERM),
        ("keyctl", (), EPERM), ("add_key", (), EPERM), ("request_key", (), EPERM), ("userfaultfd", (), EPERM),
        ("io_uring_setup", (), EPERM), ("io_uring_enter", (), EPERM), ("io_uring_register", (), EPERM),
        ("open_by_handle_at", (), EPERM), ("init_module", (), EPERM), ("kexec_load", (), EPERM), ("reboot", (), EPERM),
        ("settimeofday", (), EPERM), ("clock_settime", (), EPERM), ("swapon", (), EPERM), ("syslog", (), EPERM),
        ("acct", (), EPERM), ("quotactl_fd", (), EPERM), ("lsm_get_self_attr", (), EPERM), ("iopl", (), EPERM),
        ("personality", (0,), ALLOW), ("personality", (8,), ALLOW), ("personality", (0x20000,), ALLOW),
        ("personality", (0x20008,), ALLOW), ("personality", (0xFFFFFFFF,), ALLOW), ("personality", (4,), EPERM),
        ("personality", (0x0040000,), EPERM),
        ("socket", (1,), ALLOW), ("socket", (2,), ALLOW), ("socket", (10,), ALLOW), ("socket", (16,), ALLOW),
        ("socket", (17,), ALLOW), ("socket", (37,), ALLOW), ("socket", (38,), EPERM), ("socket", (39,), ALLOW),
        ("socket", (40,), EPERM), ("socket", (41,), ALLOW), ("socket", (43,), ALLOW), ("socket", (45,), ALLOW),
        ("socket", (1 << 32 | 40,), EPERM), ("socket", (1 << 63 | 38,), EPERM), ("socket", (1 << 32 | 2,), EPERM),
    ],
)  # fmt: skip
def test_default_profile_on_x86_64(name, arguments, expected):
    assert answer(default_program(), number(name), "x86_64", *arguments) == expected


@pytest.mark.parametrize("architecture", ["i386", "x32", "aarch64", "arm"])
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("read", (), ALLOW), ("clone3", (), ENOSYS), ("unshare", (), EPERM), ("keyctl", (), EPERM), ("bpf", (), EPERM),
        ("socket", (2,), ALLOW), ("socket", (40,), EPERM), ("socket", (38,), EPERM), ("mount", (), EPERM),
        ("clone", (0x10000000,), EPERM), ("clone", (17,), ALLOW), ("personality", (0xFFFFFFFF,), ALLOW),
        ("io_uring_setup", (), EPERM), ("userfaultfd", (), EPERM), ("ptrace", (), ALLOW), ("execve", (), ALLOW),
    ],
)  # fmt: skip
def test_default_profile_in_other_ways_of_calling(architecture, name, arguments, expected):
    machine = "aarch64" if architecture in ("aarch64", "arm") else "x86_64"
    assert answer(default_program(machine=machine), number(name, architecture), architecture, *arguments) == expected


def test_old_32_bit_programs_still_have_sockets():
    program = default_program()
    assert answer(program, number("socketcall", "i386"), "i386", 1) == ALLOW
    assert answer(program, number("clock_gettime64", "i386"), "i386") == ALLOW


@pytest.mark.parametrize(
    ("capability", "opened"),
    [
        ("SYS_ADMIN", ("mount", "unshare", "setns", "clone3", "bpf", "fsopen", "move_mount", "quotactl_fd")),
        ("SYS_PTRACE", ("kcmp", "pidfd_getfd", "process_madvise")),
        ("SYS_TIME", ("settimeofday", "clock_settime")),
        ("DAC_READ_SEARCH", ("open_by_handle_at",)),
        ("SYS_MODULE", ("init_module", "finit_module", "delete_module")),
        ("SYS_BOOT", ("reboot",)), ("SYSLOG", ("syslog",)), ("BPF", ("bpf",)), ("PERFMON", ("perf_event_open",)),
        ("SYS_NICE", ("mbind", "set_mempolicy")), ("SYS_RAWIO", ("iopl",)), ("SYS_PACCT", ("acct",)),
        ("SYS_TTY_CONFIG", ("vhangup",)),
    ],
)  # fmt: skip
def test_a_capability_opens_its_calls(capability, opened):
    with_it, without = default_program(capability), default_program()
    for name in opened:
        assert answer(with_it, number(name), "x86_64") == ALLOW
        assert answer(without, number(name), "x86_64") != ALLOW


def test_clone_is_free_with_sys_admin():
    assert answer(default_program("SYS_ADMIN"), number("clone"), "x86_64", FLAGS["CLONE_NEWUSER"]) == ALLOW


def test_keyrings_and_io_uring_stay_closed_with_all_capabilities():
    for name in ("keyctl", "add_key", "io_uring_setup", "userfaultfd", "kexec_load", "pivot_root"):
        assert answer(default_program("ALL"), number(name), "x86_64") == EPERM


PUSHING = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX


@pytest.mark.parametrize("added", [(), ("SYS_ADMIN",), ("ALL",)])
@pytest.mark.parametrize("architecture", ["x86_64", "x32", "i386", "aarch64", "arm"])
def test_no_key_is_pushed_into_a_terminal(architecture, added):
    """The kernel drops the upper half of the request; all other requests are allowed, those beside it too."""
    program = default_program(*added, machine="aarch64" if architecture in ("aarch64", "arm") else "x86_64")
    nr = number("ioctl", architecture)
    for high in (0, 1 << 32, 1 << 63, 0xFFFFFFFF << 32, 0x5412 << 32):
        for request in (*PUSHING, *range(0x5400, 0x5470), 0, 0x8000541C, 0xFFFF5412, 0x15412, 0xFFFFFFFF, 0x80045430):
            expected = EPERM if request in PUSHING else ALLOW
            for rest in (0, 0x5412, (1 << 64) - 1):
                assert answer(program, nr, architecture, rest, high | request, rest) == expected, hex(high | request)


def test_calls_newer_than_the_profile_do_not_exist():
    """A program that gets ENOSYS falls back to an older call; EPERM it takes for an answer."""
    program = default_program()
    for architecture, bit in (("x86_64", 0), ("x32", 0x40000000), ("i386", 0)):
        assert answer(program, bit | 548, architecture) == ENOSYS
        assert answer(program, bit | 0x3FFFFFFF, architecture) == ENOSYS
    assert answer(program, 0xFFFFFFFF, "x86_64") == ENOSYS
    assert answer(program, 400, "x86_64") == EPERM  # a hole in the table isn't new


def test_x32_only_numbers_are_no_calls_of_x86_64():
    """512 to 547 are x32's; without its bit they must not reach what x32 may do."""
    program = default_program()
    assert {answer(program, nr, "x86_64") for nr in range(512, 548)} == {ENOSYS}


@pytest.mark.parametrize("audit", [0, 0xC00000B7, 0x40000028, 0x80000016, 0xFFFFFFFF])
def test_unlisted_architectures_are_killed(audit):
    program = default_program()
    assert {bpf.run(program, nr, audit)[0] for nr in (0, 1, 59, 0xFFFFFFFF)} == {KILL_THREAD}


def test_the_default_program_is_small_and_shallow():
    for machine, architecture in (("x86_64", "x86_64"), ("aarch64", "aarch64")):
        program = default_program(machine=machine)
        assert len(program) // 8 < 800
        audit = bpf.ARCHITECTURES[architecture]
        steps = [bpf.run(program, nr, audit)[1] for nr in system_calls.numbers(architecture).values()]
        assert max(steps) <= 28
        assert sum(steps) / len(steps) <= 14


def test_the_kept_programs_change_their_names_when_the_compiler_changes():
    """When this fails, the compiler or the profile makes another program: raise seccomp.FORMAT, then this digest."""
    digest = hashlib.sha256(b"".join(default_program(machine=machine) for machine in ("x86_64", "aarch64"))).hexdigest()
    assert (seccomp.FORMAT, digest[:16]) == (3, "bd307298334f8862")


# --- What rules mean -------------------------------------------------------------------------------------------------

COMPARISONS = {
    "EQ": lambda a, v, _: a == v, "NE": lambda a, v, _: a != v, "LT": lambda a, v, _: a < v,
    "LE": lambda a, v, _: a <= v, "GE": lambda a, v, _: a >= v, "GT": lambda a, v, _: a > v,
    "MASKED_EQ": lambda a, v, w: a & v == w & v,
}  # fmt: skip
EDGES = [0, 1, 5, 6, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, (5 << 32) + 5, (6 << 32) + 4, 1 << 63, (1 << 64) - 1]


@pytest.mark.parametrize("operator", COMPARISONS)
def test_comparisons_are_of_64_bits(operator):
    for value in EDGES:
        for second in EDGES if operator == "MASKED_EQ" else [0]:
            program = made(rule("dup2", (1, operator, value, second)))
            for given in EDGES:
                expected = ALLOW if COMPARISONS[operator](given, value, second) else EPERM
                assert answer(program, 33, "x86_64", 0, given) == expected, (operator, value, second, given)


@pytest.mark.parametrize("operator", COMPARISONS)
def test_comparisons_are_of_32_bits_for_i386_and_x32(operator):
    program = made(rule("dup2", (0, operator, (7 << 32) + 5, 5)))
    for given in (0, 4, 5, 6, 0xFFFFFFFF):
        expected = ALLOW if COMPARISONS[operator](given, 5, 5) else EPERM
        assert answer(program, number("dup2", "i386"), "i386", given) == expected
        assert answer(program, number("dup2", "x32"), "x32", given) == expected


def test_conditions_of_one_rule_must_all_hold_and_rules_add_up():
    program = made(rule("dup2", (0, "EQ", 1), (1, "EQ", 2), (5, "GT", 3)), rule("dup2", (0, "EQ", 9)))
    assert answer(program, 33, "x86_64", 1, 2, 0, 0, 0, 4) == ALLOW
    assert answer(program, 33, "x86_64", 1, 2, 0, 0, 0, 3) == EPERM
    assert answer(program, 33, "x86_64", 1, 3, 0, 0, 0, 4) == EPERM
    assert answer(program, 33, "x86_64", 9) == ALLOW


def test_two_conditions_on_one_argument_are_two_rules():
    program = made(rule("dup2", (0, "EQ", 1), (0, "EQ", 2)))
    assert [answer(program, 33, "x86_64", given) for given in (0, 1, 2, 3)] == [EPERM, ALLOW, ALLOW, EPERM]


def test_a_rule_without_conditions_beats_those_with():
    refuse = rule("dup2", (0, "EQ", 1), action="SCMP_ACT_ERRNO", errnoRet=7)
    assert answer(made(refuse, rule("dup2")), 33, "x86_64", 1) == ALLOW
    assert answer(made(rule("dup2"), refuse), 33, "x86_64", 1) == ALLOW


def test_a_rule_that_is_first_beats_all_others():
    """Also where it does what is done by default, and wherever it stands."""
    for code in (1, 7):
        refuse = rule("dup2", (0, "EQ", 1), action="SCMP_ACT_ERRNO", errnoRet=code, first=True)
        for others in ([], [rule("dup2")], [rule("dup2", (0, "EQ", 1)), rule("dup2", (0, "EQ", 2))]):
            for rules in ([refuse, *others], [*others, refuse]):
                program = made(*rules)
                assert answer(program, 33, "x86_64", 1) == errno(code)
                assert answer(program, 33, "x86_64", 2) == (ALLOW if others else EPERM)
                assert answer(program, 33, "x86_64", 3) == (ALLOW if len(others) == 1 else EPERM)
    assert answer(made(rule("dup2"), rule("dup2", action="SCMP_ACT_TRAP", first=True)), 33, "x86_64") == TRAP


def test_of_two_rules_that_hold_the_severe_one_counts():
    refuse = rule("dup2", (0, "EQ", 1), action="SCMP_ACT_ERRNO", errnoRet=7)
    allow = rule("dup2", (0, "LT", 5))
    for rules in ((refuse, allow), (allow, refuse)):
        assert answer(made(*rules), 33, "x86_64", 1) == errno(7)
        assert answer(made(*rules), 33, "x86_64", 2) == ALLOW


@pytest.mark.parametrize(
    ("action", "others", "expected"),
    [
        ("SCMP_ACT_ALLOW", {}, ALLOW), ("SCMP_ACT_ERRNO", {"errnoRet": 13}, errno(13)),
        ("SCMP_ACT_ERRNO", {"errnoRet": 0}, errno(0)), ("SCMP_ACT_KILL", {}, KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", {}, KILL_THREAD), ("SCMP_ACT_KILL_PROCESS", {}, KILL_PROCESS),
        ("SCMP_ACT_TRAP", {}, TRAP), ("SCMP_ACT_LOG", {}, LOG), ("SCMP_ACT_TRACE", {"errnoRet": 5}, 0x7FF00005),
    ],
)  # fmt: skip
def test_actions(action, others, expected):
    assert answer(made(rule("dup2", action=action, **others)), 33, "x86_64") == expected


def test_an_allowing_profile_leaves_new_calls_alone():
    program = made(rule("mkdir", action="SCMP_ACT_ERRNO", errnoRet=1), default="SCMP_ACT_ALLOW")
    assert answer(program, 83, "x86_64") == EPERM
    assert answer(program, 99999, "x86_64") == ALLOW
    assert answer(program, number("mkdir", "i386"), "i386") == EPERM


def test_i386_sockets_are_also_functions_of_socketcall():
    program = made(rule("connect"), rule("shmat"))
    assert answer(program, 362, "i386") == ALLOW
    assert answer(program, 102, "i386", 3) == ALLOW
    assert answer(program, 102, "i386", 1) == EPERM
    assert answer(program, 117, "i386", 21) == ALLOW


def test_x32_is_killed_unless_it_is_listed():
    """Bit 30 must not slip through the numbers of x86-64."""
    program = made(rule("read"), rule("write"), architectures=["SCMP_ARCH_X86_64"])
    assert answer(program, 0, "x86_64") == ALLOW
    assert {answer(program, nr, "x86_64") for nr in (0x40000000, 0x40000001, 0x40000101, 0xFFFFFFFE)} == {KILL_THREAD}
    assert answer(program, 1, "i386") == KILL_THREAD
    assert answer(program, 0xFFFFFFFF, "x86_64") == EPERM  # a tracer's "no call"


def test_an_oci_profile_without_architectures_is_the_native_one():
    program, flags = compile_profile({"defaultAction": "SCMP_ACT_ALLOW"}, 0, machine="aarch64")
    assert answer(program, 0, "aarch64") == ALLOW
    assert answer(program, 0, "arm") == KILL_THREAD
    assert flags == 4


def test_unknown_names_are_passed_over():
    assert answer(made(rule("no_such_call"), rule("read")), 0, "x86_64") == ALLOW


def test_long_profiles_jump_further_than_eight_bits_reach():
    """Every other call refused by six conditions of its own: the tree is longer than any short jump."""
    names = sorted(system_calls.numbers("x86_64"), key=system_calls.numbers("x86_64").__getitem__)[:120]
    given = {name: [number(name) + i + (1 << 33) for i in range(6)] for name in names}
    rules = [rule(name, *((i, "EQ", value) for i, value in enumerate(given[name]))) for name in names[::2]]
    program = made(*rules, rule("close_range"))
    assert len(program) // 8 > 1000
    for name in names:
        assert answer(program, number(name), "x86_64", *given[name]) == (ALLOW if name in names[::2] else EPERM)
        assert answer(program, number(name), "x86_64", 1) == EPERM


def test_random_profiles_answer_as_a_plain_look_up_would():
    chance = random.Random(7)
    names = sorted(system_calls.numbers("x86_64"))
    for _ in range(10):
        listed = {name: chance.randrange(1, 200) for name in chance.sample(names, 150)}
        rules = [rule(name, action="SCMP_ACT_ERRNO", errnoRet=error) for name, error in listed.items()]
        program = made(*rules, default="SCMP_ACT_ALLOW")
        for architecture in ("x86_64", "i386", "x32"):
            for name, nr in system_calls.numbers(architecture).items():
                if name not in ("ipc", "socketcall"):
                    assert answer(program, nr, architecture) == (errno(listed[name]) if name in listed else ALLOW)


def test_random_conditions_answer_as_plain_comparisons_would():
    chance = random.Random(11)
    for _ in range(150):
        rules, plain = [], []
        for code in range(2, chance.choice([3, 4, 6])):
            places = chance.sample(range(6), chance.choice([1, 2, 3]))
            conditions = [
                (i, chance.choice(list(COMPARISONS)), chance.choice(EDGES), chance.choice(EDGES)) for i in places
            ]
            rules.append(rule("dup2", *conditions, action="SCMP_ACT_ERRNO", errnoRet=code))
            plain.append(conditions)
        program = made(*rules, default="SCMP_ACT_ALLOW")
        for _ in range(40):
            given = [chance.choice(EDGES) for _ in range(6)]
            held = [
                errno(code)
                for code, conditions in enumerate(plain, 2)
                if all(COMPARISONS[operator](given[i], value, second) for i, operator, value, second in conditions)
            ]
            assert answer(program, 33, "x86_64", *given) == (held[0] if held else ALLOW)


# --- What is wrong in a profile --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "place"),
    [
        ([], "$"), (None, "$"), ({}, "$.defaultAction"), ({"defaultAction": 1}, "$.defaultAction"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "$.defaultAction"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}, "$.defaultErrnoRet"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}, "$.defaultErrnoRet"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": True}, "$.defaultErrnoRet"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, "$.syscalls"),
        (allowing(3), "$.syscalls[0]"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}, "$.architectures[0]"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["FAST"]}, "$.flags[0]"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{}]}, "$.archMap[0].architecture"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": X86, "archMap": [{"architecture": "x"}]}, "$.archMap"),
        (allowing(rule("read"), rule("x", action="no")), "$.syscalls[1].action"),
        (allowing(rule("x", action="SCMP_ACT_NOTIFY")), "$.syscalls[0].action"),
        (allowing(rule("x", (0, "LIKE", 1))), "$.syscalls[0].args[0].op"),
        (allowing(rule("x", (6, "EQ", 1))), "$.syscalls[0].args[0].index"),
        (allowing(rule("x", (0, "EQ", "1"))), "$.syscalls[0].args[0].value"),
        (allowing(rule("x", (0, "EQ", 1 << 64))), "$.syscalls[0].args[0].value"),
        (allowing(rule(5)), "$.syscalls[0].names[0]"),
        (allowing(rule("x", name="y")), "$.syscalls[0].name"),
        (allowing(rule("x", includes={"minKernel": "new"})),
         "$.syscalls[0].includes.minKernel"),
        (allowing(rule("x", excludes=[])), "$.syscalls[0].excludes"),
    ],
)  # fmt: skip
def test_errors_name_the_place(profile, place):
    with pytest.raises(ConfigError) as caught:
        compile_profile(profile, 0, machine="x86_64")
    assert caught.value.path == place


def test_rules_that_depend_on_capabilities_kernel_and_architecture():
    def allowed(release: str = "6.1.0-18-amd64", given: int = 0, **conditions: object) -> bool:
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("read", **conditions), rule("close_range")]}
        return answer(compile_profile(profile, given, machine="x86_64", release=release)[0], 0, "x86_64") == ALLOW

    admin, both = capabilities.SYS_ADMIN, capabilities.mask(["SYS_ADMIN", "BPF"])
    assert allowed(given=both, includes={"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]})
    assert not allowed(given=admin, includes={"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]})
    assert not allowed(given=admin, excludes={"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]})
    assert allowed(includes={"minKernel": "4.8"})
    assert allowed(includes={"minKernel": "6.1"})
    assert not allowed(includes={"minKernel": "6.10"})
    assert allowed("6.10.0", includes={"minKernel": "6.9"})
    assert not allowed(excludes={"minKernel": "4.8"})
    assert allowed(includes={"arches": ["amd64"]})
    assert not allowed(includes={"arches": ["arm64"]})
    assert not allowed(excludes={"arches": ["amd64"]})
    assert allowed(includes=None, excludes={})


def test_a_profile_too_long_for_the_kernel_is_refused():
    rules = [rule("read", *((i, "EQ", value) for i in range(6))) for value in range(200)]
    with pytest.raises(ConfigError, match=str(LONGEST)):
        made(*rules)


# --- The kept programs -----------------------------------------------------------------------------------------------


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_the_second_time_the_program_comes_from_the_cache(tmp_path):
    cache = tmp_path / "cache"
    first = seccomp.load("default", 0, str(cache))
    (kept,) = files(cache)
    assert kept.stat().st_mode & 0o777 == 0o600
    marked = struct.pack("<HBBIQ", 6, 0, 0, ALLOW, 2)
    kept.write_bytes(marked)
    assert seccomp.load("default", 0, str(cache)) == (marked[:8], 2)
    assert seccomp.load("default", capabilities.SYS_ADMIN, str(cache))[0] not in (first[0], marked[:8])


@pytest.mark.parametrize("content", [b"", b"1234567", bytes(8), bytes(20), bytes(4098 * 8)])
def test_a_spoilt_file_in_the_cache_is_made_anew(tmp_path, content):
    good = seccomp.load("default", 0, str(tmp_path))
    (kept,) = files(tmp_path)
    kept.write_bytes(content)
    assert seccomp.load("default", 0, str(tmp_path)) == good
    assert len(kept.read_bytes()) == len(good[0]) + 8


def test_files_that_others_can_write_are_not_trusted(tmp_path):
    good = seccomp.load("default", 0, str(tmp_path))
    (kept,) = files(tmp_path)
    kept.write_bytes(struct.pack("<HBBIQ", 6, 0, 0, ALLOW, 0))
    kept.chmod(0o666)
    assert seccomp.load("default", 0, str(tmp_path)) == good
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(struct.pack("<HBBIQ", 6, 0, 0, ALLOW, 0))
    kept.unlink()
    kept.symlink_to(elsewhere)
    assert seccomp.load("default", 0, str(tmp_path)) == good
    if os.geteuid() == 0:
        kept.unlink(missing_ok=True)
        elsewhere.rename(kept)
        os.chown(kept, 65533, 65533)
        assert seccomp.load("default", 0, str(tmp_path)) == good


def test_a_cache_that_cannot_be_used_does_not_matter(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert seccomp.load("default", 0, str(blocked)) == seccomp.load("default", 0, "/proc/no/such/place")


def test_a_changed_profile_is_compiled_again(tmp_path):
    profile, cache = tmp_path / "p.json", tmp_path / "cache"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    first = seccomp.load(str(profile), 0, str(cache))
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}))
    second = seccomp.load(str(profile), 0, str(cache))
    assert first != second
    assert second[1] == 2
    assert seccomp.load(str(profile), 0, str(cache)) == second


@pytest.mark.parametrize("text", ["", "{", "nul", '{"defaultAction": NaNN}', "[" * 100000, "\0", "\xff"])
def test_a_profile_that_is_no_json(tmp_path, text):
    profile = tmp_path / "p.json"
    profile.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"p\.json"):
        seccomp.load(str(profile), 0, str(tmp_path))
    assert files(tmp_path) == [profile]


def test_a_profile_that_cannot_be_read(tmp_path):
    (tmp_path / "long").write_bytes(b" " * (seccomp.LARGEST_PROFILE + 1))
    for name in ("missing", "long", ".", "nul\0"):
        with pytest.raises(UsageError, match="seccomp profile"):
            seccomp.load(f"{tmp_path}/{name}", 0, str(tmp_path / "cache"))


def test_a_profile_from_a_pipe_is_read_and_not_kept(tmp_path):
    ours, theirs = os.pipe()
    os.write(theirs, b'{"defaultAction": "SCMP_ACT_ALLOW"}')
    os.close(theirs)
    program, _ = seccomp.load(f"/proc/self/fd/{ours}", 0, str(tmp_path / "cache"))
    os.close(ours)
    assert len(program) % 8 == 0
    assert not (tmp_path / "cache").exists()


def test_the_step_tells_what_it_loads():
    step = seccomp.LoadSeccomp("default", bytes(16), 4)
    (row,) = step.rows(None)
    assert row.name == "seccomp"
    assert row.arguments == (1, 4, bytes(16))
    assert "2 instructions" in step.call()
    assert "SPEC_ALLOW" in row.shown
