"""What the OpenAPI document says of headers: of requests, and of responses by their status."""

from __future__ import annotations

from typing import Any

from app.crud.idempotency_keys import REPLAYED
from app.web import idempotency

_TEXT = {"type": "string"}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of an earlier answer, or several: 304 if this one is the same.",
    "schema": _TEXT,
}
ETAG = {
    "description": "Changes whenever the body does. Send it as `If-None-Match` on reads, and as"
    " `If-Match` on changes.",
    "schema": _TEXT,
}
NOT_MODIFIED: dict[str, Any] = {
    "description": "Not modified: the answer with this `ETag` is still current.",
}

LIMIT_HEADERS = {
    "RateLimit": {
        "description": "The closest limit: `r` tries are left for `t` seconds.",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "That limit: `q` tries in `w` seconds.",
        "schema": {"type": "string"},
    },
}
REQUEST_ID = {
    "description": "Identifies the request in the logs; yours, if you sent one.",
    "schema": {"type": "string"},
}
IDEMPOTENCY_KEY = {
    "name": idempotency.HEADER,
    "in": "header",
    "required": False,
    "description": "A random value, new for each record that you create. The same request with the"
    " same value, sent again within 24 hours, gets the first answer again, and nothing is created"
    " twice.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": idempotency.MAX_KEY,
        "pattern": "^[!-~]+$",
    },
}
_REPLAYED = {
    "description": "`true` on a stored answer: the request was not carried out again.",
    "schema": {"type": "string", "const": "true"},
}
# Operations that create or change a resource answer with the resource.
_SHOW_WHAT_CHANGED = {idempotency.HEADER, "If-Match"}
_LOCATION = {"description": "Path of the new record.", "schema": {"type": "string"}}
_AUTHENTICATE = {
    "description": "`Bearer`, with the `error` of RFC 6750 if a token was sent.",
    "schema": {"type": "string"},
}
_LIST_HEADERS = {
    "Link": {
        "description": "`first`, `prev`, `next`, `last` (RFC 8288).",
        "schema": {"type": "string"},
    },
    "X-Total-Count": {
        "description": "How many items there are; not with a cursor.",
        "schema": {"type": "integer"},
    },
}


def headers_of(operation: dict[str, Any], status: str, response: dict[str, Any]) -> dict[str, Any]:
    """Return the headers of a response of an operation."""
    headers: dict[str, Any] = {"X-Request-ID": REQUEST_ID}
    names = {entry["name"] for entry in operation.get("parameters", [])}
    if status == "201":
        headers["Location"] = _LOCATION
    if names & _SHOW_WHAT_CHANGED and status < "300" and "content" in response:
        headers["ETag"] = ETAG
    if status == "201" and idempotency.HEADER in names:
        headers[REPLAYED] = _REPLAYED
    if status == "200" and "cursor" in names:
        headers |= _LIST_HEADERS
    if status in {"401", "403"}:
        headers["WWW-Authenticate"] = _AUTHENTICATE
    if "429" in operation["responses"] and status < "500":
        headers |= LIMIT_HEADERS
    if status in {"429", "503"}:
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    return headers
