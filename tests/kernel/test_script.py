"""`tarbox explain --script run ...`: the script makes the container that `tarbox run` makes, and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest

import roots

pytestmark = pytest.mark.unhurried

# What is asked inside, by both containers. The shell's own children have nothing that it hasn't.
PROBE = r"""
section() { echo "<$1>"; }
section status; grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups|Umask|Sig(Ign|Blk))' /proc/self/status
section mounts; cat /proc/1/mountinfo
section cgroup; cat /proc/1/cgroup
section limits
for file in memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max devices/devices.list cpuset/cpuset.cpus \
    memory.max cpu.max pids.max; do
    [ ! -f /sys/fs/cgroup/$file ] || { echo $file; cat /sys/fs/cgroup/$file; }
done
section hostname; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname
section cwd; readlink /proc/1/cwd
section environment; tr '\0' '\n' < /proc/1/environ | sort
section arguments; tr '\0' '\n' < /proc/1/cmdline | head -n 2
section rlimits; cat /proc/1/limits
section devices; ls -lan /dev | tr -s ' ' | cut -d ' ' -f 1,3-6,9-
section etc; cat /etc/hosts /etc/hostname /etc/resolv.conf
section network; ls /sys/class/net
cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range
section loopback; cat /sys/class/net/lo/flags
section descriptors; ls /proc/1/fd
section root; ls -land / /proc /dev /sys /etc | tr -s ' ' | cut -d ' ' -f 1,3,4,9
section session; cut -d ' ' -f 4-6 /proc/1/stat
section namespaces; for kind in cgroup ipc mnt net pid user uts; do readlink /proc/1/ns/$kind; done
section oom; cat /proc/1/oom_score_adj
section masks; for file in /proc/keys /proc/kcore /proc/timer_list; do stat -c %F $file; done; ls -A /proc/acpi
touch /proc/sys/kernel/hostname /sys/x /etc/x /x; exit 7
"""


@pytest.fixture
def image(tmp_path):
    return roots.busybox(tmp_path / "image")


def answers(output: str) -> dict[str, str]:
    parts = re.split(r"^<(\w+)>\n", output, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def mount_table(text: str) -> list[str]:
    """The lines of mountinfo without the numbers that are others each time: each with the place of its parent."""
    lines = [line.split(" ") for line in text.splitlines()]
    points = {fields[0]: fields[4] for fields in lines}
    made = []
    for fields in lines:
        parent = points.get(fields[1], "-")
        rest = re.sub(r"[0-9a-f]{64}", "ID", " ".join(fields[3:]))
        rest = rest.replace("lowerdir+=", "lowerdir=").replace(",lowerdir=", ":").replace(" rw:", " rw,lowerdir=")
        made.append(f"{parent} {rest}")
    return sorted(made)


def comparable(output: str, namespaces: bool = True) -> dict[str, object]:
    found: dict[str, object] = dict(answers(re.sub(r"tarbox-[0-9a-f]{64}", "GROUP", output)))
    found["mounts"] = mount_table(str(found["mounts"]))
    found["devices"] = re.sub(r"\b\d\d:\d\d\b", "TIME", str(found["devices"]))  # a minute may have passed
    # Version 2's list order and numbers are others each time; that they are the container's own is asked elsewhere.
    found["namespaces"] = len(str(found["namespaces"]).split())
    return found


def run_script(tarbox, *arguments, user=0, **options):
    """Write the script, and run it as the same user would."""
    text = tarbox.output("explain", "--script", "run", *arguments)
    script = tarbox.folder / "box.sh"
    script.write_text(text)
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []
    return subprocess.run(
        [*become, "sh", script], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        env=tarbox.environment(TMPDIR=str(tarbox.folder)), cwd=tarbox.folder, **options,
    )  # fmt: skip


def check_same(tarbox, *arguments, user=0):
    """Both containers give the same answers, the code of the command, and nothing is left."""
    words = [*arguments, "sh", "-c", PROBE]
    expected = tarbox("run", "--rm", *words)
    assert expected.returncode == 7, expected.stderr
    before = {path.name for path in tarbox.folder.iterdir()}
    done = run_script(tarbox, *words, user=user)
    assert done.returncode == 7, done.stderr + done.stdout
    ours, scripts = comparable(expected.stdout), comparable(done.stdout)
    for name in ours:
        assert scripts[name] == ours[name], name
    assert done.stderr == expected.stderr
    assert {path.name for path in tarbox.folder.iterdir()} == {"box.sh", *before}
    assert not list((tarbox.root / "scratch").iterdir())
    return ours


def test_a_directory(tarbox, image):
    check_same(tarbox, "-h", "box", image)


NETWORK = "ip address; ip route; ip -6 route; cat /etc/hosts; [ ! -e /proc/net/if_inet6 ] || sort /proc/net/if_inet6"


def test_a_network_with_a_published_port(tarbox, image):
    """Address, routes and names are the same; what the script made on the host goes with it."""
    tarbox.output("network", "create", "--ipv6", "six")
    for words in (["-p", "127.0.0.1:8080:80", "-p", "53:53/udp"], ["--network", "six", "--ip6"]):
        if words[-1] == "--ip6":
            (found,) = json.loads(tarbox.output("network", "inspect", "six"))
            words.append(found["IPAM"]["Config"][1]["Gateway"].removesuffix("1") + "7")
        words += ["-h", "box", image, "sh", "-c", NETWORK]
        ours = tarbox.output("run", "--rm", *words)
        done = run_script(tarbox, *words)
        assert (done.returncode, done.stderr) == (0, "")
        plain = [re.sub(r"eth0@if\d+|link-netnsid \d+|valid_lft \w+", "", text) for text in (ours, done.stdout)]
        assert plain[1] == plain[0]
    tarbox.output("network", "rm", "six")


def test_limits_and_a_layer(tarbox, image):
    found = check_same(
        tarbox, "-h", "box", "--domainname", "example.org", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50",
        "--cpuset-cpus", "0", "--ulimit", "nofile=100:200", "--ulimit", "core=0", "--oom-score-adj", "500",
        f"{image}:O",
    )  # fmt: skip
    assert "Max open files            100                  200" in found["rlimits"]


def test_a_tarball(tarbox, busybox_tar):
    """Before it is in the store, and when it is there."""
    words = ("-h", "box", busybox_tar, "sh", "-c", PROBE)
    first = run_script(tarbox, *words)
    assert first.returncode == 7, first.stderr
    check_same(tarbox, *words[:3])
    assert [name for name in comparable(first.stdout) if name != "mounts"]


def test_the_machine_itself(tarbox):
    check_same(tarbox, "-h", "box", "host")


def test_volumes_and_a_read_only_root(tarbox, image, tmp_path):
    """With names that a shell would take apart."""
    folder = tmp_path / 'it\'s a "folder" $HOME\n*ü'
    (folder / "below").mkdir(parents=True)
    (tmp_path / "file").write_text("file\n")
    volume = 'type=bind,"source={}",target=/a b,readonly'.format(str(folder).replace('"', '""'))
    mount = ("mount", "-t", "tmpfs", "tmpfs", folder / "below")
    subprocess.run(mount, check=True)
    try:
        check_same(
            tarbox, "-h", "box", "--read-only", "--mount", volume,
            "-v", f"{tmp_path}/file:/etc/file:ro", "-v", f"{tmp_path}/image:/deep/er:O", "--tmpfs", "/t:size=1m,exec",
            "--tmpfs", "/run/x", "--shm-size", "1m", image,
        )  # fmt: skip
    finally:
        subprocess.run(["umount", folder / "below"], check=True)


def test_links_of_the_image_lead_nowhere_else(tarbox, image):
    """Places are found as the container finds them."""
    (image / "etc/hosts").symlink_to("/../../away/hosts")
    (image / "var/run").symlink_to("/run")
    (image / "run").mkdir()
    check_same(tarbox, "-h", "box", "--tmpfs", "/var/run/here", "-w", "/var/run/new", image)
    assert (image / "away/hosts").is_file()
    assert (image / "run/new").is_dir()


@pytest.mark.parametrize("user", ["guest", "1000:29", "guest:audio", "1234", "0:5"])
def test_a_user(tarbox, image, user):
    (image / "home").chmod(0o777)
    found = check_same(
        tarbox, "-h", "box", "-u", user, "--group-add", "audio", "--group-add", "77", "-w", "/home", image
    )
    assert "Groups:" in found["status"]


@pytest.mark.parametrize(
    "options",
    [
        ("--cap-drop", "ALL"),
        ("--cap-drop", "ALL", "-u", "guest", "--security-opt", "no-new-privileges"),
        ("--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"),
        ("--privileged",),
        ("--net", "host"),
        ("--root-tmpfs", "10m"),
        ("--security-opt", "systempaths=unconfined", "--sysctl", "net.ipv4.ip_forward=1"),
        ("--device", "/dev/kmsg:/dev/log/it:r",),
        ("--cgroup-parent", "/tarbox-test-parent"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_rights_and_others(tarbox, image, options):
    check_same(tarbox, "-h", "box", *options, f"{image}:O")


def test_a_plain_user(plain_tarbox, plain_folder):
    image = roots.busybox(plain_folder / "image")
    subprocess.run(["chown", "-R", f"{plain_tarbox.user}:{plain_tarbox.user}", image], check=True)
    for name in (f"{image}:O", "host"):
        check_same(plain_tarbox, "-h", "box", name, user=plain_tarbox.user)


def test_words_and_variables_arrive_as_they_are(tarbox, image):
    words = ["a b", "it's", '"', "$HOME `id` \\ \\n", "line\nline\nEND_OF_PROGRAM\n", "", "ünï\udcff", "-n", "*", "%s"]
    variables = [option for number, word in enumerate(words) for option in ("-e", f"V{number}={word}")]
    show = "for word; do printf '%s|' \"$word\"; done; tr '\\0' '|' < /proc/1/environ"
    command = (*variables, "-e", "PWD=mine", "-e", "HOSTNAME=me", f"{image}:O", "sh", "-c", show, "sh", *words)
    expected = tarbox("run", *command, errors="surrogateescape")
    text = tarbox.output("explain", "--script", "run", *command, errors="surrogateescape")
    (tarbox.folder / "box.sh").write_bytes(os.fsencode(text))
    done = subprocess.run(["sh", tarbox.folder / "box.sh"], capture_output=True, env=tarbox.environment(), timeout=60)
    ours, scripts = expected.stdout.split("|"), os.fsdecode(done.stdout).split("|")
    assert scripts[: len(words)] == words
    assert sorted(scripts) == sorted(ours)


def test_each_run_is_another_container(tarbox, image):
    """Two at the same time, each with a name of its own."""
    (tarbox.folder / "box.sh").write_text(
        tarbox.output(
            "explain",
            "--script",
            "run",
            "--net",
            "none",
            f"{image}:O",
            "sh",
            "-c",
            "cat /etc/hostname; grep -c $HOSTNAME /etc/hosts; sleep 1",
        )
    )
    both = [
        subprocess.Popen(["sh", tarbox.folder / "box.sh"], stdout=subprocess.PIPE, env=tarbox.environment(), text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert all(re.fullmatch("[0-9a-f]{12}", name) and count == "1" for name, count in said)
    assert said[0] != said[1]


def test_input_is_the_callers_with_i(tarbox, image):
    text = tarbox.output("explain", "--script", "run", "-i", f"{image}:O", "cat")
    (tarbox.folder / "box.sh").write_text(text)
    done = subprocess.run(
        ["sh", tarbox.folder / "box.sh"], input="typed", capture_output=True, env=tarbox.environment(), text=True
    )
    assert (done.stdout, done.returncode) == ("typed", 0)
    piped = subprocess.run(["sh"], input=tarbox.output("explain", "--script", "run", f"{image}:O", "echo", "piped"),
                           capture_output=True, env=tarbox.environment(), text=True)  # fmt: skip
    assert piped.stdout == "piped\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [(("nowhere",), 127), (("/etc/passwd",), 126), (("sh", "-c", "kill -9 $$; kill -ABRT 1; exit 3"), 3)],
)
def test_the_exit_code_is_the_commands(tarbox, image, command, code):
    assert run_script(tarbox, image, *command).returncode == code


def test_a_step_that_fails_is_undone(tarbox, image):
    """Here a file is in the way of a directory."""
    done = run_script(tarbox, "--tmpfs", "/etc/passwd/x", "-m", "64m", f"{image}:O", "true")
    assert done.returncode == 125
    assert done.stderr
    assert not list((tarbox.root / "scratch").iterdir())
    assert [path.name for path in tarbox.folder.iterdir() if "script" in path.name] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_takes_all_away(tarbox, image, number):
    (tarbox.folder / "box.sh").write_text(
        tarbox.output("explain", "--script", "run", "-m", "64m", f"{image}:O", "sh", "-c", "echo up; sleep 1000")
    )
    process = subprocess.Popen(["sh", tarbox.folder / "box.sh"], stdout=subprocess.PIPE,
                               env=tarbox.environment(TMPDIR=str(tarbox.folder)))  # fmt: skip
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    process.stdout.close()
    assert not list((tarbox.root / "scratch").iterdir())
    assert [path.name for path in tarbox.folder.iterdir() if "script" in path.name] == []


def test_nothing_runs_on_when_it_is_killed(tarbox, image, tmp_path):
    """What lies on the host stays then, as the script says; here it is taken away by hand."""
    (tarbox.folder / "box.sh").write_text(
        tarbox.output("explain", "--script", "run", "--net", "none", f"{image}:O", "sh", "-c", "echo up; sleep 1000")
    )
    process = subprocess.Popen(["sh", tarbox.folder / "box.sh"], stdout=subprocess.PIPE,
                               env=tarbox.environment(TMPDIR=str(tmp_path)))  # fmt: skip
    assert process.stdout.readline() == b"up\n"
    scratch = next((tarbox.root / "scratch").iterdir())
    process.kill()
    process.wait()
    assert process.stdout.read() == b""  # whoever held it has gone
    process.stdout.close()
    time.sleep(0.2)
    for path in ("memory", "pids", "devices", "freezer", "unified", "."):
        group = f"/sys/fs/cgroup/{path}/tarbox-{scratch.name}"
        if os.path.isdir(group):
            os.rmdir(group)
    subprocess.run(["rm", "-rf", scratch], check=True)


def test_what_a_shell_cant_do_is_said(tarbox, image):
    text = tarbox.output("explain", "--script", "run", "-it", "--init", image, "true")
    head = text.partition("\nset -eu\n")[0]
    for word in ("seccomp", "keyring", "terminal", "init", "descriptor", "journal"):
        assert word in head.lower(), word
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0


def test_a_linter_has_nothing_to_say(tarbox, image, tmp_path):
    import shutil

    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck isn't installed (apt-get install shellcheck)")
    ahead = [tarbox.output("explain", "--script", "run", "-m", "64m", "-u", "guest", "--init", f"{image}:O", "true")]
    inner = re.compile(r"^cat > \S+ <<'(\w+)'\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
    said = []
    for text in ahead:  # grows: each shell's text is within that of another
        ahead += [found[1] for found in inner.findall(text) if not found[1].startswith("table ")]  # that is nft's
        # What comes from a file, or from the shell before, it can't know.
        command = ["shellcheck", "-s", "dash", "-S", "info", "-e", "SC1091,SC2317,SC2154,SC2015,SC2016,SC2059", "-"]
        said.append(subprocess.run(command, input=text, capture_output=True, text=True).stdout)
    assert len(said) == 6
    assert not "".join(said)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--pid", "pid:1"), "namespaces of others"), (("--net", "pid:1"), "namespaces of others"),
        (("--userns", "auto"), "ids of its own"), (("--uptime-offset", "1d"), "clocks of its own"),
        (("--pid", "host"), "processes among the host's"),
    ],
)  # fmt: skip
def test_what_no_script_can_be_written_of_is_refused(tarbox, option, said):
    """Rather than to write one that doesn't make the container."""
    done = tarbox("explain", "--script", "run", *option, "host", "true")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    assert f"no script can be written of {said}: " in done.stderr
