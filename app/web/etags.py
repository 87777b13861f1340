"""Entity tags: what an answer shows, and which version of a resource a change is meant for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic_core import to_json
from starlette.responses import Response

from app.core.exceptions import PreconditionFailed
from app.web.refusals import raise_or_defer

_DESCRIPTION = (
    "The `ETag` of what is to be changed, exactly as received, quotes included: 412 if it has"
    " changed since. Without it the last writer wins."
)
_SHOWN_WITH = re.compile(r'(?:W/)?("[0-9]+)(?:-[0-9a-f]{32})?"')


def etag_of(content: bytes, version: int | None = None) -> str:
    """Return the entity tag of what is shown: another one whenever anything in it is.

    Of a resource that counts its changes it begins with the version: `"7-…"`.
    """
    shown = hashlib.sha256(content).hexdigest()[:32]
    return f'"{shown}"' if version is None else f'"{version}-{shown}"'


# --- If-Match: is it still what was read? ----------------------------------------------------


async def _if_match(
    request: Request,
    _: Annotated[str | None, Header(alias="If-Match", description=_DESCRIPTION)] = None,
) -> str | None:
    return _list_of(request, "if-match")


# The header, or None without one.
IfMatch = Annotated[str | None, Depends(_if_match)]


def _require_match(if_match: str, current: str) -> None:
    """Raise or defer PreconditionFailed unless the header has the tag or `*` (RFC 9110 §13.1.1)."""
    header_values = {tag.strip() for tag in if_match.split(",")}
    if not header_values & {"*", current}:
        raise_or_defer(PreconditionFailed())


def require_version(if_match: str | None, version: int) -> None:
    """Raise PreconditionFailed (deferred, see refusals.py) unless `If-Match` is absent or names the
    version of a resource that counts its changes.

    `"7"` names version 7 as well as any `"7-…"` does, and `W/"7-…"`, which a proxy that compresses
    makes of it: a version is the same, whatever was shown beside it and however it was encoded.
    """
    if if_match is not None:
        _require_match(_SHOWN_WITH.sub(r'\1"', if_match), f'"{version}"')


async def require_etag(
    if_match: str | None, show: Callable[[], Awaitable[Mapping[str, Any]]]
) -> None:
    """Raise PreconditionFailed (deferred, see refusals.py) unless `If-Match` is absent or names the
    ETag of the current representation, which `show` returns. For resources without a version.

    A weak tag matches nothing.
    """
    if if_match is not None:
        _require_match(if_match, etag_of(to_json(await show())))


def _list_of(request: Request, name: str) -> str | None:
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None


# --- If-None-Match: is it what the caller has? -----------------------------------------------

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]
# Who asks without credentials sees what everybody sees: caches may keep it, and ask each time
# whether it is still so. Everything else keeps the `no-store` of `RequestContextMiddleware`.
_PUBLIC = ((b"cache-control", b"no-cache"), (b"vary", b"Authorization"))
# RFC 9110 §15.4.5; the rest describes a body that is not sent.
_OF_NOT_MODIFIED = frozenset({b"etag", b"cache-control", b"vary"})


def conditional(handle: _Handler) -> _Handler:
    """Wrap the handler of a GET: its answer gets an entity tag, that of its body unless it has one,
    and is 304 for a caller who has it already.

    The handler runs first, with its checks: a tag opens nothing, and errors stay errors.
    """

    async def answer(request: Request) -> Response:
        response = await handle(request)
        if response.status_code != HTTPStatus.OK:
            return response
        headers, request_headers = response.raw_headers, dict(request.scope["headers"])
        shown = dict(headers)
        tag = shown.get(b"etag") or etag_of(bytes(response.body)).encode()
        if b"etag" not in shown:
            headers.append((b"etag", tag))
        if b"authorization" not in request_headers and b"cache-control" not in shown:
            headers.extend(_PUBLIC)
        if b"if-none-match" in request_headers and _is_known(request, tag.decode()):
            return _not_modified(response)
        return response

    return answer


def _is_known(request: Request, tag: str) -> bool:
    """Return whether the header has the tag, weak or not, or `*` (RFC 9110 §13.1.2)."""
    header_value = _list_of(request, "if-none-match") or ""
    return any(each.strip() in {"*", tag, f"W/{tag}"} for each in header_value.split(","))


def _not_modified(response: Response) -> Response:
    answer = Response(status_code=HTTPStatus.NOT_MODIFIED, background=response.background)
    answer.raw_headers.extend(each for each in response.raw_headers if each[0] in _OF_NOT_MODIFIED)
    return answer
