"""Overlay file systems: layers that are read only, one on top that takes the writes, and the merged view.

    mount -t overlay overlay -o lowerdir=/lower,upperdir=/upper,workdir=/work /merged

What is changed is first copied up; what is deleted is covered by a "whiteout" in the upper directory. So many
containers share one unpacked image, and a new one costs two empty directories.

man 5 overlayfs (Documentation/filesystems/overlayfs.rst)
"""

from __future__ import annotations

from errno import EINVAL

from ..errors import KernelError, StorageError, UnsupportedError
from ..plan.step import PARENT, Slots, Step
from ..unistd import os
from . import mounts
from .syscall import syscall

REFUSED = "choose a data root on another file system with --root, or keep the writes in memory with --root-tmpfs SIZE"
_LONGEST = 255  # bytes of one value that fsconfig(2) takes


class MakeScratch(Step):
    """Make a container's own directories on disk, for what it writes.

    path: the directory, which is taken away with the container. names: of those inside it, as paths. like: a
    directory whose mode and owner the ones named "upper" get, since an overlay shows those of its upper directory.
    """

    __slots__ = ("like", "names", "path")

    phase = "host"
    why = "everything that the container writes lands here, and the image stays as it is"
    man = "mkdir(2)"

    def __init__(self, path: str, names: tuple[str, ...], like: tuple[str, ...] = ()) -> None:
        super().__init__(PARENT)
        self.path = path
        self.names = names
        self.like = like

    def record(self) -> tuple[tuple[str, str], ...]:
        return (("tree", self.path),)

    def apply(self, slots: Slots) -> None:
        try:
            os.mkdir(self.path, 0o700)
            for name in self.names:
                os.mkdir(f"{self.path}/{name}", 0o755)
            for upper, like in zip((name for name in self.names if name.endswith("upper")), self.like, strict=False):
                self._copy_owner(f"{self.path}/{upper}", like, slots)
        except OSError as error:
            hint = "choose another data root with --root"
            raise StorageError(f"cannot make {self.path}: {error.strerror}", hint) from None

    def _copy_owner(self, made: str, like: str, slots: Slots) -> None:
        facts = os.stat(like)
        user, group = facts.st_uid, facts.st_gid
        if "owners" in slots.found:
            from .idmap import owner

            user, group = owner(slots, user, group)
        if (user, group) != (os.geteuid(), os.getegid()):
            try:
                os.chown(made, user, group)
            except PermissionError:  # a plain user owns all that is shown to the container anyway
                pass
        os.chmod(made, facts.st_mode & 0o7777)

    def call(self) -> str:
        return ", ".join(f'mkdir("{path}")' for path in self._paths())

    def shell(self) -> str:
        from ..plan.shell import quote

        made = [f"mkdir -m 700 {quote(self.path)}"]
        if inner := " ".join(quote(path) for path in self._paths()[1:]):
            made.append(f"mkdir {inner}")
        uppers = [f"{self.path}/{name}" for name in self.names if name.endswith("upper")]
        for upper, like in zip(map(quote, uppers), map(quote, self.like), strict=False):
            made += [f"chown --reference={like} {upper}", f"chmod --reference={like} {upper}"]
        return " && ".join(made)

    def _paths(self) -> list[str]:
        return [self.path, *(f"{self.path}/{name}" for name in self.names)]


