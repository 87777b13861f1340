"""Access tokens: a valid one authenticates, every forged or expired one is refused."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import httpx2
from sqlalchemy import update

from app.core.keyring import key_id
from app.models.base import utc_now
from app.models.sessions import LoginSession
from tests.conftest import SECRET
from tests.support.apps import client_of
from tests.support.client import API, Client
from tests.support.forger import Forger
from tests.support.forgeries import flood
from tests.support.tokens import claims, decoded, forgeries, signed

ME = f"{API}/users/me"


async def test_a_token_made_by_the_rules_opens(client: Client) -> None:
    """The counterpart of the forgeries below: what they change is why they are refused."""
    ana = await client.user()
    token = signed(claims(ana.id, int(decoded(ana.token)["sid"])))
    response = await client.get(ME, headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200


async def test_forged_tokens_are_all_refused_alike(client: Client) -> None:
    """A27, A28: one status, one body, one challenge, whatever is wrong with the token."""
    ana, luis = await client.user(), await client.user("Luis")
    session_id, other_session = [int(decoded(who.token)["sid"]) for who in (ana, luis)]
    forged = forgeries(ana.id, session_id, other_id=luis.id, other_session=other_session)
    answers = {}
    for defect, token in forged.items():
        value = token if isinstance(token, bytes) else b"Bearer " + token.encode("latin-1")
        headers = {"Authorization": value, "X-Request-ID": "always-the-same"}
        response = await client.get(ME, headers=headers)
        challenge = response.headers.get("www-authenticate")
        answers[defect] = (response.status_code, challenge, response.content)
    expected = answers["empty"]
    assert {defect for defect, answer in answers.items() if answer != expected} == set()
    assert expected[:2] == (401, 'Bearer error="invalid_token"')
    assert b'"code":"invalid_token"' in expected[2]
    assert len(forged) >= 40


async def test_a_flood_of_forgeries_is_refused_alike_and_at_once(
    client: Client, tmp_path: Path
) -> None:
    """A27: over 1,500 of them, by an app that knows secrets and key pairs; one status, one body,
    one challenge, none slower than a good token should be."""
    settings = {"token_algorithm": "ES256", "secret_key_fallbacks": ["an-older-secret-" * 3]}
    async with client_of(client, tmp_path, **settings) as es256:
        ana = await es256.user()
        (pair,) = es256.app.state.settings.key_pairs
        session_id = int(decoded(ana.token)["sid"])
        forger = Forger(ana.id, session_id, key_id(SECRET), pair)
        for kind, good in forger.good().items():
            opened = await es256.http.get(ME, headers=bearer(good))
            assert opened.status_code == 200, kind
        forged, wrong = flood(forger), {}
        expected = await es256.http.get(ME, headers=bearer("nonsense"))
        es256.contract.check(expected)
        started = time.perf_counter()
        for name, token in forged.items():
            response = await es256.http.get(ME, headers=bearer(token))
            if answer(response) != answer(expected):
                wrong[name] = response.status_code
        seconds = time.perf_counter() - started
    assert wrong == {}
    assert answer(expected)[:2] == (401, 'Bearer error="invalid_token"')
    assert len(forged) >= 1_500
    assert seconds / len(forged) < 0.05


def bearer(token: str | bytes) -> list[tuple[bytes, bytes]]:
    raw = token.encode() if isinstance(token, str) else token
    return [(b"Authorization", b"Bearer " + raw), (b"X-Request-ID", b"always-the-same")]


def answer(response: httpx2.Response) -> tuple[int, str | None, bytes]:
    return response.status_code, response.headers.get("www-authenticate"), response.content


async def test_no_credentials_are_told_from_bad_ones(client: Client) -> None:
    """A28: without a header there is nothing wrong with the token."""
    for headers in ({}, {"Authorization": "Basic YW5hOnB3"}):
        response = await client.get(ME, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["code"] == "not_authenticated"


async def test_bad_credentials_are_refused_where_none_are_needed(client: Client) -> None:
    response = await client.get("/posts", headers={"Authorization": "Bearer nonsense"})
    assert response.status_code == 401
    assert response.json()["code"] == "invalid_token"
    assert (await client.get("/posts")).status_code == 200


async def test_two_authorization_headers_are_refused(client: Client) -> None:
    """A28: which of the two was meant is not for us to guess."""
    ana = await client.user()
    header = ("Authorization", f"Bearer {ana.token}")
    once = await client.http.get(ME, headers=[header])
    twice = await client.http.get(ME, headers=[header, header])
    assert (once.status_code, twice.status_code) == (200, 401)
    client.contract.check(twice)


async def test_a_token_in_the_query_counts_for_nothing(client: Client) -> None:
    """A52: an address ends up in logs and histories; no token belongs there."""
    ana = await client.user()
    for name in ("access_token", "token"):
        response = await client.get(ME, params={name: ana.token})
        assert response.status_code == 401


async def test_a_session_that_has_expired_is_over(client: Client) -> None:
    ana = await client.user()
    async with client.database.begin() as session:
        past = utc_now() - timedelta(seconds=1)
        await session.execute(update(LoginSession).values(expires_at=past))
    assert (await ana.get("/users/me")).status_code == 401
