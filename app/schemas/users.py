"""Users: what they send and what is shown of them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, ClassVar, Literal, cast

from pydantic import (
    MISSING,
    AfterValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from app.core.context import request_context
from app.core.exceptions import FieldError, Invalid
from app.core.i18n import LOCALES
from app.core.permissions import Permission
from app.models.users import MAX_NAME, MAX_PHONE
from app.schemas import patterns
from app.schemas.auth import Password
from app.schemas.base import (
    Checked,
    CreatedAt,
    DeletedAt,
    Flag,
    FullDate,
    QueryBool,
    RecordId,
    RequestModel,
    ResponseModel,
    SingleLine,
    UpdatedAt,
    UpdateModel,
    at_most,
    refuse_unstorable,
)
from app.schemas.emails import Email
from app.schemas.pages import SORT, TRASH, PageQuery, Search, words_of

MIN_NAME = 2
MIN_PHONE = 10
_EARLIEST_BIRTH = date(1900, 1, 1)
_NOT_A_DIGIT = re.compile(r"[^0-9]")


def _digits(value: str) -> str:
    digits = _NOT_A_DIGIT.sub("", refuse_unstorable(value))
    if not MIN_PHONE <= len(digits) <= MAX_PHONE:
        raise PydanticCustomError(
            "phone_invalid", "not a phone number", {"min": MIN_PHONE, "max": MAX_PHONE}
        )
    return digits


def _in_the_past(value: date) -> date:
    if not _EARLIEST_BIRTH <= value <= datetime.now(UTC).date():
        raise PydanticCustomError("birth_date_invalid", "not a date of birth")
    return value


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=MIN_NAME, max_length=MAX_NAME),
    SingleLine,
    at_most(MAX_NAME),
    Field(
        description="The name: one line, with something visible in it.",
        examples=["Ana García"],
        json_schema_extra={"pattern": patterns.LINE_OF_TWO},
    ),
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
    Checked(_digits, patterns.digits(MIN_PHONE, MAX_PHONE)),
    Field(
        description="The phone number with its country code: 10 to 20 digits, which are kept.",
        examples=["+34 600 123 456"],
    ),
]
BirthDate = Annotated[
    FullDate,
    AfterValidator(_in_the_past),
    Field(
        description="The date of birth: in the past, and not before 1900.",
        examples=["1990-05-17"],
        json_schema_extra={"pattern": patterns.BIRTH_DATE},
    ),
]
Locale = Literal["en", "es"]
assert set(LOCALES) == set(Locale.__args__)  # type: ignore[attr-defined]  # a Literal has them


def _request_locale() -> Locale:
    return cast("Locale", request_context().locale)


# What accounts show.
ShownEmail = Annotated[str, Field(description="The email address, which no other account has.")]
ShownName = Annotated[str, Field(description="The name, as it is shown with the posts.")]
ShownPhone = Annotated[
    str | None, Field(description="The digits of the phone number; null if it is not known.")
]
ShownBirthDate = Annotated[
    date | None, Field(description="The date of birth; null if it is not known.")
]
MailLocale = Annotated[Locale, Field(description="Language of the mails to the user.")]
_ACTIVE = Field(description="False for a user who is disabled, and cannot log in.")
IsActive = Annotated[bool, _ACTIVE]
EmailVerified = Annotated[
    bool, Field(description="Whether the address was confirmed by a link that was mailed to it.")
]


class _NewProfile(RequestModel):
    phone: Phone | None = None
    birth_date: BirthDate | None = None


class Registration(_NewProfile):
    """A new account, created by its owner."""

    email: Email = Field(examples=["ana@example.com"])
    name: Name
    password: Password


class UserCreate(_NewProfile):
    """A new account, created by an administrator: without a password."""

    email: Email = Field(examples=["luis@example.com"])
    name: Name = Field(examples=["Luis Pérez"])
    locale: Locale = Field(
        default_factory=_request_locale,
        description="Language of the emails to the user; by default that of the request.",
    )


class RoleRef(ResponseModel):
    """A role that a user has."""

    id: RecordId
    name: str = Field(description="The name of the role.")


class User(ResponseModel):
    """An account, as its owner and users with `users:read` see it."""

    id: RecordId
    email: ShownEmail
    name: ShownName
    phone: ShownPhone
    birth_date: ShownBirthDate
    locale: MailLocale
    is_active: IsActive
    email_verified: EmailVerified
    roles: list[RoleRef] = Field(description="The roles of the user, whose permissions add up.")
    created_at: CreatedAt
    updated_at: UpdatedAt
    deleted_at: DeletedAt


class Me(User):
    """Your own account, with the permissions that its roles grant."""

    permissions: list[Permission] = Field(description="The permissions that the roles grant.")


class ManagedUser(User):
    """An account after a change to it. `email`, `phone` and `birth_date` are null for callers
    without `users:read`."""

    email: ShownEmail | None  # type: ignore[assignment]  # wider than the account's own


class ProfileUpdate(UpdateModel):
    """Changes to your own account; what is left out stays."""

    record: ClassVar[type[ResponseModel]] = Me

    phone: Phone | MISSING | None = MISSING
    birth_date: BirthDate | MISSING | None = MISSING
    name: Name | MISSING = MISSING
    locale: MailLocale | MISSING = MISSING


class UserUpdate(ProfileUpdate):
    """Changes to the account of a user; what is left out stays."""

    record: ClassVar[type[ResponseModel]] = ManagedUser

    is_active: Annotated[Flag, _ACTIVE] | MISSING = MISSING


class Member(ResponseModel):
    """A user who has a role. `email`, `phone` and `birth_date` are null for callers
    without `users:read`."""

    id: RecordId
    email: ShownEmail | None
    name: ShownName
    phone: ShownPhone
    birth_date: ShownBirthDate
    locale: MailLocale
    is_active: IsActive
    email_verified: EmailVerified
    created_at: CreatedAt
    updated_at: UpdatedAt


class UserQuery(PageQuery):
    filters = ("q", "role", "is_active")

    sort: Annotated[
        Literal["created_at", "-created_at", "name", "-name", "email", "-email"], SORT
    ] = "-created_at"
    q: Search | None = Field(None, description=words_of("name or email address"))
    role: Search | None = Field(None, description="Users who have the role of this name alone.")
    is_active: QueryBool | None = Field(None, description="Active users alone, or disabled ones.")
    deleted: QueryBool = Field(False, description=TRASH)


class MemberQuery(PageQuery):
    sort: Annotated[Literal["created_at", "-created_at", "name", "-name"], SORT] = "-created_at"
