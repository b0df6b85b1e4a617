"""`--security-opt apparmor=…` and `label=…`: what the config says of the labels of security modules.

    --security-opt apparmor=PROFILE       aa-exec -p PROFILE
    --security-opt label=type:TYPE        runcon -t TYPE

AppArmor: where it is on and tarbox itself is free of it, root's containers get tarbox's own profile unless they are
privileged or told otherwise. The profile is loaded by the first container after the machine's start.

SELinux: a container gets a label only when one is asked for, as with Docker's daemon as it comes. What isn't said of it
is the policy's usual one for containers, and two categories by chance keep containers apart from each other.

man 7 apparmor, man 8 selinux, man 5 selinux_config
"""

from __future__ import annotations

from ..errors import UnsupportedError, UsageError
from ..kernel import apparmor
from ..unistd import os
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.step import Step
    from ..spec.runtime import Config
    from .machine import Machine
    from .options import RunOptions

DISABLE = "disable"
_PARTS = ("user", "role", "type", "level", "filetype")
_LONGEST = 1000  # bytes: a profile's name with its namespace, or a part of a context; the kernel takes a page
_SELINUX = "/sys/fs/selinux/enforce"
_FOLDER = "/etc/selinux"
_PROCESS, _FILE = "system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"
_CATEGORIES = 1024


def option(key: str, value: str) -> str:
    """The value of one --security-opt, apparmor or label, checked as far as that goes without the kernel."""
    whole = shorten(f"{key}={value}")
    printable = value.isprintable() and not value.startswith(" ") and not value.endswith(" ")
    if not value or not printable or len(os.fsencode(value)) > _LONGEST:
        hint = "a loaded profile's name, or unconfined" if key == "apparmor" else _hint()
        raise UsageError(f"{whole!r} names no {'profile' if key == 'apparmor' else 'label'}", hint)
    if key == "apparmor" or value == DISABLE:
        return value
    part, colon, said = value.partition(":")
    if value == "nested":
        raise UsageError(f"{whole!r}: a container that labels others isn't in this version of tarbox", "leave it out")
    if part not in _PARTS or not colon or not said:
        from .nearest import suggest

        near = suggest(part, _PARTS)
        raise UsageError(f"{whole!r} isn't a part of a label", f"did you mean {near}:…?" if near else _hint())
    return value


def _hint() -> str:
    return "user:, role:, type:, level: or filetype: and a value, or disable"


def add(made: Config, options: RunOptions, machine: Machine) -> None:
    """Write into a config which labels its processes and mounts get; raises UnsupportedError where that can't be."""
    profile = _profile(options, machine)
    if profile:
        made["process"]["apparmorProfile"] = profile
    if options.selinux and DISABLE not in options.selinux:
        if not os.path.exists(_SELINUX):
            raise UnsupportedError(
                f"--security-opt label={shorten(options.selinux[0])}: SELinux is off on this machine",
                "leave it out; label=disable is fine everywhere",
            )
        chosen = dict(entry.split(":", 1) for entry in options.selinux)
        made["process"]["selinuxLabel"], made["linux"]["mountLabel"] = contexts(chosen, _usual())


def _profile(options: RunOptions, machine: Machine) -> str:
    asked = options.apparmor
    if asked == apparmor.UNCONFINED:
        return ""
    if asked and not machine.apparmor:
        raise UnsupportedError(
            f"--security-opt apparmor={shorten(asked)}: AppArmor is off on this machine",
            "leave it out; apparmor=unconfined is fine everywhere",
        )
    if asked:
        return asked
    # Who is confined by a profile can't leave it, and neither can his containers. A plain user can load none.
    free = machine.apparmor == apparmor.UNCONFINED and machine.uid == 0
    return apparmor.DEFAULT if free and not options.privileged else ""


def load_default(made: Config, options: RunOptions, state: str, warnings: list[str], keep: bool) -> list[Step]:
    """The step that loads tarbox's own profile, if the container is to have it and it isn't loaded yet.

    Where no program can load it, the container goes without; that is said once, until the machine starts again.
    state: the state folder. warnings: where lines for the user go. keep: whether what was said may be noted there.
    """
    if made["process"].get("apparmorProfile") != apparmor.DEFAULT:
        return []
    mark = f"{state}/apparmor"
    if apparmor.is_loaded(apparmor.DEFAULT) and apparmor.is_marked(mark):
        return []
    if apparmor.parser():
        return [apparmor.LoadProfile(mark)]
    lacking = "AppArmor is on, but there is no apparmor_parser to load a profile with"
    if options.apparmor:
        raise UnsupportedError(f"--security-opt apparmor={apparmor.DEFAULT}: {lacking}", "install apparmor")
    del made["process"]["apparmorProfile"]
    said = f"{state}/apparmor-said"
    if not os.path.exists(said):
        warnings.append(f"{lacking}, so containers run unconfined by it (apt-get install apparmor)")
        if keep:
            os.close(os.open(said, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return []


def contexts(chosen: dict[str, str], usual: tuple[str, str], random: bytes = b"") -> tuple[str, str]:
    """SELinux's contexts of a container's processes and of its files.

    chosen: parts by name (`user`, `role`, `type`, `level` and, for files, `filetype`). usual: the policy's two contexts
    for containers. random: eight bytes that the categories are made of, for tests.
    """
    processes, files = usual[0].split(":", 3), usual[1].split(":", 3)
    level = chosen.get("level", "")
    if not level and len(processes) == 4:
        level = f"{processes[3].partition(':')[0]}:{_categories(random or os.urandom(8))}"
    for place, part in enumerate(("user", "role", "type")):
        processes[place] = chosen.get(part, processes[place])
    files[0], files[2] = chosen.get("user", files[0]), chosen.get("filetype", files[2])
    tail = [level] if level else []
    return ":".join([*processes[:3], *tail]), ":".join([*files[:3], *tail])


def _categories(random: bytes) -> str:
    """Two different ones, the lower first: so many pairs there are that two containers hardly ever share one."""
    first = int.from_bytes(random[:4], "little") % _CATEGORIES
    second = (first + 1 + int.from_bytes(random[4:], "little") % (_CATEGORIES - 1)) % _CATEGORIES
    return f"c{min(first, second)},c{max(first, second)}"


def _usual(folder: str = _FOLDER) -> tuple[str, str]:
    """What this machine's policy says of containers."""
    kind = _settings(f"{folder}/config").get("SELINUXTYPE", "targeted")
    found = _settings(f"{folder}/{kind}/contexts/lxc_contexts")
    return found.get("process", _PROCESS), found.get("file", _FILE)


def _settings(path: str) -> dict[str, str]:
    """The lines NAME = value of a file; none where it can't be read."""
    found: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(65536).splitlines()
    except OSError:
        return found
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and not name.lstrip().startswith("#"):
            found[name.strip()] = value.strip().strip('"')
    return found
