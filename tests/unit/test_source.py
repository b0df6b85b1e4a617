"""What IMAGE means, told by its spelling and by what is there."""

from __future__ import annotations

import os

import pytest

from tarbox.errors import ImageNotFoundError, UsageError
from tarbox.images.source import ARCHIVE, DIRECTORY, HOST, find


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working directory, with a directory, a file and a directory whose name ends as an option does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "odd:O").mkdir()
    (tmp_path / "image.tar").write_bytes(b"")
    (tmp_path / "link").symlink_to("rootfs")
    return tmp_path


@pytest.mark.parametrize(
    ("image", "kind", "place", "discard"),
    [
        ("host", HOST, "/", True),
        ("./rootfs", DIRECTORY, "rootfs", False),
        ("./rootfs/", DIRECTORY, "rootfs", False),
        ("./rootfs:O", DIRECTORY, "rootfs", True),
        ("./rootfs/../rootfs", DIRECTORY, "rootfs", False),
        ("./link", DIRECTORY, "link", False),
        (".", DIRECTORY, "", False),
        (".:O", DIRECTORY, "", True),
        ("rootfs/", DIRECTORY, "rootfs", False),
        ("./image.tar", ARCHIVE, "image.tar", True),
    ],
)
def test_what_is_there_is_found(here, image, kind, place, discard):
    found = find(image)
    assert (found.kind, found.discard) == (kind, discard)
    assert found.place == (place if kind == HOST else os.path.normpath(here / place))
    assert found.root() == found.place


@pytest.mark.parametrize("address", ["http://example.org/a.tar", "https://example.org/a.tar.xz"])
def test_an_address_is_an_archive_as_it_is(address):
    found = find(address)
    assert (found.kind, found.place, found.discard) == (ARCHIVE, address, True)


def test_a_directory_as_root(here):
    assert find("", "./rootfs").place == str(here / "rootfs")
    assert not find("", "rootfs").discard
    assert find("", "rootfs:O").discard
    with pytest.raises(ImageNotFoundError, match=r"--rootfs image\.tar: there is no such directory"):
        find("", "image.tar")


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        ("rootfs", ImageNotFoundError, r"for the one here: \./rootfs"),
        ("debian", ImageNotFoundError, "this version knows no registries"),
        ("debian:12", ImageNotFoundError, "this version knows no registries"),
        ("hosts", ImageNotFoundError, "there is no image hosts"),
        ("./none", ImageNotFoundError, r"there is no \./none"),
        ("/none/at/all", ImageNotFoundError, "there is no /none/at/all"),
        ("./image.tar:O", UsageError, "only a directory takes :O"),
        ("./" + "x" * 5000, ImageNotFoundError, r"there is no \./x{195}\.\.\. "),
        ("x" * 5000, ImageNotFoundError, r"there is no image x{197}\.\.\., "),
    ],
)
def test_what_isnt_there_is_explained(image, error, said):
    with pytest.raises(error, match=said) as caught:
        find(image)
    assert len(str(caught.value)) < 600


def test_a_directory_written_through_needs_no_step():
    found = find("./rootfs")
    assert found.steps("/data", "/data/scratch/x", 0, True) == []
    assert found.config() == {}


@pytest.mark.parametrize(("image", "memory"), [("./rootfs:O", 0), ("./rootfs:O", 1 << 20), ("./rootfs", 1 << 20)])
def test_what_is_thrown_away_lies_in_the_scratch_directory(here, image, memory):
    steps = find(image).steps("/data", "/data/scratch/x", memory, True)
    assert steps[0].record() == (("tree", "/data/scratch/x"),)
    overlay = next(step for step in steps if step.gives() == ("tree",))
    assert (overlay.lower, overlay.upper) == ((str(here / "rootfs"),), "/data/scratch/x/upper")
    names = [type(step).__name__ for step in steps]
    assert names == (
        ["MakeScratch", "MountMemory", "OpenOverlay", "LetGo"] if memory else ["MakeScratch", "OpenOverlay"]
    )
