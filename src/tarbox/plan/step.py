"""A step: one thing that is done to make a container, as plain values.

A step can do itself (`apply`), say which system call that is (`call`) and which shell command does the same
(`shell`), give one line of why and its man page. Everything else that tarbox tells of a container, runs of it or takes
away again is made from lists of these.

Who does a step is part of it:

    parent   the process that tarbox was started as, outside the container: it opens and makes what is needed
    runner   the first process of the container, never Python: rows of a table of system calls (`Step.rows`)
"""

from __future__ import annotations

from ..errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from ..errors import TarboxError

    Value: TypeAlias = int | bytes | "Register"

PARENT, RUNNER = "parent", "runner"

# In the order of a container's life.
PHASES = ("image", "host", "namespaces", "filesystem", "root", "privileges", "exec")


class Filter(bytes):
    """A seccomp program, 8 bytes an instruction. In a `Row` it stands for the address of its `sock_fprog`."""

    __slots__ = ()


class Register:
    """A place of the runner's that holds one number. As an argument of a `Row` it stands for what is in it.

    number: 0 to 63. 0 and 1 hold the addresses of the program's arguments and of its environment, 2 to 7 are for any
    step to use between two of its own rows, the others are handed out by `Slots.register`.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"r{self.number}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Register) and self.number == other.number

    def __hash__(self) -> int:
        return self.number


ARGUMENTS, ENVIRONMENT = Register(0), Register(1)
FIRST_NAMED = 8
ANY = 255  # in `Row.on`: whatever the errno is


class Row:
    """One system call of the runner's table.

    name: the call's; "init" stands for no call but for what `runner-x86_64.S` does there: a child goes on with the next
    row, and the process itself stays as its init. arguments: numbers, registers, bytes whose address is passed (the
    runner adds the ending zero), or a `Filter`.
    shown: how people read it, e.g. `prctl(PR_SET_NO_NEW_PRIVS, 1)`.
    store: the register, from 2 on, that keeps what the call returns; 0 for none. skip: how many rows are passed over
    when it succeeds. on: at most two pairs (errno or `ANY`, how many rows are passed over): the runner then goes on
    instead of reporting that it failed. optional: the same as on=((ANY, 0),).
    """

    __slots__ = ("arguments", "name", "on", "shown", "skip", "store")

    def __init__(
        self,
        name: str,
        arguments: tuple[Value, ...],
        shown: str = "",
        optional: bool = False,
        store: int = 0,
        skip: int = 0,
        on: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.shown = shown
        self.store = store
        self.skip = skip
        self.on = ((ANY, 0),) if optional else on

    def __repr__(self) -> str:
        return self.shown or f"{self.name}({', '.join(map(str, self.arguments))})"


class Slots:
    """What steps hand to later ones: open descriptors by name, and values that they found in the world.

    The parent's descriptors are the runner's too. What the runner opens is in its registers, by the same names.
    """

    __slots__ = ("descriptors", "found", "registers", "warnings")

    def __init__(self) -> None:
        self.descriptors: dict[str, int] = {}
        self.found: dict[str, object] = {}
        self.registers: dict[str, Register] = {}
        self.warnings: list[str] = []

    def give(self, name: str, descriptor: int) -> None:
        """Put an open descriptor into the slot `name`, which the step must have declared in `gives()`."""
        self.descriptors[name] = descriptor

    def take(self, name: str) -> int:
        """The descriptor in the slot `name`, which stays open and stays there."""
        return self.descriptors[name]

    def register(self, name: str) -> Register:
        """For a step of the runner: the register in which the slot `name` is, a new one at the first time."""
        register = self.registers.get(name)
        if register is None:
            register = self.registers[name] = Register(FIRST_NAMED + len(self.registers))
        return register

    def argument(self, name: str) -> int | Register:
        """For a row: the descriptor in the slot `name`, as the parent or an earlier step of the runner gave it."""
        held = self.descriptors.get(name)
        return self.registers[name] if held is None else held

    def warn(self, text: str) -> None:
        """Tell the user something that doesn't stop the container from starting, in one line."""
        self.warnings.append(text)


class Step:
    """The common form of all steps. A kind of step sets `phase`, `why` and `man`, and says the rest in methods."""

    __slots__ = ("by",)

    phase = "host"
    why = ""  # one line, for somebody who learns what a container is
    man = ""  # e.g. "mount(2)"
    spawns = False  # the one step after which there are two processes
    waits = False  # of the runner's: waits first until the parent's steps after the spawn are done
    late = False  # done when all of the container's file trees are made, wherever it was asked for

    by: str

    def __init__(self, by: str = RUNNER) -> None:
        self.by = by

    def takes(self) -> tuple[str, ...]:
        """The slots whose descriptors it needs."""
        return ()

    def gives(self) -> tuple[str, ...]:
        """The slots that it fills with descriptors."""
        return ()

    def uses(self) -> tuple[str, ...]:
        """The names of found values that it needs."""
        return ()

    def finds(self) -> tuple[str, ...]:
        """The names of the values that it finds in the world (`Slots.found`)."""
        return ()

    def apply(self, slots: Slots) -> None:
        """Do it, in the process that `by` names; raises a TarboxError. Steps of the runner have `rows` instead."""
        raise NotImplementedError(f"{type(self).__name__} has no apply()")

    def rows(self, slots: Slots) -> list[Row]:
        """For steps of the runner: the system calls, in order."""
        raise NotImplementedError(f"{type(self).__name__} has no rows()")

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        """For steps of the runner: the error to raise when the row `row` of its own failed with `errno`."""
        return KernelError(self.call(), None, errno)

    def record(self) -> tuple[tuple[str, str], ...]:
        """What it leaves on the host, as (kind, name) for the journal; () where it dies with the process."""
        return ()

    def call(self) -> str:
        """The system calls, as people read them."""
        raise NotImplementedError(f"{type(self).__name__} has no call()")

    def shell(self) -> str:
        """The command that does the same in a shell; "" where a shell can't."""
        return ""

    def values(self) -> Iterator[tuple[str, object]]:
        """Its plain values by name, in the order in which its class lists them."""
        for kind in reversed(type(self).__mro__):
            for name in kind.__dict__.get("__slots__", ()):
                yield name, getattr(self, name)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.values())
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and list(self.values()) == list(other.values())

    def __hash__(self) -> int:
        return hash(repr(self))
