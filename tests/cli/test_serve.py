"""The commands that serve: what `run` prepares, and the settings that uvicorn gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.server import serving
from tests.support.client import Client
from tests.support.commands import SetEnv, admin_of, invoke, printed_password


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What uvicorn was asked to serve, instead of serving it."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        serving, "serve", lambda app, _, **options: calls.append({"app": app} | options)
    )
    return calls


# --- run, serve ------------------------------------------------------------------------------


@pytest.mark.usefixtures("same_database")
async def test_the_first_run_makes_one_admin_and_shows_the_password_once(
    client: Client, served: Sequence[object]
) -> None:
    first = await invoke("run")
    assert first.exit_code == 0, first.output
    assert "First admin:  admin@example.com" in first.stderr
    password = printed_password(first.stderr)
    assert len(password) >= 15
    admin = await admin_of(client, "admin@example.com", password)
    second = await invoke("run")
    assert second.exit_code == 0
    assert "Password" not in second.output
    assert "First admin" not in second.output
    assert (await admin.get("/users", params={"role": "admin"})).json()["total"] == 1
    assert len(served) == 2


@pytest.mark.usefixtures("same_database", "served")
async def test_a_given_password_is_used_and_not_shown(client: Client, set_env: SetEnv) -> None:
    given = "Tortoise-Lantern-7"
    set_env(first_admin_email="boss@example.com", first_admin_password=given)
    result = await invoke("run")
    assert result.exit_code == 0
    assert "First admin:  boss@example.com" in result.stderr
    assert given not in result.output
    assert "Password" not in result.output
    await admin_of(client, "boss@example.com", given)


@pytest.mark.usefixtures("same_database", "served")
async def test_production_makes_no_admin_by_itself(client: Client, set_env: SetEnv) -> None:
    """A54: no default account exists."""
    set_env(environment="production")
    result = await invoke("run")
    assert result.exit_code == 0, result.output
    assert "FIRST_ADMIN_PASSWORD" in result.stderr
    assert "Password:" not in result.output
    assert await client.register(email="admin@example.com"), "nobody has the address"


@pytest.mark.usefixtures("same_database", "served")
async def test_the_first_to_register_the_admins_address_keeps_it(
    client: Client, set_env: SetEnv
) -> None:
    """The server starts all the same, and they get no rights by it."""
    early = await client.user(email="boss@example.com")
    set_env(first_admin_email="boss@example.com", first_admin_password="Tortoise-Lantern-7")
    result = await invoke("run")
    assert result.exit_code == 0, result.output
    assert "scripts/create-admin" in result.stderr
    assert (await early.get("/users")).status_code == 403


@pytest.mark.usefixtures("same_database")
async def test_an_admin_who_could_never_log_in_is_not_made(
    set_env: SetEnv, served: Sequence[object]
) -> None:
    set_env(first_admin_email="admin@corp.local")
    result = await invoke("run")
    assert result.exit_code == 1
    assert "FIRST_ADMIN_EMAIL" in str(result.exception)
    assert not served


@pytest.mark.usefixtures("same_database", "served")
async def test_run_leaves_existing_admins_alone(client: Client) -> None:
    await client.admin()
    result = await invoke("run")
    assert "First admin" not in result.output
    assert await client.register(email="admin@example.com")


async def test_serve_hands_uvicorn_the_settings(
    set_env: SetEnv, served: list[dict[str, Any]]
) -> None:
    """A48, A52: no banner, no access lines of its own, no trust in anybody's headers."""
    set_env(host="0.0.0.0", port=9001, workers=3)
    result = await invoke("serve")
    assert result.exit_code == 0, result.output
    [call] = served
    assert call["app"] == "app.main:create_app"
    assert (call["host"], call["port"], call["workers"]) == ("0.0.0.0", 9001, 3)
    assert (call["server_header"], call["access_log"], call["log_config"]) == (False, False, None)
    assert (call["proxy_headers"], call["forwarded_allow_ips"]) == (False, [])
    assert "http://127.0.0.1:9001/docs" in result.stderr


async def test_serve_trusts_the_proxies_of_the_settings_alone(
    set_env: SetEnv, served: list[dict[str, Any]]
) -> None:
    """A48"""
    set_env(trusted_proxies="10.0.0.1, 10.1.0.0/16", docs_enabled=False)
    result = await invoke("serve")
    [call] = served
    assert call["proxy_headers"] is True
    assert call["forwarded_allow_ips"] == ["10.0.0.1", "10.1.0.0/16"]
    assert "/docs" not in result.output


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"workers": 2}, "WORKERS=1"),
        ({"environment": "production"}, "ENVIRONMENT=development"),
        ({}, ""),
    ],
)
async def test_only_one_worker_of_a_developer_reloads(
    set_env: SetEnv, served: list[dict[str, Any]], values: dict[str, object], reason: str
) -> None:
    set_env(port=0, **values)
    result = await invoke("serve", "--reload")
    if not reason:
        assert served[0]["reload"] is True
        return
    assert (result.exit_code, served) == (1, [])
    assert reason in str(result.exception)
