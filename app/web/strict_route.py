"""The routes of the API: reads are conditional, a query holds only what the operation takes, and
request bodies are JSON in UTF-8 without a byte-order mark, and no member or field twice.

What a parser makes of a member that comes twice differs (the first, the last, both): what a proxy
has checked and what is written could be two values.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, get_origin

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from app.core.exceptions import FieldError, Invalid
from app.web.etags import conditional
from app.web.pagination import TWICE, QueryParams, pairs_of, repeated
from app.web.refusals import deferring_refusals, raises_deferred

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def loads(body: bytes) -> Any:
    """Return what a JSON document says. Raise Invalid for a member that comes twice, anywhere in
    it; ValueError or RecursionError for what is no JSON, a byte-order mark included."""
    return _DECODER.decode(body.decode())


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise Invalid([FieldError(name, TWICE) for name in repeated(name for name, _ in members)])
    return found


# One for all: `json.loads` makes a new one each time it is given a hook.
_DECODER = json.JSONDecoder(object_pairs_hook=_object)


class _Request(Request):
    """Reads bodies strictly; `fields` are those that a form may hold once."""

    fields: frozenset[str] = frozenset()

    async def json(self) -> Any:
        return loads(await self.body())

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]  # only awaited
        found = await super().form(**limits)
        names = [name for name, _ in found.multi_items() if name in self.fields]
        if twice := repeated(names):
            await found.close()
            raise Invalid([FieldError(name, TWICE) for name in twice])
        return found


class StrictRoute(APIRoute):
    """A route that reads its query and its body strictly, and answers conditional GETs;
    `route_class` of every router of the API."""

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Any]], **options: Any) -> None:
        super().__init__(path, raises_deferred(endpoint), **options)

    def get_route_handler(self) -> _Handler:
        """Return what handles a request of this route."""
        handle = super().get_route_handler()
        known = _query_of(self.dependant)
        if self.methods == {"GET"}:
            return conditional(handle if known is None else _knowing(handle, known))
        model = self.body_field.field_info.annotation if self.body_field else None
        fields = frozenset(getattr(model, "model_fields", ()))

        async def handle_strictly(request: Request) -> Response:
            # In its place: another object costs more than to read a small body does.
            request.__class__ = _Request
            request.fields = fields  # type: ignore[attr-defined]  # of this class now
            with deferring_refusals(*_unknown(request, known or {})):
                return await handle(request)

        return handle_strictly


def _knowing(handle: _Handler, known: Mapping[str, bool]) -> _Handler:
    async def handle_known(request: Request) -> Response:
        if not request.scope["query_string"]:
            return await handle(request)
        with deferring_refusals(*_unknown(request, known)):
            return await handle(request)

    return handle_known


def _query_of(dependant: Dependant) -> dict[str, bool] | None:
    """Return what an operation takes from the query, by name, and whether it comes once; None if
    it parses that itself."""
    parts = list(_parts(dependant))
    if any(isinstance(part.call, QueryParams) for part in parts):
        return None
    fields = [field for part in parts for field in part.query_params]
    return {field.alias: get_origin(field.field_info.annotation) is not list for field in fields}


def _parts(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for dependency in dependant.dependencies:
        yield from _parts(dependency)


def _unknown(request: Request, known: Mapping[str, bool]) -> Iterator[Exception]:
    """Yield the refusals of what the query holds that the operation does not take, or once."""
    pairs = pairs_of(request.scope["query_string"])
    if twice := repeated(name for name, _ in pairs if known.get(name)):
        yield Invalid([FieldError(name, TWICE) for name in twice])
    names = dict(pairs).keys() - known.keys()
    if names:
        yield RequestValidationError(
            [{"type": "extra_forbidden", "loc": ("query", name)} for name in sorted(names)]
        )
