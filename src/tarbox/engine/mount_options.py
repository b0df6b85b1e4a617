"""`-v`, `--mount` and `--tmpfs`: what people write, as mount entries. Loaded only when one of them is given.

    -v SOURCE:TARGET[:OPTIONS]                            mount --bind, the source made when it is missing
    -v SOURCE:TARGET:O                                    mount -t overlay, what is written goes with the container
    --mount type=bind,source=SOURCE,target=TARGET         mount --bind, a missing source refused
    --tmpfs TARGET[:OPTIONS], --mount type=tmpfs,target=… mount -t tmpfs

man 8 mount, man 5 tmpfs, man 2 mount_setattr
"""

from __future__ import annotations

from ..errors import UsageError
from ..unistd import os
from .options import MountOption
from .values import shorten, size, switch

_PROPAGATIONS = ("shared", "rshared", "slave", "rslave", "private", "rprivate")
# Words of -v of which one each may be given. Those for labels have no effect without SELinux; a bind mount copies
# nothing, so that nocopy holds; and consistency is for machines that Linux runs inside of.
_WORDS = {
    "access": ("ro", "rw"), "propagation": _PROPAGATIONS, "label": ("z", "Z"), "copying": ("nocopy", "copy"),
    "consistency": ("consistent", "cached", "delegated", "default"), "overlay": ("O",),
}  # fmt: skip
_SELINUX = "/sys/fs/selinux/enforce"
_TMPFS_FLAGS = {
    "exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro", "async": "sync", "atime": "noatime",
    "diratime": "nodiratime", "relatime": "norelatime", "strictatime": "nostrictatime",
}  # fmt: skip
_TMPFS_KEYS = ("size", "mode", "uid", "gid", "nr_blocks", "nr_inodes")
_TMPFS_DEFAULT = ("noexec", "nosuid", "nodev")


def volume(text: str, directory: str) -> MountOption:
    """One -v: a directory or file of the host, in the container. directory: what a source like ./x is relative to."""
    parts = text.split(":")
    if len(parts) == 1 and text.startswith("/"):
        raise _no_volumes(
            "an anonymous volume", f"--tmpfs {shorten(text)} for scratch space, or -v ./DIR:{shorten(text)}"
        )
    if not 2 <= len(parts) <= 3 or not parts[0] or not parts[1]:
        raise UsageError(
            f"{shorten(text)!r} is not a mount", "SOURCE:TARGET or SOURCE:TARGET:OPTIONS, e.g. ./src:/app:ro"
        )
    source, target = parts[0], parts[1]
    if not source.startswith(("/", ".")):
        if source.startswith("~"):
            raise UsageError(
                f"{shorten(source)!r} would be a name, as no shell has expanded the ~", "write $HOME instead"
            )
        raise _no_volumes(f"the named volume {shorten(source)!r}", f"for a directory here write ./{shorten(source)}")
    return _volume(os.path.normpath(os.path.join(directory, source)), _target(target), parts[2:], text)


def _no_volumes(what: str, hint: str) -> UsageError:
    return UsageError(f"{what} would be needed, and this version of tarbox has no volumes yet", hint)


def _target(text: str) -> str:
    if not text.startswith("/"):
        raise UsageError(
            f"the target {shorten(text)!r} is not an absolute path", "it is a path in the container, e.g. /data"
        )
    target = "/" + os.path.normpath(text).lstrip("/")
    if target == "/":
        raise UsageError("the target can't be / itself", "the image is there; use --rootfs for a directory as root")
    return target


def _volume(source: str, target: str, words: list[str], text: str) -> MountOption:
    given: dict[str, str] = {}
    idmap: str | None = None
    deep: tuple[str, ...] = ()
    for word in words[0].split(",") if words and words[0] else ():
        name = next((name for name, known in _WORDS.items() if word in known), "")
        if word.partition("=")[0] in ("idmap", "ridmap"):
            from .idmap import read

            idmap = read(word, text)
            deep = ("ridmap",) if word.startswith("r") else ()
        elif not name or name in given:
            raise _bad_word(word, given.get(name, ""), text)
        else:
            given[name] = word
    if given.get("copying") == "copy":
        raise UsageError(f"{shorten(text)!r}: a bind mount copies nothing", "leave copy out")
    _check_label(given.get("label", ""), text)
    read_only, propagation = given.get("access") == "ro", given.get("propagation", "")
    if "overlay" in given:
        if propagation:
            raise UsageError(f"{shorten(text)!r}: O and {propagation} can't go together", "an overlay is no bind mount")
        if idmap or deep:
            raise UsageError(
                f"{shorten(text)!r}: O has the container's own map alone, and no mounts below", "O,idmap without more"
            )
        return MountOption("overlay", source, target, ("ro",) if read_only else (), idmap=idmap)
    options = ("rbind", *(("rro",) if read_only else ()), propagation or "rprivate", *deep)
    return MountOption("bind", source, target, options, idmap is None, idmap)


