"""-v, --mount, --tmpfs and --env-file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tarbox.engine import idmap, mount_options
from tarbox.engine.config import config
from tarbox.engine.env_files import read_env_file
from tarbox.engine.machine import Machine
from tarbox.engine.mount_options import mount, tmpfs, volume
from tarbox.engine.options import MountOption, RunOptions
from tarbox.errors import UnsupportedError, UsageError


def bind(source: str, target: str, *options: str, create: bool = True) -> MountOption:
    return MountOption("bind", source, target, options, create)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", bind("/a", "/b", "rbind", "rprivate")),
        ("/a:/b:ro", bind("/a", "/b", "rbind", "rro", "rprivate")),
        ("/a:/b:rw", bind("/a", "/b", "rbind", "rprivate")),
        ("./a:/b", bind("/here/a", "/b", "rbind", "rprivate")),
        (".:/b:ro,z", bind("/here", "/b", "rbind", "rro", "rprivate")),
        ("../a:/b", bind("/a", "/b", "rbind", "rprivate")),
        ("/a:/b/:rslave,ro", bind("/a", "/b", "rbind", "rro", "rslave")),
        ("/a://b/../c:Z,nocopy,shared", bind("/a", "/c", "rbind", "shared")),
    ],
)
def test_volumes_bind_a_path_of_the_host(text: str, expected: MountOption) -> None:
    assert volume(text, "/here") == expected


def refused(read: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as raised:
        read()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "SOURCE:TARGET"),
        ("/a", "--tmpfs /a"),
        ("a", "SOURCE:TARGET"),
        (":/b", "SOURCE:TARGET"),
        ("/a:", "SOURCE:TARGET"),
        ("/a:/b:ro:x", "SOURCE:TARGET"),
        ("data:/b", "write ./data"),
        ("~/a:/b", "$HOME"),
        ("/a:b", "not an absolute path"),
        ("/a:/", "can't be / itself"),
        ("/a:/..", "can't be / itself"),
        ("/a:/b:readonly", "'readonly'"),
        ("/a:/b:ro,rw", "'rw' comes after 'ro'"),
        ("/a:/b:shared,slave", "'slave' comes after 'shared'"),
        ("/a:/b:z,Z", "'Z' comes after 'z'"),
        ("/a:/b:readonly", "did you mean ro?"),
        ("/a:/b:share", "did you mean shared?"),
        ("/a:/b:RO", "did you mean ro?"),
        ("/a:/b:o", "did you mean O?"),
        ("/a:/b:copy", "copies nothing"),
        ("/a:/b:U", "chown them yourself"),
        ("/a:/b:O,rslave", "O and rslave can't go together"),
        ("/a:/b:O,ridmap", "O has the container's own map alone"),
        ("/a:/b:O,idmap=uids=0-1-1", "O has the container's own map alone"),
        ("/a:/b:idmap=uids", "not a mapping of ids"),
        ("/a:/b:idmap=uids=0-1000", "FILE-HOST-COUNT"),
        ("/a:/b:idmap=uids=0-1000-0", "beyond the ids"),
        ("/a:/b:idmap=uids=0-4294967290-9", "beyond the ids"),
    ],
)
def test_what_is_no_volume_is_refused(text: str, part: str) -> None:
    assert part in refused(lambda: volume(text, "/here"))


def test_throw_away_and_mapped_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert volume("./a:/b:O,idmap", "/here") == MountOption("overlay", "/here/a", "/b", (), idmap="")
    assert volume("./a:/b:O", "/here") == MountOption("overlay", "/here/a", "/b", ())
    assert volume("./a:/b:O,ro,z", "/here") == MountOption("overlay", "/here/a", "/b", ("ro",))
    assert volume("/a:/b:idmap", "/") == MountOption("bind", "/a", "/b", ("rbind", "rprivate"), False, "")
    mapped = volume("/a:/b:ro,idmap=uids=0-1000-1#5-6-7;gids=0-1-2", "/")
    assert mapped == MountOption(
        "bind", "/a", "/b", ("rbind", "rro", "rprivate"), False, "uids=0-1000-1#5-6-7;gids=0-1-2"
    )


def test_labels_are_refused_where_selinux_is_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Elsewhere z and Z mean nothing."""
    (tmp_path / "enforce").touch()
    monkeypatch.setattr(mount_options, "_SELINUX", str(tmp_path / "enforce"))
    assert "relabels no files for Z" in refused(lambda: volume("/a:/b:Z", "/"))
    assert volume("/a:/b", "/")


