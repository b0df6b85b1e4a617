"""The image `host`: this machine's own programs, at once, and the machine is never written nor told about."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

import testhost
from inside import ask


@pytest.fixture
def machine_etc(tmp_path):
    """An /etc of the test host's own, with secrets in it, over the machine's; a root and a home with files, too."""
    etc = tmp_path / "etc"
    subprocess.run(["cp", "-a", "/etc", etc], check=True)
    secrets = {
        "shadow": 0o640, "gshadow-": 0o640, "machine-id": 0o444, "ssl/private/my.key": 0o600, "app/token": 0o600,
        "app/open.key": 0o644, "app/db.password": 0o644, "app/cache.token": 0o644, "wide/deep/er/none": 0o600,
        "closed/in/it": 0o644,
    }  # fmt: skip
    for name, mode in {**secrets, "app/settings": 0o644, "wide/deep/er/known": 0o644}.items():
        path = etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text("SECRET" if name in secrets else "fine")
        path.chmod(mode)
    (etc / "closed").chmod(0o700)
    (etc / "link.key").symlink_to("app/settings")
    testhost.mount(str(etc), "/etc", None, testhost.MS_BIND)
    yield etc
    subprocess.run(["umount", "/etc"], check=True)


def fingerprint(*folders: str) -> str:
    """A checksum of names, modes, owners, sizes and times below these folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for place, names, files in sorted(os.walk(folder)):
            for name in sorted(names + files):
                facts = os.lstat(os.path.join(place, name))
                digest.update(
                    repr((place, name, facts.st_mode, facts.st_uid, facts.st_size, facts.st_mtime_ns)).encode()
                )
    return digest.hexdigest()


def test_secrets_arent_there_and_the_rest_is(tarbox, machine_etc):
    """What not everybody may read, and what is called a key or a token, whoever may read it; homes and /var."""
    said = ask(
        tarbox, "host",
        secrets="grep -rl SECRET /etc",
        shadow="ls /etc/shadow /etc/gshadow- /etc/machine-id /etc/closed /etc/ssl/private/my.key /etc/app/open.key",
        fine="cat /etc/app/settings /etc/wide/deep/er/known",
        listed="ls /etc/app /etc/wide/deep/er",
        passwd="head -1 /etc/passwd",
        link="readlink /etc/link.key",
        homes="ls -A /root /home /var/log /srv /mnt",
        var="ls -d /var/lib/dpkg /var/tmp /run/lock /var/run/lock",
        programs="python3 -c 'print(6 * 7)'; ls /usr/bin/env",
        write="touch /usr/bin/new /etc/new /opt/new /root/new /new && rm /usr/bin/env && echo done",
    )  # fmt: skip
    assert said["secrets"] == ""
    assert said["shadow"].count("No such file or directory") == 6
    assert said["fine"] == "finefine"
    assert "settings" in said["listed"]
    assert "token" not in said["listed"]
    assert said["passwd"].startswith("root:")
    assert said["link"] == "app/settings"
    assert set(said["homes"].split()) == {"/root:", "/home:", "/var/log:", "/srv:", "/mnt:"}
    assert "cannot access '/var/lib/dpkg'" in said["var"]
    assert said["programs"].split() == ["42", "/usr/bin/env"]
    assert said["write"] == "done"


def test_the_host_is_never_written(tarbox):
    """Whatever is removed, written or given away inside."""
    before = fingerprint("/usr/bin", "/usr/sbin", "/etc", "/opt")
    said = ask(
        tarbox, "host",
        do="rm -rf /etc/* /usr/sbin/* /opt; chmod 777 /usr/bin/e*; chown 5 /usr/bin/e*; echo x >/usr/bin/w; echo done",
    )  # fmt: skip
    assert "done" in said["do"]
    assert fingerprint("/usr/bin", "/usr/sbin", "/etc", "/opt") == before


def test_users_programs_and_libraries_are_the_machines(tarbox):
    """-u by a name of the machine's, dynamic programs, perl and python where they are."""
    assert tarbox.output("run", "-u", "nobody", "host", "id", "-un").strip() == "nobody"
    assert tarbox.output("run", "host", "sh", "-c", "ldd /bin/ls | grep -c 'not found'; true").strip() == "0"


def test_it_starts_at_once_and_leaves_nothing(tarbox):
    """No copy is made: an empty data root grows by less than a page of files."""
    tarbox.output("run", "host", "true")
    kept = [path for path in Path(tarbox.root).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 64 << 10
    assert not list((tarbox.root / "scratch").iterdir())


def test_a_read_only_host_can_be_written_nowhere(tarbox):
    script = (
        "for d in / /etc /usr /usr/bin /opt /var; do touch $d/x 2>/dev/null && echo wrote $d; done; touch /dev/shm/x"
    )
    assert tarbox.output("run", "--read-only", "host", "sh", "-c", script) == ""
