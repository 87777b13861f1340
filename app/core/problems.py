"""Errors as `application/problem+json` (RFC 9457): one shape for every refusal.

Nothing the caller sent is echoed but the path and the (shortened) names of fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import compile_path
from starlette.types import Scope

from app.core import i18n
from app.core.context import request_context
from app.core.exceptions import (
    AppError,
    BadRequest,
    FieldError,
    Invalid,
    MethodNotAllowed,
    all_errors,
)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 50
MAX_FIELD = 100
MAX_INSTANCE = 1_000
# The first error of the tree with a status stands for what the framework raises with it.
_BY_STATUS: Mapping[int, type[AppError]] = {kind.status: kind for kind in [*all_errors()][::-1]}


class ProblemResponse(JSONResponse):
    """A JSON response of type `application/problem+json`."""

    media_type = MEDIA_TYPE


def problem(error: AppError, scope: Scope) -> ProblemResponse:
    """The response for an error, in the language of the request."""
    context = request_context()
    text = i18n.find(context.locale, "errors", error.code)
    body: dict[str, Any] = {
        "type": f"/errors/{error.code}",
        "title": text["title"],
        "status": error.status,
        "detail": text["detail"].format(**error.params),
        "code": error.code,
        "instance": _printable(scope["path"], MAX_INSTANCE),
        "request_id": context.request_id,
    }
    if isinstance(error, Invalid):
        body["errors"] = [
            _described(defect, context.locale) for defect in error.errors[:MAX_ERRORS]
        ]
    return ProblemResponse(body, status_code=error.status, headers=error.headers)


def register(app: FastAPI) -> None:
    """Route every exception FastAPI and Starlette know of through `problem`."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)


async def _on_http_exception(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    if not isinstance(error, AppError):
        error = _our_own(error, request)
    return problem(error, request.scope)


def _our_own(error: HTTPException, request: Request) -> AppError:
    """Our error for one that the framework raised: no route, wrong method, unreadable body."""
    kind = _BY_STATUS.get(error.status_code, BadRequest)
    if kind is MethodNotAllowed:
        return kind(headers={"Allow": ", ".join(_methods_of(request))})
    return kind()


def _methods_of(request: Request) -> list[str]:
    """Return the methods of a path: each is a route of its own, and the framework names just one.
    HEAD is served wherever GET is (`RequestScope`)."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.methods and compile_path(route.path or "")[0].match(request.scope["path"]):
            methods |= route.methods
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def _on_invalid_request(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    return problem(Invalid(_defects(error.errors())), request.scope)


def _defects(errors: Sequence[Any]) -> list[FieldError]:
    return [
        FieldError(_field(_place(entry)), str(entry["type"]), entry.get("ctx") or {})
        for entry in errors[:MAX_ERRORS]
    ]


def _place(entry: Any) -> Sequence[str | int]:
    # Of a body that cannot be read, FastAPI names the character where it breaks off.
    return ("body",) if entry["type"] == "json_invalid" else entry["loc"]


def _field(location: Sequence[str | int]) -> str:
    """`("body", "tags", 0)` as `tags.0`; the part of the request alone when that is all."""
    parts = location[1:] if len(location) > 1 else location
    return ".".join(str(part) for part in parts)


def _described(defect: FieldError, locale: str) -> dict[str, str]:
    texts = i18n.find(locale, "validation")
    template = texts.get(defect.type, texts["invalid"])
    return {
        "field": _printable(defect.field, MAX_FIELD),
        "message": template.format_map(_Values(defect.values)),
        "type": defect.type,
    }


class _Values(dict[str, object]):
    """Placeholder values; one that an error came without shows as an ellipsis."""

    def __missing__(self, key: str) -> str:
        return "…"


def _printable(value: str, limit: int) -> str:
    """Bounded text that survives UTF-8: lone surrogates become question marks."""
    return value[:limit].encode("utf-8", "replace").decode("utf-8")
