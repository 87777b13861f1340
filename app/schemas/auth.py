"""Tokens and passwords."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.core.passwords import MAX_PASSWORD
from app.core.permissions import Permission
from app.schemas.base import RequestModel, ResponseModel, SafeText

Password = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_PASSWORD),
    SafeText,
    Field(
        description=(
            "At least 8 characters with an uppercase letter and a number (policy `classic`) or "
            "at least 15 characters (`nist`); at most 128; not a common one, nor your name or "
            "email address. Taken as typed, spaces and all."
        ),
        # `app/web/openapi.py` publishes the least length of the policy that holds.
        json_schema_extra={"format": "password"},
        examples=["Correct-Horse-7-Battery"],
    ),
]
# What is compared, not set: no rule but the bound.
Given = Annotated[str, Field(max_length=1_000)]
GivenPassword = Annotated[
    Given,
    Field(
        description="The current password, exactly as it was set.",
        json_schema_extra={"format": "password"},
        examples=["Correct-Horse-7-Battery"],
    ),
]


_TOKEN = re.compile(r"[A-Za-z0-9_-]{0,128}")
_NOBODYS_TOKEN = "-"  # noqa: S105 no secret


def _one_that_may_exist(value: object) -> object:
    """What can be no token of ours is as wrong as one that nobody has, and not read any further."""
    return _NOBODYS_TOKEN if isinstance(value, str) and not _TOKEN.fullmatch(value) else value


GivenToken = Annotated[
    str,
    BeforeValidator(_one_that_may_exist),
    Field(
        description="The `refresh_token` of the last login or refresh.",
        examples=["3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
    ),
]


class LoginForm(BaseModel):
    """The OAuth2 password grant (RFC 6749 §4.3) or, with `grant_type=refresh_token`, a refresh
    (§6). Unknown fields are ignored, as the standard requires. An empty password counts as a
    wrong one."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["username", "password"]},
                {
                    "required": ["grant_type", "refresh_token"],
                    "properties": {"grant_type": {"const": "refresh_token"}},
                },
            ]
        }
    )

    # Stands first: what else is needed depends on it.
    grant_type: Literal["password", "refresh_token", ""] = Field(
        "password", description="`refresh_token` for a refresh; otherwise a login."
    )
    username: Given = Field(
        "",
        validate_default=True,
        description="The email address.",
        examples=["ana@example.com"],
    )
    # Not required: an empty field is a missing one to the framework.
    password: GivenPassword = ""
    refresh_token: GivenToken = Field("", validate_default=True)
    scope: str = Field(
        "",
        max_length=1_000,
        description="The permissions that this session is to be limited to, with spaces between;"
        " without any, all that you hold. Your own account, sessions and drafts are open to every"
        " session. On a refresh: some of the session's, whose scope stays as it is.",
        examples=["posts:write"],
    )
    client_id: str | None = Field(None, description="Ignored: OAuth2 clients may send it.")
    client_secret: str | None = Field(None, description="Ignored: OAuth2 clients may send it.")

    @field_validator("username", "refresh_token")
    @classmethod
    def _must_be_there(cls, value: str, info: ValidationInfo) -> str:
        refreshes = info.data.get("grant_type") == "refresh_token"
        if not value and refreshes is (info.field_name == "refresh_token"):
            raise PydanticCustomError("missing", "missing")
        return value

    @field_validator("scope")
    @classmethod
    def _must_be_known(cls, value: str) -> str:
        names = sorted({*value.split(" ")} - {""})
        if not {*Permission}.issuperset(names):
            raise PydanticCustomError("scope_unknown", "scope_unknown")
        return " ".join(names)


class Refresh(RequestModel):
    """The refresh token of a session."""

    refresh_token: GivenToken


class Token(ResponseModel):
    """A bearer token for the `Authorization` header, `expires_in` in seconds, and the token to
    get the next ones with."""

    access_token: str = Field(description="Send it as `Authorization: Bearer …`.")
    token_type: Literal["bearer"] = Field(description="How to send the token (RFC 6750).")
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str = Field(description="Good for one refresh, which returns the next one.")
    scope: str = Field(
        description="The permissions of this session, with spaces between.",
        examples=["posts:write"],
    )


class CurrentPassword(RequestModel):
    """Your password, to confirm a change of your account."""

    current_password: GivenPassword
