"""Cross-origin requests: Starlette's rules, with refusals in the shape of all errors."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.exceptions import CorsNotAllowed
from app.web.problems import problem

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_METHOD, _HEADERS = "access-control-request-method", "access-control-request-headers"
# Beside those that need no leave, what frontends and their libraries send of themselves.
ALLOWED = (
    *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"),
    *("X-Request-ID", "X-Requested-With"),
    *("traceparent", "tracestate", "baggage"),
)
EXPOSED = (
    *("ETag", "Idempotency-Replayed", "Link", "Location", "RateLimit", "RateLimit-Policy"),
    *("Retry-After", "WWW-Authenticate", "X-Request-ID", "X-Total-Count"),
)
_MAX_SHOWN = 100


class CrossOriginMiddleware(CORSMiddleware):
    """Lets scripts of `origins` call the API, with cookies; `headers` are allowed beside ALLOWED.
    The refusal of a preflight names what it was refused for."""

    def __init__(
        self, app: ASGIApp, *, origins: Sequence[str], headers: Sequence[str] = ()
    ) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=[*ALLOWED, *headers],
            allow_credentials=True,
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and _METHOD in headers:
            response = self._answer(headers, scope)
            if response is not None:
                await response(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def _answer(self, headers: Headers, scope: Scope) -> Response | None:
        """Return the refusal of a preflight; None for what is none, or is allowed."""
        if "origin" not in headers or self.preflight_response(headers).status_code == 200:  # noqa: PLR2004
            return None
        allowed = self.preflight_response(headers).headers
        refusal = problem(CorsNotAllowed(_shown(self._refused(headers))), scope)
        names = [name for name in allowed if name.startswith("access-control-") or name == "vary"]
        for name in names:
            refusal.headers[name] = allowed[name]
        return refusal

    def _refused(self, headers: Headers) -> str:
        """Return the header of a refused preflight that it is refused for."""
        if not self.is_allowed_origin(headers["origin"]):
            return f"Origin: {headers['origin']}"
        if headers[_METHOD] not in self.allow_methods:
            return f"Access-Control-Request-Method: {headers[_METHOD]}"
        asked = [name.strip() for name in headers.get(_HEADERS, "").split(",")]
        refused = [name for name in asked if name.lower() not in self.allow_headers]
        if _HEADERS in headers and refused:
            return f"Access-Control-Request-Headers: {refused[0]}"
        return "Access-Control-Request-Private-Network"


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_MAX_SHOWN])
