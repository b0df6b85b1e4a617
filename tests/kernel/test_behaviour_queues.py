"""Two containers that use the same keys never meet, nor does the host: queues, shared memory, semaphores."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

import roots
from kernel.attacks import tools

KINDS = ("queue", "memory", "semaphore", "posix-queue", "posix-memory")
NOTHING = dict.fromkeys(KINDS, "ENOENT")


@pytest.fixture(scope="module", autouse=True)
def host_files(tmp_path_factory):
    with tools.unchanged(tmp_path_factory.mktemp("host") / "canary"):
        yield


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """One image for all of them."""
    rootfs = roots.busybox(tmp_path_factory.mktemp("image") / "root")
    tools.behave(rootfs)
    return rootfs


def told(text):
    return dict(line.split(" ", 1) for line in text.splitlines())


def of(text):
    return {"queue": text, "memory": text, "semaphore": "7", "posix-queue": text, "posix-memory": text}


@contextlib.contextmanager
def posting(process):
    """Until the end of the block the process has its objects."""
    lines = []
    try:
        for line in process.stdout:
            if line == "posted\n":
                break
            lines.append(line)
        assert told("".join(lines)) == dict.fromkeys(KINDS, "done"), process.stderr.read()
        yield
    finally:
        process.communicate(timeout=30)


def container(tarbox, image, text, *options):
    command = ("run", "--rm", "-i", *options, f"{image}:O", "behave", "post", text)
    return posting(tarbox.start(*command, text=True))


def look(tarbox, image, *options):
    return told(tarbox.output("run", "--rm", *options, f"{image}:O", "behave", "fetch"))


@pytest.mark.parametrize("options", [(), ("--init",), ("--net", "host"), ("--privileged",)], ids=" ".join)
def test_containers_with_the_same_keys_never_meet(tarbox, image, options):
    """Neither one that only looks, nor one that makes its own under them."""
    with container(tarbox, image, "of one", *options):
        assert look(tarbox, image, *options) == NOTHING
        with container(tarbox, image, "of two", *options):
            assert look(tarbox, image, *options) == NOTHING
        assert told(subprocess.check_output([image / "bin/behave", "fetch"], text=True)) == NOTHING


def test_the_hosts_are_out_of_reach(tarbox, image):
    host = image / "bin/behave"
    process = subprocess.Popen([host, "post", "of the host"], stdin=-1, stdout=-1, stderr=-1, text=True)
    try:
        with posting(process):
            assert look(tarbox, image) == NOTHING
            with container(tarbox, image, "of one"):
                assert told(subprocess.check_output([host, "fetch"], text=True)) == of("of the host")
    finally:
        subprocess.run([host, "clean"], check=True)


def test_within_a_container_they_meet(tarbox, image):
    """What the objects are for: two programs of one container, also as two users."""
    script = "mkfifo /tmp/end; behave post shared </tmp/end >/dev/null & exec 3>/tmp/end; sleep 0.5; behave fetch"
    assert told(tarbox.output("run", "--rm", f"{image}:O", "sh", "-c", script)) == of("shared")


def test_a_plain_users_containers_never_meet_either(plain_tarbox, plain_folder):
    rootfs = roots.busybox(plain_folder / "image")
    tools.behave(rootfs)
    subprocess.run(["chown", "-Rh", f"{plain_tarbox.user}:{plain_tarbox.user}", rootfs], check=True)
    with container(plain_tarbox, rootfs, "of one"):
        assert look(plain_tarbox, rootfs) == NOTHING
