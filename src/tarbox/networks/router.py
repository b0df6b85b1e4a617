"""The machine as a router for containers alone: what we change of it, and change back.

    nft add element inet tarbox closed4 '{ eth0 }'; sysctl -w net.ipv4.ip_forward=1

The kernel forwards for everybody or for nobody. Where it did for nobody, all interfaces that are there when we switch
it on are noted, and our rules drop what comes in by one of them and would leave by another, as the kernel did before.
Interfaces that come later are somebody's who knows: another engine's bridge, a tunnel. The last container's end changes
everything back, unless there is such a one; then others may rely on it by now, and it is theirs from then on.

The note is a file beside the leases, written before anything is changed. All of this is done under the lock of that
folder. Another data root's containers rely on the same switch: while there are any, the note and the rules stay, and
whoever is the last of all does the rest.

https://docs.kernel.org/networking/ip-sysctl.html
"""

from __future__ import annotations

from ..errors import KernelError, StorageError
from ..kernel.bridge import ALIAS
from ..kernel.forwarding import HOST_LISTENS, ROUTER_LISTENS, forwards, listeners
from ..kernel.links import links
from ..kernel.netlink import Netlink
from ..kernel.sysctl import ensure, setting
from ..unistd import os
from . import firewall, leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.links import Link
    from .firewall import Element

_SETTINGS = "/proc/sys/net"
_SWITCHES = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
_REDIRECTS = "ipv4/conf/all/accept_redirects"  # which the kernel sets itself, to the opposite of the switch
_OWN = {4: "forwarding", 6: "force_forwarding"}  # by which a single interface may be a router's
_ABSENT = 2  # ENOENT


class Note:
    """What we changed. table: the name of our rules.

    there: the interfaces at that time, by version of IP: whether each is closed. settings: by their paths, as they were
    before and as they are found when the switch is off again.
    """

    __slots__ = ("settings", "table", "there")

    def __init__(self, table: str = "") -> None:
        self.table = table
        self.there: dict[int, dict[str, bool]] = {4: {}, 6: {}}
        self.settings: dict[str, tuple[str, str]] = {}

    def elements(self) -> list[Element]:
        """What the rules have to know of it."""
        return [
            firewall.Element("inet", f"closed{version}", (name,))
            for version, names in self.there.items()
            for name, closed in names.items()
            if closed
        ]

    def text(self) -> str:
        """As the file has it."""
        lines = [f"table {self.table}"]
        for version, names in self.there.items():
            lines += [f"{'closed' if closed else 'open'} {version} {name}" for name, closed in names.items()]
        lines += [f"setting {path} {before} {after}" for path, (before, after) in self.settings.items()]
        return "".join(f"{line}\n" for line in lines)

    def look(self, version: int) -> None:
        """Note what there is, and what will be changed. What an earlier look saw is how it was before us."""
        found = {_SWITCHES[version]: ("0", "1")}
        with Netlink() as socket:
            names = [link.name for link in links(socket) if link.name != "lo" and not _is_ours(link)]
        for name in names:
            conf = f"ipv{version}/conf/{name}"
            self.there[version][name] = _value(f"{conf}/{_OWN[version]}") != "1"
            if _value(f"{conf}/forwarding") == "1":
                found[f"{conf}/forwarding"] = ("1", "0")
        if version == 4 and _value(_REDIRECTS) == "0":
            found[_REDIRECTS] = ("0", "1")
        for name in listeners() if version == 6 else ():
            found[f"ipv6/conf/{name}/accept_ra"] = (HOST_LISTENS, ROUTER_LISTENS)
        self.settings = {**found, **self.settings}

    def relied_on(self, version: int) -> bool:
        """Whether an interface came since that others may have made to forward packets to: any but hardware."""
        with Netlink() as socket:
            return any(
                link.kind and link.name not in self.there[version] and not _is_ours(link) for link in links(socket)
            )


