"""What a 422 says."""

from __future__ import annotations

import httpx2


def refused(response: httpx2.Response) -> list[tuple[str, str]]:
    """The fields of a 422, and what is wrong with each."""
    assert response.status_code == 422, response.text
    return [(error["field"], error["type"]) for error in response.json()["errors"]]
