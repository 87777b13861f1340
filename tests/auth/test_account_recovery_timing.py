"""A request for a reset link takes as long for unknown addresses as for known ones."""

from __future__ import annotations

from itertools import cycle

import httpx2
import pytest

from tests.support import timing
from tests.support.client import Client

pytestmark = pytest.mark.long


async def test_how_long_it_takes_does_not_tell_who_has_an_account(client: Client) -> None:
    """A30: 200 and 200 requests, interleaved; several at once, as each waits for its beat."""
    known = cycle([(await client.register())["email"] for _ in range(10)])
    unknown = cycle([f"nobody{number}@example.com" for number in range(10)])

    async def forget(email: str) -> httpx2.Response:
        return await client.post("/auth/password/forgot", {"email": email})

    attempts: dict[str, timing.Attempt] = {
        "known": lambda: forget(next(known)),
        "unknown": lambda: forget(next(unknown)),
    }
    await timing.latencies(attempts, 5)
    took = await timing.latencies(attempts, 200, at_once=10)
    assert 0.40 <= timing.auc(took["known"], took["unknown"]) <= 0.60
