"""Options of `docker run` that this version doesn't have, and what to do meanwhile.

docker run --help
"""

from __future__ import annotations

# What people who know Docker will try; the text says what to do meanwhile.
MISSING = {
    "script": "it goes before the word run: tarbox explain --script run …",
    "d": "it runs in the foreground only; end the command line with & to go on",
    "detach": "it runs in the foreground only; end the command line with & to go on",
    "name": "containers have no names yet",
    "restart": "it runs a container once",
    "link": "containers find each other by address only",
    "network-alias": "containers find each other by address only",
    "volumes-from": "",
    "volume-driver": "",
    "link-local-ip": "",
    "use-api-socket": "",
    "disable-content-trust": "",
    "isolation": "",
    "no-new-privileges": "it is --security-opt no-new-privileges",
    "seccomp": "it is --security-opt seccomp=FILE",
    "log-driver": "output comes as it is written",
    "log-opt": "output comes as it is written",
    "health-cmd": "",
    "health-interval": "",
    "health-timeout": "",
    "health-retries": "",
    "health-start-period": "",
    "health-start-interval": "",
    "no-healthcheck": "there are no health checks to turn off",
    "runtime": "tarbox is its own runtime",
    "detach-keys": "a container ends with its command; no key leaves it running, and ctrl-p reaches it as well",
    "stop-timeout": "nothing stops a container from outside; --timeout TIME ends one that runs too long",
    "storage-opt": "--root-tmpfs SIZE limits what can be written",
}
