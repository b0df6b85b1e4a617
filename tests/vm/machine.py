#!/usr/bin/env python3
"""A throwaway virtual machine with this machine's files and Debian's own kernel.

    python3 tests/vm/machine.py [--timeout SECONDS] [--console] -- COMMAND …
    python3 tests/vm/machine.py --fetch

What runs in it sees cgroup v2 with all controllers, all capabilities and AppArmor, whatever the kernel outside has. Its
root is this machine's, read-only, under a writable layer in memory; /tmp, /run, /dev/shm and /var/lib/tarbox are new
and empty. There is no network but loopback. The command's exit status is passed on; 124 means that it took too long,
125 that the machine didn't start or ended early.

Without hardware virtualization QEMU emulates the processor: Python is then 15 to 25 times slower, a start takes 6 to 15
seconds. Needs root and Debian's packages qemu-system-x86, busybox-static, kmod and xz-utils (from Debian 13 on,
virtiofsd as well). The kernel is fetched once by `apt-get download` into $TARBOX_TEST_CACHE or ~/.cache/tarbox-tests.

man 1 qemu-system-x86_64, man 1 virtiofsd
"""

from __future__ import annotations

import argparse
import glob
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNELS = ("linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64")  # the first that the package lists know
OLDER = KERNELS[1:]  # in Debian 12 it is Linux 6.1, the last one built with all controllers of cgroup v1
SERVERS = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")  # the C program of QEMU 7, the Rust one since
PROGRAMS = ("qemu-system-x86_64", "busybox", "depmod", "xz", "unshare", "setpriv", "apt-get")

# Outside, in mount and pid namespaces of its own: put the view together, then start the machine.
OUTSIDE = r"""
set -e
umask 022
mount --bind / "$VIEW"
mount -o remount,bind,ro "$VIEW"
for path in $APART; do mount --bind "$path" "$VIEW$path"; mount -o remount,bind,ro "$VIEW$path"; done
mount --bind "$RUN" "$VIEW/mnt"
case $SERVER in
*/libexec/*) "$SERVER" --socket-path="$RUN/files" --shared-dir="$VIEW" --cache=always --log-level=error & ;;
*) "$SERVER" --socket-path="$RUN/files" -o source="$VIEW" -o cache=always -o log_level=err & ;;
esac
while [ ! -S "$RUN/files" ]; do kill -0 $!; sleep .02; done
exec qemu-system-x86_64 -M q35 $PROCESSOR -smp 2 -m "$MEMORY" -nodefaults -no-reboot -display none \
  -chardev stdio,id=console,signal=off -serial chardev:console \
  -object memory-backend-memfd,id=memory,size="$MEMORY",share=on -numa node,memdev=memory \
  -chardev socket,id=files,path="$RUN/files" -device vhost-user-fs-pci,chardev=files,tag=outside,queue-size=1024 \
  -kernel "$KERNEL" ${FIRST:+-initrd "$FIRST"} \
  -append "root=outside rootfstype=virtiofs rw init=/mnt/init console=ttyS0 panic=-1 quiet \
  mitigations=off nokaslr tsc=reliable no_timer_check $PARAMETERS"
"""

# Inside, as process 1: lay memory over the root, mount what a machine has, then do what the console says. /mnt is the
# folder for messages; /run is borrowed for making the new root.
INSIDE = r"""#!/bin/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
. /mnt/settings
mount -t proc proc /proc
mount -t tmpfs -o mode=755 layer /run
cd /run
mkdir upper work root
/sbin/modprobe -d "$MODULES" overlay
mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work overlay root
cd root
mkdir -p .old lib/modules var/lib/tarbox
ln -s "$MODULES/lib/modules/$VERSION" lib/modules/  # no mount: below one, plain users can't lay an overlay over /usr
mount --move /proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs -o mode=755 dev dev
mkdir -p dev/pts dev/shm dev/mqueue
ln -sf /proc/self/fd dev/fd; ln -sf fd/0 dev/stdin; ln -sf fd/1 dev/stdout; ln -sf fd/2 dev/stderr
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts
mount -t mqueue mqueue dev/mqueue
mkdir /run/project; mount --bind ".$PROJECT" /run/project
mount -t tmpfs -o mode=755 run run
for folder in tmp var/tmp dev/shm; do mount -t tmpfs -o mode=1777 tmp $folder; done
mount -t tmpfs -o mode=755 data var/lib/tarbox
case $PROJECT in
/tmp/* | /var/tmp/*) mkdir -p ".$PROJECT"; mount --bind /run/project ".$PROJECT" ;;  # else the new folder covers it
esac
mount --bind /mnt mnt
mount -t securityfs securityfs sys/kernel/security
mount -t bpf bpf sys/fs/bpf
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 sys/fs/cgroup
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
hostname machine
ip link set lo up
/sbin/modprobe -qab loop tun fuse
: > /mnt/up
while read -r turn; do
  setsid /bin/sh "/mnt/$turn.command" </dev/null >"/mnt/$turn.output" 2>&1
  echo $? >"/mnt/$turn.new"
  sync "/mnt/$turn.output" "/mnt/$turn.new"
  mv "/mnt/$turn.new" "/mnt/$turn.status"
done </dev/console
"""


