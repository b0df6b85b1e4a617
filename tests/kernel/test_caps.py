"""Capabilities of processes and files, compared with getpcaps, getcap and setcap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from looked import container, running
from tarbox.kernel.capability_text import form, last, parse
from tarbox.kernel.file_capabilities import ATTRIBUTE, encode


def caps(tarbox, *words):
    """What `tarbox caps` says, as a program reads it."""
    return json.loads(tarbox.output("caps", "--json", *map(str, words)))


def getcap(path):
    """What getcap says of one file: the text alone."""
    said = subprocess.run(["getcap", "-n", path], check=True, capture_output=True, text=True).stdout.strip()
    return said.removeprefix(str(path)).strip()


def same(one, other):
    """Whether two texts mean the same sets."""
    return form(parse(one, last()), last()) == form(parse(other, last()), last())


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program"
    shutil.copy("/bin/true", path)
    return path


def test_a_process_has_five_sets(tarbox, plain_tarbox):
    """As getpcaps says of permitted, inheritable and effective, and /proc of all; by any user of any process."""
    command = ("setpriv", "--bounding-set", "-all,+kill,+chown,+net_raw", "--inh-caps", "-all,+kill", "--ambient-caps",
               "-all,+kill", "--reuid", "1000", "--clear-groups", "cat")  # fmt: skip
    with running(*command) as pid:
        (found,) = caps(tarbox, pid)["processes"]
        assert caps(plain_tarbox, pid)["processes"] == [found]
        said = subprocess.run(["getpcaps", str(pid)], check=True, capture_output=True, text=True).stdout
        text = tarbox.output("caps", str(pid))
    assert found["sets"]["ambient"]["names"] == found["sets"]["inheritable"]["names"] == ["cap_kill"]
    assert found["sets"]["bounding"]["names"] == ["cap_chown", "cap_kill", "cap_net_raw"]
    held = parse(said.partition(": ")[2], last())
    for name, value in (
        ("permitted", held.permitted),
        ("effective", held.effective),
        ("inheritable", held.inheritable),
    ):
        assert int(found["sets"][name]["mask"], 16) == value
    assert f"process {pid}  cat" in text
    assert "cap_chown cap_kill cap_net_raw" in text


def test_a_container_has_dockers(tarbox, rootfs_busybox):
    with container(tarbox, f"{rootfs_busybox}:O") as pid:
        text = tarbox.output("caps", str(pid))
    assert "effective, permitted, bounding  Docker's default: cap_chown cap_dac_override" in text
    assert "inheritable, ambient            none" in text


@pytest.mark.parametrize(
    "spec",
    ["cap_net_raw+ep", "cap_net_raw=ep", "cap_net_raw,cap_sys_admin=eip", "=ep", "all=i", "cap_chown=p cap_kill+i", "=",
     "cap_bpf+p", "all=p cap_chown-p", "CAP_KILL=ep"],
)  # fmt: skip
def test_setting_is_what_setcap_does(tarbox, program, tmp_path, spec):
    """The same bytes; getcap reads them, and we read setcap's."""
    other = tmp_path / "other"
    shutil.copy(program, other)
    subprocess.run(["setcap", spec, other], check=True)
    assert tarbox.output("caps", "set", spec, str(program)) == ""
    assert os.getxattr(program, ATTRIBUTE) == os.getxattr(other, ATTRIBUTE)
    assert same(getcap(program), spec)
    (found,) = caps(tarbox, other)["files"]
    assert same(found["text"], spec)
    assert (found["version"], found["rootid"]) == (2, None)
    assert form(parse(spec, last()), last()) in tarbox.output("caps", str(other))


def test_for_a_user_namespace_alone(tarbox, program):
    """Version 3, with the user whose root it is for."""
    tarbox.output("caps", "set", "-n", "1000", "cap_net_raw+ep", str(program))
    assert getcap(program) == "cap_net_raw=ep [rootid=1000]"
    (found,) = caps(tarbox, program)["files"]
    assert (found["version"], found["rootid"], found["text"]) == (3, 1000, "cap_net_raw=ep")
    assert "cap_net_raw=ep [rootid=1000]" in tarbox.output("caps", str(program))


@pytest.mark.parametrize("words", [("set", ""), ("set", "-r"), ("set", "--remove")])
def test_taking_away(tarbox, program, words):
    """Also when there are none."""
    subprocess.run(["setcap", "cap_kill=ep", program], check=True)
    for _ in range(2):
        tarbox.output("caps", *words, str(program))
        assert getcap(program) == ""
        assert caps(tarbox, program)["files"][0]["text"] is None
    assert tarbox.output("caps", str(program)) == f"{program}  none\n"


def test_a_program_has_what_was_set(tarbox, plain_tarbox, plain_folder):
    """A plain user may then what only root might."""
    program = plain_folder / "cat"
    shutil.copy("/bin/cat", program)
    tarbox.output("caps", "set", "cap_dac_read_search=ep", str(program))
    secret = plain_folder / "secret"
    secret.write_text("told")
    secret.chmod(0)
    os.chown(secret, 0, 0)
    command = ["setpriv", f"--reuid={plain_tarbox.user}", "--clear-groups", program, secret]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "told"
    tarbox.output("caps", "set", "", str(program))
    assert subprocess.run(command, capture_output=True, text=True).stdout == ""


