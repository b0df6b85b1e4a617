"""Root filesystems that tests run: a busybox made on the fly, Debians made once by mmdebstrap and kept.

The kept ones are in $TARBOX_TEST_CACHE or ~/.cache/tarbox-tests.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import testhost

BUSYBOX = Path("/bin/busybox")


def busybox(folder: Path) -> Path:
    """Make a root filesystem of a static busybox in `folder`, which must not exist yet, and return it."""
    for name in ("bin", "sbin", "usr/bin", "usr/sbin", "etc", "proc", "sys", "dev", "root", "home", "var/tmp", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    (folder / "root").chmod(0o700)
    shutil.copy(BUSYBOX, folder / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list-full"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        path = folder / applet
        if not path.exists() and path.parent.is_dir():
            path.symlink_to("/bin/busybox")
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/home:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\nguest:x:1000:\naudio:x:29:guest\n")
    (folder / "etc/hostname").write_text("busybox\n")
    return folder


def packed(folder: Path, archive: Path) -> Path:
    """Pack a root filesystem with GNU tar, owners by number, everything kept; returns the archive."""
    subprocess.run(
        ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", folder, "-cf", archive, "."], check=True
    )
    return archive


def debian(host: testhost.TestHost, variant: str, *packages: str) -> Path:
    """The path of a Debian root filesystem as a tarball with these packages; fetches it when it isn't there yet."""
    kept = Path(os.environ.get("TARBOX_TEST_CACHE") or Path.home() / ".cache" / "tarbox-tests")
    kept.mkdir(parents=True, exist_ok=True)
    suite = "bookworm"
    archive = kept / ("-".join([suite, variant, *packages]) + ".tar")
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            made = archive.with_suffix(".new.tar")
            wanted = [f"--include={','.join(packages)}"] if packages else []
            arguments = ["--quiet", "--mode=root", f"--variant={variant}", *wanted]
            host.outside("mmdebstrap", *arguments, suite, str(made), env=os.environ | {"TMPDIR": "/var/tmp"})
            made.rename(archive)
    return archive
