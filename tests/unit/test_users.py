"""Users and groups as the container's own files name them, by Docker's rules."""

from __future__ import annotations

import pytest

from tarbox.errors import UsageError
from tarbox.spec.users import find

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
app:x:1000:1001:An App,,,:/srv/app:/bin/sh
1234:x:77:78::/numeric:/bin/sh
nohome:x:500:500
broken
short:x:5
minus:x:-1:0:::/bin/sh
huge:x:4294967296:0:::/bin/sh
empty:x::0:::
# comment:x:9:9:::
+@nis::::::
second:x:1000:2:::/bin/sh
"""
GROUP = """\
root:x:0:
daemon:x:1:
adm:x:4:app,root
docker:x:998:app
app:x:1001:app
bad:x:nan:app
over:x:99999999999:app
4321:x:66:app
nomembers:x:42
"""


@pytest.mark.parametrize(
    ("spec", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 4), "/root"),
        ("root", 0, 0, (0, 4), "/root"),
        ("0", 0, 0, (0, 4), "/root"),
        ("000", 0, 0, (0, 4), "/root"),
        ("app", 1000, 1001, (1001, 4, 998, 66), "/srv/app"),
        ("1000", 1000, 1001, (1001, 4, 998, 66), "/srv/app"),
        ("app:", 1000, 1001, (1001, 4, 998, 66), "/srv/app"),
        ("app:adm", 1000, 4, (4,), "/srv/app"),
        ("app:4", 1000, 4, (4,), "/srv/app"),
        ("app:7777", 1000, 7777, (7777,), "/srv/app"),
        ("2000", 2000, 0, (0,), "/"),
        ("2000:3000", 2000, 3000, (3000,), "/"),
        (":adm", 0, 4, (4,), "/root"),
        (":55", 0, 55, (55,), "/root"),
        ("1234", 1234, 0, (0,), "/"),
        ("77", 77, 78, (78,), "/numeric"),
        ("app:4321", 1000, 4321, (4321,), "/srv/app"),
        ("nohome", 500, 500, (500,), "/"),
        ("app:nomembers", 1000, 42, (42,), "/srv/app"),
        ("2147483647:2147483647", 2147483647, 2147483647, (2147483647,), "/"),
    ],
)
def test_who_a_user_is(spec, uid, gid, groups, home):
    user = find(spec, PASSWD, GROUP)
    assert (user.uid, user.gid, user.groups, user.home) == (uid, gid, groups, home)


def test_added_groups():
    assert find("app", PASSWD, GROUP, ["daemon", "5", "adm"]).groups == (1001, 4, 998, 66, 1, 5)
    assert find("app:0", PASSWD, GROUP, ["adm"]).groups == (0, 4)
    assert find("9", "", "", ["7"]).groups == (0, 7)


@pytest.mark.parametrize("spec", ["", "0", "1000", "1000:1000", "0:0"])
def test_numbers_need_no_files(spec):
    assert find(spec, "", "").home == "/"


@pytest.mark.parametrize(
    "spec",
    ["4294967296", "2147483648", "-1", "+1", "+0", "-0", "\uff11", "\u0663", "99999999999999999999", "9" * 5000,
     "0:4294967295", "0:-1", "0:+5", "0:\uff11", "4294967295"],
)  # fmt: skip
def test_numbers_that_are_no_ids_are_refused(spec):
    with pytest.raises(UsageError, match=r"can't be the id of a (user|group)") as caught:
        find(spec, PASSWD, GROUP)
    assert "2147483647" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("minus", "unable to find user minus"), ("huge", "unable to find user huge"), ("broken", "unable to find"),
        ("empty", "unable to find user empty"), ("short", "unable to find user short"), ("# comment", "unable to find"),
        (" app", "unable to find user  app"), ("app ", "unable to find"), ("0x0", "unable to find user 0x0"),
        ("1e3", "unable to find user 1e3"), ("1_000", "unable to find"), ("root\n", "unable to find"),
        ("app:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("app:bad", "unable to find group bad"), ("app:over", "unable to find group over"),
        ("a:b:c", "more than one colon"),
    ],
)  # fmt: skip
def test_names_that_the_files_do_not_have(spec, said):
    with pytest.raises(UsageError) as caught:
        find(spec, PASSWD, GROUP)
    assert said in caught.value.message
    assert caught.value.hint


def test_an_unknown_added_group():
    with pytest.raises(UsageError, match="unable to find group video"):
        find("app", PASSWD, GROUP, ["video"])


def test_a_malformed_id_never_counts_as_root():
    """Some parsers read what isn't a number as 0."""
    for line in ("evil:x:zero:0::/:", "evil:x: 0:0::/:", "evil:x:0x0:0::/:", "evil:x:+0:0::/:", "evil:x:0:::/:"):
        with pytest.raises(UsageError):
            find("evil", line + "\n", "")


def test_lines_that_try_to_be_two():
    passwd = "a:x:5:5::/home\x0bb:x:0:0::/:\nc:x:6:6::/c\0d:\u2028root2:x:0:0:::\r\ne:x:7:7::/e:/bin/sh\r\n"
    assert find("a", passwd, "").uid == 5
    assert find("e", passwd, "").home == "/e"
    for name in ("b", "c", "d", "root2"):
        with pytest.raises(UsageError):
            find(name, passwd, "")


def test_large_files_are_read_in_reasonable_time():
    passwd = "".join(f"user{number}:x:{number}:{number}::/home/{number}:/bin/sh\n" for number in range(1, 60000))
    group = "g:x:9:" + ",".join(f"user{number}" for number in range(1, 60000)) + "\n"
    user = find("user59999", passwd, group)
    assert (user.uid, user.groups) == (59999, (59999, 9))
