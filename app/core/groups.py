"""What is counted as one: the addresses of a network, the sub-addresses of a mailbox."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

_IPV6_NETWORK = re.compile(r"[0-9a-f]{16}")


def network_of(ip: str) -> str:
    """Return the network of an address: itself (IPv4), its first 64 bits (IPv6); else the text."""
    try:
        address = ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else address.packed[:8].hex()
    return str(address)


def block_of(network: str) -> str | None:
    """Return the /48 of an IPv6 network of `network_of`; None for anything else."""
    return f"{network[:12]}/48" if _IPV6_NETWORK.fullmatch(network) else None


def mailbox_of(address: str) -> str:
    """Return the address (an `email_key`) without its sub-address: what follows a plus sign."""
    name, _, host = address.rpartition("@")
    return f"{name[:1]}{name[1:].partition('+')[0]}@{host}"
