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
from app.schemas.base import Input, Output, Storable

Password = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_PASSWORD),
    Storable,
    Field(
        description=(
            "At least 8 characters with an upper-case letter and a digit (policy `classic`) or "
            "at least 15 characters (`nist`); at most 128; not a common one, nor your name or "
            "e-mail address. Taken as typed, spaces and all."
        ),
        json_schema_extra={"format": "password"},
        examples=["Correct-Horse-7-Battery"],
    ),
]
# What is compared, not set: no rule but the bound.
Given = Annotated[str, Field(max_length=1_000)]
GivenPassword = Annotated[
    Given, Field(json_schema_extra={"format": "password"}, examples=["Correct-Horse-7-Battery"])
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
    (§6). Fields we do not know are passed over, as the standard asks. An empty password is a
    wrong one; to the framework it is a missing one."""

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
    grant_type: Literal["password", "refresh_token", ""] = "password"
    username: Given = Field(
        "",
        validate_default=True,
        description="The e-mail address.",
        examples=["ana@example.com"],
    )
    password: GivenPassword = ""
    refresh_token: GivenToken = Field("", validate_default=True)
    scope: str = ""
    client_id: str | None = None
    client_secret: str | None = None

    @field_validator("username", "refresh_token")
    @classmethod
    def _must_be_there(cls, value: str, info: ValidationInfo) -> str:
        refreshes = info.data.get("grant_type") == "refresh_token"
        if not value and refreshes is (info.field_name == "refresh_token"):
            raise PydanticCustomError("missing", "missing")
        return value


class Refresh(Input):
    """A session that is to go on."""

    refresh_token: GivenToken


class Token(Output):
    """A bearer token for the `Authorization` header, `expires_in` in seconds, and the token to
    get the next ones with."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    refresh_token: str


class CurrentPassword(Input):
    """Proof that it is really you."""

    current_password: GivenPassword
