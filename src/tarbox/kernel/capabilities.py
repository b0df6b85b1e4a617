"""Capabilities: root's power in 41 pieces, of which a container keeps the few that it needs.

    capsh --drop=cap_sys_admin,… -- -c COMMAND       setpriv --bounding-set -all,+chown … COMMAND
    grep Cap /proc/self/status                       the five sets of a process

A thread has five sets. `permitted` is what it may switch on, `effective` what is on now, `bounding` what it can ever
gain by executing a file, `inheritable` and `ambient` what outlives an execve of a plain user. A set is a number here:
bit n is the capability that the kernel numbers n.

man 7 capabilities, man 2 capset, man 2 PR_CAPBSET_DROP, man 2 PR_CAP_AMBIENT
"""

from __future__ import annotations

from ..errors import UsageError
from ..plan.step import RUNNER, Row, Step
from ..spec.runtime import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..plan.step import Slots

NAMES = tuple(name.removeprefix("CAP_") for name in CAPABILITIES)  # the place in this list is the number

ALL = (1 << len(NAMES)) - 1  # all that have a name here
WHOLE = (1 << 64) - 1  # also those that a newer kernel may have
SETPCAP = 1 << 8
SYS_ADMIN = 1 << 21

_SINCE_5_8 = 38  # kernels before 5.8 don't know the numbers from here on
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def mask(names: Iterable[str]) -> int:
    """The set of these capabilities, by name with or without `CAP_`, in any case; raises UsageError for other names."""
    found = 0
    for name in names:
        found |= 1 << _number(name)
    return found


def names(capabilities: int) -> list[str]:
    """The names in a set, as `CAP_CHOWN`, in the kernel's order; unknown ones of a newer kernel as `CAP_41`."""
    return ["CAP_" + short for short in _short_names(capabilities)]


def _number(name: str) -> int:
    short = name.upper().removeprefix("CAP_")
    try:
        return NAMES.index(short)
    except ValueError:
        pass
    from difflib import get_close_matches  # only on the way to an error

    near = get_close_matches(short, NAMES, 1)
    hint = f"did you mean {near[0]}?" if near else "capabilities(7) lists the names"
    raise UsageError(f"there is no capability named {name!r}", hint)


def _short_names(capabilities: int) -> list[str]:
    return [
        NAMES[number] if number < len(NAMES) else str(number)
        for number in range(capabilities.bit_length())
        if capabilities >> number & 1
    ]


def _header() -> bytes:
    return _LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)


def _set_text(capabilities: int) -> str:
    return "|".join(names(capabilities)) or "0"


class BoundingSet(Step):
    """Take capabilities from the bounding set for good, so that no set-uid or capable file can bring them back.

    keep: the set that stays. held: the bounding set as it is before; what isn't in it needs no dropping (the call
    needs CAP_SETPCAP even to drop what isn't there). A fresh user namespace holds them all.
    """

    __slots__ = ("held", "keep")

    phase = "privileges"
    why = "No program inside, set-uid root or not, can ever gain the capabilities that are dropped here."
    man = "PR_CAPBSET_DROP(2const)"

    def __init__(self, keep: int, held: int = WHOLE, by: str = RUNNER) -> None:
        super().__init__(by)
        self.keep = keep
        self.held = held

    def rows(self, slots: Slots) -> list[Row]:
        dropped = self.held & ~self.keep & WHOLE
        return [
            # EINVAL where the kernel is older than the name.
            Row("prctl", (_PR_CAPBSET_DROP, number, 0, 0, 0), optional=number >= _SINCE_5_8)
            for number in range(dropped.bit_length())
            if dropped >> number & 1
        ]

    def call(self) -> str:
        count = (self.held & ~self.keep & ALL).bit_count()
        return f"prctl(PR_CAPBSET_DROP, …) for {count} capabilities, all but {_set_text(self.keep & ALL)}"

    def shell(self) -> str:
        kept = "".join(f",+{name.lower()}" for name in _short_names(self.keep & ALL))
        return f"setpriv --bounding-set -all{kept} COMMAND"


class Capabilities(Step):
    """Set what the container's program may do now: the permitted, effective, inheritable and ambient sets.

    Each is a set as a number; `permitted` must be within what is held then. An ambient capability that isn't
    also permitted and inheritable is left out, since the kernel refuses it. root_only: only the user 0 gets them,
    as it is in Docker, and the user is the one found at start (`LookUpUser`).
    """

    __slots__ = ("ambient", "effective", "inheritable", "permitted", "root_only")

    phase = "privileges"
    why = "The program has these pieces of root's power and no others."
    man = "capset(2)"

    def __init__(
        self,
        permitted: int,
        effective: int,
        inheritable: int = 0,
        ambient: int = 0,
        root_only: bool = False,
        by: str = RUNNER,
    ) -> None:
        super().__init__(by)
        self.permitted = permitted
        self.effective = effective
        self.inheritable = inheritable
        self.ambient = ambient
        self.root_only = root_only

    def uses(self) -> tuple[str, ...]:
        return ("uid",) if self.root_only else ()

    def rows(self, slots: Slots) -> list[Row]:
        given = (self.permitted, self.effective, self.inheritable, self.ambient)
        if self.root_only and slots.found["uid"] != 0:
            given = (0, 0, 0, 0)
        permitted, effective, inheritable, ambient = given
        effective &= permitted
        ambient &= permitted & inheritable
        words = (effective, permitted, inheritable)
        data = b"".join((word >> shift & 0xFFFFFFFF).to_bytes(4, "little") for shift in (0, 32) for word in words)
        # Ambient ones go first: the kernel doesn't take them away from somebody whose permitted set stays the same.
        rows = [
            Row(
                "prctl",
                (_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
                "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)",
            ),
            Row("capset", (_header(), data), self._shown(permitted, effective, inheritable)),
        ]
        rows += [
            Row(
                "prctl",
                (_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0),
                f"prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, {names(1 << number)[0]})",
            )
            for number in range(ambient.bit_length())
            if ambient >> number & 1
        ]
        return rows

    def _shown(self, permitted: int, effective: int, inheritable: int) -> str:
        return (
            f"capset({{_LINUX_CAPABILITY_VERSION_3, 0}}, {{effective={_set_text(effective)}, "
            f"permitted={'the same' if permitted == effective else _set_text(permitted)}, "
            f"inheritable={_set_text(inheritable)}}})"
        )

    def call(self) -> str:
        text = self._shown(self.permitted, self.effective, self.inheritable)
        return f"{text}, ambient={_set_text(self.ambient)}"

    def shell(self) -> str:
        """The other two follow at each execve: user 0 has what is in the bounding set, anybody else nothing."""
        inheritable, ambient = (
            "-all" + "".join(f",+{name.lower()}" for name in _short_names(value & ALL))
            for value in (self.inheritable, self.ambient & self.permitted & self.inheritable)
        )
        return f"setpriv --inh-caps {inheritable} --ambient-caps {ambient} COMMAND"
