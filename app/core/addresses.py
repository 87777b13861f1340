"""Addresses, hosts and origins in the one form they are compared in; the URL of a server."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104 compared with, not bound to
_V4_IN_V6 = IPv6Network("::ffff:0:0/96")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_MAX_PORT = 65_535


def unmapped(text: str) -> str:
    """Return an address of a peer as the one it stands for: `::ffff:192.0.2.1`, as a socket of both
    families names a peer of IPv4, is 192.0.2.1. Anything else is returned as it is."""
    if not text.lower().startswith("::ffff:"):
        return text
    try:
        address = ip_address(text)
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped) if mapped else text


def without_zone(text: str) -> str:
    """Return an IPv6 address without the interface it is reached by (`fe80::1%eth0`)."""
    return text.partition("%")[0]


def normal_network(text: str) -> str:
    """Return an address or a network as peers are compared with it: unmapped, no host bits set.

    Raise ValueError when it is neither.
    """
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_V4_IN_V6):
        low = int(network.network_address) & 0xFFFFFFFF
        network = ip_network((low, network.prefixlen - _V4_IN_V6.prefixlen))
    return str(network) if "/" in text else str(network.network_address)


def normal_host(text: str) -> str:
    """Return a host name or address as clients send it: in lower case, addresses of IPv6 in
    brackets. Raise ValueError for what no client would send."""
    host = text.strip().lower().removesuffix(".")
    if ":" in host:
        return f"[{IPv6Address(host.removeprefix('[').removesuffix(']')).compressed}]"
    # Clients take what ends in a number for an address, in whatever notation, and send that.
    if not _NAME.fullmatch(host) or host.rpartition(".")[2].isdecimal():
        return str(ip_address(host))
    return host


def normal_host_pattern(text: str) -> str:
    """Return a host, `*` or `*.example.com` in the form of `normal_host`, or raise ValueError."""
    if text.strip() == "*":
        return "*"
    wildcard = "*." if text.strip().startswith("*.") else ""
    return wildcard + normal_host(text.strip().removeprefix(wildcard))


def normal_origin(text: str) -> str:
    """Return an origin as browsers send it: in lower case, without the port of its scheme.

    Raise ValueError for what no browser would send.
    """
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        raise ValueError("no origin")
    scheme, host, port = match[1], normal_host(match[2]), int(match[3] or 0)
    if match[3] is not None and not 0 < port <= _MAX_PORT:
        raise ValueError("no port")
    # A host with a last dot is another one for browsers.
    host += "." if match[2].endswith(".") else ""
    return f"{scheme}://{host}" + (f":{port}" if port not in {0, _DEFAULT_PORTS[scheme]} else "")


def server_url(host: str, port: int, *, as_bound: bool = False) -> str:
    """Return where a browser on this machine finds a server that listens there; `as_bound`, the
    addresses of every interface stay what they are."""
    name = "127.0.0.1" if is_every_interface(host) and not as_bound else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def is_every_interface(host: str) -> bool:
    """Return whether listening there is listening at every address of this machine."""
    try:
        return str(ip_address(host)) in EVERY_INTERFACE
    except ValueError:
        return False
