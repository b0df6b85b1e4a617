"""The session keyring: the kernel's own store of keys, tickets and tokens, which no namespace separates.

    keyctl session - COMMAND

man 7 session-keyring, man 2 keyctl
"""

from __future__ import annotations

from ..plan.step import RUNNER, Row, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Slots

_KEYCTL_JOIN_SESSION_KEYRING = 1


class NewKeyring(Step):
    """Leave the caller's session keyring for a new one without a name, which nobody else can join.

    The start goes on where the kernel has no keyrings, forbids them, or the user's quota of keys is used up.
    """

    __slots__ = ()

    phase = "privileges"
    why = "The keys of the session that started the container stay out of the program's sight."
    man = "keyctl_join_session_keyring(3)"

    def __init__(self, by: str = RUNNER) -> None:
        super().__init__(by)

    def rows(self, slots: Slots) -> list[Row]:
        return [Row("keyctl", (_KEYCTL_JOIN_SESSION_KEYRING, 0), self.call(), optional=True)]

    def call(self) -> str:
        return "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)"

    def shell(self) -> str:
        return "keyctl session - COMMAND"
