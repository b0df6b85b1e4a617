"""The UTS namespace: a host name of one's own.

    unshare --uts sh -c 'hostname box; hostname'

man 7 uts_namespaces, man 2 sethostname
"""

from __future__ import annotations

from ..plan.step import RUNNER, Row, Slots, Step
from ..unistd import os


class HostName(Step):
    """Set the host name."""

    __slots__ = ("name",)

    phase = "namespaces"
    why = "the container answers to its own name, and the host keeps its own"
    man = "sethostname(2), uts_namespaces(7)"

    def __init__(self, name: str, by: str = RUNNER) -> None:
        super().__init__(by)
        self.name = name

    def rows(self, slots: Slots) -> list[Row]:
        name = os.fsencode(self.name)
        return [Row("sethostname", (name, len(name)))]

    def call(self) -> str:
        return f'sethostname("{self.name}")'

    def shell(self) -> str:
        return f"hostname {self.name}"


class DomainName(Step):
    """Set the NIS domain name."""

    __slots__ = ("name",)

    phase = "namespaces"
    why = "the domain name is the other half of what a UTS namespace keeps"
    man = "setdomainname(2)"

    def __init__(self, name: str, by: str = RUNNER) -> None:
        super().__init__(by)
        self.name = name

    def rows(self, slots: Slots) -> list[Row]:
        name = os.fsencode(self.name)
        return [Row("setdomainname", (name, len(name)))]

    def call(self) -> str:
        return f'setdomainname("{self.name}")'

    def shell(self) -> str:
        return f"domainname {self.name}"
