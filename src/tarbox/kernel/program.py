"""The container's program: where a name is looked for, and the call that starts it.

    command -v NAME; exec NAME

man 3 execvp, man 2 execve
"""

from __future__ import annotations

from ..errors import CommandNotFoundError, KernelError
from ..plan.step import RUNNER, Row, Slots, Step
from ..unistd import os
from .runner import execution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError


def candidates(name: str, path: str) -> list[str]:
    """The paths that are tried for a program, in their order; raises CommandNotFoundError when there is none.

    name: as given; one without a slash is looked for along `path`, the value of PATH.
    """
    if not name:
        raise CommandNotFoundError("the command is an empty name", "is a variable in it unset?")
    if "/" in name:
        return [name]
    if not path:
        raise CommandNotFoundError(f"there is no program {short(name)} in the container", "the container has no PATH")
    return [f"{directory or '.'}/{name}" for directory in path.split(":")]


def short(path: str) -> str:
    """A path as it stands in a message."""
    return path if len(path) <= 200 else path[:197] + "..."


class Execute(Step):
    """The container's program takes the place of the runner, or becomes its child with `init`.

    path: the program's, in the container; a name without a slash is looked for along `search`, the value of PATH.
    arguments: what it is given, its own name first. environment: NAME=value each. directory: the working directory, for
    telling why it didn't start. It is the last step; whoever carries out a plan hands `program()` to the runner.
    """

    __slots__ = ("arguments", "directory", "environment", "init", "path", "search")

    executes = True
    phase = "exec"
    why = "From here on the process is the container's own program."
    man = "execve(2)"

    def __init__(
        self,
        path: str,
        arguments: tuple[str, ...],
        environment: tuple[str, ...] = (),
        init: bool = False,
        search: str = "",
        directory: str = "/",
    ) -> None:
        super().__init__(RUNNER)
        self.path = path
        self.arguments = arguments
        self.environment = environment
        self.init = init
        self.search = search
        self.directory = directory

    def program(self) -> tuple[list[bytes], list[bytes]]:
        """The arguments and the environment of the program."""
        return [os.fsencode(argument) for argument in self.arguments], [os.fsencode(it) for it in self.environment]

    def rows(self, slots: Slots) -> list[Row]:
        rows = execution([os.fsencode(path) for path in candidates(self.path, self.search)])
        return [Row("init", ()), *rows] if self.init else rows

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        if row == 0 and self.init:
            return KernelError("clone", ("SIGCHLD",), errno)
        from .mount_points import tree_of
        from .obstacles import explain

        if "tree" not in slots.descriptors:  # no other root than ours
            slots.give("tree", os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return explain(tree_of(slots), self.directory, self.path, self.search, errno)

    def call(self) -> str:
        """The values of variables aren't shown: they may be secrets."""
        shown = ", ".join(f'"{argument}"' for argument in self.arguments)
        place = self.path if "/" in self.path else f"{{{self.search}}}/{self.path}"
        execve = f'execve("{place}", [{shown}], {len(self.environment)} variables)'
        return f"clone(SIGCHLD); {execve}; rt_sigtimedwait(…); wait4(-1, …)" if self.init else execve

    def shell(self) -> str:
        """As typed; the program's own name can only differ from its path in bash."""
        from ..plan.shell import quote

        words = [quote(word) for word in (self.path, *self.arguments[1:])]
        return " ".join(["tini", "--", *words] if self.init else ["exec", *words])
