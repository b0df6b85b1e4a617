"""--label, --label-file, --annotation, and the other small options: --attach, --pull, --platform, --cidfile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tarbox.cli import run
from tarbox.cli.arguments import parse
from tarbox.engine.cidfile import WriteId, step
from tarbox.engine.config import config
from tarbox.engine.labels import annotation, label, read_label_file
from tarbox.engine.machine import Machine
from tarbox.engine.options import RunOptions
from tarbox.engine.values import platform, pull, stream
from tarbox.errors import ArchitectureError, StorageError, UsageError
from tarbox.images import architecture
from tarbox.plan.step import Slots
from tarbox.spec.validation import validate


def options(*words: str) -> RunOptions:
    return run.run_options(parse(run.VERB, [*words, "./rootfs"]))


def refused(read: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as raised:
        read()
    return str(raised.value)


def test_labels_and_annotations_are_the_configs_annotations(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("# mine\na=file\n\nb=two words \nonly\n")
    chosen = options("--label-file", str(file), "-l", "a=1", "--label", "empty", "--annotation", "x.y/z=a=b")
    assert chosen.labels == {"a": "1", "b": "two words ", "only": "", "empty": ""}
    made: Any = config(chosen, {}, "0123456789abcdef" * 4, Machine("here"), "/srv")
    validate(made)
    assert made["annotations"] == {**chosen.labels, "x.y/z": "a=b"}
    assert "annotations" not in config(options(), {}, "0123456789abcdef" * 4, Machine("here"), "/srv")


@pytest.mark.parametrize("text", ["", "=x", " =x", "a b=c", "a\tb", "a\x1b[1m=x", "a=\0"])
def test_what_is_no_label_is_refused(text: str) -> None:
    refused(lambda: label(text))
    refused(lambda: annotation(text))


def test_an_annotation_has_a_value() -> None:
    assert "has no value" in refused(lambda: annotation("a"))
    assert annotation("a=") == ("a", "")


def test_a_bad_label_file_is_told_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("a=1\nb c=2\n")
    assert ", line 2: 'b c=2'" in refused(lambda: read_label_file(str(file)))
    assert "No such file" in refused(lambda: read_label_file(f"{file}.none"))


def test_streams() -> None:
    assert [stream(text) for text in ("stdin", "STDOUT", "Stderr")] == ["stdin", "stdout", "stderr"]
    assert "'stdouts'" in refused(lambda: stream("stdouts"))
    assert options("-a", "stdout", "-a", "stderr").attach == ["stdout", "stderr"]
    assert options("-i", "-a", "stdin").attach == ["stdin"]
    assert "add -i" in refused(lambda: options("-a", "stdin"))


def test_when_to_pull() -> None:
    assert [pull(text) for text in ("always", "missing", "never")] == ["always", "missing", "never"]
    assert "did you mean always?" in refused(lambda: pull("alway"))
    assert "always, missing or never" in refused(lambda: pull("true"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("linux/amd64", "amd64"), ("linux/arm/v7", "arm"), ("arm64", "arm64"), ("linux/x86_64", "amd64"),
     ("Linux/aarch64", "arm64")],
)  # fmt: skip
def test_platforms(text: str, expected: str) -> None:
    assert platform(text) == expected


@pytest.mark.parametrize("text", ["", "linux", "linux/", "windows/amd64", "linux/a/b/c", "linux/../x", "a b"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    refused(lambda: platform(text))


def test_an_image_has_to_be_for_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "MACHINE", "x86_64")
    monkeypatch.setattr(architecture, "_HANDLERS", "/nonexistent")
    architecture.require("amd64", "./x.tar", "amd64")
    architecture.require("", "./x.tar", "amd64")
    architecture.require_platform("386")
    with pytest.raises(ArchitectureError, match=r"\./x\.tar is made for amd64, not for 386 \(--platform linux/amd64\)"):
        architecture.require("amd64", "./x.tar", "386")
    with pytest.raises(ArchitectureError, match="this machine is amd64 and doesn't run such programs"):
        architecture.require_platform("arm64")
    with pytest.raises(ArchitectureError, match="own programs are for amd64, not for 386"):
        architecture.require_platform("386", own=True)


def test_a_file_for_the_id_is_written_once(tmp_path: Path) -> None:
    path = str(tmp_path / "id")
    written = step(path, "abc")
    written.apply(Slots())
    assert (tmp_path / "id").read_text() == "abc"
    assert (tmp_path / "id").stat().st_mode & 0o7777 == 0o644
    assert "is there already" in refused(lambda: step(path, "def"))
    assert "is there already" in refused(lambda: WriteId(path, "def").apply(Slots()))
    assert (tmp_path / "id").read_text() == "abc"
    (tmp_path / "link").symlink_to("nowhere")
    assert "is there already" in refused(lambda: step(str(tmp_path / "link"), "def"))
    with pytest.raises(StorageError, match="No such file or directory"):
        WriteId(f"{path}.d/id", "abc").apply(Slots())


def test_stop_timeout_is_refused_with_a_reason() -> None:
    assert "--timeout TIME" in refused(lambda: options("--stop-timeout", "5"))
