"""Tables, rules and elements of nftables: what their text is, what can't be one, what an error says."""

from __future__ import annotations

import errno

import pytest

import nft_example
from tarbox.errors import UnsupportedError
from tarbox.kernel import nft_tables, nftables
from tarbox.kernel import nft_types as types
from tarbox.kernel.netlink import NetlinkError
from tarbox.kernel.nft_rules import IIFNAME, IP_SADDR, Rule, equal, masquerade, reject
from tarbox.kernel.nft_tables import Chain, Table
from tarbox.kernel.nftables import Set


@pytest.mark.parametrize("family", nft_example.TEXTS)
def test_a_table_is_text(family):
    table, text = nft_example.TEXTS[family]
    assert table.text == text


def test_the_example_has_every_field():
    """What the kernel tests compare with nft is all there is, but for a field that not every nft can spell."""
    text = f"{nft_example.all_rules()} icmpv6 taddr"
    assert not [field.text for field in nft_example.FIELDS.values() if field.text not in text]


@pytest.mark.parametrize(("set", "key", "data", "comment", "text"), nft_example.ELEMENTS)
def test_an_element_is_text(set, key, data, comment, text):
    assert nftables.element_text(set, key, data, comment) == text
    asked = nftables.add_element("inet", "example", set, key, data, comment)
    assert asked.said == f"add element inet example {set.name} {{ {text} }}"


def test_values_read_back_are_the_same_text():
    """From bytes, as the kernel tells them, comes what was given as text."""
    row = (types.PROTOCOL, types.PORT, types.IPV4, types.IPV6, types.ETHER, types.IFNAME, types.CT_STATE)
    given = ("udp", "53", "10.0.0.1", "fd00::1", "02:00:00:00:00:01", "box0", "related,new")
    data = types.encode(row, given)
    assert len(data) == types.width(row)
    assert types.show(row, types.decode(row, data)) == (
        'udp . 53 . 10.0.0.1 . fd00::1 . 02:00:00:00:00:01 . "box0" . related,new'
    )


@pytest.mark.parametrize(
    ("type", "value"),
    [(types.PORT, "http"), (types.PORT, 65536), (types.PORT, -1), (types.PORT, "-1"), (types.PROTOCOL, "tcpp"),
     (types.IPV4, "fd00::1"), (types.IPV6, "10.0.0.1"), (types.IPV4, b"abc"), (types.ETHER, "02:00"),
     (types.IFNAME, ""), (types.IFNAME, "sixteen-letters-"), (types.CT_STATE, "newer"), (types.PORT, "²")],
)  # fmt: skip
def test_values_that_are_none_of_the_type(type, value):
    with pytest.raises((ValueError, OverflowError)):
        type.encode(value)


def test_elements_that_dont_fit():
    for set, key, data in [
        (nft_example.PORTS, ("tcp",), ("10.0.0.2", 80)),
        (nft_example.PORTS, ("tcp", 80), ("10.0.0.2",)),
        (nft_example.NETWORKS, ("10.0.0.1/8",), ()),
        (nft_example.NETWORKS, ("10.0.0.0/33",), ()),
        (nft_example.OPEN, ("10.0.0.0/8",), ()),
    ]:
        with pytest.raises(ValueError):
            nftables.add_element("inet", "example", set, key, data)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8", "fd00::/8"])
def test_networks_that_are_none(network):
    with pytest.raises(ValueError, match="is no"):
        Rule(equal(IP_SADDR, network)).encode(1)


@pytest.mark.parametrize("comment", ["x" * 128, 'say "x"', "two\nlines", "\x1b[31m"])
def test_comments_that_nft_couldnt_show(comment):
    with pytest.raises(ValueError, match="can't be a comment"):
        nftables.add_element("inet", "t", nft_example.BRIDGES, ("box0",), comment=comment)


@pytest.mark.parametrize(
    ("family", "hook", "priority", "text"),
    [("inet", "prerouting", -300, "raw"), ("inet", "prerouting", -95, "dstnat + 5"), ("inet", "output", -100, "-100"),
     ("inet", "forward", -10, "filter - 10"), ("inet", "forward", 11, "11"), ("inet", "postrouting", 100, "srcnat"),
     ("bridge", "output", 100, "out"), ("bridge", "forward", 0, "0"), ("bridge", "prerouting", -300, "dstnat"),
     ("netdev", "ingress", 0, "filter"), ("netdev", "ingress", -100, "-100")],
)  # fmt: skip
def test_priorities_by_name(family, hook, priority, text):
    (line,) = Chain("x", hook=hook, priority=priority).lines(family)
    assert line == f"type filter hook {hook} priority {text}; policy accept;"