# Before that, where the kernel has what it needs for its root as modules.
FIRST = r"""#!/bin/busybox sh
for module in $(/bin/busybox cat /order); do /bin/busybox insmod "$module"; done
/bin/busybox mount -t virtiofs outside /root
exec /bin/busybox switch_root /root /mnt/init
"""


class MachineError(Exception):
    """The machine didn't start, ended early, or a command in it took too long (then `late` is true)."""

    def __init__(self, message: str, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class Machine:
    """A running virtual machine; as a context manager it is gone at the end, with all that it made.

    memory: as QEMU writes sizes. parameters: more of the kernel's. older: with the release's own kernel. Raises
    MachineError when it doesn't start within two minutes.
    """

    def __init__(self, memory: str = "2G", parameters: str = "", older: bool = False) -> None:
        self.parameters = parameters
        self.turn = 0
        self.folder = tempfile.mkdtemp(prefix="tarbox-vm-", dir="/dev/shm")
        self.console = open(self.folder + "/console", "wb+")
        self.process: subprocess.Popen[bytes] | None = None
        try:
            kernel = fetch(older)
            accelerations = ["-accel kvm -cpu host"] if has_kvm() else []
            for processor in [*accelerations, "-accel tcg,thread=multi -cpu Nehalem,+rdrand"]:
                if self._start(kernel, processor, memory):
                    return
            raise MachineError(f"the machine doesn't start:\n{self.log()}")
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, command: list[str], timeout: float = 600, folder: str = "/") -> tuple[int, str]:
        """Run `command` in the machine as root and return its exit status and its output, both streams together.

        timeout: seconds. folder: the working directory. Raises MachineError; the machine is of no use then.
        """
        assert self.process is not None
        assert self.process.stdin is not None
        self.turn += 1
        names = {kind: f"{self.folder}/{self.turn}.{kind}" for kind in ("command", "output", "status")}
        with open(names["command"], "w") as file:
            file.write(f"cd {shlex.quote(folder)} || exit 126\nexec {shlex.join(command)}\n")
        self.process.stdin.write(b"%d\n" % self.turn)
        self.process.stdin.flush()
        deadline = time.monotonic() + timeout
        while not os.path.exists(names["status"]):
            output = read(names["output"])
            if self.process.poll() is not None:
                raise MachineError(f"the machine ended early:\n{output}\n{self.log()}")
            if time.monotonic() > deadline:
                raise MachineError(f"after {timeout:g} seconds {shlex.join(command)} wasn't done:\n{output}", late=True)
            time.sleep(0.05)
        return int(read(names["status"])), read(names["output"])

    def log(self) -> str:
        """The last of what the machine wrote to its console."""
        return read(self.folder + "/console")[-4000:]

    def stop(self) -> None:
        """End the machine as if somebody pulled the plug."""
        self._end()
        self.console.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, kernel: str, processor: str, memory: str) -> bool:
        modules = os.path.dirname(os.path.dirname(kernel))
        version = os.path.basename(kernel).partition("-")[2]
        view = self.folder + "/view"
        os.makedirs(view, exist_ok=True)
        with open(self.folder + "/settings", "w") as file:
            file.write(f"MODULES={shlex.quote(modules)}\nVERSION={version}\nPROJECT={shlex.quote(PROJECT)}\n")
        with open(self.folder + "/init", "w") as file:
            file.write(INSIDE)
        os.chmod(self.folder + "/init", 0o755)
        # Whatever a test needs of other file systems: binding the root shows none of them.
        needed = {os.path.realpath(path) for path in (PROJECT, sys.base_prefix, sys.prefix, modules)}
        apart = sorted(path for path in needed if os.stat(path).st_dev != os.stat("/").st_dev)
        settings = {"VIEW": view, "RUN": self.folder, "APART": " ".join(apart), "KERNEL": kernel, "MEMORY": memory}
        settings["FIRST"] = first_files(kernel, self.folder)
        settings |= {"PROCESSOR": processor, "SERVER": server() or "", "PARAMETERS": self.parameters}
        self.process = subprocess.Popen(
            # When this process dies, so does `unshare`, then the namespace's first process, and all others with it.
            ["setpriv", "--pdeathsig", "KILL", "unshare", "-mpf", "--kill-child", "sh", "-c", OUTSIDE],
            stdin=subprocess.PIPE,
            stdout=self.console,
            stderr=self.console,
            env=dict(os.environ, **settings),
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            if os.path.exists(self.folder + "/up"):
                return True
            time.sleep(0.05)
        self._end()
        return False

    def _end(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            # The namespace's first process: when `unshare` has seen it end, every process in there is gone.
            first = read(f"/proc/{self.process.pid}/task/{self.process.pid}/children").split()
            for pid in first or [str(self.process.pid)]:
                os.kill(int(pid), 9)
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()
        self.process = None


def read(path: str) -> str:
    """The text in a file; "" when it isn't there."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def server() -> str | None:
    """The path of the program that serves files to a virtual machine."""
    return next((path for path in SERVERS if os.path.exists(path)), None)


def has_kvm() -> bool:
    """Whether this processor's help can be used."""
    flags = read("/proc/cpuinfo").split()
    return ("vmx" in flags or "svm" in flags) and os.access("/dev/kvm", os.W_OK)


def lacks() -> str:
    """Why no machine can be started here, in one line; "" when one can."""
    if os.geteuid() != 0:
        return "a virtual machine with this machine's files needs root"
    if os.uname().machine != "x86_64":
        return f"the virtual machine is for x86_64, not for {os.uname().machine}"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing or not server():
        return f"not installed: {', '.join(missing or ['virtiofsd'])} (apt-get install qemu-system-x86 busybox-static)"
    return ""


def fetch(older: bool = False) -> str:
    """The path of a kernel with its modules beside it, fetched from Debian when there is none yet."""
    cache = os.environ.get("TARBOX_TEST_CACHE") or os.path.expanduser("~/.cache/tarbox-tests")
    folder = cache + ("/kernel-older" if older else "/kernel")
    if not os.path.isdir(folder):
        os.makedirs(cache, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="kernel-") as work:
            package = _package(OLDER if older else KERNELS)
            command = ["apt-get", "-q", "download", "-o", "APT::Sandbox::User=root", package]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            if done.returncode:
                raise MachineError(f"{package} can't be fetched: {done.stderr.strip()}")
            subprocess.run(["dpkg", "-x", *glob.glob(work + "/*.deb"), work + "/kernel"], check=True)
            packed = glob.glob(work + "/kernel/lib/modules/*/**/*.ko.xz", recursive=True)
            for start in range(0, len(packed), 200):
                subprocess.run(["xz", "-d", *packed[start : start + 200]], check=True)
            version = os.listdir(work + "/kernel/lib/modules")[0]
            subprocess.run(["depmod", "-b", work + "/kernel", version], check=True)
            os.rename(work + "/kernel", folder)
    return sorted(glob.glob(folder + "/boot/vmlinuz-*"))[-1]


def first_files(kernel: str, folder: str) -> str:
    """The path of an archive with the modules that the root needs, made in `folder`; "" where they are built in."""
    top, version = os.path.dirname(os.path.dirname(kernel)), os.path.basename(kernel).partition("-")[2]
    modules = f"{top}/lib/modules/{version}"
    needed = dict(line.split(":") for line in read(modules + "/modules.dep").splitlines())
    wanted = [path for path in needed if path.endswith(("/virtio_pci.ko", "/virtiofs.ko"))]
    if not wanted:
        return ""
    order = list(dict.fromkeys(name for path in wanted for name in [*reversed(needed[path].split()), path]))
    made = folder + "/first"
    for name in ("bin", "root"):
        os.makedirs(f"{made}/{name}")
    shutil.copy(shutil.which("busybox") or "", made + "/bin/busybox")
    for place, module in enumerate(order):
        shutil.copy(f"{modules}/{module}", f"{made}/{place}.ko")
    for name, text in (("init", FIRST), ("order", " ".join(f"/{place}.ko" for place in range(len(order))))):
        with open(f"{made}/{name}", "w") as file:
            file.write(text)
    os.chmod(made + "/init", 0o755)
    pack = "find . | busybox cpio -o -H newc > ../first.cpio"
    subprocess.run(["sh", "-c", pack], cwd=made, check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(made)
    return folder + "/first.cpio"


def _package(names: tuple[str, ...]) -> str:
    """The name of the package that holds the kernel itself: the well-known names only depend on it."""
    for name in names:
        shown = subprocess.run(["apt-cache", "depends", name], capture_output=True, text=True).stdout
        found = [line.split()[-1] for line in shown.splitlines() if "Depends: linux-image" in line]
        if found:
            return found[0]
    raise MachineError(f"the package lists know none of {', '.join(names)} (apt-get update)")


def main() -> int:
    """Run one command in a machine of its own; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=900, help="seconds")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--console", action="store_true", help="show the machine's console at the end")
    parser.add_argument("--fetch", action="store_true", help="only fetch the kernel, if there is none yet")
    parser.add_argument("--older", action="store_true", help="with the release's own kernel")
    parser.add_argument("command", nargs="*")
    given = parser.parse_args()
    reason = lacks()
    if reason:
        parser.error(reason)
    try:
        if given.fetch:
            print(fetch(given.older))
            return 0
        if not given.command:
            parser.error("which command?")
        with Machine(given.memory, older=given.older) as machine:
            status, output = machine.run(given.command, given.timeout, os.getcwd())
            sys.stdout.write(output)
            if given.console:
                sys.stderr.write(machine.log())
            return status
    except MachineError as error:
        print(f"machine: {error}", file=sys.stderr)
        return 124 if error.late else 125


if __name__ == "__main__":
    sys.exit(main())