def test_a_symbolic_link_stands_for_its_file(tarbox, program, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(program)
    tarbox.output("caps", "set", "cap_kill=p", str(link))
    assert getcap(program) == "cap_kill=p"
    assert caps(tarbox, link)["files"][0]["text"] == "cap_kill=p"


def test_all_files_below_a_directory(tarbox, tmp_path):
    """The ones that `getcap -r` finds; links aren't followed, odd names are harmless."""
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/th\x1bree", "none"):
        shutil.copy("/bin/true", top / name)
        if name != "none":
            subprocess.run(["setcap", "cap_net_bind_service=ep", top / name], check=True)
    (top / "loop").symlink_to(top)
    (top / "link").symlink_to(top / "one")
    os.mkfifo(top / "pipe")
    found = {entry["path"]: entry["text"] for entry in caps(tarbox, "--files", top)["files"]}
    assert found == dict.fromkeys(map(str, (top / "one", top / "a/two", top / "a/b/th\x1bree")),
                                  "cap_net_bind_service=ep")  # fmt: skip
    said = subprocess.run(["getcap", "-r", top], check=True, capture_output=True, text=True).stdout
    assert said.count("cap_net_bind_service=ep") == 3
    text = tarbox.output("caps", "--files", str(top))
    assert f"{top}/one " in text
    assert "th\\x1bree" in text
    assert "\x1b" not in text
    assert tarbox.output("caps", "--files", str(top / "loop/a/b/../../a/b")).count("\n") == 1
    (top / "empty").mkdir()
    assert tarbox.output("caps", "--files", str(top / "empty")) == "No file there has capabilities.\n"


def test_kernels_own_file_systems_are_not_searched(tarbox, tmp_path):
    """Below / there are /proc and /sys, which hold no programs and never end."""
    done = tarbox("caps", "--json", "--files", "/proc/1")
    assert done.returncode == 0
    import testhost

    (tmp_path / "proc").mkdir()
    testhost.mount("proc", str(tmp_path / "proc"), "proc", 0)
    try:
        assert caps(tarbox, "--files", tmp_path) == {"processes": [], "files": [], "unreadable": []}
    finally:
        subprocess.run(["umount", tmp_path / "proc"], check=True)


def test_a_plain_user_may_look_but_not_set(plain_tarbox, plain_folder):
    """And is told what it takes."""
    program = plain_folder / "program"
    shutil.copy("/bin/true", program)
    os.chown(program, plain_tarbox.user, plain_tarbox.user)
    subprocess.run(["setcap", "cap_kill=ep", program], check=True)
    assert caps(plain_tarbox, program)["files"][0]["permitted"] == ["cap_kill"]
    (plain_folder / "closed").mkdir(mode=0o700)
    assert caps(plain_tarbox, "--files", plain_folder)["unreadable"] == [str(plain_folder / "closed")]
    assert "can't be read: " in plain_tarbox.output("caps", "--files", str(plain_folder))
    done = plain_tarbox("caps", "set", "cap_net_raw=ep", str(program))
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "CAP_SETFCAP" in done.stderr
    assert getcap(program) == "cap_kill=ep"


def test_a_number_is_a_process_where_there_is_one(tarbox, tmp_path):
    """And a file otherwise; with ./ always a file."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    for name in ("1", "4194305"):
        shutil.copy("/bin/true", folder / name)
        (folder / name).write_text("x")
    os.setxattr(folder / "1", ATTRIBUTE, encode(parse("cap_kill=p", last())))
    found = json.loads(tarbox.output("caps", "--json", "1", "./1", "4194305", "self", cwd=folder))
    assert [entry["pid"] for entry in found["processes"]][:1] == [1]
    assert [(entry["path"], entry["text"]) for entry in found["files"]] == [("./1", "cap_kill=p"), ("4194305", None)]
    assert len(found["processes"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "capabilities of what?"),
        (("nosuch",), "there is no such file"),
        (("4194305",), "neither a process nor a file"),
        (("/tmp",), "--files /tmp"),
        (("--files", "/nosuch"), "there is no such directory"),
        (("--files", "/tmp", "x"), "one directory and nothing else"),
        (("-r", "x"), "tarbox caps set -r FILE"),
        (("set",), "set which capabilities of what?"),
        (("set", "cap_kill=ep"), "no file"),
        (("set", "cap_kill", "x"), "which sets"),
        (("set", "cap_kil=ep", "x"), "did you mean KILL?"),
        (("set", "cap_kill=ep", "/tmp"), "isn't a regular file"),
        (("set", "cap_kill=ep", "/nosuch"), "No such file"),
        (("set", "cap_kill=ep cap_chown=p", "/bin/true"), "all effective or none"),
        (("set", "/bin/true", "cap_kill=ep"), "the capabilities come first"),
        (("set", "-n", "x", "cap_kill=ep", "/bin/true"), "-n: 'x' is not a user's number"),
    ],
)
def test_a_slip_is_told(tarbox, words, said):
    """In one line, with exit code 125, and nothing is changed."""
    done = tarbox("caps", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    assert said in done.stderr
    assert getcap(Path("/bin/true")) == ""


def test_an_attribute_that_makes_no_sense(tarbox, tmp_path):
    """The kernel doesn't let anybody write one, so that a file system image that does is all there could be."""
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OSError, match="Invalid argument"):
        os.setxattr(file, ATTRIBUTE, b"\x01\x00\x00\x09" + bytes(16))
    assert caps(tarbox, file)["files"][0]["text"] is None
