"""Entity tags: which version of a resource an answer shows, and which one a change is meant for."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic_core import to_json

from app.core.exceptions import PreconditionFailed

_DESCRIPTION = (
    "The `ETag` of what is to be changed, exactly as received, quotes included: 412 if it has"
    " changed since. Without it the last writer wins."
)


def etag(version: int) -> str:
    """The entity tag of a row that counts its changes."""
    return f'"{version}"'


def etag_of(content: bytes) -> str:
    """The entity tag of what is shown of a resource: another one whenever anything in it is."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


async def _if_match(
    request: Request,
    _: Annotated[str | None, Header(alias="If-Match", description=_DESCRIPTION)] = None,
) -> str | None:
    lines = request.headers.getlist("if-match")
    return ", ".join(lines) if lines else None


# The header, or None without one.
IfMatch = Annotated[str | None, Depends(_if_match)]


def require_match(if_match: str | None, current: str) -> None:
    """RFC 9110 §13.1.1: any of the listed tags, or `*`. Weak tags match nothing, nor does what is
    no tag at all."""
    if if_match is None:
        return
    given = {tag.strip() for tag in if_match.split(",")}
    if not given & {"*", current}:
        raise PreconditionFailed


async def require_shown(
    if_match: str | None, show: Callable[[], Awaitable[Mapping[str, Any]]]
) -> None:
    """The same for a resource whose tag is made of what is shown of it."""
    if if_match is not None:
        require_match(if_match, etag_of(to_json(await show())))
