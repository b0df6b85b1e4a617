"""The table of mounts that a process sees, as text of the kernel's.

    findmnt --task $PID          cat /proc/$PID/mountinfo

A line says of a mount: its number, the number of the one it lies on, the device, which folder of the file system it
shows (its top), where, with which options, the kind and the source of the file system and that one's options.

man 5 proc_pid_mountinfo
"""

from __future__ import annotations


class MountLine:
    """One line of the table.

    id, parent: numbers, unique on the machine. device: "major:minor". top: the folder of the file system that is shown.
    point: where, as the process sees it. options: the mount's. fstype, source, settings: of the file system.
    """

    __slots__ = ("device", "fstype", "id", "options", "parent", "point", "settings", "source", "top")

    def __init__(self, line: str) -> None:
        """Read a line; raises ValueError for one that isn't of the table."""
        mount, _, rest = line.partition(" - ")
        number, parent, self.device, top, point, options = mount.split(" ")[:6]
        fstype, source, settings = rest.split(" ", 2)
        self.id, self.parent = int(number), int(parent)
        self.top, self.point, self.source = unescaped(top), unescaped(point), unescaped(source)
        self.options = options.split(",")
        self.fstype = fstype
        self.settings = unescaped(settings).split(",")

    def read_only(self) -> bool:
        """Whether nothing can be written through it."""
        return "ro" in self.options or "ro" in self.settings


def parse(text: str) -> list[MountLine]:
    """The lines of a table in the kernel's order, what lies on top later; lines that make no sense are left out."""
    found = []
    for line in text.split("\n"):
        try:
            found.append(MountLine(line))
        except ValueError:
            continue
    return found


def unescaped(text: str) -> str:
    """A field with its octal escapes (\\040 is a space) as the characters they stand for."""
    first, *parts = text.split("\\")
    for part in parts:
        digits = part[:3]
        whole = len(digits) == 3 and all(digit in "01234567" for digit in digits)
        first += chr(int(digits, 8)) + part[3:] if whole else "\\" + part
    return first


def by_id(mounts: list[MountLine], number: int) -> MountLine | None:
    """The mount of that number, if it is in the table."""
    return next((mount for mount in mounts if mount.id == number), None)


def at(mounts: list[MountLine], point: str) -> MountLine | None:
    """What lies uppermost on a mount point, if anything does."""
    return next((mount for mount in reversed(mounts) if mount.point == point), None)
