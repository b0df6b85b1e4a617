"""`--publish` and `--publish-all`: which ports of a container are to be published, and whether any can be.

    docker run -p 8080:80 --expose 9000 -P IMAGE

Loaded only when one of them is given.
"""

from __future__ import annotations

from ..errors import ImageError, UsageError
from ..networks.ports import Port, expose, with_exposed
from .options import HOST, NONE
from .values import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import ImageConfig
    from .options import RunOptions


def published(options: RunOptions, image: ImageConfig, warnings: list[str]) -> list[Port]:
    """The ports to publish, in the order that they were given; what is ignored is told in `warnings`.

    Raises UsageError where there is no network of the container's own that a port could lead to, and ImageError for an
    image that exposes what is no port.
    """
    ports = options.ports
    if options.publish_all:
        ports = with_exposed(ports, [*options.expose, *_exposed(image)])
    if not ports:
        return []
    option = "-p" if options.ports else "-P"
    if options.network == HOST:
        warnings.append(f"{option} is without effect: with --network host each port of the container is the host's own")
        return []
    if options.network == NONE:
        raise UsageError(
            f"{option} can't go with --network none: nothing leads to a container that has loopback only",
            f"leave {option} out, or choose another network",
        )
    if "/" in options.network:
        raise UsageError(
            f"{option} can't go with a network of others, which is published by whoever made it",
            f"leave {option} out, or publish when that network is made",
        )
    return ports


def _exposed(image: ImageConfig) -> list[Port]:
    found: list[Port] = []
    for text in image.get("ExposedPorts") or {}:
        try:
            found += expose(text)
        except UsageError as error:
            raise ImageError(
                f"the image exposes what is no port: {shorten(error.message)}", "leave -P out, and name ports with -p"
            ) from None
    return found
