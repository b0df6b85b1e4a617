"""What IMAGE can be: a directory written through, one under a throw-away overlay, a tarball that is unpacked once."""

from __future__ import annotations

import os
import subprocess

import pytest

import roots

pytestmark = pytest.mark.unhurried


@pytest.fixture
def archive(tarbox, busybox_tar):
    """A tarball beside where the command is called."""
    copy = tarbox.folder / "image.tar"
    copy.write_bytes(busybox_tar.read_bytes())
    return copy


def layers(tarbox) -> set[str]:
    return {path.name for path in (tarbox.root / "layers").iterdir() if not path.name.startswith(".")}


def test_a_directory_is_written_through(tarbox, rootfs_busybox):
    """By name or with --rootfs; with :O it isn't."""
    tarbox.output(
        "run", rootfs_busybox, "sh", "-c", "echo a >/etc/through; chmod 600 /etc/through; chown 7:8 /etc/through"
    )
    facts = (rootfs_busybox / "etc/through").stat()
    assert (facts.st_mode & 0o777, facts.st_uid, facts.st_gid) == (0o600, 7, 8)
    tarbox.output("run", "--rootfs", rootfs_busybox, "rm", "/etc/through")
    assert not (rootfs_busybox / "etc/through").exists()
    for words in ((f"{rootfs_busybox}:O",), ("--rootfs", f"{rootfs_busybox}:O")):
        assert tarbox.output("run", *words, "sh", "-c", "rm -r /etc; touch /new; ls -d /bin") == "/bin\n"
    assert (rootfs_busybox / "etc/passwd").exists()
    assert not (rootfs_busybox / "new").exists()


def test_relative_directories_are_seen_from_here(tarbox):
    """./x, ../x, . and .:O."""
    root = roots.busybox(tarbox.folder / "x")
    assert tarbox.output("run", "./x", "echo", "1") == "1\n"
    assert tarbox.output("run", "../x", "echo", "2", cwd=tarbox.home) == "2\n"
    assert tarbox.output("run", ".", "echo", "3", cwd=root) == "3\n"
    assert tarbox.output("run", ".:O", "echo", "4", cwd=root) == "4\n"


def test_a_name_without_a_slash_gets_a_hint(tarbox):
    """It may be meant for what lies here."""
    roots.busybox(tarbox.folder / "x")
    done = tarbox("run", "x", "true")
    assert (done.returncode, done.stderr) == (125, "tarbox: there is no image x (for the one here: ./x)\n")
    done = tarbox("run", "debian", "true")
    assert done.returncode == 125
    assert "host, a directory such as ./rootfs, a tarball such as ./debian.tar, or its URL" in done.stderr


def test_an_images_root_keeps_its_mode_and_owner(tarbox, rootfs_busybox):
    """Under an overlay too, where "/" is a directory of tarbox's own."""
    rootfs_busybox.chmod(0o711)
    os.chown(rootfs_busybox, 3, 4)
    for name in (rootfs_busybox, f"{rootfs_busybox}:O"):
        assert tarbox.output("run", name, "stat", "-c", "%a %u %g", "/") == "711 3 4\n"
    assert (
        tarbox.output("run", "--root-tmpfs", "1m", f"{rootfs_busybox}:O", "stat", "-c", "%a %u %g", "/") == "711 3 4\n"
    )


def test_a_tarball_is_unpacked_once(tarbox, archive):
    """The second run neither reads it nor writes a layer; what a container writes is in none."""
    assert tarbox.output("run", "./image.tar", "sh", "-c", "touch /new /etc/new; ls /bin/sh") == "/bin/sh\n"
    assert len(layers(tarbox)) == 1
    before = {path: path.lstat().st_mtime_ns for path in (tarbox.root / "layers").rglob("*")}
    size = archive.stat()
    assert tarbox.output("run", "./image.tar", "sh", "-c", "ls /new /etc/new 2>/dev/null; echo $?").strip() == "1"
    assert {path: path.lstat().st_mtime_ns for path in (tarbox.root / "layers").rglob("*")} == before
    with archive.open("r+b") as file:  # the same size and times, and not one byte of it left
        file.write(bytes(size.st_size))
    os.utime(archive, ns=(size.st_atime_ns, size.st_mtime_ns))
    if archive.stat().st_ctime_ns == size.st_ctime_ns:
        assert tarbox.output("run", "./image.tar", "echo", "kept") == "kept\n"


def test_a_changed_tarball_is_another_image(tarbox, archive):
    """It is unpacked anew, to another layer."""
    tarbox.output("run", "./image.tar", "true")
    first = layers(tarbox)
    root = roots.busybox(tarbox.folder / "other")
    (root / "etc/changed").write_text("yes\n")
    roots.packed(root, archive)
    assert tarbox.output("run", "./image.tar", "cat", "/etc/changed") == "yes\n"
    assert len(layers(tarbox)) == 2
    assert layers(tarbox) > first


@pytest.mark.parametrize("program", ["gzip", "xz", "zstd", "bzip2"])
def test_compression_is_told_by_the_bytes(tarbox, busybox_tar, program):
    """Whatever the file is called."""
    (tarbox.folder / "image").write_bytes(
        subprocess.run([program, "-1c", busybox_tar], check=True, capture_output=True).stdout
    )
    assert tarbox.output("run", "./image", "echo", "works") == "works\n"


def test_two_first_runs_at_once(tarbox, archive):
    """Both work, and there is one layer."""
    started = [tarbox.start("run", "./image.tar", "echo", str(number)) for number in range(4)]
    for number, process in enumerate(started):
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, f"{number}\n".encode()), errors
    assert len(layers(tarbox)) == 1
    assert not list((tarbox.root / "scratch").iterdir())
