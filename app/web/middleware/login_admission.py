"""Admission of logins: surplus is refused before any work is done on it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.exceptions import AppError, Overloaded
from app.core.security import Passwords
from app.models.users import email_key
from app.web.dependencies import API
from app.web.problems import problem

_PATH = f"{API}/auth/login"
_USERNAME = re.compile(rb"(?:^|&)username=([^&]{1,1024})(?:&|$)")
_REFRESHES = b"grant_type=refresh_token"


class LoginAdmissionMiddleware:
    """Lets each login wait for its turn to hash (`core/hashing.py`), or answers 503.

    In a storm most logins are refused. Refused here, a login costs a third of what it would cost
    behind the parser of forms and the limits of attempts. The turn begins at the end of the body
    and ends before the answer is sent: it is not held while waiting for a client.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["path"] != _PATH or scope["method"] != "POST":
            return self.app(scope, receive, send)
        return self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive)
        await body.read()
        if body.failure is not None or _REFRESHES in body.form:
            await self.app(scope, body.receive, send)
            return
        passwords: Passwords = scope["app"].state.passwords
        try:
            async with AsyncExitStack() as turn:
                await turn.enter_async_context(passwords.turn(_account_in(body.form)))

                async def send_behind_the_turn(message: Message) -> None:
                    await turn.aclose()
                    await send(message)

                await self.app(scope, body.receive, send_behind_the_turn)
        # What the route raises was answered within.
        except Overloaded as refusal:
            await problem(refusal, scope)(scope, receive, send)


class _Body:
    """A body that is read once here, and handed on part by part to the route behind."""

    def __init__(self, receive: Receive) -> None:
        self.failure: Exception | None = None
        self._receive = receive
        self._messages: deque[Message] = deque()

    @property
    def form(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._messages)

    async def read(self) -> None:
        """Read to the end, which `BodySizeLimitMiddleware` bounds. What it refuses is kept for the
        route, where errors are answered and counted."""
        is_more = True
        while is_more:
            try:
                self._messages.append(await self._receive())
            except AppError as error:
                self.failure = error
                return
            is_more = self._messages[-1].get("more_body", False)

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.popleft()
        if self.failure is not None:
            raise self.failure
        return await self._receive()


def _account_in(form: bytes) -> str | None:
    """Return the key of the account that a form names, as far as it is there."""
    found = _USERNAME.search(form)
    return email_key(unquote_plus(found[1].decode("latin-1"))) if found else None
