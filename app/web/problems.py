"""Errors as `application/problem+json` (RFC 9457): one shape for every refusal.

Nothing the caller sent is echoed but the path and the (shortened) names of fields.
"""

from __future__ import annotations

import re
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
    InternalError,
    Invalid,
    InvalidToken,
    MethodNotAllowed,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    all_errors,
)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 50
MAX_FIELD = 100
MAX_INSTANCE = 1_000
# The first error of the tree with a status stands for what the framework raises with it.
_BY_STATUS: Mapping[int, type[AppError]] = {kind.status: kind for kind in [*all_errors()][::-1]}


# Where tokens are given out, as OAuth2 clients know them.
TOKEN_ENDPOINTS = frozenset({"/api/v1/auth/login", "/api/v1/auth/refresh"})
_OF_FIELD = {"grant_type": "unsupported_grant_type", "scope": "invalid_scope"}
# Of limits, outages and defects RFC 6749 says nothing here; §4.1.2.1 has names for them.
_OAUTH: Mapping[type[AppError], str] = {
    Unauthenticated: "invalid_grant",
    InvalidToken: "invalid_grant",
    TooManyRequests: "temporarily_unavailable",
    Unavailable: "temporarily_unavailable",
    InternalError: "server_error",
}
# As pydantic writes the values of enums and literals: `'draft' or 'published'`.
_EXPECTED = re.compile("'([^']*)'")
_NOT_IN_DESCRIPTIONS = re.compile(r"[^ !#-\[\]-~]")


class ProblemResponse(JSONResponse):
    """A JSON response of type `application/problem+json`."""

    media_type = MEDIA_TYPE


def problem(error: AppError, scope: Scope) -> ProblemResponse:
    """Return the response for an error, in the language of the request."""
    context = request_context()
    text = i18n.find(context.locale, "errors", error.code)
    body: dict[str, Any] = {
        "type": f"/errors/{error.code}",
        "title": text["title"],
        "status": error.status,
        "detail": i18n.fill(context.locale, text["detail"], error.params),
        "code": error.code,
        "instance": _printable(scope["path"], MAX_INSTANCE),
        "request_id": context.request_id,
    }
    if isinstance(error, Invalid):
        body["errors"] = [
            _described(defect, context.locale) for defect in error.errors[:MAX_ERRORS]
        ]
    if scope["path"] in TOKEN_ENDPOINTS:
        body |= _oauth_members(error)
    return ProblemResponse(body, status_code=error.status, headers=error.headers)


def _oauth_members(error: AppError) -> dict[str, str]:
    """Return what OAuth2 clients read of an error (RFC 6749 §5.2), beside our own members; the
    statuses stay those of all errors."""
    fields = {defect.field for defect in error.errors} if isinstance(error, Invalid) else set()
    code = next((_OF_FIELD[field] for field in _OF_FIELD if field in fields), None)
    code = code or next((name for kind, name in _OAUTH.items() if isinstance(error, kind)), None)
    detail = i18n.text("en", "errors", error.code, "detail", **error.params)
    return {
        "error": code or "invalid_request",
        "error_description": _NOT_IN_DESCRIPTIONS.sub("'", detail),
    }


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
    """Return our error for one that the framework raised: no route, wrong method, bad body."""
    kind = _BY_STATUS.get(error.status_code, BadRequest)
    if kind is MethodNotAllowed:
        return kind(headers={"Allow": ", ".join(_methods_of(request))})
    return kind()


def _methods_of(request: Request) -> list[str]:
    """Return the methods of a path: each is a route of its own, and the framework names just one.
    HEAD is served wherever GET is (`RequestContextMiddleware`)."""
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
        FieldError(_field(_place(entry)), str(entry["type"]), _values(entry.get("ctx") or {}))
        for entry in errors[:MAX_ERRORS]
    ]


def _values(context: Mapping[str, Any]) -> Mapping[str, object]:
    """Return what pydantic knows of an error, the values that it expects as a tuple: it has them
    as a sentence in English."""
    if "expected" not in context:
        return context
    return {**context, "expected": tuple(_EXPECTED.findall(context["expected"]))}


def _place(entry: Any) -> Sequence[str | int]:
    # Of a body that cannot be read, FastAPI names the character where it breaks off.
    return ("body",) if entry["type"] == "json_invalid" else entry["loc"]


def _field(location: Sequence[str | int]) -> str:
    """Return `("body", "tags", 0)` as `tags.0`; the part of the request alone if that is all."""
    parts = location[1:] if len(location) > 1 else location
    return ".".join(str(part) for part in parts)


def _described(defect: FieldError, locale: str) -> dict[str, str]:
    texts = i18n.find(locale, "validation")
    template = texts.get(defect.type, texts["invalid"])
    return {
        "field": _printable(defect.field, MAX_FIELD),
        "message": i18n.fill(locale, template, defect.values, missing="…"),
        "type": defect.type,
    }


def _printable(value: str, limit: int) -> str:
    """Return bounded text that survives UTF-8: lone surrogates become question marks."""
    return value[:limit].encode("utf-8", "replace").decode("utf-8")
