"""Frames made by hand, whatever they claim: what a machine or a container puts on the wire that means no good.

Addresses are text, MAC addresses are text with colons; everything returned is bytes.

man 7 packet, man 7 arp; RFC 826 (ARP), RFC 4861 (neighbours and routers of IPv6)
"""

from __future__ import annotations

import socket
import struct

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
REQUEST, REPLY = 1, 2
BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"


def mac(text: str) -> bytes:
    """A MAC address as six bytes."""
    return bytes.fromhex(text.replace(":", ""))


def address(text: str) -> bytes:
    """An address of either family as four or sixteen bytes."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def ethernet(destination: str, source: str, kind: int, payload: bytes) -> bytes:
    """A frame from one MAC address to another."""
    return mac(destination) + mac(source) + struct.pack("!H", kind) + payload


def arp(operation: int, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """A frame that says, or asks, which MAC address has which IPv4 address; sender, target: (MAC, address)."""
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    for hardware, ip in (sender, target):
        body += mac(hardware) + address(ip)
    return ethernet(target[0], sender[0], ARP, body)


def _sum(data: bytes) -> int:
    """The checksum of the internet protocols, RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    ends = address(source) + address(destination)
    return ends + (
        struct.pack("!I3xB", length, protocol) if ":" in source else struct.pack("!BBH", 0, protocol, length)
    )


def packet(source: str, destination: str, protocol: int, payload: bytes, hops: int = 64) -> bytes:
    """An IP packet of the family that the addresses have."""
    if ":" in source:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops)
        return header + address(source) + address(destination) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, hops, protocol, 0)
    ends = address(source) + address(destination)
    return header[:10] + struct.pack("!H", _sum(header + ends)) + ends + payload


def udp(source: tuple[str, int], destination: tuple[str, int], data: str) -> bytes:
    """A whole IP packet with a UDP datagram; source, destination: (address, port)."""
    length = 8 + len(data)
    header = struct.pack("!HHHH", source[1], destination[1], length, 0)
    checksum = _sum(_pseudo_header(source[0], destination[0], UDP, length) + header + data.encode())
    return packet(source[0], destination[0], UDP, header[:6] + struct.pack("!H", checksum or 0xFFFF) + data.encode())


def tcp_syn(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """A whole IP packet that asks for a TCP connection; source, destination: (address, port)."""
    header = struct.pack("!HHIIBBHHH", source[1], destination[1], 1, 0, 5 << 4, 2, 65535, 0, 0)
    checksum = _sum(_pseudo_header(source[0], destination[0], TCP, 20) + header)
    return packet(source[0], destination[0], TCP, header[:16] + struct.pack("!HH", checksum, 0))


def _icmp6(source: str, destination: str, kind: int, body: bytes) -> bytes:
    message = struct.pack("!BBH", kind, 0, 0) + body
    checksum = _sum(_pseudo_header(source, destination, ICMPV6, len(message)) + message)
    return packet(source, destination, ICMPV6, message[:2] + struct.pack("!H", checksum) + message[4:], hops=255)


def _link_layer(kind: int, hardware: str) -> bytes:
    return struct.pack("!BB", kind, 1) + mac(hardware)


def advertise_neighbour(destination: tuple[str, str], source: tuple[str, str], claimed: str) -> bytes:
    """A frame that says that the IPv6 address `claimed` is at the source's MAC, whatever was known before."""
    solicited, override = 0x40000000, 0x20000000
    body = struct.pack("!I", solicited | override) + address(claimed) + _link_layer(2, source[0])
    return ethernet(destination[0], source[0], IPV6, _icmp6(source[1], destination[1], 136, body))


def solicit_neighbour(destination: tuple[str, str], source: tuple[str, str]) -> bytes:
    """A frame that asks for the destination's MAC, and tells on the way that the source's address is at its MAC."""
    body = bytes(4) + address(destination[1]) + _link_layer(1, source[0])
    return ethernet(destination[0], source[0], IPV6, _icmp6(source[1], destination[1], 135, body))


def advertise_router(source: tuple[str, str], prefix: str) -> bytes:
    """A frame to everybody: the source is the way out, and a /64 prefix is to be taken an address from."""
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + _link_layer(1, source[0])
    on_link, autonomous = 0x80, 0x40
    body += struct.pack("!BBBBIII", 3, 4, 64, on_link | autonomous, 3600, 3600, 0) + address(prefix)
    return ethernet(ALL_NODES_MAC, source[0], IPV6, _icmp6(source[1], ALL_NODES, 134, body))
