"""Whether a text can be what a setting needs: a secret, a network, a mailbox, a domain."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from ipaddress import (
    IPv4Network,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Any
from urllib.parse import urlsplit

from email_validator import validate_email

from app.core.addresses import normal_host
from app.core.keyring import SecretKeys
from app.core.security import AccessTokens

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_BASE_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[\w-]+(?:\.[\w-]+)*\.?)(?::[0-9]{1,5})?")
_V4 = IPv4Network("0.0.0.0/0")
# The public addresses: the rest is reserved or private.
_V6_PUBLIC = IPv6Network("2000::/3")
_V4_IN_V6 = IPv6Network("::ffff:0:0/96")


def is_token(text: str) -> bool:
    """Return whether this can be the name of a header (RFC 9110 §5.6.2), and is no `*`."""
    return _TOKEN.fullmatch(text) is not None and text != "*"


def is_base_url(text: str) -> bool:
    """Return whether this is an http or https URL of a scheme, a host and a port alone."""
    match = _BASE_URL.fullmatch(text)
    if match is None:
        return False
    try:
        # No property but this one looks at the number.
        port = urlsplit(text).port
        if match[1].startswith("["):
            ip_address(match[1][1:-1])
    except ValueError:
        return False
    return port != 0


def signs(secret: str) -> bool:
    """Return whether a token signed with a secret verifies: not if it reads as JSON or as a public
    key, which the JWT library takes for another kind of key."""
    try:
        json.loads(secret)
    except ValueError:
        pass
    else:
        return False
    try:
        tokens = AccessTokens(SecretKeys([secret]), minutes=1)
        tokens.verify(tokens.issue(user_id=1, session_id=1))
    except Exception:  # noqa: BLE001 the library raises what it likes
        return False
    return True


def is_network(text: str) -> bool:
    """Return whether this is an address or a network, but not all of them."""
    try:
        return ip_network(text, strict=False).prefixlen > 0
    except ValueError:
        return False


def cover_a_family(texts: Sequence[str]) -> bool:
    """Return whether networks contain, together, half or more of the public addresses of IPv4, as
    such or mapped into IPv6, or of IPv6."""
    networks = [ip_network(text, strict=False) for text in texts if is_network(text)]
    v4 = [each for each in networks if isinstance(each, IPv4Network)]
    v6 = [each for each in networks if isinstance(each, IPv6Network)]
    v4 += [_V4 if _V4_IN_V6.subnet_of(each) else _unmapped(each) for each in v6 if _maps(each)]
    public = [
        _V6_PUBLIC if _V6_PUBLIC.subnet_of(each) else each
        for each in v6
        if _V6_PUBLIC.overlaps(each)
    ]
    return _is_half(v4, _V4) or _is_half(public, _V6_PUBLIC)


def _maps(network: IPv6Network) -> bool:
    return network.overlaps(_V4_IN_V6)


def _unmapped(network: IPv6Network) -> IPv4Network:
    """Return the IPv4 network that a part of ::ffff:0:0/96 stands for."""
    low = int(network.network_address) & 0xFFFFFFFF
    return IPv4Network((low, network.prefixlen - _V4_IN_V6.prefixlen))


def _is_half(networks: Sequence[Any], family: IPv4Network | IPv6Network) -> bool:
    covered = sum(each.num_addresses for each in collapse_addresses(networks))
    return bool(2 * covered >= family.num_addresses)


def is_mailbox(text: str) -> bool:
    """Return whether mails can be sent from here: `name@host` or `Name <name@host>`."""
    try:
        address = Address(addr_spec=parseaddr(text)[1])
        if not address.domain.isascii():
            validate_email(
                address.addr_spec, check_deliverability=False, globally_deliverable=False
            )
        return bool(address.domain)
    # A domain without a form in ASCII is a ValueError, too.
    except (ValueError, IndexError, HeaderParseError):
        return False


def is_domain(text: str) -> bool:
    """Return whether this can be the domain of addresses: of words, none of them a number."""
    try:
        return normal_host(text) == text and ":" not in text and "_" not in text
    except ValueError:
        return False
