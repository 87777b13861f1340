"""The routes of the API: reads are conditional, and request bodies are JSON in UTF-8 without a
byte-order mark, and no member or field twice.

What a parser makes of a member that comes twice differs (the first, the last, both): what a proxy
has checked and what is written could be two values.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from app.core.exceptions import FieldError, Invalid
from app.routers.etags import conditional

_TWICE = "duplicate"


def loads(body: bytes) -> Any:
    """Return what a JSON document says. Raise Invalid for a member that comes twice, anywhere in
    it; ValueError or RecursionError for what is no JSON, a byte-order mark included."""
    return _DECODER.decode(body.decode())


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise Invalid([FieldError(name, _TWICE) for name in _repeated(name for name, _ in members)])
    return found


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


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
        if repeated := _repeated(names):
            await found.close()
            raise Invalid([FieldError(name, _TWICE) for name in repeated])
        return found


class StrictRoute(APIRoute):
    """A route that reads its body strictly, and answers conditional GETs; `route_class` of every
    router of the API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request of this route."""
        handle = super().get_route_handler()
        if self.methods == {"GET"}:
            return conditional(handle)
        if self.body_field is None:
            return handle
        model = self.body_field.field_info.annotation
        fields = frozenset(getattr(model, "model_fields", ()))

        async def handle_strictly(request: Request) -> Response:
            # In its place: another object costs more than to read a small body does.
            request.__class__ = _Request
            request.fields = fields  # type: ignore[attr-defined]  # of this class now
            return await handle(request)

        return handle_strictly
