"""Tokens and passwords."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

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


class LoginForm(BaseModel):
    """The OAuth2 password grant (RFC 6749 §4.3). Fields we do not know are passed over, as the
    standard asks. An empty password is a wrong one; to the framework it is a missing one."""

    model_config = ConfigDict(json_schema_extra={"required": ["username", "password"]})

    username: Given = Field(description="The e-mail address.", examples=["ana@example.com"])
    password: GivenPassword = ""
    grant_type: Literal["password", ""] = "password"
    scope: str = ""
    client_id: str | None = None
    client_secret: str | None = None


class Token(Output):
    """A bearer token for the `Authorization` header; `expires_in` in seconds."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int


class CurrentPassword(Input):
    """Proof that it is really you."""

    current_password: GivenPassword
