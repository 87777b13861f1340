"""What listings take from the query string, and how they answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.core.exceptions import FieldError, Invalid
from app.db.pagination import PageResult
from app.schemas.pages import PageQuery
from app.web.responses import FastJSONResponse

T = TypeVar("T", bound=PageQuery)
R = TypeVar("R")
TWICE = "duplicate"
_MAX_CACHED, _MAX_CACHED_BYTES = 1024, 300


def _caching(read: Callable[[bytes], R]) -> Callable[[bytes], R]:
    """Cache what is read from a query string: frontends send the same few over and over. Long ones
    are not cached, so that no client fills the memory with them."""
    cached = lru_cache(_MAX_CACHED)(read)
    return lambda raw: (cached if len(raw) <= _MAX_CACHED_BYTES else read)(raw)


class QueryParams(Generic[T]):
    """A dependency that parses the query string into a model, the same one only once.

    FastAPI's own way costs more than all the rest of a listing. `app/web/openapi.py` documents the
    parameters. Put it behind the caller in a signature: a caller who may not ask does not learn
    what is wrong with the query.
    """

    def __init__(self, model: type[T]) -> None:
        self.model = model
        self._read = _caching(self._parse)

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
        pairs = pairs_of(raw)
        if twice := repeated(name for name, _ in pairs):
            raise Invalid([FieldError(name, TWICE) for name in twice])
        return self.model.model_validate(dict(pairs))


def query_params(model: type[PageQuery]) -> Any:
    """Return the dependency that parses the query string into a model."""
    return Depends(QueryParams(model))


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that come more than once: what two readers would make of them differs."""
    return [name for name, times in Counter(names).items() if times > 1]


def pairs_of(raw: bytes) -> list[tuple[str, str]]:
    """Return the names and values of a query string, in its order."""
    return parse_qsl(raw.decode("latin-1"), keep_blank_values=True)


def page_response(request: Request, page: PageResult[Any]) -> FastJSONResponse:
    """Return the response of a listing: its page, with RFC 8288 links and the total.

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
    return FastJSONResponse(vars(page), headers)


def _positions(page: PageResult[Any]) -> list[tuple[str, str]]:
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


@_caching
def _without_position(raw: bytes) -> str:
    rest = urlencode([pair for pair in pairs_of(raw) if pair[0] not in {"page", "cursor"}])
    return f"{rest}&" if rest else ""
