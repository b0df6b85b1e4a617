"""The three files of /etc that an engine writes for a container: its names, and whom it asks for others.

    printf '127.0.0.1 localhost\n127.0.1.1 box\n' > hosts; mount --bind hosts $ROOT/etc/hosts

man 5 hosts, man 5 hostname, man 5 resolv.conf
"""

from __future__ import annotations

from ..errors import KernelError
from ..kernel import mounts
from ..kernel.mount_points import place_rows, refuse_proc, tree_of
from ..kernel.paths import Beyond
from ..plan.step import PARENT, RUNNER, Register, Row, Slots, Step
from ..unistd import os
from . import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import TarboxError
    from .names import Attached
    from .options import RunOptions

_OPTIONS, _ATTRIBUTES = ("size=1m", "mode=755"), ("nosuid", "nodev", "noexec")


def render(
    hostname: str, domainname: str, options: RunOptions, warnings: list[str], attached: Attached | None = None
) -> dict[str, str]:
    """The files' texts by name; what a user should know of them is added to `warnings`.

    hostname: "" where it isn't known. attached: where the container has a network of its own that leads somewhere.
    Raises UsageError for `--add-host` with the host's address where there is none.
    """
    full = f"{hostname}.{domainname} {hostname}" if domainname and hostname else hostname
    found = {"hostname": f"{hostname}\n"} if hostname else {}
    found["hosts"] = names.hosts(full, options, attached)
    found["resolv.conf"] = names.resolver(options, attached, warnings)
    return found


class MakeFiles(Step):
    """Write small files into a file system in memory that only the container will have, and find their places in /etc.

    files: their texts by name. options: of the file system.
    """

    __slots__ = ("files", "options")

    kind = "tmpfs"

    phase = "filesystem"
    why = "the container's own host name has to be found under its own name; the image can't know it"
    man = "hosts(5), resolv.conf(5)"

    def __init__(self, files: dict[str, str]) -> None:
        super().__init__(PARENT)
        self.files = files
        self.options: tuple[str, ...] = _OPTIONS

    def takes(self) -> tuple[str, ...]:
        return ("tree",)

    def gives(self) -> tuple[str, ...]:
        return ("files", *(f"place /etc/{name}" for name in self.files))

    def apply(self, slots: Slots) -> None:
        memory = mounts.new_filesystem("tmpfs", self.options, _ATTRIBUTES)
        slots.give("files", memory)
        tree = tree_of(slots)
        for name, text in self.files.items():
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=memory)
            try:
                os.write(descriptor, text.encode("utf-8", "surrogateescape"))
            finally:
                os.close(descriptor)
            target, slot = f"/etc/{name}", f"place /etc/{name}"
            try:
                place = tree.find(target, os.O_PATH, 0o755, 0o644)[1]
            except KernelError as error:
                hint = mounts.REASONS.get(error.errno, error.hint)
                raise KernelError("openat2", (target, "RESOLVE_IN_ROOT"), error.errno, hint) from None
            if isinstance(place, Beyond):
                slots.found[slot] = place
            else:
                slots.give(slot, place)
            refuse_proc(tree, place, target)

    def call(self) -> str:
        made = f'fsmount("tmpfs", "{",".join((*_ATTRIBUTES, *self.options))}")'
        return "; ".join([made, *(f'write("{name}"), openat2(ROOT, "/etc/{name}")' for name in self.files)])

    def shell(self) -> str:
        from ..plan.shell import written

        folder = '"$TREES/files"'
        made = [f"mkdir {folder}", f"mount -t tmpfs -o {','.join((*_ATTRIBUTES, *self.options))} tmpfs {folder}"]
        return "; ".join([*made, *(f"{written(text)} > {folder}/{name}" for name, text in self.files.items())])


class MountFiles(Step):
    """Mount those files at their places in /etc.

    names: of the files. folder: a directory of the host over which their file system lies meanwhile, in the
    container's own mount namespace; it goes when the old root goes.
    """

    __slots__ = ("folder", "names")

    phase = "filesystem"
    why = "each file is mounted alone: the rest of /etc is the image's"
    man = "open_tree(2), move_mount(2)"

    def __init__(self, folder: str, names: tuple[str, ...]) -> None:
        super().__init__(RUNNER)
        self.folder = folder
        self.names = names

    def takes(self) -> tuple[str, ...]:
        return ("files", *(f"place /etc/{name}" for name in self.names))

    def rows(self, slots: Slots) -> list[Row]:
        memory = slots.take("files")
        rows = [Row("move_mount", (memory, b"", mounts.AT_FDCWD, os.fsencode(self.folder), 4))]
        for name in self.names:
            opening, place = place_rows(slots, f"place /etc/{name}")
            clone = mounts.OPEN_TREE_CLONE | mounts.OPEN_TREE_CLOEXEC
            rows += [*opening, Row("open_tree", (memory, name.encode(), clone), store=3)]
            rows.append(mounts.attaching(Register(3), place))
        return rows

    def explain(self, row: int, errno: int, slots: Slots) -> TarboxError:
        name = self.names[max(0, row - 1) // 2] if len(self.names) * 2 + 1 > row else self.names[-1]
        return KernelError("move_mount", (f"/etc/{name}",), errno, mounts.REASONS.get(errno, ""))

    def call(self) -> str:
        made = f'move_mount(files, "{self.folder}")'
        return "; ".join([made, *(f'move_mount(open_tree("{name}"), "/etc/{name}")' for name in self.names)])

    def shell(self) -> str:
        return "; ".join(f'mount --bind "$TREES/files/{name}" "$ROOT/etc/{name}"' for name in self.names)
