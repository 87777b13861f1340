"""Forgotten passwords, confirmed addresses, and what replaces them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.schemas.auth import CurrentPassword, Given, Password
from app.schemas.base import RequestModel
from app.schemas.emails import Email

LinkToken = Annotated[
    Given,
    Field(
        description="What follows the `#` in the link of the mail.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]


class ForgottenPassword(RequestModel):
    """The address of the account whose password was forgotten."""

    email: Email = Field(examples=["ana@example.com"])


class PasswordReset(RequestModel):
    """A new password, with the token of a mail."""

    token: LinkToken
    password: Password


class EmailVerification(RequestModel):
    """The token that was mailed to an address, to confirm it."""

    token: LinkToken


class PasswordChange(CurrentPassword):
    """A new password, confirmed with the current one."""

    new_password: Password


class EmailChange(CurrentPassword):
    """A new address, confirmed with the password."""

    new_email: Email = Field(examples=["ana@example.org"])
