"""Responses of values that are ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from app.web.etags import etag_of


class FastJSONResponse(Response):
    """JSON straight from values that are ready for it; the read path's answers."""

    media_type = "application/json"

    def __init__(
        self, content: Any, headers: dict[str, str] | None = None, status_code: int = 200
    ) -> None:
        super().__init__(to_json(content), status_code=status_code, headers=headers)

    @classmethod
    def tagged(
        cls,
        shown: Mapping[str, Any],
        headers: dict[str, str] | None = None,
        status_code: int = 200,
        version: int | None = None,
    ) -> FastJSONResponse:
        """Return the response that shows a resource, with the entity tag of what it shows, and of
        its version if it counts them."""
        response = cls(shown, headers, status_code)
        tag = etag_of(bytes(response.body), version)
        response.raw_headers.append((b"etag", tag.encode()))
        return response


def created_response(
    shown: dict[str, Any], *, at: str, version: int | None = None
) -> FastJSONResponse:
    """Return the response for a new row: what is shown of it, where it is, and its entity tag."""
    return FastJSONResponse.tagged(shown, {"Location": at}, status_code=201, version=version)