def begin(folder: str, table: str, ipv6: bool) -> None:
    """Make the machine a router where it is none. folder: of all networks' state, locked. table: of our rules."""
    note = _read(folder)
    note.table = table
    versions = [version for version in ((4, 6) if ipv6 else (4,)) if not forwards(version)]
    for version in versions:
        note.look(version)
    _write(folder, note)
    firewall.add(table, note.elements(), folder)
    for path, (before, after) in note.settings.items():
        if path.endswith("/accept_ra") and before == HOST_LISTENS and 6 in versions:
            _put(path, before, after)
    for version in versions:
        ensure(f"{_SETTINGS}/{_SWITCHES[version]}", "1")


def closed(folder: str) -> list[Element]:
    """What rules that are made anew have to know."""
    return _read(folder).elements()


def table(folder: str) -> str:
    """The name of the rules of whoever noted something there, "" for nobody."""
    return _read(folder).table


def end(folder: str) -> bool:
    """Change back what was changed, once no container of this data root is left; whether the rules may go as well."""
    if any(leases.any_busy(other) for other in leases.others(folder)):
        return False
    note = _read(folder)
    for version, switch in _SWITCHES.items():
        if switch in note.settings and not note.relied_on(version):
            _put(switch, "1", "0")
            for path, (before, after) in note.settings.items():
                if path.startswith(f"ipv{version}/") and path != switch:
                    _put(path, after, before)
    for name in (f"{leases.ROUTER}.new", leases.ROUTER):
        try:
            os.unlink(f"{folder}/{name}")
        except FileNotFoundError:
            pass
    return True


def shell(table: str, bridge: str, switch: str, ipv6: bool) -> str:
    """The commands that do what `begin` does. switch: those that switch it on."""
    lines = []
    for version in (4, 6) if ipv6 else (4,):
        add = f'nft add element inet {table} closed{version} "{{ $device }}"'
        lines.append(
            f'[ "$(cat {_SETTINGS}/{_SWITCHES[version]})" = 1 ] || '
            f"for device in $(ip -br link | sed 's/[@ ].*//' | grep -vxE 'lo|{bridge}'); do {add}; done"
        )
    return "; ".join([*lines, switch])


def shell_end(table: str) -> str:
    """The commands that switch it off if the rules, which are there, close something and no bridge is left."""
    lines = []
    for version, path in _SWITCHES.items():
        name = path.replace("/", ".")
        lines.append(f"! nft list set inet {table} closed{version} | grep -q elements || sysctl -qw net.{name}=0")
    return f'[ -n "$(ip -o link show type bridge)" ] || {{ {"; ".join(lines)}; }}'


def _is_ours(link: Link) -> bool:
    """Whether it is a bridge of tarbox's, or a cable: whether those are in use is what leases say."""
    return link.alias == ALIAS if link.kind == "bridge" else link.kind == "veth" and link.name.startswith("tv")


def _value(path: str) -> str:
    return setting(f"{_SETTINGS}/{path}")


def _put(path: str, present: str, value: str) -> None:
    """Change a setting that is as we left it; the interface may be gone."""
    if _value(path) == present:
        try:
            ensure(f"{_SETTINGS}/{path}", value)
        except KernelError as error:
            if error.errno != _ABSENT:
                raise


def _read(folder: str) -> Note:
    note = Note()
    try:
        with open(f"{folder}/{leases.ROUTER}", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return note
    for line in lines:
        kind, first, *rest = line.split(" ")
        if kind == "table":
            note.table = first
        elif kind == "setting":
            note.settings[first] = (rest[0], rest[1])
        else:
            note.there[int(first)][rest[0]] = kind == "closed"
    return note


def _write(folder: str, note: Note) -> None:
    path = f"{folder}/{leases.ROUTER}"
    try:
        with open(f"{path}.new", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(note.text())
        os.rename(f"{path}.new", path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", "is it full, or read-only?") from None
