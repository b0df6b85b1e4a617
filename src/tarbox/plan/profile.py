"""A profile: how long each step of a run took, and what came before and after them.

    tarbox run --profile IMAGE COMMAND        strace -f -r tarbox run IMAGE COMMAND, without strace's own time

The parent's steps are timed by its clock as each begins. The runner leaves a mark after each of its steps, which the
kernel stamps with the time when it is written. One step ends where the next begins, so that nothing is left out: what
stands for a step includes making its call, and some microseconds for the mark.

man 7 time
"""

from __future__ import annotations

from .explain import in_short
from .step import PARENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .plan import Plan

_BAR = 20  # letters
_CALL = 60  # letters of a call at most
_ERROR = (
    "Each time is from the beginning of a step to that of the next, in milliseconds, with an error of some",
    "0.002 ms; that of the last step is up to 0.1 ms too long, as this process has to notice its end. The",
    "first line is processor time: when a process was started, the kernel tells in hundredths of a second only.",
)


class Profile:
    """The times of one run, in nanoseconds of one clock.

    before: processor time up to the moment in which the profile began, began: that moment. steps: when each step of
    the plan began, by its index. names: the variables for values that are others each time. started, ended, cleaned:
    when the program ran, had ended, and all was taken away. code: its exit code.
    """

    __slots__ = ("before", "began", "cleaned", "code", "ended", "names", "plan", "started", "steps")

    def __init__(self, began: int, before: int) -> None:
        self.plan: Plan | None = None
        self.before = before
        self.began = began
        self.steps: dict[int, int] = {}
        self.started = self.ended = self.cleaned = 0
        self.code = 0
        self.names: Mapping[str, str] = {}

    def times(self) -> list[tuple[int, int]]:
        """(index, how long it took) of each step that was timed, in their order.

        Steps without a time of their own, after a filter that doesn't let a mark through, are in the one before them.
        """
        begun = sorted(self.steps.items())
        ends = [*(time for _, time in begun[1:]), self.started]
        return [(index, max(0, end - time)) for (index, time), end in zip(begun, ends, strict=True)]

    def parts(self) -> list[tuple[str, int]]:
        """What isn't a step, before and after them, and the sum: (what it is, how long it took)."""
        first = min(self.steps.values(), default=self.started)
        return [
            ("Python's start and its modules", self.before),
            ("the plan: options, image, machine", first - self.began),
            ("all steps", self.started - first),
            ("the program", self.ended - self.started),
            ("taking away", self.cleaned - self.ended),
        ]

    def phases(self) -> list[tuple[str, str, int]]:
        """(phase, process, how long its steps took), in the order of their first steps."""
        assert self.plan
        sums: dict[tuple[str, str], int] = {}
        for index, time in self.times():
            step = self.plan.steps[index]
            sums[step.phase, step.by] = sums.get((step.phase, step.by), 0) + time
        return [(phase, by, time) for (phase, by), time in sums.items()]

    def table(self) -> str:
        """All of it for people."""
        assert self.plan
        times = self.times()
        whole = max(1, sum(time for _, time in times))
        most = max(1, *(time for _, time in times))
        lines = ["   ms     %  step"]
        by = ""
        for index, time in times:
            step = self.plan.steps[index]
            if step.by != by:
                by = step.by
                lines.append(f"-- {'tarbox, outside' if by == PARENT else 'the first process, inside'} --")
            call = in_short(step, self.names, _CALL)
            bar = "#" * round(time * _BAR / most)
            lines.append(f"{_ms(time)} {time * 100 / whole:5.1f}  {index + 1:3} {call.ljust(_CALL)} {bar}".rstrip())
        lines += ["", "   ms        phase"]
        lines += [
            f"{_ms(time)} {time * 100 / whole:5.1f}  {phase} ({'outside' if by == PARENT else 'inside'})"
            for phase, by, time in self.phases()
        ]
        lines += ["", "   ms        all"]
        parts = self.parts()
        lines += [f"{_ms(time)}        {what}" for what, time in parts]
        lines += [f"{_ms(sum(time for _, time in parts))}        together", "", *_ERROR]
        return "\n".join(lines) + "\n"

    def document(self) -> dict[str, Any]:
        """All of it as JSON has it; times in seconds."""
        assert self.plan
        parts = dict(zip(("python", "plan", "steps", "program", "clean_up"), self.parts(), strict=True))
        return {
            "exit_code": self.code,
            "seconds": {name: time / 1e9 for name, (_, time) in parts.items()},
            "phases": [{"phase": phase, "by": by, "seconds": time / 1e9} for phase, by, time in self.phases()],
            "steps": [
                {
                    "number": index + 1,
                    "step": type(self.plan.steps[index]).__name__,
                    "by": self.plan.steps[index].by,
                    "phase": self.plan.steps[index].phase,
                    "call": self.plan.steps[index].call(),
                    "seconds": time / 1e9,
                }
                for index, time in self.times()
            ],
        }


def _ms(time: int) -> str:
    return f"{time / 1e6:8.3f}"
