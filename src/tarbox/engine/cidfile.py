"""`--cidfile FILE`: the container's id in a file, for scripts. Loaded only when it is given.

    set -C; printf %s ID > FILE

The file stays when the container has gone, as Docker's does: who wrote the script knows when it's of no more use.

man 2 open (O_EXCL)
"""

from __future__ import annotations

from ..errors import StorageError, UsageError
from ..plan.step import PARENT, Slots, Step
from ..unistd import os


class WriteId(Step):
    """Write the container's id into a file, which mustn't be there yet."""

    __slots__ = ("id", "path")

    phase = "host"
    why = "A script can find the container by its id; a file of another container is never overwritten."
    man = "open(2)"

    def __init__(self, path: str, id: str) -> None:
        super().__init__(PARENT)
        self.path = path
        self.id = id

    def apply(self, slots: Slots) -> None:
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise there_already(self.path) from None
        except OSError as error:
            raise StorageError(f"--cidfile {self.path}: {error.strerror}", "is the directory there?") from None
        try:
            os.fchmod(file, 0o644)
            os.write(file, self.id.encode())
        except OSError as error:
            os.unlink(self.path)
            raise StorageError(f"--cidfile {self.path}: {error.strerror}") from None
        finally:
            os.close(file)

    def call(self) -> str:
        return f'open("{self.path}", O_CREAT|O_EXCL, 0644), write("{self.id}")'

    def shell(self) -> str:
        from ..plan.shell import quote

        return f"(set -C; printf %s {self.id} > {quote(self.path)})"


def step(path: str, id: str) -> WriteId:
    """The step for a path; raises UsageError when something is there, before anything is done."""
    if os.path.lexists(path):
        raise there_already(path)
    return WriteId(path, id)


def there_already(path: str) -> UsageError:
    """The error for a file that exists."""
    return UsageError(
        f"--cidfile {path}: the file is there already", "remove it once the container that it names has ended"
    )
