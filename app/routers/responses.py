"""What operations document beside their own responses: errors, entity tags, limits."""

from __future__ import annotations

from typing import Any

from app.core.exceptions import AppError, IdempotencyKeyReused, Invalid, NotReady
from app.core.i18n import text
from app.core.permissions import Permission
from app.core.problems import MEDIA_TYPE
from app.schemas.problems import Problem, ValidationProblem

# What fills the placeholders of an example.
SHOWN = {"permission": Permission.users_read, "seconds": 30, "parts": "database"}
_TAGS = {"type": "string"}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of an earlier answer, or several: 304 if this one is the same.",
    "schema": _TAGS,
}
ETAG = {
    "description": "Another one whenever anything in the body is; for `If-None-Match` on reads, and"
    " `If-Match` on changes.",
    "schema": _TAGS,
}
NOT_MODIFIED: dict[str, Any] = {
    "description": "As it was: the answer with this `ETag` still holds.",
}

LIMIT_HEADERS = {
    "RateLimit": {
        "description": "The closest limit: `r` tries are left for `t` seconds.",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "That limit: `q` tries in `w` seconds.",
        "schema": {"type": "string"},
    },
}


def problems(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for errors, grouped by status: every code with an example."""
    by_status: dict[int, list[type[AppError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {status: _documented(kinds) for status, kinds in by_status.items()}


def _documented(kinds: list[type[AppError]]) -> dict[str, Any]:
    invalid = all(issubclass(kind, Invalid) for kind in kinds)
    model = ValidationProblem if invalid else Problem
    return {
        "description": " · ".join(f"`{kind.code}`" for kind in kinds),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
                "examples": {kind.code: {"value": example(kind)} for kind in kinds},
            }
        },
    }


def example(kind: type[AppError], locale: str = "en") -> dict[str, Any]:
    """A body as this error would have it."""
    shown: dict[str, Any] = {
        "type": f"/errors/{kind.code}",
        "title": text(locale, "errors", kind.code, "title"),
        "status": kind.status,
        "detail": text(locale, "errors", kind.code, "detail", **SHOWN),
        "code": kind.code,
        "instance": "/health/ready" if kind is NotReady else "/api/v1/users",
        "request_id": "0f8fad5bd9cb469fa16570867728950e",
    }
    if issubclass(kind, Invalid):
        field, defect = ("email", "email_invalid")
        if kind is IdempotencyKeyReused:
            field, defect = ("Idempotency-Key", kind.code)
        message = text(locale, "validation", defect)
        shown["errors"] = [{"field": field, "message": message, "type": defect}]
    return shown