class OpenOverlay(Step):
    """Make the merged view of layers and a writable directory, attached nowhere yet.

    slot: what to call it. lower: the layers' directories, topmost first. upper, work: two directories of one file
    system; none for a view that is read only. options: e.g. "volatile" (never synced: for what is thrown away).
    """

    __slots__ = ("lower", "options", "slot", "upper", "work")

    phase = "filesystem"
    why = "the image's layers stay read only; writes go to the upper directory, and the container sees them merged"
    man = "mount(2), overlayfs"

    def __init__(
        self, slot: str, lower: tuple[str, ...], upper: str = "", work: str = "", options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(PARENT)
        self.slot = slot
        self.lower = lower
        self.upper = upper
        self.work = work
        self.options = options

    def gives(self) -> tuple[str, ...]:
        return (self.slot,)

    def apply(self, slots: Slots) -> None:
        opened: list[int] = []
        try:
            slots.give(self.slot, self._open(opened))
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _open(self, opened: list[int]) -> int:
        try:
            return self._mounted(opened)
        except KernelError as error:
            if error.errno != EINVAL:
                raise
        return self._mounted(opened, listed=True)

    def _mounted(self, opened: list[int], listed: bool = False) -> int:
        """listed: give the layers as a list. Linux before 6.7 knows nothing else, and may say so only at the end."""
        try:
            context = syscall("fsopen", b"overlay", 1)
        except KernelError:
            hint = "try 'modprobe overlay', or run a directory, which needs none: tarbox run ./rootfs"
            raise UnsupportedError("this kernel has no overlay file system", hint) from None
        opened.append(context)
        try:
            if listed:
                self._set(context, "lowerdir", self._list(opened), opened)
            else:
                for layer in self.lower:
                    self._set(context, "lowerdir+", layer, opened)
            if self.upper:
                self._set(context, "upperdir", self.upper, opened)
                self._set(context, "workdir", self.work, opened)
            for option in self.options:
                name, equals, value = option.partition("=")
                if equals:
                    syscall("fsconfig", context, 1, name.encode(), value.encode(), 0)
                else:
                    syscall("fsconfig", context, 0, name.encode(), None, 0)
            syscall("fsconfig", context, 6, None, None, 0)
            return syscall("fsmount", context, 1, 0)
        except KernelError as error:
            said = mounts.complaint(context)
            if said.endswith("not supported as upperdir"):
                raise UnsupportedError(f"overlay refuses the file system of {self.upper} for writes", REFUSED) from None
            hint = said or "the data root may be on a file system that overlay refuses; choose another with --root"
            raise KernelError("mount", ("overlay", self.shown()), error.errno, hint, self.shell()) from None

    def _list(self, opened: list[int]) -> str:
        """The layers in one value, by descriptor, so that no name needs to be short or escaped."""
        layers = [os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for layer in self.lower]
        opened += layers
        text = ":".join(f"/proc/self/fd/{layer}" for layer in layers)
        if len(text) > _LONGEST:
            raise UnsupportedError(f"before Linux 6.7 overlay takes no {len(layers)} layers like this", "lay fewer")
        return text

    @staticmethod
    def _set(context: int, name: str, value: str, opened: list[int]) -> None:
        text = os.fsencode(value)
        if len(text) > _LONGEST and name != "lowerdir":
            opened.append(os.open(value, os.O_PATH | os.O_CLOEXEC))
            text = f"/proc/self/fd/{opened[-1]}".encode()
        syscall("fsconfig", context, 1, name.encode(), text, 0)

    def shown(self) -> str:
        """The options as mount(8) takes them."""
        lower = (_escaped(path).replace(":", "\\:") for path in self.lower)
        options = [f"lowerdir={':'.join(lower)}"]
        if self.upper:
            options += [f"upperdir={_escaped(self.upper)}", f"workdir={_escaped(self.work)}"]
        return ",".join([*options, *self.options])

    def call(self) -> str:
        return f'mount("overlay", …, "overlay", 0, "{self.shown()}")'

    def shell(self) -> str:
        from ..plan.shell import quote, staged

        return f"mount -t overlay -o {quote(self.shown())} none {staged(self.slot)}"


def drop_marker(work: str) -> None:
    """Remove the kernel's note that what is below `work` was never synced, so that nobody mounts it another time.

    For directories that are thrown away, which can be begun while they are in use: the kernel looks for the note when
    it mounts, and at no other time. Nothing is said of what can't be removed; who removes the rest will meet it.
    """
    note = os.path.join(work, "work", "incompat")
    try:
        os.unlink(f"{note}/volatile/dirty")
        os.rmdir(f"{note}/volatile")
        os.rmdir(note)
    except OSError:  # not volatile, or in memory, where the host sees none of it
        pass


def _escaped(path: str) -> str:
    """A path among options that commas separate."""
    return path.replace("\\", "\\\\").replace(",", "\\,")