def test_a_mapped_mount_needs_a_user_namespace() -> None:
    """With one, the config has what the kernel needs; root's containers have none yet, and a plain user may not."""
    rows = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    linux: Any = {"namespaces": [{"type": "user"}], "uidMappings": rows, "gidMappings": rows}
    made: Any = {"destination": "/b", "source": "/a", "options": ["rbind"]}
    idmap.add(made, "", linux, plain=False)
    assert made["uidMappings"] == made["gidMappings"] == rows
    assert made["options"] == ["rbind", "idmap"]
    idmap.add(made, "uids=0-1000-1#5-6-7", linux, plain=False)
    assert made["uidMappings"] == [
        {"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 5, "hostID": 6, "size": 7},
    ]  # fmt: skip
    assert made["gidMappings"] == []
    with pytest.raises(UnsupportedError, match="only root"):
        idmap.add(made, "", linux, plain=True)
    options = RunOptions("./rootfs")
    options.mounts = [volume("/a:/b:idmap", "/")]
    with pytest.raises(UnsupportedError, match="nothing to map"):
        config(options, {}, "0123456789abcdef" * 4, Machine("here"), "/srv")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("/x", ("noexec", "nosuid", "nodev")),
        ("/x:size=1m,mode=1777", ("noexec", "nosuid", "nodev", "size=1m", "mode=1777")),
        ("/x:exec", ("nosuid", "nodev", "exec")),
        ("/x:rw,noexec,nosuid,size=65536k", ("nodev", "rw", "noexec", "nosuid", "size=65536k")),
        ("/x:ro,uid=1000,gid=1000", ("noexec", "nosuid", "nodev", "ro", "uid=1000", "gid=1000")),
        ("/x:ro,rw", ("noexec", "nosuid", "nodev", "rw")),
    ],
)
def test_tmpfs(text: str, options: tuple[str, ...]) -> None:
    made = tmpfs(text)
    assert (made.kind, made.target, sorted(made.options)) == ("tmpfs", "/x", sorted(options))


