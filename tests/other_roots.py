"""Root filesystems of other kinds than Debian's: one whose C library is musl, one made of rpm packages.

Neither distribution that usually has them can be fetched here, so they are made of what Debian has: musl itself and
busybox's source, compiled against it; and rpm, which builds packages of this machine's own programs and installs them.
The results are kept beside the Debians of roots.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from testhost import TestHost

# What the busybox of the musl root has; everything else is left out, so that it is compiled in seconds.
APPLETS = (
    "ASH SH_IS_ASH LS CAT ID TEST TEST1 PRINTF SLEEP FEATURE_FANCY_SLEEP FLOAT_DURATION KILL PS GREP CUT HEAD TAIL WC"
    " SORT STAT CHOWN CHMOD TOUCH MKDIR RM RMDIR LN MV CP DD TRUE FALSE ENV HOSTNAME UNAME PWD READLINK SED TR WHOAMI"
    " ECHO UNIQ SEQ NPROC DPKG DPKG_DEB TAR FEATURE_SH_MATH ASH_PRINTF ASH_TEST ASH_ECHO FEATURE_STAT_FORMAT"
    " FEATURE_SEAMLESS_GZ FEATURE_SEAMLESS_XZ LONG_OPTS PLATFORM_LINUX LFS BUSYBOX FEATURE_INSTALLER"
)
USERS = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/srv:/bin/sh\n"
GROUPS = "root:x:0:\napp:x:1001:\nextra:x:1002:app\n"
SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def musl(host: TestHost) -> Path:
    """A tarball with Debian's musl and a busybox that is linked with it, both in dpkg's database; fetched once."""
    return _kept("musl", lambda folder: _make_musl(host, folder))


def rpm() -> Path:
    """A tarball of rpm packages: bash, busybox, rpm and their libraries, installed by rpm into its own database."""
    return _kept("rpm", _make_rpm)


def extra_deb(folder: Path) -> Path:
    """A Debian package with one program, /bin/extra, as `extra.deb` in this folder."""
    top = folder / "deb"
    (top / "DEBIAN").mkdir(parents=True)
    (top / "DEBIAN/control").write_text(
        "Package: extra\nVersion: 1\nArchitecture: all\nMaintainer: tests <tests@localhost>\nDescription: one more\n"
    )
    _program(top / "bin/extra")
    _run("dpkg-deb", "-Zgzip", "--root-owner-group", "--build", top, folder / "extra.deb")
    return folder / "extra.deb"


def extra_rpm(folder: Path) -> Path:
    """The same as an rpm package."""
    _program(folder / "files/bin/extra")
    listed = (
        "%package -n extra\nSummary: one more\nAutoReqProv: no\n%description -n extra\n%files -n extra\n/bin/extra\n"
    )
    return _built(folder, listed)[0].rename(folder / "extra.rpm")


def _program(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\necho extra\n")
    path.chmod(0o755)


def _kept(name: str, make: Callable[[Path], Path]) -> Path:
    kept = Path(os.environ.get("TARBOX_TEST_CACHE") or Path.home() / ".cache" / "tarbox-tests")
    kept.mkdir(parents=True, exist_ok=True)
    archive = kept / f"{name}-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]}.tar"
    with open(kept / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            for old in kept.glob(f"{name}-*.tar"):
                old.unlink()
            with tempfile.TemporaryDirectory(prefix="tarbox-root-", dir="/var/tmp") as folder:
                roots.packed(make(Path(folder)), archive.with_suffix(".new")).rename(archive)
    return archive


def _run(*command: str | Path, **options: object) -> None:
    """A command that must succeed, and shows what it said only when it doesn't."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def _skeleton(rootfs: Path) -> Path:
    for name in ("etc", "proc", "sys", "dev", "root", "srv", "tmp", "bin", "var/lib/dpkg/info", "var/lib/dpkg/updates"):
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    (rootfs / "tmp").chmod(0o1777)
    (rootfs / "etc/passwd").write_text(USERS)
    (rootfs / "etc/group").write_text(GROUPS)
    return rootfs


# --- musl


