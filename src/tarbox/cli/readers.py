"""The readers of options' values: each loads what can read such a word when the option is given, and no sooner.

tarbox run --memory 512m --volume .:/src:ro IMAGE
"""

from __future__ import annotations

from ..engine.options import HOST, NONE
from ..errors import UsageError
from ..unistd import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine.options import MountOption


def reader(name: str) -> Callable[[str], object]:
    """The function of `engine.values` with that name, which is loaded when an option is given that needs it."""

    def read(text: str) -> object:
        from ..engine import values

        result: object = getattr(values, name)(text)
        return result

    return read


def device(text: str) -> object:
    """A `--device`."""
    from ..engine.devices import device

    return device(text)


def device_rule(text: str) -> object:
    """A `--device-cgroup-rule`."""
    from ..engine.devices import cgroup_rule

    return cgroup_rule(text)


def gpus(text: str) -> object:
    """A `--gpus`."""
    from ..engine.devices import gpus

    return gpus(text)


def systemd(text: str) -> str:
    """A `--systemd`."""
    from ..engine.systemd_mode import mode

    return mode(text)


def sysctl(text: str) -> tuple[str, str]:
    """A `--sysctl`, as name and value."""
    from ..engine.sysctls import sysctl

    return sysctl(text)


def label(text: str) -> tuple[str, str]:
    """A `--label`, as name and value."""
    from ..engine.labels import label

    return label(text)


def annotation(text: str) -> tuple[str, str]:
    """An `--annotation`, as name and value."""
    from ..engine.labels import annotation

    return annotation(text)


def path(text: str) -> str:
    """A path, from here on absolute; raises UsageError for an empty one."""
    if not text:
        raise UsageError("an empty path", "e.g. ./file")
    return os.path.abspath(text)


def profile(text: str) -> str:
    """A `--profile`."""
    from ..engine.values import profile

    return profile(text)


def limit_reader(name: str) -> Callable[[str], object]:
    """The function of `engine.limit_values` with that name, likewise."""

    def read(text: str) -> object:
        from ..engine import limit_values

        result: object = getattr(limit_values, name)(text)
        return result

    return read


def volume(text: str) -> MountOption:
    """A `--volume`."""
    from ..engine.mount_options import volume

    return volume(text, os.getcwd())


def mount(text: str) -> MountOption:
    """A `--mount`."""
    from ..engine.mount_options import mount

    return mount(text, os.getcwd())


def tmpfs(text: str) -> MountOption:
    """A `--tmpfs`."""
    from ..engine.mount_options import tmpfs

    return tmpfs(text)


def network(text: str) -> str:
    """A `--network`."""
    if text in (NONE, HOST):
        return text
    from ..engine.values import network

    return network(text)


def address(version: int) -> Callable[[str], str]:
    """A reader of internet addresses of that version."""

    def read(text: str) -> str:
        from ..engine.values import address

        return address(text, version)

    return read


def mac_address(text: str) -> str:
    """A `--mac-address`."""
    from ..engine.values import mac_address

    return mac_address(text)


def name_reader(name: str) -> Callable[[str], object]:
    """The function of `engine.name_values` with that name, likewise."""

    def read(text: str) -> object:
        from ..engine import name_values

        result: object = getattr(name_values, name)(text)
        return result

    return read


def naming(reader: str, *kind: str) -> Callable[[str], object]:
    """The function of `engine.namespaces` with that name, likewise. kind: of the namespace that the option chooses."""

    def read(text: str) -> object:
        from ..engine import namespaces

        result: object = getattr(namespaces, reader)(*kind, text)
        return result

    return read
