"""Where things live: two data roots never meet, and what can't be made is said."""

from __future__ import annotations

import os
import stat

import pytest

from tarbox.engine import roots
from tarbox.engine.roots import Roots
from tarbox.errors import StorageError


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch):
    """A plain user's environment, whoever runs the tests."""
    monkeypatch.setattr(roots.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def test_the_folders_of_a_plain_user(base, monkeypatch):
    assert Roots(None).data == f"{base}/home/.local/share/tarbox"
    monkeypatch.setenv("XDG_DATA_HOME", f"{base}/data")
    assert Roots(None).data == f"{base}/data/tarbox"
    assert Roots(None).state.startswith(f"{base}/run/tarbox/")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert Roots(None).state.startswith("/tmp/tarbox-1000/")


def test_the_folders_of_root(monkeypatch):
    monkeypatch.setattr(roots.os, "geteuid", lambda: 0)
    assert Roots(None).data == "/var/lib/tarbox"
    assert Roots(None).state == "/run/tarbox/var-lib-tarbox"


def test_a_root_that_is_given(base, monkeypatch):
    monkeypatch.chdir(base)
    found = Roots("here")
    assert found.data == f"{base}/here"
    assert found.scratch == f"{base}/here/scratch"
    assert found.cache == f"{base}/here/cache"
    assert found.journals == (f"{found.state}/journals", f"{base}/here/journals")


def test_two_data_roots_never_meet():
    paths = [
        "/a/b",
        "/a-b",
        "/a--b",
        "/a/-b",
        "/a-/b",
        "/a",
        "/",
        "/-",
        "/a" * 200,
        "/a" * 201,
        "/ü/x",
        "/a b",
        "/a%2db",
        "/a%b",
    ]
    states = [Roots(path).state for path in paths]
    assert len(set(states)) == len(paths)
    assert all(len(os.fsencode(os.path.basename(state))) <= 255 for state in states)
    assert Roots("/a/b/").state == Roots("/a/b").state == Roots("/a//c/../b").state


def test_they_are_made_for_their_owner_alone(base, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(roots, "_state_base", lambda: f"{base}/state")
    made = Roots(f"{base}/deep/data")
    made.make()
    made.make()
    for folder in (made.scratch, *made.journals):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(made.data).st_mode) & 0o066 == 0


def test_what_is_in_the_way_is_named(base, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(roots, "_state_base", lambda: f"{base}/state")
    (base / "file").touch()
    for name in ("file", "file/below"):
        with pytest.raises(StorageError, match=f"cannot make {base}/{name}/scratch: something that isn't a directory"):
            Roots(f"{base}/{name}").make()
    (base / "state").touch()
    with pytest.raises(StorageError, match="is it full, or read-only"):
        Roots(f"{base}/data").make()


def test_a_state_folder_of_somebody_elses_is_refused(base, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(roots, "_state_base", lambda: f"{base}/state")
    made = Roots(f"{base}/data")
    made.make()
    monkeypatch.setattr(roots.os, "geteuid", lambda: os.stat(base).st_uid + 1)
    with pytest.raises(StorageError, match="belongs to another user"):
        made.make()


@pytest.fixture
def state(base, monkeypatch):
    """Where state folders lie, with the test's own user as the caller."""
    monkeypatch.undo()
    monkeypatch.setattr(roots, "_state_base", lambda: f"{base}/state")
    return base / "state"


def test_all_that_is_made_is_closed_to_others(base, state):
    before = os.umask(0)
    try:
        Roots(f"{base}/deep/data").make()
    finally:
        os.umask(before)
    for top in (state, base / "deep/data"):
        for folder, _, _ in os.walk(top):
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700, folder


def test_a_base_that_others_could_only_read_is_closed_to_them(base, state):
    state.mkdir(mode=0o755)
    Roots(f"{base}/data").make()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702])
def test_a_base_that_others_can_write_to_is_refused(base, state, mode):
    state.mkdir()
    state.chmod(mode)
    with pytest.raises(StorageError, match=r"others can write to .*/state"):
        Roots(f"{base}/data").make()
    assert not list(state.iterdir())


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_base_that_is_a_link_is_refused(base, state, target):
    (base / "elsewhere").mkdir(mode=0o700)
    state.symlink_to(base / target)
    with pytest.raises(StorageError, match="/state is a link"):
        Roots(f"{base}/data").make()
    assert not list((base / "elsewhere").iterdir())
    assert not (base / "missing").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_a_base_of_somebody_elses_is_refused(base, state, mode):
    state.mkdir()
    state.chmod(mode)
    os.chown(state, 65533, 65533)
    with pytest.raises(StorageError, match="/state belongs to another user"):
        Roots(f"{base}/data").make()
    assert not list(state.iterdir())


def test_a_data_root_that_everybody_can_write_to_is_refused(base, state):
    (base / "data").mkdir()
    (base / "data").chmod(0o777)
    with pytest.raises(StorageError, match=r"everybody can write to the data root .*/data"):
        Roots(f"{base}/data").make()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
@pytest.mark.parametrize("mode", [0o755, 0o1777])
@pytest.mark.parametrize("name", ["scratch", "journals"])
def test_scratch_space_of_somebody_elses_is_refused(base, state, name, mode):
    _refuses_folder_of_another(base / "data", name, mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
@pytest.mark.parametrize("name", ["layers", "sources", "cache"])
def test_in_a_data_root_for_all_nobody_else_has_been_there(base, state, name):
    _refuses_folder_of_another(base / "data", name, 0o1777)


def _refuses_folder_of_another(data, name, mode):
    (data / name).mkdir(parents=True)
    data.chmod(mode)
    Roots(str(data)).make()
    os.chown(data / name, 65533, 65533)
    with pytest.raises(StorageError, match=f"/data/{name} belongs to another user"):
        Roots(str(data)).make()
