"""What every request and response has: an id, a language, security headers, a line in the log."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Sequence
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.context import RequestContext, current, request_context
from app.core.exceptions import AppError
from app.core.i18n import negotiate
from app.web.problems import problem

log = logging.getLogger("app.request")
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_NO_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], "?")
_READ = frozenset({b"x-request-id", b"accept-language", b"user-agent"})
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


class RequestContextMiddleware:
    """Gives the request its id and language, the response its headers, the log its line."""

    def __init__(
        self, app: ASGIApp, *, access_log: bool, special_use_domains: Sequence[str] = ()
    ) -> None:
        self.app = app
        self.access_log = access_log
        self.special_use_domains = special_use_domains

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = _context_of(scope)
        context.special_use_domains = self.special_use_domains
        token = current.set(context)
        started = time.perf_counter()
        method, status = scope["method"], 0
        if method == "HEAD":
            scope, send = _as_get(scope, send)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _complete(message, scope, context)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            if self.access_log:
                _log_access(scope, method, status, time.perf_counter() - started)
            current.reset(token)


def _as_get(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """Return the GET that a HEAD stands for, and a `send` that keeps its body back
    (RFC 9110 §9.3.2): one set of routes, checks and headers for both.

    A copy: the server goes by the method of its own scope.
    """

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return {**scope, "method": "GET"}, send_head


def _context_of(scope: Scope) -> RequestContext:
    # One pass over the raw headers: Starlette's own view walks them for each name.
    given = {name: value for name, value in scope["headers"] if name in _READ}
    given_id = given.get(b"x-request-id", b"").decode("latin-1")
    client = scope.get("client")
    return RequestContext(
        request_id=given_id if _SANE_ID.fullmatch(given_id) else _new_id(),
        locale=negotiate(given.get(b"accept-language", b"").decode("latin-1")),
        ip=client[0] if client else "",
        user_agent=_shown(given.get(b"user-agent", b"").decode("latin-1")),
    )


def _new_id() -> str:
    # No secret: each client receives its own. The system's randomness costs ten times as much.
    return f"{random.getrandbits(128):032x}"


def _shown(text: str) -> str:
    """Return a text without control characters: it is stored, and no database takes a NUL."""
    return text if text.isprintable() else text.translate(_NO_CONTROLS)


def _complete(message: Message, scope: Scope, context: RequestContext) -> None:
    headers = message.setdefault("headers", [])
    present = {name for name, _ in headers}
    headers.append((b"x-request-id", context.request_id.encode()))
    for name, value in context.headers.items():
        headers.append((name.lower().encode(), value.encode()))
    headers.extend([header for header in _HEADERS if header[0] not in present])
    if scope["scheme"] == "https":
        headers.append(_HSTS)


def raw_refusal(error: AppError, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a refusal as it goes over the wire, for a request that cannot be read to its end: the
    connection ends with it. `headers` are those of the server."""
    context = RequestContext(request_id=_new_id())
    token = current.set(context)
    try:
        response = problem(error, {"type": "http", "path": ""})
    finally:
        current.reset(token)
    message = {"headers": [*headers, (b"connection", b"close"), *response.raw_headers]}
    _complete(message, {"scheme": "http"}, context)
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
    lines += [name + b": " + value for name, value in message["headers"]]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


def _log_access(scope: Scope, method: str, status: int, seconds: float) -> None:
    context = request_context()
    log.info(
        "request",
        extra={
            "method": method,
            "route": getattr(scope.get("route"), "path", None),
            "path": scope["path"],
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "ip": context.ip,
        },
    )
