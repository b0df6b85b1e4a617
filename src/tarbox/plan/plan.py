"""A plan: all steps of a container in one total order, with the places where one process hands over to the next.

The order alone says who waits for whom: where the `by` of two neighbouring steps differs there is a handover, and the
messages between the processes are derived from that list, never written by hand.
"""

from __future__ import annotations

from .step import PARENT, RUNNER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .step import Step


class Handover:
    """The change of hands before the step `index`; `slots` are the descriptors that cross with it."""

    __slots__ = ("index", "receiver", "sender", "slots")

    def __init__(self, index: int, sender: str, receiver: str) -> None:
        self.index = index
        self.sender = sender
        self.receiver = receiver
        self.slots: tuple[str, ...] = ()

    def __repr__(self) -> str:
        crossing = f" with {', '.join(self.slots)}" if self.slots else ""
        return f"{self.index}: {self.sender} to {self.receiver}{crossing}"


class Plan:
    """The checked list. Raises ValueError, which is a mistake in a planner, when a step's needs can't be met.

    steps: in the order in which they are done. given: slots that are filled before the first step.
    """

    __slots__ = ("handovers", "spawn", "steps")

    def __init__(self, steps: Sequence[Step], given: Sequence[str] = ()) -> None:
        self.steps = tuple(steps)
        spawns = [index for index, step in enumerate(self.steps) if step.spawns]
        if len(spawns) != 1:
            raise ValueError(f"a plan has one step that makes a process; this one has {len(spawns)}")
        self.spawn = spawns[0]
        self.handovers = _handovers(self.steps)
        _check(self.steps, self.handovers, self.spawn, given)

    def handover(self, index: int) -> Handover | None:
        """The handover before the step `index`."""
        for handover in self.handovers:
            if handover.index == index:
                return handover
        return None

    def records(self) -> list[tuple[str, str]]:
        """What all steps leave on the host, in their order, for the journal."""
        return [record for step in self.steps for record in step.record()]


def _handovers(steps: tuple[Step, ...]) -> tuple[Handover, ...]:
    return tuple(
        Handover(index, steps[index - 1].by, step.by)
        for index, step in enumerate(steps)
        if index and step.by != steps[index - 1].by
    )


def _check(steps: tuple[Step, ...], handovers: tuple[Handover, ...], spawn: int, given: Sequence[str]) -> None:
    """Every slot and value is there before it's needed; what must cross is put on the handover."""
    holders: dict[str, str] = dict.fromkeys(given, PARENT)
    known: set[str] = set()
    for index, step in enumerate(steps):
        if index <= spawn and step.by != PARENT:
            raise ValueError(f"{step!r} comes before there is a {step.by}")
        if index and steps[index - 1].by == RUNNER != step.by:
            raise ValueError(f"{step!r} comes after the {RUNNER} has taken over")
        for name in step.takes():
            holder = holders.get(name)
            if holder is None:
                raise ValueError(f"{step!r} takes {name}, which no step before it gives")
            if holder != step.by and name not in handovers[-1].slots:
                handovers[-1].slots += (name,)
        for name in step.uses():
            if name not in known:
                raise ValueError(f"{step!r} uses {name}, which nothing before it finds")
        holders.update(dict.fromkeys(step.gives(), step.by))
        known.update(step.finds())
