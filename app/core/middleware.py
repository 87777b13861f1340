"""What happens to every request before and after its route: pure ASGI, outermost first.

RequestScope    request id, locale, security headers, the access log line
TrustedHosts    an unknown Host header is refused
CORSMiddleware  Starlette's, with a list of origins (only when there is one)
BodyLimit       413 before a large body is read
Deadline        503 when the answer takes too long, whatever it waits for
Recover         deadlock: run again; database away: 503; a defect: 500 and one log record
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
import time
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.context import RequestContext, current, request_context
from app.core.exceptions import (
    AppError,
    BadRequest,
    InternalError,
    PayloadTooLarge,
    Unavailable,
    UntrustedHost,
)
from app.core.i18n import negotiate
from app.core.problems import problem

log = logging.getLogger("app.request")
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_DECLARED_LENGTH = re.compile(r"[0-9]{1,18}")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_HSTS = ("strict-transport-security", "max-age=31536000; includeSubDomains")
_RETRIES = 3


class RequestScope:
    """Gives the request its id and language, the response its headers, the log its line."""

    def __init__(self, app: ASGIApp, *, access_log: bool) -> None:
        self.app = app
        self.access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = _context_of(scope)
        token = current.set(context)
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _complete(message, scope, context.request_id)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            if self.access_log:
                _log_access(scope, status, time.perf_counter() - started)
            current.reset(token)


def _context_of(scope: Scope) -> RequestContext:
    headers = Headers(scope=scope)
    given_id = headers.get("x-request-id", "")
    client = scope.get("client")
    return RequestContext(
        request_id=given_id if _SANE_ID.fullmatch(given_id) else secrets.token_hex(16),
        locale=negotiate(headers.get("accept-language")),
        ip=client[0] if client else "",
        user_agent=headers.get("user-agent", "")[:255],
    )


def _complete(message: Message, scope: Scope, request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    headers["x-request-id"] = request_id
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    if scope["scheme"] == "https":
        headers.setdefault(*_HSTS)


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    context = request_context()
    log.info(
        "request",
        extra={
            "method": scope["method"],
            "route": getattr(scope.get("route"), "path", None),
            "path": scope["path"],
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "ip": context.ip,
        },
    )


class TrustedHosts:
    """Refuses requests for hosts that are not ours. `hosts` may hold `*.example.com` and `*`."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str]) -> None:
        self.app = app
        self.exact = frozenset(hosts)
        self.suffixes = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._trusts(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
        else:
            await problem(UntrustedHost(), scope)(scope, receive, send)

    def _trusts(self, header: str) -> bool:
        host = re.sub(r":[0-9]*$", "", header).lower()
        return "*" in self.exact or host in self.exact or host.endswith(self.suffixes or ("\0",))


class BodyLimit:
    """Refuses bodies over `limit` bytes: by Content-Length at once, otherwise while reading.

    Bodies that are not UTF-8 but UTF-16 or UTF-32 are refused too (RFC 8259 §8.1).
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
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
            # No JSON and no form in UTF-8 holds this byte; the JSON parser would take UTF-16.
            if b"\0" in part:
                raise BadRequest
            return message

        await self.app(scope, receive_within_limit, send)


class Deadline:
    """Answers 503 after `seconds`, without waiting for what hangs to let go of its resources.

    A driver that talks to a frozen server may need seconds to be cancelled; the caller need
    not. The request's task is cancelled and cleans up behind the answer.
    """

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _OneAnswer(send)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        replies: list[asyncio.Task[None]] = []

        def expire() -> None:
            if answer.claim_for_deadline():
                log.warning("deadline exceeded", extra={"path": scope["path"]})
                late = problem(Unavailable(), scope)
                replies.append(loop.create_task(late(scope, receive, send)))
                task.cancel()

        timer = loop.call_later(self.seconds, expire)

        async def receive_and_wait_anew() -> Message:
            # A slow upload is the client's time, not ours: the clock restarts at each part.
            nonlocal timer
            message = await receive()
            timer.cancel()
            timer = loop.call_later(self.seconds, expire)
            return message

        try:
            await self.app(scope, receive_and_wait_anew, answer.send)
        except asyncio.CancelledError:
            if not replies or task.uncancel() > 0:
                raise
        finally:
            timer.cancel()
            if replies:
                await replies[0]


class _OneAnswer:
    """Lets either the application or the deadline start the response, never both."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self._expired = False

    async def send(self, message: Message) -> None:
        if not self._expired:
            self._started = True
            await self._send(message)

    def claim_for_deadline(self) -> bool:
        self._expired = not self._started
        return self._expired


class Recover:
    """Answers what nothing else caught, and runs a request again when the database asks for it.

    Running again (deadlock, serialisation failure, lock) is safe because one request is one
    transaction, committed before the response starts: an attempt that raised has left nothing
    behind. The body read so far is replayed. A defect is logged once, with its trace.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        is_transient: Callable[[Exception], bool],
        refusal_of: Callable[[Exception], AppError | None],
    ) -> None:
        self.app = app
        self.is_transient = is_transient
        self.refusal_of = refusal_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Replay(receive)
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        for attempt in range(_RETRIES + 1):
            try:
                await self.app(scope, body.receive, watched_send)
                return
            except Exception as error:
                if started:
                    raise
                if attempt == _RETRIES or not self.is_transient(error):
                    await problem(self._judge(error), scope)(scope, receive, send)
                    return
            log.info("transaction retried", extra={"attempt": attempt + 1})
            body.rewind()
            # Jitter keeps two transactions that met once from meeting again.
            await asyncio.sleep(random.uniform(0.01, 0.05) * 2**attempt)  # noqa: S311 no secret

    def _judge(self, error: Exception) -> AppError:
        if isinstance(error, AppError):
            return error
        refusal = self.refusal_of(error)
        if refusal is not None:
            log.warning("database refused", extra={"error": type(error).__name__})
            return refusal
        log.error("unhandled exception", exc_info=error)
        return InternalError()


class _Replay:
    """A `receive` that remembers what it handed out, to hand it out once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen: list[Message] = []
        self._position = 0

    async def receive(self) -> Message:
        if self._position == len(self._seen):
            self._seen.append(await self._receive())
        self._position += 1
        return self._seen[self._position - 1]

    def rewind(self) -> None:
        self._position = 0
