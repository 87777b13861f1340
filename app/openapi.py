"""The OpenAPI document: what FastAPI knows, made true and complete.

FastAPI documents its own 422 body and no other error; here every operation gets the errors
it can answer with, in our shape, and says which permission it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from app.core import i18n
from app.core.exceptions import (
    AppError,
    BadRequest,
    Conflict,
    IdempotencyKeyReused,
    InsufficientScope,
    InternalError,
    Invalid,
    InvalidCursor,
    InvalidToken,
    NotFound,
    PayloadTooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UntrustedHost,
)
from app.core.permissions import Permission
from app.crud.idempotency import REPLAYED
from app.routers import creating
from app.routers.bodies import StrictRoute
from app.routers.doors import AtDoor
from app.routers.lists import Parsed
from app.routers.responses import ETAG, IF_NONE_MATCH, LIMIT_HEADERS, NOT_MODIFIED, problems
from app.schemas.problems import Problem, ValidationProblem

T = TypeVar("T")
DESCRIPTION = """\
Users, posts and roles.

**Log in** with *Authorize* below, or `POST /api/v1/auth/login`, and send the token as
`Authorization: Bearer …`. **Lists** take `page` and `page_size`, or follow `next_cursor`.
**Errors** are [problem documents](/errors) with a stable `code`; their texts are English or
Spanish by `Accept-Language`.

**Try again** with an `Idempotency-Key`: a request that creates, sent again from your account, gets
the answer it got first, with `Idempotency-Replayed: true`. Answers are kept for 24 hours; refusals
are not kept. **Change** what is still as you read it by its `ETag`, sent back as `If-Match` with
its quotes: 412 if somebody else was first. Without it the last writer wins. **Read again** what may
have changed with the `ETag` of any read as `If-None-Match`: 304, without a body, if it is the same.
`HEAD` is served wherever `GET` is.
"""
_TAGS = [
    {"name": "auth", "description": "Accounts and logins."},
    {"name": "users", "description": "Your own account, and everybody's for administrators."},
    {"name": "roles", "description": "Roles and the permissions they grant."},
    {"name": "posts", "description": "What users write."},
    {"name": "tags", "description": "What posts are about."},
    {
        "name": "operations",
        "description": "Health, public keys, the audit trail and the mail outbox.",
    },
]
_REQUEST_ID = {
    "description": "Identifies the request in the logs; yours, if you sent one.",
    "schema": {"type": "string"},
}
_TAGGED = ("/Post", "/User", "/Me", "/ManagedUser", "/Role")
_KEY = {
    "name": creating.HEADER,
    "in": "header",
    "required": False,
    "description": "A random value of your own, new for each thing you create. Sent again within"
    " 24 hours with the same request, it is answered what it was answered first, and nothing is"
    " created twice.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": creating.MAX_KEY,
        "pattern": "^[!-~]+$",
    },
}
_REPLAYED = {
    "description": "`true` on an answer that was given before; nothing has happened again.",
    "schema": {"type": "string", "const": "true"},
}
_LOCATION = {"description": "Where the new row is.", "schema": {"type": "string"}}
# What is said of a parameter's value beside that it is invalid.
_REFUSED_FOR = {creating.HEADER: IdempotencyKeyReused, "cursor": InvalidCursor}
_LIST_HEADERS = {
    "Link": {
        "description": "`first`, `prev`, `next`, `last` (RFC 8288).",
        "schema": {"type": "string"},
    },
    "X-Total-Count": {"description": "Not with a cursor.", "schema": {"type": "integer"}},
}


def install(app: FastAPI) -> None:
    """Make `app.openapi()` answer the completed document, built once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's docs have it


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=_TAGS,
        separate_input_output_schemas=app.separate_input_output_schemas,
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (Problem, ValidationProblem):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    flows = document["components"]["securitySchemes"]["OAuth2"]["flows"]
    flows["password"]["scopes"] = {
        name: i18n.text("en", "permissions", name) for name in Permission
    }
    _add_query_parameters(app, document)
    _add_limits(app, document)
    for operation, _ in _depending_on(app, document, creating.TakesKey):
        operation.setdefault("parameters", []).append(_KEY)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path, method)
    _add_conditions(app, document)
    return document


def _add_query_parameters(app: FastAPI, document: dict[str, Any]) -> None:
    """Document what `routers/lists.py` parses, which FastAPI does not see."""
    for operation, parsed in _depending_on(app, document, Parsed):
        schema = parsed.model.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= schema.pop("$defs", {})
        operation.setdefault("parameters", []).extend(_parameters(schema))


def _add_limits(app: FastAPI, document: dict[str, Any]) -> None:
    """Every door may refuse."""
    for operation, _ in _depending_on(app, document, AtDoor):
        for status, documented in problems(TooManyRequests).items():
            operation["responses"][str(status)] = documented


