"""Which devices a group of version 2 may use: a small BPF program that the kernel asks at each access.

    bpftool cgroup attach /sys/fs/cgroup/box cgroup_device pinned /sys/fs/bpf/devices multi

The program is written here, instruction by instruction, from the same rules that version 1 takes as text.

man 2 bpf; https://docs.kernel.org/bpf/standardization/instruction-set.html
"""

from __future__ import annotations

from ...errors import KernelError
from ...plan.step import PARENT, Slots, Step
from ...unistd import os
from ..syscall import addressof, buffer, syscall
from .devices import from_last_sweep, sweeps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .devices import Rule

# An instruction is 8 bytes: operation, registers, jump, constant.
_LOAD_WORD, _MOVE, _MOVE_REGISTER, _AND, _SHIFT_RIGHT = 0x61, 0xB7, 0xBF, 0x57, 0x77
_JUMP_IF_NOT, _JUMP_IF_SET, _JUMP, _EXIT = 0x55, 0x45, 0x05, 0x95
_RESULT, _CONTEXT, _ACCESS, _TYPE, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5  # registers
_TYPES = {"b": 1, "c": 2}
_ACCESSES = {"m": 1, "r": 2, "w": 4}

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE, _F_ALLOW_MULTI = 15, 6, 2


class AllowDevices(Step):
    """Version 2: attach a program to the group `path` that refuses all devices but those that `rules` allow."""

    __slots__ = ("path", "rules")
    phase = "host"
    why = "Device nodes open the machine's hardware; a BPF program refuses all but the harmless ones."
    man = "bpf(2)"

    def __init__(self, path: str, rules: tuple[Rule, ...], by: str = PARENT) -> None:
        super().__init__(by)
        self.path = path
        self.rules = rules

    def apply(self, slots: Slots) -> None:
        loaded = _load(program(self.rules))
        try:
            try:
                group = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise KernelError("open", (self.path, "O_RDONLY|O_DIRECTORY"), error.errno or 0) from None
            try:
                # The group holds the program from now on, and lets it go when it is removed.
                _bpf(_PROG_ATTACH, _word(group) + _word(loaded) + _word(_CGROUP_DEVICE) + _word(_F_ALLOW_MULTI))
            finally:
                os.close(group)
        finally:
            os.close(loaded)

    def call(self) -> str:
        size = len(program(self.rules)) // 8
        return (
            f"bpf(BPF_PROG_LOAD, {{BPF_PROG_TYPE_CGROUP_DEVICE, {size} instructions}}); "
            f'bpf(BPF_PROG_ATTACH, {{"{self.path}", BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI}})'
        )


def program(rules: tuple[Rule, ...]) -> bytes:
    """The BPF program that answers 1 (may) or 0 (may not) for one access to one device.

    The last rule that speaks of a device decides, for each kind of access by itself; without a rule it may. So the
    rules are asked from the last to the first, and register 2 holds the kinds of access that nobody has decided yet.
    """
    code = [
        _instruction(_LOAD_WORD, _ACCESS, _CONTEXT),
        _instruction(_MOVE_REGISTER, _TYPE, _ACCESS),
        _instruction(_AND, _TYPE, constant=0xFFFF),
        _instruction(_SHIFT_RIGHT, _ACCESS, constant=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, jump=4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, jump=8),
    ]
    rules = from_last_sweep(rules)
    for rule in reversed(rules):
        code += _asked(rule)
    if not (rules and sweeps(rules[0])):  # after a rule for everything, nothing would ever get here
        code += _answer(1)
    return b"".join(code)


def _asked(rule: Rule) -> list[bytes]:
    allow, kind, major, minor, access = rule
    bits = sum(_ACCESSES[one] for one in set(access))
    if sweeps(rule):
        return _answer(int(allow))
    if allow:
        decision = [_instruction(_AND, _ACCESS, constant=7 & ~bits), _instruction(_JUMP_IF_NOT, _ACCESS, jump=2)]
        decision += _answer(1)
    else:
        decision = [_instruction(_JUMP_IF_SET, _ACCESS, jump=1, constant=bits), _instruction(_JUMP, jump=2)]
        decision += _answer(0)
    wanted = [(_TYPE, _TYPES.get(kind)), (_MAJOR, major), (_MINOR, minor)]
    tests = [(register, value) for register, value in wanted if value is not None]
    skipped = len(decision) + len(tests)
    code = [
        _instruction(_JUMP_IF_NOT, register, jump=skipped - position, constant=value)
        for position, (register, value) in enumerate(tests, 1)
    ]
    return code + decision


def _answer(value: int) -> list[bytes]:
    return [_instruction(_MOVE, _RESULT, constant=value), _instruction(_EXIT)]


def _instruction(operation: int, target: int = 0, source: int = 0, jump: int = 0, constant: int = 0) -> bytes:
    # Both processors that tarbox runs on keep the lowest byte, and so the lowest four bits, first.
    return bytes((operation, source << 4 | target)) + jump.to_bytes(2, "little") + _word(constant)


def _word(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _load(code: bytes) -> int:
    instructions = buffer(len(code))
    instructions.raw = code
    terms = buffer(8)
    terms.raw = b"Apache\0\0"
    pointers = addressof(instructions).to_bytes(8, "little") + addressof(terms).to_bytes(8, "little")
    attributes = _word(_TYPE_CGROUP_DEVICE) + _word(len(code) // 8) + pointers
    attributes += bytes(24) + b"tarbox_devices\0\0" + bytes(4) + _word(_CGROUP_DEVICE)
    return _bpf(_PROG_LOAD, attributes)


def _bpf(command: int, attributes: bytes) -> int:
    memory = buffer(len(attributes))
    memory.raw = attributes
    hint = "device rules on cgroup v2 need BPF: a kernel with CONFIG_CGROUP_BPF, and root"
    return syscall("bpf", command, memory, len(attributes), hint=hint)
