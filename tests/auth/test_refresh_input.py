"""Input of the refresh endpoints: JSON, OAuth2 forms, and malformed requests."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from authlib.integrations.requests_client import OAuth2Session

from tests.support import faults
from tests.support.client import API, PASSWORD, Client
from tests.support.faults import serve
from tests.support.refreshing import (
    attempt,
    opens,
    refused,
    renewed,
    the_session,
)

pytestmark = pytest.mark.long

LOGIN = f"{API}/auth/login"
HOSTILE = (
    "",
    " ",
    "-",
    "unknown",
    "A" * 43,
    "A" * 128,
    "A" * 129,
    "A" * 100_000,
    "é" * 43,
    "\N{FULLWIDTH LATIN SMALL LETTER A}" * 43,
    "\0",
    "A\0B",
    "\ud800",
    "\udfff" * 43,
    "😀",
    "\r\nSet-Cookie: a=b",
    "' OR 1=1 --",
    "eyJhbGciOiJub25lIn0.e30.",
)


async def test_whatever_is_no_token_is_refused_alike(client: Client) -> None:
    """A36: unknown, endless, not ASCII, NUL, half a pair, and tokens that were cut or marked."""
    login = await client.log_in((await client.register())["email"])
    good = login["refresh_token"]
    before = await faults.dump(client.database)
    answers = set()
    for token in (*HOSTILE, good[:-1], f"{good}A", f" {good}", f"{good}\n", login["access_token"]):
        # As escapes: the JSON of a lone surrogate is legal, its UTF-8 is not.
        body = json.dumps({"refresh_token": token})
        headers = {"Content-Type": "application/json", "X-Request-ID": "always-the-same"}
        response = await client.request("POST", "/auth/refresh", content=body, headers=headers)
        answers.add((response.status_code, response.content, str(sorted(response.headers.items()))))
    ended = await client.log_in((await client.register())["email"])
    bearer = {"Authorization": f"Bearer {ended['access_token']}"}
    assert (await client.post("/auth/logout", headers=bearer)).status_code == 204
    response = await attempt(client, ended["refresh_token"])
    answers.add((response.status_code, response.content, str(sorted(response.headers.items()))))
    ((status, content, shown),) = answers
    assert (status, json.loads(content)["code"]) == (401, "invalid_refresh_token")
    assert 'Bearer error="invalid_token"' in shown
    after = await faults.dump(client.database)
    kept = before["refresh_tokens"]
    assert [row for row in after["refresh_tokens"] if row in kept] == kept
    await renewed(client, good)


@pytest.mark.parametrize("wrong", [None, 1, True, ["a"], {"a": "b"}])
async def test_a_token_is_a_text(client: Client, wrong: Any) -> None:
    response = await client.post("/auth/refresh", {"refresh_token": wrong})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "refresh_token"
    assert (await client.post("/auth/refresh", {})).status_code == 422
    form = {"refresh_token": "unknown"}
    assert (await client.request("POST", "/auth/refresh", data=form)).status_code == 422


# --- OAuth2 clients ------------------------------------------------------------------------------


async def test_the_token_endpoint_refreshes_too(client: Client) -> None:
    """RFC 6749 §6: a form with its own grant type; the same tokens by either way."""
    login = await client.log_in((await client.register())["email"])
    form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}
    extra = {"scope": "", "client_id": "app", "nonstandard": "passed over"}
    response = await client.request("POST", "/auth/login", data=form | extra)
    assert response.status_code == 200
    assert await opens(client, response.json())
    again = await renewed(client, login["refresh_token"])
    assert again["refresh_token"] == response.json()["refresh_token"]
    await the_session(client)


async def test_each_grant_needs_its_own_fields(client: Client) -> None:
    account = await client.register()
    password = {"username": account["email"], "password": PASSWORD}
    login = await client.log_in(account["email"])
    for form, missing in (
        ({"grant_type": "refresh_token"}, "refresh_token"),
        ({"grant_type": "refresh_token", "refresh_token": ""}, "refresh_token"),
        ({"grant_type": "refresh_token"} | password, "refresh_token"),
        ({"refresh_token": login["refresh_token"]}, "username"),
        ({"grant_type": "password", "username": "", "password": PASSWORD}, "username"),
    ):
        response = await client.request("POST", "/auth/login", data=form)
        assert response.status_code == 422, form
        found = [(entry["field"], entry["type"]) for entry in response.json()["errors"]]
        assert found == [(missing, "missing")]
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for token in HOSTILE[1:]:
        encoded = token.encode("utf-8", "surrogatepass")
        content = urlencode({"grant_type": "refresh_token", "refresh_token": encoded})
        response = await client.request("POST", "/auth/login", content=content, headers=headers)
        assert response.status_code in {400, 401}, token[:10]
    both = password | {"grant_type": "password", "refresh_token": "unknown"}
    assert (await client.request("POST", "/auth/login", data=both)).status_code == 200


async def test_a_stock_oauth2_client_logs_in_and_refreshes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Authlib, as its manual has it: the password grant, a refresh, and one it makes by itself."""
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    account = await client.register()
    async with serve(client.app) as base_url:
        tokens = await asyncio.to_thread(_play, base_url, account["email"])
    assert len(set(tokens)) == 3
    await renewed(client, tokens[-1])
    assert (await the_session(client)).user_agent.startswith("python-requests")


def _play(base_url: str, email: str) -> list[str]:
    """The refresh tokens that the client was given, in their order."""
    given = []

    def keep(token: dict[str, Any], **_: Any) -> None:
        given.append(token["refresh_token"])

    with OAuth2Session(
        "app",
        token_endpoint=f"{base_url}{LOGIN}",
        token_endpoint_auth_method="none",
        update_token=keep,
    ) as session:
        session.trust_env = False
        keep(session.fetch_token(username=email, password=PASSWORD))
        assert session.get(f"{base_url}{API}/users/me").json()["email"] == email
        session.refresh_token()
        session.token["expires_at"] = 1
        assert session.get(f"{base_url}{API}/users/me").json()["email"] == email
    return given


async def test_the_document_tells_oauth2_clients_where_to_refresh(client: Client) -> None:
    scheme = client.contract.document["components"]["securitySchemes"]["OAuth2"]
    assert scheme["flows"]["password"]["refreshUrl"] == LOGIN
    await refused(client, "unknown")
