"""What listings take from the query string, and how they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from app.crud.pages import PageOf
from app.routers.etags import etag_of
from app.schemas.pages import PageQuery

T = TypeVar("T", bound=PageQuery)
R = TypeVar("R")
_REMEMBERED, _MAX_REMEMBERED_BYTES = 1024, 300


def _remembering(read: Callable[[bytes], R]) -> Callable[[bytes], R]:
    """Frontends send the same few query strings over and over: what is read from one is kept,
    unless it is long, so that nobody fills the memory with them."""
    remembered = lru_cache(_REMEMBERED)(read)
    return lambda raw: (remembered if len(raw) <= _MAX_REMEMBERED_BYTES else read)(raw)


class Json(Response):
    """JSON straight from values that are ready for it; the read path's answers."""

    media_type = "application/json"

    def __init__(
        self, content: Any, headers: dict[str, str] | None = None, status_code: int = 200
    ) -> None:
        super().__init__(to_json(content), status_code=status_code, headers=headers)

    @classmethod
    def tagged(
        cls,
        shown: Mapping[str, Any] | BaseModel,
        headers: dict[str, str] | None = None,
        status_code: int = 200,
        version: int | None = None,
    ) -> Json:
        """Return the response that shows a resource, with the entity tag of what it shows, and of
        its version if it counts them."""
        response = cls(shown, headers, status_code)
        tag = etag_of(bytes(response.body), version)
        response.raw_headers.append((b"etag", tag.encode()))
        return response


class Parsed(Generic[T]):
    """A dependency that parses the query string into a model, the same one only once.

    FastAPI's own way costs more than all the rest of a listing. `app/openapi.py` documents the
    parameters. Stands behind the gate in a signature: whoever may not ask is not told what is
    wrong with the question.
    """

    def __init__(self, model: type[T]) -> None:
        self.model = model
        self._read = _remembering(self._parse)

    async def __call__(self, request: Request) -> T:
        try:
            return self._read(request.scope["query_string"])
        except ValidationError as error:
            defects: list[Any] = [
                entry | {"loc": ("query", *entry["loc"])}
                for entry in error.errors(include_url=False, include_input=False)
            ]
            raise RequestValidationError(defects) from None

    def _parse(self, raw: bytes) -> T:
        return self.model.model_validate(dict(_pairs(raw)))


def parsed(model: type[PageQuery]) -> Any:
    """For an `Annotated` alias: the query string as this model."""
    return Depends(Parsed(model))


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    return parse_qsl(raw.decode("latin-1"), keep_blank_values=True)


def listed(request: Request, page: PageOf[Any]) -> Json:
    """The response of a listing: its page, with RFC 8288 links and the total.

    The links are paths: the Host header is the client's word, not ours.
    """
    scope = request.scope
    path = quote(scope["path"])
    rest = _without_position(scope["query_string"])
    positions = _positions(page)
    links = [f'<{path}?{rest}{where}>; rel="{relation}"' for relation, where in positions]
    headers = {"Link": ", ".join(links)}
    if page.total is not None:
        headers["X-Total-Count"] = str(page.total)
    return Json(vars(page), headers)


def _positions(page: PageOf[Any]) -> list[tuple[str, str]]:
    found = [("first", "page=1")]
    if page.page is not None and page.total_pages is not None:
        if page.has_prev:
            found.append(("prev", f"page={page.page - 1}"))
        if page.has_next:
            found.append(("next", f"page={page.page + 1}"))
        if page.total_is_exact:
            found.append(("last", f"page={max(page.total_pages, 1)}"))
    elif page.next_cursor:
        found.append(("next", urlencode({"cursor": page.next_cursor})))
    return found


@_remembering
def _without_position(raw: bytes) -> str:
    rest = urlencode([pair for pair in _pairs(raw) if pair[0] not in {"page", "cursor"}])
    return f"{rest}&" if rest else ""
