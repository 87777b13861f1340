"""What operations document of the errors they answer with."""

from __future__ import annotations

from typing import Any

from app.core.exceptions import (
    AppError,
    IdempotencyKeyReused,
    Invalid,
    NotReady,
    PreconditionFailed,
)
from app.core.i18n import text
from app.core.permissions import Permission
from app.schemas.problems import Problem, ValidationProblem
from app.web.problems import MEDIA_TYPE

# What fills the placeholders of an example.
EXAMPLE_VALUES = {
    "permission": Permission.users_read,
    "seconds": 30,
    "parts": "database",
    "refused": "Origin: null",
}


def error_responses(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for errors, by status: every code with an example."""
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
    """Return a body as this error would have it."""
    shown: dict[str, Any] = {
        "type": f"/errors/{kind.code}",
        "title": text(locale, "errors", kind.code, "title"),
        "status": kind.status,
        "detail": text(locale, "errors", kind.code, "detail", **EXAMPLE_VALUES),
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


# Of a change that may carry `If-Match`.
PRECONDITION_FAILED = error_responses(PreconditionFailed)
