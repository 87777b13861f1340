"""The requests that create something, which accept an Idempotency-Key; every body is new."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest

from tests.contract.entries.base import Entry
from tests.contract.resources import ENTRIES
from tests.support.client import Client, Person

_numbers = itertools.count(1)


@dataclass(frozen=True)
class CreateRequest:
    """An operation that creates; `is_unique` says that the same cannot be created twice."""

    path: str
    make: Callable[[int], dict[str, Any]] = field(compare=False)
    is_unique: bool
    references: Callable[[Person], Awaitable[dict[str, int]]] = field(compare=False)

    def body(self) -> dict[str, Any]:
        return self.make(next(_numbers))

    async def pointing(self, admin: Person) -> CreateRequest:
        """Return the request with rows for its path and its body to point to."""
        path, members = Entry.at(self.path, await self.references(admin))
        return replace(self, path=path, make=lambda number: self.make(number) | members)


CREATE_REQUESTS = [
    CreateRequest(path, make, entry.is_unique, entry.references)
    for entry in ENTRIES
    for path, make in entry.bodies.items()
]
REPEATED = ("location", "etag", "content-type")
# Handed on by the fixture `create_request`, with the rows that it points to.
each_create_request = pytest.mark.parametrize(
    "create_request", CREATE_REQUESTS, ids=lambda each: each.path, indirect=True
)
each_behind_a_login = pytest.mark.parametrize(
    "create_request", CREATE_REQUESTS[1:], ids=lambda each: each.path, indirect=True
)


async def send(
    person: Client, path: str, body: dict[str, Any], key: str, **headers: str
) -> httpx2.Response:
    """Send the request with an Idempotency-Key."""
    return await person.post(path, body, headers={"Idempotency-Key": key} | headers)


def is_replay(response: httpx2.Response) -> bool:
    return "idempotency-replayed" in response.headers


def replayed(response: httpx2.Response) -> tuple[Any, ...]:
    """Return what a replayed response repeats of the first one."""
    return (
        response.status_code,
        response.content,
        *[response.headers.get(name) for name in REPEATED],
    )
