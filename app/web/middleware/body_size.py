"""How large a body may be."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.exceptions import BadRequest, PayloadTooLarge
from app.web.problems import problem

_DECLARED_LENGTH = re.compile(rb"[0-9]{1,18}")


class BodySizeLimitMiddleware:
    """Refuses bodies over `limit` bytes: by Content-Length at once, otherwise while reading.

    JSON in UTF-16 or UTF-32 is refused too (RFC 8259 §8.1).
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        is_text = not headers.get(b"content-type", b"").startswith(b"multipart/")
        if not _DECLARED_LENGTH.fullmatch(declared) or int(declared) > self.limit:
            await problem(PayloadTooLarge(), scope)(scope, receive, send)
            return
        read = 0

        async def receive_within_limit() -> Message:
            nonlocal read
            message = await receive()
            part = message.get("body", b"")
            read += len(part)
            if read > self.limit:
                raise PayloadTooLarge
            # No text in UTF-8 holds this byte; the JSON parser would take UTF-16 and UTF-32.
            if is_text and b"\0" in part:
                raise BadRequest
            return message

        await self.app(scope, receive_within_limit, send)