def _make_musl(host: TestHost, folder: Path) -> Path:
    sources = folder / "debian.sources"
    sources.write_text(SOURCES)
    (folder / "lists/partial").mkdir(parents=True)
    apt = (
        "apt-get", "-qq", "-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null",
        "-o", f"Dir::State::Lists={folder}/lists", "-o", "APT::Sandbox::User=root",
    )  # fmt: skip
    host.outside(*apt, "update", stdout=subprocess.DEVNULL)
    for words in ((*apt, "source", "--download-only", "busybox"), ("apt-get", "-qq", "download", "musl")):
        host.outside("env", "-C", str(folder), *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _run("dpkg-source", "-x", next(folder.glob("*.dsc")), folder / "source")
    _compile(folder / "source", folder / "headers")
    package = folder / "busybox-musl"
    (package / "bin").mkdir(parents=True)
    (package / "DEBIAN").mkdir()
    shutil.copy(folder / "source/busybox", package / "bin/busybox")
    names = subprocess.run([folder / "source/busybox", "--list"], capture_output=True, text=True, check=True)
    for name in {*names.stdout.split(), "sh"}:
        (package / "bin" / name).symlink_to("busybox")
    machine = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    (package / "DEBIAN/control").write_text(
        f"Package: busybox-musl\nVersion: 1.35\nArchitecture: {machine}\nMaintainer: tests <tests@localhost>\n"
        "Depends: musl\nDescription: busybox, linked with musl\n"
    )
    _run("dpkg-deb", "--root-owner-group", "--build", package, folder / "busybox.deb")
    rootfs = _skeleton(folder / "root")
    (rootfs / "var/lib/dpkg/status").touch()
    packages = [*folder.glob("musl_*.deb"), folder / "busybox.deb"]
    _run("dpkg", f"--root={rootfs}", "--force-script-chrootless", "--install", *packages)
    return rootfs


def _compile(source: Path, headers: Path) -> None:
    """Compile a busybox with musl-gcc, which brings no headers of the kernel's: those are this machine's."""
    headers.mkdir()
    machine = subprocess.check_output(["gcc", "-print-multiarch"], text=True).strip()
    for name, place in (("linux", "linux"), ("asm", f"{machine}/asm"), ("asm-generic", "asm-generic"), ("mtd", "mtd")):
        (headers / name).symlink_to(f"/usr/include/{place}")
    _run("make", "-C", source, "allnoconfig")
    config = source / ".config"
    wanted = APPLETS.split()
    text = re.sub(
        r"^# CONFIG_(\w+) is not set$",
        lambda line: f"CONFIG_{line[1]}=y" if line[1] in wanted else line[0],
        config.read_text(),
        flags=re.MULTILINE,
    )
    config.write_text(text)
    _run("sh", "-c", "yes '' | make oldconfig", cwd=source)
    _run("make", "-C", source, "-j2", "CC=musl-gcc", "HOSTCC=gcc", f"CFLAGS=-isystem {headers}", "busybox")


# --- rpm

SPEC = """
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%global _build_id_links none
Name: tests
Version: 1
Release: 1
Summary: Programs of this machine as rpm packages
License: none
%description
{packages}
%install
cp -a {files}/. %{{buildroot}}
"""


def _libraries(*programs: str) -> set[str]:
    told = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(/\S+) \(0x", told))


def _built(folder: Path, listed: str) -> list[Path]:
    """The rpm packages of what is in folder/files, which `listed` shares out among them."""
    spec = folder / "tests.spec"
    spec.write_text(SPEC.format(packages=listed, files=folder / "files"))
    _run("rpmbuild", "-bb", "--define", f"_topdir {folder}/build", spec, env=os.environ | {"HOME": str(folder)})
    return sorted((folder / "build/RPMS").rglob("*.rpm"))


def _make_rpm(folder: Path) -> Path:
    """Four packages: what all need, a shell, a handful of tools, and rpm itself."""
    macros = Path("/usr/lib/rpm")
    contents = {
        "bash": {"/bin/bash"},
        "rpm": {"/usr/bin/rpm", *(str(file) for file in macros.rglob("*") if file.name in ("macros", "rpmrc"))},
        "libs": _libraries("/bin/bash", "/usr/bin/rpm"),
        "busybox": {"/bin/busybox"},
    }
    contents["rpm"] |= {str(file) for file in (macros / "macros.d").glob("*") if file.is_file()}
    files = folder / "files"
    for names in contents.values():
        for name in names:
            copy = files / name.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(name), copy)
    own = {
        "/etc/rpm/macros": "%_dbpath /var/lib/rpm\n", "/etc/passwd": USERS, "/etc/group": GROUPS,
        "/etc/os-release": "ID=tests\n",
    }  # fmt: skip
    for name, text in own.items():
        copy = files / name.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
    applets = subprocess.run([roots.BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in set(applets) - {"rpm", "bash", "busybox"}:
        (files / "bin" / applet).unlink(missing_ok=True)
        (files / "bin" / applet).symlink_to("bash" if applet == "sh" else "busybox")
        contents["busybox"].add(f"/bin/{applet}")
    contents["base"] = set(own)
    text = ""
    for package, names in contents.items():
        listed = "\n".join(f"%attr(-, root, root) {name}" for name in sorted(names))
        text += f"%package -n {package}\nSummary: {package}\nAutoReqProv: no\n%description -n {package}\n"
        text += f"%files -n {package}\n{listed}\n"
    packages = _built(folder, text)
    assert len(packages) == len(contents)
    rootfs = _skeleton(folder / "root")
    for name in ("etc/passwd", "etc/group"):
        (rootfs / name).unlink()
    shutil.rmtree(rootfs / "var/lib/dpkg")
    database = ("rpm", f"--root={rootfs}", "--dbpath=/var/lib/rpm")
    _run(*database, "--initdb")
    _run(*database, "--force-debian", "--install", "--nodeps", *packages)
    return rootfs
