"""What all errors have in common."""

from __future__ import annotations

from typing import Any

import httpx2

from app.core import i18n
from app.web.problems import TOKEN_ENDPOINTS

MEMBERS = {"type", "title", "status", "detail", "code", "instance", "request_id"}


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error, after a look at everything all of them have in common."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    members = MEMBERS | ({"errors"} if status == 422 else set())
    if response.request.url.path in TOKEN_ENDPOINTS:
        members |= {"error", "error_description"}
    assert set(body) == members
    assert body["status"] == status
    assert body["type"] == f"/errors/{code}"
    assert body["instance"] == response.request.url.path
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["title"] == i18n.text("en", "errors", code, "title")
    return body