def _bad_word(word: str, before: str, text: str) -> UsageError:
    shown = f"{shorten(text)!r}: {shorten(word)!r}"
    if before:
        return UsageError(f"{shown} comes after {before!r}, and only one of the two can be meant", "leave one out")
    if word == "U":
        return UsageError(
            f"{shown} would change who owns the files on the host, and tarbox never does that",
            "chown them yourself, or run as their owner: -u $(id -u)",
        )
    known = [one for words in _WORDS.values() for one in words]
    from .nearest import suggest

    other = {"readonly": "ro", "o": "O"}.get(word, word.lower())
    near = other if other in known else suggest(word, known)
    hint = f"did you mean {near}?" if near else "ro, rw, O, z, Z, or one of " + " ".join(_PROPAGATIONS)
    return UsageError(f"{shown} is not an option of a mount", hint)


def _check_label(word: str, text: str) -> None:
    if word and os.path.exists(_SELINUX):
        raise UsageError(
            f"{shorten(text)!r}: SELinux is on, and this version of tarbox relabels no files for {word}",
            "chcon -Rt container_file_t SOURCE does; containers of tarbox have no label of their own, and need none",
        )


def tmpfs(text: str) -> MountOption:
    """One --tmpfs: an empty file system in memory. nosuid, nodev and noexec unless the options say otherwise."""
    path, _, words = text.partition(":")
    if not path:
        raise UsageError(f"{shorten(text)!r} is not a mount", "TARGET or TARGET:OPTIONS, e.g. /tmp:size=64m,mode=1777")
    options = dict.fromkeys(_TMPFS_DEFAULT, "")
    for word in words.split(",") if words else ():
        name, equals, value = word.partition("=")
        if equals and name in _TMPFS_KEYS:
            options[name] = _tmpfs_value(name, value, text)
        elif not equals and (name in _TMPFS_FLAGS or name in _TMPFS_FLAGS.values()):
            options.pop(_TMPFS_FLAGS.get(name, ""), None)
            options.pop(next((flag for flag, opposite in _TMPFS_FLAGS.items() if opposite == name), ""), None)
            options[name] = ""
        else:
            raise UsageError(
                f"{shorten(text)!r}: {shorten(word)!r} is not an option of a tmpfs",
                "e.g. size=64m, mode=1777, uid=1000, exec, ro",
            )
    return MountOption(
        "tmpfs", "tmpfs", _target(path), tuple(f"{name}={value}" if value else name for name, value in options.items())
    )


def _tmpfs_value(name: str, value: str, text: str) -> str:
    if name == "mode":
        valid = 0 < len(value) <= 5 and not value.strip("01234567") and int(value, 8) <= 0o7777
        hint = "an octal mode, e.g. 1777"
    elif name in ("uid", "gid"):
        valid, hint = value.isascii() and value.isdecimal() and len(value) <= 10, "a number, e.g. 1000"
    else:
        number = value[:-1] if value[-1:] in tuple("kKmMgG%") else value
        valid, hint = number.isascii() and number.isdecimal(), "a number, with k, m, g or % at its end, e.g. size=64m"
    if not valid:
        raise UsageError(f"{shorten(text)!r}: {name}={shorten(value)} can't be", hint)
    return value


def mount(text: str, directory: str) -> MountOption:
    """One --mount: `key=value` pairs joined by commas, a pair with a comma in it put in double quotes."""
    pairs: dict[str, str] = {}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = _SHORT.get(key.strip().lower(), key.strip().lower())
        if key in pairs:
            raise UsageError(f"{shorten(text)!r} says {key} twice")
        if not equals and key not in ("readonly", "bind-nonrecursive", "bind-create-src", "volume-nocopy"):
            raise UsageError(f"{shorten(text)!r}: {shorten(field)!r} is not of the form KEY=VALUE", _EXAMPLE)
        pairs[key] = value if equals else "true"
        if equals and not value.strip():
            raise UsageError(f"{shorten(text)!r}: {key} has no value", _EXAMPLE)
    kind = pairs.pop("type", "volume").lower()
    if kind in _LATER:
        given = "" if kind != "volume" or "type=" in text else " (the type when none is given)"
        raise UsageError(f"this version of tarbox has no mounts of type {kind}{given}", _LATER[kind])
    if kind not in ("bind", "tmpfs"):
        raise UsageError(f"there is no mount type {shorten(kind)!r}", "type=bind or type=tmpfs; " + _EXAMPLE)
    known = _KEYS[kind]
    for key in pairs:
        if key not in known:
            from .nearest import suggest

            near = suggest(key, known)
            other = next((name for name in ("bind", "tmpfs", "volume", "image") if key.startswith(f"{name}-")), "")
            if other not in ("", kind):
                raise UsageError(f"{shorten(text)!r}: {shorten(key)} is for mounts of type {other}", "leave it out")
            if kind == "tmpfs" and key in (*_TMPFS_KEYS, *_TMPFS_FLAGS, *_TMPFS_FLAGS.values()):
                word = key if pairs[key] == "true" else f"{key}={pairs[key]}"
                whole = f"--tmpfs {shorten(pairs.get('target', '/x'))}:{shorten(word)}"
                near = f"tmpfs-{key}" if f"tmpfs-{key}" in known else whole
            raise UsageError(
                f"{shorten(text)!r}: {shorten(key)!r} is not an option of a {kind} mount",
                f"did you mean {near}?" if near else "it has " + ", ".join(known),
            )
    if not pairs.get("target"):
        raise UsageError(f"{shorten(text)!r} has no target", _EXAMPLE)
    target = _target(pairs["target"])
    if kind == "tmpfs":
        return MountOption(kind, "tmpfs", target, _tmpfs_mount(pairs, text))
    source = pairs.get("source", "")
    if not source:
        raise UsageError(f"{shorten(text)!r} has no source", _EXAMPLE)
    if not source.startswith(("/", ".")):
        raise UsageError(f"the source {shorten(source)!r} is not a path", f"/… or ./…, e.g. ./{shorten(source)}")
    create = switch(pairs.get("bind-create-src", "false"))
    return MountOption(
        kind, os.path.normpath(os.path.join(directory, source)), target, _bind_mount(pairs, text), create
    )


