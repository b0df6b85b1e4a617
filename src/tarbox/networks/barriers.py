"""Whose rules may keep containers from the world: other firewalls' chains that drop what they don't know.

    nft list chains        tells them: hook forward, policy drop

A packet has to be accepted by every chain of its way. We never change others' rules, so whoever has such a firewall is
told of it, and how its own commands let a network through. Loaded when our tables are made.

man 8 nft, man 8 iptables, man 8 ufw, man 1 firewall-cmd
"""

from __future__ import annotations

from ..kernel import nft_listing
from ..kernel.nftables import open_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..kernel.netlink import Netlink
    from ..kernel.nft_listing import BaseChain
    from .firewall import Element

_FAMILIES = ("ip", "ip6", "inet")
_FIREWALLD = "firewalld"  # whose chains accept by policy, and refuse by their last rule
_TOOLS = {"ip": "iptables", "ip6": "ip6tables"}


def found(elements: Sequence[Element], socket: Netlink | None = None) -> list[str]:
    """A line for the user on each chain that may stop the packets of a network, of which the rules learn by these."""
    by_set = {one.set: one.key[0] for one in elements}
    if "internal" in by_set:
        return []
    if socket is None:
        with open_socket() as own:
            return found(elements, own)
    bridge = by_set["networks"]
    lines = []
    for chain in nft_listing.base_chains(socket):
        if _stops(chain) and (chain.family != "ip6" or "ends6" in by_set):
            rules = nft_listing.rules(socket, chain.family, chain.table)
            if not any(bridge.encode() + b"\0" in rule for rule in rules):  # else somebody has thought of us
                lines.append(_line(chain, bridge, rules))
    return lines


def _stops(chain: BaseChain) -> bool:
    return (
        chain.hook == "forward"
        and chain.family in _FAMILIES
        and (chain.policy == "drop" or chain.table == _FIREWALLD)
        and chain.table.partition("-")[0] != "tarbox"
    )


def _line(chain: BaseChain, bridge: str, rules: Sequence[bytes]) -> str:
    return (
        f"the firewall's chain '{chain.family} {chain.table} {chain.name}' drops what it doesn't know: containers may"
        " reach nobody beyond this machine, nor be reached from there by published ports; tarbox never changes what"
        f" isn't its own ({_command(chain, bridge, rules)} lets them)"
    )


def _command(chain: BaseChain, bridge: str, rules: Sequence[bytes]) -> str:
    """How the network is let through, in the language of whoever made the chain."""
    if chain.table == _FIREWALLD:
        return f"`firewall-cmd --zone=trusted --add-interface={bridge}`"
    tool = _TOOLS.get(chain.family, "")
    if tool and (chain.table, chain.name) == ("filter", "FORWARD"):
        if _mentioned("ufw-", rules) or _mentioned("ufw6-", rules):
            return f"`ufw route allow in on {bridge}; ufw route allow out on {bridge}`"
        at = "DOCKER-USER" if _mentioned("DOCKER-USER", rules) else "FORWARD"
        answers = "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT"
        return f"`{tool} -I {at} -i {bridge} -j ACCEPT; {tool} -I {at} -o {bridge} {answers} -j ACCEPT`"
    insert = f"insert rule {chain.family} {chain.table} {chain.name}"
    ways = (
        f'iifname "{bridge}"', f'oifname "{bridge}" ct state established,related', f'oifname "{bridge}" ct status dnat'
    )  # fmt: skip
    return "`nft '" + "; ".join(f"{insert} {way} accept" for way in ways) + "'`"


def _mentioned(word: str, rules: Sequence[bytes]) -> bool:
    return any(word.encode() in rule for rule in rules)
