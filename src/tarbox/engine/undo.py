"""How each kind of thing that a journal names is taken away; see `plan/journal.py`."""

from __future__ import annotations

from ..plan.journal import drop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _tree(path: str) -> None:
    from ..kernel.trees import remove_tree

    remove_tree(path)


def _mount(path: str) -> None:
    from ..kernel.tmpfs import detach

    detach(path)


def _keepers(path: str) -> None:
    from ..kernel.kept_namespaces import remove_keepers

    remove_keepers(path)


def _cgroup(path: str) -> None:
    from ..kernel.cgroups.groups import remove

    remove(path)


def _cgroup_parent(path: str) -> None:
    from ..kernel.cgroups.groups import remove_parent

    remove_parent(path)


def _held(path: str) -> None:
    drop(path)


def _network(name: str) -> None:
    from ..networks.teardown import idle

    idle(*name.split(" ", 2))


def _leases(name: str) -> None:
    from ..networks.teardown import abandon

    abandon(*name.split(" ", 2))


def _bridge(name: str) -> None:
    from ..networks.teardown import remove

    bridge, folder = name.split(" ", 1)
    remove(bridge, folder)


def _lease(path: str) -> None:
    from ..networks.leases import let_go

    let_go(path)


def _elements(name: str) -> None:
    from ..networks.firewall import take_back

    take_back(*name.split(" ", 1))


def load() -> None:
    """Load what taking away will need; there is time for it while a container is being set up."""
    from ..kernel import trees  # noqa: F401


def load_network() -> None:
    """The same for a container that is on one."""
    from ..networks import teardown  # noqa: F401


UNDO: dict[str, Callable[[str], None]] = {
    "tree": _tree,
    "mount": _mount,
    "keepers": _keepers,
    "lock": _held,
    "cgroup": _cgroup,
    "cgroup-parent": _cgroup_parent,
    "range": _held,
    "network": _network,
    "bridge": _bridge,
    "leases": _leases,
    "lease": _lease,
    "elements": _elements,
}