@pytest.mark.parametrize(
    "text", ["", ":size=1m", "x", "/", "/x:size=", "/x:size=big", "/x:mode=9", "/x:mode=77777", "/x:uid=me", "/x:bind"]
)
def test_what_is_no_tmpfs_is_refused(text: str) -> None:
    refused(lambda: tmpfs(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=bind,source=/a,target=/b", bind("/a", "/b", "rbind", "rprivate", create=False)),
        ("type=bind,src=./a,dst=/b,ro", bind("/here/a", "/b", "rbind", "rro", "rprivate", create=False)),
        ("type=bind,src=/a,destination=/b,readonly=true", bind("/a", "/b", "rbind", "rro", "rprivate", create=False)),
        ("type=bind,src=/a,dst=/b,readonly=0", bind("/a", "/b", "rbind", "rprivate", create=False)),
        ("type=bind,src=/a,dst=/b,bind-propagation=rshared", bind("/a", "/b", "rbind", "rshared", create=False)),
        ("type=bind,src=/a,dst=/b,bind-recursive=disabled", bind("/a", "/b", "bind", "rprivate", create=False)),
        ("type=bind,src=/a,dst=/b,bind-nonrecursive", bind("/a", "/b", "bind", "rprivate", create=False)),
        (
            "type=bind,src=/a,dst=/b,ro,bind-recursive=writable",
            bind("/a", "/b", "rbind", "ro", "rprivate", create=False),
        ),
        (
            "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly",
            bind("/a", "/b", "rbind", "rro", "rprivate", create=False),
        ),
        ("type=bind,src=/a,dst=/b,bind-create-src=true", bind("/a", "/b", "rbind", "rprivate")),
        ('type=bind,"src=/a,""b""",dst=/b', bind('/a,"b"', "/b", "rbind", "rprivate", create=False)),
        (
            "type=tmpfs,target=/b,tmpfs-size=1m,tmpfs-mode=1770,ro",
            MountOption("tmpfs", "tmpfs", "/b", ("noexec", "nosuid", "nodev", "size=1048576", "mode=1770", "ro")),
        ),
    ],
)
def test_mounts(text: str, expected: MountOption) -> None:
    assert mount(text, "/here") == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "KEY=VALUE"),
        ("type=bind", "has no target"),
        ("type=bind,dst=/b", "has no source"),
        ("type=bind,src=/a", "has no target"),
        ("source=/a,target=/b", "type volume (the type when none is given)"),
        ("type=volume,src=a,dst=/b,volume-nocopy", "type=bind,source=./DIR"),
        ("type=image,src=a,dst=/b,image-subpath=c", "unpack it"),
        ("type=bind,src=/a,dst=/b,tmpfs-size=1m", "tmpfs-size is for mounts of type tmpfs"),
        ("type=bind,src=/a,dst=/b,volume-nocopy", "volume-nocopy is for mounts of type volume"),
        ("type=tmpfs,dst=/b,bind-propagation=shared", "bind-propagation is for mounts of type bind"),
        ("type=tmpfs,dst=/b,size=1m", "did you mean tmpfs-size?"),
        ("type=tmpfs,dst=/b,uid=7", "did you mean --tmpfs /b:uid=7?"),
        ("type=bind,src=/a,dst=/b,ro,readonly", "says readonly twice"),
        ("type=bind,src=/a,dst=/b,consistency=maybe", "no consistency 'maybe'"),
        ("type=bind,src=,dst=/b", "source has no value"),
        ("type=volume,src=a,dst=/b", "type volume"),
        ("type=bnd,src=/a,dst=/b", "no mount type 'bnd'"),
        ("type=bind,src=a,dst=/b", "./a"),
        ("type=bind,src=/a,dst=b", "not an absolute path"),
        ("type=bind,src=/a,dst=/b,dst=/c", "says target twice"),
        ("type=bind,source=/a,src=/b,dst=/c", "says source twice"),
        ("type=bind,sorce=/a,dst=/b", "did you mean source?"),
        ("type=tmpfs,dst=/b,source=/a", "not an option of a tmpfs mount"),
        ("type=bind,src=/a,dst=/b,bind-propagation=all", "no propagation"),
        ("type=bind,src=/a,dst=/b,bind-recursive=readonly", "needs readonly"),
        ("type=bind,src=/a,dst=/b,ro,bind-recursive=readonly,bind-propagation=shared", "needs bind-propagation"),
        ("type=bind,src=/a,dst=/b,bind-recursive=maybe", "no bind-recursive"),
        ("type=bind,src=/a,dst=/b,readonly=perhaps", "neither true nor false"),
        ('type=bind,"src=/a', "never closed"),
        ('type=bind,"src=/a"x,dst=/b', "closing quote"),
        ("type=tmpfs,dst=/b,tmpfs-size=big", "not a size"),
        ("type=tmpfs,dst=/b,tmpfs-mode=888", "octal"),
    ],
)
def test_what_is_no_mount_is_refused(text: str, part: str) -> None:
    assert part in refused(lambda: mount(text, "/here"))


def test_env_files_are_read_by_dockers_rules(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbfA=1\n# no\n\n  B='two words' \nC\nGONE\nD=a=b\r\nE=\n")
    assert read_env_file(str(file), {"C": "mine"}) == ["A=1", "B='two words' ", "C=mine", "D=a=b", "E="]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"A=1\n=2\n", "line 2: there is no name"),
        (b"A B=1\n", "line 1: the name 'A B' has a space"),
        (b"A =1\n", "line 1: the name 'A ' has a space"),
        (b"export A\n", "line 1: the name 'export A' has a space"),
        (b"A=\xff\n", "not UTF-8"),
        (b"A=\0\n", "zero byte"),
        (b"A=" + b"x" * (1 << 20), "more than 1 MiB"),
    ],
)
def test_a_bad_env_file_is_told_by_its_line(tmp_path: Path, data: bytes, part: str) -> None:
    file = tmp_path / "env"
    file.write_bytes(data)
    assert part in refused(lambda: read_env_file(str(file), {}))


def test_an_env_file_that_is_not_there_or_is_no_file(tmp_path: Path) -> None:
    assert "No such file" in refused(lambda: read_env_file(str(tmp_path / "no"), {}))
    assert "Is a directory" in refused(lambda: read_env_file(str(tmp_path), {}))


def test_a_fifo_as_env_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read_env_file(str(tmp_path / "fifo"), {}) == []
