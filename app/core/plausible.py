"""Whether a text can be what a setting needs: a secret, a network, a mailbox, an origin."""

from __future__ import annotations

import json
import re
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from ipaddress import ip_network

from app.core.keys import SecretKeys
from app.core.security import AccessTokens

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")
_BASE_URL = re.compile(r"https?://[^\s/?#]+")


def is_origin(text: str) -> bool:
    """Whether this is what browsers send as `Origin`."""
    return _ORIGIN.fullmatch(text) is not None


def is_base_url(text: str) -> bool:
    """Whether this is an http or https URL without a path."""
    return _BASE_URL.fullmatch(text) is not None


def signs(secret: str) -> bool:
    """Whether a token signed with a secret verifies: not if it reads as JSON or as a public key,
    which the JWT library takes for another kind of key."""
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
    """Whether this is an address or a network, but not all of them."""
    try:
        return ip_network(text, strict=False).prefixlen > 0
    except ValueError:
        return False


def is_mailbox(text: str) -> bool:
    """Whether mails can be sent from here: `name@host` or `Name <name@host>`."""
    try:
        return bool(Address(addr_spec=parseaddr(text)[1]).domain)
    except (ValueError, IndexError, HeaderParseError):
        return False
