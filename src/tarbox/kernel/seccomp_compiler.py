"""From a seccomp profile to the program that the kernel runs before every system call.

    runc and crun have libseccomp do this; `bpf_dbg` and `seccomp-tools disasm` show such programs

A profile lists names, conditions and actions, in Docker's form or in that of an OCI config (`linux.seccomp`). A
program is classic BPF: it loads words of `struct seccomp_data` (number, architecture, six arguments), compares, jumps
forward and returns an action. All numbers from 0 to 2**32-1 become ranges with the same outcome, and the ranges the
leaves of a balanced tree: some eight comparisons to any of them, where a list would take hundreds.

What a profile means is what libseccomp and runc make of it:

  - conditions of one rule must all hold (unless two look at the same argument: then each is a rule); rules of one
    call add up, and one without conditions beats those with (where several with conditions hold, the most
    severe action is taken, as the kernel does with several filters; libseccomp leaves that open);
  - comparisons are of 64 bits, for i386, arm and x32 of the low 32;
  - names that an architecture doesn't have are passed over;
  - calls newer than all that the profile names fail with ENOSYS instead of the default action, so that programs fall
    back to older ones;
  - whoever calls in the way of an architecture that isn't listed is killed.

One thing is added: an entry with `"first": true` is asked before all others of its calls, and holds against one without
conditions too. So a call can be allowed but for some arguments; other engines pass over the word.

This file is loaded only when a profile isn't in the cache. man 2 seccomp, man 3 seccomp_rule_add, the OCI runtime
specification's config-linux.md (Seccomp)
"""

from __future__ import annotations

from ..errors import ConfigError
from ..unistd import os
from .capabilities import names as capability_names
from .system_calls import IPC, SOCKETCALL, X32_BIT, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Condition = tuple[int, str, int, int]  # index of the argument, operator, value, second value
    Rule = tuple[tuple[Condition, ...], int]  # conditions, action
    Named = tuple[str, tuple[Condition, ...], int, bool]  # name of the call, conditions, action, asked first
    Outcome = int | tuple[Rule, ...]  # an action, or rules to try in order
    Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k

LONGEST = 4096  # instructions that the kernel takes

_KILL_THREAD, _ALLOW, _LOG, _TRACE, _ERRNO = 0, 0x7FFF0000, 0x7FFC0000, 0x7FF00000, 0x00050000
_ACTIONS = {
    "SCMP_ACT_KILL": _KILL_THREAD, "SCMP_ACT_KILL_THREAD": _KILL_THREAD, "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": _ERRNO, "SCMP_ACT_TRACE": _TRACE, "SCMP_ACT_LOG": _LOG,
    "SCMP_ACT_ALLOW": _ALLOW,
}  # fmt: skip
_OPERATORS = ("EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ")
_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}
_EPERM, _ENOSYS = 1, 38

# By the names of profiles: the kernel's AUDIT_ARCH number, the table of numbers, whether arguments have 32 bits.
_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": (0xC000003E, "x86_64", False),
    "SCMP_ARCH_X32": (0xC000003E, "x32", True),
    "SCMP_ARCH_X86": (0x40000003, "i386", True),
    "SCMP_ARCH_AARCH64": (0xC00000B7, "aarch64", False),
    "SCMP_ARCH_ARM": (0x40000028, "arm", True),
}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}  # as `includes` and `excludes` spell them
# Known to profiles; a process on this machine can't call in their ways.
_FOREIGN = (
    "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X",
    "PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB",
)  # fmt: skip

