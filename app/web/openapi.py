"""The OpenAPI document: what FastAPI knows, corrected and completed.

FastAPI documents its own 422 body and no other error; here every operation gets the errors
it can answer with, in our shape, and says which permission it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from app.core.passwords import MIN_LENGTH
from app.core.permissions import Permission
from app.schemas.base import UpdateModel
from app.schemas.problems import Problem, ValidationProblem
from app.web import idempotency
from app.web.error_responses import error_responses
from app.web.openapi_headers import (
    ETAG,
    IDEMPOTENCY_KEY,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    REQUEST_ID,
    headers_of,
)
from app.web.pagination import QueryParams
from app.web.rate_limits import RateLimited
from app.web.strict_route import StrictRoute

T = TypeVar("T")
DESCRIPTION = """\
Users, posts and roles.

**Log in** with *Authorize* below, or `POST /api/v1/auth/login`, and send the token as
`Authorization: Bearer …`. **Lists** take `page` and `page_size`, or follow `next_cursor`.
**Errors** are [problem documents](/errors) with a stable `code`; their texts are English or
Spanish by `Accept-Language`.

**Retry** with an `Idempotency-Key`: a request that creates a resource, repeated from your account,
gets the first response again, with `Idempotency-Replayed: true`. Responses are kept for 24 hours;
refusals are not kept. **Change** a resource only if it is still as you read it: send its `ETag` as
`If-Match`, quotes included; 412 means that it was changed meanwhile. Without `If-Match` the last
write wins. A record can be sent back by `PATCH` as it was read: read-only members must have their
current value (422 `read_only`). **Read again** only what has changed: send the `ETag` of a read as
`If-None-Match`; 304, without a body, means that it is the same. `HEAD` is served wherever `GET` is.
"""
# What is said of a parameter's value beside that it is invalid.
_REFUSED_FOR = {idempotency.HEADER: IdempotencyKeyReused, "cursor": InvalidCursor}


def install(app: FastAPI, *, tags: list[dict[str, str]], permissions: Sequence[Permission]) -> None:
    """Make `app.openapi()` answer the completed document, built once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app, tags, permissions)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's docs have it


def _build(
    app: FastAPI, tags: list[dict[str, str]], permissions: Sequence[Permission]
) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=tags,
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
        name: i18n.text("en", "permissions", name) for name in permissions
    }
    _add_read_only_members(schemas, UpdateModel)
    _bound_passwords(schemas, MIN_LENGTH[app.state.settings.password_policy])
    _add_query_parameters(app, document)
    _add_limits(app, document)
    for operation, _ in _depending_on(app, document, idempotency.IdempotencyKeyDependency):
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path, method)
    _add_conditions(app, document)
    _lift_descriptions(schemas)
    # Only once the document is asked for: a server without docs needs no examples.
    from app.web import openapi_examples  # noqa: PLC0415

    openapi_examples.add(document)
    return document


def _add_read_only_members(schemas: dict[str, Any], model: type[UpdateModel]) -> None:
    """Document what a record that is sent back may hold beside what can be changed."""
    for changes in model.__subclasses__():
        shown = schemas[changes.record.__name__]["properties"]
        schemas[changes.__name__]["properties"] |= {
            name: declared | {"readOnly": True}
            for name, declared in shown.items()
            if name in changes.read_only()
        }
        _add_read_only_members(schemas, changes)


def _lift_descriptions(schemas: dict[str, Any]) -> None:
    """Describe a member that may be null by what describes its value."""
    for schema in schemas.values():
        for declared in schema.get("properties", {}).values():
            for choice in declared.get("anyOf", ()):
                if "description" in choice:
                    declared.setdefault("description", choice["description"])


def _bound_passwords(schemas: dict[str, Any], least: int) -> None:
    """Document how long a new password has to be by the policy that holds here."""
    for schema in schemas.values():
        for declared in schema.get("properties", {}).values():
            if declared.get("format") == "password" and "minLength" in declared:
                declared["minLength"] = least


def _add_query_parameters(app: FastAPI, document: dict[str, Any]) -> None:
    """Document what `web/pagination.py` parses, which FastAPI does not see."""
    for operation, params in _depending_on(app, document, QueryParams):
        schema = params.model.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= schema.pop("$defs", {})
        operation.setdefault("parameters", []).extend(_parameters(schema))


def _add_limits(app: FastAPI, document: dict[str, Any]) -> None:
    """Document 429 for every operation with a rate limit."""
    for operation, _ in _depending_on(app, document, RateLimited):
        for status, documented in error_responses(TooManyRequests).items():
            operation["responses"][str(status)] = documented


def _add_conditions(app: FastAPI, document: dict[str, Any]) -> None:
    """Document what reads make of `If-None-Match`. HEAD stays out: it is what GET is."""
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, StrictRoute) and route.methods == {"GET"}:
            operation = document["paths"][route.path]["get"]
            operation.setdefault("parameters", []).append(IF_NONE_MATCH)
            responses = operation["responses"]
            responses["200"]["headers"]["ETag"] = ETAG
            headers = {"X-Request-ID": REQUEST_ID, "ETag": ETAG}
            responses["304"] = NOT_MODIFIED | {"headers": headers}
            operation["responses"] = dict(sorted(responses.items()))


def _depending_on(
    app: FastAPI, document: dict[str, Any], kind: type[T]
) -> Iterator[tuple[dict[str, Any], T]]:
    """Yield operations with a dependency of this kind, direct or not, and the dependency."""
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
    # Anonymous first: documentation shows it as the default.
    operation["security"] = sorted(operation.get("security", []), key=bool)
    # The first line of the docstring is the summary, the rest the description.
    summary, _, operation["description"] = operation["description"].partition("\n\n")
    operation["summary"] = summary.removesuffix(".")
    operation["description"] += f"\n\nPermission: {_in_words(operation['security'], scopes)}."
    responses = operation["responses"]
    responses.pop("422", None)
    for status, documented in error_responses(*_errors(operation, path, method)).items():
        own = responses.setdefault(str(status), documented)
        if own is not documented:
            _merge(own, documented)
    for status, response in responses.items():
        response["headers"] = headers_of(operation, status, response)
    operation["responses"] = dict(sorted(responses.items()))


def _permissions(operation: dict[str, Any]) -> list[str]:
    """Return the permissions that the operation asks for; any one of them is enough."""
    return [
        name
        for entry in operation.get("security", [])
        for names in entry.values()
        for name in names
    ]


def _in_words(security: list[dict[str, Any]], scopes: list[str]) -> str:
    if scopes:
        return " or ".join(f"`{name}`" for name in scopes)
    if {} in security:
        return "none; a login shows more"
    return "any login" if security else "none"


def _errors(operation: dict[str, Any], path: str, method: str) -> Iterator[type[AppError]]:
    """Yield what an operation can answer beside what its route documents."""
    parameters = {entry["name"] for entry in operation.get("parameters", [])}
    security = operation["security"]
    if "requestBody" in operation:
        yield from (BadRequest, PayloadTooLarge)
    # Of the query, if of nothing else.
    if parameters or not path.startswith("/health"):
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
