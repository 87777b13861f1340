"""Requests that create, each with a body that is new every time: what idempotency keys are for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support.client import PASSWORD, Client

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Creating:
    """An operation that creates."""

    path: str

    def body(self) -> dict[str, Any]:
        number = next(_numbers)
        bodies: dict[str, dict[str, Any]] = {
            "/auth/register": {
                "email": f"key{number}@example.com",
                "name": "Ana",
                "password": PASSWORD,
            },
            "/users": {"email": f"key{number}@example.com", "name": "Luis"},
            "/roles": {"name": f"key {number}", "permissions": ["users:read"]},
            "/posts": {"title": f"Key {number}", "content": "ñ 😀 \x01", "tags": ["a", "b"]},
        }
        return bodies[self.path]


CREATING = [Creating(path) for path in ("/auth/register", "/users", "/roles", "/posts")]
REPEATED = ("location", "etag", "content-type")


async def send(
    person: Client, path: str, body: dict[str, Any], key: str, **headers: str
) -> httpx2.Response:
    """The request, with a key."""
    return await person.post(path, body, headers={"Idempotency-Key": key} | headers)


def is_replay(response: httpx2.Response) -> bool:
    return "idempotency-replayed" in response.headers


def told(response: httpx2.Response) -> tuple[Any, ...]:
    """All that a replay repeats."""
    return (
        response.status_code,
        response.content,
        *[response.headers.get(name) for name in REPEATED],
    )