_LD, _JA, _JEQ, _JGT, _JGE, _AND, _RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def compile_profile(
    profile: Any, capabilities: int, path: str = "$", machine: str = "", release: str = ""
) -> tuple[bytes, int]:
    """The program of a profile, 8 bytes an instruction, and the flags of seccomp(2) that it asks for.

    profile: the decoded JSON, of Docker's form or an OCI config's `linux.seccomp`. capabilities: the bounding set, for
    rules that depend on it. path: where the profile is in its document, for errors. machine, release: as in uname(2),
    of this kernel where empty. Raises ConfigError with the place of what is wrong.
    """
    uname = os.uname()
    machine, release = machine or uname.machine, release or uname.release
    if machine not in _NATIVE:
        raise ConfigError(path, f"no filter can be made for {machine}", "tarbox runs on x86_64 and aarch64")
    profile = _table(profile, path)
    default = _action(profile, "defaultAction", "defaultErrnoRet", path)
    rules = [
        rule
        for place, entry in _entries(profile, "syscalls", path)
        if _applies(entry, place, set(capability_names(capabilities)), machine, release)
        for rule in _rules(entry, place)
    ]
    blocks: dict[int, list[tuple[int, Outcome]]] = {}
    for architecture in _architectures(profile, path, machine):
        audit, table, narrow = _ARCHITECTURES[architecture]
        blocks.setdefault(audit, []).extend(_ranges(numbers(table), table, rules, default, narrow))
    program: list[Instruction] = [(_LD, 0, 0, _ARCH)]
    for audit, ranges in blocks.items():
        if audit == _ARCHITECTURES["SCMP_ARCH_X86_64"][0] and ranges[-1][0] < X32_BIT:
            # The number -1 isn't x32: it is how a tracer leaves out a call.
            ranges += [(X32_BIT, _KILL_THREAD), (0xFFFFFFFF, default)]
        block = [(_LD, 0, 0, _NUMBER), *_tree(_merged(ranges), default)]
        program += _unless((_JEQ, audit), block)
    program.append((_RET, 0, 0, _KILL_THREAD))
    if len(program) > LONGEST:
        raise ConfigError(path, f"the profile makes {len(program)} instructions, and the kernel takes {LONGEST}")
    return b"".join(map(_packed, program)), _flags(profile, path)


# What a profile says, checked.


