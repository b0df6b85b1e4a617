"""Programs answer as libseccomp's do, for the default profile and for random ones (Debian's python3-seccomp)."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from bpf import answer, errno
from tarbox.engine import defaults
from tarbox.kernel import capabilities, seccomp
from tarbox.kernel.seccomp_compiler import compile_profile
from tarbox.kernel.syscall import MACHINE
from tarbox.kernel.system_calls import numbers

PYTHON = "/usr/bin/python3"
MAKE = """
import json, sys, tempfile
import seccomp as s
profile = json.load(sys.stdin)
def action(entry, key, code):
    return s.ERRNO(entry.get(code, 1)) if entry[key] == "SCMP_ACT_ERRNO" else getattr(s, entry[key][9:])
default = action(profile, "defaultAction", "defaultErrnoRet")
made = s.SyscallFilter(default)
made.add_arch(s.Arch.X86)
made.add_arch(s.Arch.X32)
for rule in profile["syscalls"]:
    if action(rule, "action", "errnoRet") == default:
        continue
    conditions = []
    for one in rule.get("args") or []:
        masked = [one["valueTwo"]] if one["op"].endswith("MASKED_EQ") else []
        conditions.append(s.Arg(one["index"], getattr(s, one["op"][9:]), one["value"], *masked))
    for name in rule["names"]:
        try:
            made.add_rule(action(rule, "action", "errnoRet"), name, *conditions)
        except (OSError, RuntimeError, ValueError):
            pass  # a name that this libseccomp doesn't know
with tempfile.TemporaryFile() as file:
    made.export_bpf(file)
    file.seek(0)
    sys.stdout.buffer.write(file.read())
"""
ARCHITECTURES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
NEWEST = 450  # the last call that Debian 12's libseccomp has by name
VALUES = (0, 1, 5, 8, 17, 36, 38, 39, 40, 41, 45, 63, 0x20008, 0x10000000, 0xFFFFFFFF, (1 << 32) + 5, (1 << 64) - 1)

pytestmark = [
    pytest.mark.skipif(MACHINE != "x86_64", reason="compares the three ways of calling of x86-64"),
    pytest.mark.skipif(
        subprocess.run([PYTHON, "-c", "import seccomp"], capture_output=True).returncode != 0,
        reason="needs Debian's python3-seccomp",
    ),
]


def libseccomp(profile: dict) -> bytes:
    return subprocess.run(
        [PYTHON, "-I", "-c", MAKE], input=json.dumps(profile).encode(), stdout=subprocess.PIPE, check=True, timeout=20
    ).stdout


def differences(ours: bytes, theirs: bytes, names: set[str], skip: tuple[str, ...] = ()) -> list[tuple]:
    found = []
    for architecture in ("x86_64", "i386", "x32"):
        for name, number in numbers(architecture).items():
            if number & 0xFFFF > NEWEST or name in skip:
                continue
            for value in VALUES if name in names else (0,):
                given = [value & 0xFFFFFFFF if architecture == "i386" else value] * 6
                pair = answer(ours, number, architecture, *given), answer(theirs, number, architecture, *given)
                if pair[0] != pair[1]:
                    found.append((architecture, name, hex(value), *map(hex, pair)))
    return found


@pytest.mark.parametrize("added", [(), ("SYS_ADMIN",), ("ALL",), ("SYS_PTRACE", "SYS_TIME", "BPF")])
def test_the_default_profile(added):
    given = capabilities.ALL if "ALL" in added else capabilities.mask((*defaults.CAPABILITIES, *added))
    profile = json.loads(Path(seccomp._DEFAULT_PROFILE).read_text())
    names = set(capabilities.names(given))
    chosen = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        native = "amd64" in includes.get("arches", ["amd64"])
        if native and names.issuperset(includes.get("caps", ())) and not names.intersection(excludes.get("caps", ())):
            chosen.append(rule)
    theirs = libseccomp({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": chosen})
    ours, _ = compile_profile(profile, given)
    # uretprobe has a number below 450 and is newer than this libseccomp.
    assert differences(ours, theirs, {"socket", "personality", "clone", "ipc", "socketcall"}, ("uretprobe",)) == []


@pytest.mark.parametrize("seed", range(8))
def test_random_profiles(seed):
    """Rules of one call all have the same action: of others libseccomp leaves open which one counts."""
    chance = random.Random(seed)
    names = sorted(set(numbers("x86_64")) & set(numbers("i386")) & set(numbers("x32")))
    operators = ["EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ"]
    rules = []
    with_conditions = set()
    for name in chance.sample([name for name in names if numbers("x86_64")[name] <= NEWEST], 60):
        code = chance.randrange(2, 100)
        # Of several rules with conditions on several arguments, Debian 12's libseccomp makes programs that are wrong,
        # or none in minutes; so it is one rule here, or some that compare one argument.
        single = chance.random() < 0.6
        for _ in range(1 if single else chance.choice([2, 3])):
            arguments = [
                {
                    "index": index,
                    "op": f"SCMP_CMP_{chance.choice(operators) if single else 'EQ'}",
                    "value": chance.choice(VALUES),
                    "valueTwo": chance.choice(VALUES),
                }
                for index in (chance.sample(range(6), chance.choice([0, 1, 2, 3])) if single else [0])
            ]
            if arguments:
                with_conditions.add(name)
            rules.append({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": code, "args": arguments})
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ARCHITECTURES, "syscalls": rules}
    ours, _ = compile_profile(profile, 0)
    theirs = libseccomp(profile)
    assert differences(ours, theirs, with_conditions, ("ipc", "socketcall")) == []
    assert any(answer(ours, number, "x86_64") != errno(0) for number in range(NEWEST))
