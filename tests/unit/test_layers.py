"""A layer is found by what stat says of its source; architectures are told by a program's header."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tarbox.errors import ArchitectureError, ArchiveError, ImageNotFoundError
from tarbox.images import architecture
from tarbox.images.download import download, without_secrets
from tarbox.images.layers import Layers, key
from tarbox.kernel.trees import remove_tree

X86 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00"
ARM = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00"


def test_a_changed_file_has_another_key(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"x")
    first = key(str(path))
    path.write_bytes(b"y")
    os.utime(path, ns=(5, 5))
    assert key(str(path)) != first
    with pytest.raises(ImageNotFoundError):
        key(str(tmp_path / "missing"))


def test_a_url_is_one_safe_name():
    assert "/" not in key("https://example.org/a/../b?c")
    assert len(key("https://example.org/" + "ü" * 500)) < 255
    assert key("http://a/b%2fc") != key("http://a/b/c")


def test_what_was_never_unpacked_is_not_found(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x")
    layers = Layers(str(tmp_path / "data"))
    assert layers.find(str(tmp_path / "a.tar")) is None
    assert not (tmp_path / "data").exists()
    step = layers.unpack(str(tmp_path / "a.tar"))
    assert ("tree", step.scratch) in step.record()
    assert step.place in step.shell()
    assert step.source in step.call()


def test_the_architecture_is_told_and_a_foreign_one_refused(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").write_bytes(ARM)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        assert architecture.architecture(handle) == "arm64"
        (tmp_path / "bin/sh").write_bytes(b"#!/bin/other\n" + bytes(20))
        assert architecture.architecture(handle) is None
        os.mkfifo(tmp_path / "bin/aaa")
        (tmp_path / "bin/tool").write_bytes(X86)
        assert architecture.architecture(handle) == "amd64"
    finally:
        os.close(handle)
    monkeypatch.setattr(architecture, "MACHINE", "x86_64")
    monkeypatch.setattr(architecture, "_HANDLERS", str(tmp_path / "handlers"))
    architecture.require("amd64", "x")
    architecture.require("", "x")
    with pytest.raises(ArchitectureError, match=r"arm64.*amd64"):
        architecture.require("arm64", "x")
    (tmp_path / "handlers").mkdir()
    mask = "ffffffffffffff00fffffffffffffffffeffffff"
    handler = f"enabled\ninterpreter /usr/bin/qemu\nflags: F\noffset 0\nmagic {X86.hex()}\nmask {mask}\n"
    (tmp_path / "handlers/qemu").write_text(handler)
    with pytest.raises(ArchitectureError):
        architecture.require("arm64", "x")
    (tmp_path / "handlers/qemu").write_text(handler.replace(X86.hex(), ARM.hex()))
    architecture.require("arm64", "x")


def test_a_tree_is_removed_however_deep_and_links_are_not_followed(tmp_path):
    safe = tmp_path / "safe"
    safe.mkdir()
    (safe / "file").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(safe)
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    remove_tree(str(tree))
    remove_tree(str(tree))
    assert not tree.exists()
    (tmp_path / "link").symlink_to(safe)
    remove_tree(str(tmp_path / "link"))
    assert [path.name for path in tmp_path.rglob("*")] == ["safe", "file"]


class Server(BaseHTTPRequestHandler):
    """Serves `content` in ways that `mode` says."""

    content = os.urandom(300_000)
    mode = ""
    seen: list[dict[str, str]] = []

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        self.seen.append({"path": self.path, **self.headers})
        if self.mode == "missing":
            self.send_error(404)
        elif self.path == "/redirect":
            self._say(302, [("Location", "/file")])
        elif self.path == "/elsewhere":
            self._say(302, [("Location", f"http://localhost:{self.server.server_port}/file")])
        elif self.path == "/weaker":
            self._say(302, [("Location", "file:///etc/passwd")])
        elif self.path == "/round":
            self._say(302, [("Location", "/round")])
        elif "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            size = len(self.content)
            self._say(206, [("Content-Range", f"bytes {start}-{size - 1}/{size}"), ("ETag", '"one"')], start)
        else:
            cut = self.mode == "always cut" or (self.mode == "cut once" and len(self.seen) == 1)
            self._say(200, [("ETag", '"one"' if self.mode != "always cut" else 'W/"one"')], 0, cut)

    def _say(self, status, headers, start=None, cut=False):
        self.send_response(status)
        body = b"" if start is None else self.content[start:]
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    listening = HTTPServer(("127.0.0.1", 0), Server)
    Server.seen, Server.mode = [], ""
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.mark.parametrize("path", ["/file", "/redirect", "/elsewhere"])
def test_a_download_comes_whole_through_redirects(server, tmp_path, path):
    download(f"http://{server}{path}", str(tmp_path / "file"), 0)
    assert (tmp_path / "file").read_bytes() == Server.content


def test_a_download_that_breaks_is_taken_up_where_it_broke(server, tmp_path):
    Server.mode = "cut once"
    download(f"http://{server}/file", str(tmp_path / "file"), 0)
    assert (tmp_path / "file").read_bytes() == Server.content
    assert Server.seen[1]["Range"].startswith("bytes=1")
    assert Server.seen[1]["If-Range"] == '"one"'


def test_a_download_that_always_breaks_is_given_up(server, tmp_path):
    Server.mode = "always cut"
    with pytest.raises(ArchiveError, match="can't download") as caught:
        download(f"http://{server}/file?secret", str(tmp_path / "file"), 0)
    assert len(Server.seen) == 4
    assert not any("Range" in request for request in Server.seen)
    assert "secret" not in str(caught.value)


def test_what_is_missing_weaker_or_endless_is_refused(server, tmp_path):
    for path, error in (("/weaker", ArchiveError), ("/round", ArchiveError)):
        with pytest.raises(error):
            download(f"http://{server}{path}", str(tmp_path / path[1:]), 0)
    Server.mode = "missing"
    with pytest.raises(ImageNotFoundError, match="404"):
        download(f"http://{server}/file", str(tmp_path / "file"), 0)


def test_a_password_is_shown_to_nobody_else(server, tmp_path):
    download(f"http://me:secret@{server}/elsewhere", str(tmp_path / "file"), 0)
    assert ["authorization" in map(str.lower, request) for request in Server.seen] == [True, False]
    assert without_secrets("https://me:secret@example.org/a?token=b") == "https://example.org/a"
