"""Users: what they send and what is shown of them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    MISSING,
    AfterValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from app.core.exceptions import FieldError, Invalid
from app.core.i18n import LOCALES
from app.core.permissions import Permission
from app.models.users import MAX_EMAIL, MAX_NAME, MAX_PHONE, email_key
from app.schemas.auth import Password
from app.schemas.base import Input, Moment, Output, SingleLine, Storable
from app.schemas.pages import PageQuery, Search, words_of

MIN_NAME = 2
MIN_PHONE = 10
_EARLIEST_BIRTH = date(1900, 1, 1)
_NOT_A_DIGIT = re.compile(r"[^0-9]")


def _valid_email(value: str) -> str:
    try:
        # Whether the domain takes mail is for the mail to find out: no look-up here.
        found = validate_email(value.strip(), check_deliverability=False)
    except EmailNotValidError:
        raise PydanticCustomError("email_invalid", "not an e-mail address") from None
    # What reads as an encoded word (RFC 2047) can stand in no header: no mail would ever arrive.
    if "=?" in found.normalized or len(email_key(found.normalized)) > MAX_EMAIL:
        raise PydanticCustomError("email_invalid", "not an e-mail address")
    return found.normalized


def normal_email(text: str) -> str | None:
    """An address as it would have been kept at registration; None for what is not one."""
    try:
        return _email.validate_python(text)
    except ValidationError:
        return None


def _digits(value: str) -> str:
    digits = _NOT_A_DIGIT.sub("", value)
    if not MIN_PHONE <= len(digits) <= MAX_PHONE:
        raise PydanticCustomError(
            "phone_invalid", "not a phone number", {"min": MIN_PHONE, "max": MAX_PHONE}
        )
    return digits


def _in_the_past(value: date) -> date:
    if not _EARLIEST_BIRTH <= value <= datetime.now(UTC).date():
        raise PydanticCustomError("birth_date_invalid", "not a date of birth")
    return value


# The length is capped before the parser sees the text: its work grows with it.
Email = Annotated[
    str,
    StringConstraints(max_length=MAX_EMAIL),
    Storable,
    AfterValidator(_valid_email),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": MAX_EMAIL}),
]
_email: TypeAdapter[str] = TypeAdapter(Email)
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=MIN_NAME, max_length=MAX_NAME),
    SingleLine,
    Field(description="One line, with something visible in it.", examples=["Ana García"]),
]
_name: TypeAdapter[str] = TypeAdapter(Name)


def normal_name(text: str) -> str:
    """Return a name as registration would keep it. Raise Invalid for what is not one."""
    try:
        return _name.validate_python(text)
    except ValidationError as error:
        [defect] = error.errors(include_url=False, include_input=False)
        reason = FieldError("name", defect["type"], defect.get("ctx", {}))
        raise Invalid([reason]) from None


Phone = Annotated[
    str,
    StringConstraints(max_length=50),
    Storable,
    AfterValidator(_digits),
    Field(description="Digits are kept, at least 10.", examples=["+34 600 123 456"]),
]
BirthDate = Annotated[date, AfterValidator(_in_the_past), Field(examples=["1990-05-17"])]
Locale = Literal["en", "es"]
assert set(LOCALES) == set(Locale.__args__)  # type: ignore[attr-defined]  # a Literal has them


class _NewProfile(Input):
    phone: Phone | None = None
    birth_date: BirthDate | None = None


class Registration(_NewProfile):
    """A new account, made by its owner."""

    email: Email = Field(examples=["ana@example.com"])
    name: Name
    password: Password


class UserCreate(_NewProfile):
    """A new account, made by an administrator: without a password."""

    email: Email = Field(examples=["luis@example.com"])
    name: Name = Field(examples=["Luis Pérez"])
    locale: Locale = "en"


class ProfileUpdate(Input):
    """Changes to one's own account; what is left out stays."""

    phone: Phone | MISSING | None = MISSING
    birth_date: BirthDate | MISSING | None = MISSING
    name: Name | MISSING = MISSING
    locale: Locale | MISSING = MISSING


class UserUpdate(ProfileUpdate):
    """Changes to somebody's account; what is left out stays."""

    is_active: bool | MISSING = MISSING


class RoleRef(Output):
    id: int
    name: str


class User(Output):
    """An account, as its owner and those with `users:read` see it."""

    id: int
    email: str
    name: str
    phone: str | None
    birth_date: date | None
    locale: Locale
    is_active: bool
    email_verified: bool
    roles: list[RoleRef]
    created_at: Moment
    updated_at: Moment
    deleted_at: Moment | None


class Me(User):
    """One's own account, with what its roles permit."""

    permissions: list[Permission]


class ManagedUser(User):
    """An account after a change to it. `email`, `phone` and `birth_date` are null for callers
    without `users:read`."""

    email: str | None  # type: ignore[assignment]  # wider than the account's own


class Member(Output):
    """Somebody who has a role. `email`, `phone` and `birth_date` are null for callers
    without `users:read`."""

    id: int
    email: str | None
    name: str
    phone: str | None
    birth_date: date | None
    locale: Locale
    is_active: bool
    email_verified: bool
    created_at: Moment
    updated_at: Moment


class UserQuery(PageQuery):
    filters = ("q", "role", "is_active")

    sort: Literal["created_at", "-created_at", "name", "-name", "email", "-email"] = "-created_at"
    q: Search | None = Field(None, description=words_of("name or e-mail address"))
    role: Search | None = Field(None, description="Name of a role they have.")
    is_active: bool | None = None
    deleted: bool = Field(False, description="The trash instead of the live ones.")


class MemberQuery(PageQuery):
    sort: Literal["created_at", "-created_at", "name", "-name"] = "-created_at"
