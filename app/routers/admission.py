"""Admission of logins: surplus is refused before any work is done on it."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.exceptions import Overloaded
from app.core.problems import problem
from app.core.security import Passwords
from app.models.users import email_key
from app.routers.deps import API

_PATH = f"{API}/auth/login"
_USERNAME = re.compile(rb"(?:^|&)username=([^&]{1,1024})(?:&|$)")
_REFRESHES = b"grant_type=refresh_token"


class LoginAdmission:
    """Holds a slot for hashing (`core/hashing.py`) around each login, or answers 503.

    In a storm most logins are refused. Refused here, a login costs a third of what it would cost
    behind the parser of forms and the limits of attempts. The account is read from the first part
    of the body; a form that comes in more parts is counted for its network alone.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        first: Message | None = await receive()
        assert first is not None
        body: bytes = first.get("body", b"")

        async def receive_again() -> Message:
            nonlocal first
            message, first = first, None
            return message if message is not None else await receive()

        if _REFRESHES in body:
            await self.app(scope, receive_again, send)
            return
        passwords: Passwords = scope["app"].state.passwords
        try:
            with passwords.slot(_account_in(body)):
                await self.app(scope, receive_again, send)
        # What the route raises was answered within.
        except Overloaded as refusal:
            await problem(refusal, scope)(scope, receive, send)


def _account_in(form: bytes) -> str | None:
    """Return the key of the account that a form names, as far as it is there."""
    found = _USERNAME.search(form)
    return email_key(unquote_plus(found[1].decode("latin-1"))) if found else None
