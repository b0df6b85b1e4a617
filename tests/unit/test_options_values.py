"""The words that options take: what they mean, and that what can't be meant is refused in one line with an example."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tarbox.engine import values
from tarbox.engine.nearest import suggest
from tarbox.engine.options import Ulimit
from tarbox.errors import UsageError

UNLIMITED = 2**64 - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("512", 512),
        ("20m", 20 << 20),
        ("1.5g", 3 << 29),
        ("5mb", 5 << 20),
        ("5 MB", 5 << 20),
        ("64KiB", 64 << 10),
        ("1k", 1024),
        ("1b", 1),
        ("2T", 2 << 40),
        ("9007199254740993", 9007199254740993),  # more digits than a float holds
        ("0.5k", 512),
        (".5k", 512),
    ],
)
def test_sizes_count_in_powers_of_1024(text: str, expected: int) -> None:
    assert values.size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "m", "5x", "-5m", "5mm", "1e3", "1_000", "inf", "nan", "0x10", "5 5", "٣m", "1..5", "9" * 30, "5bb"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    refused(values.size, text)


def refused(read: Callable[[str], object], text: str) -> str:
    with pytest.raises(UsageError) as raised:
        read(text)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 250
    return message


def test_a_memory_limit_without_a_unit_is_asked_about() -> None:
    assert refused(values.memory, "5").endswith("(for megabytes write 5m)")
    assert values.memory("5m") == 5 << 20
    assert values.memory("0") == 0


def test_memory_swap_can_be_unlimited() -> None:
    assert values.memory_swap("-1") == -1
    assert values.memory_swap("1g") == 1 << 30
    refused(values.memory_swap, "-2")


def test_a_positive_size_is_more_than_nothing() -> None:
    assert values.positive_size("50m") == 50 << 20
    refused(values.positive_size, "0")


def test_processors_time() -> None:
    assert values.cpus("0.5") == 0.5
    assert values.cpus("2") == 2
    assert values.cpus("0") == 0
    for text in ("0.001", "-1", "two", "", "1e9", "inf", "nan"):
        refused(values.cpus, text)


def test_weights() -> None:
    assert [values.cpu_shares(text) for text in ("0", "2", "1024", "262144")] == [0, 2, 1024, 262144]
    for text in ("1", "262145", "-1", "x", "1.5", ""):
        refused(values.cpu_shares, text)


def test_numbers_of_processes() -> None:
    assert [values.pids_limit(text) for text in ("100", "0", "-1")] == [100, 0, 0]
    for text in ("-2", "many", "1.5", "", "9" * 12):
        refused(values.pids_limit, text)


def test_lists_of_processors() -> None:
    assert values.processors("0-2,7") == [0, 1, 2, 7]
    assert values.cpuset("0, 1") == "0,1"
    for text in ("", "a", "1-", "-1", "3-1", "0,,1", "0-999999999"):
        refused(values.cpuset, text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("1m30s", 90), ("1.5h", 5400), ("500ms", 0.5), ("0", 0), ("2h3m4s", 7384), ("0.5", 0.5)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", " ", "s", "5x", "-5s", "1m30", "five", "1s 2s", "1..s", "5mss"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    refused(values.duration, text)


@pytest.mark.parametrize("text", ["box", "a.b-c.d", "my_host", "1", "A" * 63, "x" * 30 + "." + "y" * 30])
def test_host_names(text: str) -> None:
    assert values.hostname(text) == text


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "a..b", ".a", "a b", "a/b", "ü", "a\nb", "x" * 64, "_", "x." * 32 + "x", "a" * 5000]
)
def test_what_is_no_host_name_is_refused(text: str) -> None:
    refused(values.hostname, text)


def test_a_host_name_of_5000_letters_is_told_by_its_length() -> None:
    assert refused(values.hostname, "a" * 5000) == "a host name of 5000 characters is too long (Linux allows 64)"


@pytest.mark.parametrize("text", ["root", "1000", "1000:1000", "www-data:adm", "0:0", "2147483647", ":7", "app@corp"])
def test_users(text: str) -> None:
    assert values.user(text) == text


@pytest.mark.parametrize(
    "text", ["", ":", "a:", "a:b:c", "2147483648", "4294967296", "-1", "+1", "x" * 300, "1:-1", "a b", "a\n"]
)
def test_what_is_no_user_is_refused(text: str) -> None:
    refused(values.user, text)


def test_groups() -> None:
    assert values.group("audio") == "audio"
    for text in ("", "a:b", "-5", "4294967295", "x y"):
        refused(values.group, text)


def test_working_directories_are_absolute() -> None:
    assert values.workdir("/app") == "/app"
    for text in ("app", "", "./app"):
        refused(values.workdir, text)


@pytest.mark.parametrize("text", ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"])
def test_capabilities_go_by_any_of_their_names(text: str) -> None:
    assert values.capability(text) == "CAP_NET_ADMIN"


def test_all_capabilities() -> None:
    assert values.capability("all") == "ALL"


def test_an_unknown_capability_suggests_one() -> None:
    assert refused(values.capability, "SYSADMIN").endswith("(did you mean SYS_ADMIN?)")
    assert "man 7 capabilities" in refused(values.capability, "FLY")


def test_limits_of_processes() -> None:
    assert values.ulimit("nofile=1024:4096") == Ulimit("nofile", 1024, 4096)
    assert values.ulimit("core=0") == Ulimit("core", 0, 0)
    assert values.ulimit("memlock=-1") == Ulimit("memlock", UNLIMITED, UNLIMITED)
    assert values.ulimit("stack=5:unlimited") == Ulimit("stack", 5, UNLIMITED)
    for text in (
        "",
        "nofile",
        "nofile=",
        "nofile=a",
        "nofile=2:1",
        "nofile=1:",
        "=5",
        "nofile=-1:5",
        f"nofile={2**64}",
    ):
        refused(values.ulimit, text)
    assert refused(values.ulimit, "nofiles=5").endswith("(did you mean nofile?)")


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "sigterm", "15"])
def test_signals_go_by_any_of_their_names(text: str) -> None:
    assert values.signal(text) == signal.SIGTERM


def test_real_time_signals() -> None:
    assert values.signal("RTMIN+3") == signal.SIGRTMIN + 3
    assert values.signal("SIGRTMAX-2") == signal.SIGRTMAX - 2


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-9", "TREM", "_DFL", "DFL", "IGN", "RTMIN+99", "TERM+1", "SIG", "9" * 9]
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    refused(values.signal, text)


def test_networks() -> None:
    assert [values.network(text) for text in ("none", "host", "private")] == ["none", "host", "none"]
    assert values.network("pid:5") == "/proc/5/ns/net"
    assert [values.network(text) for text in ("bridge", "a_b.c-1")] == ["bridge", "a_b.c-1"]
    assert "yet" in refused(values.network, "pasta")
    for text in ("", "-a", "a/b", "a b", "name=a"):
        assert "is no network" in refused(values.network, text)


def test_addresses() -> None:
    assert values.address("10.0.0.7", 4) == "10.0.0.7"
    assert values.address("FD00:0::7", 6) == "fd00::7"
    assert "IPv6" in refused(lambda text: values.address(text, 4), "::1")
    refused(lambda text: values.address(text, 4), "10.0.0")


def test_link_addresses() -> None:
    assert values.mac_address("02-42-AC-11-00-02") == "02:42:ac:11:00:02"
    for text in ("", "02:42:ac:11:00", "02:42:ac:11:00:zz", "03:42:ac:11:00:02", "00:00:00:00:00:00", "0242:ac11:0002"):
        refused(values.mac_address, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seccomp=unconfined", ("seccomp", "unconfined")),
        ("seccomp:unconfined", ("seccomp", "unconfined")),
        ("seccomp=builtin", ("seccomp", "builtin")),
        ("seccomp=/a=b.json", ("seccomp", "/a=b.json")),
        ("seccomp=a:b.json", ("seccomp", "a:b.json")),
        ("no-new-privileges", ("no-new-privileges", "true")),
        ("no-new-privileges:true", ("no-new-privileges", "true")),
        ("no-new-privileges=false", ("no-new-privileges", "false")),
        ("systempaths=unconfined", ("systempaths", "unconfined")),
        ("apparmor=unconfined", ("apparmor", "unconfined")),
        ("apparmor:my profile", ("apparmor", "my profile")),
        ("apparmor=:ns:a//b", ("apparmor", ":ns:a//b")),
        ("label=disable", ("label", "disable")),
        ("label:type:svirt_t", ("label", "type:svirt_t")),
        ("label=level:s0:c1,c2", ("label", "level:s0:c1,c2")),
    ],
)
def test_security_options(text: str, expected: tuple[str, str]) -> None:
    assert values.security(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seccomp",
        "seccomp=",
        "apparmor",
        "apparmor=",
        "apparmor= x",
        "apparmor=x\ny",
        "apparmor=" + "x" * 1001,
        "label=",
        "label=disabled",
        "label=type",
        "label=type:",
        "label=typ:t",
        "label=nested",
        "label=type:a\0b",
        "systempaths=x",
        "no-new-privileges=x",
        "writable-cgroups",
    ],
)
def test_other_security_options_are_refused(text: str) -> None:
    refused(values.security, text)


def test_variables_need_a_name() -> None:
    assert values.variable("A=1") == "A=1"
    assert values.variable("A") == "A"
    for text in ("", "=1", "A=\0"):
        refused(values.variable, text)


def test_messages_show_no_control_characters_and_stay_short() -> None:
    assert values.shorten("a\x1b[31m\n") == "a\\x1b[31m\\n"
    assert len(values.shorten("x" * 10_000)) < 100


@pytest.mark.parametrize(
    ("word", "near"),
    [("rum", "run"), ("exlpain", "explain"), ("versoin", "version"), ("zzz", ""), ("ver", "version"), ("x" * 5000, "")],
)
def test_the_nearest_word(word: str, near: str) -> None:
    assert suggest(word, ("run", "explain", "version", "help")) == near