def _add_conditions(app: FastAPI, document: dict[str, Any]) -> None:
    """Document what reads make of `If-None-Match`. HEAD stays out: it is what GET is."""
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, StrictRoute) and route.methods == {"GET"}:
            operation = document["paths"][route.path]["get"]
            operation.setdefault("parameters", []).append(IF_NONE_MATCH)
            responses = operation["responses"]
            responses["200"]["headers"]["ETag"] = ETAG
            headers = {"X-Request-ID": _REQUEST_ID, "ETag": ETAG}
            responses["304"] = NOT_MODIFIED | {"headers": headers}
            operation["responses"] = dict(sorted(responses.items()))


def _depending_on(
    app: FastAPI, document: dict[str, Any], kind: type[T]
) -> Iterator[tuple[dict[str, Any], T]]:
    """Operations with a dependency of this kind, direct or not, and the dependency."""
    for route in iter_route_contexts(app.routes):
        for call in _calls(getattr(route, "dependant", None)):
            if isinstance(call, kind):
                for method in route.methods or ():
                    yield document["paths"][route.path][method.lower()], call


def _calls(dependant: Dependant | None) -> Iterator[object]:
    for dependency in dependant.dependencies if dependant else ():
        yield dependency.call
        yield from _calls(dependency)


def _parameters(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, documented in schema["properties"].items():
        description = documented.pop("description", None)
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": documented,
        } | ({"description": description} if description else {})


def _complete(operation: dict[str, Any], path: str, method: str) -> None:
    scopes = _permissions(operation)
    if scopes:
        operation["security"] = [{"OAuth2": [name]} for name in scopes]
    operation.setdefault("security", [])
    operation["description"] += f"\n\nPermission: {_who_may(operation['security'], scopes)}."
    responses = operation["responses"]
    responses.pop("422", None)
    for status, documented in problems(*_errors(operation, path, method)).items():
        own = responses.setdefault(str(status), documented)
        if own is not documented:
            _merge(own, documented)
    for status, response in responses.items():
        response["headers"] = _headers(operation, status, response)
    operation["responses"] = dict(sorted(responses.items()))


def _permissions(operation: dict[str, Any]) -> list[str]:
    """The permissions of the operation's gate; any one of them opens it."""
    return [
        name
        for entry in operation.get("security", [])
        for names in entry.values()
        for name in names
    ]


def _who_may(security: list[dict[str, Any]], scopes: list[str]) -> str:
    if scopes:
        return " or ".join(f"`{name}`" for name in scopes)
    if {} in security:
        return "none; a login shows more"
    return "any login" if security else "none"


def _errors(operation: dict[str, Any], path: str, method: str) -> Iterator[type[AppError]]:
    """What an operation can answer beside what its route documents."""
    parameters = {entry["name"] for entry in operation.get("parameters", [])}
    security = operation["security"]
    if "requestBody" in operation:
        yield from (BadRequest, PayloadTooLarge)
    if "requestBody" in operation or parameters:
        yield Invalid
    yield from (kind for name, kind in _REFUSED_FOR.items() if name in parameters)
    if security and {} not in security:
        yield Unauthenticated
    if security:
        yield InvalidToken
    if any(names for entry in security for names in entry.values()):
        yield InsufficientScope
    # Of a row that is in no answer itself, what is public does not tell whether it is there.
    if path.endswith("}") or ("{" in path and {} not in security):
        yield NotFound
    if method != "get":
        yield Conflict
    if path != "/health":
        yield Unavailable
    yield from (UntrustedHost, InternalError)


def _merge(own: dict[str, Any], documented: dict[str, Any]) -> None:
    """Add documented error codes to those a route lists for the same status."""
    (content,) = documented["content"].values()
    (target,) = own["content"].values()
    added = {
        code: shown for code, shown in content["examples"].items() if code not in target["examples"]
    }
    target["examples"] |= added
    own["description"] = " · ".join(f"`{code}`" for code in target["examples"])


def _headers(operation: dict[str, Any], status: str, response: dict[str, Any]) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-ID": _REQUEST_ID}
    names = {entry["name"] for entry in operation.get("parameters", [])}
    schema = str(response.get("content", {}).get("application/json", {}).get("schema", {}))
    if status == "201":
        headers["Location"] = _LOCATION
    if schema.removesuffix("'}").endswith(_TAGGED):
        headers["ETag"] = ETAG
    if status == "201" and creating.HEADER in names:
        headers[REPLAYED] = _REPLAYED
    if status == "200" and "cursor" in names:
        headers |= _LIST_HEADERS
    if status in {"401", "403"}:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    if "429" in operation["responses"] and status < "500":
        headers |= LIMIT_HEADERS
    if status in {"429", "503"}:
        headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer"}}
    return headers
