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
    def with_etag(
        cls,
        representation: Mapping[str, Any],
        headers: dict[str, str] | None = None,
        status_code: int = 200,
        version: int | None = None,
    ) -> FastJSONResponse:
        """Return the response with this representation of a resource, and its ETag, which begins
        with `version` if there is one."""
        response = cls(representation, headers, status_code)
        tag = etag_of(bytes(response.body), version)
        response.raw_headers.append((b"etag", tag.encode()))
        return response


def created_response(
    representation: dict[str, Any], *, at: str, version: int | None = None
) -> FastJSONResponse:
    """Return the response for a new row: its representation, where it is, and its ETag."""
    return FastJSONResponse.with_etag(
        representation, {"Location": at}, status_code=201, version=version
    )
