"""no_new_privs: from now on execve gives nothing more than one had, whatever the file's set-uid bit says.

    setpriv --no-new-privs COMMAND
    grep NoNewPrivs /proc/self/status

man 2 PR_SET_NO_NEW_PRIVS
"""

from __future__ import annotations

from ..plan.step import RUNNER, Row, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Slots

_PR_SET_NO_NEW_PRIVS = 38


class NoNewPrivileges(Step):
    """Switch no_new_privs on; it can't be switched off and every child inherits it."""

    __slots__ = ()

    phase = "privileges"
    why = "A set-uid file inside (sudo, su, ping) can't make its caller more powerful."
    man = "PR_SET_NO_NEW_PRIVS(2const)"

    def __init__(self, by: str = RUNNER) -> None:
        super().__init__(by)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("prctl", (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), self.call())]

    def call(self) -> str:
        return "prctl(PR_SET_NO_NEW_PRIVS, 1)"

    def shell(self) -> str:
        return "setpriv --no-new-privs COMMAND"
