"""Which device nodes the processes of a group may make, read and write.

    echo a > /sys/fs/cgroup/devices/box/devices.deny
    echo 'c 1:3 rwm' > /sys/fs/cgroup/devices/box/devices.allow

These files are version 1's; version 2 asks a program instead (`device_program`).

man 7 cgroups; https://docs.kernel.org/admin-guide/cgroup-v1/devices.html
"""

from __future__ import annotations

from ...errors import ConfigError, UnsupportedError
from ...plan.step import PARENT, Slots, Step
from .groups import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .resources import Resources

    # allow, type ("a", "b" or "c"), major and minor (None for all), access (some of "rwm")
    Rule = tuple[bool, str, int | None, int | None, str]


class LimitDevices(Step):
    """Version 1: let the group `path` use only the devices that `lines` leave it.

    lines: ("allow" or "deny", a rule as the kernel reads it), in order.
    """

    __slots__ = ("lines", "path")
    phase = "host"
    why = "Device nodes open the machine's hardware; the container may only use the harmless ones."
    man = "cgroups(7)"

    def __init__(self, path: str, lines: tuple[tuple[str, str], ...], by: str = PARENT) -> None:
        super().__init__(by)
        self.path = path
        self.lines = lines

    def apply(self, slots: Slots) -> None:
        start = 0
        for end in range(1, len(self.lines) + 1):  # neighbours that go into the same file share one open
            if end == len(self.lines) or self.lines[end][0] != self.lines[start][0]:
                write(f"{self.path}/devices.{self.lines[start][0]}", *(line for _, line in self.lines[start:end]))
                start = end

    def call(self) -> str:
        return "; ".join(f'write("{self.path}/devices.{kind}", "{line}")' for kind, line in self.lines)

    def shell(self) -> str:
        from ...plan.shell import quote

        return "; ".join(f"echo {quote(line)} > {quote(f'{self.path}/devices.{kind}')}" for kind, line in self.lines)


def checked(resources: Resources) -> tuple[Rule, ...]:
    """The device rules of OCI `linux.resources`, in order; raises ConfigError for one that can't be meant."""
    rules = []
    for index, entry in enumerate(resources.get("devices") or ()):
        place = f"$.linux.resources.devices[{index}]"
        kind, access = entry.get("type") or "a", entry.get("access") or "rwm"
        if kind not in ("a", "b", "c", "u"):
            raise ConfigError(place + ".type", f"must be a, b or c, not {kind!r}")
        if not isinstance(access, str) or access.strip("rwm"):
            raise ConfigError(place + ".access", f"must be made of r, w and m, not {access!r}")
        numbers = []
        for key in ("major", "minor"):
            value = entry.get(key)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value >= 1 << 31):
                raise ConfigError(f"{place}.{key}", f"must be a number, not {value!r}")
            numbers.append(None if value is None or value < 0 else value)
        if not isinstance(entry.get("allow"), bool):
            raise ConfigError(place + ".allow", "must be true or false")
        rules.append((entry["allow"], "c" if kind == "u" else kind, numbers[0], numbers[1], access))
    return tuple(rules)


def lines(rules: tuple[Rule, ...]) -> tuple[tuple[str, str], ...]:
    """The rules as the files of version 1 take them; raises UnsupportedError for what those can't say.

    The kernel keeps one default and a list of exceptions there. An exception goes away only by the very same rule: it
    would silently ignore a rule that takes back a part of one.
    """
    written: list[tuple[str, str]] = []
    exceptions: list[Rule] = []
    default = True  # of a new group in a tree whose root allows all
    for rule in from_last_sweep(rules):
        if sweeps(rule):
            default = rule[0]
        elif rule[0] != default:
            exceptions += _both_kinds(rule)
        else:
            for one in _both_kinds(rule):
                _check_whole(one, exceptions)
        written += _written(rule)
    return tuple(written)


def _check_whole(rule: Rule, exceptions: list[Rule]) -> None:
    for other in exceptions:
        pairs = list(zip(rule[1:4], other[1:4], strict=True))
        overlap = all(ours is None or theirs is None or ours == theirs for ours, theirs in pairs)
        if overlap and rule[1:4] != other[1:4] and set(rule[4]) & set(other[4]):
            raise UnsupportedError(
                f"cgroup v1 can't take back '{_text(rule)}' from the device rule '{_text(other)}'",
                "name each device in a rule of its own",
            )


def _both_kinds(rule: Rule) -> list[Rule]:
    # "a" means all devices with all access there, whatever follows it: anything less is said for both kinds.
    return [(rule[0], kind, *rule[2:]) for kind in (("b", "c") if rule[1] == "a" else (rule[1],))]


def _written(rule: Rule) -> list[tuple[str, str]]:
    file = "allow" if rule[0] else "deny"
    return [(file, "a")] if sweeps(rule) else [(file, _text(one)) for one in _both_kinds(rule)]


def _text(rule: Rule) -> str:
    _, kind, major, minor, access = rule
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor} {access}"


def sweeps(rule: Rule) -> bool:
    """Whether the rule speaks of all access to all devices, so that none before it counts."""
    _, kind, major, minor, access = rule
    return kind == "a" and major is None and minor is None and set(access) == set("rwm")


def from_last_sweep(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules from the last one for everything on: those before it have no effect."""
    for index in range(len(rules) - 1, -1, -1):
        if sweeps(rules[index]):
            return rules[index:]
    return rules