def _table(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(path, f"must be an object, and is {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _entries(table: dict[str, Any], key: str, path: str) -> list[tuple[str, dict[str, Any]]]:
    places = [(f"{path}.{key}[{index}]", entry) for index, entry in enumerate(_list(table, key, path))]
    return [(place, _table(entry, place)) for place, entry in places]


def _list(table: dict[str, Any], key: str, path: str) -> list[Any]:
    value = table.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigError(f"{path}.{key}", f"must be a list, and is {_kind(value)}")
    return value


def _strings(table: dict[str, Any], key: str, path: str) -> list[str]:
    values = _list(table, key, path)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise ConfigError(f"{path}.{key}[{index}]", f"must be a string, and is {_kind(value)}")
    return values


def _integer(table: dict[str, Any], key: str, path: str, largest: int, missing: int | None = None) -> int:
    value = table.get(key)
    if value is None and missing is not None:
        return missing
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise ConfigError(f"{path}.{key}", f"must be a number from 0 to {largest}, and is {value!r}")
    return value


def _action(table: dict[str, Any], key: str, errno_key: str, path: str) -> int:
    name = table.get(key)
    if name == "SCMP_ACT_NOTIFY":
        raise ConfigError(
            f"{path}.{key}", "SCMP_ACT_NOTIFY needs an agent that answers for the program, and there is none"
        )
    if not isinstance(name, str) or name not in _ACTIONS:
        raise ConfigError(f"{path}.{key}", f"{name!r} is no action", "the actions are " + ", ".join(_ACTIONS))
    action = _ACTIONS[name]
    errno = _integer(table, errno_key, path, 0xFFFF if action == _TRACE else 4095, _EPERM)
    return action | errno if action in (_ERRNO, _TRACE) else action


def _architectures(profile: dict[str, Any], path: str, machine: str) -> list[str]:
    native = _NATIVE[machine]
    listed = _strings(profile, "architectures", path)
    mapped = _entries(profile, "archMap", path)
    if listed and mapped:
        raise ConfigError(f"{path}.archMap", "stands beside `architectures`", "leave one of the two out")
    for place, entry in mapped:
        if not isinstance(entry.get("architecture"), str):
            raise ConfigError(f"{place}.architecture", f"must be a string, and is {_kind(entry.get('architecture'))}")
        others = _strings(entry, "subArchitectures", place)
        if entry["architecture"] == native:
            listed = others
    for index, name in enumerate(listed):
        if name not in _ARCHITECTURES and name.removeprefix("SCMP_ARCH_") not in (*_FOREIGN, "NATIVE"):
            where = "archMap" if mapped else f"architectures[{index}]"
            raise ConfigError(f"{path}.{where}", f"{name!r} is no architecture")
    # The native one belongs to every filter; x32 follows x86-64, since its numbers are higher.
    family = ("SCMP_ARCH_X32", "SCMP_ARCH_X86") if machine == "x86_64" else ("SCMP_ARCH_ARM",)
    return [native, *(name for name in family if name in listed)]


def _flags(profile: dict[str, Any], path: str) -> int:
    if profile.get("flags") is None:
        return _FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]  # as runc: newer kernels do so for everybody
    flags = 0
    for index, name in enumerate(_strings(profile, "flags", path)):
        if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
            continue  # only says something of SCMP_ACT_NOTIFY
        if name not in _FLAGS:
            raise ConfigError(f"{path}.flags[{index}]", f"{name!r} is no flag", "the flags are " + ", ".join(_FLAGS))
        flags |= _FLAGS[name]
    return flags


def _applies(entry: dict[str, Any], place: str, capabilities: set[str], machine: str, release: str) -> bool:
    excludes = _filter(entry, "excludes", place, capabilities, machine, release)
    includes = _filter(entry, "includes", place, capabilities, machine, release)
    return not any(any(facts) for facts in excludes) and all(all(facts) for facts in includes)


def _filter(
    entry: dict[str, Any], key: str, place: str, capabilities: set[str], machine: str, release: str
) -> list[list[bool]]:
    if entry.get(key) is None:
        return []
    place = f"{place}.{key}"
    given = _table(entry[key], place)
    architectures = _strings(given, "arches", place)
    facts = [[name in capabilities for name in _strings(given, "caps", place)]]
    if architectures:
        facts.append([_GO_NAMES[machine] in architectures])
    minimum = given.get("minKernel")
    if minimum:
        wanted = _version(minimum) if isinstance(minimum, str) else None
        if wanted is None:
            raise ConfigError(f"{place}.minKernel", f"must be a version such as 4.8, and is {minimum!r}")
        facts.append([(_version(release) or (0, 0)) >= wanted])
    return facts


def _version(text: str) -> tuple[int, int] | None:
    major, _, rest = text.partition(".")
    minor = ""
    for letter in rest:
        if letter not in "0123456789":
            break
        minor += letter
    if not (major.isascii() and major.isdigit() and minor and len(text) < 100):
        return None
    return int(major), int(minor)


def _rules(entry: dict[str, Any], place: str) -> list[Named]:
    action = _action(entry, "action", "errnoRet", place)
    first = entry.get("first", False)
    if not isinstance(first, bool):
        raise ConfigError(f"{place}.first", f"must be true or false, and is {first!r}")
    names = _strings(entry, "names", place)
    if entry.get("name"):
        if names:
            raise ConfigError(f"{place}.name", "stands beside `names`", "leave one of the two out")
        names = [entry["name"]]
        if not isinstance(names[0], str):
            raise ConfigError(f"{place}.name", f"must be a string, and is {_kind(names[0])}")
    conditions = tuple(_condition(argument, where) for where, argument in _entries(entry, "args", place))
    together = [conditions]
    if len({condition[0] for condition in conditions}) < len(conditions):
        together = [(condition,) for condition in conditions]
    return [(name, some, action, first) for name in names for some in together]


def _condition(argument: dict[str, Any], place: str) -> Condition:
    index = _integer(argument, "index", place, 5)
    largest = (1 << 64) - 1
    value = _integer(argument, "value", place, largest, 0)
    second = _integer(argument, "valueTwo", place, largest, 0)
    operator = argument.get("op")
    short = operator.removeprefix("SCMP_CMP_") if isinstance(operator, str) else ""
    if short not in _OPERATORS or short == operator:
        hint = "the operators are " + ", ".join(f"SCMP_CMP_{name}" for name in _OPERATORS)
        raise ConfigError(f"{place}.op", f"{operator!r} is no operator", hint)
    return index, short, value, second


# From rules to ranges of numbers.


def _ranges(
    table: dict[str, int],
    architecture: str,
    rules: list[Named],
    default: int,
    narrow: bool,
) -> list[tuple[int, Outcome]]:
    outcomes: dict[int, list[Rule]] = {}
    before: dict[int, list[Rule]] = {}
    highest = 0
    for name, conditions, action, first in rules:
        for number, some in _calls(table, architecture, name, conditions):
            highest = max(highest, number)
            if action != default or first:
                kept = tuple((index, f"{op}32" if narrow else op, one, two) for index, op, one, two in some)
                (before if first else outcomes).setdefault(number, []).append((kept, action))
    start = X32_BIT if architecture == "x32" else 0
    ranges: list[tuple[int, Outcome]] = [(start, default)]
    for number in sorted({*outcomes, *before}):
        found = outcomes.get(number, [])
        always = [rule for rule in found if not rule[0]]
        asked = (*sorted(before.get(number, []), key=_severity), *(always[:1] or sorted(found, key=_severity)))
        ranges.append((number, asked if asked[0][0] else asked[0][1]))
        ranges.append((number + 1, default))
    permissive = default in (_ALLOW, _LOG, _ERRNO | _ENOSYS) or default & 0xFFFF0000 == _TRACE
    if highest and not permissive:
        ranges = [entry for entry in ranges if entry[0] <= highest]
        ranges.append((highest + 1, _ERRNO | _ENOSYS))
    return ranges


def _severity(rule: Rule) -> int:
    action = rule[1] & 0xFFFF0000
    return action - (1 << 32) if action >> 31 else action  # the kernel compares them with their sign


def _calls(
    table: dict[str, int], architecture: str, name: str, conditions: tuple[Condition, ...]
) -> list[tuple[int, tuple[Condition, ...]]]:
    """The numbers by which a call can be made, each with its conditions."""
    found = [(table[name], conditions)] if name in table else []
    if architecture == "i386":
        # The other arguments are behind a pointer there, which no filter follows.
        others = tuple(condition for condition in conditions if condition[0] != 0)
        if name in SOCKETCALL:
            found.append((table["socketcall"], ((0, "EQ", SOCKETCALL.index(name) + 1, 0), *others)))
        elif name in IPC:
            found.append((table["ipc"], ((0, "EQ", IPC[name], 0), *others)))
    return found


def _merged(ranges: list[tuple[int, Outcome]]) -> list[tuple[int, Outcome]]:
    """Only the starts at which the outcome changes; of two with the same start the later."""
    latest = dict(ranges)
    merged: list[tuple[int, Outcome]] = []
    for start, outcome in latest.items():
        if not merged or merged[-1][1] != outcome:
            merged.append((start, outcome))
    return merged


# From ranges to instructions. A jump counts the instructions that it leaves out, and goes forward only.


def _tree(ranges: Sequence[tuple[int, Outcome]], default: int) -> list[Instruction]:
    """A tree over ranges: small ones share their leaves, larger ones are two halves side by side."""
    block = _block(ranges, default) if len(ranges) <= 250 else None
    if block is not None:
        return block
    middle = len(ranges) // 2
    lower, upper = _tree(ranges[:middle], default), _tree(ranges[middle:], default)
    start = ranges[middle][0]
    if len(lower) <= 255:
        return [(_JGE, len(lower), 0, start), *lower, *upper]
    return [(_JGE, 0, 1, start), (_JA, 0, 0, len(lower)), *lower, *upper]


def _block(ranges: Sequence[tuple[int, Outcome]], default: int) -> list[Instruction] | None:
    """A tree of comparisons and then its leaves, each once; None where a jump would be too far for eight bits."""
    comparisons: list[tuple[int, int, int]] = []  # a start, and where to go from it up and below it
    leaves: dict[Outcome, int] = {}
    code: list[Instruction] = []

    def leaf(outcome: Outcome) -> int:
        if outcome not in leaves:
            leaves[outcome] = len(code)
            code.extend(_leaf(outcome, default))
        return len(ranges) - 1 + leaves[outcome]

    def node(first: int, last: int) -> int:
        """Where the tree over these ranges begins, counted from the start of the block."""
        if first == last:
            return leaf(ranges[first][1])
        middle = (first + last + 1) // 2
        place = len(comparisons)
        comparisons.append((0, 0, 0))
        lower = node(first, middle - 1)
        comparisons[place] = (ranges[middle][0], node(middle, last), lower)
        return place

    node(0, len(ranges) - 1)
    made: list[Instruction] = []
    for place, (start, upper, lower) in enumerate(comparisons):
        made.append((_JGE, upper - place - 1, lower - place - 1, start))
    if any(if_true > 255 or if_false > 255 for _, if_true, if_false, _ in made):
        return None
    return [*made, *code]


def _unless(test: tuple[int, int], block: list[Instruction]) -> list[Instruction]:
    """The block, left out where the test fails; what is loaded stays loaded then."""
    code, value = test
    if len(block) <= 255:
        return [(code, 0, len(block), value), *block]
    return [(code, 1, 0, value), (_JA, 0, 0, len(block)), *block]


def _leaf(outcome: Outcome, default: int) -> list[Instruction]:
    if isinstance(outcome, int):
        return [(_RET, 0, 0, outcome)]
    made: list[Instruction] = []
    for conditions, action in outcome:
        if not conditions:  # what follows is never asked
            return [*made, (_RET, 0, 0, action)]
        rule: list[Instruction] = [(_RET, 0, 0, action)]
        for condition in reversed(conditions):
            rule = [*_test(condition, len(rule)), *rule]
        made += rule
    return [*made, (_RET, 0, 0, default)]


def _test(condition: Condition, rest: int) -> list[Instruction]:
    """Go on where the condition holds; else leave out the `rest` instructions that follow."""
    index, operator, value, second = condition
    narrow = operator.endswith("32")
    operator = operator.removesuffix("32")
    load_low = (_LD, 0, 0, _ARGUMENTS + 8 * index)
    load_high = (_LD, 0, 0, _ARGUMENTS + 8 * index + 4)
    high, low = value >> 32, value & 0xFFFFFFFF
    if operator == "MASKED_EQ":
        second &= value
        masked = [load_low, (_AND, 0, 0, low), (_JEQ, 0, rest, second & 0xFFFFFFFF)]
        if narrow or not (high or second >> 32):
            return masked
        return [load_high, (_AND, 0, 0, high), (_JEQ, 0, rest + len(masked), second >> 32), *masked]
    code, negated = {
        "EQ": (_JEQ, False), "NE": (_JEQ, True), "GT": (_JGT, False), "GE": (_JGE, False), "LT": (_JGE, True),
        "LE": (_JGT, True),
    }[operator]  # fmt: skip
    final = [load_low, (code, rest, 0, low) if negated else (code, 0, rest, low)]
    if narrow:
        return final
    if operator == "EQ":
        return [load_high, (_JEQ, 0, rest + 2, high), *final]
    if operator == "NE":
        return [load_high, (_JEQ, 0, 2, high), *final]
    if negated:  # a larger high word fails, a smaller one holds
        return [load_high, (_JGT, rest + 3, 0, high), (_JEQ, 0, 2, high), *final]
    return [load_high, (_JGT, 3, 0, high), (_JEQ, 0, rest + 2, high), *final]


def _packed(instruction: Instruction) -> bytes:
    code, if_true, if_false, k = instruction
    return code.to_bytes(2, "little") + bytes((if_true, if_false)) + k.to_bytes(4, "little")
