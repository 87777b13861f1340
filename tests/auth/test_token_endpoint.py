"""The token endpoint as OAuth2 clients use it (RFC 6749): errors and scopes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.apps import client_of
from tests.support.client import PASSWORD, Client
from tests.support.people import new_user
from tests.support.problems import problem


async def log_in(client: Client, email: str, **form: str) -> Any:
    given = {"username": email, "password": PASSWORD, **form}
    return await client.request("POST", "/auth/login", data=given)


async def test_errors_are_what_oauth2_clients_read_beside_our_own(client: Client) -> None:
    email = (await client.register())["email"]
    for form, status, code, error in (
        ({"password": "wrong"}, 401, "invalid_credentials", "invalid_grant"),
        ({"grant_type": "client_credentials"}, 422, "validation_error", "unsupported_grant_type"),
        ({"scope": "users:read everything"}, 422, "validation_error", "invalid_scope"),
        ({"username": ""}, 422, "validation_error", "invalid_request"),
        (
            {"grant_type": "refresh_token", "refresh_token": "x"},
            401,
            "invalid_refresh_token",
            "invalid_grant",
        ),
    ):
        body = problem(await log_in(client, email, **form), status, code)
        assert body["error"] == error
        assert body["error_description"].isascii()
        assert not {*body["error_description"]} & {*'"\\'}
    spanish = {"Accept-Language": "es"}
    refused = await client.post("/auth/refresh", {"refresh_token": "x"}, headers=spanish)
    body = refused.json()
    assert (refused.status_code, body["error"]) == (401, "invalid_grant")
    assert body["error_description"] == "The refresh token is not valid or has expired."
    assert "error" not in (await client.get("/users/me")).json()


async def test_a_session_says_what_it_may_do(client: Client) -> None:
    ana = await new_user(client, roles=["user"])
    answer = (await log_in(client, ana.email)).json()
    assert answer["scope"].split() == sorted((await ana.get("/users/me")).json()["permissions"])


@pytest.mark.parametrize("asked", ["users:read", " users:read  posts:moderate posts:moderate"])
async def test_a_session_may_do_no_more_than_it_asked_for(client: Client, asked: str) -> None:
    """Whatever roles its user has or gets; refreshed too. What they do not hold is not granted."""
    boss = await new_user(client, roles=["admin", "user"])
    granted = {*asked.split()}
    answer = (await log_in(client, boss.email, scope=asked)).json()
    for _ in range(2):
        assert answer["scope"].split() == sorted(granted)
        token = {"Authorization": f"Bearer {answer['access_token']}"}
        assert (await client.get("/users", headers=token)).status_code == 200
        me = (await client.get("/users/me", headers=token)).json()
        assert {*me["permissions"]} == granted
        for refused in (
            await client.post("/posts", {"title": "T", "content": ""}, headers=token),
            await client.post("/roles", {"name": "mine", "permissions": []}, headers=token),
            await client.get("/roles", headers=token),
        ):
            problem(refused, 403, "insufficient_scope")
        given = {"refresh_token": answer["refresh_token"]}
        answer = (await client.post("/auth/refresh", given)).json()
    ana = await new_user(client, roles=["user"])
    refused = await log_in(client, ana.email, scope="users:read")
    assert problem(refused, 422, "validation_error")["error"] == "invalid_scope"
    # Who finds out in this way that a password is right leaves a trace of it.
    trace = {"act": "login.failed", "subject_id": ana.id}
    assert (await boss.get("/audit-events", params=trace)).json()["total"] == 1


async def test_a_refresh_asks_for_no_more_than_its_session_has(client: Client) -> None:
    """RFC 6749 §6; the token is good for another try."""
    ana = await new_user(client, roles=["user"])
    answer = (await log_in(client, ana.email, scope="posts:write")).json()
    given = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
    refused = await log_in(client, ana.email, **given, scope="posts:write users:read")
    assert problem(refused, 422, "validation_error")["error"] == "invalid_scope"
    for _ in range(2):  # once more, within the grace
        renewed = await log_in(client, ana.email, **given, scope="posts:write")
        assert renewed.json()["scope"] == "posts:write"
    refused = await log_in(client, ana.email, **given, scope="users:read")
    assert refused.status_code == 422


async def test_the_root_leads_to_the_docs_or_names_the_api(client: Client, tmp_path: Path) -> None:
    answer = await client.http.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
    assert (await client.http.head("/", follow_redirects=False)).status_code == 307
    async with client_of(client, tmp_path, docs_enabled=False) as other:
        named = (await other.http.get("/")).json()
    assert named["name"] == "Cimiento API"
    assert (named["api"], named["health"]) == ("/api/v1", "/health")