_SHORT = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_LATER = {
    "volume": "for a directory here: type=bind,source=./DIR; for scratch space: type=tmpfs",
    "image": "unpack it and show its directory: type=bind,source=./rootfs,readonly",
    **dict.fromkeys(("cluster", "npipe", "glob", "ramfs", "devpts"), "type=bind or type=tmpfs"),
}
_KEYS = {
    "bind": (
        "source", "target", "readonly", "bind-propagation", "bind-recursive", "bind-nonrecursive", "bind-create-src",
        "consistency",
    ),
    "tmpfs": ("target", "readonly", "tmpfs-size", "tmpfs-mode"),
}  # fmt: skip
_EXAMPLE = "e.g. type=bind,source=./src,target=/app,readonly"


def _tmpfs_mount(pairs: dict[str, str], text: str) -> tuple[str, ...]:
    options = list(_TMPFS_DEFAULT)
    if "tmpfs-size" in pairs:
        options.append(f"size={size(pairs['tmpfs-size'])}")
    if "tmpfs-mode" in pairs:
        options.append("mode=" + _tmpfs_value("mode", pairs["tmpfs-mode"], text))
    if switch(pairs.get("readonly", "false")):
        options.append("ro")
    return tuple(options)


def _bind_mount(pairs: dict[str, str], text: str) -> tuple[str, ...]:
    readonly = switch(pairs.get("readonly", "false"))
    propagation = pairs.get("bind-propagation", "rprivate")
    recursive = pairs.get("bind-recursive", "enabled")
    consistency = pairs.get("consistency", "default")
    if consistency not in _WORDS["consistency"]:
        raise UsageError(
            f"{shorten(text)!r}: no consistency {shorten(consistency)!r}", "one of " + ", ".join(_WORDS["consistency"])
        )
    if propagation not in _PROPAGATIONS:
        raise UsageError(
            f"{shorten(text)!r}: no propagation {shorten(propagation)!r}", "one of " + " ".join(_PROPAGATIONS)
        )
    if recursive not in ("enabled", "disabled", "writable", "readonly"):
        raise UsageError(
            f"{shorten(text)!r}: no bind-recursive {shorten(recursive)!r}", "enabled, disabled, writable or readonly"
        )
    if recursive in ("writable", "readonly") and not readonly:
        raise UsageError(f"{shorten(text)!r}: bind-recursive={recursive} needs readonly")
    if recursive == "readonly" and propagation != "rprivate":
        raise UsageError(f"{shorten(text)!r}: bind-recursive=readonly needs bind-propagation=rprivate")
    if switch(pairs.get("bind-nonrecursive", "false")):
        if recursive != "enabled":
            raise UsageError(f"{shorten(text)!r}: bind-nonrecursive and bind-recursive can't go together")
        recursive = "disabled"
    options = ["bind" if recursive == "disabled" else "rbind"]
    if readonly:
        options.append("rro" if recursive in ("enabled", "readonly") else "ro")
    return (*options, propagation)


def _fields(text: str) -> list[str]:
    """One line of CSV: a field in double quotes may hold commas, and quotes written twice."""
    fields: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            end, field = 1, ""
            while True:
                close = rest.find('"', end)
                if close < 0:
                    raise UsageError(f"{shorten(text)!r}: a double quote is never closed")
                field += rest[end:close]
                end = close + 1
                if rest[end : end + 1] != '"':
                    break
                field, end = field + '"', end + 1
            rest = rest[end:]
            if rest and not rest.startswith(","):
                raise UsageError(
                    f"{shorten(text)!r}: only a comma can follow a closing quote", "quote the whole KEY=VALUE"
                )
            fields.append(field)
        else:
            field = rest.partition(",")[0]
            fields.append(field)
            rest = rest[len(field) :]
        if not rest:
            return fields
        rest = rest[1:]