def test_a_hook_of_a_device():
    table = Table("netdev", "t", [], [Chain("x", hook="ingress", device="box0", policy="drop")])
    assert 'type filter hook ingress device "box0" priority filter; policy drop;' in table.text


def test_requests_are_said_as_commands():
    """An error names what was asked for as one would type it."""
    rule = Rule(equal(IP_SADDR, "10.0.0.0/8"), masquerade(), comment="out")
    table = Table("inet", "t", [Set("s", (types.IFNAME,))], [Chain("c", rule), Chain("base", hook="input")])
    assert [request.said for request in nft_tables.create(table)] == [
        "add table inet t",
        "add set inet t s { type ifname; }",
        "add chain inet t c",
        "add chain inet t base { type filter hook input priority filter; policy accept; }",
        'add rule inet t c ip saddr 10.0.0.0/8 masquerade comment "out"',
    ]
    assert nftables.delete_table("inet", "t").said == "delete table inet t"
    assert nftables.flush_chain("inet", "t", "c").said == "flush chain inet t c"
    assert nftables.flush_set("inet", "t", "s").said == "flush set inet t s"
    assert nftables.delete_element("inet", "t", table.sets[0], ("box0",)).said == 'delete element inet t s { "box0" }'


def test_a_batch_is_the_same_bytes_each_time():
    """So that they can be kept and sent again: the bracket around them, and numbers from 1 on."""
    first, again = (nftables.batch(nft_tables.create(nft_example.INET)) for _ in range(2))
    assert first == again
    begin, end = b"\x14\0\0\0\x10\0\x01\0\x01\0\0\0", b"\x14\0\0\0\x11\0\x01\0"
    assert first.startswith(begin)
    assert first[-20:].startswith(end)
    assert int.from_bytes(first[-12:-8], "little") == len(nft_tables.create(nft_example.INET)) + 2


# --- What the kernel lacks -------------------------------------------------------------------------------------------


class Refusing:
    """A socket at which one request fails."""

    def __init__(self, index, number, offset=-1):
        self.index, self.number, self.offset = index, number, offset

    def exchange(self, datagram, first, count, said):
        raise NetlinkError(said(self.index), self.number, self.index, offset=self.offset)


def refused(index, number, disliked=b"", before=0):
    """The error of a batch. disliked: what the request has so many bytes after the place to which the kernel points."""
    rules = Rule(equal(IIFNAME, "x"), masquerade()), Rule(reject())
    requests = nft_tables.create(Table("inet", "t", [], [Chain("c", *rules, hook="postrouting", type="nat")]))
    place = requests[index - 1].body.index(disliked) - before if disliked else -1
    with pytest.raises((UnsupportedError, NetlinkError)) as caught:
        nftables.commit(Refusing(index, number, place), requests)
    return caught.value


def test_what_a_kernel_lacks_is_named_by_its_option():
    for error, said, option in [
        (refused(0, errno.EOPNOTSUPP), "nftables", "CONFIG_NF_TABLES "),
        (refused(1, errno.EOPNOTSUPP), "add table inet t", "CONFIG_NF_TABLES_INET "),
        (refused(2, errno.ENOENT, b"nat\0", 4), "add chain inet t c", "CONFIG_NFT_NAT "),
        (refused(3, errno.ENOENT, b"masq\0", 8), "add rule inet t c iifname", "CONFIG_NFT_MASQ "),
        (refused(4, errno.ENOENT, b"reject\0", 8), "add rule inet t c reject", "CONFIG_NFT_REJECT_INET,"),
    ]:
        assert type(error) is UnsupportedError
        assert said in error.message
        assert option in error.hint + " "


def test_other_errors_stay_what_they_are():
    table = b"t\0"
    for index, number, where in [
        (1, errno.EEXIST, ()), (2, errno.ENOENT, (table, 4)), (3, errno.ENOENT, (table, 4)), (3, errno.EPERM, ()),
    ]:  # fmt: skip
        error = refused(index, number, *where)
        assert type(error) is NetlinkError
        assert (error.index, error.errno) == (index - 1, number)
    error = refused(0, errno.ELOOP)
    assert (error.index, error.call) == (-1, "nftables")
