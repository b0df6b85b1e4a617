"""The options of an OCI mount, told apart: attributes of the mount, propagation, and the file system's own.

    mount -o ro,nosuid,rprivate,size=64m

https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts, man 8 mount
"""

from __future__ import annotations

_SET = {"ro", "nosuid", "nodev", "noexec", "noatime", "strictatime", "nodiratime", "nosymfollow"}
_CLEAR = {
    "rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime", "diratime": "nodiratime",
    "nostrictatime": "strictatime", "symfollow": "nosymfollow",
}  # fmt: skip
_PROPAGATION = {"private", "slave", "shared", "unbindable"}
_NOTHING = {"defaults", "relatime", "norelatime", "bind", "rbind", "sync", "async", "dirsync", "silent", "loud"}


class MountOptions:
    """What the words mean.

    attributes, cleared: names of mount attributes to set and to clear. recursively: whether they are meant for the
    mounts below too (`rro` and its like). bind, recursive: `bind` and `rbind`. propagation: as written, or "".
    mapped: `idmap`, or `ridmap` for the mounts below too, or "". own: what is left for the file system.
    """

    __slots__ = ("attributes", "bind", "cleared", "mapped", "own", "propagation", "recursive", "recursively")

    def __init__(self, words: list[str]) -> None:
        self.bind = "bind" in words or "rbind" in words
        self.recursive = "rbind" in words
        self.recursively = False
        self.propagation = self.mapped = ""
        attributes: dict[str, bool] = {}
        own: list[str] = []
        for word in words:
            if word in _NOTHING:
                continue
            plain = word[1:] if word.startswith("r") else ""
            if word in _SET or word in _CLEAR:
                attributes[_CLEAR.get(word, word)] = word in _SET
            elif word in _PROPAGATION or plain in _PROPAGATION:
                self.propagation = word
            elif word in ("idmap", "ridmap"):
                self.mapped = word
            elif plain in _SET or plain in _CLEAR:
                attributes[_CLEAR.get(plain, plain)] = plain in _SET
                self.recursively = True
            else:
                own.append(word)
        self.attributes = tuple(name for name, wanted in attributes.items() if wanted)
        self.cleared = tuple(name for name, wanted in attributes.items() if not wanted)
        self.own = tuple(own)
