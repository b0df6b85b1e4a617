"""--sysctl, throw-away volumes, --cidfile, --attach, --label, --platform and --pull, by their effect."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

import roots
import testhost
from inside import ask

pytestmark = pytest.mark.unhurried

SETTINGS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.ip_unprivileged_port_start": "88",
    "kernel.shmmax": "12345678",
    "kernel.msgmax": "9999",
    "kernel.sem": "250\t32000\t32\t200",
    "fs.mqueue.msg_max": "77",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory under a throw-away overlay."""
    return f"{roots.busybox(tmp_path_factory.mktemp('image') / 'root')}:O"


@pytest.fixture(params=["root", "plain"])
def anyone(request):
    """The command as root, and as a plain user."""
    return request.getfixturevalue("tarbox" if request.param == "root" else "plain_tarbox")


def value(name: str) -> str:
    return Path("/proc/sys/" + name.replace(".", "/")).read_text().strip()


def test_settings_are_the_containers_alone(anyone):
    """Seen inside; the host's stay as they are, and what isn't a container's is refused."""
    before = {name: value(name) for name in SETTINGS}
    words = [word for name, wanted in SETTINGS.items() for word in ("--sysctl", f"{name}={wanted}")]
    questions = {name.replace(".", "_"): f"cat /proc/sys/{name.replace('.', '/')}" for name in SETTINGS}
    said = ask(anyone, *words, "host", **questions)
    assert said == {name.replace(".", "_"): wanted for name, wanted in SETTINGS.items()}
    assert {name: value(name) for name in SETTINGS} == before
    assert before["net.ipv4.ip_unprivileged_port_start"] != "88"
    pattern = value("kernel.core_pattern")
    done = anyone("run", "--sysctl", "kernel.core_pattern=|/x", "host", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "kernel.core_pattern is the whole machine's" in done.stderr
    assert value("kernel.core_pattern") == pattern


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("net.none.such=1", "there is no setting net.none.such in the container"),
        ("net.ipv4.ip_forward=banana", "the kernel doesn't take that value for it"),
    ],
)
def test_a_setting_that_cannot_be_made_ends_the_start(tarbox, image, setting, said):
    """Nobody runs without what was asked for."""
    done = tarbox("run", "--sysctl", setting, image, "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert said in done.stderr


# --- -v SOURCE:TARGET:O


@pytest.fixture
def source(anyone):
    """A directory of the caller's with something to change."""
    top = anyone.folder / "source"
    (top / "in").mkdir(parents=True)
    (top / "old").write_text("old\n")
    (top / "in/gone").write_text("there\n")
    subprocess.run(["chown", "-R", f"{anyone.user}:{anyone.user}", top], check=True)
    os.chmod(top, 0o750)
    return top


def state(top: Path) -> list[tuple[str, str]]:
    return sorted((str(path), path.read_text() if path.is_file() else "") for path in top.rglob("*"))


@pytest.mark.parametrize("more", [(), ("--root-tmpfs", "3m")])
def test_what_is_written_to_a_throw_away_volume_never_reaches_the_host(anyone, source, more):
    before = state(source)
    said = ask(
        anyone, *more, "-v", "./source:/s:O", "-v", "./source:/data/again:O,ro", "host",
        change="echo new >/s/old; rm -r /s/in; mkdir /s/made; echo x >/s/made/x",
        seen="cat /s/old; ls /s", mode="stat -c %a:%u /s", other="cat /data/again/old; touch /data/again/x",
        kind="grep ' /s ' /proc/self/mountinfo | sed 's/.* - //' | cut -d' ' -f1",
    )  # fmt: skip
    assert said["change"] == ""
    assert said["seen"].split() == ["new", "made", "old"]
    assert (said["mode"], said["kind"]) == ("750:0", "overlay")
    assert said["other"].startswith("old\n")
    assert "Read-only file system" in said["other"]
    assert state(source) == before
    assert not anyone.leftovers()


def test_a_throw_away_volume_in_memory_has_the_size_of_the_root(anyone, source):
    said = ask(
        anyone, "--root-tmpfs", "2m", "-v", "./source:/s:O", "host",
        big="dd if=/dev/zero of=/s/big bs=1M count=4", size="df -k /s | tail -1",
    )  # fmt: skip
    assert "No space left on device" in said["big"]
    assert "2048" in said["size"].split()


def test_a_throw_away_volume_lies_on_what_is_mounted_above_it(tarbox, image, tmp_path):
    """Whatever the order of the options."""
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    mounts = ("-v", f"{tmp_path}/inner:/data/deep:O", "-v", f"{tmp_path}/outer:/data")
    said = ask(tarbox, *mounts, image, seen="ls /data /data/deep", write="touch /data/out /data/deep/in")
    assert {"outer", "inner"} <= set(said["seen"].split())
    assert said["write"] == ""
    assert (tmp_path / "outer/out").exists()
    assert not (tmp_path / "inner/in").exists()


@pytest.mark.parametrize(
    ("name", "said"), [("file", "only a directory takes O"), ("none", "there is no such directory")]
)
def test_only_a_directory_can_be_thrown_away(tarbox, image, tmp_path, name, said):
    (tmp_path / "file").touch()
    done = tarbox("run", "-v", f"{tmp_path}/{name}:/x:O", image, "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert said in done.stderr
    assert not (tmp_path / "none").exists()


def test_a_plain_user_is_told_why_not_over_mounts(plain_tarbox, plain_folder):
    (plain_folder / "source/below").mkdir(parents=True)
    below = str(plain_folder / "source/below")
    testhost.mount("below", below, "tmpfs", 0)
    try:
        done = plain_tarbox("run", "-v", "./source:/s:O", "host", "true")
    finally:
        subprocess.run(["umount", below], check=True)
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert f"something is mounted below it, at {below}" in done.stderr


# --- What scripts use


def test_the_id_is_in_the_file_and_stays_there(anyone):
    """The host name is its beginning; a file that is there is neither used nor touched."""
    path = anyone.folder / "id"
    name = anyone.output("run", "--rm", "--cidfile", "id", "host", "hostname").strip()
    assert re.fullmatch("[0-9a-f]{64}", path.read_text())
    assert path.read_text().startswith(name)
    assert path.stat().st_mode & 0o7777 == 0o644
    before = path.read_text()
    done = anyone("run", "--rm", "--cidfile", "id", "host", "touch", "/proc/self/none")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "the file is there already" in done.stderr
    assert path.read_text() == before


@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize(
    ("words", "out", "err"),
    [
        ((), "in out\n", "err\n"),
        (("-a", "stdout"), "in out\n", ""),
        (("-a", "STDERR"), "", "err\n"),
        (("-a", "stdout", "-a", "stderr"), "in out\n", "err\n"),
        (("-a", "stdin"), "", ""),
    ],
)
def test_only_the_streams_that_are_attached_are_the_callers(tarbox, image, tmp_path, words, out, err, kind):
    """What is written to the others is gone, and nobody gets an error for it."""
    script = "read x; echo $x out || exit 3; echo err >&2 || exit 4; exit 7"
    command = ("run", "--rm", "-i", *words, image, "sh", "-c", script)
    if kind == "pipe":
        done = tarbox(*command, input="in\n")
        said, complained = done.stdout, done.stderr
    else:
        with open(tmp_path / "out", "w") as output, open(tmp_path / "err", "w") as errors:
            done = tarbox(*command, input="in\n", stdout=output, stderr=errors)
        said, complained = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert (done.returncode, said, complained) == (7, out, err)


def test_a_terminal_that_is_not_attached_is_read_all_the_same(tarbox, image):
    """A program that writes much doesn't wait for a reader."""
    done = tarbox("run", "--rm", "-t", "-a", "stdin", image, "sh", "-c", "true")
    assert done.returncode == 125  # as without -i there is no input to attach
    script = "i=0; while [ $i -lt 3000 ]; do echo line line line line line line; i=$((i+1)); done; exit 5"
    loud = tarbox("run", "--rm", "-t", "-a", "stdout", image, "sh", "-c", script)
    assert (loud.returncode, loud.stdout.count("line")) == (5, 18000)


def test_what_a_terminal_shows_to_nobody_is_gone(tarbox, image):
    """With -it, and only the input attached."""
    ours, theirs = os.openpty()
    try:
        script = "read x; echo got $x; yes line | head -n 20000; exit 6"
        started = tarbox.start("run", "-it", "-a", "stdin", image, "sh", "-c", script, stdin=theirs)
        os.write(ours, b"word\n")
        out, err = started.communicate(timeout=30)
        assert (started.returncode, out, err) == (6, b"", b"")
    finally:
        os.close(ours)
        os.close(theirs)


def test_an_image_for_another_machine_is_refused(tarbox, image):
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    other = "s390x"
    assert tarbox("run", "--platform", f"linux/{machine}", image, "true").returncode == 0
    assert tarbox("run", "--platform", machine, "host", "true").returncode == 0
    for source in (image, "host"):
        done = tarbox("run", "--platform", f"linux/{other}", source, "true")
        assert (done.returncode, done.stderr.count("\n")) == (125, 1)
        assert other in done.stderr
        assert machine in done.stderr


@pytest.fixture
def server(busybox_tar, tmp_path):
    """An address of a tarball that can be exchanged, and what was asked of it."""
    asked: list[str] = []
    served = {"data": busybox_tar.read_bytes()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(served["data"])))
            self.end_headers()
            self.wfile.write(served["data"])

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/root.tar", asked, served
        running.shutdown()
        thread.join()


def test_an_address_is_fetched_when_it_should_be(tarbox, server, tmp_path):
    """never: not at all, and nothing is asked; missing: once; always: again, with what is there now."""
    url, asked, served = server
    done = tarbox("run", "--pull", "never", url, "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "was never fetched, and --pull never forbids it" in done.stderr
    assert asked == []
    for when in ("missing", "missing", "never"):
        assert tarbox("run", "--pull", when, url, "true").returncode == 0
    assert len(asked) == 1
    changed = roots.busybox(tmp_path / "changed")
    (changed / "marker").write_text("new\n")
    served["data"] = roots.packed(changed, tmp_path / "changed.tar").read_bytes()
    assert tarbox("run", url, "cat", "/marker").returncode == 1
    assert tarbox.output("run", "--pull", "always", "-q", url, "cat", "/marker") == "new\n"
    assert len(asked) == 2
    assert tarbox.output("run", "--pull", "never", url, "cat", "/marker") == "new\n"
    assert len(asked) == 2
    served["data"] = b"no archive"
    assert tarbox("run", "--pull", "always", url, "true").returncode == 125
    assert tarbox.output("run", url, "cat", "/marker") == "new\n"


def test_a_fetched_image_has_to_be_for_the_platform(tarbox, server):
    url, asked, _ = server
    machine = {"x86_64": ("amd64", "386"), "aarch64": ("arm64", "arm")}[os.uname().machine]
    for _attempt in range(2):  # as it is fetched, and when it is there
        done = tarbox("run", "--platform", f"linux/{machine[1]}", url, "true")
        assert done.returncode == 125
        assert f"{url} is made for {machine[0]}, not for {machine[1]}" in done.stderr
    assert tarbox("run", "--platform", f"linux/{machine[0]}", url, "true").returncode == 0
    assert len(asked) == 1


def test_quiet_shows_no_progress(tarbox, busybox_tar, tmp_path):
    """On a terminal, where there is a bar otherwise."""
    command = tarbox.command("run", "--rm", "-q", busybox_tar, "true")
    shown = []
    for words in (command, [word for word in command if word != "-q"]):
        fresh = [str(tmp_path / str(len(shown))) if word == str(tarbox.root) else word for word in words]
        told = subprocess.run(
            ["script", "-qefc", subprocess.list2cmdline(fresh), "/dev/null"],
            env=tarbox.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout
        shown.append("MB" in told.stdout)
    assert shown == [False, True]
