"""Forgotten passwords, confirmed addresses, and what replaces them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.schemas.auth import CurrentPassword, Given, Password
from app.schemas.base import Input
from app.schemas.users import Email

LinkToken = Annotated[
    Given,
    Field(
        description="What follows the `#` in the link of the mail.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]


class ForgottenPassword(Input):
    """Whose password it is."""

    email: Email = Field(examples=["ana@example.com"])


class PasswordReset(Input):
    """A new password, by a link that was mailed."""

    token: LinkToken
    password: Password


class EmailVerification(Input):
    """Proof that an address is yours, by a link that was mailed to it."""

    token: LinkToken


class PasswordChange(CurrentPassword):
    """A new password, by who knows the present one."""

    new_password: Password


class EmailChange(CurrentPassword):
    """A new address, by who knows the password."""

    new_email: Email = Field(examples=["ana@example.org"])
