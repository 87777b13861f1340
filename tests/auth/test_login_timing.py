"""A refused login takes equally long whether or not the account exists."""

from __future__ import annotations

from functools import partial
from itertools import cycle

import httpx2
import pytest

from tests.support import timing
from tests.support.client import Client

pytestmark = pytest.mark.long

NUMBER = 200
_VARYING = ("instance", "request_id")


async def test_a_refused_login_does_not_tell_who_has_an_account(client: Client) -> None:
    """A30: 200 of each kind, interleaved: the same status and body, and times that tell nothing.

    The hashes are cheap here: what else differs shows all the more.
    """
    admin = await client.admin()
    addresses: dict[str, list[str]] = {"known": [], "disabled": [], "deleted": [], "empty": []}
    for kind, emails in addresses.items():
        for _ in range(5):
            account = await client.register()
            emails.append(account["email"])
            if kind == "disabled":
                await admin.patch(f"/users/{account['id']}", {"is_active": False})
            if kind == "deleted":
                await admin.delete(f"/users/{account['id']}")
    addresses["unknown"] = [f"nobody{number}@example.com" for number in range(5)]
    answers: list[httpx2.Response] = []

    async def attempt(emails: cycle[str], password: str) -> None:
        form = {"username": next(emails), "password": password}
        answers.append(await client.request("POST", "/auth/login", data=form))

    attempts: dict[str, timing.Attempt] = {
        kind: partial(attempt, cycle(emails), "" if kind == "empty" else "Wrong-Horse-7")
        for kind, emails in addresses.items()
    }
    await timing.latencies(attempts, 5)
    took = await timing.latencies(attempts, NUMBER)
    assert {answer.status_code for answer in answers} == {401}
    bodies = [answer.json() for answer in answers]
    assert len({str({k: v for k, v in body.items() if k not in _VARYING}) for body in bodies}) == 1
    for kind in addresses.keys() - {"known"}:
        assert 0.40 <= timing.auc(took["known"], took[kind]) <= 0.60, kind
