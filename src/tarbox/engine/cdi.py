"""The files of the Container Device Interface on this machine, and which of them a name means.

    ls /etc/cdi/*.json /var/run/cdi/*.json         nvidia-ctk cdi list, for one vendor's

Both folders count, and what is in the second goes before what is in the first. Within a folder no two files may
describe the same device. A file that can't be read does no harm until a device isn't found without it.

https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from __future__ import annotations

from ..errors import ConfigError, UnsupportedError, UsageError
from ..spec.cdi import edits_of, read
from ..unistd import S_ISREG, os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..spec.cdi import ContainerEdits, Spec
    from .devices import CdiName

FOLDERS = ("/etc/cdi", "/var/run/cdi")
_LARGEST = 4 << 20  # bytes of one file
_YAML = (".yaml", ".yml")


class Files:
    """What the folders hold. specs: (place in the order, path, specification). broken: an error for each other file.

    yaml: the paths of those that are written in YAML, which tarbox doesn't read.
    """

    __slots__ = ("broken", "folders", "specs", "yaml")

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self.folders = tuple(folders) or FOLDERS
        self.specs: list[tuple[int, str, Spec]] = []
        self.broken: list[ConfigError] = []
        self.yaml: list[str] = []
        for order, folder in enumerate(self.folders):
            try:
                names = sorted(os.listdir(folder))
            except FileNotFoundError:
                if folders:
                    raise UsageError(f"--cdi-spec-dir {folder}: there is no such directory") from None
                continue
            except OSError as error:
                self.broken.append(ConfigError(folder, f"can't be read: {error.strerror}"))
                continue
            for name in names:
                path = f"{folder}/{name}"
                if name.endswith(_YAML):
                    self.yaml.append(path)
                elif name.endswith(".json"):
                    self._add(order, path)

    def _add(self, order: int, path: str) -> None:
        try:
            self.specs.append((order, path, read(_contents(path), path)))
        except ConfigError as error:
            self.broken.append(error)

    def edits(self, wanted: Sequence[CdiName]) -> Iterator[tuple[str, ContainerEdits]]:
        """What the devices add, in order, each with its file and JSON path; raises what says why one can't be had.

        What a file says of all its devices comes before the first of them.
        """
        begun: list[str] = []
        for asked in wanted:
            for path, spec, index in self._find(asked):
                if path not in begun:
                    begun.append(path)
                    yield f"{path}: $.containerEdits", edits_of(spec)
                yield f"{path}: $.devices[{index}].containerEdits", edits_of(spec, spec["devices"][index])

    def _find(self, asked: CdiName) -> list[tuple[str, Spec, int]]:
        found: dict[str, list[tuple[int, str, Spec, int]]] = {}
        for order, path, spec in self.specs:
            if spec["kind"] == asked.kind:
                for index, device in enumerate(spec["devices"]):
                    found.setdefault(device["name"], []).append((order, path, spec, index))
        if asked.name in found:
            return [self._first(asked, found[asked.name])]
        if asked.name == "all" and found:  # many vendors describe a device of that name, and then it's what is meant
            return [self._first(asked, places) for places in found.values()]
        raise self._missing(asked, list(found))

    @staticmethod
    def _first(asked: CdiName, places: list[tuple[int, str, Spec, int]]) -> tuple[str, Spec, int]:
        highest = max(order for order, *_ in places)
        best = [(path, spec, index) for order, path, spec, index in places if order == highest]
        if len(best) > 1:
            raise UsageError(
                f"{asked.option}: both {best[0][0]} and {best[1][0]} describe it", "take it out of one of the files"
            )
        return best[0]

    def _missing(self, asked: CdiName, names: list[str]) -> Exception:
        folders = " and ".join(self.folders)
        if names:
            from .nearest import suggest

            near = suggest(asked.name, names)
            shown = ", ".join(names[:10]) + (" …" if len(names) > 10 else "")
            hint = f"did you mean {asked.kind}={near}?" if near else f"it has {shown}"
            return UsageError(f"{asked.option}: {asked.kind} has no device {asked.name!r}", hint)
        if self.broken:
            error = self.broken[0]
            return ConfigError(error.path, str(error).removeprefix(f"{error.path}: "), f"for {asked.option}")
        if self.yaml:
            return UnsupportedError(
                f"{asked.option}: no JSON file in {folders} describes {asked.kind}, and {self.yaml[0]} is YAML, which"
                " tarbox doesn't read",
                _converted(asked.kind, self.yaml[0]),
            )
        kinds = sorted({spec["kind"] for _, _, spec in self.specs})
        hint = _converted(asked.kind, "")
        if kinds and not hint:
            from .nearest import suggest

            near = suggest(asked.kind, kinds)
            hint = f"did you mean {near}={asked.name}?" if near else "they describe " + ", ".join(kinds[:10])
        return UnsupportedError(
            f"{asked.option}: no CDI file in {folders} describes {asked.kind}",
            hint or "the device's vendor has a program that writes one; --cdi-spec-dir names another folder",
        )


def _converted(kind: str, yaml: str) -> str:
    """How a file in JSON is made."""
    if kind == "nvidia.com/gpu":
        return "nvidia-ctk cdi generate --format=json --output=/etc/cdi/nvidia.json"
    return f"write it as JSON beside it: yq -o json {yaml} > {yaml.rpartition('.')[0]}.json" if yaml else ""


def _contents(path: str) -> bytes:
    try:
        # Not blocking, as the name may be a FIFO's that nobody writes to.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
    try:
        if not S_ISREG(os.fstat(file).st_mode):
            raise ConfigError(path, "isn't a regular file")
        parts: list[bytes] = []
        while part := os.read(file, 1 << 20):
            parts.append(part)
            if sum(map(len, parts)) > _LARGEST:
                raise ConfigError(path, f"has more than {_LARGEST >> 20} MiB")
        return b"".join(parts)
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
    finally:
        os.close(file)
