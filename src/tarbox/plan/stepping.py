"""Going through a plan step by step: each is shown before it is taken, and the user says how to go on.

    tarbox run --step IMAGE COMMAND        gdb's `next`, for a container

    Enter, n    take this step, and stop before the next
    c           take all that are left
    s           a shell to look around in
    p           the plan, and where we are
    q           leave; what was made is taken away
    ?           these words

man 7 namespaces
"""

from __future__ import annotations

from ..errors import TarboxError
from .explain import in_short, told
from .step import PARENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .plan import Plan

_WIDTH = 100
_HELP = """\
  Enter, n   take this step, and stop before the next
  c          go on to the end without stopping
  s          a shell to look around in; leave it with 'exit'
  p          the plan, and where we are
  q          leave: what was made is taken away
"""
_PROMPT = "[Enter: go on, c: to the end, s: shell, p: plan, q: leave, ?: help] "


class Left(TarboxError):
    """The user had seen enough."""


class Stepper:
    """Asks before each step of `plan`.

    names: the variables for values that are others each time. say: shows a text. ask: shows a prompt and returns the
    line that was typed, None at the end of the input. look: opens a shell.
    """

    __slots__ = ("_asks", "ask", "look", "names", "plan", "say")

    def __init__(
        self,
        plan: Plan,
        names: Mapping[str, str],
        say: Callable[[str], None],
        ask: Callable[[str], str | None],
        look: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.names = names
        self.say = say
        self.ask = ask
        self.look = look
        self._asks = True

    def before(self, index: int) -> None:
        """Show the step, and return when it is to be taken; raises Left when it isn't."""
        if not self._asks:
            return
        step = self.plan.steps[index]
        who = "tarbox, outside" if step.by == PARENT else "the first process, inside"
        self.say(
            f"\n{who}, step {index + 1} of {len(self.plan.steps)}:\n"
            + "\n".join(told(index + 1, step, self.names))
            + "\n"
        )
        while True:
            answer = self.ask(_PROMPT)
            word = "q" if answer is None else answer.strip()
            if word in ("", "n"):
                return
            if word == "c":
                self._asks = False
                return
            if word == "q":
                raise Left(f"left before step {index + 1} of {len(self.plan.steps)}; what was made is taken away")
            if word == "s":
                self.look()
            elif word == "p":
                self.say(self._overview(index))
            elif word == "?":
                self.say(_HELP)
            else:
                self.say(f"{word[:20]!r} means nothing here; ? shows what does\n")

    def _overview(self, now: int) -> str:
        """All steps in a line each, with a mark at the one that comes next."""
        lines = []
        for index, step in enumerate(self.plan.steps):
            mark = "->" if index == now else "ok" if index < now else "  "
            lines.append(f"{mark} {index + 1:3}  {in_short(step, self.names, _WIDTH)}")
        return "\n".join(lines) + "\n"
