"""Email addresses: what counts as one, and how mail servers take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import email_validator
from email_validator import EmailNotValidError, ValidatedEmail, validate_email
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from app.core.context import request_context
from app.models.users import MAX_EMAIL, email_key
from app.schemas import patterns
from app.schemas.base import Checked, refuse_unstorable

# Never in the public DNS (RFC 6761). Refused here, as some companies use them: the list of the
# library, which no option turns off, is emptied.
_SPECIAL_USE = tuple(email_validator.SPECIAL_USE_DOMAIN_NAMES)
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def _valid_email(value: str) -> str:
    refuse_unstorable(value)
    try:
        found = _validated_email(value.strip())
    except EmailNotValidError:
        raise PydanticCustomError("email_invalid", "not an e-mail address") from None
    # What reads as an encoded word (RFC 2047) can stand in no header: no mail would ever arrive.
    if "=?" in found.normalized or len(email_key(found.normalized)) > MAX_EMAIL:
        raise PydanticCustomError("email_invalid", "not an e-mail address")
    return found.normalized


def _validated_email(text: str) -> ValidatedEmail:
    """Return the parts of an address in the public DNS or in SPECIAL_USE_DOMAINS."""
    ours = request_context().special_use_domains
    # Whether the domain takes mail shows when it is sent: no DNS query here.
    found = validate_email(text, check_deliverability=False, globally_deliverable=not ours)
    domain = found.ascii_domain
    if ours and not _is_within(domain, ours):
        found = validate_email(text, check_deliverability=False)
    elif ours:
        return found
    if _is_within(domain, _SPECIAL_USE):
        raise EmailNotValidError
    return found


def _is_within(domain: str, others: Sequence[str]) -> bool:
    """Return whether a domain is one of some, or a subdomain of one."""
    return any(domain == each or domain.endswith(f".{each}") for each in others)


def normal_email(text: str) -> str | None:
    """Return an address as registration would store it; None for what is not one."""
    try:
        return _email.validate_python(text)
    except ValidationError:
        return None


def deliverable_form(address: str) -> str:
    """Return an address as every mail server takes it, where there is such a form: an
    internationalised domain as its A-labels (RFC 5890). Only a local part beyond ASCII needs
    SMTPUTF8 (RFC 6531). Raise ValueError for what is no address."""
    local, _, domain = address.rpartition("@")
    if domain.isascii() or not local.isascii():
        return address
    return _validated(address).ascii_email or address


def _validated(address: str) -> ValidatedEmail:
    # Of any domain: who may have an address was asked before.
    return validate_email(address, check_deliverability=False, globally_deliverable=False)


# The length is capped before the parser sees the text: its work grows with it.
Email = Annotated[
    str,
    StringConstraints(max_length=MAX_EMAIL),
    Checked(_valid_email, patterns.EMAIL),
    Field(
        description="An email address; upper and lower case make no difference.",
        json_schema_extra={"format": "email"},
    ),
]
_email: TypeAdapter[str] = TypeAdapter(Email)
